//! Instance rows: this engine's own, with its watermark, and the sweep of those whose engine has died.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millstream_core::replicas::Replicas;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dead_letter::stream_name;
use crate::engine::Engine;
use crate::engine::publisher::{Done, Job, Outbox, Watermark};
use crate::engine::status::Status;
use crate::engine::tails::Tail;
use crate::engine::timing::{Clock, Timing};
use crate::event::Emitted;
use crate::ids::{Id, Timestamp};
use crate::store::{Batch, CommitError, Entry, Published, Store, StoreError};
use crate::unit::Rules;

/// By what id an engine commits, and what it has published under it.
#[derive(Clone)]
pub(crate) struct Enrolled {
    pub(crate) id: Id,
    pub(crate) watermark: Arc<Watermark>,
}

/// The instance that this engine commits as.
pub(crate) struct Current {
    pub(crate) id: Id,
    /// The number of the last batch with entries.
    pub(crate) batch: u64,
    pub(crate) watermark: Arc<Watermark>,
    /// The watermark as last written.
    pub(crate) written: u64,
    /// Set when the loop stopped before it knew whether its last batch was committed. Nothing more is committed under this
    /// id, for it would have that batch's number, and the row stays for a sweep.
    pub(crate) unresolved: bool,
}

impl Current {
    /// Inserts a row under a fresh id, after the first marks.
    pub(crate) async fn insert(store: &dyn Store, now: Timestamp, rules: &Rules) -> Result<Self, StoreError> {
        let id = Id::random(now);
        let letters = stream_name(rules.service);
        for stream in rules.streams.iter().map(|stream| stream.name).chain([&*letters]) {
            store.put_published(Published::enrolled(id, stream, now)).await?;
        }
        store.insert_instance(id).await?;
        fail::fail_point!("enrolled");
        Ok(Self { id, batch: 0, watermark: Arc::default(), written: 0, unresolved: false })
    }

    pub(crate) fn enrolled(&self) -> Enrolled {
        Enrolled { id: self.id, watermark: self.watermark.clone() }
    }

    /// Whether more is published than is written.
    pub(crate) fn risen(&self) -> bool {
        self.watermark.get() > self.written
    }
}

impl Engine {
    /// Takes a new id after the row was swept. What is still queued under the old one is published without touching the new
    /// watermark.
    pub(crate) async fn take_new_instance(&mut self) -> Result<(), StoreError> {
        tracing::warn!(instance = %self.instance.id, "this instance was considered dead and fenced; continuing under a new id");
        self.instance = Current::insert(&*self.store, self.clock.now(), &self.planner.rules).await?;
        self.enrolled.send_replace(self.instance.enrolled());
        Ok(())
    }

    /// Writes the watermark by itself, and shows that this instance lives.
    pub(crate) async fn write_watermark(&mut self) {
        let through = self.instance.watermark.get();
        fail::fail_point!("before_watermark");
        let batch = Batch {
            instance: self.instance.id,
            batch: self.instance.batch,
            published_through: through,
            docs: vec![],
            journal: vec![],
            keys: vec![],
            now: self.clock.now(),
        };
        match self.store.commit(batch).await {
            Ok(()) => {
                self.instance.written = through;
                self.store_is_up();
            }
            Err(CommitError::Fenced) => drop(self.take_new_instance().await),
            Err(CommitError::Away(error) | CommitError::Unknown(error)) => {
                self.store_is_down(&error);
            }
            Err(error) => tracing::debug!(%error, "cannot write the watermark"),
        }
        fail::fail_point!("after_watermark");
    }

    /// Deletes this instance's row, unless something of it may be unpublished.
    pub(crate) async fn delete_own_row(&self) -> Result<(), StoreError> {
        if self.instance.unresolved || self.outbox.queued() > 0 {
            return Ok(());
        }
        let rows = self.store.instances().await?;
        fail::fail_point!("before_row_deleted");
        if let Some(row) = rows.iter().find(|row| row.id == self.instance.id) {
            self.store.delete_instance(row.id, row.version).await?;
        }
        fail::fail_point!("after_row_deleted");
        Ok(())
    }
}

/// Looks for instances that have died, publishes what they have left, and deletes their rows.
pub(crate) struct InstanceSweep {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) outbox: Outbox,
    pub(crate) clock: Clock,
    pub(crate) tails: Vec<Arc<Tail>>,
    pub(crate) timing: Timing,
    pub(crate) status: Arc<Status>,
}

/// What an instance has emitted after a batch, as far as it is read at once, and up to which batch that is.
pub(crate) async fn emitted_after(
    store: &dyn Store,
    instance: Id,
    after: u64,
) -> Result<Option<(Vec<Emitted>, u64)>, StoreError> {
    let entries = store.unpublished(instance, after, PAGE).await?;
    let Some(last) = entries.last() else { return Ok(None) };
    // A page may end within a batch; its entries are read again with the next page unless it fills a page alone.
    let full = entries.len() == PAGE && entries.first().is_some_and(|first| first.batch < last.batch);
    let end = last.batch;
    let emitted = entries.iter().filter(|entry| !full || entry.batch < end).flat_map(messages).collect();
    Ok(Some((emitted, if full { end - 1 } else { end })))
}

fn messages(entry: &Entry) -> Vec<Emitted> {
    Emitted::unpack(&entry.emitted).unwrap_or_else(|| {
        tracing::error!(event_id = %entry.id, "the events of a journal entry cannot be published: its bytes are damaged");
        vec![]
    })
}

/// Entries that are read and published at once.
const PAGE: usize = 1000;

impl InstanceSweep {
    /// Sweeps until told to stop. A row counts as dead when it has stood unchanged for a while of this observer's own monotonic
    /// clock, in which every read succeeded.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut seen: HashMap<Id, (u64, Instant)> = HashMap::new();
        // Rows are held against a clock that never steps.
        let (mut replicas, wall, began) = (Replicas::new(self.timing.dead_after), self.clock.now(), Instant::now());
        // Each on its own: what one has left may be for a subject that the broker refuses.
        let mut sweeps = FuturesUnordered::new();
        let mut under_way: HashSet<Id> = HashSet::new();
        // Up to which batch each one's entries are out: a sweep that fails later on does not publish them again.
        let mut out: HashMap<Id, Arc<AtomicU64>> = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some((id, swept)) = sweeps.next() => {
                    under_way.remove(&id);
                    match swept {
                        Ok(true) => tracing::info!(instance = %id, "published what a dead instance left"),
                        Ok(false) => drop(seen.remove(&id)),
                        Err(error) => {
                            let error: StoreError = error;
                            tracing::debug!(%error, instance = %id, "sweep failed; retrying");
                        }
                    }
                    continue;
                }
                () = tokio::time::sleep(self.timing.instance_sweep) => {}
            }
            let Ok(rows) = self.store.instances().await else {
                seen.clear();
                replicas.lose_sight();
                continue;
            };
            replicas.see(rows.iter().map(|row| (row.id, row.version)), wall + began.elapsed());
            self.status.see_missed(replicas.missed());
            seen.retain(|id, _| rows.iter().any(|row| row.id == *id));
            out.retain(|id, _| rows.iter().any(|row| row.id == *id));
            for row in rows {
                let (version, since) = *seen.entry(row.id).or_insert((row.version, Instant::now()));
                if version != row.version {
                    seen.insert(row.id, (row.version, Instant::now()));
                } else if since.elapsed() >= self.timing.dead_after && under_way.insert(row.id) {
                    let out = out.entry(row.id).or_default().clone();
                    out.fetch_max(row.published_through, Ordering::AcqRel);
                    let sweep = self.sweep(row.id, row.version, out);
                    sweeps.push(async move { (row.id, sweep.await) });
                }
            }
        }
    }

    /// Publishes what lies above the watermark, then deletes the row if it still has the version read before the entries.
    /// A version that has moved means that the owner lives. What the broker acknowledged shortly before the end may be lost as well,
    /// so each stream is looked at.
    async fn sweep(&self, id: Id, version: u64, out: Arc<AtomicU64>) -> Result<bool, StoreError> {
        let mut after = out.load(Ordering::Acquire);
        let mut pages = vec![];
        while let Some((messages, end)) = emitted_after(&*self.store, id, after).await? {
            after = end;
            let (done, page) = oneshot::channel();
            self.outbox.send(Job { messages, entries: 0, done: Done::Swept(done) });
            pages.push(page);
        }
        for page in pages {
            page.await.map_err(|_| StoreError::new("the publisher has stopped"))?;
        }
        out.store(after, Ordering::Release);
        if let Some(tail) = self.tails.iter().find(|tail| !tail.is_checked()) {
            return Err(StoreError::new(format!("stream {} has not been looked at yet", tail.stream)));
        }
        for tail in &self.tails {
            tail.settle(id, after).await.map_err(StoreError::new)?;
        }
        fail::fail_point!("before_row_deleted");
        let deleted = self.store.delete_instance(id, version).await?;
        fail::fail_point!("after_row_deleted");
        if deleted && after == 0 {
            for tail in &self.tails {
                tail.forget(id).await;
            }
        }
        Ok(deleted)
    }
}
