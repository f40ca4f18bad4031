//! The service's documents.

use contracts::{Line, OrderId, ProductId};
use millstream::Document;
use serde::{Deserialize, Serialize};

/// The stock of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// The product.
    pub id: ProductId,
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The initial quantity.
    pub initial: u64,
    /// The quantity reserved for unfinished orders.
    pub reserved: u64,
    /// The quantity sold with confirmed orders.
    pub sold: u64,
}

impl Product {
    /// The quantity that can still be reserved.
    pub fn available(&self) -> u64 {
        self.initial.saturating_sub(self.reserved).saturating_sub(self.sold)
    }

    /// Ends the reservation of a quantity.
    pub(crate) fn take_back(&mut self, quantity: u64) {
        let left = self.reserved.checked_sub(quantity);
        self.reserved = left.unwrap_or_else(|| panic!("{quantity} of {} are not reserved: {self:?}", self.id));
    }
}

impl Document for Product {
    const COLLECTION: &'static str = "products";

    fn id(&self) -> &str {
        &self.id
    }
}

/// The reservation of an order's stock. There is one for each known order, so that a repeated event, or a cancellation
/// that arrives first, finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The order.
    #[serde(rename = "orderId")]
    pub id: OrderId,
    /// The status.
    pub status: Status,
    /// The requested lines.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
}

impl Document for Reservation {
    const COLLECTION: &'static str = "reservations";
    const INDEXED: &'static [&'static str] = &["status"];

    fn id(&self) -> &str {
        &self.id
    }
}

/// The status of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// All lines are reserved.
    Reserved,
    /// At least one line was short; nothing is reserved.
    Rejected,
    /// The order was cancelled: nothing is or will be reserved.
    Released,
    /// The order was confirmed: the stock is sold.
    Sold,
}
