//! Old journal entries go, and what they knew stays known.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use millstream::Timestamp;
use millstream::engine::timing::Timing;
use millstream::store::open;
use millstream::testing::Bench;

use crate::bank::*;

fn at_once() -> Timing {
    Timing {
        journal_retention: Duration::ZERO,
        key_retention: Duration::ZERO,
        ack_wait: LONG * 2,
        heartbeat: Duration::from_millis(100),
        expiry_every: Duration::from_millis(100),
        ..short()
    }
}

/// How many entries there are of a state.
fn entries(bench: &Bench, state: i64) -> i64 {
    let file = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    file.query_row("SELECT count(*) FROM journal WHERE state = ?", [state], |row| row.get(0)).unwrap()
}

const DONE: i64 = 1;
const PARKED: i64 = 2;

/// An old entry of an instance that has ended: the next round of expiry takes it away.
async fn canary(bench: &Bench) {
    let store = open(&bench.store.url(SERVICE)).unwrap();
    let instance = dead_instance(&*store, Timestamp::from_millis(1), 1, &[]).await;
    let row = store.instances().await.unwrap().into_iter().find(|row| row.id == instance).unwrap();
    assert!(store.delete_instance(instance, row.version).await.unwrap());
}

#[tokio::test]
async fn what_is_done_acked_and_published_goes_and_what_is_parked_or_unpublished_stays() {
    let mut bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), at_once()).await;
    for at in 0..20 {
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    publish(&bench, "a", "bad", Act::Reject).await;
    publish(&bench, "a", "worse", Act::Panic).await;
    service.submit_to(&world, moved("a", "command", Act::Add(1))).await.unwrap();
    bench.until_handled(&BANK, SERVICE).await;
    until("the journal to shrink", async || entries(&bench, DONE) == 0).await;
    assert_eq!(entries(&bench, PARKED), 2);

    bench.broker.stop().await;
    service.until_waits_for("the broker").await;
    for at in 0..3 {
        service.submit_to(&world, moved("a", &format!("c{at}"), Act::Add(1))).await.unwrap();
    }
    canary(&bench).await;
    until("an entry of an ended instance to go", async || entries(&bench, DONE) == 3).await;
    canary(&bench).await;
    until("another to go", async || entries(&bench, DONE) == 3).await;
    bench.broker.restart().await;
    until("the rest to go once it is published", async || entries(&bench, DONE) == 0).await;
    assert_eq!(bench.expect::<Noted>(24).await.len(), 24);
    assert_eq!(entries(&bench, PARKED), 2);
    service.stop().await;
}

#[tokio::test]
async fn a_delivery_of_what_has_expired_is_a_duplicate_from_the_first_one_on() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), at_once()).await;
    for at in 0..20 {
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    bench.until_handled(&BANK, SERVICE).await;
    until("the journal to shrink", async || entries(&bench, DONE) == 0).await;
    let stream = bench.jetstream().get_stream(BANK.name).await.unwrap();
    // Deleted while the service runs, it is made again after the mark.
    stream.delete_consumer(SERVICE).await.unwrap();
    publish(&bench, "a", "next", Act::Add(1)).await;
    until("the next to be handled", async || service.get::<Account>("a").await.unwrap().balance == 21).await;
    let durable = bench.durable(&BANK, SERVICE).await.unwrap();
    assert_eq!(durable.delivered.consumer_sequence, 1, "what has expired is not delivered again");
    bench.until_handled(&BANK, SERVICE).await;
    until("the journal to shrink", async || entries(&bench, DONE) == 0).await;
    service.stop().await;

    // A broker that has forgotten acks delivers from before the mark.
    stream.delete_consumer(SERVICE).await.unwrap();
    let all = pull::Config {
        durable_name: Some(SERVICE.into()),
        ack_policy: AckPolicy::Explicit,
        filter_subject: "bank.moved.*".into(),
        ..pull::Config::default()
    };
    stream.create_consumer(all).await.unwrap();
    // Expiry is far away: the mark has to be known from the first delivery on.
    let timing = Timing { expiry_every: LONG * 10, ..at_once() };
    let service = bench.run(ledger(&world), timing).await;
    bench.until_handled(&BANK, SERVICE).await;
    let duplicates = service.metric("millstream_messages_total", &[("event", "bank.moved"), ("outcome", "duplicate")]);
    assert_eq!((duplicates, service.get::<Account>("a").await.unwrap().balance), (Some(21.0), 21));
    service.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_read_from_its_beginning_and_the_old_mark_does_not_hold() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), at_once()).await;
    for at in 0..20 {
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    bench.until_handled(&BANK, SERVICE).await;
    until("the journal to shrink", async || entries(&bench, DONE) == 0).await;
    bench.jetstream().delete_stream(BANK.name).await.unwrap();
    service.until_waits_for("stream BANK").await;
    bench.declare(&BANK).await;
    publish(&bench, "a", "new", Act::Add(1)).await;
    until("the new message to be handled", async || service.get::<Account>("a").await.unwrap().balance == 21).await;
    service.stop().await;
}
