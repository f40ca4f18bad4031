//! Outages: a gateway, a service or the broker is away for a while, and everything ends all the same.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use millstream::testing::{TestStore, eventually};
use serde_json::{Value, json};

use crate::harness::{Apart, REPLICAS, SERVICES, SOON, count, line, order_of};

fn a_mug(user: usize) -> String {
    order_of(&format!("user-{user}"), &[line("mug", 1, 1000)])
}

fn with<'a>(orders: &'a [Value], status: &str) -> Vec<&'a Value> {
    orders.iter().filter(|order| order["status"] == status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_gateway_is_down_cancels_take_under_a_second_and_all_orders_end_when_it_is_back() {
    const ORDERS: usize = 300;
    let mut shop = Apart::new().await;
    shop.start_all().await;
    shop.stock("mug", 10_000).await;
    shop.stop("gateway").await;
    let placed = shop.place_many(ORDERS, 16, a_mug).await;
    let reserved = async || with(&shop.orders().await, "RESERVED").len() == ORDERS;
    eventually("all orders reserved", SOON, reserved).await;
    let mut took = vec![];
    for id in &placed[..30] {
        let started = Instant::now();
        let answer = shop.cancel(id).await;
        took.push(started.elapsed());
        assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (202, &json!("CANCELLED")));
    }
    took.sort_unstable();
    println!("cancels took {:?}, the slowest {:?}", took[15], took[29]);
    // A cancel that waited for the gateway would not be the only one; a busy machine may hold up one of them.
    assert!(took[15] < Duration::from_secs(1), "cancels took {took:?}");
    // The kind is closed: some hundred charges are due, and what goes out is a probe now and then.
    let closed = async || {
        let metrics = shop.metrics("payments").await;
        let series = |start: &str| {
            let line = metrics.text.lines().find(|line| line.starts_with(start)).map(str::to_owned);
            line.unwrap_or_else(|| panic!("no {start} in {}", metrics.text)).rsplit_once(' ').unwrap().1.parse::<f64>()
        };
        let due = series(r#"millstream_wakes_due{kind="charge"}"#).unwrap();
        due > 10.0 && series(r#"millstream_effects_total{kind="charge",outcome="outage"}"#).unwrap() > 5.0
    };
    eventually("charges that are due and not tried", SOON, closed).await;
    assert_eq!(shop.ready("payments").await.0, 200, "that the outside is away does not make a service unready");

    shop.start("gateway").await;
    let orders = shop.all_ended(ORDERS).await;
    assert_eq!((with(&orders, "CONFIRMED").len(), with(&orders, "CANCELLED").len()), (ORDERS - 30, 30));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_were_paid_while_the_orders_service_was_down_past_their_deadline_are_confirmed() {
    const ORDERS: usize = 40;
    let mut shop = Apart::new().await;
    shop.orders.deadline = Duration::from_secs(3);
    shop.start_all().await;
    shop.stock("mug", 100).await;
    shop.stop("inventory").await;
    let placed = shop.place_many(ORDERS, 40, a_mug).await;
    let last_deadline = Instant::now() + shop.orders.deadline;
    shop.stop("orders").await;
    shop.start("inventory").await;
    for id in &placed {
        shop.payment_is(id, "CAPTURED").await;
    }
    eventually("the last deadline", SOON, async || Instant::now() > last_deadline).await;
    shop.start("orders").await;
    let orders = shop.all_ended(ORDERS).await;
    assert_eq!(with(&orders, "CONFIRMED").len(), ORDERS, "{orders:?}");
    for id in &placed[..5] {
        assert_eq!(shop.money(id).await, (1, 0));
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_start_in_any_order_and_before_the_broker() {
    let mut shop = Apart::new().await;
    shop.broker.stop().await;
    shop.start("payments").await;
    let waits = async || {
        let (status, said) = shop.ready("payments").await;
        assert_eq!(status, 503, "{said}");
        said["waitingFor"].to_string().contains("broker")
    };
    eventually("payments naming the broker that it waits for", SOON, waits).await;
    assert_eq!(shop.get(format!("{}/livez", shop.urls.payments)).await.status, 200);
    shop.start("orders").await;
    let refused = shop.post(a_mug(0)).await;
    assert_eq!(refused.status, 503, "before its first connection a service knows no limits: {refused:?}");
    shop.stop("orders").await;

    shop.broker.restart().await;
    // Nobody has declared the streams of the others yet.
    let waits = async || shop.ready("payments").await.1["waitingFor"].to_string().contains("ORDERS");
    eventually("payments naming the stream that it waits for", SOON, waits).await;
    for service in ["notifications", "analytics", "inventory", "orders"] {
        shop.start(service).await;
    }
    shop.all_ready().await;
    shop.stock("mug", 10).await;
    // The gateway comes last of all.
    let id = shop.place(a_mug(1)).await;
    shop.start("gateway").await;
    assert_eq!(shop.ended(&id).await["status"], "CONFIRMED");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_stopped_one_after_the_other_under_load_hand_over_and_nothing_is_lost() {
    let mut shop = Apart::new().await;
    // Longer than the test waits for anything: what a stopped service does not hand back would not come in time.
    shop.timing.ack_wait = Duration::from_secs(600);
    shop.start_all().await;
    shop.stock("mug", 10_000).await;
    let mut placed = 0;
    for service in ["inventory", "payments", "orders", "notifications", "analytics", "inventory"] {
        shop.place_many(100, 32, a_mug).await;
        placed += 100;
        let started = Instant::now();
        shop.stop(service).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{service} took {:?} to stop", started.elapsed());
        assert_eq!(
            count(&shop.sql(service), "SELECT count(*) FROM instances"),
            0,
            "{service} has published everything"
        );
        shop.start(service).await;
        shop.all_ready().await;
    }
    let orders = shop.all_ended(placed).await;
    assert_eq!(with(&orders, "CONFIRMED").len(), placed);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_in_mid_flow_and_comes_back_later_loses_nothing_and_doubles_nothing() {
    const ORDERS: usize = 300;
    let mut shop = Apart::new().await;
    shop.start_all().await;
    shop.stock("mug", 10_000).await;
    let caller = shop.caller();
    let load = tokio::spawn(async move { caller.place_many(ORDERS, 8, a_mug).await });
    let begun = async || !with(&shop.orders().await, "CONFIRMED").is_empty();
    eventually("a first confirmed order", SOON, begun).await;
    shop.broker.kill();
    // Longer than the broker would wait for an ack; meanwhile orders are accepted.
    let away = Instant::now() + shop.timing.ack_wait * 2;
    assert_eq!(load.await.unwrap().len(), ORDERS, "orders are accepted all the while");
    eventually("the end of the outage", SOON, async || Instant::now() > away).await;
    shop.broker.restart().await;
    let orders = shop.all_ended(ORDERS).await;
    assert_eq!(with(&orders, "CONFIRMED").len(), ORDERS);
    let wire = shop.wire().await;
    wire.drained().await;
    let events = wire.all_events().await;
    let ids: HashSet<&str> = events.iter().map(|event| event.header("ce-id")).collect();
    assert_eq!((events.len(), ids.len()), (4 * ORDERS, 4 * ORDERS));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_are_away_in_mid_saga_only_delay_the_orders() {
    const ORDERS: usize = 100;
    let mut shop = Apart::new().await;
    shop.start_all().await;
    shop.stock("mug", 10_000).await;
    shop.place_many(ORDERS, 16, a_mug).await;
    let files = ["inventory", "payments"].map(|service| shop.database(service));
    for file in &files {
        std::fs::rename(file, file.with_extension("aside")).unwrap();
    }
    for service in ["inventory", "payments"] {
        let unready = async || shop.ready(service).await.1["waitingFor"].to_string().contains("store");
        eventually(&format!("{service} naming its store"), SOON, unready).await;
    }
    // Longer than the broker waits for an ack.
    let away = Instant::now() + shop.timing.ack_wait * 2;
    shop.place_many(ORDERS, 16, a_mug).await;
    eventually("the end of the outage", SOON, async || Instant::now() > away).await;
    for file in &files {
        std::fs::rename(file.with_extension("aside"), file).unwrap();
    }
    let orders = shop.all_ended(2 * ORDERS).await;
    assert_eq!(with(&orders, "CONFIRMED").len(), 2 * ORDERS);
    shop.all_ready().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_the_work_or_stand_by_and_one_key_is_one_order_at_both() {
    share_the_work(Apart::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn two_replicas_on_mongo_share_the_work_or_stand_by_and_one_key_is_one_order_at_both() {
    let Some(stores) = TestStore::on_mongo() else { return };
    share_the_work(Apart::on(stores).await).await;
}

async fn share_the_work(mut shop: Apart) {
    const ORDERS: usize = 200;
    // A busy machine is no reason for the other to take over, nor to take one for dead.
    shop.timing.pin_timeout = SOON;
    shop.timing.dead_after = SOON;
    shop.start_all().await;
    for replica in REPLICAS {
        shop.start(replica).await;
    }
    let second = shop.second();
    second.urls.ready(&second.http, SOON).await.unwrap();
    shop.stock("mug", 10_000).await;
    let keyed = |number: usize| {
        let caller = if number.is_multiple_of(2) { &*shop } else { &second };
        caller.send(caller.posting(a_mug(0)).header("idempotency-key", "k"))
    };
    let answers = futures_util::future::join_all((0..50).map(keyed)).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.text), (201, &answers[0].text), "{answer:?}");
    }
    tokio::join!(shop.place_many(ORDERS, 16, a_mug), second.place_many(ORDERS, 16, a_mug));
    let orders = shop.all_ended(2 * ORDERS + 1).await;
    assert_eq!(with(&orders, "CONFIRMED").len(), 2 * ORDERS + 1);
    for service in SERVICES {
        // These have few documents that everything meets in, so one of their replicas reads.
        let readers = if ["inventory", "analytics"].contains(&service) { 1 } else { 2 };
        assert_eq!(shop.readers(service).await, readers, "replicas of {service} that have read");
    }
    shop.close().await;
}
