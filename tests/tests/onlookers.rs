//! Notifications and analytics: services that only look on, and come later.

use std::collections::HashMap;

use analytics::Sum;
use millstream::Timestamp;
use millstream::service::{Options, Rebuild, RunError};
use millstream::testing::eventually;
use serde_json::Value;
use shop::serve;
use tokio::net::TcpListener;

use crate::harness::{Apart, Caller, SOON, TestApp, line, order_of};

/// Most are confirmed, some declined, some short.
fn body(number: usize) -> String {
    let user = format!("user-{}", number % 5);
    match number % 10 {
        3 => order_of(&user, &[line("mug", 1, 1013)]),
        7 => order_of(&user, &[line("gold", 1, 99_999)]),
        _ => order_of(&user, &[line("mug", 2, 1000), line("tea", 1, 325)]),
    }
}

async fn place(shop: &Caller, count: usize) {
    shop.place_many(count, 8, body).await;
}

async fn stocked(shop: &Caller) {
    shop.stock("mug", 10_000).await;
    shop.stock("tea", 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_customers_are_told_and_what_is_counted_is_what_has_happened_to_the_orders() {
    const ORDERS: usize = 100;
    let app = TestApp::start().await;
    stocked(&app).await;
    place(&app, ORDERS).await;
    app.faults(serde_json::json!({ "latencyMs": 300 })).await;
    let cancelled = app.place(body(0)).await;
    assert_eq!(app.cancel(&cancelled).await.status, 202);
    app.faults(serde_json::json!({})).await;
    let orders = app.all_ended(ORDERS + 1).await;
    app.check(0).await;

    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    for notification in app.notifications("").await {
        let text = |field: &str| notification[field].as_str().unwrap().to_owned();
        assert_eq!(text("to"), format!("{}@example.com", text("userId")));
        told.entry(text("orderId")).or_default().push(text("occasion"));
    }
    for order in &orders {
        let told = &told[order["id"].as_str().unwrap()];
        assert!(told.iter().any(|occasion| *occasion == order["status"]), "{order}: {told:?}");
    }
    let of_one = app.notifications(&format!("&orderId={cancelled}")).await;
    assert_eq!(of_one.iter().find(|told| told["occasion"] == "CANCELLED").unwrap()["reason"], "CUSTOMER");

    let summary = app.summary().await;
    assert_eq!((summary.accepted, summary.confirmed), (101, 80));
    let reasons = summary.cancelled;
    assert_eq!((reasons.declined, reasons.out_of_stock, reasons.customer, reasons.deadline), (10, 10, 1, 0));
    assert_eq!(summary.revenue, [("EUR".to_owned(), Sum(80 * 2325))].into());
    let durations = summary.saga_durations.confirmed;
    assert_eq!(durations.count, 80);
    assert!(durations.min_ms <= durations.p50_ms && durations.p50_ms <= durations.p95_ms, "{durations:?}");
    assert!(durations.p95_ms <= durations.max_ms, "{durations:?}");
    let top = |sold: &[analytics::Sold]| -> Vec<(String, u64, i64)> {
        sold.iter().map(|sold| (sold.product_id.to_string(), sold.quantity, sold.revenue.0)).collect()
    };
    let expected = [("mug".to_owned(), 160, 160_000), ("tea".to_owned(), 80, 80 * 325)];
    assert_eq!(top(&summary.top_products.by_quantity), expected);
    assert_eq!(top(&summary.top_products.by_revenue), expected);
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_added_to_a_running_shop_counts_what_was_before_and_mails_nobody_about_it() {
    let mut shop = Apart::new().await;
    for part in ["gateway", "orders", "inventory", "payments"] {
        shop.start(part).await;
    }
    for service in ["orders", "inventory", "payments"] {
        let ready = async || shop.ready(service).await.0 == 200;
        eventually("the first three services", SOON, ready).await;
    }
    stocked(&shop).await;
    place(&shop, 30).await;
    shop.all_ended(30).await;
    let before: Vec<Value> = shop.orders().await;
    shop.start("notifications").await;
    shop.start("analytics").await;
    shop.all_ready().await;
    place(&shop, 30).await;
    shop.all_ended(60).await;
    shop.check(0).await;
    assert_eq!(shop.summary().await.accepted, 60);
    let told = shop.notifications("").await;
    assert_eq!(told.len(), 30);
    for order in before {
        assert!(told.iter().all(|told| told["orderId"] != order["id"]), "{order} is of before");
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilt_analytics_has_the_summary_that_it_had() {
    let mut shop = Apart::new().await;
    shop.start_all().await;
    stocked(&shop).await;
    place(&shop, 60).await;
    shop.all_ended(60).await;
    shop.check(0).await;
    let before = shop.summary().await;
    shop.stop("analytics").await;
    // It misses some, and is rebuilt while more come in.
    place(&shop, 20).await;
    shop.all_ended(80).await;
    shop.rebuild = Some(Rebuild::Whole);
    shop.start("analytics").await;
    shop.all_ready().await;
    shop.check(0).await;
    let after = shop.summary().await;
    assert_eq!((after.since, after.accepted), (before.since, 80));
    shop.stop("analytics").await;
    shop.start("analytics").await;
    shop.all_ready().await;
    shop.check(0).await;
    assert_eq!(shop.summary().await, after);
    shop.rebuild = None;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn analytics_rebuilt_from_a_stream_that_has_lost_its_beginning_says_since_when_it_counts() {
    let mut shop = Apart::new().await;
    shop.start_all().await;
    stocked(&shop).await;
    place(&shop, 40).await;
    shop.all_ended(40).await;
    shop.check(0).await;
    let before = shop.summary().await;
    let wire = shop.wire().await;
    let stream = wire.0.get_stream("ORDERS").await.unwrap();
    stream.purge().sequence(41).await.unwrap();
    let left = wire.events("ORDERS").await;
    let first: Timestamp = left.iter().map(|event| event.header("ce-time").parse().unwrap()).min().unwrap();
    shop.stop("analytics").await;
    shop.rebuild = Some(Rebuild::Partial);
    shop.start("analytics").await;
    shop.all_ready().await;
    wire.drained().await;
    let after = shop.summary().await;
    assert_eq!(after.since, Some(first));
    assert!(after.since > before.since && after.until == before.until, "{after:?}");
    let ends = left.iter().filter(|event| event.event() == "orders.confirmed").count();
    assert_eq!(after.confirmed, ends as u64);
    // The invariants know that it counts only since then.
    shop.rebuild = None;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_which_others_have_heard_is_not_rebuilt() {
    let shop = Apart::new().await;
    let services = [
        (orders::service(orders::Settings::default()), "publishes ORDERS"),
        (serve::notifications(&notifications::Settings::default()).unwrap(), "`send`"),
    ];
    for (service, part) in services {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.db");
        let config = serve::config(&shop.urls.nats, &format!("sqlite://{}", store.display())).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let options = Options { rebuild: Some(Rebuild::Whole), ..Options::default() };
        let refused = service.run(config, options, listener, std::future::pending()).await.unwrap_err();
        assert!(matches!(refused, RunError::Rebuild { .. }) && refused.to_string().contains(part), "{refused}");
        assert!(!store.exists(), "nothing was touched");
    }
}
