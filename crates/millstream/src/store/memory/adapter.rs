//! A [`Memory`] that several replicas share, as the store that the engine asks.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Memory;
use crate::ids::{Id, Timestamp};
use crate::store::query::check_field;
use crate::store::{
    Batch, Collection, CommitError, Entry, Expiry, Instance, Key, Loaded, PrepareError, Published, Selection, Settled,
    Store, StoreError, StoredDoc, WakesDue, Wanted,
};

/// A store over a [`Memory`]; its clones share it. It lives as long as the last of them, and in this process alone.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Memory>>);

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does something with the value: looks at it, takes a backup, puts one back. Nobody else gets at it meanwhile.
    pub fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing happens before the future is polled, as with a store that is elsewhere.
    fn ask<'a, T: Send, E: Send>(
        &'a self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, E>> {
        async move { Ok(self.with(work)) }.boxed()
    }
}

impl Store for MemoryStore {
    fn prepare<'a>(&'a self, collections: &'a [Collection]) -> BoxFuture<'a, Result<(), PrepareError>> {
        self.ask(|memory| memory.prepare(collections))
    }

    fn load(&self, wanted: Wanted) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        self.ask(move |memory| memory.load(&wanted))
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<StoredDoc>, StoreError>> {
        self.ask(move |memory| memory.get(&key))
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>> {
        async move { self.with(|memory| memory.commit(&batch)) }.boxed()
    }

    fn find(&self, query: Selection) -> BoxFuture<'_, Result<Vec<StoredDoc>, StoreError>> {
        let legal = query.filters.iter().try_for_each(|(field, _)| check_field(field));
        async move { legal.map(|()| self.with(|memory| memory.find(&query))) }.boxed()
    }

    fn due_wakes<'a>(
        &'a self,
        kinds: &'a [&'static str],
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredDoc>, StoreError>> {
        self.ask(move |memory| memory.due_wakes(kinds, now, limit))
    }

    fn wakes_due(&self, now: Timestamp) -> BoxFuture<'_, Result<Vec<WakesDue>, StoreError>> {
        self.ask(move |memory| memory.wakes_due(now))
    }

    fn insert_instance(&self, id: Id) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(move |memory| memory.insert_instance(id))
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<Instance>, StoreError>> {
        self.ask(|memory| memory.instances())
    }

    fn delete_instance(&self, id: Id, version: u64) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.ask(move |memory| memory.delete_instance(id, version))
    }

    fn unpublished(&self, instance: Id, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        self.ask(move |memory| memory.unpublished(instance, after, limit))
    }

    fn count_unpublished(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.ask(|memory| memory.count_unpublished())
    }

    fn init_settled(&self, mark: Settled) -> BoxFuture<'_, Result<Settled, StoreError>> {
        self.ask(move |memory| memory.init_settled(mark))
    }

    fn move_settled(&self, from: Settled, to: Settled) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.ask(move |memory| memory.move_settled(&from, to))
    }

    fn settled<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Option<Settled>, StoreError>> {
        self.ask(move |memory| memory.settled(stream))
    }

    fn put_published(&self, published: Published) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(move |memory| memory.put_published(published))
    }

    fn published<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Vec<Published>, StoreError>> {
        self.ask(move |memory| memory.published(stream))
    }

    fn forget_published<'a>(&'a self, instance: Id, stream: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.ask(move |memory| memory.forget_published(instance, stream))
    }

    fn expire(&self, expiry: Expiry) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.ask(move |memory| memory.expire(&expiry))
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(Memory::clear)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.ask(|_| ())
    }
}
