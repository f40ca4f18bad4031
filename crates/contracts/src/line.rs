//! [`Line`]: one line of an order.

use serde::{Deserialize, Serialize};

use crate::{Money, ProductId};

/// One line of an order: a product, a quantity and a unit price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The product.
    pub product_id: ProductId,
    /// The quantity.
    pub quantity: u32,
    /// The unit price.
    pub price: Money,
}

impl Line {
    /// The sum of the lines; `None` if it exceeds the largest amount.
    pub fn total(lines: &[Self]) -> Option<Money> {
        lines.iter().try_fold(Money::ZERO, |sum, line| sum.checked_add(line.price.checked_mul(line.quantity)?))
    }
}
