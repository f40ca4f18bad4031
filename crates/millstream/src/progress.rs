//! How far a consumer is: written by its tasks, read by whoever asks.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
}

impl Drop for InEngine {
    fn drop(&mut self) {
        self.0.in_engine.fetch_sub(1, Ordering::AcqRel);
    }
}
