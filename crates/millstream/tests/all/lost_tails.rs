//! A broker that comes back without the last messages that it had acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use millstream::engine::timing::Timing;
use millstream::event::Emitted;
use millstream::store::{Mark, Published, open};
use millstream::testing::{Bench, TestService, fresh_meta};
use millstream::{Fault, Handler, Keys, Received, Service, Start, Timestamp, Unit};

use crate::bank::*;
use crate::positions::copy;

/// Reads what the ledger says, and keeps how often it was told each thing.
pub(crate) const READER: &str = "reader";

pub(crate) struct Tell;

impl Handler<Noted> for Tell {
    fn touches(&self, noted: &Received<Noted>) -> Keys {
        Keys::one::<Account>(&noted.note)
    }
    fn handle(&self, noted: &Received<Noted>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let told = unit.get::<Account>(&noted.note)?;
        let told = told.unwrap_or_else(|| Account { id: noted.note.clone(), ..Account::default() });
        unit.put(Account { balance: told.balance + 1, ..told });
        Ok(())
    }
}

fn reader() -> Service {
    Service::new(READER).keeps::<Account>().reads(LEDGER, Start::Beginning).on(Tell)
}

/// A copy of the broker's files as they are, which is what a power failure leaves.
fn snapshot(bench: &Bench) {
    let copied = bench.store.folder().join("broker");
    drop(std::fs::remove_dir_all(&copied));
    bench.broker.pause();
    copy(bench.broker.folder(), &copied);
    bench.broker.resume();
}

/// Kills the broker and puts the copy in place.
async fn put_back(bench: &mut Bench) {
    bench.broker.kill();
    std::fs::remove_dir_all(bench.broker.folder()).unwrap();
    copy(&bench.store.folder().join("broker"), bench.broker.folder());
    bench.broker.restart().await;
}

async fn last(bench: &Bench) -> u64 {
    match bench.jetstream().get_stream(LEDGER.name).await {
        Ok(stream) => stream.cached_info().state.last_sequence,
        Err(_) => 0,
    }
}

async fn add(service: &TestService, world: &World, notes: std::ops::Range<usize>) {
    for at in notes {
        service.submit_to(world, moved(&format!("a{}", at % 7), &format!("n{at}"), Act::Add(1))).await.unwrap();
    }
}

fn in_stream(events: &[Received<Noted>]) -> BTreeSet<String> {
    events.iter().map(|noted| noted.note.clone()).collect()
}

async fn until_in_stream(bench: &Bench, expected: &BTreeSet<String>) {
    let complete = async || in_stream(&bench.events::<Noted>().await).is_superset(expected);
    until("all that was committed to be in its stream", complete).await;
}

/// Each was told to the reader once.
async fn assert_told_once(bench: &Bench, reader: &TestService, expected: &BTreeSet<String>) {
    bench.until_handled(&LEDGER, READER).await;
    for note in expected {
        until(&format!("{note} to be told"), async || reader.get::<Account>(note).await.is_some()).await;
    }
    bench.until_handled(&LEDGER, READER).await;
    for note in expected {
        assert_eq!(reader.get::<Account>(note).await.unwrap().balance, 1, "{note}");
    }
}

async fn until_recorded(bench: &Bench, through: u64) {
    let store = open(&bench.store.url(SERVICE)).unwrap();
    let recorded = async || {
        let records = store.published(LEDGER.name).await.unwrap();
        records.iter().filter_map(Published::newest).any(|mark| mark.seq >= through)
    };
    until("what is published to be recorded", recorded).await;
}

fn republished(service: &TestService) -> f64 {
    service.metric("millstream_messages_republished_total", &[("stream_name", LEDGER.name)]).unwrap_or_default()
}

/// Commands go on all the time, while the broker is put back again and again to a state from before what it acknowledged last.
async fn put_back_under_load(replicas: usize) {
    let mut bench = bench().await;
    let world = World::default();
    let mut services = vec![];
    for _ in 0..replicas {
        services.push(Arc::new(bench.run(ledger(&world), short()).await));
    }
    let listener = bench.run(reader(), short()).await;
    let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = services.iter().enumerate().map(|(replica, service)| {
        let (service, world, stop, accepted) = (service.clone(), world.clone(), stop.clone(), accepted.clone());
        tokio::spawn(async move {
            let mut done = BTreeSet::new();
            for at in 0.. {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                let note = format!("r{replica}-{at}");
                if service.submit_to(&world, moved(&format!("a{}", at % 7), &note, Act::Add(1))).await.is_ok() {
                    accepted.fetch_add(1, Ordering::AcqRel);
                    done.insert(note);
                }
                // Neither does it take all of the processor nor more than the journal may hold back.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            done
        })
    });
    let load: Vec<_> = load.collect();
    for round in 0..10 {
        let begun = accepted.load(Ordering::Acquire);
        until("some to be accepted", async || accepted.load(Ordering::Acquire) >= begun + 15).await;
        snapshot(&bench);
        let before = last(&bench).await;
        until(&format!("more to be published in round {round}"), async || last(&bench).await >= before + 15).await;
        put_back(&mut bench).await;
    }
    stop.store(true, Ordering::Release);
    let mut expected = BTreeSet::new();
    for load in load {
        expected.append(&mut load.await.unwrap());
    }
    until_in_stream(&bench, &expected).await;
    assert_told_once(&bench, &listener, &expected).await;
    let lost: f64 = services.iter().map(|service| republished(service)).sum();
    assert!(lost > 0.0, "what was put back had lost something");
    for service in services {
        service.until_ready().await;
        Arc::into_inner(service).unwrap().stop().await;
    }
    listener.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_forgets_again_and_again_under_load_is_published_again_and_handled_once() {
    put_back_under_load(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_replicas_have_published_and_the_broker_forgets_is_published_again_and_handled_once() {
    put_back_under_load(2).await;
}

fn notes(range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(|at| format!("n{at}")).collect()
}

#[tokio::test]
async fn what_the_broker_forgets_while_its_service_is_down_is_published_at_the_next_start() {
    let mut bench = bench().await;
    let world = World::default();
    let (service, listener) = (bench.run(ledger(&world), short()).await, bench.run(reader(), short()).await);
    add(&service, &world, 0..20).await;
    until_in_stream(&bench, &notes(0..20)).await;
    snapshot(&bench);
    add(&service, &world, 20..50).await;
    until_in_stream(&bench, &notes(0..50)).await;
    service.stop().await;
    put_back(&mut bench).await;
    assert_eq!(last(&bench).await, 20);

    let service = bench.run(ledger(&world), short()).await;
    until_in_stream(&bench, &notes(0..50)).await;
    until("it to be counted", async || republished(&service) == 30.0).await;
    until("it to be told", async || !service.notes().is_empty()).await;
    let told = service.notes();
    assert!(told[0].contains("LEDGER: the broker had lost 30 messages that it had acknowledged"), "{told:?}");
    assert_eq!(last(&bench).await, 50, "nothing is published that is there");
    // Once more, by a process that has published none of it itself.
    put_back(&mut bench).await;
    until_in_stream(&bench, &notes(0..50)).await;
    assert_told_once(&bench, &listener, &notes(0..50)).await;
    service.stop().await;
    listener.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_deleted_is_filled_again_from_the_journal() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    add(&service, &world, 0..20).await;
    until_recorded(&bench, 20).await;
    bench.jetstream().delete_stream(LEDGER.name).await.unwrap();
    until_in_stream(&bench, &notes(0..20)).await;
    until("it to be counted", async || republished(&service) == 20.0).await;
    service.stop().await;
}

/// Its last mark is older than its watermark, and the broker has lost what was published between the two.
#[tokio::test]
async fn what_a_dead_instance_had_published_since_its_last_mark_is_looked_for_by_whoever_sweeps_it() {
    let bench = bench().await;
    let store = open(&bench.store.url(SERVICE)).unwrap();
    let service = bench.run(ledger(&World::default()), short()).await;
    let noted = |note: &str| Emitted::event(SERVICE, &fresh_meta(), &Noted { account: "a".into(), note: note.into() });
    let now = Timestamp::system();
    let dead = dead_instance(&*store, now, 1, &[noted("lost").unwrap()]).await;
    let mark = Mark { batch: 0, seq: 0, id: String::new(), stored: None, at: now };
    store.put_published(Published { marks: vec![mark], ..Published::new(dead, LEDGER.name) }).await.unwrap();
    assert_eq!(in_stream(&bench.expect::<Noted>(1).await), BTreeSet::from(["lost".into()]));
    until("its row to go", async || store.instances().await.unwrap().iter().all(|row| row.id != dead)).await;
    let records = store.published(LEDGER.name).await.unwrap();
    let settled = records.iter().find(|record| record.instance == dead).and_then(Published::newest).unwrap();
    assert_eq!((settled.batch, settled.seq), (1, 1));
    service.stop().await;
}

#[tokio::test]
async fn what_is_lost_and_no_longer_in_the_journal_is_said() {
    let mut bench = bench().await;
    let world = World::default();
    let forgetful = || Timing {
        journal_retention: Duration::from_millis(50),
        key_retention: Duration::from_millis(50),
        expiry_every: Duration::from_millis(100),
        ..short()
    };
    let service = bench.run(ledger(&world), forgetful()).await;
    add(&service, &world, 0..5).await;
    until_in_stream(&bench, &notes(0..5)).await;
    snapshot(&bench);
    add(&service, &world, 5..10).await;
    until_in_stream(&bench, &notes(0..10)).await;
    until_recorded(&bench, 10).await;
    let expired = async || {
        let file = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
        file.query_row("SELECT count(*) FROM journal", [], |row| row.get::<_, i64>(0)).ok() == Some(0)
    };
    until("the journal to be empty", expired).await;
    service.stop().await;
    put_back(&mut bench).await;
    let service = bench.run(ledger(&world), forgetful()).await;
    let unfilled = async || {
        service.metric("millstream_stream_losses_unfilled_total", &[("stream_name", LEDGER.name)]) == Some(1.0)
    };
    until("it to be counted", unfilled).await;
    let told = service.notes();
    assert!(told.iter().any(|note| note.contains("LEDGER: the broker has lost messages")), "{told:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_database_of_a_release_without_marks_is_used_and_gets_them() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    add(&service, &world, 0..5).await;
    service.stop().await;
    rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap().execute_batch("DROP TABLE published").unwrap();
    let service = bench.run(ledger(&world), short()).await;
    add(&service, &world, 5..10).await;
    until_recorded(&bench, 10).await;
    assert_eq!((republished(&service), last(&bench).await), (0.0, 10));
    service.stop().await;
}
