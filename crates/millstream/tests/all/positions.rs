//! A position belongs to a stream, a stretch of time and a database: whichever of them is put back or made anew, nothing is skipped.

use std::path::Path;
use std::time::Duration;

use millstream::engine::timing::Timing;
use millstream::service::Options;
use millstream::testing::{Bench, TestService, fresh_meta};
use millstream::{Event, Fault, Handler, Keys, Received, Service, Start, Stream, Unit};
use serde::{Deserialize, Serialize};

use crate::bank::*;

async fn add(bench: &Bench, notes: impl IntoIterator<Item = u32>) {
    for note in notes {
        publish(bench, "a", &note.to_string(), Act::Add(1)).await;
    }
}

async fn balance(service: &TestService) -> i64 {
    service.get::<Account>("a").await.map_or(0, |account| account.balance)
}

async fn until_balance(service: &TestService, expected: i64) {
    until(&format!("a balance of {expected}"), async || balance(service).await >= expected).await;
    assert_eq!(balance(service).await, expected, "each once");
}

/// Copies a database as a nightly backup does.
fn back_up(bench: &Bench, to: &Path) {
    let file = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
    file.busy_timeout(Duration::from_secs(5)).unwrap();
    file.execute("VACUUM INTO ?", [to.to_str().unwrap()]).unwrap();
}

/// How far the database has recorded what was handled.
fn recorded(bench: &Bench) -> Option<i64> {
    let file = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
    file.query_row("SELECT seen FROM settled WHERE stream = 'BANK'", [], |row| row.get(0)).ok()
}

/// Puts a copy in the place of the database.
fn restore(bench: &Bench, from: &Path) {
    let path = bench.store.path(SERVICE);
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.clone().into_os_string();
        beside.push(suffix);
        drop(std::fs::remove_file(beside));
    }
    let copy = path.with_extension("copy");
    std::fs::copy(from, &copy).unwrap();
    std::fs::rename(copy, path).unwrap();
}

#[tokio::test]
async fn a_database_that_was_restored_from_a_backup_handles_what_came_since_again() {
    let bench = bench().await;
    let world = World::default();
    let backup = bench.store.folder().join("backup.db");
    let service = bench.run(ledger(&world), short()).await;
    add(&bench, 0..10).await;
    bench.until_handled(&BANK, SERVICE).await;
    back_up(&bench, &backup);
    add(&bench, 10..20).await;
    bench.until_handled(&BANK, SERVICE).await;
    service.stop().await;

    restore(&bench, &backup);
    let service = bench.run(ledger(&world), short()).await;
    add(&bench, 20..25).await;
    until_balance(&service, 25).await;
    bench.until_handled(&BANK, SERVICE).await;
    let recovered = service.metric("millstream_messages_recovered_total", &[("stream_name", "BANK")]);
    assert_eq!(recovered, Some(10.0));
    let notes = service.notes();
    assert!(notes[0].contains("BANK: 10 messages that had been acked were not in this database"), "{notes:?}");
    service.stop().await;
    // Once more, with nothing that is missing.
    let service = bench.run(ledger(&world), short()).await;
    add(&bench, 25..26).await;
    until_balance(&service, 26).await;
    assert!(service.notes().is_empty());
    service.stop().await;
}

#[tokio::test]
async fn a_database_that_is_put_back_while_its_service_runs_handles_what_came_since_again() {
    let bench = bench().await;
    let world = World::default();
    let backup = bench.store.folder().join("backup.db");
    let service = bench.run(ledger(&world), short()).await;
    add(&bench, 0..10).await;
    bench.until_handled(&BANK, SERVICE).await;
    back_up(&bench, &backup);
    add(&bench, 10..20).await;
    bench.until_handled(&BANK, SERVICE).await;
    until("the position to be recorded", async || recorded(&bench) == Some(20)).await;
    restore(&bench, &backup);
    add(&bench, 20..25).await;
    until_balance(&service, 25).await;
    service.stop().await;
}

/// The process knows of more than the database that is there when the broker is back.
#[tokio::test]
async fn a_database_that_is_put_back_while_the_broker_is_away_handles_what_came_since_again() {
    let mut bench = bench().await;
    let world = World::default();
    let backup = bench.store.folder().join("backup.db");
    let service = bench.run(ledger(&world), short()).await;
    add(&bench, 0..10).await;
    bench.until_handled(&BANK, SERVICE).await;
    back_up(&bench, &backup);
    add(&bench, 10..20).await;
    bench.until_handled(&BANK, SERVICE).await;
    until("the position to be recorded", async || recorded(&bench) == Some(20)).await;
    bench.broker.kill();
    until("that to be seen", async || !service.waits_for().is_empty()).await;
    restore(&bench, &backup);
    bench.broker.restart().await;
    service.until_ready().await;
    add(&bench, 20..25).await;
    until_balance(&service, 25).await;
    service.stop().await;
}

/// What the others record meanwhile is more than the stream had when a replica looked first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_under_load_take_nothing_for_a_restored_backup() {
    const MESSAGES: u32 = 150;
    let bench = bench().await;
    let world = World::default();
    let one = bench.run(ledger(&world), short()).await;
    let made = bench.durable(&BANK, SERVICE).await.unwrap().created;
    for round in 0..4 {
        let load = add(&bench, round * MESSAGES..(round + 1) * MESSAGES);
        let ((), two) = tokio::join!(load, bench.run(ledger(&world), short()));
        assert_eq!((two.notes(), one.notes()), (vec![], vec![]));
        two.stop().await;
    }
    until_balance(&one, i64::from(4 * MESSAGES)).await;
    assert_eq!(bench.durable(&BANK, SERVICE).await.unwrap().created, made, "nothing is read again");
    one.stop().await;
}

#[tokio::test]
async fn what_was_acked_and_not_yet_recorded_when_a_process_was_killed_is_read_again_and_handled_once() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    add(&bench, 0..10).await;
    bench.until_handled(&BANK, SERVICE).await;
    service.stop().await;
    // As if it had ended before it recorded the last of them.
    let file = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
    assert_eq!(file.execute("UPDATE settled SET seen = 6 WHERE stream = 'BANK' AND seen = 10", []).unwrap(), 1);
    drop(file);
    let service = bench.run(ledger(&world), short()).await;
    add(&bench, 10..11).await;
    until_balance(&service, 11).await;
    bench.until_handled(&BANK, SERVICE).await;
    let duplicates = service.metric("millstream_messages_total", &[("event", "bank.moved"), ("outcome", "duplicate")]);
    assert_eq!((duplicates, service.metric("millstream_messages_recovered_total", &[])), (Some(4.0), Some(0.0)));
    assert!(service.notes().is_empty(), "nothing was missing");
    service.stop().await;
}

#[derive(Serialize, Deserialize)]
struct Paid {
    account: String,
}

impl Event for Paid {
    const TYPE: &'static str = "bank.paid";
    const STREAM: Stream = BANK;
    fn key(&self) -> &str {
        &self.account
    }
}

struct OnPaid;

impl Handler<Paid> for OnPaid {
    fn touches(&self, paid: &Received<Paid>) -> Keys {
        Keys::one::<Account>(&paid.account)
    }
    fn handle(&self, paid: &Received<Paid>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        credit(unit, &paid.account, 100)
    }
}

fn credit(unit: &mut Unit<'_>, id: &str, amount: i64) -> Result<(), Fault> {
    let account = unit.get::<Account>(id)?;
    let mut account = account.unwrap_or_else(|| Account { id: id.into(), ..Account::default() });
    account.balance += amount;
    unit.put(account);
    Ok(())
}

async fn pay(bench: &Bench, times: usize) {
    for _ in 0..times {
        bench.publish(&fresh_meta(), &Paid { account: "a".into() }).await;
    }
}

#[tokio::test]
async fn a_handler_that_is_added_is_given_the_events_that_came_before_its_release() {
    let bench = bench().await;
    let world = World::default();
    let old = bench.run(ledger(&world).release("1.0.0"), short()).await;
    pay(&bench, 3).await;
    add(&bench, 0..5).await;
    bench.until_handled(&BANK, SERVICE).await;
    // Both releases side by side, as in every roll-out.
    let new = bench.run(ledger(&world).on(OnPaid).release("1.1.0"), short()).await;
    pay(&bench, 1).await;
    add(&bench, 5..6).await;
    until_balance(&new, 406).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    old.stop().await;
    new.stop().await;
}

/// Only looks on, from its first start.
fn onlooker(also_paid: bool) -> Service {
    let service = Service::new(SERVICE).keeps::<Account>().reads(BANK, Start::Now).on(Count);
    if also_paid { service.on(OnPaid) } else { service }
}

struct Count;

impl Handler<Moved> for Count {
    fn touches(&self, moved: &Received<Moved>) -> Keys {
        Keys::one::<Account>(&moved.account)
    }
    fn handle(&self, moved: &Received<Moved>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        credit(unit, &moved.account, 1)
    }
}

#[tokio::test]
async fn a_handler_that_is_added_to_an_onlooker_is_given_what_comes_from_then_on() {
    let bench = bench().await;
    pay(&bench, 2).await;
    let service = bench.run(onlooker(false), short()).await;
    pay(&bench, 2).await;
    add(&bench, 0..3).await;
    until_balance(&service, 3).await;
    bench.until_handled(&BANK, SERVICE).await;
    service.stop().await;
    pay(&bench, 1).await;
    let service = bench.run(onlooker(true), short()).await;
    until_balance(&service, 103).await;
    pay(&bench, 1).await;
    until_balance(&service, 203).await;
    service.stop().await;
}

#[tokio::test]
async fn an_onlooker_reads_a_stream_that_was_made_anew_from_its_beginning_and_only_its_first_from_now() {
    let bench = bench().await;
    add(&bench, 0..3).await;
    let service = bench.run(onlooker(false), short()).await;
    add(&bench, 3..6).await;
    until_balance(&service, 3).await;
    service.stop().await;
    bench.jetstream().delete_stream(BANK.name).await.unwrap();
    bench.declare(&BANK).await;
    add(&bench, 0..5).await;
    let service = bench.run(onlooker(false), short()).await;
    add(&bench, 5..8).await;
    until_balance(&service, 11).await;
    let notes = service.notes();
    assert!(notes[0].contains("BANK: the stream was deleted and recreated"), "{notes:?}");
    service.stop().await;
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)
        } else {
            std::fs::copy(entry.path(), to).map(drop).unwrap()
        }
    }
}

#[tokio::test]
async fn a_broker_that_was_restored_from_a_backup_has_its_new_events_handled_though_their_sequences_are_settled() {
    let mut bench = bench().await;
    let world = World::default();
    // Entries expire as soon as they are acked: the mark answers for them.
    let expiring = || Timing {
        journal_retention: Duration::from_millis(50),
        key_retention: Duration::from_millis(50),
        expiry_every: Duration::from_millis(100),
        ack_wait: LONG * 2,
        ..short()
    };
    let service = bench.run(ledger(&world), expiring()).await;
    add(&bench, 0..5).await;
    bench.until_handled(&BANK, SERVICE).await;
    bench.broker.stop().await;
    let backup = bench.store.folder().join("broker");
    copy(bench.broker.folder(), &backup);
    bench.broker.restart().await;
    add(&bench, 5..20).await;
    until_balance(&service, 20).await;
    let settled = async || {
        let file = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
        file.query_row("SELECT through FROM settled WHERE stream = 'BANK'", [], |row| row.get::<_, i64>(0)).ok()
            == Some(20)
    };
    until("all of it to be settled", settled).await;
    service.stop().await;

    bench.broker.stop().await;
    std::fs::remove_dir_all(bench.broker.folder()).unwrap();
    copy(&backup, bench.broker.folder());
    bench.broker.restart().await;
    add(&bench, 100..110).await;
    let service = bench.run(ledger(&world), expiring()).await;
    until_balance(&service, 30).await;
    let notes = service.notes();
    assert!(notes[0].contains("the stream ends with message 15, and 20 were handled before"), "{notes:?}");
    add(&bench, 110..120).await;
    until_balance(&service, 40).await;
    service.stop().await;
}

#[tokio::test]
async fn what_was_trimmed_before_the_first_start_is_told() {
    let bench = bench().await;
    add(&bench, 0..10).await;
    let stream = bench.jetstream().get_stream(BANK.name).await.unwrap();
    stream.purge().sequence(8).await.unwrap();
    let service = bench.run(ledger(&World::default()), short()).await;
    until_balance(&service, 3).await;
    assert_eq!(service.metric("millstream_messages_gone_total", &[("stream_name", "BANK")]), Some(7.0));
    let notes = service.notes();
    assert!(notes[0].contains("BANK: messages 1 to 7 are no longer in the stream"), "{notes:?}");
    service.stop().await;
}

/// A second copy of an event, as a sweep publishes it outside of the broker's window of deduplication.
#[tokio::test]
async fn a_copy_behind_a_backlog_that_is_older_than_the_journal_is_a_duplicate() {
    let bench = bench().await;
    let world = World::default();
    let timing = || Timing {
        journal_retention: Duration::from_secs(2),
        key_retention: Duration::from_secs(2),
        expiry_every: Duration::from_millis(50),
        heartbeat: Duration::from_millis(50),
        // Small batches, so that some of the backlog is handled and acked well before the copy.
        batch_inputs: 4,
        ..short()
    };
    // This one keeps its entry, however busy the machine.
    let service = bench.run(ledger(&world), short()).await;
    let twice = fresh_meta();
    bench.publish(&twice, &moved("a", "twice", Act::Add(1))).await;
    bench.until_handled(&BANK, SERVICE).await;
    service.stop().await;
    let copy = |note: &str| moved("a", note, Act::Add(1));
    for note in 0..400 {
        bench.publish(&fresh_meta(), &copy(&note.to_string())).await;
    }
    let body = serde_json::to_vec(&copy("twice")).unwrap();
    let id = twice.id.to_string();
    bench.publish_raw("bank.moved.0", &[("ce-type", "bank.moved.v2"), ("ce-id", &id)], body).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let service = bench.launch_with(ledger(&world), Options { timing: timing(), ..Options::default() }).await;
    until("the backlog to be handled", async || balance(&service).await >= 401).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(balance(&service).await, 401, "each once");
    service.stop().await;
}
