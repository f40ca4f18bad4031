//! Load and handle: from inputs, documents and the journal to what one commit writes and what follows it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;

use crate::broker::DEAD_LETTER_ROOM;
use crate::commands::{Accepted, CommandError};
use crate::dead_letter::{Parked, Reason};
use crate::engine::Engine;
use crate::engine::input::{CommandInput, Delivery, DueInput, Ended, Idempotency, Input, OutcomeInput};
use crate::engine::wakes::Claimed;
use crate::event::{Emitted, Meta};
use crate::handler::{Fault, Key};
use crate::ids::{Id, Timestamp};
use crate::store::{Entry, IdempotencyKey, KeyHash, Loaded, State, StoreError, Wanted};
use crate::unit::{Context, Count, Ran, Staged, Unit, View, run};

/// The journal entries that answer or accompany a batch.
pub(crate) type Journal = HashMap<Id, Entry>;

/// What one commit writes, and what follows it for each input.
pub(crate) struct Plan {
    pub(crate) now: Timestamp,
    pub(crate) view: View,
    pub(crate) entries: Vec<Entry>,
    pub(crate) keys: Vec<IdempotencyKey>,
    pub(crate) emitted: Vec<Emitted>,
    /// How many of the entries have emitted something; `None` if there are no entries. Known with the commit, which takes them.
    pub(crate) emitting: Option<u64>,
    pub(crate) counts: Vec<Count>,
    pub(crate) claims: Vec<Claimed>,
    /// For each input of the batch, in order.
    pub(crate) ends: Vec<End>,
}

/// What becomes of an input after the commit.
pub(crate) enum End {
    /// A message is done with.
    Ack(Fate),
    /// A message comes back after a delay.
    Nak { delay: Duration, attempts: u32, error: String },
    /// A message is given up; its dead letter is on its way.
    Parked { reason: Reason, error: String },
    /// A command has its answer.
    Answer(Result<Accepted, CommandError>),
    /// An effect's outcome is settled.
    Settled,
    /// An effect's outcome stays unknown.
    Outage(String),
    /// A due wake is claimed or fired, or was dealt with by somebody else.
    Due,
    /// An outcome that came too late: another attempt has settled the wake.
    Late,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Handled,
    Duplicate,
}

impl Engine {
    /// Reads what a batch needs in one query: its documents, the keys of its commands and, when deliveries may be repeats, its
    /// journal entries.
    pub(crate) async fn load(&self, batch: &[Input], ask: bool) -> Result<Loaded, StoreError> {
        let mut docs: Vec<Key> = batch.iter().flat_map(Input::touches).collect();
        docs.sort_unstable();
        docs.dedup();
        let again = |input: &&Input| match input {
            Input::Message(delivery) => ask || delivery.delivered > 1 || delivery.source.is_settled(delivery.seq),
            other => ask && other.journalled(),
        };
        let journal = batch.iter().filter(again).map(Input::id).collect();
        let keys = batch.iter().filter_map(idempotency).map(|key| key.hash).collect();
        let mut loaded = self.store.load(Wanted { docs, journal, keys }).await?;
        let originals: Vec<Id> = loaded.keys.iter().map(|key| key.command).collect();
        if !originals.is_empty() {
            let wanted = Wanted { journal: originals, ..Wanted::default() };
            loaded.journal.extend(self.store.load(wanted).await?.journal);
        }
        Ok(loaded)
    }

    /// Handles a batch in order over one view of its documents.
    pub(crate) fn plan(&self, batch: &[Input], loaded: Loaded, journal: &Journal, doomed: &HashSet<Id>) -> Plan {
        let now = self.clock.now();
        let touched = batch.iter().flat_map(Input::touches);
        let mut plan = Plan {
            now,
            view: View::new(touched, loaded.docs),
            entries: Vec::with_capacity(batch.len()),
            keys: vec![],
            emitted: vec![],
            emitting: None,
            counts: vec![],
            claims: vec![],
            ends: Vec::with_capacity(batch.len()),
        };
        let known: HashMap<KeyHash, IdempotencyKey> =
            loaded.keys.into_iter().filter(|key| key.expires > now).map(|key| (key.hash, key)).collect();
        let mut answered: HashMap<KeyHash, (Idempotency, Accepted)> = HashMap::new();
        for input in batch {
            let end = match input {
                Input::Message(delivery) => self.message(&mut plan, delivery, journal, doomed),
                Input::Command(command) => {
                    End::Answer(self.command(&mut plan, command, &known, &mut answered, journal))
                }
                Input::Outcome(outcome) => self.outcome(&mut plan, outcome),
                Input::Due(due) => self.due(&mut plan, due),
            };
            plan.ends.push(end);
        }
        self.claim_fresh(&mut plan);
        plan
    }

    fn message(&self, plan: &mut Plan, delivery: &Delivery, journal: &Journal, doomed: &HashSet<Id>) -> End {
        let entry = journal.get(&delivery.id);
        if entry.is_some_and(Entry::answers) || (entry.is_none() && delivery.source.is_settled(delivery.seq)) {
            return End::Ack(Fate::Duplicate);
        }
        let failure = match &delivery.work {
            Err(error) => Failure { reason: Reason::Schema, error: error.clone(), attempts: 0 },
            Ok(_) if doomed.contains(&delivery.id) => Failure {
                reason: Reason::Crash,
                error: "the process died each time this message was handled".into(),
                attempts: entry.map_or(0, |entry| entry.attempts),
            },
            Ok(work) => {
                let attempts = entry.map_or(0, |entry| entry.attempts) + 1;
                match self.handle(plan, &delivery.meta, None, |unit| work.handle(unit)) {
                    Ran::Handled { staged, .. } => {
                        self.done(plan, Some(delivery), &delivery.meta, entry, staged, None);
                        return End::Ack(Fate::Handled);
                    }
                    Ran::Retry(error) if attempts < self.timing.message_retry.attempts => {
                        let open = Entry { attempts, ..self.failed(plan, delivery, entry, State::Open, &error) };
                        plan.entries.push(open);
                        return End::Nak { delay: self.timing.message_retry.delay(attempts), attempts, error };
                    }
                    Ran::Retry(error) => Failure { reason: Reason::Exhausted, error, attempts },
                    Ran::Rejected(reject) => Failure { reason: Reason::Rejected, error: reject.detail, attempts },
                    Ran::TooLarge(error) => Failure { reason: Reason::TooLarge, error, attempts },
                    Ran::Panicked(error) => Failure { reason: Reason::Panic, error, attempts },
                }
            }
        };
        self.park(plan, delivery, entry, &failure);
        End::Parked { reason: failure.reason, error: failure.error }
    }

    /// Stages a dead letter: a commit like any other, whose emitted event is the letter.
    fn park(&self, plan: &mut Plan, delivery: &Delivery, entry: Option<&Entry>, failure: &Failure) {
        let Failure { reason, error, attempts } = failure;
        let parked = Entry { attempts: *attempts, ..self.failed(plan, delivery, entry, State::Parked, error) };
        let letter = Parked {
            service: self.rules.service,
            id: delivery.id,
            redrives: parked.redrives,
            reason: *reason,
            error,
            stream: delivery.source.stream,
            seq: delivery.seq,
            subject: &delivery.subject,
            consumer: delivery.source.consumer,
            attempts: *attempts,
            first_failure: parked.first_failure.unwrap_or(plan.now),
            last_failure: plan.now,
            headers: &delivery.wire_headers(),
            payload: delivery.payload.clone(),
        };
        let letter = letter.letter(self.rules.max_message + DEAD_LETTER_ROOM);
        plan.entries.push(Entry { emitted: Emitted::pack(std::slice::from_ref(&letter)).into(), ..parked });
        plan.emitted.push(letter);
    }

    fn command(
        &self,
        plan: &mut Plan,
        command: &CommandInput,
        known: &HashMap<KeyHash, IdempotencyKey>,
        answered: &mut HashMap<KeyHash, (Idempotency, Accepted)>,
        journal: &Journal,
    ) -> Result<Accepted, CommandError> {
        let own = journal.get(&command.id);
        if let Some(entry) = own {
            // An earlier attempt was committed after all. Without a key its reply was not kept.
            let accepted = |reply| Accepted { id: command.id, reply, repeated: false };
            return entry.reply.clone().map(accepted).ok_or(CommandError::OutcomeUnknown);
        }
        if let Some(key) = command.idempotency {
            if let Some((first, accepted)) = answered.get(&key.hash) {
                let repeat = Accepted { repeated: true, ..accepted.clone() };
                return if first.fingerprint == key.fingerprint { Ok(repeat) } else { Err(CommandError::KeyReused) };
            }
            if let Some(first) = known.get(&key.hash) {
                if first.fingerprint != key.fingerprint {
                    return Err(CommandError::KeyReused);
                }
                let reply = journal.get(&first.command).and_then(|entry| entry.reply.clone());
                let reply =
                    reply.ok_or_else(|| CommandError::Unavailable("the first reply is not there yet".into()))?;
                return Ok(Accepted { id: first.command, reply, repeated: true });
            }
        }
        match self.handle(plan, &command.meta, None, |unit| command.work.handle(unit)) {
            Ran::Handled { reply, staged } => {
                let reply = reply.unwrap_or_default();
                let kept = command.idempotency.map(|_| reply.clone());
                self.done(plan, None, &command.meta, None, staged, kept);
                let accepted = Accepted { id: command.id, reply, repeated: false };
                if let Some(key) = command.idempotency {
                    let expires = plan.now + self.timing.key_retention;
                    let Idempotency { hash, fingerprint } = key;
                    plan.keys.push(IdempotencyKey { hash, command: command.id, fingerprint, expires });
                    answered.insert(hash, (key, accepted.clone()));
                }
                Ok(accepted)
            }
            Ran::Retry(why) => Err(CommandError::Unavailable(why)),
            Ran::Rejected(reject) => Err(CommandError::Rejected(reject)),
            Ran::TooLarge(why) => Err(CommandError::TooLarge(why)),
            Ran::Panicked(error) => {
                tracing::error!(correlation = command.meta.correlation, error, "a command panicked");
                Err(CommandError::Panicked)
            }
        }
    }

    fn outcome(&self, plan: &mut Plan, outcome: &OutcomeInput) -> End {
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
                plan.view.set_wake(key, |wake| wake.at = plan.now);
                return End::Due;
            }
            Ended::Outage(outage) => outage.0.clone(),
        };
        let at = plan.now + self.timing.effect_retry.delay(attempt);
        plan.view.set_wake(key, |wake| wake.at = at);
        End::Outage(why)
    }

    fn due(&self, plan: &mut Plan, due: &DueInput) -> End {
        let DueInput { key, wake, meta, fires } = due;
        let Some(standing) = plan.view.wake(key) else { return End::Due };
        let seen = |wake: &crate::handler::WakeInfo| (wake.kind.clone(), wake.generation, wake.attempt);
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
    fn claim_fresh(&self, plan: &mut Plan) {
        if *self.stop.borrow() {
            return;
        }
        let fresh = |(key, wake): (&Key, &crate::handler::WakeInfo)| {
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
        let wake = crate::handler::WakeInfo { attempt, at: plan.now + lease, ..wake };
        if !self.board.claim(key, &wake) {
            return;
        }
        plan.view.set_wake(key, |standing| *standing = wake.clone());
        if let Some((document, shape)) = plan.view.document(key) {
            plan.claims.push(Claimed { key: key.clone(), wake, document, shape });
        }
    }

    fn handle(
        &self,
        plan: &mut Plan,
        meta: &Meta,
        settles: Option<&Key>,
        work: impl FnOnce(&mut Unit<'_>) -> Result<Option<Bytes>, Fault>,
    ) -> Ran {
        let cx = Context { rules: &self.rules, now: plan.now, cause: meta.clone(), settles: settles.cloned() };
        let mut ran = run(&plan.view, &cx, work);
        if let Ran::Handled { staged, .. } = &mut ran {
            plan.view.apply(staged, &cx);
        }
        ran
    }

    fn done(
        &self,
        plan: &mut Plan,
        delivery: Option<&Delivery>,
        meta: &Meta,
        entry: Option<&Entry>,
        staged: Staged,
        reply: Option<Bytes>,
    ) {
        let emitted = Emitted::pack(&staged.emitted).into();
        let fresh = self.entry(plan, meta.id, delivery, State::Done);
        let entry = match entry {
            None => Entry { emitted, reply, ..fresh },
            Some(old) => Entry {
                emitted,
                reply,
                version: old.version + 1,
                state: State::Done,
                started: 0,
                ..stamped(old, &fresh)
            },
        };
        plan.entries.push(entry);
        plan.emitted.extend(staged.emitted);
        plan.counts.extend(staged.counts);
    }

    /// The entry of a message that has failed once more.
    fn failed(&self, plan: &Plan, delivery: &Delivery, entry: Option<&Entry>, state: State, error: &str) -> Entry {
        let fresh = self.entry(plan, delivery.id, Some(delivery), state);
        let base = match entry {
            None => fresh,
            Some(old) => Entry { version: old.version + 1, state, started: 0, ..stamped(old, &fresh) },
        };
        let first_failure = base.first_failure.or(Some(plan.now));
        Entry { error: Some(error.chars().take(300).collect()), first_failure, last_failure: Some(plan.now), ..base }
    }

    /// A fresh entry. Instance and batch are filled in by the commit.
    pub(crate) fn entry(&self, plan: &Plan, id: Id, delivery: Option<&Delivery>, state: State) -> Entry {
        new_entry(id, delivery, state, plan.now, self.instance.id)
    }
}

pub(crate) fn new_entry(id: Id, delivery: Option<&Delivery>, state: State, now: Timestamp, instance: Id) -> Entry {
    Entry {
        id,
        version: 1,
        state,
        attempts: 0,
        started: 0,
        redrives: 0,
        error: None,
        first_failure: None,
        last_failure: None,
        emitted: Bytes::new(),
        reply: None,
        instance,
        batch: 0,
        stream: delivery.map_or(String::new(), |delivery| delivery.source.stream.into()),
        seq: delivery.map_or(0, |delivery| delivery.seq),
        at: now,
    }
}

/// An old entry as written again by this instance at this time, at the place where its message was last seen.
fn stamped(old: &Entry, fresh: &Entry) -> Entry {
    let Entry { stream, seq, at, instance, batch, .. } = fresh.clone();
    Entry { stream, seq, at, instance, batch, emitted: Bytes::new(), ..old.clone() }
}

struct Failure {
    reason: Reason,
    error: String,
    attempts: u32,
}

impl Ran {
    fn error(self) -> String {
        match self {
            Self::Handled { .. } => String::new(),
            Self::Retry(error) | Self::TooLarge(error) | Self::Panicked(error) => error,
            Self::Rejected(reject) => reject.detail,
        }
    }
}

pub(crate) fn idempotency(input: &Input) -> Option<Idempotency> {
    match input {
        Input::Command(command) => command.idempotency,
        _ => None,
    }
}
