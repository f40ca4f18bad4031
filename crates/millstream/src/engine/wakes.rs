//! Wakes outside the loop: the sweep that finds what is due, and the effects that run.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use futures_util::FutureExt;
use millstream_core::planner::{Claimed, DueInput, Ended, Kinds, Leases, OutcomeInput};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::engine::arrival::Arrival;
use crate::engine::meters::Meters;
use crate::engine::slots::SharedSlots;
use crate::engine::status::Status;
use crate::engine::timing::{Clock, Timing};
use crate::handler::Outage;
use crate::ids::Id;
use crate::store::Store;
use crate::store::StoredDoc;
use crate::telemetry::Telemetry;
use crate::unit::{outcome_meta, panic_text};
use crate::work::AnyEffect;

/// Starts a claimed effect; its end comes back as an input.
pub(crate) fn start(
    service: &'static str,
    claimed: Claimed,
    effect: Arc<dyn AnyEffect>,
    ends: mpsc::UnboundedSender<Arrival>,
    timeout: Duration,
    telemetry: Telemetry,
) {
    let Claimed { key, wake, document, shape } = claimed;
    let span = tracing::error_span!("effect", kind = wake.kind, correlation = wake.correlation);
    let run = async move {
        fail_point!("before_effect");
        let started = tokio::time::Instant::now();
        let run = AssertUnwindSafe(async { effect.clone().run(&document, shape, wake.clone()).await }).catch_unwind();
        let run = telemetry.scope(tokio::time::timeout(timeout, run));
        let ran = tokio::select! {
            ran = run => ran,
            // The service has given the effect back, and another instance may run it.
            () = ends.closed() => return,
        };
        let result = match ran {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(Outage::new(panic_text(&*panic))),
            Err(_) => Err(Outage::new(format!("no outcome within {} s", timeout.as_secs_f32()))),
        };
        fail_point!("after_effect");
        let ended = match result {
            Ok(outcome) => Ended::Outcome(effect.settle(key.id.clone(), outcome)),
            Err(outage) => Ended::Outage(outage),
        };
        let meta = outcome_meta(service, &key, &wake);
        // When the loop has ended, the lease runs out and another instance tries again.
        let took = started.elapsed();
        let _ = ends.send(Arrival::outcome(OutcomeInput { key, wake, meta, ended }, took));
    };
    tokio::spawn(run.instrument(span));
}

/// Finds due wakes and sends them to the loop.
pub(crate) struct Sweep {
    pub(crate) service: &'static str,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kinds: Kinds,
    pub(crate) slots: SharedSlots,
    /// The claims of other replicas.
    pub(crate) leases: Leases,
    pub(crate) due: mpsc::Sender<Arrival>,
    pub(crate) clock: Clock,
    pub(crate) started: tokio::time::Instant,
    pub(crate) timing: Timing,
    pub(crate) status: Arc<Status>,
    pub(crate) meters: Arc<Meters>,
}

/// After which no wake is due.
const WHENEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Due timers that are sent to the loop at once.
const TIMERS: usize = 256;
/// While nothing comes due, the next look is so many times as late. A commit that sets a wake for before then calls for a look.
const QUIET: u32 = 6;

/// What a look has found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// There may be more that is due and could be claimed.
    Full,
    Usual,
    /// Nothing is due before the next look, and nobody waits for an answer.
    Quiet,
}

/// Until when a wake comes due before the sweep looks for it by itself.
pub(crate) fn horizon(timing: &Timing) -> Duration {
    timing.wake_sweep * (QUIET + 2)
}

impl Sweep {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let random = Id::random(self.clock.now());
        let mut phase = random.bytes().last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        loop {
            let started = tokio::time::Instant::now();
            let looked = self.once().await;
            self.meters.stage("wake", started);
            let looked = looked.unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot read due wakes");
                Looked::Usual
            });
            // Replicas that started together drift apart.
            phase = phase.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let jitter = f64::from(phase >> 16) / f64::from(u16::MAX);
            let pause = self.timing.wake_sweep.mul_f64(0.8 + 0.4 * jitter);
            let next = async {
                match looked {
                    Looked::Full => tokio::time::sleep(pause / 10).await,
                    Looked::Usual => tokio::time::sleep(pause).await,
                    Looked::Quiet => {
                        // Not at once: commits may follow each other closely.
                        let told = self.status.wakes_soon.notified().then(|()| tokio::time::sleep(pause));
                        drop(tokio::time::timeout(pause * QUIET, told).await);
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = next => {}
            }
        }
    }

    async fn once(&mut self) -> Result<Looked, crate::store::StoreError> {
        let now = self.clock.now();
        let due = self.store.wakes_due(now).await?;
        let is_quiet = due.is_empty() && self.store.wakes_due(now + horizon(&self.timing)).await?.is_empty();
        self.status.see_due(&due);
        let mut silences = self.status.silences();
        if !silences.is_empty() {
            // Another replica may have got the answer, or nobody waits for one any more.
            let all = self.store.wakes_due(now + WHENEVER).await?;
            self.status.see_waiting(|kind| all.iter().find(|of| of.kind == kind).map_or(0, |of| of.due));
            silences = self.status.silences();
        }
        self.meters.unanswered(self.kinds.effects.keys(), &silences, now);
        self.meters.wakes_due(&due, &silences, now);
        let is_due = |kind: &str| due.iter().any(|due| due.kind == kind && due.due > 0);
        for (kind, timer) in &self.kinds.timers {
            let Some((metric, tolerance)) = timer.overdue() else { continue };
            let late = if is_due(kind) { self.store.wakes_due(now - tolerance).await? } else { vec![] };
            let late = late.iter().find(|late| late.kind == *kind).map_or(0, |late| late.due);
            self.meters.telemetry.record(metric, &[], late as f64);
        }
        let effects: Vec<&'static str> = self.kinds.effects.keys().copied().filter(|kind| is_due(kind)).collect();
        let (tripped, usual): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|kind| self.slots.lock().is_tripped(kind));
        let mut full = false;
        let free = self.slots.lock().free();
        if !usual.is_empty() && free > 0 {
            // Claims that are only watched keep none of the others from being found.
            let limit = free + self.leases.watched();
            let found = self.store.due_wakes(&usual, now, limit).await?;
            full = found.len() == limit;
            let mut found = self.claimable(found);
            found.truncate(free);
            self.send(found).await;
        }
        for kind in tripped {
            if !self.slots.lock().probes(kind) {
                let found = self.store.due_wakes(&[kind], now, 2 + self.leases.watched()).await?;
                let mut found = self.claimable(found);
                if found.len() > 1 && self.slots.lock().probed_last(kind, &found[0].key) {
                    found.swap(0, 1);
                }
                found.truncate(1);
                self.send(found).await;
            }
        }
        self.leases.forget(self.started.elapsed(), self.patience());
        let timers: Vec<&'static str> = self.kinds.timers.keys().copied().filter(|kind| is_due(kind)).collect();
        if !timers.is_empty() && self.status.timers_may_fire(&self.timing) {
            let found = self.store.due_wakes(&timers, now, TIMERS).await?;
            full |= found.len() == TIMERS;
            self.send(found).await;
        }
        Ok(match full {
            true => Looked::Full,
            false if is_quiet && silences.is_empty() => Looked::Quiet,
            false => Looked::Usual,
        })
    }

    /// How long a claim whose lease is over must be seen unchanged before it is taken over, because its owner's clock may be behind.
    fn patience(&self) -> Duration {
        self.timing.effect_timeout * 2
    }

    /// What is due, without what another replica may still be at.
    fn claimable(&mut self, found: Vec<StoredDoc>) -> Vec<StoredDoc> {
        let (elapsed, patience) = (self.started.elapsed(), self.patience());
        let mut run_out = |doc: &StoredDoc| {
            doc.wake.as_ref().is_some_and(|wake| self.leases.has_run_out(&doc.key, wake, elapsed, patience))
        };
        found.into_iter().filter(|doc| run_out(doc)).collect()
    }

    async fn send(&self, found: Vec<StoredDoc>) {
        for doc in found {
            let Some(wake) = doc.wake else { continue };
            if !self.slots.lock().queue(&doc.key) {
                continue;
            }
            let fires = self.kinds.timers.get(wake.kind.as_str()).map(|timer| timer.clone().fire(doc.key.id.clone()));
            let meta = outcome_meta(self.service, &doc.key, &wake);
            let due = DueInput { key: doc.key, wake, meta, fires };
            fail_point!("due");
            if self.due.send(Arrival::due(due)).await.is_err() {
                return;
            }
        }
    }
}
