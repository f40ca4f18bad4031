//! A gentle load, so that there is something to watch: small orders for the catalogue's products, a few cancelled.

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::stock::CATALOGUE;

/// Submits orders without end. Refused orders are not retried.
pub(crate) async fn run(client: Client, orders: String, per_second: f64) {
    let mut tick = interval(Duration::from_secs_f64(1.0 / per_second));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = submit(&client, &orders, random()).await {
            tracing::debug!(%error, "a demo order was not accepted");
        }
    }
}

/// The content of the next order.
pub(crate) fn random() -> u64 {
    Uuid::now_v7().as_u128() as u64
}

/// Places an order.
pub(crate) async fn place(client: &Client, orders: &str, random: u64) -> reqwest::Result<Response> {
    let request = client.post(format!("{orders}/orders")).header("content-type", "application/json");
    request.body(order(random)).send().await?.error_for_status()
}

async fn submit(client: &Client, orders: &str, random: u64) -> reqwest::Result<()> {
    let answer = place(client, orders, random).await?;
    // One in thirty is cancelled immediately.
    if random.is_multiple_of(30) {
        let order: Value = answer.json().await?;
        if let Some(id) = order["id"].as_str() {
            client.post(format!("{orders}/orders/{id}/cancel")).send().await?;
        }
    }
    Ok(())
}

/// An order of one to three of a product.
fn order(random: u64) -> String {
    let product = &CATALOGUE[(random >> 8) as usize % CATALOGUE.len()];
    let quantity = (random >> 24) as u32 % 3 + 1;
    let money = |cents: u32| format!("{}.{:02}", cents / 100, cents % 100);
    format!(
        r#"{{"userId":"demo-{}","items":[{{"productId":"{}","quantity":{quantity},"price":{}}}],"totalAmount":{}}}"#,
        (random >> 32) % 100,
        product.id,
        money(product.price),
        money(product.price * quantity),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_of_the_load_adds_up() {
        for random in 0..1000_u64 {
            let order: Value = serde_json::from_str(&order(random << 8 | random << 24)).unwrap();
            let item = &order["items"][0];
            let cents = |value: &Value| (value.as_f64().unwrap() * 100.0).round() as u64;
            assert_eq!(cents(&item["price"]) * item["quantity"].as_u64().unwrap(), cents(&order["totalAmount"]));
        }
    }
}
