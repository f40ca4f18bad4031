//! How far a consumer is: written by its tasks, read by whoever asks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::Timestamp;

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
    /// What was acked up to here is read again, because the database did not know of it.
    pub(crate) reread_to: AtomicU64,
    /// Up to here messages were given to somebody by a durable that was made anew, which counts deliveries from one again.
    pub(crate) given_to: AtomicU64,
    /// How often a durable was put in the place of another: what the one before has delivered is not to be acked at this one.
    placed: AtomicU64,
    /// How much of that the database had indeed not handled.
    pub(crate) recovered: AtomicU64,
    handled: Mutex<Handled>,
    /// What is to be known of its position, in sentences.
    notes: Mutex<Vec<String>>,
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

/// What this process has handled.
#[derive(Debug, Default)]
struct Handled {
    /// Whether the durable and the database were found to agree; until then nothing is counted.
    agreed: bool,
    highest: u64,
    /// Messages that were handled, about one for each second of their publishing, and when they were published.
    samples: VecDeque<(u64, Timestamp)>,
    /// When the last of those at or below the ack floor was published.
    passed: Option<Timestamp>,
}

impl Progress {
    /// The durable and the database agree.
    pub(crate) fn agree(&self) {
        self.with_handled(|handled| handled.agreed = true);
    }

    /// The durable is brought to another place, or the database was: what was handled says nothing about it.
    pub(crate) fn begin_again(&self) {
        self.with_handled(|handled| *handled = Handled::default());
    }

    /// Another durable takes the place of the one that was read. `given` is how far that one had given out messages of the same
    /// stretch of the stream, to be given out again.
    pub(crate) fn place(&self, given: Option<u64>) {
        self.placed.fetch_add(1, Ordering::AcqRel);
        match given {
            Some(given) => drop(self.given_to.fetch_max(given, Ordering::AcqRel)),
            None => {
                self.given_to.store(0, Ordering::Release);
                self.reread_to.store(0, Ordering::Release);
            }
        }
        self.begin_again();
    }

    /// Tells one durable from the next.
    pub(crate) fn placed(&self) -> u64 {
        self.placed.load(Ordering::Acquire)
    }

    /// A message is done with.
    pub(crate) fn note_handled(&self, seq: u64, published: Timestamp) {
        self.with_handled(|handled| {
            if !handled.agreed {
                return;
            }
            handled.highest = handled.highest.max(seq);
            let second = |at: Timestamp| at.millis() / 1000;
            let newer = |(last, at): &(u64, Timestamp)| seq > *last && second(published) > second(*at);
            if handled.samples.back().is_none_or(newer) {
                handled.samples.push_back((seq, published));
            }
        });
    }

    /// The highest sequence that this process has handled.
    pub(crate) fn handled(&self) -> u64 {
        self.with_handled(|handled| handled.highest)
    }

    /// How far the durable is in the time of its stream: nothing that it has still to deliver was published before. `None` if this
    /// process has handled too little to tell.
    pub(crate) fn stream_time(&self, floor: u64, now: Timestamp) -> Option<Timestamp> {
        let left = self.pending.load(Ordering::Acquire) + self.ack_pending.load(Ordering::Acquire);
        if left == 0 && self.in_engine.load(Ordering::Acquire) == 0 {
            return Some(now);
        }
        self.with_handled(|handled| {
            while let Some((_, published)) = handled.samples.front().filter(|(seq, _)| *seq <= floor) {
                handled.passed = Some(*published);
                handled.samples.pop_front();
            }
            handled.passed
        })
    }

    fn with_handled<T>(&self, act: impl FnOnce(&mut Handled) -> T) -> T {
        act(&mut self.handled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is to be known of its position.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn add_note(&self, note: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

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

/// A delivery's share in [`Progress::in_engine`], and of which durable it is.
pub(crate) struct InEngine(Arc<Progress>, u64);

impl InEngine {
    /// The progress that it counts in.
    pub(crate) fn progress(&self) -> &Progress {
        &self.0
    }

    /// Counts a delivery of the durable that was `placed` then.
    pub(crate) fn enter(progress: &Arc<Progress>, placed: u64) -> Self {
        progress.in_engine.fetch_add(1, Ordering::AcqRel);
        Self(progress.clone(), placed)
    }

    /// Whether its durable is still the one that is read.
    pub(crate) fn is_current(&self) -> bool {
        self.0.placed() == self.1
    }
}

impl Drop for InEngine {
    fn drop(&mut self) {
        self.0.in_engine.fetch_sub(1, Ordering::AcqRel);
    }
}
