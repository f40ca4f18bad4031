//! Messages: handled, answered from the journal, tried again, or given up.

use crate::dead_letter::Reason;
use crate::planner::journal::Failure;
use crate::planner::{Delivery, End, Fate, Plan};
use crate::record::{Entry, State};
use crate::unit::{Ran, Unread};

impl Plan<'_> {
    pub(super) fn message(&mut self, delivery: &Delivery) -> End {
        let entry = self.entry_for(delivery);
        // A repeat of what has just failed is no attempt of its own; a later redrive begins anew.
        let known = self.entry(delivery.id).map(|entry| entry.redrives);
        let anew = entry.as_ref().map(|entry| entry.redrives) != known;
        if let Some(end) = self.failed.get(&delivery.id).filter(|_| !anew) {
            return match end {
                End::Ahead { error, .. } => End::Ahead { first: false, error: error.clone() },
                end => end.clone(),
            };
        }
        let end = self.first(delivery, entry.as_ref());
        if matches!(end, End::Nak { .. } | End::Ahead { .. }) {
            self.failed.insert(delivery.id, end.clone());
        }
        end
    }

    fn first(&mut self, delivery: &Delivery, entry: Option<&Entry>) -> End {
        if !delivery.is_to_be_handled(entry) {
            self.repeat_outcome(delivery, entry);
            return End::Ack(Fate::Duplicate);
        }
        let failure = match &delivery.work {
            Err(Unread::Schema(error)) => Failure { reason: Reason::Schema, error: error.clone(), attempts: 0 },
            Err(Unread::Ahead(error)) => match self.ahead(delivery, entry, error.clone()) {
                Ok(end) => return end,
                Err(failure) => failure,
            },
            Ok(_) if self.doomed.contains(&delivery.id) => Failure {
                reason: Reason::Crash,
                error: "the process died each time this message was handled".into(),
                attempts: entry.map_or(0, |entry| entry.attempts),
            },
            Ok(work) => {
                let attempts = entry.map_or(0, |entry| entry.attempts) + 1;
                let retry = self.planner.timing.message_retry;
                match self.handle(&delivery.meta, None, |unit| work.handle(unit)) {
                    Ran::Handled { staged, .. } => {
                        self.done(Some(delivery), &delivery.meta, entry, staged, None);
                        return End::Ack(Fate::Handled);
                    }
                    // The batch is decided again.
                    Ran::Missed(_) => return End::Ack(Fate::Duplicate),
                    Ran::Retry(error) if attempts < retry.attempts => {
                        let open = Entry { attempts, ..self.failed(delivery, entry, State::Open, &error) };
                        self.write(open);
                        return End::Nak { delay: retry.delay(attempts), attempts, error };
                    }
                    Ran::Ahead(error) => match self.ahead(delivery, entry, error) {
                        Ok(end) => return end,
                        Err(failure) => failure,
                    },
                    Ran::Retry(error) => Failure { reason: Reason::Exhausted, error, attempts },
                    Ran::Rejected(reject) => Failure { reason: Reason::Rejected, error: reject.detail, attempts },
                    Ran::TooLarge(error) => Failure { reason: Reason::TooLarge, error, attempts },
                    Ran::Panicked(error) => Failure { reason: Reason::Panic, error, attempts },
                    Ran::Misused(error) => Failure { reason: Reason::Misuse, error, attempts },
                }
            }
        };
        self.park(delivery, entry, &failure);
        End::Parked { reason: failure.reason, error: failure.error }
    }

    /// Lets a message that is ahead of this release come back until its time is over, or until too many do. The first time is written down, and so is
    /// the end of a start; the others leave no trace.
    fn ahead(&mut self, delivery: &Delivery, entry: Option<&Entry>, error: String) -> Result<End, Failure> {
        let since = entry.and_then(|entry| entry.first_failure);
        let over = since.is_some_and(|since| self.now.since(since) >= self.planner.timing.ahead_patience);
        if over || delivery.crowded {
            let attempts = entry.map_or(0, |entry| entry.attempts);
            let error = if over {
                error
            } else {
                format!("{error}, and too many other messages already wait for a newer release")
            };
            return Err(Failure { reason: Reason::Ahead, error, attempts });
        }
        if since.is_none() || entry.is_some_and(|entry| entry.started > 0) {
            let open = self.failed(delivery, entry, State::Open, &error);
            self.write(open);
        }
        Ok(End::Ahead { first: since.is_none(), error })
    }
}
