//! What the inventory service tells: whether an order's goods are set aside.

use millstream_core::{Event, Stream};
use serde::{Deserialize, Serialize};

use crate::{Currency, Line, Money, OrderId, ProductId, UserId};

/// The stream of the inventory service.
pub const STREAM: Stream = Stream::new("INVENTORY", "inventory");

/// All lines of an order are set aside. Carries what payments needs to charge for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryReserved {
    /// The order.
    pub order_id: OrderId,
    /// What is to be paid.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// Who pays.
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

/// At least one line of an order is short; nothing of it is set aside.
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

/// A product of which more was asked for than there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShortLine {
    /// The product.
    pub product_id: ProductId,
    /// How many were asked for.
    pub requested: u64,
    /// How many there were; 0 of a product that is not known.
    pub available: u64,
}

/// What was set aside for an order is available again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryReleased {
    /// The order.
    pub order_id: OrderId,
    /// What had been set aside.
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
