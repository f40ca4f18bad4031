//! A load against a small orders service in this process that has bad days.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;

/// Accepts an order only at its second sending, ends it a look later; forgets or never ends some if told so.
#[derive(Default)]
struct Orders {
    by_key: HashMap<String, (u32, Option<String>)>,
    orders: Vec<Value>,
    looks: u32,
    stuck: bool,
    forgetful: bool,
}

type Shared = State<Arc<Mutex<Orders>>>;

async fn create(State(orders): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let mut orders = orders.lock().unwrap();
    if body["userId"] == "nobody" {
        return (StatusCode::BAD_REQUEST, Json(json!({"detail": "nobody cannot order"}))).into_response();
    }
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let next = orders.orders.len();
    let seen = orders.by_key.entry(key).or_default();
    seen.0 += 1;
    if seen.0 == 1 {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response();
    }
    let id = seen.1.get_or_insert_with(|| format!("order-{next}")).clone();
    let order = json!({
        "id": id, "userId": body["userId"], "items": [], "totalAmount": 1.0, "currency": "EUR", "status": "PENDING",
        "createdAt": "2026-01-01T00:00:00Z",
    });
    orders.orders.push(order.clone());
    (StatusCode::CREATED, Json(order)).into_response()
}

async fn cancel(State(orders): Shared, Path(id): Path<String>) -> StatusCode {
    let mut orders = orders.lock().unwrap();
    let order = orders.orders.iter_mut().find(|order| order["id"] == *id).unwrap();
    order["status"] = "CANCELLED".into();
    order["reason"] = "cancelled by the customer".into();
    order["endedAt"] = "2026-01-01T00:00:01Z".into();
    StatusCode::ACCEPTED
}

/// Pages of two, by position.
async fn list(State(orders): Shared, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let mut orders = orders.lock().unwrap();
    let status = query.get("status");
    orders.looks += 1;
    let matching: Vec<_> =
        orders.orders.iter().filter(|order| status.is_none_or(|status| order["status"] == **status)).cloned().collect();
    let start: usize = query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let end = matching.len().min(start + 2);
    let next = (end < matching.len()).then(|| end.to_string());
    let page = matching[start..end].to_vec();
    if status.is_some_and(|status| status == "RESERVED") && !orders.stuck {
        let open = orders.orders.iter_mut().filter(|order| order["status"] == "PENDING");
        open.for_each(|order| {
            order["status"] = "CONFIRMED".into();
            order["endedAt"] = "2026-01-01T00:00:02Z".into();
        });
        if orders.forgetful {
            orders.orders.pop();
        }
    }
    Json(json!({"orders": page, "nextCursor": next}))
}

async fn one(State(orders): Shared, Path(id): Path<String>) -> Response {
    let orders = orders.lock().unwrap();
    let order = orders.orders.iter().find(|order| order["id"] == *id);
    order.map_or(StatusCode::NOT_FOUND.into_response(), |order| Json(order.clone()).into_response())
}

/// Submits this many orders to such a service.
async fn load(service: Orders, lines: &[&str], wait: Duration) -> Report {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new()
        .route("/orders", post(create).get(list))
        .route("/orders/{id}", get(one))
        .route("/orders/{id}/cancel", post(cancel))
        .with_state(Arc::new(Mutex::new(service)));
    let served = tokio::spawn(axum::serve(listener, routes).into_future());
    let file = std::env::temp_dir().join(format!("shop-load-{}.jsonl", uuid::Uuid::now_v7()));
    std::fs::write(&file, lines.join("\n")).unwrap();
    let report = run(Options { url, file: Some(file.clone()), wait, ..Options::default() }).await.unwrap();
    served.abort();
    std::fs::remove_file(file).unwrap();
    report
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_order_is_followed_to_its_end_through_refusals_and_repeats() {
    let lines = [r#"{"userId":"a"}"#, r#"{"userId":"b","cancel":true}"#, r#"{"userId":"c"}"#, r#"{"userId":"nobody"}"#];
    let report = load(Orders::default(), &lines, LONG).await;
    assert!(report.complete(), "{report}");
    assert_eq!((report.orders, report.accepted, report.confirmed, report.retries), (4, 3, 2, 3));
    assert_eq!(report.cancelled["cancelled by the customer"], 1);
    assert_eq!(report.refused["400 Bad Request: nobody cannot order"], 1);
    assert_eq!(report.cancels, Cancels { taken: 1, ..Cancels::default() });
    assert!((report.end_to_end_ms.max - 2000.0).abs() < 2.0, "{report}");
    assert!((report.ended_per_second - 1.5).abs() < 0.01, "{report}");
}

#[tokio::test]
async fn an_order_that_does_not_end_in_time_is_named() {
    let stuck = Orders { stuck: true, ..Orders::default() };
    let report = load(stuck, &[r#"{"userId":"a"}"#], Duration::from_millis(300)).await;
    assert!(!report.complete());
    assert_eq!(report.open, ["order-0"]);
}

#[tokio::test]
async fn an_accepted_order_that_is_gone_is_named() {
    let forgetful = Orders { forgetful: true, ..Orders::default() };
    let report = load(forgetful, &[r#"{"userId":"a"}"#, r#"{"userId":"b"}"#, r#"{"userId":"c"}"#], LONG).await;
    assert!(!report.complete());
    assert!(!report.lost.is_empty() && report.to_string().contains("LOST"), "{report}");
}
