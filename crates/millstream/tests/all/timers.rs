//! Deadlines: wakes without an effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use futures_util::StreamExt;
use millstream::Timestamp;
use millstream::engine::timing::{Clock, Timing};
use millstream::service::Options;
use millstream::testing::TestService;

use crate::bank::*;

async fn log(service: &TestService, account: &str) -> Vec<String> {
    service.get::<Account>(account).await.map_or(vec![], |account| account.log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_fires_once_also_with_two_instances() {
    let bench = bench().await;
    let world = World::default();
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(ledger(&world), short()).await);
    let accounts: Vec<String> = (0..50).map(|at| format!("a{at}")).collect();
    for account in &accounts {
        publish(&bench, account, "deadline", Act::Deadline(100)).await;
    }
    for account in &accounts {
        until("the deadline to fire", async || log(&one, account).await == ["deadline", "expired"]).await;
    }
    bench.expect::<Ended>(50).await;
    let settled = async || one.metric("millstream_wakes_due", &[("kind", "deadline")]) == Some(0.0);
    until("nothing to be due", settled).await;
    assert_eq!(bench.events::<Ended>().await.len(), 50);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_deadline_that_was_moved_or_cleared_does_not_fire() {
    let bench = bench().await;
    let clock = Arc::new(AtomicU64::new(Timestamp::system().millis()));
    let now = clock.clone();
    let clock_of_service = Clock::new(move || Timestamp::from_millis(now.load(Ordering::Acquire)));
    let options = Options { timing: short(), clock: clock_of_service, ..Options::default() };
    let service = bench.launch_with(ledger(&World::default()), options).await;
    service.until_ready().await;
    for account in ["fires", "moved", "cleared"] {
        publish(&bench, account, "deadline", Act::Deadline(60_000)).await;
    }
    publish(&bench, "moved", "later", Act::Deadline(120_000)).await;
    publish(&bench, "cleared", "cancel", Act::Cancel).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(log(&service, "fires").await, ["deadline"], "not before its time");
    clock.fetch_add(61_000, Ordering::AcqRel);
    until("the first to fire", async || log(&service, "fires").await == ["deadline", "expired"]).await;
    assert_eq!(log(&service, "moved").await, ["deadline", "later"]);
    clock.fetch_add(60_000, Ordering::AcqRel);
    until("the moved one to fire", async || log(&service, "moved").await == ["deadline", "later", "expired"]).await;
    assert_eq!(log(&service, "cleared").await, ["deadline", "cancel"]);
    assert_eq!(bench.expect::<Ended>(2).await.len(), 2);
    service.stop().await;
}

#[tokio::test]
async fn a_deadline_that_is_set_while_nothing_comes_due_fires_as_soon_as_ever() {
    let bench = bench().await;
    let world = World::default();
    // By itself the service would look again after 19 s at the earliest.
    let service = bench.run(ledger(&world), Timing { wake_sweep: Duration::from_secs(4), ..short() }).await;
    let set = std::time::Instant::now();
    publish(&bench, "a", "deadline", Act::Deadline(300)).await;
    until("the deadline to fire", async || log(&service, "a").await == ["deadline", "expired"]).await;
    assert!(set.elapsed() < Duration::from_secs(15), "{:?}", set.elapsed());
    service.stop().await;
}

#[tokio::test]
async fn a_fact_that_is_already_there_beats_a_deadline_that_passed_while_the_service_was_down() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    for account in ["a", "b"] {
        publish(&bench, account, "deadline", Act::Deadline(300)).await;
    }
    bench.until_handled(&BANK, SERVICE).await;
    service.stop().await;
    // A backlog that takes several batches, with the fact that matters at its end.
    let backlog: Vec<_> = (0..1500).map(|at| moved(&format!("other{}", at % 7), "n", Act::Add(1))).collect();
    bench.publish_all(backlog.iter().map(|moved| (millstream::testing::fresh_meta(), moved))).await;
    publish(&bench, "a", "cancel", Act::Cancel).await;
    let due = Timestamp::system() + Duration::from_millis(300);
    until("the deadline to have passed", async || Timestamp::system() > due).await;

    let service = bench.run(ledger(&world), Timing { wake_sweep: Duration::from_millis(5), ..short() }).await;
    until("the other deadline to fire", async || log(&service, "b").await == ["deadline", "expired"]).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(log(&service, "a").await, ["deadline", "cancel"]);
    service.stop().await;
}

#[tokio::test]
async fn a_fact_that_was_given_to_a_process_that_died_beats_a_deadline_too() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    for account in ["a", "b"] {
        publish(&bench, account, "deadline", Act::Deadline(300)).await;
    }
    bench.until_handled(&BANK, SERVICE).await;
    service.stop().await;
    publish(&bench, "a", "cancel", Act::Cancel).await;
    // Takes it from the durable as an instance would, and is never heard of again.
    let stream = bench.jetstream().get_stream(BANK.name).await.unwrap();
    let durable: PullConsumer = stream.get_consumer(SERVICE).await.unwrap();
    let taken = durable.fetch().max_messages(1).messages().await.unwrap().next().await;
    assert!(taken.is_some_and(|message| message.is_ok()));
    let due = Timestamp::system() + Duration::from_millis(300);
    until("the deadline to have passed", async || Timestamp::system() > due).await;

    let service = bench.run(ledger(&world), short()).await;
    until("the other deadline to fire", async || log(&service, "b").await == ["deadline", "expired"]).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(log(&service, "a").await, ["deadline", "cancel"]);
    service.stop().await;
}
