//! Wakes: outcomes are settled, due timers fired, due and fresh effects claimed.

use crate::event::Meta;
use crate::handler::{Key, Wake};
use crate::planner::{Claimed, DueInput, End, Ended, OutcomeInput, Plan};
use crate::record::Entry;
use crate::unit::Ran;

/// How many doublings of the first delay a timer waits that could not be fired.
const UNFIRED: u32 = 6;

impl Plan<'_> {
    pub(super) fn outcome(&mut self, outcome: &OutcomeInput) -> End {
        let OutcomeInput { key, wake, meta, ended } = outcome;
        let Some(standing) = self.view.wake(key) else { return End::Late };
        if (standing.kind.as_str(), standing.generation) != (wake.kind.as_str(), wake.generation) {
            return End::Late;
        }
        let attempt = standing.attempt;
        if matches!(ended, Ended::Outcome(_)) && self.is_in_the_journal(key, meta) {
            return End::Late;
        }
        let (why, defect) = match ended {
            Ended::Outcome(work) => match self.handle(meta, Some(key), |unit| work.handle(unit)) {
                Ran::Handled { staged, .. } => {
                    self.done(None, meta, None, staged, None);
                    return End::Settled;
                }
                other => (other.error(), true),
            },
            // Another attempt is under way and moves the wake itself.
            _ if attempt != wake.attempt => return End::Late,
            Ended::GivenBack => {
                let now = self.now;
                self.view.set_wake(key, |wake| (wake.at, wake.lease) = (now, None));
                return End::Due;
            }
            Ended::Outage(outage) => (outage.to_string(), false),
        };
        // An outcome that cannot be settled may be of an earlier attempt than the one that has the lease.
        if attempt == wake.attempt {
            let at = self.now + self.planner.timing.effect_retry.delay(attempt);
            self.view.set_wake(key, |wake| (wake.at, wake.lease) = (at, None));
        }
        End::Outage { why, defect }
    }

    pub(super) fn due(&mut self, due: &DueInput) -> End {
        let DueInput { key, wake, meta, fires } = due;
        let Some(standing) = self.view.wake(key) else { return End::Due };
        let seen = |wake: &Wake| (wake.kind.clone(), wake.generation, wake.attempt);
        if seen(standing) != seen(wake) || standing.at > self.now {
            return End::Due;
        }
        let Some(work) = fires else {
            self.claim(key);
            return End::Due;
        };
        if self.is_in_the_journal(key, meta) {
            return End::Due;
        }
        match self.handle(meta, Some(key), |unit| work.handle(unit)) {
            Ran::Handled { staged, .. } => {
                self.done(None, meta, None, staged, None);
                End::Due
            }
            other => {
                let at = self.now + self.planner.timing.effect_retry.delay(UNFIRED);
                self.view.set_wake(key, |wake| wake.at = at);
                End::Unfired(other.error())
            }
        }
    }

    /// Whether the journal has the end of a wake already, which settles it: it would be refused a second time, again and again. So
    /// the wake is taken away, and nothing else is done. That the document still carries it is somebody's work at the database.
    fn is_in_the_journal(&mut self, key: &Key, meta: &Meta) -> bool {
        let known = self.entry(meta.id).is_some_and(Entry::answers);
        if known {
            self.view.clear_wake(key);
        }
        known
    }

    /// Claims the effects that this batch has set and that are due at once, as many as there are slots for.
    pub(super) fn claim_fresh(&mut self) {
        if self.slots.is_closed() {
            return;
        }
        let effects = &self.planner.kinds.effects;
        let fresh = |(key, wake): (&Key, &Wake)| {
            (wake.attempt == 0 && wake.at <= self.now && effects.contains_key(wake.kind.as_str())).then(|| key.clone())
        };
        let mut keys: Vec<Key> = self.view.changed_wakes().filter_map(fresh).collect();
        keys.sort_unstable();
        for key in keys {
            self.claim(&key);
        }
    }

    fn claim(&mut self, key: &Key) {
        let (Some(wake), Some((document, shape))) = (self.view.wake(key).cloned(), self.view.document(key)) else {
            return;
        };
        if !self.slots.may_claim(key, &wake.kind, &self.claims) {
            return;
        }
        let timing = &self.planner.timing;
        let attempt = wake.attempt.saturating_add(1);
        let lease = timing.lease.max(timing.effect_retry.delay(attempt));
        let at = self.now + lease;
        let wake = Wake { attempt, at, lease: Some(at), ..wake };
        self.view.set_wake(key, |standing| *standing = wake.clone());
        self.claims.push(Claimed { key: key.clone(), wake, document, shape });
    }
}
