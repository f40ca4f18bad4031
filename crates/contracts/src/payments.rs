//! Events of the payments service: outcomes of charges and refunds.

use millstream_core::{Event, Stream};
use serde::{Deserialize, Serialize};

use crate::{Currency, Money, OrderId, UserId};

/// The stream of the payments service.
pub const STREAM: Stream = Stream::new("PAYMENTS", "payments");

/// A charge has a definite outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentProcessed {
    /// The order.
    pub order_id: OrderId,
    /// The outcome.
    pub status: PaymentStatus,
    /// The amount.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// The customer.
    pub customer: UserId,
    /// The gateway's id of the charge, if it was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_id: Option<String>,
    /// The gateway's reason for a failure.
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

/// The outcome of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PaymentStatus {
    /// The charge was captured.
    Success,
    /// It was declined.
    Failed,
}

/// A captured charge was refunded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: OrderId,
    /// The amount.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// The customer.
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
