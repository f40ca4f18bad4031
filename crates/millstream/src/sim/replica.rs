//! One process of a service in the simulation: the shell around the planner, a step at a time, so that it can be killed between
//! any two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use millstream_core::planner::{
    Aftermath, Claimed, Decision, DueInput, End, Ended, Facts, Input, Leases, Missed, OutcomeInput, Slots, Suspects,
    Write,
};

use crate::event::{Emitted, header};
use crate::handler::Outage;
use crate::ids::{Id, Timestamp};
use crate::sim::app::App;
use crate::sim::broker::{Ack, AckToken, PublishError, SimBroker};
use crate::sim::tails::{Place, Tails, streams};
use crate::store::{Batch, CommitError, Published, Settled, Wanted};
use crate::unit::{outcome_meta, panic_text};
use millstream_core::hash::{HashMap, HashSet};

/// What a process knows; all of it is lost when it is killed.
pub(super) struct Replica {
    pub(super) instance: Id,
    /// The number of the last batch with entries.
    pub(super) batch: u64,
    pub(super) watermark: u64,
    /// How far its clock is off, in milliseconds.
    pub(super) skew_ms: i64,
    /// When it started, by the world's clock.
    pub(super) started: u64,
    pub(super) marks: BTreeMap<&'static str, Settled>,
    /// Prefetched, in order.
    pub(super) inbox: VecDeque<Arrival>,
    /// Batches that wait for the one in hand.
    rest: VecDeque<Vec<Arrival>>,
    hand: Option<Hand>,
    /// What is still to be carried out after the last commit.
    after: VecDeque<Step>,
    pub(super) outbox: VecDeque<Job>,
    /// Effects that run.
    pub(super) running: Vec<Claimed>,
    slots: Slots,
    leases: Leases,
    begun: HashSet<Id>,
    /// Rows of other instances as last seen, and since when.
    pub(super) seen: HashMap<Id, (u64, u64)>,
    tails: Tails,
    /// In which connection its durables were declared.
    pub(super) connection: u64,
}

pub(super) struct Arrival {
    pub(super) input: Input,
    pub(super) receipt: Receipt,
}

/// Whom the end of an input concerns.
pub(super) enum Receipt {
    /// By what it is acked, and in which connection it came: a later one may be to an earlier state of the broker, where the ack
    /// would be of another message.
    Message(AckToken, u64),
    /// A call by its number.
    Call(usize),
    Effect,
    Due,
}

/// A batch in hand.
struct Hand {
    batch: Vec<Arrival>,
    recheck: bool,
    conflicts: u32,
    stage: Stage,
}

enum Stage {
    Drained,
    /// Starts are to be committed.
    Starts(Facts, Suspects),
    Decided(Write, Aftermath),
    /// Only the journal can tell whether the commit of these ids, under this number, has happened.
    Unknown {
        ids: Vec<Id>,
        instance: Id,
        number: u64,
        then: Box<Stage>,
    },
}

/// What is carried out one by one after a commit.
enum Step {
    Publish(Job),
    Ack(AckToken, u64, Ack),
    Answer(usize, End),
    Run(Claimed),
}

/// Messages to publish.
pub(super) struct Job {
    messages: VecDeque<Emitted>,
    instance: Id,
    batch: u64,
    /// Set for what a dead instance has left: its row, deleted in the end, and up to which batch that is.
    sweeps: Option<(Id, u64, u64)>,
}

/// How the next commit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fortune {
    Fine,
    Busy,
    /// The store is away, and nothing was committed.
    Away,
    /// The store is away, and it was committed.
    Unseen,
    /// The store is away, it was not committed, and the store could not say so.
    Unsaid,
}

/// What a step has come to, for the world.
pub(super) enum Done {
    Nothing,
    Acked(AckToken, u64, Ack),
    Answered(usize, End),
}

impl Replica {
    pub(super) fn start(app: &mut App, now: u64, id: Id, skew_ms: i64) -> Self {
        let skewed = Timestamp::from_millis(now.saturating_add_signed(skew_ms));
        insert(app, id, skewed);
        let timing = &app.planner.timing;
        Self {
            instance: id,
            batch: 0,
            watermark: 0,
            skew_ms,
            started: now,
            marks: BTreeMap::new(),
            inbox: VecDeque::new(),
            rest: VecDeque::new(),
            hand: None,
            after: VecDeque::new(),
            outbox: VecDeque::new(),
            running: vec![],
            slots: Slots::new(timing.effect_slots, timing.effect_gate),
            leases: Leases::default(),
            begun: HashSet::default(),
            seen: HashMap::default(),
            tails: Tails::default(),
            connection: 0,
        }
    }

    pub(super) fn clock(&self, now: u64) -> Timestamp {
        Timestamp::from_millis(now.saturating_add_signed(self.skew_ms))
    }

    /// Whether it has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.inbox.is_empty() && !self.is_busy() && self.outbox.is_empty() && self.running.is_empty()
    }

    /// Whether a batch is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.hand.is_some() || !self.rest.is_empty() || !self.after.is_empty()
    }

    /// Deliveries that it holds.
    pub(super) fn holds_messages(&self) -> bool {
        self.inbox.iter().any(|arrival| matches!(arrival.receipt, Receipt::Message(..))) || self.is_busy()
    }

    /// One step of the loop. `take` says how many inputs a fresh batch takes at most.
    pub(super) fn step(&mut self, app: &mut App, now: u64, take: usize, fortune: Fortune) -> Done {
        if let Some(step) = self.after.pop_front() {
            return self.carry_out(step);
        }
        if self.hand.is_none() {
            let batch = self.rest.pop_front().unwrap_or_else(|| {
                self.begun.clear();
                let mut batch: Vec<Arrival> = self.inbox.drain(..take.min(self.inbox.len())).collect();
                batch.sort_by_key(|arrival| arrival.input.rank());
                for arrival in &batch {
                    if let Input::Outcome(outcome) = &arrival.input {
                        self.slots.release(&outcome.key);
                    }
                }
                batch
            });
            if !batch.is_empty() {
                let recheck = now < self.started + 60_000;
                self.hand = Some(Hand { batch, recheck, conflicts: 0, stage: Stage::Drained });
            }
            return Done::Nothing;
        }
        self.advance(app, now, fortune);
        Done::Nothing
    }

    fn carry_out(&mut self, step: Step) -> Done {
        match step {
            Step::Publish(job) => self.outbox.push_back(job),
            Step::Ack(token, connection, ack) => return Done::Acked(token, connection, ack),
            Step::Answer(call, end) => return Done::Answered(call, end),
            Step::Run(claimed) => self.running.push(claimed),
        }
        Done::Nothing
    }

    fn advance(&mut self, app: &mut App, now: u64, fortune: Fortune) {
        let Some(mut hand) = self.hand.take() else { return };
        match std::mem::replace(&mut hand.stage, Stage::Drained) {
            Stage::Drained => self.load(app, now, hand),
            Stage::Starts(facts, suspects) => {
                let write = suspects.write(self.clock(now));
                self.commit(app, now, hand, write, Stage::Starts(facts, suspects), fortune);
            }
            Stage::Decided(write, after) => {
                if write.is_empty() {
                    return self.finish(app, hand, after);
                }
                let then = Stage::Decided(Write::default(), after);
                self.commit(app, now, hand, write, then, fortune);
            }
            Stage::Unknown { ids, instance, number, then } => {
                let found = app.store.load(&Wanted { journal: ids, ..Wanted::default() }).journal;
                if found.iter().any(|entry| (entry.instance, entry.batch) == (instance, number)) {
                    self.committed(app, now, hand, number, *then);
                } else {
                    self.again(hand, false);
                }
            }
        }
    }

    fn load(&mut self, app: &App, now: u64, mut hand: Hand) {
        for arrival in &mut hand.batch {
            if let Input::Message(delivery) = &mut arrival.input {
                let mark = self.marks.get(delivery.stream);
                delivery.settled = mark.is_some_and(|mark| mark.covers(delivery.seq, delivery.published));
            }
        }
        let inputs: Vec<&Input> = hand.batch.iter().map(|arrival| &arrival.input).collect();
        let wanted = app.planner.wanted(&inputs, hand.recheck);
        let asked = wanted.docs.clone();
        let mut facts = Facts::new(asked, app.store.load(&wanted));
        if let Some(originals) = facts.originals() {
            facts.learn_entries(app.store.load(&originals).journal);
        }
        let suspects = app.planner.suspects(&inputs, &facts, &self.begun, self.clock(now));
        drop(inputs);
        let alone: Vec<Vec<Arrival>> =
            suspects.alone.iter().rev().map(|index| vec![hand.batch.remove(*index)]).collect();
        self.rest.extend(alone.into_iter().rev());
        if hand.batch.is_empty() {
            return;
        }
        if suspects.starts.is_empty() {
            self.decide(app, now, hand, facts, &suspects);
        } else {
            hand.stage = Stage::Starts(facts, suspects);
            self.hand = Some(hand);
        }
    }

    fn decide(&mut self, app: &App, now: u64, mut hand: Hand, mut facts: Facts, suspects: &Suspects) {
        let inputs: Vec<&Input> = hand.batch.iter().map(|arrival| &arrival.input).collect();
        let at = self.clock(now);
        let Decision { write, after } = loop {
            match app.planner.decide(&inputs, &facts, &suspects.doomed, &self.slots, at) {
                Ok(decision) => break decision,
                Err(Missed(_)) if facts.miss_too_often(&inputs) => {
                    hand.conflicts = 2;
                    return self.again(hand, false);
                }
                Err(Missed(keys)) => {
                    let wanted = facts.wanted_after(&keys);
                    let found = app.store.load(&wanted).docs;
                    facts.learn_documents(wanted.docs, found);
                }
            }
        };
        hand.stage = Stage::Decided(write, after);
        self.hand = Some(hand);
    }

    fn commit(&mut self, app: &mut App, now: u64, mut hand: Hand, write: Write, then: Stage, fortune: Fortune) {
        let batch = write.into_batch(self.instance, self.batch, self.watermark);
        let number = batch.batch;
        let unknown = |then| {
            let ids = batch.journal.iter().map(|entry| entry.id).collect();
            Stage::Unknown { ids, instance: batch.instance, number, then: Box::new(then) }
        };
        match fortune {
            Fortune::Busy | Fortune::Away => return self.again(hand, false),
            Fortune::Unsaid => {
                hand.stage = unknown(then);
                self.hand = Some(hand);
                return;
            }
            Fortune::Fine | Fortune::Unseen => {}
        }
        match app.store.commit(&batch) {
            Ok(()) if fortune == Fortune::Unseen => {
                hand.stage = unknown(then);
                self.hand = Some(hand);
            }
            Ok(()) => self.committed(app, now, hand, number, then),
            Err(CommitError::Version | CommitError::Duplicate) => self.again(hand, true),
            Err(CommitError::Fenced) => {
                self.enroll(app, now);
                self.again(hand, false);
            }
            Err(_) => self.again(hand, false),
        }
    }

    /// Takes a new id after the row was swept.
    fn enroll(&mut self, app: &mut App, now: u64) {
        let id = Id::derived(self.clock(now), "sim", self.instance.bytes(), 1);
        insert(app, id, self.clock(now));
        (self.instance, self.batch, self.watermark) = (id, 0, 0);
    }

    fn committed(&mut self, app: &mut App, now: u64, hand: Hand, number: u64, then: Stage) {
        self.batch = number;
        match then {
            Stage::Starts(mut facts, suspects) => {
                self.begun.extend(suspects.starts.iter().map(|start| start.id));
                facts.learn_entries(suspects.starts.iter().cloned());
                self.outbox.push_back(self.job(vec![]));
                self.decide(app, now, hand, facts, &suspects);
            }
            Stage::Decided(_, after) => self.finish(app, hand, after),
            Stage::Drained | Stage::Unknown { .. } => {}
        }
    }

    fn job(&self, messages: Vec<Emitted>) -> Job {
        Job { messages: messages.into(), instance: self.instance, batch: self.batch, sweeps: None }
    }

    /// Nothing of the attempt is kept.
    fn again(&mut self, mut hand: Hand, contended: bool) {
        hand.stage = Stage::Drained;
        hand.recheck = true;
        hand.conflicts += u32::from(contended);
        if hand.conflicts >= 2 && hand.batch.len() > 1 {
            let second = hand.batch.split_off(hand.batch.len().div_ceil(2));
            self.rest.push_front(second);
            hand.conflicts = 0;
        }
        self.hand = Some(hand);
    }

    fn finish(&mut self, app: &mut App, hand: Hand, after: Aftermath) {
        let Aftermath { ends, emitted, again, emitting, counts, claims, .. } = after;
        for count in counts {
            *app.counts.entry((count.metric.name, count.labels)).or_default() += count.value;
        }
        self.slots.take(&claims);
        if emitting.is_some() || !again.is_empty() {
            self.after.push_back(Step::Publish(self.job(emitted)));
        }
        for (Arrival { input, receipt }, end) in hand.batch.into_iter().zip(ends) {
            match (receipt, &input) {
                (Receipt::Message(token, connection), _) => {
                    let ack = match end {
                        End::Nak { delay, .. } => nak(delay),
                        End::Ahead { .. } => nak(app.planner.timing.ahead_every),
                        _ => Ack::Ack,
                    };
                    self.after.push_back(Step::Ack(token, connection, ack));
                }
                (Receipt::Call(call), _) => self.after.push_back(Step::Answer(call, end)),
                (Receipt::Effect, Input::Outcome(outcome)) => match end {
                    End::Outage { .. } => drop(self.slots.outage(&outcome.key, &outcome.wake.kind)),
                    End::Settled | End::Late if matches!(outcome.ended, Ended::Outcome(_)) => {
                        self.slots.answer(&outcome.wake.kind);
                    }
                    _ => {}
                },
                (Receipt::Due, Input::Due(due)) => self.slots.dequeue(&due.key),
                _ => {}
            }
        }
        self.after.extend(claims.into_iter().map(Step::Run));
    }

    /// Publishes the next message, or finishes a job. `lost` says that the broker's ack does not arrive: the message is sent again.
    pub(super) fn publish(&mut self, app: &mut App, broker: &mut SimBroker, now: u64, lost: bool, connection: u64) {
        let at = self.clock(now);
        let Some(job) = self.outbox.front_mut() else { return };
        if let Some(message) = job.messages.front() {
            let Emitted { subject, headers, payload } = message.clone();
            let out = match broker.publish(now, &subject, headers, payload) {
                // Its place in the record was taken by an operator.
                Err(PublishError::WrongLastSequence(last)) => last > 0,
                Ok(ack) if !lost => {
                    self.tails.note(&ack, &message.header(header::MSG_ID).unwrap_or_default());
                    true
                }
                _ => false,
            };
            if out {
                job.messages.pop_front();
            }
        }
        if !job.messages.is_empty() {
            return;
        }
        if let Some((row, version, through)) = job.sweeps {
            if self.tails.settle(&mut Place { app, broker, now, at, connection }, row, through) {
                app.store.delete_instance(row, version);
            }
        } else if job.instance == self.instance {
            self.watermark = job.batch;
        }
        self.outbox.pop_front();
    }

    /// Writes the watermark, and shows that this instance lives.
    pub(super) fn heartbeat(&mut self, app: &mut App, now: u64) {
        let batch = Batch {
            instance: self.instance,
            batch: self.batch,
            published_through: self.watermark,
            docs: vec![],
            journal: vec![],
            keys: vec![],
            now: self.clock(now),
        };
        if app.store.commit(&batch) == Err(CommitError::Fenced) {
            self.enroll(app, now);
        }
    }

    /// Looks whether the broker still has what it has acknowledged.
    pub(super) fn look_at_tails(&mut self, app: &mut App, broker: &mut SimBroker, now: u64, connection: u64) {
        let own = self.outbox.iter().filter(|job| job.sweeps.is_none()).flat_map(|job| &job.messages);
        let waiting: BTreeSet<_> = own.filter_map(|message| message.header(header::MSG_ID)).collect();
        let mut place = Place { app, broker, now, at: self.clock(now), connection };
        self.tails.tick(&mut place, self.instance, self.watermark, &waiting);
    }

    /// Looks for instances that have died, and publishes what they have left.
    pub(super) fn sweep_instances(&mut self, app: &App, now: u64) {
        let dead_after = millis(app.planner.timing.dead_after);
        let rows = app.store.instances();
        self.seen.retain(|id, _| rows.iter().any(|row| row.id == *id));
        for row in rows {
            let (version, since) = *self.seen.entry(row.id).or_insert((row.version, now));
            if version != row.version {
                self.seen.insert(row.id, (row.version, now));
            } else if now.saturating_sub(since) >= dead_after
                && !self.outbox.iter().any(|job| job.sweeps.is_some_and(|(id, ..)| id == row.id))
            {
                let left = app.store.unpublished(row.id, row.published_through, usize::MAX);
                let messages = left.iter().flat_map(|entry| Emitted::unpack(&entry.emitted).unwrap_or_default());
                let through = left.last().map_or(row.published_through, |entry| entry.batch);
                let sweeps = Some((row.id, row.version, through));
                self.outbox.push_back(Job { sweeps, ..self.job(messages.collect()) });
            }
        }
    }

    /// Looks for due wakes.
    pub(super) fn sweep_wakes(&mut self, app: &App, now: u64, timers_may_fire: bool) {
        let at = self.clock(now);
        let kinds = &app.planner.kinds;
        let mut effects: Vec<&'static str> = kinds.effects.keys().copied().collect();
        effects.sort_unstable();
        let mut found = Vec::new();
        for kind in effects {
            let limit =
                if self.slots.is_tripped(kind) { usize::from(!self.slots.probes(kind)) } else { self.slots.free() };
            let limit = limit + self.leases.watched();
            found.extend(app.store.due_wakes(&[kind], at, limit));
        }
        if timers_may_fire {
            let mut timers: Vec<&'static str> = kinds.timers.keys().copied().collect();
            timers.sort_unstable();
            found.extend(app.store.due_wakes(&timers, at, 256));
        }
        // A process that is left alone does not notice how time goes by; its clock does.
        let (elapsed, patience) = (Duration::from_millis(now), app.planner.timing.effect_timeout * 2);
        self.leases.forget(elapsed, patience);
        for doc in found {
            let Some(wake) = doc.wake else { continue };
            if !self.leases.has_run_out(&doc.key, &wake, elapsed, patience) || !self.slots.queue(&doc.key) {
                continue;
            }
            let fires = kinds.timers.get(wake.kind.as_str()).map(|timer| timer.clone().fire(doc.key.id.clone()));
            let meta = outcome_meta(app.name, &doc.key, &wake);
            let input = Input::Due(Box::new(DueInput { key: doc.key, wake, meta, fires }));
            self.inbox.push_back(Arrival { input, receipt: Receipt::Due });
        }
    }

    /// Runs an effect to its end. `lost` says that its outcome does not arrive, although it has happened.
    pub(super) fn run_effect(&mut self, app: &App, index: usize, lost: bool) {
        let Claimed { key, wake, document, shape } = self.running.remove(index);
        let Some(effect) = app.planner.kinds.effects.get(wake.kind.as_str()) else { return };
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut run = pin!(effect.clone().run(&document, shape, wake.clone()));
            run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        }));
        let outcome = match ran {
            Ok(Poll::Ready(outcome)) => outcome,
            Ok(Poll::Pending) => Err(Outage::new("no answer")),
            Err(panic) => Err(Outage::new(panic_text(&*panic))),
        };
        let ended = match outcome {
            _ if lost => Ended::Outage(Outage::new("the answer was lost")),
            Ok(outcome) => Ended::Outcome(effect.clone().settle(key.id.clone(), outcome)),
            Err(outage) => Ended::Outage(outage),
        };
        let meta = outcome_meta(app.name, &key, &wake);
        let input = Input::Outcome(Box::new(OutcomeInput { key, wake, meta, ended }));
        self.inbox.push_back(Arrival { input, receipt: Receipt::Effect });
    }
}

/// Inserts an instance row, after the first marks.
fn insert(app: &mut App, id: Id, at: Timestamp) {
    for (stream, _) in streams(app) {
        app.store.put_published(Published::enrolled(id, &stream, at));
    }
    app.store.insert_instance(id);
}

fn nak(delay: Duration) -> Ack {
    Ack::Nak(Some(millis(delay)))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
