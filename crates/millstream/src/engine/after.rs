//! After the commit, and never before it: ack messages, answer commands, publish events, run effects.

use std::sync::atomic::Ordering;

use async_nats::jetstream::AckKind;
use fail::fail_point;
use millstream_core::planner::{
    Aftermath, Claimed, CommandFailure, Delivery, End, Ended, Fate, Input, OutcomeInput, Reply,
};

use crate::accepted::CommandError;
use crate::dead_letter::Reason;
use crate::engine::Engine;
use crate::engine::arrival::{Arrival, Receipt};
use crate::engine::publisher::{Done, Job};
use crate::engine::wakes;
use crate::event::{Emitted, Meta};
use crate::progress::Progress;

impl Engine {
    /// Carries out what follows a commit.
    pub(crate) fn after(&mut self, batch: Vec<Arrival>, after: Aftermath) {
        let started = tokio::time::Instant::now();
        self.meters.committed(&batch, &after);
        let Aftermath { ends, emitted, again, emitting, claims, .. } = after;
        self.slots.lock().take(&claims);
        if emitting.is_some() || !again.is_empty() {
            let entries = emitting.unwrap_or_default() + again.len() as u64;
            self.publish(emitted, entries);
        }
        let mut acks = Vec::with_capacity(batch.len());
        let mut answers = Vec::new();
        for (Arrival { input, receipt }, end) in batch.into_iter().zip(ends) {
            trace(&input);
            match (&input, &end) {
                (Input::Message(delivery), end) => log_message(delivery, end),
                (Input::Outcome(outcome), end) => self.note_outcome(outcome, end),
                (Input::Due(due), End::Unfired(error)) => {
                    log_defect(&due.wake.kind, &due.key.id, &due.meta, error, "a timer cannot be fired; retrying");
                }
                _ => {}
            }
            match (receipt, end) {
                (Receipt::Message(message), end) => {
                    let progress = message.in_engine.progress();
                    match &end {
                        End::Ahead { .. } => progress.note_ahead(self.planner.timing.ahead_every * 2),
                        End::Parked { reason: Reason::Ahead, .. } => progress.make_room(),
                        _ => {}
                    }
                    if let Input::Message(delivery) = &input {
                        self.note_handled(delivery, &end, progress);
                    }
                    let kind = match end {
                        End::Nak { delay, .. } => AckKind::Nak(Some(delay)),
                        End::Ahead { .. } => AckKind::Nak(Some(self.planner.timing.ahead_every)),
                        _ => AckKind::Ack,
                    };
                    acks.extend(message.ack(kind));
                }
                (Receipt::Command { answer, .. }, End::Answer(with)) => answers.push((answer, answered(&input, with))),
                (Receipt::Due, _) => {
                    if let Input::Due(due) = &input {
                        self.slots.lock().dequeue(&due.key);
                    }
                }
                _ => {}
            }
        }
        self.acker.send(acks);
        for (answer, with) in answers {
            fail_point!("before_answer");
            // The caller may have given up waiting.
            let _ = answer.send(with);
            fail_point!("after_answer");
        }
        self.meters.stage("ack", started);
        self.start_effects(claims);
    }

    /// Keeps what is handled of a stream, and what of it was acked before the database went back.
    fn note_handled(&self, delivery: &Delivery, end: &End, progress: &Progress) {
        if !matches!(end, End::Ack(_) | End::Parked { .. }) || delivery.redriven.is_some() {
            return;
        }
        progress.note_handled(delivery.seq, delivery.published);
        let unknown = !matches!(end, End::Ack(Fate::Duplicate));
        if unknown && delivery.seq <= progress.reread_to.load(Ordering::Acquire) {
            self.meters.recovered(delivery.stream);
            if progress.recovered.fetch_add(1, Ordering::AcqRel) == 0 {
                tracing::warn!(
                    stream = delivery.stream,
                    sequence = delivery.seq,
                    "a message that had been acked was not in this database, and was handled now: the database is older than \
                     the durable"
                );
            }
        }
    }

    pub(crate) fn start_effects(&self, claims: Vec<Claimed>) {
        for claimed in claims {
            let Some(effect) = self.planner.kinds.effects.get(claimed.wake.kind.as_str()) else { continue };
            let (ends, timeout, telemetry) =
                (self.ends.clone(), self.planner.timing.effect_timeout, self.meters.telemetry.clone());
            wakes::start(self.planner.rules.service, claimed, effect.clone(), ends, timeout, telemetry);
        }
    }

    /// Queues a committed batch for the publisher, also one without events, so that the watermark passes over it.
    pub(crate) fn publish(&self, messages: Vec<Emitted>, entries: u64) {
        let watermark = self.instance.watermark.clone();
        let done = Done::Batch { watermark, batch: self.instance.batch };
        self.outbox.send(Job { messages, entries, done });
    }

    /// Lets the breaker of an effect's kind know how it ended.
    fn note_outcome(&self, outcome: &OutcomeInput, end: &End) {
        let OutcomeInput { key, wake, meta, ended } = outcome;
        let kind = wake.kind.as_str();
        match end {
            End::Outage { why, defect } => {
                if *defect {
                    log_defect(kind, &key.id, meta, why, "an outcome cannot be settled; retrying");
                }
                tracing::info!(
                    kind,
                    document = key.id,
                    attempt = wake.attempt,
                    correlation = wake.correlation,
                    why,
                    "the outcome of an effect is unknown; retrying"
                );
                self.status.unanswered(kind, self.clock.now());
                if self.slots.lock().outage(key, kind) {
                    tracing::warn!(kind, "circuit open: only probes go out until there is an answer");
                }
            }
            // An answer that came too late to be settled is an answer of the outside all the same.
            End::Settled | End::Late if matches!(ended, Ended::Outcome(_)) => {
                self.status.answered(kind);
                if self.slots.lock().answer(kind) {
                    tracing::info!(kind, "circuit closed");
                }
            }
            _ => {}
        }
    }
}

/// What a caller is answered.
fn answered(input: &Input, with: Result<Reply, CommandFailure>) -> Result<Reply, CommandError> {
    with.map_err(|failure| match failure {
        CommandFailure::Rejected(reject) => CommandError::Rejected(reject),
        CommandFailure::KeyReused => CommandError::KeyReused,
        CommandFailure::TooLarge(why) => CommandError::TooLarge(why),
        CommandFailure::Unavailable(why) => CommandError::Unavailable(why),
        CommandFailure::OutcomeUnknown => CommandError::OutcomeUnknown,
        CommandFailure::Defect(error) => {
            let correlation = if let Input::Command(command) = input { &command.meta.correlation } else { "" };
            tracing::error!(correlation, error, "a command panicked");
            CommandError::Panicked
        }
    })
}

fn log_defect(kind: &str, document: &str, meta: &Meta, error: &str, what: &str) {
    tracing::error!(kind, document, correlation = meta.correlation, error, "{what}");
}

/// Logs what did not go well with a message.
fn log_message(delivery: &Delivery, end: &End) {
    let (event, event_id, correlation) = (delivery.event, delivery.id, &delivery.meta.correlation);
    match end {
        End::Nak { attempts, error, .. } => {
            tracing::info!(event, %event_id, correlation, attempts, error, "a message failed and will be retried");
        }
        End::Ahead { first: true, error } => {
            tracing::warn!(event, %event_id, correlation, error, "a message waits for a newer release");
        }
        End::Parked { reason, error } => {
            let reason = reason.name();
            tracing::error!(event, %event_id, correlation, reason, error, "a message is parked as a dead letter");
        }
        _ => {}
    }
}

/// What every input leaves in the log, so that one correlation id finds all that a request has set off, in every service.
fn trace(input: &Input) {
    let (source, event, meta) = match input {
        Input::Message(delivery) => ("event", delivery.event, &delivery.meta),
        Input::Command(command) => ("command", "", &command.meta),
        Input::Outcome(outcome) => ("outcome", outcome.wake.kind.as_str(), &outcome.meta),
        Input::Due(due) => ("wake", due.wake.kind.as_str(), &due.meta),
    };
    tracing::debug!(
        source,
        event,
        event_id = %meta.id,
        correlation = meta.correlation,
        causation = meta.causation,
        "an input is dealt with"
    );
}
