//! The engine: one serial loop through which everything goes that changes a service's data.
//!
//! drain (`intake`) → load and handle (`plan`) → commit (`commit`) → ack, answer, publish, run effects (`after`).
//! After a conflict nothing of an attempt is kept: `plan` is made anew.

pub(crate) mod after;
pub(crate) mod board;
pub(crate) mod claims;
pub(crate) mod commit;
pub(crate) mod input;
pub(crate) mod instances;
pub(crate) mod intake;
pub(crate) mod journal;
pub(crate) mod meters;
pub(crate) mod plan;
pub(crate) mod publisher;
pub(crate) mod status;
pub(crate) mod suspects;
pub(crate) mod wakes;

pub use millstream_core::timing;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fail::fail_point;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::broker::Link;
use crate::consumer::Acker;
use crate::engine::board::Board;
use crate::engine::commit::Failed;
use crate::engine::input::{Input, Source};
use crate::engine::instances::Current;
use crate::engine::intake::Intake;
use crate::engine::journal::reopen;
use crate::engine::meters::Meters;
use crate::engine::publisher::Outbox;
use crate::engine::status::Status;
use crate::engine::timing::{Clock, Timing};
use crate::engine::wakes::Kinds;
use crate::ids::Id;
use crate::progress::Progress;
use crate::running::told;
use crate::store::{Expiry, Settled, Store};
use crate::unit::Rules;

/// How many old journal entries go at once: some milliseconds' work.
const EXPIRED_AT_ONCE: usize = 1000;

/// The loop and what it works with.
pub(crate) struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rules: Rules,
    pub(crate) kinds: Kinds,
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    pub(crate) intake: Intake,
    pub(crate) ends: mpsc::UnboundedSender<Input>,
    pub(crate) outbox: Outbox,
    pub(crate) acker: Acker,
    pub(crate) board: Board,
    pub(crate) status: Arc<Status>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) link: watch::Receiver<Link>,
    /// Tells the consumers whether messages are taken.
    pub(crate) gate: watch::Sender<bool>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) instance: Current,
    /// Until when the journal is asked for every delivery, and in which connection.
    pub(crate) distrust: (u64, Instant),
    /// When old journal entries are looked for next.
    pub(crate) expire_at: Instant,
    /// How often in a row the store was waited for without a commit since.
    pub(crate) store_tries: u32,
}

impl Engine {
    /// Handles inputs until told to stop; then what is in its hands is finished and the rest handed back.
    pub(crate) async fn run(mut self) -> Self {
        let mut stop = self.stop.clone();
        let outbox = self.outbox.clone();
        let mut heartbeat = Instant::now() + self.timing.heartbeat;
        loop {
            let risen = self.instance.risen();
            let idle = if risen { self.timing.watermark_idle } else { self.timing.heartbeat };
            let idle = (Instant::now() + idle).min(heartbeat);
            let taken = tokio::select! {
                biased;
                () = told(&mut stop) => break,
                inputs = self.intake.drain(&self.timing, &self.meters) => Some(inputs),
                () = outbox.progress(), if !risen => continue,
                () = tokio::time::sleep_until(idle) => None,
            };
            match taken {
                Some(inputs) => {
                    fail_point!("drained");
                    self.process(inputs).await;
                }
                None if self.instance.risen() => self.write_watermark().await,
                None => {}
            }
            if Instant::now() >= heartbeat {
                self.write_watermark().await;
                self.keep_house().await;
                heartbeat = Instant::now() + self.timing.heartbeat;
            }
            if Instant::now() >= self.expire_at {
                self.expire().await;
            }
            self.set_gate();
        }
        self
    }

    /// Opens or closes the gate of the consumers, and shows the levels.
    fn set_gate(&self) {
        let open = self.status.room(&self.timing) > 0;
        self.gate.send_if_modified(|gate| std::mem::replace(gate, open) != open);
    }

    /// Handles inputs to their end: in one batch, or after conflicts in smaller ones.
    pub(crate) async fn process(&mut self, inputs: Vec<Input>) {
        for input in &inputs {
            // The effect has ended: its slot is free for those that this very batch claims, the next of its document too.
            if let Input::Outcome(outcome) = input {
                self.board.release(&outcome.key);
            }
        }
        let mut begun = HashSet::new();
        let mut batches = VecDeque::from([inputs]);
        while let Some(batch) = batches.pop_front() {
            self.attempt(batch, &mut batches, &mut begun).await;
        }
    }

    async fn attempt(&mut self, mut batch: Vec<Input>, rest: &mut VecDeque<Vec<Input>>, begun: &mut HashSet<Id>) {
        let mut failures = 0_u32;
        let mut ask = self.distrusts();
        loop {
            batch.retain(|input| !matches!(input, Input::Command(command) if command.ticket.is_withdrawn()));
            if batch.is_empty() {
                return;
            }
            let started = Instant::now();
            let mut loaded = match self.load(&batch, ask).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    if !self.store_is_away(&error.to_string()).await {
                        return self.abandon(batch);
                    }
                    continue;
                }
            };
            self.meters.stage("load", started);
            fail_point!("loaded");
            let mut journal = loaded.journal.drain(..).map(|entry| (entry.id, entry)).collect();
            for input in &batch {
                if let Input::Message(delivery) = input {
                    reopen(&mut journal, delivery);
                }
            }
            let (journal, doomed) = match self.suspects(&mut batch, journal, rest, begun).await {
                Ok(journal) => journal,
                Err(Failed::Conflict(_)) => {
                    ask = true;
                    continue;
                }
                Err(Failed::Stopped) => return self.abandon(batch),
            };
            if batch.is_empty() {
                return;
            }
            let started = Instant::now();
            let mut plan = self.plan(&batch, loaded, &journal, &doomed);
            self.meters.stage("handle", started);
            fail_point!("handled");
            let started = Instant::now();
            let committed = self.commit(&batch, &mut plan).await;
            self.meters.stage("commit", started);
            match committed {
                Ok(()) => return self.after(batch, plan),
                Err(failed) => {
                    for claimed in &plan.claims {
                        self.board.release(&claimed.key);
                    }
                    if matches!(failed, Failed::Stopped) {
                        return self.abandon(batch);
                    }
                    ask = true;
                    failures += u32::from(matches!(failed, Failed::Conflict(true)));
                }
            }
            if failures >= 2 && batch.len() > 1 {
                let second = batch.split_off(batch.len().div_ceil(2));
                rest.push_front(second);
                failures = 0;
            }
        }
    }

    /// Whether the journal is asked for every delivery: for a while after each (re)connect.
    fn distrusts(&mut self) -> bool {
        let epoch = self.link.borrow().epoch;
        if self.distrust.0 != epoch {
            self.distrust = (epoch, Instant::now() + self.timing.distrust);
        }
        Instant::now() < self.distrust.1
    }

    /// Counts what waits to be published.
    async fn keep_house(&mut self) {
        if let Ok(count) = self.store.count_unpublished().await {
            self.status.unpublished.store(count, Ordering::Relaxed);
        }
        let (store, waiting) =
            (self.status.store_up.load(Ordering::Acquire), self.status.unpublished.load(Ordering::Relaxed));
        self.meters.levels(self.link.borrow().up, store, waiting.max(self.outbox.queued()), self.outbox.oldest());
    }

    /// Deletes a few old journal entries. While there are more, a chunk goes after each batch, which writes fewer than that.
    async fn expire(&mut self) {
        let now = self.clock.now();
        let consumers = self.status.consumers();
        let floor = |(source, progress): &(Arc<Source>, Arc<Progress>)| {
            // Before the floor: one that is read of an older stream is then of one that is known to be older.
            let created = source.created()?;
            Some(Settled { stream: source.stream.into(), through: progress.ack_floor.load(Ordering::Acquire), created })
        };
        let floors = consumers.iter().filter_map(floor).collect();
        let expiry = Expiry { before: now - self.timing.journal_retention, floors, now, limit: EXPIRED_AT_ONCE };
        let gone = self.store.expire(expiry).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "old journal entries cannot be deleted now");
            0
        });
        if gone < EXPIRED_AT_ONCE {
            self.expire_at = Instant::now() + self.timing.expiry_every;
        }
        for (source, _) in consumers {
            if let Ok(Some(mark)) = self.store.settled(source.stream).await {
                source.raise(mark);
            }
        }
    }
}
