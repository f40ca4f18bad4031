//! The board of wakes: which effects run, which kinds are closed for outages, how many slots are free. Shared by the loop and
//! the sweep; locked for moments only.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::handler::{Key, Wake};

#[derive(Clone)]
pub(crate) struct Board(Arc<Mutex<State>>);

struct State {
    slots: usize,
    gate_after: usize,
    /// Effects that run, with their wakes as claimed.
    running: HashMap<Key, Wake>,
    /// Due wakes on their way from the sweep to the loop.
    queued: HashSet<Key>,
    gates: HashMap<String, Gate>,
}

/// The last attempts of a kind of effect.
#[derive(Default)]
struct Gate {
    /// Documents whose last attempts were outages, without a definite answer in between.
    outages: VecDeque<Key>,
    last_probe: Option<Key>,
}

impl Board {
    /// A board with so many slots, that closes a kind after `gate_after` outages on different documents in a row.
    pub(crate) fn new(slots: usize, gate_after: usize) -> Self {
        let state = State { slots, gate_after, running: HashMap::new(), queued: HashSet::new(), gates: HashMap::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked, and its state is whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for an effect if there is one and its kind is open, or this is the one probe of a closed kind. The claim
    /// still has to be committed.
    pub(crate) fn claim(&self, key: &Key, wake: &Wake) -> bool {
        let mut state = self.state();
        if state.running.len() >= state.slots || state.running.contains_key(key) {
            return false;
        }
        if state.is_closed(&wake.kind) {
            let probing = state.running.values().any(|running| running.kind == wake.kind);
            if probing {
                return false;
            }
            if let Some(gate) = state.gates.get_mut(&wake.kind) {
                gate.last_probe = Some(key.clone());
            }
        }
        state.running.insert(key.clone(), wake.clone());
        true
    }

    /// Gives a slot back: the effect has ended, or its claim was not committed.
    pub(crate) fn release(&self, key: &Key) {
        self.state().running.remove(key);
    }

    /// Notes an outage; says whether it closes the kind.
    pub(crate) fn outage(&self, key: &Key, kind: &str) -> bool {
        let mut state = self.state();
        let was = state.is_closed(kind);
        let keep = state.gate_after;
        let gate = state.gates.entry(kind.to_owned()).or_default();
        if !gate.outages.contains(key) {
            gate.outages.push_back(key.clone());
        }
        while gate.outages.len() > keep {
            gate.outages.pop_front();
        }
        !was && state.is_closed(kind)
    }

    /// Notes a definite answer; says whether it opens the kind.
    pub(crate) fn answer(&self, kind: &str) -> bool {
        let mut state = self.state();
        let was = state.is_closed(kind);
        state.gates.remove(kind);
        was
    }

    pub(crate) fn running(&self) -> Vec<(Key, Wake)> {
        self.state().running.iter().map(|(key, wake)| (key.clone(), wake.clone())).collect()
    }

    pub(crate) fn free(&self) -> usize {
        let state = self.state();
        state.slots.saturating_sub(state.running.len())
    }

    pub(crate) fn is_closed(&self, kind: &str) -> bool {
        self.state().is_closed(kind)
    }

    /// Whether a probe of a closed kind may go to this document: not to the one that was probed last, if there is another.
    pub(crate) fn probed_last(&self, kind: &str, key: &Key) -> bool {
        self.state().gates.get(kind).is_some_and(|gate| gate.last_probe.as_ref() == Some(key))
    }

    /// Whether a probe of a closed kind runs.
    pub(crate) fn probing(&self, kind: &str) -> bool {
        self.state().running.values().any(|wake| wake.kind == kind)
    }

    /// Marks a due wake as on its way to the loop; `false` if it is already, or its effect runs.
    pub(crate) fn queue(&self, key: &Key) -> bool {
        let mut state = self.state();
        !state.running.contains_key(key) && state.queued.insert(key.clone())
    }

    /// The loop has dealt with a due wake.
    pub(crate) fn dequeue(&self, key: &Key) {
        self.state().queued.remove(key);
    }
}

impl State {
    fn is_closed(&self, kind: &str) -> bool {
        self.gates.get(kind).is_some_and(|gate| gate.outages.len() >= self.gate_after)
    }
}
