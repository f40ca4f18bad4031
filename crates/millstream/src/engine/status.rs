//! What the rest of the process may know of the engine: health, admission, whether timers may fire.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::{Broker, known_of};
use crate::capacity::Capacity;
use crate::engine::arrival::Source;
use crate::engine::publisher::Outbox;
use crate::engine::timing::Timing;
use crate::ids::Timestamp;
use crate::progress::Progress;
use crate::refusals::Refusals;
use crate::store::WakesDue;

pub(crate) struct Status {
    pub(crate) store_up: AtomicBool,
    /// Entries above the watermarks of all replicas, as last counted in the store.
    pub(crate) unpublished: AtomicU64,
    pub(crate) draining: AtomicBool,
    /// Told of a commit with a wake that comes due before the sweep would look for it.
    pub(crate) wakes_soon: Notify,
    pub(crate) outbox: Outbox,
    /// The streams that the service publishes to.
    capacities: Vec<Arc<Capacity>>,
    /// Set once the broker was reached for the first time.
    online: OnceLock<Online>,
    /// What the broker refuses for lack of rights, from the first connection on.
    refusals: OnceLock<Arc<Refusals>>,
    /// A sentence that says what start-up waits for.
    waits_for: Mutex<Option<String>>,
    /// What is to be known of the streams that it publishes to, the latest of each.
    lost: Mutex<BTreeMap<(String, bool), String>>,
    /// Kinds of effects whose outside does not answer.
    outside: Mutex<BTreeMap<String, Silence>>,
    /// Kinds of wakes that are due, and since when the earliest of each is.
    due: Mutex<BTreeMap<String, Silence>>,
    /// Replicas that have gone without a goodbye: how many, and when the first was last heard of.
    missed: Mutex<Option<(usize, Timestamp)>>,
    /// Since when the service cannot do its whole job.
    unready: Mutex<Option<Timestamp>>,
}

/// Wakes of a kind that wait for too long, or an outside that does not answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// When the first attempt failed that no answer has followed, or since when a wake is due.
    pub(crate) since: Timestamp,
    /// Wakes of the kind that waited when somebody looked last.
    pub(crate) waiting: u64,
}

/// What is there from the first connection on.
struct Online {
    broker: Broker,
    consumers: Vec<(Arc<Source>, Arc<Progress>)>,
    since: Mutex<(u64, Instant)>,
}

impl Status {
    pub(crate) fn new(outbox: Outbox, capacities: Vec<Arc<Capacity>>) -> Self {
        Self {
            store_up: AtomicBool::new(false),
            unpublished: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            wakes_soon: Notify::new(),
            outbox,
            capacities,
            online: OnceLock::new(),
            refusals: OnceLock::new(),
            lost: Mutex::default(),
            waits_for: Mutex::new(Some("the store and the broker".into())),
            outside: Mutex::default(),
            due: Mutex::default(),
            missed: Mutex::default(),
            unready: Mutex::default(),
        }
    }

    /// An effect of a kind had no definite outcome.
    pub(crate) fn unanswered(&self, kind: &str, now: Timestamp) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside.entry(kind.to_owned()).or_insert(Silence { since: now, waiting: 1 });
    }

    /// An effect of a kind had a definite outcome.
    pub(crate) fn answered(&self, kind: &str) {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner).remove(kind);
    }

    /// How many effects of a kind there are, due or tried again later. Without any, nobody waits for an answer.
    pub(crate) fn see_waiting(&self, waiting: impl Fn(&str) -> u64) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside.retain(|kind, silence| {
            silence.waiting = waiting(kind);
            silence.waiting > 0
        });
    }

    /// The kinds of effects whose outside does not answer.
    pub(crate) fn silences(&self) -> BTreeMap<String, Silence> {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is due, as last looked for.
    pub(crate) fn see_due(&self, due: &[WakesDue]) {
        let due = due.iter().filter(|of| of.due > 0);
        let due = due.map(|of| (of.kind.clone(), Silence { since: of.oldest, waiting: of.due })).collect();
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    /// The kinds of wakes that are due.
    pub(crate) fn due(&self) -> BTreeMap<String, Silence> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which replicas are missed.
    pub(crate) fn see_missed(&self, missed: Option<(usize, Timestamp)>) {
        *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = missed;
    }

    /// How many replicas are missed, and since when.
    pub(crate) fn missed(&self) -> Option<(usize, Timestamp)> {
        *self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the service can do its whole job now.
    pub(crate) fn see_ready(&self, ready: bool, now: Timestamp) {
        let mut unready = self.unready.lock().unwrap_or_else(PoisonError::into_inner);
        *unready = if ready { None } else { unready.or(Some(now)) };
    }

    /// Since when it cannot.
    pub(crate) fn unready_since(&self) -> Option<Timestamp> {
        *self.unready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker was reached; its streams are declared next.
    pub(crate) fn connected(&self, refusals: Arc<Refusals>) {
        // An engine connects once.
        let _ = self.refusals.set(refusals);
        self.set_waits_for(Some("its streams".into()));
    }

    pub(crate) fn go_online(&self, broker: Broker, consumers: Vec<(Arc<Source>, Arc<Progress>)>) {
        let since = Mutex::new((0, Instant::now()));
        // An engine starts once.
        let _ = self.online.set(Online { broker, consumers, since });
        self.set_waits_for(None);
    }

    /// The broker had lost something of a stream, perhaps for good.
    pub(crate) fn note_lost(&self, stream: &str, for_good: bool, note: String) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert((stream.into(), for_good), note);
    }

    pub(crate) fn set_waits_for(&self, what: Option<String>) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    pub(crate) fn broker_up(&self) -> bool {
        self.online.get().is_some_and(|online| online.broker.is_up())
    }

    /// What the broker's server lacks.
    pub(crate) fn broker_lacks(&self) -> Vec<String> {
        let known = self.online.get().map(|online| known_of(&online.broker.client)).unwrap_or_default();
        // One that would have been refused may be another server of the cluster, which the client went on to.
        known.refused.into_iter().chain(known.lacks).collect()
    }

    /// The broker's version; none before it was reached.
    pub(crate) fn broker_version(&self) -> Option<String> {
        self.online.get().map(|online| online.broker.client.server_info().version)
    }

    /// How many more entries may wait to be published.
    pub(crate) fn room(&self, timing: &Timing) -> u64 {
        let waiting = self.outbox.queued().max(self.unpublished.load(Ordering::Relaxed));
        timing.unpublished_limit.saturating_sub(waiting)
    }

    /// Why no command is taken now.
    pub(crate) fn refuses(&self, timing: &Timing) -> Option<String> {
        if self.draining.load(Ordering::Acquire) {
            return Some("the service is shutting down".into());
        }
        if self.online.get().is_none() {
            return Some("the broker has not been reached yet".into());
        }
        if !self.store_up.load(Ordering::Acquire) {
            return Some("the store is unavailable".into());
        }
        if self.room(timing) == 0 {
            return Some("too many events wait for the broker".into());
        }
        let full = self.capacities.iter().find(|stream| stream.is_full())?;
        Some(format!("the stream {} is nearly full: its readers are behind", full.stream.name))
    }

    /// Everything that keeps the service from doing its whole job, a sentence each.
    pub(crate) fn waits(&self, timing: &Timing) -> Vec<String> {
        let mut waits = Vec::new();
        if let Some(what) = self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            waits.push(what);
        }
        if self.draining.load(Ordering::Acquire) {
            waits.push("shutting down".into());
        }
        // During start-up it is named already.
        if waits.is_empty() && !self.store_up.load(Ordering::Acquire) {
            waits.push("the store".into());
        }
        // Whatever is refused is tried again within an ack wait.
        let refused = self.refusals.get().map_or(vec![], |refusals| refusals.now(timing.ack_wait * 3));
        waits.extend(refused.into_iter().map(|refused| format!("rights at the broker: {refused}")));
        let Some(online) = self.online.get() else { return waits };
        if !online.broker.is_up() {
            waits.push("the broker".into());
        }
        waits.extend(self.outbox.held());
        for (source, progress) in &online.consumers {
            match progress.waits_for() {
                Some(why) => waits.push(why),
                None if !progress.pulling.load(Ordering::Acquire) => {
                    waits.push(format!("the consumer of {} does not pull", source.stream));
                }
                None => {}
            }
        }
        waits
    }

    /// What is to be known of the positions of its consumers, a sentence each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let of = |(source, progress): (Arc<Source>, Arc<Progress>)| {
            let recovered = progress.recovered.load(Ordering::Acquire);
            let recovered = (recovered > 0).then(|| {
                let stream = source.stream;
                format!("{stream}: {recovered} messages that had been acked were not in this database, and were handled again")
            });
            progress.notes().into_iter().chain(recovered)
        };
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.consumers().into_iter().flat_map(of).chain(lost.into_values()).collect()
    }

    pub(crate) fn capacities(&self) -> &[Arc<Capacity>] {
        &self.capacities
    }

    pub(crate) fn consumers(&self) -> Vec<(Arc<Source>, Arc<Progress>)> {
        self.online.get().map_or(vec![], |online| online.consumers.clone())
    }

    /// Whether deadlines may fire: the broker is there, and since it last came every durable was once drained, or a good
    /// while has passed. A fact that is already there beats a deadline.
    pub(crate) fn timers_may_fire(&self, timing: &Timing) -> bool {
        let Some(online) = self.online.get() else { return false };
        let link = *online.broker.link.borrow();
        if !link.up {
            return false;
        }
        let mut since = online.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.0 != link.epoch {
            *since = (link.epoch, Instant::now());
        }
        let drained = |progress: &Progress| progress.drained_in.load(Ordering::Acquire) == link.epoch;
        online.consumers.iter().all(|(_, progress)| drained(progress)) || since.1.elapsed() >= timing.deadline_patience
    }
}
