//! Wakes within the loop: outcomes are settled, due timers fired, due and fresh effects claimed.

use crate::engine::Engine;
use crate::engine::input::{DueInput, Ended, OutcomeInput};
use crate::engine::plan::{End, Plan};
use crate::engine::wakes::Claimed;
use crate::handler::{Key, Wake};
use crate::unit::Ran;

impl Engine {
    pub(crate) fn outcome(&self, plan: &mut Plan, outcome: &OutcomeInput) -> End {
        let OutcomeInput { key, wake, meta, ended, .. } = outcome;
        let Some(standing) = plan.view.wake(key) else { return End::Late };
        if (standing.kind.as_str(), standing.generation) != (wake.kind.as_str(), wake.generation) {
            return End::Late;
        }
        let attempt = standing.attempt;
        let why = match ended {
            Ended::Outcome(work) => match self.handle(plan, meta, Some(key), |unit| work.handle(unit)) {
                Ran::Handled { staged, .. } => {
                    self.done(plan, None, meta, None, staged, None);
                    return End::Settled;
                }
                other => {
                    let error = other.error();
                    tracing::error!(
                        kind = wake.kind,
                        document = key.id,
                        correlation = meta.correlation,
                        error,
                        "an outcome cannot be settled; it is tried again"
                    );
                    error
                }
            },
            // Another attempt is under way and moves the wake itself.
            _ if attempt != wake.attempt => return End::Late,
            Ended::GivenBack => {
                plan.view.set_wake(key, |wake| (wake.at, wake.lease) = (plan.now, None));
                return End::Due;
            }
            Ended::Outage(outage) => outage.to_string(),
        };
        let at = plan.now + self.timing.effect_retry.delay(attempt);
        plan.view.set_wake(key, |wake| (wake.at, wake.lease) = (at, None));
        End::Outage(why)
    }

    pub(crate) fn due(&self, plan: &mut Plan, due: &DueInput) -> End {
        let DueInput { key, wake, meta, fires } = due;
        let Some(standing) = plan.view.wake(key) else { return End::Due };
        let seen = |wake: &Wake| (wake.kind.clone(), wake.generation, wake.attempt);
        if seen(standing) != seen(wake) || standing.at > plan.now {
            return End::Due;
        }
        let Some(work) = fires else {
            self.claim(plan, key);
            return End::Due;
        };
        match self.handle(plan, meta, Some(key), |unit| work.handle(unit)) {
            Ran::Handled { staged, .. } => self.done(plan, None, meta, None, staged, None),
            other => {
                let error = other.error();
                tracing::error!(
                    kind = wake.kind,
                    document = key.id,
                    correlation = meta.correlation,
                    error,
                    "a timer cannot be fired; it is tried again"
                );
                let at = plan.now + self.timing.effect_retry.delay(6);
                plan.view.set_wake(key, |wake| wake.at = at);
            }
        }
        End::Due
    }

    /// Claims the effects that this batch has set and that are due at once, as many as there are slots for. A service that stops
    /// leaves them to the next instance.
    pub(crate) fn claim_fresh(&self, plan: &mut Plan) {
        if *self.stop.borrow() {
            return;
        }
        let fresh = |(key, wake): (&Key, &Wake)| {
            (wake.attempt == 0 && wake.at <= plan.now && self.kinds.wakes.contains_key(wake.kind.as_str()))
                .then(|| key.clone())
        };
        let mut keys: Vec<Key> = plan.view.changed_wakes().filter_map(fresh).collect();
        keys.sort_unstable();
        for key in keys {
            self.claim(plan, &key);
        }
    }

    fn claim(&self, plan: &mut Plan, key: &Key) {
        let Some(wake) = plan.view.wake(key).cloned() else { return };
        let attempt = wake.attempt.saturating_add(1);
        let lease = self.timing.lease.max(self.timing.effect_retry.delay(attempt));
        let at = plan.now + lease;
        let wake = Wake { attempt, at, lease: Some(at), ..wake };
        if !self.board.claim(key, &wake) {
            return;
        }
        plan.view.set_wake(key, |standing| *standing = wake.clone());
        if let Some((document, shape)) = plan.view.document(key) {
            plan.claims.push(Claimed { key: key.clone(), wake, document, shape });
        }
    }
}
