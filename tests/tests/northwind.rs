//! The Northwind orders, through the whole shop.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use millstream::testing::{eventually, skip};
use serde::Deserialize;

use crate::harness::{SOON, TestApp, at_rest, line, order_of};

/// An order of the files: who, and the lines with prices in cents.
struct Order {
    customer: String,
    lines: Vec<(String, u32, u64)>,
}

struct Northwind {
    /// In the order of their numbers.
    orders: Vec<Order>,
    stock: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OrderRow {
    #[serde(rename = "OrderID")]
    order: u32,
    #[serde(rename = "CustomerID")]
    customer: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LineRow {
    #[serde(rename = "OrderID")]
    order: u32,
    #[serde(rename = "ProductID")]
    product: String,
    unit_price: String,
    quantity: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProductRow {
    #[serde(rename = "ProductID")]
    product: String,
    units_in_stock: u64,
}

/// The files, if they are there.
fn read() -> Option<Northwind> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/northwind"));
    if !folder.exists() {
        skip("Northwind through the shop", "the folder ../shared/data/northwind beside the workspace is not there");
        return None;
    }
    fn rows<T: for<'de> Deserialize<'de>>(path: PathBuf) -> Vec<T> {
        csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
    }
    let products: Vec<ProductRow> = rows(folder.join("products.csv"));
    let mut orders: BTreeMap<u32, Order> = rows::<OrderRow>(folder.join("orders.csv"))
        .into_iter()
        .map(|row| (row.order, Order { customer: row.customer, lines: vec![] }))
        .collect();
    for row in rows::<LineRow>(folder.join("order_details.csv")) {
        let (whole, cents) = row.unit_price.split_once('.').unwrap();
        let cents = whole.parse::<u64>().unwrap() * 100 + cents.parse::<u64>().unwrap();
        orders.get_mut(&row.order).unwrap().lines.push(line(&row.product, row.quantity, cents));
    }
    Some(Northwind {
        orders: orders.into_values().collect(),
        stock: products.into_iter().map(|row| (row.product, row.units_in_stock)).collect(),
    })
}

async fn stocked(northwind: &Northwind) -> TestApp {
    let app = TestApp::start().await;
    for (product, units) in &northwind.stock {
        app.stock(product, *units).await;
    }
    app
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn northwinds_orders_one_after_another_end_as_the_files_determine() {
    let Some(northwind) = read() else { return };
    let app = stocked(&northwind).await;
    let mut left = northwind.stock.clone();
    let (mut confirmed, mut revenue) = (0, 0);
    let started = Instant::now();
    for (number, Order { customer, lines }) in northwind.orders.iter().enumerate() {
        let fits = lines.iter().all(|(product, quantity, _)| left[product] >= u64::from(*quantity));
        let id = app.place(order_of(customer, lines)).await;
        let until = Instant::now() + SOON;
        let order = loop {
            let order = app.order(&id).await;
            if at_rest(&order) {
                break order;
            }
            assert!(Instant::now() < until, "order {number} has not ended: {order}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let expected = if fits { ("CONFIRMED", None) } else { ("CANCELLED", Some("OUT_OF_STOCK")) };
        assert_eq!((order["status"].as_str().unwrap(), order["reason"].as_str()), expected, "order {number}: {order}");
        if fits {
            confirmed += 1;
            for (product, quantity, price) in lines {
                *left.get_mut(product).unwrap() -= u64::from(*quantity);
                revenue += u64::from(*quantity) * price;
            }
        }
    }
    let took = started.elapsed();
    println!("{confirmed} of {} confirmed in {took:.1?}", northwind.orders.len());
    assert!(confirmed > 0 && confirmed < northwind.orders.len());
    app.wire().await.drained().await;
    for (product, units) in &northwind.stock {
        assert_eq!(app.stock_of(product).await, [*units, 0, units - left[product]], "product {product}");
    }
    let net = async || app.get(format!("{}/summary", app.urls.gateway)).await.json()["net"].to_string();
    let expected = serde_json::from_str::<f64>(&format!("{}.{:02}", revenue / 100, revenue % 100)).unwrap().to_string();
    assert_eq!(net().await, expected, "the gateway's money");
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn northwinds_orders_all_at_once_keep_every_invariant() {
    let Some(northwind) = read() else { return };
    let app = stocked(&northwind).await;
    let count = northwind.orders.len();
    let body = |number: usize| order_of(&northwind.orders[number].customer, &northwind.orders[number].lines);
    app.place_many(count, count, body).await;
    let orders = app.all_ended(count).await;
    let confirmed = orders.iter().filter(|order| order["status"] == "CONFIRMED").count();
    println!("{confirmed} of {count} confirmed");
    let mut sold = HashMap::<String, u64>::new();
    for item in orders
        .iter()
        .filter(|order| order["status"] == "CONFIRMED")
        .flat_map(|order| order["items"].as_array().unwrap())
    {
        *sold.entry(item["productId"].as_str().unwrap().into()).or_default() += item["quantity"].as_u64().unwrap();
    }
    for (product, units) in &northwind.stock {
        let sold = sold.get(product).copied().unwrap_or_default();
        assert!(sold <= *units, "product {product}: {sold} of {units}");
        let settled = async || app.stock_of(product).await == [*units, 0, sold];
        eventually(&format!("stock of {product} that agrees with confirmed orders"), SOON, settled).await;
    }
    app.close().await;
}
