//! [`Notification`]: a message to a customer.

use contracts::orders::CancelReason;
use contracts::{Currency, Money, OrderId, UserId};
use millstream::{Document, Timestamp};
use serde::{Deserialize, Serialize};

/// A notification, as stored and as returned to callers. There is one per announced event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// The id of the event; it begins with the time, so ids sort by age.
    pub id: String,
    /// The order.
    pub order_id: OrderId,
    /// The occasion.
    pub occasion: Occasion,
    /// The customer.
    pub user_id: UserId,
    /// The address.
    pub to: String,
    /// `Message-ID` of the mail, the same for every attempt.
    pub message_id: String,
    /// The order's total, or the refunded amount.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// The reason if the order was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CancelReason>,
    /// When it happened.
    pub happened_at: Timestamp,
    /// The status.
    pub status: Status,
    /// The channel: `smtp` or `log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// When it was sent or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The mail server's reason for the rejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Document for Notification {
    const COLLECTION: &'static str = "notifications";
    const INDEXED: &'static [&'static str] = &["orderId"];

    fn id(&self) -> &str {
        &self.id
    }
}

/// The occasion of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Occasion {
    /// The order was confirmed.
    Confirmed,
    /// The order was cancelled.
    Cancelled,
    /// The order was refunded.
    Refunded,
}

/// The status of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Waiting to be sent, or being sent; retried without limit.
    Sending,
    /// Accepted by the mail server, or written to the log.
    Sent,
    /// Permanently rejected by the mail server.
    Failed,
}
