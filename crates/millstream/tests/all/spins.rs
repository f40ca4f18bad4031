//! What the store refuses again and again does not keep the loop from the rest.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use millstream::service::Options;
use millstream::store::{
    Batch, Collection, CommitError, DocWrite, Entry, Expiry, Instance, Key, Loaded, NewDoc, PrepareError, Published,
    Selection, Settled, Store, StoreError, StoredDoc, WakesDue, Wanted, open,
};
use millstream::{Document, Id, Timestamp};

use crate::bank::*;
use crate::unknown_commits::pass_on;

fn key(account: &str) -> Key {
    Key { collection: Account::COLLECTION, id: account.into() }
}

async fn stored(store: &Arc<dyn Store>, account: &str) -> StoredDoc {
    store.get(key(account)).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_outcome_that_the_journal_has_already_holds_up_nobody_and_its_wake_goes() {
    let bench = bench().await;
    let world = World::default();
    world.outside().otherwise = Some(Answer::Hold);
    let service = bench.run(ledger(&world), short()).await;
    publish(&bench, "a", "charge", Act::Charge).await;
    until("the charge to run", async || world.calls_of("a").len() == 1).await;
    let store = open(&bench.store.url(SERVICE)).unwrap();
    let wake = stored(&store, "a").await.wake.unwrap();
    world.outside().otherwise = Some(Answer::Paid);
    until("it to be paid", async || stored(&store, "a").await.wake.is_none()).await;

    // As somebody at the database leaves it who puts back an old document.
    let instance = Id::random(Timestamp::system());
    store.insert_instance(instance).await.unwrap();
    let paid = stored(&store, "a").await;
    let back = NewDoc { shape: paid.shape, body: paid.body, wake: Some(wake) };
    let docs = vec![DocWrite { key: key("a"), expected: Some(paid.version), write: Some(back) }];
    let now = Timestamp::system();
    let batch = Batch { instance, batch: 0, published_through: 0, docs, journal: vec![], keys: vec![], now };
    store.commit(batch).await.unwrap();
    until("the wake to be gone again", async || stored(&store, "a").await.wake.is_none()).await;
    publish(&bench, "b", "another", Act::Charge).await;
    until("another account to be charged", async || {
        service.get::<Account>("b").await.is_some_and(|account| account.log == ["another", "paid"])
    })
    .await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["charge", "paid"]);
    assert!(service.metric("millstream_engine_conflicts_total", &[]).unwrap_or_default() < 10.0);
    service.stop().await;
}

/// A real store with a document that always has another version than the engine has seen.
struct Cursed {
    store: Arc<dyn Store>,
}

impl Store for Cursed {
    fn prepare<'a>(&'a self, collections: &'a [Collection]) -> BoxFuture<'a, Result<(), PrepareError>> {
        self.store.prepare(collections)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>> {
        if batch.docs.iter().any(|doc| doc.key.id == "cursed") {
            return Box::pin(std::future::ready(Err(CommitError::Version)));
        }
        self.store.commit(batch)
    }

    pass_on! {
        load(&'a self, wanted: Wanted) -> Loaded;
        get(&'a self, key: Key) -> Option<StoredDoc>;
        ping(&'a self) -> ();
    }
    pass_on!(the rest);
}

#[tokio::test]
async fn what_conflicts_again_and_again_is_put_aside_and_the_others_go_on() {
    let bench = bench().await;
    let world = World::default();
    let store = Arc::new(Cursed { store: open(&bench.store.url(SERVICE)).unwrap() });
    let options = Options { timing: short(), store: Some(store), ..Options::default() };
    let service = bench.launch_with(ledger(&world), options).await;
    service.until_ready().await;
    publish(&bench, "cursed", "never", Act::Add(1)).await;
    for at in 0..50 {
        publish(&bench, "sound", &format!("n{at}"), Act::Add(1)).await;
    }
    let handled = async || service.get::<Account>("sound").await.is_some_and(|account| account.balance == 50);
    until("the others to be handled", handled).await;
    let refused = service.submit_to(&world, moved("cursed", "command", Act::Add(1))).await.unwrap_err();
    assert!(format!("{refused:?}").contains("keeps conflicting"), "{refused:?}");
    service.submit_to(&world, moved("sound", "command", Act::Add(1))).await.unwrap();
    let unacked = async || bench.durable(&BANK, SERVICE).await.unwrap().num_ack_pending;
    until("the message alone to be left, and to come again", async || unacked().await == 1).await;
    service.stop().await;
}
