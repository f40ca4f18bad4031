//! Bad days: a store or a broker that is gone, and messages that nobody of ours has sent.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use millstream::engine::timing::Timing;
use millstream::testing::eventually;
use serde_json::Value;

use crate::harness::{Answer, Apart, Caller, SOON, TestApp, count, line, order_of};

fn an_order() -> String {
    order_of("ada", &[line("mug", 1, 1000)])
}

fn is_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_store_a_service_says_503_within_two_seconds_and_goes_on_when_it_is_back() {
    let promised = Timing::default().command_timeout;
    assert_eq!(promised, Duration::from_secs(2));
    let app = TestApp::start_with(|plan| plan.options.timing.command_timeout = promised).await;
    app.stock("mug", 100).await;
    let before = app.place(an_order()).await;
    app.ended(&before).await;
    let (file, aside) = (app.database("orders"), app.database("aside"));
    std::fs::rename(&file, &aside).unwrap();

    for number in 0..3 {
        let started = Instant::now();
        is_unavailable(&app.send(app.posting(an_order()).header("idempotency-key", format!("k-{number}"))).await);
        // What is beyond the promise is for a machine that is busy.
        assert!(started.elapsed() < promised + Duration::from_secs(3), "{:?}", started.elapsed());
    }
    is_unavailable(&app.get(format!("{}/orders/{before}", app.urls.orders)).await);
    let (status, said) = app.ready("orders").await;
    assert_eq!(status, 503);
    assert!(said["waitingFor"].to_string().contains("store"), "{said}");
    assert_eq!(app.get(format!("{}/livez", app.urls.orders)).await.status, 200);
    assert!(!file.exists(), "no empty store was put in the place of the one that is away");

    std::fs::rename(&aside, &file).unwrap();
    app.urls.ready(&app.http, SOON).await.unwrap();
    let repeat = async || {
        let answer = app.send(app.posting(an_order()).header("idempotency-key", "k-0")).await;
        (answer.status == 201).then_some(answer)
    };
    eventually("an order under the key that was answered 503", SOON, repeat).await;
    app.all_ended(2).await;
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_orders_are_accepted_up_to_the_bound_and_all_go_on_by_themselves_when_it_is_back() {
    let mut shop = Apart::new().await;
    shop.configure = |config| config.unpublished_limit = Some(20);
    shop.start_all().await;
    shop.stock("mug", 1000).await;
    // What waits is counted now and then, so the bound is back a moment after the broker.
    let room = async |caller: Caller| {
        let accepts =
            async || caller.get(format!("{}/health", caller.urls.orders)).await.json()["commandsAccepted"] == 20;
        eventually("room for 20 orders", SOON, accepts).await;
    };
    for round in 1..=2_usize {
        room(shop.caller()).await;
        // Once it is gone, once it is there and does not answer.
        if round == 1 {
            shop.broker.stop().await
        } else {
            shop.broker.pause()
        }
        let mut accepted = 0;
        let refused = loop {
            let answer = shop.post(an_order()).await;
            if answer.status != 201 {
                break answer;
            }
            accepted += 1;
            assert!(accepted <= 20, "more than the bound were accepted");
        };
        is_unavailable(&refused);
        assert!(refused.json()["detail"].as_str().unwrap().contains("broker"), "{refused:?}");
        assert_eq!(accepted, 20);
        let sql = shop.sql("orders");
        let open = "SELECT count(*) FROM doc_orders WHERE body LIKE '%\"PENDING\"%'";
        assert_eq!(count(&sql, open), 20, "what was answered 201 is in the store");
        if round == 1 {
            shop.broker.restart().await
        } else {
            shop.broker.resume()
        }
        let orders = shop.all_ended(20 * round).await;
        assert!(orders.iter().all(|order| order["status"] == "CONFIRMED"), "{orders:?}");
        shop.all_ready().await;
    }
    room(shop.caller()).await;
    let id = shop.place(an_order()).await;
    shop.ended(&id).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_events_of_ours_are_parked_and_the_consumer_goes_on() {
    let app = TestApp::start().await;
    app.stock("mug", 100).await;
    let wire = app.wire().await;
    let good = serde_json::json!({ "orderId": "x", "userId": "u", "items": [], "totalAmount": 1.0, "currency": "EUR" });
    // What a newer release might know is waited for a while.
    let ahead = ["orders.created.v99", "orders.invented.v1"];
    let foreign: [(&[_], Vec<u8>); 5] = [
        (&[], b"hello".to_vec()),
        (&[], vec![0xff, 0x00, 0xfe]),
        (&[("ce-id", "not an id of ours"), ("ce-type", "orders.created.v1")], b"{\"orderId\":7}".to_vec()),
        (&[("ce-id", "%ff%zz"), ("ce-type", "orders.created.v99")], good.to_string().into_bytes()),
        (&[("ce-id", "a"), ("ce-type", "orders.invented.v1"), ("ce-time", "yesterday")], good.to_string().into_bytes()),
    ];
    let count = foreign.len() as u64;
    for (headers, payload) in foreign {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        wire.0.publish_with_headers("orders.created.0", map, payload.into()).await.unwrap().await.unwrap();
    }
    let id = app.place(an_order()).await;
    assert_eq!(app.ended(&id).await["status"], "CONFIRMED");
    // Two services read what is published there.
    for stream in ["DLQ_INVENTORY", "DLQ_ANALYTICS"] {
        let parked = async || wire.count(stream).await == count;
        eventually(&format!("a dead letter in {stream} for each foreign message"), SOON, parked).await;
    }
    let letters = wire.events("DLQ_INVENTORY").await;
    for letter in &letters {
        let reason = if ahead.contains(&letter.header("ce-type")) { "ahead" } else { "schema" };
        assert_eq!((letter.header("Millstream-Reason"), letter.header("Millstream-Stream")), (reason, "ORDERS"));
        assert!(letter.subject.starts_with("dlq.inventory."), "{letter:?}");
        assert!(!letter.header("Millstream-Error").is_empty(), "{letter:?}");
    }
    assert!(letters.iter().any(|letter| letter.payload == [0xff, 0x00, 0xfe]), "the body is kept as it came");
    let metrics = app.metrics("inventory").await.text;
    let counted = |reason: &str| -> f64 {
        let reason = format!("reason=\"{reason}\"");
        let lines = metrics.lines().filter(|line| line.starts_with("millstream_dead_lettered_total"));
        let lines = lines.filter(|line| line.contains(&reason));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    };
    assert_eq!((counted("schema"), counted("ahead")), (3.0, 2.0), "{metrics}");
    app.check(2 * count).await;
    let stock: Value = app.get(format!("{}/stock/mug", app.urls.inventory)).await.json();
    assert_eq!(stock["available"], 99);
}
