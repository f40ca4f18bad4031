//! [`Line`]: one line of an order.

use serde::{Deserialize, Serialize};

use crate::{Money, ProductId};

/// One line of an order: so many of a product at a price each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The product.
    pub product_id: ProductId,
    /// How many.
    pub quantity: u32,
    /// The price of one.
    pub price: Money,
}

impl Line {
    /// What the lines add up to; `None` if that is more than an amount can be.
    pub fn total(lines: &[Self]) -> Option<Money> {
        lines.iter().try_fold(Money::ZERO, |sum, line| sum.checked_add(line.price.checked_mul(line.quantity)?))
    }
}
