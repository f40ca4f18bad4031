//! A service that only reads forgets all and reads it again.

use std::sync::Arc;

use millstream::service::{Options, Rebuild};
use millstream::store::{Store, open};
use millstream::testing::{Bench, TestService};
use millstream::{Document, Fault, Handler, Keys, Received, Service, Start, Unit};
use serde::{Deserialize, Serialize};

use crate::bank::*;

const TALLY: &str = "tally";

/// What all accounts together have seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    moves: u64,
    sum: i64,
}

impl Document for Tally {
    const COLLECTION: &'static str = "tallies";
    fn id(&self) -> &str {
        "all"
    }
}

struct Count;

impl Handler<Moved> for Count {
    fn touches(&self, _: &Received<Moved>) -> Keys {
        Keys::one::<Tally>("all")
    }
    fn handle(&self, event: &Received<Moved>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let mut tally = unit.get::<Tally>("all")?.unwrap_or_default();
        tally.moves += 1;
        if let Act::Add(amount) = event.act {
            tally.sum += amount;
        }
        unit.put(tally);
        Ok(())
    }
}

fn tally() -> Service {
    Service::new(TALLY).keeps::<Tally>().reads(BANK, Start::Beginning).on(Count)
}

async fn start(bench: &Bench, rebuild: bool) -> TestService {
    start_with(bench, rebuild.then_some(Rebuild::Whole)).await
}

async fn start_with(bench: &Bench, rebuild: Option<Rebuild>) -> TestService {
    bench.launch_with(tally(), Options { timing: short(), rebuild, ..Options::default() }).await
}

async fn counted(bench: &Bench, service: &TestService) -> Tally {
    service.until_ready().await;
    bench.until_handled(&BANK, TALLY).await;
    service.get::<Tally>("all").await.unwrap_or_default()
}

async fn add(bench: &Bench, amounts: impl IntoIterator<Item = i64>) {
    for amount in amounts {
        publish(bench, "a", &amount.to_string(), Act::Add(amount)).await;
    }
}

fn store(bench: &Bench) -> Arc<dyn Store> {
    open(&bench.store.url(TALLY)).unwrap()
}

#[tokio::test]
async fn a_rebuilt_service_has_what_it_had_and_goes_on_from_there_however_often_it_is_rebuilt() {
    let bench = bench().await;
    add(&bench, 1..=50).await;
    let service = start(&bench, false).await;
    let before = counted(&bench, &service).await;
    assert_eq!(before, Tally { moves: 50, sum: 1275 });
    service.stop().await;
    for _ in 0..2 {
        let service = start(&bench, true).await;
        assert_eq!(counted(&bench, &service).await, before);
        service.stop().await;
    }
    add(&bench, [100]).await;
    let service = start(&bench, false).await;
    assert_eq!(counted(&bench, &service).await, Tally { moves: 51, sum: 1375 });
    service.stop().await;
}

#[tokio::test]
async fn a_service_whose_stream_has_lost_its_beginning_is_rebuilt_from_the_rest_only_if_that_is_asked_for() {
    let bench = bench().await;
    add(&bench, 1..=50).await;
    let service = start(&bench, false).await;
    counted(&bench, &service).await;
    service.stop().await;
    let stream = bench.jetstream().get_stream(BANK.name).await.unwrap();
    stream.purge().sequence(41).await.unwrap();
    let service = start(&bench, false).await;
    assert_eq!(counted(&bench, &service).await.moves, 50, "what was counted stays counted");
    service.stop().await;
    let service = start(&bench, true).await;
    service.until_waits_for("the first 40 messages of stream BANK are gone, and it holds 10 since 20").await;
    service.until_waits_for("or with --rebuild=partial").await;
    assert_eq!(service.get::<Tally>("all").await.unwrap().moves, 50, "nothing is touched");
    service.stop().await;
    let service = start_with(&bench, Some(Rebuild::Partial)).await;
    assert_eq!(counted(&bench, &service).await, Tally { moves: 10, sum: 455 });
    service.stop().await;
}

#[tokio::test]
async fn a_rebuild_that_died_half_way_says_that_it_must_be_repeated_or_goes_on_by_itself() {
    let bench = bench().await;
    add(&bench, 1..=20).await;
    let service = start(&bench, false).await;
    let before = counted(&bench, &service).await;
    service.stop().await;

    // It died when the store was cleared.
    store(&bench).clear().await.unwrap();
    let service = start(&bench, false).await;
    service
        .until_waits_for(
            "restore the database that belongs to it, or start once with --rebuild to read everything again",
        )
        .await;
    assert_eq!(service.get::<Tally>("all").await, None, "nothing is counted anew from the middle");
    service.stop().await;
    let service = start(&bench, true).await;
    assert_eq!(counted(&bench, &service).await, before);
    service.stop().await;

    // It died when the durable was gone, too.
    store(&bench).clear().await.unwrap();
    bench.jetstream().get_stream(BANK.name).await.unwrap().delete_consumer(TALLY).await.unwrap();
    let service = start(&bench, false).await;
    assert_eq!(counted(&bench, &service).await, before);
    service.stop().await;
}

#[tokio::test]
async fn a_rebuild_waits_while_another_instance_runs_and_for_none_that_was_killed() {
    let bench = bench().await;
    add(&bench, 1..=20).await;
    let first = start(&bench, false).await;
    let before = counted(&bench, &first).await;
    let second = start(&bench, true).await;
    second.until_waits_for("another instance of `tally` runs").await;
    assert_eq!(first.get::<Tally>("all").await.as_ref(), Some(&before), "nothing is touched meanwhile");
    first.stop().await;
    // What a killed process leaves behind.
    store(&bench).insert_instance(millstream::Id::random(millstream::Timestamp::system())).await.unwrap();
    assert_eq!(counted(&bench, &second).await, before);
    second.stop().await;
}
