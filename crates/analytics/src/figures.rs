//! The service's documents.

use std::collections::BTreeMap;

use contracts::orders::CancelReason;
use contracts::{Currency, ProductId};
use millstream::{Document, Timestamp};
use serde::{Deserialize, Serialize};

use crate::spread::Spread;
use crate::sum::Sum;

/// The totals of all orders. There is one such document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Time of the earliest counted event.
    pub since: Option<Timestamp>,
    /// Time of the latest counted event.
    pub until: Option<Timestamp>,
    /// Orders accepted.
    pub accepted: u64,
    /// Orders confirmed.
    pub confirmed: u64,
    /// Orders cancelled.
    pub cancelled: Cancelled,
    /// Revenue of confirmed orders, by currency.
    pub revenue: BTreeMap<String, Sum>,
    /// From an order's acceptance to its confirmation.
    pub to_confirmed: Spread,
    /// From an order's acceptance to its cancellation.
    pub to_cancelled: Spread,
}

impl Totals {
    pub(crate) const ID: &'static str = "all";

    /// Extends the counted period.
    pub(crate) fn saw(&mut self, at: Timestamp) {
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.until = self.until.max(Some(at));
    }
}

impl Document for Totals {
    const COLLECTION: &'static str = "totals";

    fn id(&self) -> &str {
        Self::ID
    }
}

/// Orders cancelled, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct Cancelled {
    /// At least one line was short.
    pub out_of_stock: u64,
    /// The payment was declined.
    pub declined: u64,
    /// They were not finished by the deadline.
    pub deadline: u64,
    /// The customers asked for it.
    pub customer: u64,
}

impl Cancelled {
    pub(crate) fn add(&mut self, reason: CancelReason) {
        *match reason {
            CancelReason::OutOfStock => &mut self.out_of_stock,
            CancelReason::Declined => &mut self.declined,
            CancelReason::Deadline => &mut self.deadline,
            CancelReason::Customer => &mut self.customer,
        } += 1;
    }
}

/// Sales of a product in confirmed orders, in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sold {
    /// Of product and currency.
    id: String,
    /// The product.
    pub product_id: ProductId,
    /// The currency.
    pub currency: Currency,
    /// The quantity.
    pub quantity: u64,
    /// The revenue.
    pub revenue: Sum,
}

impl Sold {
    /// The id of a product's figures in a currency. A product's id may have any of the characters an id has, so the fixed length
    /// of the currency's comes first.
    pub(crate) fn id_of(product: &ProductId, currency: Currency) -> String {
        format!("{currency}.{product}")
    }

    pub(crate) fn none_of(product_id: ProductId, currency: Currency) -> Self {
        let id = Self::id_of(&product_id, currency);
        Self { id, product_id, currency, quantity: 0, revenue: Sum::default() }
    }
}

impl Document for Sold {
    const COLLECTION: &'static str = "sold";

    fn id(&self) -> &str {
        &self.id
    }
}
