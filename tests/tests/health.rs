//! Health that does not lie, and figures that agree with the orders.

use std::collections::HashMap;
use std::time::Duration;

use millstream::testing::eventually;
use serde_json::{Value, json};

use crate::harness::{Apart, SOON, TestApp, line, order_of};

const SERVICES: [&str; 5] = ["orders", "inventory", "payments", "notifications", "analytics"];

/// Every service says with this status whether it can do its whole job; what the last one says is given.
async fn all_say(app: &TestApp, status: u16) -> Vec<Value> {
    let mut said = vec![];
    for service in SERVICES {
        let what = format!("{service} answering {status} to /readyz");
        let answers = async || {
            let (have, said) = app.ready(service).await;
            (have == status).then_some(said)
        };
        said.push(eventually(&what, SOON, answers).await);
        let alive = app.get(format!("{}/livez", app.base(service))).await;
        assert_eq!(alive.status, 200, "{service} is alive whatever else is not: {alive:?}");
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_unready_while_the_broker_is_away_or_answers_no_pull_and_alive_throughout() {
    let mut app = TestApp::start().await;
    app.stock("mug", 10).await;
    all_say(&app, 200).await;
    app.broker.kill();
    all_say(&app, 503).await;
    // A consumer that lost its connection may be the first to know.
    for service in SERVICES {
        let names_it = async || app.ready(service).await.1["waitingFor"].to_string().contains("broker");
        eventually(&format!("{service} naming the broker"), SOON, names_it).await;
    }
    let health = app.get(format!("{}/health", app.urls.orders)).await;
    assert_eq!(health.status, 503);
    let parts = json!({ "database": "UP", "messageBroker": "DOWN" });
    assert_eq!(health.json()["services"], parts, "{health:?}");
    app.broker.restart().await;
    all_say(&app, 200).await;

    // Its connections stay open, but nothing comes through them.
    app.broker.pause();
    for said in all_say(&app, 503).await {
        let said = said["waitingFor"].to_string();
        assert!(said.contains("does not pull") || said.contains("broker"), "{said}");
    }
    app.broker.resume();
    all_say(&app, 200).await;
    let id = app.place(order_of("ada", &[line("mug", 1, 1000)])).await;
    assert_eq!(app.ended(&id).await["status"], "CONFIRMED");
    let health = app.get(format!("{}/health", app.urls.orders)).await.json();
    // Of inventory, of payments, and of what is handed back.
    assert_eq!(health["consumers"].as_array().unwrap().len(), 3, "{health}");
    assert!(health["commandsAccepted"].as_u64().unwrap() > 0, "{health}");
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_that_somebody_deletes_is_made_again_and_nothing_is_handled_twice() {
    let app = TestApp::start().await;
    app.stock("mug", 100).await;
    let body = |_| order_of("ada", &[line("mug", 1, 1000)]);
    app.place_many(20, 4, body).await;
    app.all_ended(20).await;
    let wire = app.wire().await;
    wire.0.get_stream("ORDERS").await.unwrap().delete_consumer("inventory").await.unwrap();
    let again = async || wire.durables().await.contains_key(&("ORDERS".into(), "inventory".into()));
    eventually("the durable of inventory made again", SOON, again).await;
    app.place_many(20, 4, body).await;
    app.all_ended(40).await;
    wire.drained().await;
    assert_eq!(app.stock_of("mug").await, [100, 0, 40]);
    assert_eq!(wire.count("INVENTORY").await, 40);
    app.close().await;
}

/// The series of a page of metrics.
fn series(page: &str) -> HashMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let read = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_series_is_there_from_the_start_and_counts_what_has_happened_to_the_orders() {
    let app = TestApp::start().await;
    for (service, expected) in [
        (
            "orders",
            &[
                r#"shop_orders_total{outcome="accepted",reason="none"}"#,
                r#"shop_orders_total{outcome="confirmed",reason="none"}"#,
                r#"shop_orders_total{outcome="cancelled",reason="out_of_stock"}"#,
                r#"shop_orders_total{outcome="cancelled",reason="declined"}"#,
                r#"shop_orders_total{outcome="cancelled",reason="deadline"}"#,
                r#"shop_orders_total{outcome="cancelled",reason="customer"}"#,
                r#"shop_order_duration_seconds_count{outcome="confirmed"}"#,
                r#"shop_order_value_cents_total{currency="EUR",outcome="accepted"}"#,
                r#"shop_invariant_violations_total{invariant="declined_after_confirmed"}"#,
                r#"millstream_messages_total{event="payments.processed",outcome="handled"}"#,
                r#"millstream_dead_lettered_total{event="payments.processed",reason="schema"}"#,
            ][..],
        ),
        (
            "inventory",
            &[
                r#"shop_reservations_total{outcome="reserved"}"#,
                r#"shop_reservations_total{outcome="rejected"}"#,
                r#"millstream_messages_total{event="orders.created",outcome="handled"}"#,
            ][..],
        ),
        (
            "payments",
            &[
                r#"shop_payments_total{outcome="captured"}"#,
                r#"shop_payments_total{outcome="refunded"}"#,
                r#"millstream_effects_total{kind="charge",outcome="settled"}"#,
                r#"millstream_effects_total{kind="refund",outcome="outage"}"#,
            ][..],
        ),
        (
            "notifications",
            &[
                r#"shop_notifications_total{channel="log",outcome="sent"}"#,
                r#"shop_notifications_total{channel="smtp",outcome="failed"}"#,
                r#"millstream_effects_total{kind="send",outcome="settled"}"#,
            ][..],
        ),
        ("analytics", &[r#"millstream_messages_total{event="orders.cancelled",outcome="handled"}"#][..]),
    ] {
        let page = app.metrics(service).await;
        assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert!(!page.text.contains(" summary\n"), "{service} has a summary");
        let have = series(&page.text);
        for name in expected {
            assert_eq!(have.get(*name), Some(&0.0), "{service}: {name}");
        }
        let shop = have.iter().filter(|(name, _)| name.starts_with("shop_"));
        let counted: Vec<_> = shop.filter(|(_, value)| **value != 0.0).collect();
        assert!(counted.is_empty(), "{service} has counted before anything happened: {counted:?}");
    }

    app.stock("mug", 1000).await;
    app.stock("teapot", 3).await;
    let cancelled = async |id: &str| assert_eq!(app.cancel(id).await.status, 202);
    app.faults(json!({ "latencyMs": 300 })).await;
    for number in 0..4 {
        let id = app.place(order_of("ada", &[line("mug", 1, 1000 + number)])).await;
        cancelled(&id).await;
    }
    app.faults(json!({})).await;
    app.place_many(40, 8, |number| match number % 8 {
        0 => order_of("ada", &[line("teapot", 2, 3000)]),
        1 => order_of("ada", &[line("mug", 1, 1013)]),
        _ => order_of("ada", &[line("mug", 2, 1000)]),
    })
    .await;
    let orders = app.all_ended(44).await;
    app.wire().await.drained().await;
    app.check(0).await;

    let have = series(&app.metrics("orders").await.text);
    let of = |status: &str, reason: Option<&str>| {
        let fits = |order: &&Value| order["status"] == status && order["reason"].as_str() == reason;
        orders.iter().filter(fits).count() as f64
    };
    for (name, count) in [
        (r#"{outcome="accepted",reason="none"}"#, 44.0),
        (r#"{outcome="confirmed",reason="none"}"#, of("CONFIRMED", None)),
        (r#"{outcome="cancelled",reason="out_of_stock"}"#, of("CANCELLED", Some("OUT_OF_STOCK"))),
        (r#"{outcome="cancelled",reason="declined"}"#, of("CANCELLED", Some("DECLINED"))),
        (r#"{outcome="cancelled",reason="deadline"}"#, 0.0),
        (r#"{outcome="cancelled",reason="customer"}"#, 4.0),
    ] {
        assert_eq!(have[&format!("shop_orders_total{name}")], count, "{name}");
    }
    assert!(of("CONFIRMED", None) > 0.0 && of("CANCELLED", Some("OUT_OF_STOCK")) > 0.0);
    let confirmed = have[r#"shop_order_duration_seconds_count{outcome="confirmed"}"#];
    assert_eq!(confirmed, of("CONFIRMED", None));
    let cents = |status: &str| -> f64 {
        let of_status = orders.iter().filter(|order| order["status"] == status);
        of_status.map(|order| (order["totalAmount"].as_f64().unwrap() * 100.0).round()).sum()
    };
    let value = have[r#"shop_order_value_cents_total{currency="EUR",outcome="confirmed"}"#];
    assert_eq!(value, cents("CONFIRMED"));
    let inventory = series(&app.metrics("inventory").await.text);
    assert_eq!(inventory[r#"shop_reservations_total{outcome="sold"}"#], of("CONFIRMED", None));
    let payments = series(&app.metrics("payments").await.text);
    assert_eq!(payments[r#"shop_payments_total{outcome="declined"}"#], of("CANCELLED", Some("DECLINED")));
    let net =
        payments[r#"shop_payments_total{outcome="captured"}"#] - payments[r#"shop_payments_total{outcome="refunded"}"#];
    assert_eq!(net, of("CONFIRMED", None));
    // How every order ended, and each refund.
    let notifications = series(&app.metrics("notifications").await.text);
    let refunded = payments[r#"shop_payments_total{outcome="refunded"}"#];
    assert_eq!(notifications[r#"shop_notifications_total{channel="log",outcome="sent"}"#], 44.0 + refunded);
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_journal_is_a_figure_while_the_broker_is_away() {
    let mut shop = Apart::new().await;
    shop.start_all().await;
    shop.stock("mug", 100).await;
    shop.broker.stop().await;
    shop.place_many(7, 1, |_| order_of("ada", &[line("mug", 1, 1000)])).await;
    let caller = shop.caller();
    let figures = async |waiting: f64, connected: f64| {
        let have = series(&caller.metrics("orders").await.text);
        have["millstream_journal_unpublished"] == waiting && have["millstream_broker_connected"] == connected
    };
    eventually("7 unpublished entries and no broker", SOON, async || figures(7.0, 0.0).await).await;
    shop.broker.restart().await;
    eventually("nothing unpublished", Duration::from_secs(60), async || figures(0.0, 1.0).await).await;
    shop.all_ended(7).await;
    shop.close().await;
}
