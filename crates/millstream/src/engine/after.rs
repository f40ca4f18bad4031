//! After the commit, and never before it: ack messages, answer commands, publish events, run effects.

use async_nats::jetstream::AckKind;
use fail::fail_point;

use crate::engine::Engine;
use crate::engine::input::{Delivery, Ended, Input};
use crate::engine::plan::{End, Plan};
use crate::engine::publisher::{Done, Job};
use crate::engine::wakes::{self, Claimed};
use crate::event::Emitted;
use crate::handler::{Key, Wake};

impl Engine {
    /// Lets the world know what was committed.
    pub(crate) fn after(&mut self, batch: Vec<Input>, plan: Plan) {
        let started = tokio::time::Instant::now();
        self.meters.committed(&batch, &plan);
        if plan.emitting.is_some() || !plan.again.is_empty() {
            let entries = plan.emitting.unwrap_or_default() + plan.again.len() as u64;
            let mut messages = plan.emitted;
            messages.extend(plan.again);
            self.publish(messages, entries);
        }
        let mut acks = Vec::with_capacity(batch.len());
        let mut answers = Vec::new();
        for (input, end) in batch.into_iter().zip(plan.ends) {
            trace(&input);
            match (input, end) {
                (Input::Message(delivery), end) => {
                    let kind = match end {
                        End::Nak { delay, .. } => AckKind::Nak(Some(delay)),
                        End::Ahead { .. } => AckKind::Nak(Some(self.timing.ahead_every)),
                        _ => AckKind::Ack,
                    };
                    tell(&delivery, &end);
                    let twins = delivery.twins.into_iter().filter_map(|twin| twin.reply);
                    acks.extend(delivery.reply.into_iter().chain(twins).map(|reply| (reply, kind)));
                }
                (Input::Command(command), End::Answer(answer)) => answers.push((command.answer, answer)),
                (Input::Command(_), _) => {}
                (Input::Outcome(outcome), end) => {
                    let definite = matches!(outcome.ended, Ended::Outcome(_));
                    self.gate_effects(&outcome.key, &outcome.wake, &end, definite);
                }
                (Input::Due(due), _) => self.board.dequeue(&due.key),
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
        self.start_effects(plan.claims);
    }

    pub(crate) fn start_effects(&self, claims: Vec<Claimed>) {
        for claimed in claims {
            let Some(effect) = self.kinds.wakes.get(claimed.wake.kind.as_str()) else { continue };
            let (ends, timeout, telemetry) =
                (self.ends.clone(), self.timing.effect_timeout, self.meters.telemetry.clone());
            wakes::start(self.rules.service, claimed, effect.clone(), ends, timeout, telemetry);
        }
    }

    /// Queues a committed batch for the publisher, also one without events, so that the watermark passes over it.
    pub(crate) fn publish(&self, messages: Vec<Emitted>, entries: u64) {
        let watermark = self.instance.watermark.clone();
        let done = Done::Batch { watermark, batch: self.instance.batch };
        self.outbox.send(Job { messages, entries, done });
    }

    fn gate_effects(&self, key: &Key, wake: &Wake, end: &End, definite: bool) {
        let kind = wake.kind.as_str();
        match end {
            End::Outage(why) => {
                tracing::info!(
                    kind,
                    document = key.id,
                    attempt = wake.attempt,
                    correlation = wake.correlation,
                    why,
                    "an effect's outcome is unknown; it is tried again"
                );
                if self.board.outage(key, kind) {
                    tracing::warn!(kind, "the outside does not answer: only probes go out until it does");
                }
            }
            // An answer that came too late to be settled is an answer of the outside all the same.
            End::Settled | End::Late if definite && self.board.answer(kind) => {
                tracing::info!(kind, "the outside answers again");
            }
            _ => {}
        }
    }
}

/// Logs what did not go well with a message.
fn tell(delivery: &Delivery, end: &End) {
    let (event, event_id, correlation) = (delivery.event, delivery.id, &delivery.meta.correlation);
    match end {
        End::Nak { attempts, error, .. } => {
            tracing::info!(event, %event_id, correlation, attempts, error, "a message is to be tried again");
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
