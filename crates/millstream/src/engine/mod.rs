//! The engine: one serial loop through which everything goes that changes a service's data.
//!
//! drain (`intake`) → load and decide (`attempt`) → commit (`commit`) → ack, answer, publish, run effects (`after`). What is decided
//! is decided by the planner of `millstream-core`, without I/O; this is the shell around it.

pub(crate) mod acker;
pub(crate) mod after;
pub(crate) mod arrival;
pub(crate) mod aside;
mod attempt;
pub(crate) mod commit;
pub(crate) mod instances;
pub(crate) mod intake;
pub(crate) mod levels;
pub(crate) mod meters;
pub(crate) mod publisher;
pub(crate) mod slots;
pub(crate) mod status;
pub(crate) mod tails;
pub(crate) mod wakes;

pub use millstream_core::timing;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fail::fail_point;
use millstream_core::planner::Planner;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Link;
use crate::engine::acker::Acker;
use crate::engine::arrival::{Arrival, Source};
use crate::engine::aside::Aside;
use crate::engine::instances::{Current, Enrolled};
use crate::engine::intake::Intake;
use crate::engine::meters::Meters;
use crate::engine::publisher::Outbox;
use crate::engine::slots::SharedSlots;
use crate::engine::status::Status;
use crate::engine::timing::Clock;
use crate::progress::Progress;
use crate::store::{Expiry, Floor, Store};

/// How many old journal entries go at once: some milliseconds' work.
const EXPIRED_AT_ONCE: usize = 1000;

/// The loop and what it works with.
pub(crate) struct Engine {
    /// The rules: what is decided of a batch.
    pub(crate) planner: Planner,
    /// The service's database.
    pub(crate) store: Arc<dyn Store>,
    /// Where `now` comes from.
    pub(crate) clock: Clock,
    /// Where inputs come from.
    pub(crate) intake: Intake,
    /// Given to the effects that run: where their ends go.
    pub(crate) ends: mpsc::UnboundedSender<Arrival>,
    /// Where committed events go, to be published.
    pub(crate) outbox: Outbox,
    /// Where acks go, to be sent.
    pub(crate) acker: Acker,
    /// Which effects run.
    pub(crate) slots: SharedSlots,
    /// What the rest of the process may know.
    pub(crate) status: Arc<Status>,
    pub(crate) meters: Arc<Meters>,
    /// The connection to the broker: whether it is up, and how often it came up.
    pub(crate) link: watch::Receiver<Link>,
    /// Tells the consumers whether messages are taken.
    pub(crate) gate: watch::Sender<bool>,
    /// Cancelled when the service is to stop.
    pub(crate) stop: CancellationToken,
    /// The row that this engine commits under.
    pub(crate) instance: Current,
    /// Tells whom that is.
    pub(crate) enrolled: watch::Sender<Enrolled>,
    /// Until when the journal is asked for every delivery, and in which connection.
    pub(crate) distrust: (u64, Instant),
    /// When old journal entries are looked for next.
    pub(crate) expire_at: Instant,
    /// Inputs that are tried again later, for they conflict again and again.
    pub(crate) aside: Aside,
    /// How often in a row the store was waited for without a commit since.
    pub(crate) store_tries: u32,
}

impl Engine {
    /// Handles inputs until told to stop; then what is in its hands is finished and the rest handed back.
    pub(crate) async fn run(mut self) -> Self {
        let stop = self.stop.clone();
        let outbox = self.outbox.clone();
        let mut heartbeat = Instant::now() + self.planner.timing.heartbeat;
        loop {
            let risen = self.instance.risen();
            let idle = if risen { self.planner.timing.watermark_idle } else { self.planner.timing.heartbeat };
            let idle = (Instant::now() + idle).min(heartbeat);
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                inputs = self.intake.drain(&self.planner.timing, &self.meters) => Some(inputs),
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
            for arrival in self.aside.due() {
                self.process(vec![arrival]).await;
            }
            if Instant::now() >= heartbeat {
                self.write_watermark().await;
                self.keep_house().await;
                heartbeat = Instant::now() + self.planner.timing.heartbeat;
            }
            if Instant::now() >= self.expire_at {
                self.expire().await;
            }
            self.set_gate();
        }
        let aside = self.aside.rest();
        self.abandon(aside);
        self
    }

    /// Opens or closes the gate of the consumers.
    fn set_gate(&self) {
        let open = self.status.room(&self.planner.timing) > 0;
        self.gate.send_if_modified(|gate| std::mem::replace(gate, open) != open);
    }

    /// Counts what waits to be published.
    async fn keep_house(&mut self) {
        if let Ok(count) = self.store.count_unpublished().await {
            self.status.unpublished.store(count, Ordering::Relaxed);
        }
    }

    /// Deletes a few old journal entries. While there are more, a chunk goes after each batch, which writes fewer than that.
    async fn expire(&mut self) {
        let now = self.clock.now();
        let consumers = self.status.consumers();
        let retention = self.planner.timing.journal_retention;
        let floor = |(source, progress): &(Arc<Source>, Arc<Progress>)| {
            // Before the floor: one that is read of an older stream is then of one that is known to be older.
            let created = source.created()?;
            let through = progress.ack_floor.load(Ordering::Acquire);
            // A copy of what was handled may lie in the backlog, however long this service was down.
            let before = progress.stream_time(through, now)?.min(now) - retention;
            // Well after what goes and well before now: the clocks of broker and services may differ by that much.
            let until = before + retention / 2;
            Some(Floor { stream: source.stream.into(), created, through, before, until })
        };
        let floors = consumers.iter().filter_map(floor).collect();
        let expiry = Expiry { before: now - retention, floors, now, limit: EXPIRED_AT_ONCE };
        let gone = self.store.expire(expiry).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "old journal entries cannot be deleted now");
            0
        });
        if gone < EXPIRED_AT_ONCE {
            self.expire_at = Instant::now() + self.planner.timing.expiry_every;
        }
        for (source, _) in consumers {
            if let Ok(Some(mark)) = self.store.settled(source.stream).await {
                source.raise(mark);
            }
        }
    }
}
