//! The ends of the streams that a service publishes to: whether the broker still has what it has acknowledged. A power failure
//! may cost it the last messages, a backup more than those; what is missing is published again from the journal, under its ids.
//!
//! Every heartbeat the instance's watermark is recorded beside the last message that the broker has acknowledged (a mark). A stream
//! is looked at after each new connection, for only then may it be an earlier one, and from time to time. What a dead instance had
//! published is looked for by whoever sweeps it, and later on by everybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use futures_util::{StreamExt, TryStreamExt};
use millstream_core::published::{Acked, Extent, Look, Mark, Stored, is_complete, missing, outdated};
use serde_json::json;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::engine::instances::{Enrolled, emitted_after};
use crate::engine::meters::Meters;
use crate::engine::publisher::{Done, Job, Outbox};
use crate::engine::status::Status;
use crate::engine::timing::{Clock, Timing};
use crate::event::header;
use crate::ids::Id;
use crate::raw;
use crate::store::{Published, Store, StoreError};
use millstream_core::stored::lenient;

/// Messages that are asked for at once when a part of a stream is read.
const AT_ONCE: usize = 64;

/// The end of one stream.
pub(crate) struct Tail {
    pub(crate) stream: String,
    /// The word that its subjects begin with.
    pub(crate) kind: &'static str,
    pub(crate) broker: Broker,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) outbox: Outbox,
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    pub(crate) status: Arc<Status>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) enrolled: watch::Receiver<Enrolled>,
    /// The connection in which this process began: nothing that it published in it was lost before.
    pub(crate) born: u64,
    /// Whether it was looked at since: what is lost after that is looked for in the first connection, too.
    pub(crate) looked: AtomicBool,
    /// The marks of this instance. Whoever looks at the stream holds them.
    pub(crate) own: Mutex<Published>,
}

impl Tail {
    /// Looks at the stream and records how far it is, for as long as the service runs.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut link = self.broker.link.clone();
        let mut look_at = Instant::now();
        let mut told = false;
        loop {
            if link.borrow_and_update().up {
                let due = Instant::now() >= look_at;
                match self.tick(due).await {
                    Ok(()) => {
                        if due {
                            look_at = Instant::now() + self.timing.tail_check;
                        }
                        if std::mem::take(&mut told) {
                            tracing::info!(stream = self.stream, "the stream can be checked for lost messages again");
                        }
                    }
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        tracing::warn!(
                            stream = self.stream,
                            error,
                            "cannot check whether the broker has lost messages of the stream; retrying"
                        );
                    }
                    Err(_) => {}
                }
            }
            tokio::select! {
                Ok(()) = link.changed() => {}
                () = tokio::time::sleep(self.timing.heartbeat) => {}
            }
        }
    }

    async fn tick(&self, due: bool) -> Result<(), String> {
        let mut own = self.own.lock().await;
        let id = self.enrolled.borrow().id;
        own.renew(id, self.clock.now());
        let fresh = !self.is_checked();
        if due || fresh {
            self.look(&mut own, fresh).await?;
        }
        self.record(&mut own).await.map(drop)
    }

    /// Records what is published, at the end of the service. `false`: that cannot be said, and the next instance is to look for it.
    pub(crate) async fn record_last(&self) -> bool {
        let mut own = self.own.lock().await;
        let Enrolled { id, watermark } = self.enrolled.borrow().clone();
        if watermark.get() == 0 {
            // It has published nothing that would be looked for.
            return self.store.forget_published(id, &self.stream).await.is_ok();
        }
        if !self.broker.is_up() {
            return false;
        }
        self.record(&mut own).await.unwrap_or_default()
    }

    /// The number of the connection: one more with each reconnect, before anything is received by it.
    fn connection(&self) -> u64 {
        raw::connects(&self.broker.client)
    }

    /// Whether the stream was looked at in this connection.
    pub(crate) fn is_checked(&self) -> bool {
        let connection = self.connection();
        self.outbox.acked(&self.stream, |acked| acked.is_checked(connection))
    }

    /// Writes a mark; says whether there may be one.
    async fn record(&self, own: &mut Published) -> Result<bool, String> {
        let connection = self.connection();
        let Enrolled { id, watermark } = self.enrolled.borrow().clone();
        // The watermark before the acks: it must not tell of more than they do.
        let batch = watermark.get();
        let Some(mark) = self.mark(connection, batch, own).await? else { return Ok(false) };
        let mut later = own.clone();
        later.renew(id, self.clock.now());
        if later.push(mark) {
            self.store.put_published(later.clone()).await.map_err(away)?;
            *own = later;
        }
        Ok(true)
    }

    /// A mark of what is acknowledged now, if that was by the stream that was looked at, and is there.
    async fn mark(&self, connection: u64, batch: u64, known: &Published) -> Result<Option<Mark>, String> {
        let mark = self.outbox.acked(&self.stream, |acked| acked.mark(connection, batch, self.clock.now()));
        let Some(mark) = mark else { return Ok(None) };
        let mark = match known.recall(&mark) {
            Some(mark) => Some(mark),
            None => mark.clone().seen(self.stored(mark.seq).await?.as_ref()),
        };
        if mark.is_none() {
            self.outbox.acked(&self.stream, Acked::begin);
        }
        Ok(mark.filter(|_| self.connection() == connection))
    }

    /// Holds the marks of this instance, and of those that are gone, against the stream, and publishes again what is missing. After
    /// a new connection that is also what this instance has published since its last mark.
    async fn look(&self, own: &mut Published, mut fresh: bool) -> Result<(), String> {
        let connection = self.connection();
        if fresh {
            self.outbox.acked(&self.stream, Acked::begin);
        }
        // One that is not there is declared again, and looked at then.
        let Some(extent) = self.extent().await? else { return Ok(()) };
        let mut gone = self.store.published(&self.stream).await.map_err(away)?;
        // Read after the marks, which are written before the row.
        let rows = self.store.instances().await.map_err(away)?;
        let here = self.enrolled.borrow().id;
        gone.retain(|record| ![own.instance, here].contains(&record.instance));
        gone.retain(|record| rows.iter().all(|row| row.id != record.instance));

        let holding = self.holding(own, extent).await?;
        let lost = holding < own.marks.len();
        if lost && !fresh {
            fresh = true;
            self.outbox.acked(&self.stream, Acked::begin);
        }
        if lost || (fresh && (connection != self.born || self.looked.load(Ordering::Acquire))) {
            self.fill(own, holding).await?;
            own.marks.truncate(holding);
        }
        for record in &mut gone {
            let holding = self.holding(record, extent).await?;
            let lost = holding < record.marks.len();
            // Of two that have swept it, the one that had read less of its journal may have written last.
            // What was trimmed meanwhile cannot be told from what is missing.
            if lost || (fresh && record.base(holding).seq + 1 >= extent.first) {
                let known = record.newest().map_or(0, |mark| mark.batch);
                let batch = self.fill(record, holding).await?;
                if !lost && batch == known {
                    continue;
                }
                let (seq, there) = self.end().await?;
                record.marks.truncate(holding);
                record.push(Mark::at_end(batch, seq, there, self.clock.now()));
                self.still(connection)?;
                self.store.put_published(record.clone()).await.map_err(away)?;
            }
        }
        if fresh {
            let (seq, there) = self.end().await?;
            let id = there.map(|there| there.id).unwrap_or_default();
            self.still(connection)?;
            self.outbox.acked(&self.stream, |acked| acked.end(connection, seq, &id));
            self.looked.store(true, Ordering::Release);
        }
        for old in outdated(&gone, &rows, self.clock.now() - self.timing.journal_retention) {
            self.store.forget_published(old.instance, &self.stream).await.map_err(away)?;
        }
        Ok(())
    }

    /// Looks for what a dead instance had published, and records it with what was published for it, before its row goes.
    pub(crate) async fn settle(&self, instance: Id, through: u64) -> Result<(), String> {
        let _looking = self.own.lock().await;
        if through == 0 {
            // It has published nothing that would be looked for, unless it goes on.
            return Ok(());
        }
        let connection = self.connection();
        let records = self.store.published(&self.stream).await.map_err(away)?;
        let known = records.into_iter().find(|record| record.instance == instance);
        let mut record = known.unwrap_or_else(|| Published::new(instance, &self.stream));
        // Of an instance without marks nothing is known: an earlier release has made none.
        if !record.marks.is_empty() {
            let extent = self.extent().await?.ok_or("the stream is not there")?;
            let holding = self.holding(&record, extent).await?;
            self.fill(&record, holding).await?;
            record.marks.truncate(holding);
        }
        let mark = self.mark(connection, through, &record).await?.ok_or("the connection was lost meanwhile")?;
        if record.push(mark) {
            self.store.put_published(record).await.map_err(away)?;
        }
        Ok(())
    }

    /// The row of an instance that has published nothing is gone: nobody will ask for its marks.
    pub(crate) async fn forget(&self, instance: Id) {
        if let Err(error) = self.store.forget_published(instance, &self.stream).await {
            tracing::debug!(%error, %instance, "the marks of a dead instance are kept until they expire");
        }
    }

    fn still(&self, connection: u64) -> Result<(), String> {
        if self.connection() == connection { Ok(()) } else { Err("the connection was lost meanwhile".into()) }
    }

    /// How many of the oldest marks hold.
    async fn holding(&self, record: &Published, extent: Extent) -> Result<usize, String> {
        for (at, mark) in record.marks.iter().enumerate().rev() {
            let holds = match mark.look(extent) {
                Look::Holds => true,
                Look::Lost => false,
                Look::Ask => mark.is_met_by(self.stored(mark.seq).await?.as_ref()),
            };
            if holds {
                return Ok(at + 1);
            }
        }
        Ok(0)
    }

    /// Publishes again what the stream lacks of what an instance has emitted since the last of its marks that holds. Says up to
    /// which batch that is.
    async fn fill(&self, record: &Published, holding: usize) -> Result<u64, String> {
        let base = record.base(holding);
        let mut through = record.newest().map_or(0, |mark| mark.batch);
        let (mut after, mut present, mut read_to) = (base.batch, BTreeSet::new(), base.seq);
        let stored = Arc::<AtomicU64>::default();
        while let Some((emitted, end)) = emitted_after(&*self.store, record.instance, after).await.map_err(away)? {
            (after, through) = (end, through.max(end));
            let emitted = missing(emitted, self.kind, &BTreeSet::new());
            if emitted.is_empty() {
                continue;
            }
            // Read after the journal: what was published in the meantime is there.
            read_to = self.ids_after(read_to, &mut present).await?;
            let messages = missing(emitted, self.kind, &present);
            if !messages.is_empty() {
                let (told, done) = oneshot::channel();
                let own = record.instance == self.enrolled.borrow().id;
                self.outbox.send(Job { messages, entries: 0, done: Done::Again { told, stored: stored.clone(), own } });
                // One page at a time: however much is lost, what is published now goes on beside it.
                done.await.map_err(|_| "the publisher has stopped")?;
            }
        }
        let messages = stored.load(Ordering::Relaxed);
        let stream = &self.stream;
        if messages > 0 {
            let note = format!(
                "{stream}: the broker had lost {messages} messages that it had acknowledged; they were published again"
            );
            tracing::warn!(
                stream,
                messages,
                "the broker had lost messages that it had acknowledged; they were published again"
            );
            self.status.note_lost(stream, false, note);
        }
        let kept_since = self.clock.now() - self.timing.journal_retention;
        if holding < record.marks.len() && !is_complete(base, kept_since) {
            let note = format!(
                "{stream}: the broker has lost messages from {} on, and the journal goes back only to {kept_since}: those from \
                 between may be gone for good",
                base.at
            );
            tracing::error!(stream, "{note}");
            self.status.note_lost(stream, true, note);
            self.meters.unfilled(stream);
        }
        Ok(through)
    }

    /// How the stream stands; `None` if it is not there.
    async fn extent(&self) -> Result<Option<Extent>, String> {
        match self.broker.jetstream.get_stream(&self.stream).await {
            Ok(stream) => {
                let state = &stream.cached_info().state;
                Ok(Some(Extent { first: state.first_sequence, last: state.last_sequence }))
            }
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(reply) if reply.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(error.to_string()),
            },
        }
    }

    /// The stream's last message: its sequence, and what is there, if it still is.
    async fn end(&self) -> Result<(u64, Option<Stored>), String> {
        let last = self.extent().await?.map_or(0, |extent| extent.last);
        Ok((last, self.stored(last).await?))
    }

    /// Adds the ids of the messages after a sequence, and says which is the last.
    async fn ids_after(&self, seq: u64, ids: &mut BTreeSet<String>) -> Result<u64, String> {
        let Some(Extent { first, last }) = self.extent().await? else { return Ok(seq) };
        let all = futures_util::stream::iter((seq + 1).max(first)..=last).map(|seq| self.stored(seq));
        let mut all = all.buffered(AT_ONCE);
        while let Some(there) = all.try_next().await? {
            ids.extend(there.map(|there| there.id));
        }
        Ok(last.max(seq))
    }

    /// The message at a place; `None` if there is none.
    async fn stored(&self, seq: u64) -> Result<Option<Stored>, String> {
        if seq == 0 {
            return Ok(None);
        }
        let request = json!({ "seq": seq });
        let raw = raw::get(&self.broker.client, &self.stream, &request, self.timing.publish_timeout).await?;
        let id = |headers: Vec<(String, String)>| headers.into_iter().find(|(name, _)| name == header::MSG_ID);
        Ok(raw.map(|raw| Stored { id: id(lenient(&raw.headers)).map(|(_, id)| id).unwrap_or_default(), at: raw.at }))
    }
}

fn away(error: StoreError) -> String {
    format!("the store: {error}")
}
