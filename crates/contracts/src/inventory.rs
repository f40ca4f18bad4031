//! Events of the inventory service: the reservation of an order's stock.

use millstream_core::{Event, Stream};
use serde::{Deserialize, Serialize};

use crate::{Currency, Line, Money, OrderId, ProductId, UserId};

/// The stream of the inventory service.
pub const STREAM: Stream = Stream::new("INVENTORY", "inventory");

/// All lines of an order are reserved. Carries what payments needs for the charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryReserved {
    /// The order.
    pub order_id: OrderId,
    /// The amount to pay.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// The customer.
    pub customer: UserId,
}

impl Event for InventoryReserved {
    const TYPE: &'static str = "inventory.reserved";
    const STREAM: Stream = STREAM;
    const PERSONAL: &'static [&'static str] = &["customer"];
    fn key(&self) -> &str {
        &self.order_id
    }
}

/// At least one line of an order is short of stock; nothing is reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryRejected {
    /// The order.
    pub order_id: OrderId,
    /// The lines that are short.
    pub short: Vec<ShortLine>,
}

impl Event for InventoryRejected {
    const TYPE: &'static str = "inventory.rejected";
    const STREAM: Stream = STREAM;
    fn key(&self) -> &str {
        &self.order_id
    }
}

/// A product with less stock than requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShortLine {
    /// The product.
    pub product_id: ProductId,
    /// The requested quantity.
    pub requested: u64,
    /// The available quantity; 0 for an unknown product.
    pub available: u64,
}

/// The reserved stock of an order is available again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryReleased {
    /// The order.
    pub order_id: OrderId,
    /// The released lines.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
}

impl Event for InventoryReleased {
    const TYPE: &'static str = "inventory.released";
    const STREAM: Stream = STREAM;
    fn key(&self) -> &str {
        &self.order_id
    }
}
