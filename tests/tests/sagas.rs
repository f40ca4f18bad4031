//! One order from its acceptance to its end, on each of the ways it can take.

use std::time::Duration;

use millstream::testing::{TestStore, eventually};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::harness::{Apart, SOON, WireEvent, line, order_of};

/// Each of them on every kind of store.
macro_rules! on_every_store {
    ($($saga:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $saga() {
                super::$saga(millstream::testing::TestStore::new()).await;
            })*
        }

        mod mongo {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "long"]
            async fn $saga() {
                let Some(stores) = millstream::testing::TestStore::on_mongo() else { return };
                super::$saga(stores).await;
            })*
        }
    };
}

on_every_store! {
    an_order_that_is_in_stock_and_paid_is_confirmed,
    an_order_of_which_a_line_is_short_is_cancelled_whole_and_charges_nothing,
    an_order_whose_card_is_declined_is_cancelled_and_its_goods_are_released,
    a_cancel_while_the_gateway_hangs_is_answered_at_once_and_the_late_capture_is_refunded,
    what_is_captured_while_a_cancel_is_requested_is_refunded,
    an_order_that_nobody_answers_for_ends_at_its_deadline,
    the_same_order_fifty_times_at_once_under_one_key_is_one_order,
    every_event_of_an_order_carries_the_callers_correlation_id_and_names_its_cause,
}

async fn app(stores: TestStore) -> Apart {
    let mut app = Apart::on(stores).await;
    app.start_all().await;
    app.stock("mug", 100).await;
    app
}

fn types(events: &[WireEvent]) -> Vec<&str> {
    let mut types: Vec<&str> = events.iter().map(WireEvent::event).collect();
    types.sort_unstable();
    types
}

async fn an_order_that_is_in_stock_and_paid_is_confirmed(stores: TestStore) {
    let app = app(stores).await;
    let answer = app.post(order_of("ada", &[line("mug", 2, 1250)])).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let placed = answer.json();
    let id = placed["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/orders/{id}"));
    assert_eq!((&placed["status"], &placed["userId"]), (&json!("PENDING"), &json!("ada")));
    assert!(answer.text.contains(r#""totalAmount":25.00"#), "{}", answer.text);

    let order = app.ended(id).await;
    assert_eq!((&order["status"], order.get("reason")), (&json!("CONFIRMED"), None));
    let payment = app.payment_is(id, "CAPTURED").await;
    assert_eq!(payment["amount"].as_f64(), Some(25.0));
    app.reservation_is(id, "SOLD").await;
    assert_eq!(app.stock_of("mug").await, [100, 0, 2]);
    assert_eq!(app.money(id).await, (1, 0));
    let again = app.cancel(id).await;
    assert_eq!(again.status, 409, "{again:?}");
    assert!(again.json()["detail"].as_str().unwrap().contains("CONFIRMED"), "{again:?}");
    let wire = app.wire().await;
    wire.drained().await;
    let all = wire.all_events().await;
    let expected = ["inventory.reserved", "orders.confirmed", "orders.created", "payments.processed"];
    assert_eq!(types(&all), expected);
    app.close().await;
}

async fn an_order_of_which_a_line_is_short_is_cancelled_whole_and_charges_nothing(stores: TestStore) {
    let app = app(stores).await;
    app.stock("teapot", 1).await;
    let id = app.place(order_of("ada", &[line("mug", 1, 500), line("teapot", 2, 500), line("ghost", 1, 100)])).await;
    let order = app.ended(&id).await;
    assert_eq!((&order["status"], &order["reason"]), (&json!("CANCELLED"), &json!("OUT_OF_STOCK")));
    app.payment_is(&id, "NEVER").await;
    assert_eq!(app.stock_of("mug").await, [100, 0, 0]);
    assert_eq!(app.money(&id).await, (0, 0));
    let events = app.wire().await.events("INVENTORY").await;
    let rejected: Value = serde_json::from_slice(&events[0].payload).unwrap();
    let short = json!([
        { "productId": "ghost", "requested": 1, "available": 0 },
        { "productId": "teapot", "requested": 2, "available": 1 },
    ]);
    assert_eq!(rejected["short"], short);
    app.close().await;
}

async fn an_order_whose_card_is_declined_is_cancelled_and_its_goods_are_released(stores: TestStore) {
    let app = app(stores).await;
    let id = app.place(order_of("ada", &[line("mug", 3, 1371)])).await;
    let order = app.ended(&id).await;
    assert_eq!((&order["status"], &order["reason"]), (&json!("CANCELLED"), &json!("DECLINED")));
    app.reservation_is(&id, "RELEASED").await;
    assert_eq!(app.stock_of("mug").await, [100, 0, 0]);
    let payment = app.payment_is(&id, "DECLINED").await;
    assert!(payment["reason"].as_str().unwrap().contains("declined"), "{payment}");
    // Of an order that has ended otherwise a cancel tells how it ended.
    let again = app.cancel(&id).await;
    assert_eq!((again.status.as_u16(), &again.json()["reason"]), (202, &json!("DECLINED")));
    app.close().await;
}

async fn a_cancel_while_the_gateway_hangs_is_answered_at_once_and_the_late_capture_is_refunded(stores: TestStore) {
    let app = app(stores).await;
    // .19 hangs the first time; the second time it is captured, long after the cancel.
    let id = app.place(order_of("ada", &[line("mug", 1, 1019)])).await;
    app.payment_is(&id, "CHARGING").await;
    let cancelled = app.cancel(&id).await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["status"]), (202, &json!("CANCELLED")));
    app.payment_is(&id, "REFUNDED").await;
    assert_eq!(app.money(&id).await, (1, 1));
    eventually("orders to note it", SOON, async || app.order(&id).await["capturedLate"] == json!(true)).await;
    assert_eq!(app.order(&id).await["reason"], "CUSTOMER");
    app.reservation_is(&id, "RELEASED").await;
    assert_eq!(app.stock_of("mug").await, [100, 0, 0]);
    app.close().await;
}

async fn what_is_captured_while_a_cancel_is_requested_is_refunded(stores: TestStore) {
    let app = app(stores).await;
    app.faults(json!({ "latencyMs": 700 })).await;
    let id = app.place(order_of("ada", &[line("mug", 1, 1000)])).await;
    app.payment_is(&id, "CHARGING").await;
    assert_eq!(app.cancel(&id).await.status, 202);
    app.payment_is(&id, "REFUNDED").await;
    let wire = app.wire().await;
    let told = async || types(&wire.events("PAYMENTS").await).join(" ");
    eventually("both events", SOON, async || told().await == "payments.processed payments.refunded").await;
    app.faults(json!({})).await;
    assert_eq!(app.money(&id).await, (1, 1));
    app.close().await;
}

async fn an_order_that_nobody_answers_for_ends_at_its_deadline(stores: TestStore) {
    let mut app = Apart::on(stores).await;
    app.orders.deadline = Duration::from_millis(800);
    app.start_all().await;
    app.stock("mug", 100).await;
    app.faults(json!({ "down": true })).await;
    let id = app.place(order_of("ada", &[line("mug", 1, 1000)])).await;
    let order = app.ended(&id).await;
    assert_eq!((&order["status"], &order["reason"]), (&json!("CANCELLED"), &json!("DEADLINE")));
    app.reservation_is(&id, "RELEASED").await;
    // Whether the gateway had taken the money nobody can know while it is away, so it is asked until it answers.
    app.faults(json!({})).await;
    app.payment_is(&id, "REFUNDED").await;
    assert_eq!(app.money(&id).await, (1, 1));
    app.close().await;
}

async fn the_same_order_fifty_times_at_once_under_one_key_is_one_order(stores: TestStore) {
    let app = app(stores).await;
    let body = order_of("ada", &[line("mug", 1, 1000)]);
    let keyed = |body: &str| app.posting(body).header("idempotency-key", "k-1");
    let answers = futures_util::future::join_all((0..50).map(|_| app.send(keyed(&body)))).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.text), (201, &answers[0].text), "{answer:?}");
        assert_eq!(answer.header("location"), answers[0].header("location"));
    }
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
    assert_eq!(replayed, 49);
    // The same meaning in other words.
    let other_words =
        r#"{"totalAmount": 10.0, "items": [{"price": 10, "quantity": 1, "productId": "mug"}], "userId": "ada"}"#;
    assert_eq!(app.send(keyed(other_words)).await.text, answers[0].text);
    app.all_ended(1).await;
    // Later, too, the answer is that of the first time.
    let late = app.send(keyed(&body)).await;
    assert_eq!((&late.text, late.json()["status"].as_str()), (&answers[0].text, Some("PENDING")));
    let wire = app.wire().await;
    wire.drained().await;
    assert_eq!(wire.count("ORDERS").await, 2);
    app.close().await;
}

async fn every_event_of_an_order_carries_the_callers_correlation_id_and_names_its_cause(stores: TestStore) {
    let app = app(stores).await;
    let correlation = "späti/42 \"x\" 100%";
    let value = reqwest::header::HeaderValue::from_bytes(correlation.as_bytes()).unwrap();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = app.posting(order_of("ada", &[line("mug", 1, 1000)]));
    let answer = app.send(request.header("x-correlation-id", value).header("traceparent", trace)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.headers["x-correlation-id"].as_bytes(), correlation.as_bytes());
    app.all_ended(1).await;
    let wire = app.wire().await;
    wire.drained().await;
    let events = wire.all_events().await;
    assert_eq!(events.len(), 4);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    for event in &events {
        let sent = event.header("ce-correlationid");
        assert!(sent.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{sent}");
        assert_eq!(percent_decode_str(sent).decode_utf8().unwrap(), correlation, "{event:?}");
        assert_eq!((event.header("ce-subject"), event.header("traceparent")), (&*id, trace));
        assert_eq!(event.header("Nats-Msg-Id"), event.header("ce-id"));
    }
    let find = |kind: &str| events.iter().find(|event| event.event() == kind).unwrap();
    assert_eq!(find("orders.created").header("ce-causationid"), id);
    let reserved = find("inventory.reserved");
    assert_eq!(reserved.header("ce-causationid"), find("orders.created").header("ce-id"));
    let confirmed = find("orders.confirmed");
    assert_eq!(confirmed.header("ce-causationid"), find("payments.processed").header("ce-id"));
    app.close().await;
}
