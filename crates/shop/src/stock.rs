//! What is in stock at the start: a small catalogue of the shop's own, or a file.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, StatusCode};
use serde_json::json;

/// A product of the shop's own catalogue.
#[derive(Debug)]
pub struct Product {
    /// Its id.
    pub id: &'static str,
    /// Its price in cents. The gateway simulator goes by the cents of an order's total, hence the odd ones.
    pub price: u32,
    /// How many there are at first.
    pub initial: u64,
}

const fn product(id: &'static str, price: u32, initial: u64) -> Product {
    Product { id, price, initial }
}

/// Enough of most for weeks of the demo load; the teapot runs out, so that orders are rejected, too.
pub const CATALOGUE: &[Product] = &[
    product("coffee-250g", 850, 10_000_000),
    product("coffee-1kg", 2990, 10_000_000),
    product("tea-green", 620, 10_000_000),
    product("tea-earl-grey", 580, 10_000_000),
    product("honey", 740, 10_000_000),
    product("filter-papers", 300, 10_000_000),
    product("mug", 1200, 10_000_000),
    product("grinder", 6400, 10_000_000),
    product("gift-card", 2513, 10_000_000),
    product("teapot", 3950, 25),
];

/// Puts into stock what is not known yet, so that a shop that was here before keeps its own numbers.
///
/// # Errors
/// When the inventory service does not answer as it should.
pub async fn seed(client: &Client, inventory: &str) -> Result<()> {
    for product in CATALOGUE {
        let answer = client.get(format!("{inventory}/stock/{}", product.id)).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            put(client, inventory, product.id, product.initial).await?;
        }
    }
    Ok(())
}

/// Sets what there is of a product.
///
/// # Errors
/// When the inventory service refuses.
pub async fn put(client: &Client, inventory: &str, product: &str, initial: u64) -> Result<()> {
    let url = format!("{inventory}/stock/{product}");
    let answer = client.put(&url).json(&json!({ "initial": initial })).send().await?;
    let status = answer.status();
    ensure!(status.is_success(), "PUT {url} answered {status}: {}", answer.text().await.unwrap_or_default());
    Ok(())
}

/// Reads a stock file: CSV whose header names the product's id and how many there are, in any order, beside other columns.
///
/// # Errors
/// When it cannot be read; the message names the line.
pub fn read(path: &Path) -> Result<Vec<(String, u64)>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(file).with_context(|| format!("{} is not a valid stock file", path.display()))
}

fn parse(text: impl std::io::Read) -> Result<Vec<(String, u64)>> {
    let mut csv = csv::Reader::from_reader(text);
    let header = csv.headers()?.clone();
    let column = |names: &[&str]| {
        let at = header.iter().position(|have| names.iter().any(|name| have.trim().eq_ignore_ascii_case(name)));
        at.with_context(|| format!("the header has none of the columns {}", names.join(", ")))
    };
    let id = column(&["productId"])?;
    let initial = column(&["initial", "stock", "unitsInStock"])?;
    let mut stock = vec![];
    for record in csv.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let count = record.get(initial).unwrap_or_default().trim();
        let count = count.parse().with_context(|| format!("line {line}: `{count}` is not a number of units"))?;
        stock.push((record.get(id).unwrap_or_default().trim().to_owned(), count));
    }
    ensure!(!stock.is_empty(), "the file has no products");
    Ok(stock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_file_may_have_the_shops_header_or_northwinds() {
        assert_eq!(parse("productId,initial\nmug,3\n".as_bytes()).unwrap(), [("mug".into(), 3)]);
        let northwind = "ProductID,ProductName,UnitPrice,UnitsInStock\n1,\"Chai, black\",18.00,39\n";
        assert_eq!(parse(northwind.as_bytes()).unwrap(), [("1".into(), 39)]);
    }

    #[test]
    fn a_faulty_stock_file_is_refused_with_the_line_or_the_column() {
        for (text, told) in [
            ("productId,price\nmug,3\n", "none of the columns initial, stock, unitsInStock"),
            ("productId,initial\nmug,3\npot,many\n", "line 3: `many`"),
            ("productId,initial\n", "no products"),
        ] {
            let error = format!("{:#}", parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(told), "{error}");
        }
    }
}
