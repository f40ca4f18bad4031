//! What the payments service tells: whether the money was taken, and whether it was given back.

use millstream_core::{Event, Stream};
use serde::{Deserialize, Serialize};

use crate::{Currency, Money, OrderId, UserId};

/// The stream of the payments service.
pub const STREAM: Stream = Stream::new("PAYMENTS", "payments");

/// A charge came to a definite end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentProcessed {
    /// The order.
    pub order_id: OrderId,
    /// Whether the money was taken.
    pub status: PaymentStatus,
    /// How much it is about.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// Who pays.
    pub customer: UserId,
    /// The gateway's id of the charge, if it was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_id: Option<String>,
    /// Why it failed, in the gateway's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Event for PaymentProcessed {
    const TYPE: &'static str = "payments.processed";
    const STREAM: Stream = STREAM;
    const PERSONAL: &'static [&'static str] = &["customer"];
    fn key(&self) -> &str {
        &self.order_id
    }
}

/// How a charge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PaymentStatus {
    /// The money was taken.
    Success,
    /// It was declined.
    Failed,
}

/// What had been taken was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: OrderId,
    /// How much.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// To whom.
    pub customer: UserId,
}

impl Event for PaymentRefunded {
    const TYPE: &'static str = "payments.refunded";
    const STREAM: Stream = STREAM;
    const PERSONAL: &'static [&'static str] = &["customer"];
    fn key(&self) -> &str {
        &self.order_id
    }
}
