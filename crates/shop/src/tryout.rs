//! The demo actions of `shop up`: orders, faults, stopping a service, an unreadable event. The console's page has a
//! button for each [`DemoAction`] and sends its request; none of it exists in `shop serve`.
//!
//! | route | does |
//! | --- | --- |
//! | `POST /demo/orders?count=200` | places that many orders concurrently, like those of the demo load |
//! | `POST /demo/inventory/stop?seconds=20` | stops the inventory service, and starts it again after that time |
//! | `POST /demo/poison` | publishes an event that the orders service cannot read, see `poison` |
//!
//! They listen on a free port of 127.0.0.1, and refuse requests that a browser sends from another origin.

pub(crate) mod poison;

use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use millstream::http::{self, Problem};
use millstream_console::DemoAction;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::demo_load;
use crate::restart::Breaks;
use crate::whole::Urls;
use crate::wire;

pub(crate) use self::poison::POISONED;

/// All that can be tried; `demo` is where the routes of this module are.
pub fn demo_actions(urls: &Urls, demo: &str) -> Vec<DemoAction> {
    let action = |label: &str, hint: &str, method: &str, url: String, body: Option<Value>| DemoAction {
        label: label.into(),
        hint: hint.into(),
        method: method.into(),
        url,
        body,
    };
    let mugs = json!({
        "userId": "ada",
        "items": [{ "productId": "mug", "quantity": 2, "price": 12.0 }],
        "totalAmount": 24.0,
    });
    let faults = format!("{}/faults", urls.gateway);
    vec![
        action(
            "Place an order",
            "Two mugs for ada: PENDING, RESERVED, CONFIRMED within a second.",
            "POST",
            format!("{}/orders", urls.orders),
            Some(mugs),
        ),
        action(
            "Place 200 orders",
            "200 concurrent orders. Most are confirmed; teapots run out of stock, and a single gift card is declined.",
            "POST",
            format!("{demo}/demo/orders?count=200"),
            None,
        ),
        action(
            "Break the card company",
            "The gateway answers every charge and refund with 503 until it is repaired. Orders are still accepted and wait in RESERVED.",
            "PUT",
            faults.clone(),
            Some(json!({ "down": true })),
        ),
        action(
            "Repair the card company",
            "Waiting charges resume automatically after one successful probe.",
            "PUT",
            faults,
            Some(json!({})),
        ),
        action(
            "Stop inventory for 20 s",
            "Orders are still accepted and stay PENDING; the consumer lag grows until inventory is back and catches up.",
            "POST",
            format!("{demo}/demo/inventory/stop?seconds=20"),
            None,
        ),
        action(
            "Poison an event",
            "Creates one dead letter in orders: a quantity that is not a number. Redriven unchanged it fails again; edited to \
             \"requested\": 1 it is handled, with no effect on the order.",
            "POST",
            format!("{demo}/demo/poison"),
            None,
        ),
    ]
}

/// What the routes work with.
#[derive(Clone)]
struct Demo {
    http: Client,
    urls: Urls,
    inventory: Breaks,
}

/// Serves the routes until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    urls: Urls,
    inventory: Breaks,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let demo = Demo { http: wire::client()?, urls, inventory };
    let routes = Router::new()
        .route("/demo/orders", post(orders))
        .route("/demo/inventory/stop", post(stop_inventory))
        .route("/demo/poison", post(poison))
        .layer(from_fn(no_browser))
        .with_state(demo);
    http::serve(listener, routes, shutdown).await.context("the demo routes")
}

/// A page anywhere on the web can make its reader's browser send a POST to this machine; browsers say where it comes from.
async fn no_browser(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return Problem::new(StatusCode::FORBIDDEN, "these routes are for the console's server, not for browsers")
            .into_response();
    }
    next.run(request).await
}

/// So many orders are under way at once.
const AT_ONCE: usize = 32;

#[derive(Deserialize)]
struct Count {
    #[serde(default = "two_hundred")]
    count: usize,
}

fn two_hundred() -> usize {
    200
}

async fn orders(State(demo): State<Demo>, Query(Count { count }): Query<Count>) -> Result<Json<Value>, Problem> {
    if !(1..=1000).contains(&count) {
        return Err(Problem::bad_request("bad query").at("count", "must be from 1 to 1000"));
    }
    let place = |_| async { demo_load::place(&demo.http, &demo.urls.orders, demo_load::random()).await.is_ok() };
    let placed = stream::iter(0..count).map(place).buffer_unordered(AT_ONCE);
    let placed = placed.filter(|placed| std::future::ready(*placed)).count().await;
    Ok(Json(json!({ "placed": placed, "refused": count - placed })))
}

#[derive(Deserialize)]
struct Break {
    #[serde(default = "twenty")]
    seconds: u64,
}

fn twenty() -> u64 {
    20
}

async fn stop_inventory(
    State(demo): State<Demo>,
    Query(Break { seconds }): Query<Break>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    if !(1..=600).contains(&seconds) {
        return Err(Problem::bad_request("bad query").at("seconds", "must be from 1 to 600"));
    }
    if demo.inventory.stop_for(Duration::from_secs(seconds)).await {
        return Ok((StatusCode::ACCEPTED, Json(json!({ "stopped": "inventory", "forSeconds": seconds }))));
    }
    Err(Problem::new(StatusCode::CONFLICT, "inventory is already stopped and will restart automatically"))
}

async fn poison(State(demo): State<Demo>) -> Result<(StatusCode, Json<Value>), Problem> {
    match poison::publish(&demo.http, &demo.urls).await {
        Ok(published) => Ok((StatusCode::ACCEPTED, Json(published))),
        Err(error) => Err(Problem::unavailable(format!("cannot publish the poisoned event: {error:#}"))),
    }
}
