//! The texts of the mails.

#[cfg(any(test, feature = "smtp"))]
use contracts::orders::CancelReason;

use crate::notification::{Notification, Occasion};

/// The subject of a mail.
pub(crate) fn subject(notification: &Notification) -> String {
    let order = &notification.order_id;
    match notification.occasion {
        Occasion::Confirmed => format!("Your order {order} is confirmed"),
        Occasion::Cancelled => format!("Your order {order} was cancelled"),
        Occasion::Refunded => format!("Refund for your order {order}"),
    }
}

/// The text of a mail.
#[cfg(any(test, feature = "smtp"))]
pub(crate) fn text(notification: &Notification) -> String {
    let Notification { order_id: order, user_id: user, amount, currency, .. } = notification;
    let said = match notification.occasion {
        Occasion::Confirmed => {
            format!(
                "your order {order} is confirmed: all items are in stock, and your payment of {amount} {currency} was received."
            )
        }
        Occasion::Cancelled => {
            let why = notification.reason.map_or("", why);
            format!(
                "your order {order} over {amount} {currency} was cancelled{why}.\n\n\
                 There is nothing to pay. Anything already charged will be refunded automatically."
            )
        }
        Occasion::Refunded => format!("we have refunded {amount} {currency} for your cancelled order {order}."),
    };
    format!("Hello {user},\n\n{said}\n")
}

#[cfg(any(test, feature = "smtp"))]
fn why(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::OutOfStock => ", because some items are out of stock",
        CancelReason::Declined => ", because the payment was declined",
        CancelReason::Deadline => ", because it could not be completed in time",
        CancelReason::Customer => ", as you requested",
    }
}
