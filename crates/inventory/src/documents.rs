//! What the service keeps.

use contracts::{Line, OrderId, ProductId};
use millstream::Document;
use serde::{Deserialize, Serialize};

/// The stock of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// The product.
    pub id: ProductId,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many there were to begin with.
    pub initial: u64,
    /// How many are set aside for orders that have not ended.
    pub reserved: u64,
    /// How many went with confirmed orders.
    pub sold: u64,
}

impl Product {
    /// How many can be promised.
    pub fn available(&self) -> u64 {
        self.initial.saturating_sub(self.reserved).saturating_sub(self.sold)
    }

    /// Ends the setting aside of so many.
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

/// What was decided about an order's goods. There is one for each order that was heard of, so that an event that comes
/// again, or a cancel that comes first, finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The order.
    #[serde(rename = "orderId")]
    pub id: OrderId,
    /// Where it stands.
    pub status: Status,
    /// What was asked for.
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

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// All lines are set aside.
    Reserved,
    /// At least one was short, none is set aside.
    Rejected,
    /// The order was cancelled: nothing is set aside, or ever will be.
    Released,
    /// The order was confirmed: the goods are gone.
    Sold,
}
