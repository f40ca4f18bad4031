//! Releases beside each other: old events, new events, events that nobody wants any more.

use std::time::Duration;

use millstream::engine::timing::Timing;
use millstream::event::Older;
use millstream::testing::{Bench, TestService, fresh_meta};
use millstream::{Command, Document, Event, Fault, Handler, Id, Keys, Received, Service, Start, Stream, Unit};
use serde::{Deserialize, Serialize};

use crate::bank::*;

/// What was moved was in cents once.
#[derive(Serialize, Deserialize)]
struct MovedV1 {
    account: String,
    cents: i64,
}

impl Event for MovedV1 {
    const TYPE: &'static str = "bank.paid";
    const STREAM: Stream = BANK;
    fn key(&self) -> &str {
        &self.account
    }
}

#[derive(Serialize, Deserialize)]
struct Paid {
    account: String,
    euros: i64,
}

impl From<MovedV1> for Paid {
    fn from(old: MovedV1) -> Self {
        Self { account: old.account, euros: old.cents / 100 }
    }
}

impl Event for Paid {
    const TYPE: &'static str = MovedV1::TYPE;
    const VERSION: u32 = 3;
    const OLDER: &'static [Older<Self>] = &[Older::of::<MovedV1>()];
    const STREAM: Stream = BANK;
    fn key(&self) -> &str {
        &self.account
    }
}

fn add(unit: &mut Unit<'_>, id: &str, note: &str, amount: i64) -> Result<(), Fault> {
    let account = unit.get::<Account>(id)?;
    let mut account = account.unwrap_or_else(|| Account { id: id.into(), ..Account::default() });
    account.balance += amount;
    account.log.push(note.into());
    unit.put(account);
    Ok(())
}

struct OnPaid;

impl Handler<Paid> for OnPaid {
    fn touches(&self, paid: &Received<Paid>) -> Keys {
        Keys::one::<Account>(&paid.account)
    }
    fn handle(&self, paid: &Received<Paid>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        add(unit, &paid.account, "paid", paid.euros)
    }
}

/// The ledger before it knew of payments, and since.
fn releases(world: &World) -> (Service, Service) {
    (ledger(world).release("1.9.0"), ledger(world).on(OnPaid).release("1.10.0"))
}

/// Nothing is parked as ahead, however long a busy machine takes.
fn rolling() -> Timing {
    Timing { ahead_patience: LONG * 10, ..short() }
}

fn said(letter: &millstream::event::Emitted, name: &str) -> String {
    letter.header(&format!("Millstream-{name}")).unwrap()
}

async fn filters(bench: &Bench) -> Vec<String> {
    let mut filters = bench.durable(&BANK, SERVICE).await.unwrap().config.filter_subjects;
    filters.sort();
    filters
}

#[tokio::test]
async fn an_event_of_an_old_version_is_raised_to_the_one_that_is_handled() {
    let bench = bench().await;
    let service = bench.run(releases(&World::default()).1, short()).await;
    bench.publish(&fresh_meta(), &MovedV1 { account: "a".into(), cents: 700 }).await;
    bench.publish(&fresh_meta(), &Paid { account: "a".into(), euros: 5 }).await;
    until("both to be handled", async || balance(&service).await == 12).await;

    // A version that nothing raises, and a body that is not of its version.
    bench.publish_raw("bank.paid.0", &[("ce-type", "bank.paid.v2")], "{}").await;
    bench.publish_raw("bank.paid.0", &[("ce-type", "bank.paid.v1")], r#"{"account":"a","cents":"many"}"#).await;
    let letters = bench.expect_dead_letters(SERVICE, 2).await;
    assert!(letters.iter().all(|letter| said(letter, "Reason") == "schema"));
    assert_eq!(said(&letters[0], "Error"), "this release knows version 3 of `bank.paid`, not 2");
    assert!(said(&letters[1], "Error").contains("invalid type"), "{}", said(&letters[1], "Error"));
    service.stop().await;
}

#[tokio::test]
async fn what_only_a_newer_release_would_know_is_parked_as_ahead_when_its_time_is_over_and_not_before() {
    let bench = bench().await;
    let patience = Duration::from_millis(1500);
    let timing = Timing { ahead_patience: patience, ..short() };
    let service = bench.run(ledger(&World::default()), timing).await;
    let good = serde_json::to_vec(&moved("a", "n", Act::Add(1))).unwrap();
    let before = std::time::Instant::now();
    bench.publish_raw("bank.moved.0", &[("ce-type", "bank.moved.v3")], good.clone()).await;
    bench.publish_raw("bank.moved.0", &[("ce-type", "bank.robbed.v1")], good).await;
    // Those behind it are not held up.
    publish(&bench, "a", "goes on", Act::Add(1)).await;
    until("the next to be handled", async || service.get::<Account>("a").await.is_some()).await;
    assert!(before.elapsed() > patience || bench.dead_letters(SERVICE).await.is_empty());
    let letters = bench.expect_dead_letters(SERVICE, 2).await;
    assert!(before.elapsed() >= patience, "{:?}", before.elapsed());
    let mut errors: Vec<String> = letters.iter().map(|letter| said(letter, "Error")).collect();
    errors.sort();
    assert_eq!(
        errors,
        ["this release has no handler for `bank.robbed.v1`", "this release knows version 2 of `bank.moved`, not 3"]
    );
    assert!(letters.iter().all(|letter| said(letter, "Reason") == "ahead"));
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.metric("millstream_dead_lettered_total", &[("reason", "ahead")]), Some(2.0));
    service.stop().await;
}

async fn balance(service: &TestService) -> i64 {
    service.get::<Account>("a").await.map_or(0, |account| account.balance)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_and_a_new_release_on_one_durable_handle_a_new_event_without_a_dead_letter() {
    let bench = bench().await;
    let world = World::default();
    let (old, new) = releases(&world);
    let old = bench.run(old, rolling()).await;
    publish(&bench, "a", "before", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    let new = bench.run(new, rolling()).await;
    for at in 0..300 {
        bench.publish(&fresh_meta(), &Paid { account: "a".into(), euros: 1 }).await;
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    until("all to be handled", async || balance(&new).await >= 601).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(balance(&new).await, 601, "each once");
    let given = old.metric("millstream_messages_total", &[("event", "unknown"), ("outcome", "retried")]);
    assert!(given > Some(0.0), "the old release was given some of the new events, too");
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    assert_eq!(filters(&bench).await, ["bank.moved.*", "bank.paid.*"]);

    // The old release alone, started again, leaves the durable as the new one has made it.
    new.stop().await;
    old.stop().await;
    let old = bench.run(releases(&world).0, rolling()).await;
    publish(&bench, "a", "after", Act::Add(1)).await;
    until("the old release to work", async || balance(&old).await == 602).await;
    assert_eq!(filters(&bench).await, ["bank.moved.*", "bank.paid.*"]);
    let durable = bench.durable(&BANK, SERVICE).await.unwrap();
    assert_eq!(durable.config.metadata["millstream.release"], "1.10.0");
    let stream = bench.jetstream().get_stream(LEDGER.name).await.unwrap();
    assert_eq!(stream.cached_info().config.metadata["millstream.release"], "1.10.0");
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_deleted_under_load_that_the_old_release_makes_anew_skips_none_of_the_new_events() {
    let bench = bench().await;
    let world = World::default();
    let (old, new) = releases(&world);
    let (old, new) = (bench.run(old, rolling()).await, bench.run(new, rolling()).await);
    let mut published = 0;
    for _ in 0..5 {
        for at in 0..40 {
            bench.publish(&fresh_meta(), &Paid { account: "a".into(), euros: 1 }).await;
            publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
            published += 2;
        }
        // It may be on its way to be made again.
        let stream = bench.jetstream().get_stream(BANK.name).await.unwrap();
        drop(stream.delete_consumer(SERVICE).await);
    }
    until("all to be handled", async || balance(&new).await >= published).await;
    until("the filter to be there again", async || {
        bench.durable(&BANK, SERVICE).await.is_some_and(|durable| durable.config.filter_subjects.len() == 2)
    })
    .await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(balance(&new).await, published, "each once");
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    old.stop().await;
    new.stop().await;
}

#[tokio::test]
async fn what_is_left_for_a_handler_that_has_gone_is_acked_counted_and_not_journalled() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world).on(OnPaid).release("1.0.0"), rolling()).await;
    service.stop().await;
    let ignoring = ledger(&world).ignores::<Paid>().release("1.1.0");
    let service = bench.run(ignoring, rolling()).await;
    for _ in 0..20 {
        bench.publish(&fresh_meta(), &Paid { account: "a".into(), euros: 1 }).await;
    }
    publish(&bench, "a", "handled", Act::Add(1)).await;
    let handled = async || service.get::<Account>("a").await.is_some_and(|account| account.log == ["handled"]);
    until("the other to be handled", handled).await;
    bench.until_handled(&BANK, SERVICE).await;
    let ignored = service.metric("millstream_messages_total", &[("event", "bank.paid"), ("outcome", "ignored")]);
    assert_eq!(ignored, Some(20.0));
    service.stop().await;
    let file = rusqlite::Connection::open(bench.store.path(SERVICE)).unwrap();
    let entries: i64 = file.query_row("SELECT count(*) FROM journal", [], |row| row.get(0)).unwrap();
    assert_eq!(entries, 1);
    assert_eq!(filters(&bench).await, ["bank.moved.*", "bank.paid.*"]);
    assert!(bench.dead_letters(SERVICE).await.is_empty());
}

/// The account as the next release keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct NewAccount {
    id: String,
    balance: String,
    log: Vec<String>,
}

impl Document for NewAccount {
    const COLLECTION: &'static str = Account::COLLECTION;
    const SHAPE: u32 = 2;
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Serialize)]
struct Open(&'static str);

impl Command for Open {
    type Reply = ();
    fn touches(&self, _: Id) -> Keys {
        Keys::one::<NewAccount>(self.0)
    }
    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        unit.put(NewAccount { id: self.0.into(), balance: "a lot".into(), log: vec![] });
        Ok(())
    }
}

/// Writes the account as it was, without looking.
#[derive(Serialize)]
struct Overwrite(&'static str);

impl Command for Overwrite {
    type Reply = ();
    fn touches(&self, _: Id) -> Keys {
        Keys::one::<Account>(self.0)
    }
    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        unit.put(Account { id: self.0.into(), ..Account::default() });
        Ok(())
    }
}

struct OnMovedNow;

impl Handler<Moved> for OnMovedNow {
    fn touches(&self, moved: &Received<Moved>) -> Keys {
        Keys::one::<NewAccount>(&moved.account)
    }
    fn handle(&self, moved: &Received<Moved>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let mut account = unit.get::<NewAccount>(&moved.account)?.ok_or_else(|| Fault::not_found("account"))?;
        account.log.push(moved.note.clone());
        unit.put(account);
        Ok(())
    }
}

#[tokio::test]
async fn a_document_of_a_newer_shape_is_not_written_and_its_message_waits_for_the_newer_release() {
    let bench = bench().await;
    let new =
        || Service::new(SERVICE).keeps::<NewAccount>().reads(BANK, Start::Beginning).on(OnMovedNow).release("2.0.0");
    let service = bench.run(new(), rolling()).await;
    service.submit(Open("a")).await.unwrap();
    service.stop().await;

    let world = World::default();
    let old = bench.run(ledger(&world).release("1.0.0"), rolling()).await;
    let refused = old.submit(Overwrite("a")).await.unwrap_err().to_string();
    assert_eq!(refused, "a document of `accounts` has shape 2; this release knows 1");
    let refused = old.submit_to(&world, moved("a", "command", Act::Add(1))).await.unwrap_err();
    assert!(matches!(refused, millstream::commands::CommandError::Unavailable(_)), "{refused:?}");
    publish(&bench, "a", "message", Act::Add(1)).await;
    let retried = [("event", "bank.moved"), ("outcome", "retried")];
    // More often than a message is retried, or started before it is taken for deadly.
    until("it to come back", async || old.metric("millstream_messages_total", &retried) >= Some(12.0)).await;
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    old.stop().await;

    let service = bench.run(new(), rolling()).await;
    until("the newer release to take it", async || service.get::<NewAccount>("a").await.unwrap().log == ["message"])
        .await;
    assert_eq!(service.get::<NewAccount>("a").await.unwrap().balance, "a lot");
    bench.until_handled(&BANK, SERVICE).await;
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn more_messages_than_may_be_unacked_that_wait_for_a_newer_release_do_not_stop_the_others() {
    let bench = bench().await;
    let timing = Timing { max_ack_pending: 256, ahead_patience: LONG * 2, ..short() };
    let newer = || async { bench.publish_raw("bank.moved.0", &[("ce-type", "bank.moved.v3")], "{}").await };
    // A few wait, however long it takes.
    let service = bench.run(ledger(&World::default()), timing).await;
    for _ in 0..50 {
        newer().await;
    }
    publish(&bench, "a", "first", Act::Add(1)).await;
    let handled = async |note: &str| {
        until(&format!("{note} to be handled"), async || {
            service.get::<Account>("a").await.is_some_and(|account| account.log.iter().any(|noted| noted == note))
        })
        .await;
    };
    handled("first").await;
    for _ in 0..400 {
        newer().await;
    }
    publish(&bench, "a", "last", Act::Add(1)).await;
    handled("last").await;
    let letters = bench.expect_dead_letters(SERVICE, 450 - 256).await;
    for letter in &letters {
        assert_eq!(letter.header("Millstream-Reason").unwrap(), "ahead");
        assert!(
            letter.header("Millstream-Error").unwrap().contains("too many other messages already wait"),
            "{letter:?}"
        );
    }
    let waiting = async || bench.durable(&BANK, SERVICE).await.unwrap().num_ack_pending;
    until("at most half of what may be unacked to wait", async || waiting().await <= 128).await;
    service.stop().await;
}
