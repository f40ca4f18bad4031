//! The words.

#[cfg(any(test, feature = "smtp"))]
use contracts::orders::CancelReason;

use crate::notification::{Notification, Occasion};

/// The subject of a mail.
pub(crate) fn subject(notification: &Notification) -> String {
    let order = &notification.order_id;
    match notification.occasion {
        Occasion::Confirmed => format!("Your order {order} is confirmed"),
        Occasion::Cancelled => format!("Your order {order} was cancelled"),
        Occasion::Refunded => format!("Your money for order {order} comes back"),
    }
}

/// The text of a mail.
#[cfg(any(test, feature = "smtp"))]
pub(crate) fn text(notification: &Notification) -> String {
    let Notification { order_id: order, user_id: user, amount, currency, .. } = notification;
    let said = match notification.occasion {
        Occasion::Confirmed => {
            format!("your order {order} is confirmed: everything is in stock, and {amount} {currency} are paid.")
        }
        Occasion::Cancelled => {
            let why = notification.reason.map_or("", why);
            format!(
                "your order {order} over {amount} {currency} was cancelled{why}.\n\n\
                 Nothing is to be paid. Should something have been charged already, it comes back by itself."
            )
        }
        Occasion::Refunded => format!("we have given back the {amount} {currency} of your cancelled order {order}."),
    };
    format!("Hello {user},\n\n{said}\n")
}

#[cfg(any(test, feature = "smtp"))]
fn why(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::OutOfStock => ", because not everything in it is in stock",
        CancelReason::Declined => ", because the payment was declined",
        CancelReason::Deadline => ", because it could not be completed in time",
        CancelReason::Customer => ", as you asked us to",
    }
}
