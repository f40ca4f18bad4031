//! The engine's own metrics: handles made once, used without a look-up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use millstream_core::planner::{Aftermath, Delivery, End, Fate, Input};
use serde::Serialize;
use tokio::time::Instant;

use crate::engine::arrival::{Arrival, MessageReceipt, Receipt};
use crate::engine::status::Silence;
use crate::event::Stream;
use crate::ids::Timestamp;
use crate::store::{CommitError, WakesDue};
use crate::telemetry::{Telemetry, metrics as table};
use millstream_core::hash::HashMap;

pub(crate) struct Meters {
    pub(crate) telemetry: Telemetry,
    group: &'static str,
    stages: HashMap<&'static str, Histogram>,
    batch_sizes: [Histogram; 3],
    sent: HashMap<&'static str, Counter>,
    publish_failed: HashMap<&'static str, Vec<Counter>>,
    operations: HashMap<&'static str, Histogram>,
    consumed: HashMap<&'static str, Counter>,
    events: HashMap<&'static str, EventMeters>,
    unpublished: Gauge,
    unpublished_age: Gauge,
    broker: Gauge,
    store: Gauge,
    missed: Gauge,
    kinds: Vec<&'static str>,
    totals: Totals,
}

/// What an instance has done since its start, as it tells whoever asks over the broker.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    /// Messages by what became of them.
    handled: AtomicU64,
    duplicate: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
    ignored: AtomicU64,
    /// Commands that were answered with a reply.
    commands: AtomicU64,
    /// Attempts that failed: of messages, and of effects.
    errors: AtomicU64,
    /// From taking a message into a batch to its ack, over all messages.
    processing_nanos: AtomicU64,
}

fn add(total: &AtomicU64, more: u64) {
    total.fetch_add(more, Ordering::Relaxed);
}

struct EventMeters {
    handled: Counter,
    duplicate: Counter,
    retried: Counter,
    dead_lettered: Counter,
    age: Histogram,
    /// By [`table::PROCESS_ERRORS`].
    process: Option<[Histogram; 3]>,
    nak: Counter,
    unacked: Counter,
}

impl Meters {
    pub(crate) fn new(
        telemetry: Telemetry,
        publishes: &[Stream],
        reads: &[Stream],
        events: &[&'static str],
        effects: &[&'static str],
        timers: &[&'static str],
    ) -> Self {
        let group = telemetry.service();
        let names = |streams: &[Stream]| streams.iter().map(|stream| (stream.name, stream.domain)).collect::<Vec<_>>();
        telemetry.declare_service(&crate::telemetry::Labels {
            group,
            publishes: &names(publishes),
            reads: &names(reads),
            events,
            effects,
            timers,
        });
        let stages = ["drain", "load", "handle", "commit", "publish", "ack", "wake"];
        let sent = |stream: &Stream, error: &str| {
            let template = table::stream_template(stream.domain);
            telemetry.counter(&table::SENT, &[table::SYSTEM, "publish", stream.name, &template, error])
        };
        let consumed = |stream: &Stream| {
            let template = table::stream_template(stream.domain);
            telemetry.counter(&table::CONSUMED, &[table::SYSTEM, "fetch", stream.name, &template, group, ""])
        };
        let event = |event: &'static str| {
            let outcome = |outcome| telemetry.counter(&table::MESSAGES, &[event, outcome]);
            let known = event != table::UNKNOWN_EVENT;
            let template = table::event_template(event);
            EventMeters {
                handled: outcome("handled"),
                duplicate: outcome("duplicate"),
                retried: outcome("retried"),
                dead_lettered: outcome("dead_lettered"),
                age: telemetry.histogram(&table::EVENT_AGE, &[event]),
                process: known.then(|| {
                    let process = |error| telemetry.histogram(&table::PROCESS_DURATION, &[&template, group, error]);
                    ["", "retried", "dead_lettered"].map(process)
                }),
                nak: telemetry.counter(&table::REDELIVERIES, &[event, "nak"]),
                unacked: telemetry.counter(&table::REDELIVERIES, &[event, "unacked"]),
            }
        };
        let with_unknown = events.iter().copied().chain((!reads.is_empty()).then_some(table::UNKNOWN_EVENT));
        Self {
            group,
            stages: stages.into_iter().map(|stage| (stage, telemetry.histogram(&table::STAGE, &[stage]))).collect(),
            batch_sizes: ["event", "command", "wake"].map(|source| telemetry.histogram(&table::BATCH_SIZE, &[source])),
            sent: publishes.iter().map(|stream| (stream.domain, sent(stream, ""))).collect(),
            publish_failed: table::BROKER_ERRORS[1..]
                .iter()
                .map(|error| (*error, publishes.iter().map(|stream| sent(stream, error)).collect()))
                .collect(),
            operations: ["publish", "fetch", "ack"]
                .into_iter()
                .map(|operation| (operation, telemetry.histogram(&table::OPERATION_DURATION, &[operation, ""])))
                .collect(),
            consumed: reads.iter().map(|stream| (stream.name, consumed(stream))).collect(),
            events: with_unknown.map(|name| (name, event(name))).collect(),
            unpublished: telemetry.gauge(&table::UNPUBLISHED, &[]),
            unpublished_age: telemetry.gauge(&table::UNPUBLISHED_AGE, &[]),
            broker: telemetry.gauge(&table::BROKER_CONNECTED, &[]),
            store: telemetry.gauge(&table::STORE_UP, &[]),
            missed: telemetry.gauge(&table::REPLICAS_MISSED, &[]),
            kinds: effects.iter().chain(timers).copied().collect(),
            totals: Totals::default(),
            telemetry,
        }
    }

    /// Time spent in a stage of the loop.
    pub(crate) fn stage(&self, stage: &'static str, since: Instant) {
        if let Some(histogram) = self.stages.get(stage) {
            histogram.record(since.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn received(&self, stream: &str) {
        if let Some(counter) = self.consumed.get(stream) {
            counter.increment(1);
        }
    }

    pub(crate) fn published(&self, subject: &str) {
        let domain = subject.split('.').next().unwrap_or_default();
        if let Some(counter) = self.sent.get(domain) {
            counter.increment(1);
        }
    }

    /// Publishing is held up, for one of [`table::BROKER_ERRORS`].
    pub(crate) fn publish_failed(&self, error: &str) {
        for counter in self.publish_failed.get(error).into_iter().flatten() {
            counter.increment(1);
        }
    }

    /// So many messages were trimmed from a stream.
    pub(crate) fn trimmed(&self, stream: &str, messages: u64) {
        self.telemetry.counter(&table::TRIMMED, &[stream]).increment(messages);
    }

    /// Whether trimming is held up.
    /// Messages that were no longer there when they were to be read.
    pub(crate) fn gone(&self, stream: &str, messages: u64) {
        self.telemetry.counter(&table::GONE, &[stream]).increment(messages);
    }

    /// A message that the broker had lost was published again.
    pub(crate) fn republished(&self, stream: &str) {
        self.telemetry.counter(&table::REPUBLISHED, &[stream]).increment(1);
    }

    /// A stream has lost more than the journal can fill.
    pub(crate) fn unfilled(&self, stream: &str) {
        self.telemetry.counter(&table::UNFILLED, &[stream]).increment(1);
    }

    /// A message that had been acked was read again and handled.
    pub(crate) fn recovered(&self, stream: &str) {
        self.telemetry.counter(&table::RECOVERED, &[stream]).increment(1);
    }

    pub(crate) fn trim_held(&self, stream: &str, held: bool) {
        self.telemetry.gauge(&table::TRIM_HELD, &[stream]).set(f64::from(u8::from(held)));
    }

    /// An exchange with the broker is over: publish, fetch or ack.
    pub(crate) fn exchanged(&self, operation: &str, since: Instant) {
        if let Some(histogram) = self.operations.get(operation) {
            histogram.record(since.elapsed().as_secs_f64());
        }
    }

    /// A message of a type that is ignored was acked.
    pub(crate) fn ignored(&self, event: &'static str) {
        add(&self.totals.ignored, 1);
        self.telemetry.counter(&table::MESSAGES, &[event, "ignored"]).increment(1);
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    fn effect_ran(&self, kind: &str, outcome: &'static str, took: Duration) {
        self.telemetry.counter(&table::EFFECTS, &[kind, outcome]).increment(1);
        self.telemetry.histogram(&table::EFFECT_DURATION, &[kind, outcome]).record(took.as_secs_f64());
    }

    /// Each attempt makes a wake due later, so a kind whose outside does not answer is overdue for as long as that lasts.
    pub(crate) fn wakes_due(&self, due: &[WakesDue], silences: &BTreeMap<String, Silence>, now: Timestamp) {
        for kind in &self.kinds {
            let found = due.iter().find(|due| due.kind == *kind && due.due > 0);
            let oldest = [found.map(|due| due.oldest), silences.get(*kind).map(|silence| silence.since)];
            let overdue = oldest.into_iter().flatten().min().map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
            self.telemetry.gauge(&table::WAKES_DUE, &[kind]).set(found.map_or(0.0, |due| due.due as f64));
            self.telemetry.gauge(&table::WAKE_OVERDUE, &[kind]).set(overdue);
        }
    }

    pub(crate) fn unanswered<'a>(
        &self,
        effects: impl Iterator<Item = &'a &'static str>,
        silences: &BTreeMap<String, Silence>,
        now: Timestamp,
    ) {
        for kind in effects {
            let seconds = silences.get(*kind).map_or(0.0, |silence| now.since(silence.since).as_secs_f64());
            self.telemetry.gauge(&table::EFFECTS_UNANSWERED, &[kind]).set(seconds);
        }
    }

    pub(crate) fn conflict(&self, error: &CommitError) {
        let kind = match error {
            CommitError::Version => "version",
            CommitError::Duplicate => "duplicate",
            CommitError::Busy | CommitError::Fenced => "transient",
            CommitError::Away(_) | CommitError::Unknown(_) => return,
        };
        self.telemetry.counter(&table::CONFLICTS, &[kind]).increment(1);
    }

    /// What the gauges show: looked at now and then, not with each change.
    pub(crate) fn levels(&self, broker: bool, store: bool, unpublished: u64, oldest: Duration, missed: usize) {
        self.broker.set(f64::from(u8::from(broker)));
        self.store.set(f64::from(u8::from(store)));
        self.unpublished.set(unpublished as f64);
        self.unpublished_age.set(oldest.as_secs_f64());
        self.missed.set(missed as f64);
    }

    /// Counts what a commit has made true.
    pub(crate) fn committed(&self, batch: &[Arrival], plan: &Aftermath) {
        let mut sizes = [0_u32; 3];
        for (Arrival { input, receipt }, end) in batch.iter().zip(&plan.ends) {
            match input {
                Input::Message(delivery) => {
                    sizes[0] += 1;
                    if let Receipt::Message(receipt) = receipt {
                        self.message(delivery, receipt, end, plan.now);
                    }
                }
                Input::Command(_) => {
                    sizes[1] += 1;
                    add(&self.totals.commands, u64::from(matches!(end, End::Answer(Ok(_)))));
                }
                Input::Outcome(outcome) => {
                    sizes[2] += 1;
                    let ended = match end {
                        End::Settled => "settled",
                        End::Outage { .. } => {
                            add(&self.totals.errors, 1);
                            "outage"
                        }
                        End::Late => "lease_lost",
                        _ => continue,
                    };
                    if let Receipt::Effect(took) = receipt {
                        self.effect_ran(&outcome.wake.kind, ended, *took);
                    }
                }
                Input::Due(_) => sizes[2] += 1,
            }
        }
        for (size, histogram) in sizes.into_iter().zip(&self.batch_sizes) {
            if size > 0 {
                histogram.record(f64::from(size));
            }
        }
        if plan.misses > 0 {
            self.telemetry.counter(&table::LOAD_MISSES, &[]).increment(plan.misses.into());
        }
        for count in &plan.counts {
            self.telemetry.record(count.metric, count.labels, count.value);
        }
    }

    fn message(&self, delivery: &Delivery, receipt: &MessageReceipt, end: &End, now: Timestamp) {
        let totals = &self.totals;
        let total = match end {
            End::Ack(Fate::Duplicate) => &totals.duplicate,
            End::Parked { .. } => &totals.dead_lettered,
            End::Nak { .. } | End::Ahead { .. } => &totals.retried,
            _ => &totals.handled,
        };
        add(total, 1);
        add(&totals.errors, u64::from(!matches!(end, End::Ack(_))));
        add(&totals.processing_nanos, u64::try_from(receipt.received.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let Some(event) = self.events.get(delivery.event) else { return };
        let mut asked_for = false;
        let mut failed = 0;
        match end {
            End::Ack(Fate::Handled) => {
                event.handled.increment(1);
                event.age.record(now.since(delivery.meta.time).as_secs_f64());
            }
            End::Ack(Fate::Duplicate) => event.duplicate.increment(1),
            End::Parked { reason, .. } => {
                failed = 2;
                event.dead_lettered.increment(1);
                self.telemetry.counter(&table::DEAD_LETTERED, &[delivery.event, reason.name()]).increment(1);
            }
            End::Nak { .. } | End::Ahead { .. } => {
                (asked_for, failed) = (true, 1);
                event.retried.increment(1);
            }
            _ => {}
        }
        if asked_for {
            event.nak.increment(1);
        } else if delivery.delivered > 1 {
            event.unacked.increment(1);
        }
        match &event.process {
            Some(process) => process[failed].record(receipt.received.elapsed().as_secs_f64()),
            None => tracing::debug!(group = self.group, "a message of an unknown type"),
        }
    }
}
