//! How far a consumer is: written by its tasks, read by whoever asks.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is known of a consumer, for readiness, expiry and deadlines.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Whether pulls are open and answered.
    pub(crate) pulling: AtomicBool,
    /// Deliveries that are in this engine.
    pub(crate) in_engine: AtomicUsize,
    pub(crate) pending: AtomicU64,
    pub(crate) ack_pending: AtomicU64,
    pub(crate) ack_floor: AtomicU64,
    /// The connection epoch in which the durable was last seen drained.
    pub(crate) drained_in: AtomicU64,
    pin: Mutex<Pin>,
    /// Why it does not pull, in a sentence.
    waits_for: Mutex<Option<String>>,
    ahead: Mutex<Ahead>,
}

/// Deliveries that wait for a newer release, counted in windows: each comes again in each window.
#[derive(Debug, Default)]
struct Ahead {
    since: Option<Instant>,
    count: i64,
    before: i64,
}

/// Which replica of a single writer reads.
#[derive(Debug, Default)]
struct Pin {
    /// What the broker knows this replica by, if it is the one.
    ours: Option<String>,
    /// Whether the broker was last seen to know one by something else.
    theirs: bool,
}

impl Progress {
    /// What the broker has pinned this replica by.
    pub(crate) fn pin(&self) -> Option<String> {
        self.pin.lock().map_or(None, |pin| pin.ours.clone())
    }

    /// The broker has pinned this replica, or, without an id, another one.
    pub(crate) fn set_pin(&self, id: Option<&str>) {
        if let Ok(mut pin) = self.pin.lock()
            && pin.ours.as_deref() != id
        {
            *pin = Pin { ours: id.map(Into::into), theirs: id.is_none() };
        }
    }

    /// Whom the broker says it has pinned now, if anybody.
    pub(crate) fn see_pin(&self, id: Option<&str>) {
        if let Ok(mut pin) = self.pin.lock() {
            pin.theirs = id.is_some() && pin.ours.as_deref() != id;
        }
    }

    /// Whether another replica reads.
    pub(crate) fn stands_by(&self) -> bool {
        self.pin.lock().is_ok_and(|pin| pin.theirs)
    }

    /// A delivery was sent back to wait for a newer release.
    pub(crate) fn note_ahead(&self, window: Duration) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let age = ahead.since.map_or(Duration::MAX, |since| since.elapsed());
        if age >= window {
            ahead.before = if age < window * 2 { ahead.count } else { 0 };
            (ahead.since, ahead.count) = (Some(Instant::now()), 0);
        }
        ahead.count += 1;
    }

    /// One that was unacked is parked: the broker is asked only from time to time how many there are.
    pub(crate) fn make_room(&self) {
        let less = |unacked: u64| Some(unacked.saturating_sub(1));
        let _ = self.ack_pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Whether half of what may be unacked is, without a surplus that is being parked, and a good part of it waits for a newer release:
    /// then it is for the others to go on.
    pub(crate) fn is_crowded(&self, max_ack_pending: i64, surplus: i64) -> bool {
        let unacked = i64::try_from(self.ack_pending.load(Ordering::Acquire)).unwrap_or(i64::MAX);
        if unacked - surplus < max_ack_pending / 2 {
            return false;
        }
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        // One replica of several sees a part of them only.
        ahead.count.max(ahead.before) >= max_ack_pending / 16
    }

    pub(crate) fn waits_for(&self) -> Option<String> {
        self.waits_for.lock().map_or(None, |waits| waits.clone())
    }

    pub(crate) fn set_waits_for(&self, what: Option<String>) {
        if let Ok(mut waits) = self.waits_for.lock() {
            if what.is_some() && *waits != what {
                tracing::warn!(waits_for = what.as_deref(), "consumer is waiting");
            }
            *waits = what;
        }
    }
}

/// A delivery's share in [`Progress::in_engine`].
pub(crate) struct InEngine(Arc<Progress>);

impl InEngine {
    pub(crate) fn enter(progress: &Arc<Progress>) -> Self {
        progress.in_engine.fetch_add(1, Ordering::AcqRel);
        Self(progress.clone())
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.0
    }
}

impl Drop for InEngine {
    fn drop(&mut self) {
        self.0.in_engine.fetch_sub(1, Ordering::AcqRel);
    }
}
