//! What the orders service tells: an order was placed, and how it ended.

use millstream_core::{Event, Stream};
use serde::{Deserialize, Serialize};

use crate::{Currency, Line, Money, OrderId, UserId};

/// The stream of the orders service.
pub const STREAM: Stream = Stream::new("ORDERS", "orders");

/// An order was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub user_id: UserId,
    /// What was ordered; each product once.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
    /// What the lines add up to.
    #[serde(rename = "totalAmount")]
    pub total: Money,
    /// The currency of all amounts.
    pub currency: Currency,
}

impl Event for OrderCreated {
    const TYPE: &'static str = "orders.created";
    const STREAM: Stream = STREAM;
    const PERSONAL: &'static [&'static str] = &["userId"];
    fn key(&self) -> &str {
        &self.order_id
    }
}

/// An order ended well: it is in stock and paid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderConfirmed {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub user_id: UserId,
    /// What was ordered.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
    /// What was paid.
    #[serde(rename = "totalAmount")]
    pub total: Money,
    /// The currency of all amounts.
    pub currency: Currency,
}

impl Event for OrderConfirmed {
    const TYPE: &'static str = "orders.confirmed";
    const STREAM: Stream = STREAM;
    const PERSONAL: &'static [&'static str] = &["userId"];
    fn key(&self) -> &str {
        &self.order_id
    }
}

/// An order ended otherwise: nothing of it stays reserved or charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub user_id: UserId,
    /// What was ordered.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
    /// What it would have cost.
    #[serde(rename = "totalAmount")]
    pub total: Money,
    /// The currency of all amounts.
    pub currency: Currency,
    /// Why.
    pub reason: CancelReason,
}

impl Event for OrderCancelled {
    const TYPE: &'static str = "orders.cancelled";
    const STREAM: Stream = STREAM;
    const PERSONAL: &'static [&'static str] = &["userId"];
    fn key(&self) -> &str {
        &self.order_id
    }
}

/// Why an order was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelReason {
    /// At least one line was short.
    OutOfStock,
    /// The payment was declined.
    Declined,
    /// It had not ended in time.
    Deadline,
    /// The customer asked for it.
    Customer,
}
