//! [`SetStock`]: the initial stock of a product.

use contracts::ProductId;
use millstream::{Command, Fault, Id, Keys, Unit};
use serde::{Deserialize, Serialize};

use crate::documents::Product;

/// Sets a product's initial stock, and creates the product if necessary.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetStock {
    /// The product.
    pub product_id: ProductId,
    /// The name; `None` keeps the current one.
    pub name: Option<String>,
    /// The initial quantity, including what is reserved and sold.
    pub initial: u64,
}

/// A product's stock, as returned to callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stock {
    product_id: ProductId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    initial: u64,
    available: u64,
    reserved: u64,
    sold: u64,
}

impl From<Product> for Stock {
    fn from(product: Product) -> Self {
        let available = product.available();
        let Product { id, name, initial, reserved, sold } = product;
        Self { product_id: id, name, initial, available, reserved, sold }
    }
}

impl Command for SetStock {
    type Reply = Stock;

    fn touches(&self, _: Id) -> Keys {
        Keys::one::<Product>(&self.product_id)
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<Stock, Fault> {
        let id = &self.product_id;
        let known = unit.get::<Product>(id)?;
        let mut product =
            known.unwrap_or_else(|| Product { id: id.clone(), name: None, initial: 0, reserved: 0, sold: 0 });
        let (reserved, sold) = (product.reserved, product.sold);
        if self.initial < reserved + sold {
            return Err(Fault::conflict(format!(
                "{reserved} of {id} are reserved and {sold} sold: initial must be at least {}, not {}",
                reserved + sold,
                self.initial
            )));
        }
        product.initial = self.initial;
        product.name = self.name.clone().or(product.name);
        unit.put(product.clone());
        Ok(product.into())
    }
}
