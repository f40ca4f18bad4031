//! Events of the orders service: an order was placed, and its outcome.

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
    /// The customer.
    pub user_id: UserId,
    /// The order lines; each product once.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
    /// The sum of the lines.
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

/// An order was confirmed: it is in stock and paid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderConfirmed {
    /// The order.
    pub order_id: OrderId,
    /// The customer.
    pub user_id: UserId,
    /// The order lines.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
    /// The amount paid.
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

/// An order was cancelled: nothing of it stays reserved or charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// The customer.
    pub user_id: UserId,
    /// The order lines.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
    /// The total of the order.
    #[serde(rename = "totalAmount")]
    pub total: Money,
    /// The currency of all amounts.
    pub currency: Currency,
    /// The reason.
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

/// The reason of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelReason {
    /// At least one line was out of stock.
    OutOfStock,
    /// The payment was declined.
    Declined,
    /// It was not finished by the deadline.
    Deadline,
    /// The customer cancelled it.
    Customer,
}
