//! Stopping in order: nothing is left to wait for.

use std::time::{Duration, Instant};

use millstream::commands::{Caller, CommandError};
use millstream::engine::timing::Timing;
use millstream::store::open;
use millstream::testing::{Bench, fresh_meta};

use crate::bank::*;

async fn instances(bench: &Bench) -> usize {
    open(&bench.store.url(SERVICE)).unwrap().instances().await.unwrap().len()
}

#[tokio::test]
#[ignore = "long"]
async fn what_was_prefetched_is_handed_back_and_the_next_instance_has_it_at_once() {
    let bench = bench().await;
    let world = World::default();
    let timing = Timing { ack_wait: Duration::from_secs(120), batch_inputs: 32, ..short() };
    let messages: Vec<_> = (0..3000).map(|at| moved("a", &format!("m{at}"), Act::Add(1))).collect();
    bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
    let mut stopped_early = 0;
    for round in 1..=3 {
        let service = bench.run(ledger(&world), timing.clone()).await;
        let some = async || service.get::<Account>("a").await.is_some_and(|account| account.balance >= round * 200);
        until("some to be handled", some).await;
        let stopping = Instant::now();
        service.stop().await;
        assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
        assert_eq!(instances(&bench).await, 0, "its row is gone");
        stopped_early += usize::from(bench.durable(&BANK, SERVICE).await.unwrap().num_pending > 0);
    }
    assert!(stopped_early > 0, "the service was stopped with work before it");
    let service = bench.run(ledger(&world), timing).await;
    bench.until_handled(&BANK, SERVICE).await;
    let account = service.get::<Account>("a").await.unwrap();
    assert_eq!(account.balance, 3000);
    assert_eq!(bench.expect::<Noted>(3000).await.len(), 3000);
    service.stop().await;
}

#[tokio::test]
async fn an_effect_that_does_not_end_within_the_grace_is_given_back_and_run_by_the_next_instance_at_once() {
    let bench = bench().await;
    let world = World::default();
    world.answer("a", [Answer::Hang, Answer::Paid]);
    let timing =
        Timing { effect_timeout: LONG * 10, lease: LONG * 10, effect_grace: Duration::from_millis(1500), ..short() };
    let service = bench.run(ledger(&world), timing.clone()).await;
    publish(&bench, "a", "charge", Act::Charge).await;
    until("the charge to run", async || !world.calls_of("a").is_empty()).await;
    let context = service.context().clone();
    let stopping = tokio::spawn(service.stop());
    let refused = async || {
        let answer = context.submit_to(&Caller::default(), &world, moved("b", "late", Act::Add(1))).await;
        match answer {
            Err(CommandError::Unavailable(why)) => why == "the service is shutting down",
            _ => false,
        }
    };
    until("commands to be refused", refused).await;
    assert!(!stopping.is_finished(), "that was while the service waited for its effect");
    stopping.await.unwrap();
    assert_eq!(instances(&bench).await, 0);

    let service = bench.run(ledger(&world), timing).await;
    until("the charge to be paid", async || service.get::<Account>("a").await.unwrap().log == ["charge", "paid"]).await;
    assert_eq!(world.calls_of("a").iter().map(|call| call.attempt).collect::<Vec<_>>(), [1, 2]);
    assert!(world.outside().overlaps.is_empty(), "the first run has ended before the second");
    service.stop().await;
}

#[tokio::test]
async fn an_effect_that_ends_within_the_grace_is_settled() {
    let bench = bench().await;
    let world = World::default();
    world.answer("a", [Answer::Hang]);
    // It ends by its time-out, which is an outage and moves the wake.
    let timing = Timing { effect_timeout: Duration::from_millis(700), effect_grace: Duration::from_secs(9), ..short() };
    let service = bench.run(ledger(&world), timing).await;
    publish(&bench, "a", "charge", Act::Charge).await;
    until("the charge to run", async || !world.calls_of("a").is_empty()).await;
    let stopping = Instant::now();
    service.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(8), "{:?}", stopping.elapsed());
    let file = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
    let (at, wake): (i64, String) =
        file.query_row("SELECT wake_at, wake FROM doc_accounts", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let wake: millstream::Wake = serde_json::from_str(&wake).unwrap();
    assert_eq!((wake.attempt, i64::try_from(wake.at.millis()).unwrap()), (1, at));
}

#[tokio::test]
async fn a_service_that_waits_for_its_broker_stops_at_once_and_without_it_too() {
    let mut bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    bench.broker.stop().await;
    service.until_waits_for("the broker").await;
    service.submit_to(&world, moved("a", "command", Act::Add(1))).await.unwrap();
    let stopping = Instant::now();
    service.stop().await;
    let early = bench.launch(ledger(&world), short()).await;
    early.until_waits_for("the broker").await;
    early.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
    assert_eq!(instances(&bench).await, 1, "what it could not publish is left to others");
    bench.broker.restart().await;
    let service = bench.run(ledger(&world), short()).await;
    bench.expect::<Noted>(1).await;
    until("the row of the first to be swept", async || instances(&bench).await == 1).await;
    service.stop().await;
    assert_eq!(notes(&bench, "a").await, ["command"]);
}
