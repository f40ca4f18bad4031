//! An event that its reader cannot parse, and that has no effect once it is repaired.
//!
//! It concerns a real order for a product that does not exist, so inventory rejects it and the order is cancelled. The
//! poison is a second `inventory.rejected` for that order, as a faulty release might have written it: a quantity is a word.
//! The orders service, its only reader, parks it at once as `schema`. What was wrong with it is in it, so redriven as it is it
//! fails again; edited it is handled, and says what is known already, or will be: the order ends cancelled for want of stock
//! whichever of the two comes first. No money and no stock hang on it, so every invariant holds with the letter dead, redriven,
//! edited or discarded. (A poisoned event that the saga needs would keep its order from ending; one of an order that does
//! not exist would be tried for half a minute, and a charge or a reservation without its order is a violation.)
//!
//! All of it has a correlation id that begins with [`POISONED`], by which `shop check` knows the dead letter.

use anyhow::{Context, Result};
use async_nats::HeaderMap;
use async_nats::jetstream;
use contracts::inventory::{InventoryRejected, ShortLine};
use millstream::event::Emitted;
use millstream::{Id, Meta, Timestamp};
use reqwest::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::whole::Urls;
use crate::wire;

/// What the correlation id of all that is poisoned begins with.
pub(crate) const POISONED: &str = "demo-poison-";

/// Nobody sells it.
const PRODUCT: &str = "moon-dust";

/// Places the order and publishes the event; what they are.
pub(crate) async fn publish(http: &Client, urls: &Urls) -> Result<Value> {
    let correlation = format!("{POISONED}{}", Uuid::now_v7().simple());
    let order = json!({
        "userId": "demo-poison",
        "items": [{ "productId": PRODUCT, "quantity": 1, "price": 1.0 }],
        "totalAmount": 1.0,
    });
    let request = http.post(format!("{}/orders", urls.orders)).header("x-correlation-id", &correlation);
    let order: Value = request.json(&order).send().await?.error_for_status()?.json().await?;
    let order_id = order["id"].as_str().context("an order has an id")?.parse()?;

    let time = Timestamp::system();
    let meta = Meta { id: Id::random(time), time, correlation, causation: None, traceparent: None };
    let short = vec![ShortLine { product_id: PRODUCT.parse()?, requested: 1, available: 0 }];
    let event = Emitted::event("demo", &meta, &InventoryRejected { order_id, short })?;
    let mut body: Value = serde_json::from_slice(&event.payload)?;
    body["short"][0]["requested"] = "one".into();

    let mut headers = HeaderMap::new();
    for (name, value) in &event.headers {
        headers.append(name.as_str(), value.as_str());
    }
    let broker = jetstream::new(wire::broker(&urls.nats).await?);
    let sent = broker.publish_with_headers(event.subject.clone(), headers, body.to_string().into()).await?;
    sent.await.context("the broker does not accept the event")?;
    Ok(json!({
        "orderId": order["id"],
        "eventId": meta.id,
        "correlationId": meta.correlation,
        "deadLetter": "orders, inventory.rejected",
        "remedy": "edit `requested` to 1 and redrive",
    }))
}
