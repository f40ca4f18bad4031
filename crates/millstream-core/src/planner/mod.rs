//! The planner: from a batch of inputs, and what was loaded for it, to what one commit writes and what follows it.
//!
//! ```text
//! wanted(batch) → load → suspects(batch, facts) → commit their starts → decide(batch, facts, slots, now)
//!                                                                     → Decision { write, after }
//! ```
//!
//! It does no I/O, has no clock and no state: the same arguments give the same decision, so after a conflict the batch is decided
//! anew from what is loaded then. Documents, journal entries and idempotency keys of a batch are laid over what was loaded, so that
//! a second delivery of a message within the batch meets what the first one has left, as it would in a later batch.

mod command;
mod decision;
mod decode;
mod input;
mod journal;
mod leases;
mod message;
mod rehearsal;
mod slots;
mod suspects;
#[cfg(test)]
mod tests;
mod wakes;

use std::sync::Arc;

use bytes::Bytes;

pub use self::decision::{Aftermath, Claimed, CommandFailure, Decision, End, Facts, Fate, Reply, Write};
pub use self::decode::{Decoder, Incoming, UNKNOWN_EVENT};
pub use self::input::{CommandInput, Delivery, DueInput, Ended, Idempotency, Input, OutcomeInput, Wire};
pub use self::leases::Leases;
pub use self::rehearsal::{Change, Rehearsal, Rehearsed};
pub use self::slots::Slots;
pub use self::suspects::Suspects;
use crate::event::{Emitted, Meta};
use crate::handler::{Fault, Key};
use crate::hash::{HashMap, HashSet};
use crate::ids::{Id, Timestamp};
use crate::record::{Entry, IdempotencyKey, KeyHash, Wanted};
use crate::timing::Timing;
use crate::unit::{Context, Count, Ran, Rules, Unit, run};
use crate::view::View;
use crate::work::{AnyEffect, AnyTimer};

/// How often a batch is run again because a handler reads what `touches` does not name, before that is taken for a defect.
const MISSES: u32 = 64;

/// The rules of a service: what its handlers may stage, its kinds of wakes, its times and bounds.
#[derive(Clone)]
pub struct Planner {
    /// What may be staged.
    pub rules: Rules,
    /// The kinds of wakes.
    pub kinds: Kinds,
    /// Times and bounds.
    pub timing: Timing,
}

/// The effects and timers of a service, by kind.
#[derive(Clone, Default)]
pub struct Kinds {
    /// The effects.
    pub effects: HashMap<&'static str, Arc<dyn AnyEffect>>,
    /// The timers.
    pub timers: HashMap<&'static str, Arc<dyn AnyTimer>>,
}

impl Kinds {
    /// All kinds, in the order of their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let mut names: Vec<&'static str> = self.effects.keys().chain(self.timers.keys()).copied().collect();
        names.sort_unstable();
        names.into_iter()
    }

    /// The collection whose documents carry wakes of a kind.
    pub fn collection(&self, kind: &str) -> Option<&'static str> {
        let wake = self.effects.get(kind).map(|wake| wake.collection());
        wake.or_else(|| self.timers.get(kind).map(|timer| timer.collection()))
    }

    /// Takes the wake of a document away, which may take notice of it.
    ///
    /// # Errors
    /// As the effect's or timer's hook.
    pub fn cancel(&self, kind: &str, id: &str, unit: &mut Unit<'_>) -> Result<(), Fault> {
        match (self.effects.get(kind), self.timers.get(kind)) {
            (Some(effect), _) => effect.cancel(id, unit),
            (None, Some(timer)) => timer.cancel(id, unit),
            (None, None) => Ok(()),
        }
    }

    /// Whether an operator may cancel wakes of a kind.
    pub fn cancellable(&self, kind: &str) -> bool {
        self.effects.get(kind).is_some_and(|wake| wake.cancellable())
            || self.timers.get(kind).is_some_and(|timer| timer.cancellable())
    }
}

/// Handlers have read documents that nobody has loaded: load them, add them to the [`Facts`], and decide again.
#[derive(Debug, PartialEq, Eq)]
pub struct Missed(pub Vec<Key>);

impl Planner {
    /// What has to be loaded for a batch: its documents, the idempotency keys of its commands and, where deliveries may be repeats,
    /// its journal entries. `recheck` asks the journal about every input.
    pub fn wanted(&self, batch: &[&Input], recheck: bool) -> Wanted {
        let mut docs: Vec<Key> = batch.iter().flat_map(|input| input.touches(&self.rules)).collect();
        docs.sort_unstable();
        docs.dedup();
        let again = |input: &&&Input| match input {
            Input::Message(delivery) => {
                recheck || delivery.was_given_out() || delivery.redriven.is_some() || delivery.settled
            }
            other => recheck && other.journalled(),
        };
        let journal = batch.iter().filter(again).map(|input| input.id()).collect();
        let key = |input: &&Input| match input {
            Input::Command(command) => command.idempotency.map(|key| key.hash),
            _ => None,
        };
        Wanted { docs, journal, keys: batch.iter().filter_map(key).collect() }
    }

    /// Decides a batch, in order, over one view of its documents, journal entries and keys.
    ///
    /// # Errors
    /// [`Missed`], when a handler has read what was not loaded.
    pub fn decide(
        &self,
        batch: &[&Input],
        facts: &Facts,
        doomed: &HashSet<Id>,
        slots: &Slots,
        now: Timestamp,
    ) -> Result<Decision, Missed> {
        let mut plan = Plan {
            planner: self,
            facts,
            doomed,
            slots,
            alone: batch.len() == 1,
            now,
            view: View::new(facts.asked.iter().cloned(), facts.docs.clone()),
            entries: Vec::with_capacity(batch.len()),
            written: HashMap::default(),
            failed: HashMap::default(),
            keys: vec![],
            emitted: vec![],
            again: vec![],
            counts: vec![],
            claims: vec![],
            missed: vec![],
        };
        let ends = batch.iter().map(|input| plan.input(input)).collect();
        plan.claim_fresh();
        plan.into_decision(ends)
    }
}

/// A decision in the making.
struct Plan<'a> {
    planner: &'a Planner,
    facts: &'a Facts,
    doomed: &'a HashSet<Id>,
    slots: &'a Slots,
    /// Whether the batch has no other input.
    alone: bool,
    now: Timestamp,
    view: View,
    entries: Vec<Entry>,
    /// Where in `entries` an input's stands.
    written: HashMap<Id, usize>,
    /// What became of messages that come back: further deliveries within the batch share it.
    failed: HashMap<Id, End>,
    keys: Vec<IdempotencyKey>,
    emitted: Vec<Emitted>,
    again: Vec<Emitted>,
    counts: Vec<Count>,
    claims: Vec<Claimed>,
    missed: Vec<Key>,
}

impl Plan<'_> {
    fn input(&mut self, input: &Input) -> End {
        match input {
            Input::Message(delivery) => self.message(delivery),
            Input::Command(command) => End::Answer(self.command(command)),
            Input::Outcome(outcome) => self.outcome(outcome),
            Input::Due(due) => self.due(due),
        }
    }

    /// Runs one input over the view, and lays what it staged of documents over it.
    fn handle(
        &mut self,
        cause: &Meta,
        settles: Option<&Key>,
        work: impl FnOnce(&mut Unit<'_>) -> Result<Option<Bytes>, Fault>,
    ) -> Ran {
        let rules = &self.planner.rules;
        let cx = Context { rules, now: self.now, cause: cause.clone(), settles: settles.cloned() };
        let mut ran = run(&self.view, &cx, work);
        match &mut ran {
            Ran::Handled { staged, .. } => self.view.apply(staged, &cx),
            Ran::Missed(key) if !self.alone || self.facts.misses < MISSES => self.missed.push(key.clone()),
            Ran::Missed(key) => {
                let error =
                    format!("each run reads another document that `touches` does not name, the last one {key:?}");
                return Ran::Misused(error);
            }
            _ => {}
        }
        ran
    }

    /// The key that a command comes with, as it stands for an earlier command of this batch or of another.
    fn key(&self, hash: &KeyHash) -> Option<&IdempotencyKey> {
        let ours = self.keys.iter().find(|key| key.hash == *hash);
        ours.or_else(|| self.facts.keys.get(hash).filter(|key| key.expires > self.now))
    }

    fn into_decision(self, ends: Vec<End>) -> Result<Decision, Missed> {
        let Self { facts, now, view, entries, keys, emitted, again, counts, claims, mut missed, .. } = self;
        if !missed.is_empty() {
            missed.sort_unstable();
            missed.dedup();
            return Err(Missed(missed));
        }
        let emitting = entries.iter().filter(|entry| !entry.emitted.is_empty()).count() as u64;
        let emitting = (!entries.is_empty()).then_some(emitting);
        let write = Write { now, docs: view.writes(), entries, keys };
        let after = Aftermath { now, ends, emitted, again, emitting, counts, claims, misses: facts.misses };
        Ok(Decision { write, after })
    }
}
