//! What anybody can see from outside: counted by the test's own clients of the broker and of the databases.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use millstream::testing::eventually;
use serde_json::Value;

use crate::harness::{Apart, SOON, TestApp, count, line, order_of};

fn a_mug(user: usize) -> String {
    order_of(&format!("user-{user}"), &[line("mug", 1, 1000)])
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_confirmed_orders_are_as_many_created_events_and_four_times_as_many_events_with_distinct_ids() {
    const ORDERS: usize = 200;
    let app = TestApp::start().await;
    app.stock("mug", 1000).await;
    app.place_many(ORDERS, 32, a_mug).await;
    let orders = app.all_ended(ORDERS).await;
    assert!(orders.iter().all(|order| order["status"] == "CONFIRMED"));
    let wire = app.wire().await;
    wire.drained().await;
    let durables = wire.durables().await;
    assert_eq!(
        durables.len(),
        8,
        "orders, payments and notifications read two streams each, the others one: {durables:?}"
    );
    let events = wire.all_events().await;
    let mut kinds = HashMap::<&str, usize>::new();
    events.iter().for_each(|event| *kinds.entry(event.event()).or_default() += 1);
    let four = ["orders.created", "inventory.reserved", "payments.processed", "orders.confirmed"];
    assert_eq!(kinds, four.map(|kind| (kind, ORDERS)).into());
    let ids: HashSet<&str> = events.iter().map(|event| event.header("ce-id")).collect();
    assert_eq!(ids.len(), 4 * ORDERS);
    // Every order has one event of each kind.
    let pairs: HashSet<(&str, &str)> = events.iter().map(|event| (event.header("ce-subject"), event.event())).collect();
    assert_eq!(pairs.len(), 4 * ORDERS);
    app.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_without_the_broker_is_in_the_journal_and_is_published_by_the_next_instance() {
    let mut shop = Apart::new().await;
    shop.start_all().await;
    shop.stock("mug", 100).await;
    let first = shop.place(a_mug(0)).await;
    shop.ended(&first).await;
    shop.wire().await.drained().await;
    let before = shop.wire().await.count("ORDERS").await;

    shop.broker.stop().await;
    let placed = shop.place_many(5, 1, a_mug).await;
    let sql = shop.sql("orders");
    for id in &placed {
        assert_eq!(count(&sql, &format!("SELECT count(*) FROM doc_orders WHERE id = '{id}'")), 1);
        let bytes = id.replace('-', "");
        let entry = format!("SELECT count(*) FROM journal WHERE hex(id) = upper('{bytes}') AND emitted IS NOT NULL");
        assert_eq!(count(&sql, &entry), 1, "the journal entry of order {id}");
    }
    let above = "SELECT count(*) FROM journal JOIN instances ON instances.id = journal.instance
                 WHERE emitted IS NOT NULL AND batch > published";
    assert_eq!(count(&sql, above), 5, "entries above the watermark");
    shop.stop("orders").await;
    assert_eq!(count(&sql, "SELECT count(*) FROM instances"), 1, "its row stays for whoever publishes the rest");

    // The broker is back, and nobody is there who could publish: the stream is as it was.
    shop.broker.restart().await;
    assert_eq!(shop.wire().await.count("ORDERS").await, before);
    shop.start("orders").await;
    let orders = shop.all_ended(6).await;
    assert!(orders.iter().all(|order| order["status"] == "CONFIRMED"), "{orders:?}");
    let wire = shop.wire().await;
    wire.drained().await;
    assert_eq!(wire.count("ORDERS").await, before + 10);
    let swept = async || count(&sql, "SELECT count(*) FROM instances") == 1;
    eventually("the end of the old instance's row", SOON, swept).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_inventory_is_stopped_its_backlog_grows_and_the_others_go_on() {
    let mut shop = Apart::new().await;
    shop.start_all().await;
    shop.stock("mug", 100).await;
    let wire = shop.wire().await;
    shop.stop("inventory").await;
    for round in 1..=3 {
        shop.place_many(10, 4, a_mug).await;
        let grown = async || wire.pending("ORDERS", "inventory").await == 10 * round;
        eventually("a backlog of inventory that has grown by all orders", SOON, grown).await;
    }
    // Orders and payments deal with a cancel all the same.
    let cancelled = shop.place(a_mug(0)).await;
    assert_eq!(shop.cancel(&cancelled).await.status, 202);
    shop.payment_is(&cancelled, "NEVER").await;
    for service in ["orders", "payments"] {
        assert_eq!(shop.ready(service).await.0, 200, "{service}");
    }
    shop.start("inventory").await;
    let orders = shop.all_ended(31).await;
    assert_eq!(orders.iter().filter(|order| order["status"] == "CONFIRMED").count(), 30);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long"]
async fn many_orders_take_few_transactions() {
    // Without optimization twenty thousand take a minute; the share of transactions is the same.
    const ORDERS: usize = if cfg!(debug_assertions) { 4_000 } else { 20_000 };
    let mut shop = Apart::new().await;
    shop.start_all().await;
    shop.stock("mug", 1_000_000).await;
    // Inventory meets them as a backlog, as after an hour's absence; orders and payments as they come.
    shop.stop("inventory").await;
    let started = Instant::now();
    shop.place_many(ORDERS, 256, a_mug).await;
    let transactions = |service| count(&shop.sql(service), "SELECT sum(version) FROM instances");
    let of_orders = transactions("orders");
    println!("{ORDERS} orders accepted in {:.1?}, {of_orders} transactions", started.elapsed());
    // One at a time would be as many as there are orders. At 128 commands a batch it would be 24.
    assert!(of_orders < ORDERS as i64 / 4, "orders took {of_orders} transactions to accept {ORDERS} orders");
    shop.start("inventory").await;
    shop.all_ended(ORDERS).await;
    shop.wire().await.drained().await;
    let all = ["orders", "inventory", "payments"].map(|service| {
        let sql = shop.sql(service);
        let transactions = count(&sql, "SELECT sum(version) FROM instances");
        println!("{service}: {transactions} transactions for {} inputs", count(&sql, "SELECT count(*) FROM journal"));
        transactions
    });
    // Orders 9,000 inputs, inventory 6,000, payments 6,000 and the claims.
    let sum: i64 = all.iter().sum();
    assert!(sum < 7 * ORDERS as i64 / 4, "{all:?} transactions for {} inputs", 7 * ORDERS);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sold_is_what_confirmed_orders_have_and_never_more_than_there_was() {
    const ORDERS: usize = 300;
    let app = TestApp::start().await;
    let products = ["mug", "pot", "cup"];
    for product in products {
        app.stock(product, 100).await;
    }
    // Two lines each, so that orders compete for pairs of products.
    let body = |number: usize| {
        let quantity = |salt: usize| 1 + u32::try_from((number + salt) % 3).unwrap();
        let [one, other] = [products[number % 3], products[(number + 1) % 3]];
        order_of("ada", &[line(one, quantity(0), 1000), line(other, quantity(1), 500)])
    };
    app.place_many(ORDERS, 64, body).await;
    let orders = app.all_ended(ORDERS).await;
    app.wire().await.drained().await;
    let lines = |order: &Value| {
        let items = order["items"].as_array().unwrap().clone();
        items
            .into_iter()
            .map(|item| (item["productId"].as_str().unwrap().to_owned(), item["quantity"].as_i64().unwrap()))
    };
    let confirmed = orders.iter().filter(|order| order["status"] == "CONFIRMED");
    let mut sold = HashMap::<String, i64>::new();
    confirmed.flat_map(lines).for_each(|(product, quantity)| *sold.entry(product).or_default() += quantity);
    let sql = app.sql("inventory");
    for product in products {
        let field = |name| {
            count(&sql, &format!("SELECT json_extract(body, '$.{name}') FROM doc_products WHERE id = '{product}'"))
        };
        assert_eq!((field("sold"), field("reserved")), (sold[product], 0), "{product}");
        assert!(sold[product] <= 100, "{product}: {}", sold[product]);
    }
    // Nothing was released, so what was short once was short at the end: nobody was refused what is still there.
    for order in orders.iter().filter(|order| order["status"] == "CANCELLED") {
        assert_eq!(order["reason"], "OUT_OF_STOCK");
        let short = lines(order).any(|(product, quantity)| quantity > 100 - sold[&product]);
        assert!(short, "{order} was refused although there is enough: {sold:?}");
    }
    app.close().await;
}
