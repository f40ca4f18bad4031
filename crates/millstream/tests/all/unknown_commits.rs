//! Commits of which the store does not say whether they happened: SQLite behind a store that loses answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::future::BoxFuture;
use millstream::commands::CommandError;
use millstream::engine::timing::Timing;
use millstream::service::Options;
use millstream::store::{
    Batch, Collection, CommitError, Entry, Expiry, Instance, Key, Loaded, PrepareError, Published, Selection, Settled,
    Store, StoreError, StoredDoc, WakesDue, Wanted, open,
};
use millstream::testing::{Bench, TestService};
use millstream::{Id, Timestamp};

use crate::bank::*;

/// A real store whose answers get lost on request.
pub(crate) struct Lossy {
    store: Arc<dyn Store>,
    /// How many of the next commits with entries end in [`CommitError::Unknown`].
    lose: AtomicU32,
    /// Whether those are committed all the same.
    commits: bool,
    /// Whether from the lost answer on the engine's loop finds the store away; the rest of the service still finds it, and
    /// so could take away what the loop needs.
    then_away: bool,
    pub(crate) away: AtomicBool,
    /// How often documents were loaded.
    pub(crate) loads: AtomicU32,
}

impl Lossy {
    pub(crate) fn new(bench: &Bench, commits: bool, then_away: bool) -> Arc<Self> {
        let store = open(&bench.store.url(SERVICE)).unwrap();
        let (lose, loads, away) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        Arc::new(Self { store, lose, commits, then_away, away, loads })
    }

    fn there(&self) -> Result<&dyn Store, StoreError> {
        if self.away.load(Ordering::Acquire) { Err(StoreError::new("away")) } else { Ok(&*self.store) }
    }
}

macro_rules! pass_on {
    ($($name:ident(&$me:lifetime self $(, $arg:ident: $of:ty)*) -> $out:ty;)*) => {$(
        fn $name<$me>(&$me self $(, $arg: $of)*) -> BoxFuture<$me, Result<$out, StoreError>> {
            self.store.$name($($arg),*)
        }
    )*};
    (the rest) => { pass_on! {
        find(&'a self, query: Selection) -> Vec<StoredDoc>;
        due_wakes(&'a self, kinds: &'a [&'static str], now: Timestamp, limit: usize) -> Vec<StoredDoc>;
        wakes_due(&'a self, now: Timestamp) -> Vec<WakesDue>;
        insert_instance(&'a self, id: Id) -> ();
        instances(&'a self) -> Vec<Instance>;
        delete_instance(&'a self, id: Id, version: u64) -> bool;
        unpublished(&'a self, instance: Id, after: u64, limit: usize) -> Vec<Entry>;
        count_unpublished(&'a self) -> u64;
        init_settled(&'a self, mark: Settled) -> Settled;
        move_settled(&'a self, from: Settled, to: Settled) -> bool;
        settled(&'a self, stream: &'a str) -> Option<Settled>;
        put_published(&'a self, published: Published) -> ();
        published(&'a self, stream: &'a str) -> Vec<Published>;
        forget_published(&'a self, instance: Id, stream: &'a str) -> ();
        expire(&'a self, expiry: Expiry) -> usize;
        clear(&'a self) -> ();
    } };
}

pub(crate) use pass_on;

impl Store for Lossy {
    fn prepare<'a>(&'a self, collections: &'a [Collection]) -> BoxFuture<'a, Result<(), PrepareError>> {
        self.store.prepare(collections)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move {
            let store = self.there().map_err(|error| CommitError::Away(error.to_string()))?;
            let take = |left: u32| left.checked_sub(1);
            let lost =
                !batch.journal.is_empty() && self.lose.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok();
            if !lost {
                return store.commit(batch).await;
            }
            if self.commits {
                store.commit(batch).await?;
            }
            self.away.store(self.then_away, Ordering::Release);
            Err(CommitError::Unknown("the answer was lost".into()))
        })
    }

    fn load(&self, wanted: Wanted) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        self.loads.fetch_add(1, Ordering::AcqRel);
        Box::pin(async move { self.there()?.load(wanted).await })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<StoredDoc>, StoreError>> {
        Box::pin(async move { self.there()?.get(key).await })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.there()?.ping().await })
    }

    pass_on!(the rest);
}

pub(crate) async fn run(bench: &Bench, world: &World, store: &Arc<Lossy>) -> TestService {
    let timing = Timing { ack_wait: LONG * 2, ..Timing::short() };
    let options = Options { timing, store: Some(store.clone()), ..Options::default() };
    let service = bench.launch_with(ledger(world), options).await;
    service.until_ready().await;
    service
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_looked_up_in_the_journal_and_done_once_either_way() {
    for commits in [true, false] {
        let bench = bench().await;
        let world = World::default();
        let store = Lossy::new(&bench, commits, false);
        let service = run(&bench, &world, &store).await;
        store.lose.store(1, Ordering::Release);
        service.submit_to(&world, moved("a", "command", Act::Add(1))).await.unwrap();
        for at in 0..5 {
            store.lose.store(1, Ordering::Release);
            publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
            bench.until_handled(&BANK, SERVICE).await;
        }
        store.lose.store(1, Ordering::Release);
        publish(&bench, "b", "charge", Act::Charge).await;
        let paid = async || service.get::<Account>("b").await.is_some_and(|account| account.log.len() == 2);
        until("the charge to be paid", paid).await;
        assert_eq!(service.get::<Account>("a").await.unwrap().balance, 6, "commits: {commits}");
        assert_eq!(bench.expect::<Noted>(7).await.len(), 7);
        assert_eq!((bench.expect::<Ended>(1).await.len(), world.calls_of("b").len()), (1, 1));
        service.stop().await;
    }
}

#[tokio::test]
async fn a_service_stopped_before_it_knows_whether_its_last_commit_happened_leaves_its_events_to_the_next() {
    for commits in [true, false] {
        let bench = bench().await;
        let world = World::default();
        let store = Lossy::new(&bench, commits, true);
        let service = run(&bench, &world, &store).await;
        store.lose.store(1, Ordering::Release);
        publish(&bench, "a", "message", Act::Add(1)).await;
        until("the store to go away in the commit", async || store.away.load(Ordering::Acquire)).await;
        service.until_waits_for("the store").await;
        service.stop().await;
        store.away.store(false, Ordering::Release);
        let service = run(&bench, &world, &store).await;
        bench.until_handled(&BANK, SERVICE).await;
        assert_eq!(bench.expect::<Noted>(1).await.len(), 1, "commits: {commits}");
        assert_eq!(service.get::<Account>("a").await.unwrap().log, ["message"]);
        service.stop().await;
    }
}

#[tokio::test]
async fn a_command_in_a_commit_of_unknown_outcome_is_told_so_and_its_repeat_gets_the_reply() {
    let bench = bench().await;
    let world = World::default();
    let store = Lossy::new(&bench, true, true);
    let service = run(&bench, &world, &store).await;
    let caller = millstream::commands::Caller {
        name: None,
        correlation: "test".into(),
        idempotency_key: Some("k".into()),
        ..Default::default()
    };
    store.lose.store(1, Ordering::Release);
    let submit = async || service.context().submit_to(&caller, &world, moved("a", "command", Act::Add(1))).await;
    assert_eq!(submit().await.unwrap_err(), CommandError::OutcomeUnknown);
    assert!(matches!(submit().await, Err(CommandError::Unavailable(_))), "the store is known to be away");
    store.away.store(false, Ordering::Release);
    service.until_ready().await;
    until("the repeat to be answered", async || submit().await.is_ok_and(|accepted| accepted.repeated)).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().balance, 1);
    assert_eq!(bench.expect::<Noted>(1).await.len(), 1);
    service.stop().await;
}
