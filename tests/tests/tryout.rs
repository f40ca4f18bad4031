//! What `shop up` offers to try, tried as the console does: by each action's request. And what a check finds is published.

use std::str::FromStr;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use millstream::Id;
use millstream::operator::dead::{DeadFilter, Redrive};
use millstream::operator::{By, Operator};
use millstream::testing::eventually;
use millstream_console::DemoAction;
use reqwest::Method;
use serde_json::{Value, json};
use shop::check;

use crate::harness::{Answer, SOON, TestApp, line, order_of};

async fn shop_to_try() -> TestApp {
    let app = TestApp::start_with(|plan| plan.demo = true).await;
    shop::stock::seed(&app.http, &app.urls.inventory).await.unwrap();
    app
}

async fn send(app: &TestApp, DemoAction { method, url, body, .. }: DemoAction) -> Answer {
    let request = app.http.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
    app.send(body.iter().fold(request, |request, body| request.json(body))).await
}

/// Does what the button of this label does.
async fn press(app: &TestApp, label: &str) -> Answer {
    send(app, app.action(label)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_does_what_it_says_and_every_invariant_holds_after_all_of_them() {
    let app = shop_to_try().await;
    let placed = press(&app, "Place an order").await;
    assert_eq!(placed.status, 201, "{placed:?}");
    let id = placed.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(app.ended(&id).await["status"], "CONFIRMED");

    assert_eq!(press(&app, "Break the card company").await.status, 200);
    let waits = app.place(order_of("ada", &[line("mug", 1, 1200)])).await;
    let reserved = async || app.order(&waits).await["status"] == "RESERVED";
    eventually("an order to be reserved and not charged", SOON, reserved).await;
    let many = press(&app, "Place 200 orders").await;
    assert_eq!(many.json(), json!({ "placed": 200, "refused": 0 }));
    assert_eq!(press(&app, "Repair the card company").await.status, 200);
    assert_eq!(app.ended(&waits).await["status"], "CONFIRMED");
    let orders = app.all_ended(202).await;
    let confirmed = orders.iter().filter(|order| order["status"] == "CONFIRMED").count();
    assert!((100..=201).contains(&confirmed), "{confirmed} of 202 are confirmed, and some teapots are out of stock");
    app.check(0).await;
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inventory_stops_for_a_while_and_what_was_ordered_meanwhile_is_confirmed_when_it_is_back() {
    let app = shop_to_try().await;
    let mut stop = app.action("Stop inventory for 20 s");
    assert!(stop.url.ends_with("seconds=20"), "{}", stop.url);
    stop.url = stop.url.replace("seconds=20", "seconds=3");
    let began = Instant::now();
    let stopped = send(&app, stop.clone()).await;
    assert_eq!((stopped.status.as_u16(), stopped.json()["stopped"].as_str()), (202, Some("inventory")));
    let stock = format!("{}/stock", app.urls.inventory);
    let refused = reqwest::get(&stock).await;
    assert!(refused.is_err_and(|error| error.is_connect()), "nobody listens there");
    let again = send(&app, stop.clone()).await;
    assert_eq!((again.status.as_u16(), again.header("content-type")), (409, "application/problem+json"));
    let id = app.place(order_of("ada", &[line("mug", 1, 1200)])).await;
    assert_eq!(app.order(&id).await["status"], "PENDING");
    assert_eq!(app.ended(&id).await["status"], "CONFIRMED");
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    // It may be stopped as often as one likes, and the shop stops while it is.
    let twice = async || send(&app, stop.clone()).await.status == 202;
    app.urls.ready(&app.http, SOON).await.unwrap();
    eventually("another break", SOON, twice).await;
    app.urls.ready(&app.http, SOON).await.unwrap();
    app.check(0).await;
    stop.url = stop.url.replace("seconds=3", "seconds=600");
    assert_eq!(send(&app, stop).await.status, 202);
    let began = Instant::now();
    app.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_event_is_one_dead_letter_that_breaks_nothing_and_is_handled_once_it_is_mended() {
    let app = shop_to_try().await;
    let answer = press(&app, "Poison an event").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let poisoned = answer.json();
    let wire = app.wire().await;
    let letters = async || Some(wire.events("DLQ_ORDERS").await).filter(|letters| !letters.is_empty());
    let letters = eventually("a dead letter", SOON, letters).await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.event(), letter.header("Millstream-Reason")), ("inventory.rejected", "schema"));
    assert_eq!(letter.header("Millstream-Id"), poisoned["eventId"].as_str().unwrap());
    assert!(letter.header("Millstream-Error").contains("requested"), "{letter:?}");
    let id = poisoned["orderId"].as_str().unwrap();
    let ended = app.ended(id).await;
    assert_eq!((ended["status"].as_str(), ended["reason"].as_str()), (Some("CANCELLED"), Some("OUT_OF_STOCK")));
    app.check(0).await;

    let operator = Operator::new(async_nats::connect(&app.urls.nats).await.unwrap());
    let by = By { who: "ada".into(), why: "to see it".into() };
    let dead = Id::from_str(letter.header("Millstream-Id")).unwrap();
    let filter = DeadFilter { id: Some(dead), ..DeadFilter::default() };
    operator.redrive(&filter, &Redrive::default(), &by, drop).await.unwrap();
    let again = async || {
        let letters = wire.events("DLQ_ORDERS").await;
        letters[0].header("Millstream-Redrives") == "1" && letters[0].header("Millstream-State").is_empty()
    };
    eventually("the dead letter to be back, for it is what it was", SOON, again).await;
    app.check(0).await;

    // Mended as the answer says.
    let mut body: Value = serde_json::from_slice(&letter.payload).unwrap();
    body["short"][0]["requested"] = 1.into();
    operator.edit("orders", dead, body.to_string().into(), &by).await.unwrap();
    let edited = async || wire.events("DLQ_ORDERS").await[0].header("Millstream-State") == "edited";
    eventually("the dead letter to be edited", SOON, edited).await;
    let handled = async || wire.count("REDRIVE").await == 0;
    eventually("what was edited to be handled", SOON, handled).await;
    assert_eq!(app.order(id).await, ended);
    for service in ["ORDERS", "INVENTORY", "PAYMENTS", "NOTIFICATIONS", "ANALYTICS"] {
        let expected = u64::from(service == "ORDERS");
        assert_eq!(wire.count(&format!("DLQ_{service}")).await, expected, "dead letters of {service}");
    }
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_and_what_a_page_of_somebody_else_sends_is_refused() {
    let app = shop_to_try().await;
    let many = app.action("Place 200 orders").url;
    for count in ["0", "1001", "-1", "many"] {
        let answer = app.send(app.http.post(many.replace("200", count))).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    let request = app.http.post(many).header("origin", "https://example.com");
    assert_eq!(app.send(request).await.status, 403);
    assert!(app.orders().await.is_empty());
    let without = TestApp::start().await;
    assert!(without.actions().is_empty(), "a shop that is not for trying things out has no such routes");
    without.close().await;
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_check_finds_is_published_again_and_again_and_a_broken_invariant_is_named() {
    let app = shop_to_try().await;
    let listener = async_nats::connect(&app.urls.nats).await.unwrap();
    let mut published = listener.subscribe(check::SUBJECT).await.unwrap();
    let options = check::Options { older_than: Duration::from_millis(500), ..app.check_options() };
    let watching = tokio::spawn(check::watch(check::Options { looks: 3, ..options }, std::future::pending()));
    let mut next = async || -> Value {
        let message = tokio::time::timeout(SOON, published.next()).await.expect("an outcome").unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    };
    assert_eq!(press(&app, "Poison an event").await.status, 202);
    let outcome = next().await;
    assert_eq!(outcome["source"], "shop check");
    assert!(outcome["at"].as_str().unwrap().ends_with('Z'), "{outcome}");
    let broken = |outcome: &Value| -> Vec<String> {
        let invariants = outcome["invariants"].as_array().unwrap();
        assert_eq!(invariants.len(), 12, "{outcome}");
        let broken = invariants.iter().filter(|invariant| invariant["holds"] == false);
        broken.map(|invariant| format!("{}: {}", invariant["name"], invariant["detail"])).collect()
    };
    assert_eq!(broken(&outcome), [""; 0]);

    let charge = json!({ "orderId": "nobodys", "amount": 5.0, "currency": "EUR", "customer": "ada" });
    let charge = app.http.post(format!("{}/charges", app.urls.gateway)).header("idempotency-key", "k").json(&charge);
    assert_eq!(app.send(charge).await.status, 201);
    let named = async || {
        let broken = broken(&next().await);
        broken.iter().any(|broken| broken.contains("without its order") && broken.contains("order nobodys"))
    };
    let mut named = named;
    eventually("the capture without an order to be named", SOON, async || named().await).await;
    watching.abort();
    app.stop().await;
}
