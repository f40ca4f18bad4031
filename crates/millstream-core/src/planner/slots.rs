//! The slots in which effects run, and a circuit breaker for each kind of effect.

use std::collections::VecDeque;

use crate::handler::{Key, Wake};
use crate::hash::{HashMap, HashSet};
use crate::planner::Claimed;

/// Which effects run, which kinds are tripped, and which due wakes are on their way to the planner.
#[derive(Clone, Debug)]
pub struct Slots {
    limit: usize,
    trip_after: usize,
    /// Effects that run, with their wakes as claimed.
    running: HashMap<Key, Wake>,
    /// Due wakes that the sweep has found and the planner has not dealt with.
    queued: HashSet<Key>,
    breakers: HashMap<String, Breaker>,
    /// A service that stops leaves fresh effects to the next instance.
    closed: bool,
}

/// The last attempts of a kind of effect.
#[derive(Clone, Debug, Default)]
struct Breaker {
    /// Documents whose last attempts were outages, without a definite answer in between.
    outages: VecDeque<Key>,
    last_probe: Option<Key>,
}

impl Slots {
    /// At most `limit` effects at once; `trip_after` outages on different documents in a row trip the breaker of a kind, and then
    /// one probe runs at a time until there is a definite answer.
    pub fn new(limit: usize, trip_after: usize) -> Self {
        Self {
            limit,
            trip_after,
            running: HashMap::default(),
            queued: HashSet::default(),
            breakers: HashMap::default(),
            closed: false,
        }
    }

    /// Claims nothing fresh from now on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether an effect of `kind` may be claimed for a document, beside those that this batch has claimed already.
    pub(crate) fn may_claim(&self, key: &Key, kind: &str, claimed: &[Claimed]) -> bool {
        if self.running.len() + claimed.len() >= self.limit || self.running.contains_key(key) {
            return false;
        }
        !self.is_tripped(kind) || !(self.probes(kind) || claimed.iter().any(|claim| claim.wake.kind == kind))
    }

    /// Takes the slots of claims that were committed.
    pub fn take(&mut self, claims: &[Claimed]) {
        for Claimed { key, wake, .. } in claims {
            if self.is_tripped(&wake.kind)
                && let Some(breaker) = self.breakers.get_mut(&wake.kind)
            {
                breaker.last_probe = Some(key.clone());
            }
            self.running.insert(key.clone(), wake.clone());
        }
    }

    /// Gives a slot back: the effect has ended.
    pub fn release(&mut self, key: &Key) {
        self.running.remove(key);
    }

    /// Notes an outage; says whether it trips the breaker of the kind.
    pub fn outage(&mut self, key: &Key, kind: &str) -> bool {
        let was = self.is_tripped(kind);
        let breaker = self.breakers.entry(kind.to_owned()).or_default();
        if !breaker.outages.contains(key) {
            breaker.outages.push_back(key.clone());
        }
        while breaker.outages.len() > self.trip_after {
            breaker.outages.pop_front();
        }
        !was && self.is_tripped(kind)
    }

    /// Notes a definite answer; says whether it resets a tripped breaker.
    pub fn answer(&mut self, kind: &str) -> bool {
        let was = self.is_tripped(kind);
        self.breakers.remove(kind);
        was
    }

    /// Effects that run, with their wakes as claimed.
    pub fn running(&self) -> impl Iterator<Item = (&Key, &Wake)> {
        self.running.iter()
    }

    /// How many more effects may run.
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.running.len())
    }

    /// Whether only probes of a kind go out.
    pub fn is_tripped(&self, kind: &str) -> bool {
        self.breakers.get(kind).is_some_and(|breaker| breaker.outages.len() >= self.trip_after)
    }

    /// Whether an effect of a kind runs: of a tripped kind, its probe.
    pub fn probes(&self, kind: &str) -> bool {
        self.running.values().any(|wake| wake.kind == kind)
    }

    /// Whether the last probe of a kind went to this document: the next goes to another, if there is one.
    pub fn probed_last(&self, kind: &str, key: &Key) -> bool {
        self.breakers.get(kind).is_some_and(|breaker| breaker.last_probe.as_ref() == Some(key))
    }

    /// Marks a due wake as on its way; `false` if it is already, or its effect runs.
    pub fn queue(&mut self, key: &Key) -> bool {
        !self.running.contains_key(key) && self.queued.insert(key.clone())
    }

    /// A due wake was dealt with.
    pub fn dequeue(&mut self, key: &Key) {
        self.queued.remove(key);
    }
}
