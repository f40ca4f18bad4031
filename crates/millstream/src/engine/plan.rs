//! Load and handle: from inputs, documents and the journal to what one commit writes and what follows it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;

use crate::commands::{CommandError, Done as Accepted};
use crate::dead_letter::Reason;
use crate::engine::Engine;
use crate::engine::input::{CommandInput, Delivery, Idempotency, Input};
use crate::engine::journal::Failure;
use crate::engine::wakes::Claimed;
use crate::event::{Emitted, Meta};
use crate::handler::{Fault, Key};
use crate::ids::{Id, Timestamp};
use crate::store::{Entry, IdempotencyKey, KeyHash, Loaded, State, StoreError, Wanted};
use crate::unit::{Context, Count, Ran, Unit, Unread, run};
use crate::view::View;

/// The journal entries that answer or accompany a batch.
pub(crate) type Journal = HashMap<Id, Entry>;

/// What one commit writes, and what follows it for each input.
pub(crate) struct Plan {
    pub(crate) now: Timestamp,
    pub(crate) view: View,
    pub(crate) entries: Vec<Entry>,
    pub(crate) keys: Vec<IdempotencyKey>,
    pub(crate) emitted: Vec<Emitted>,
    /// Outcomes of redrives that are told again: committed with an earlier batch, they are published after this one.
    pub(crate) again: Vec<Emitted>,
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
    /// A message comes back until a newer release takes it; whether this is the first time.
    Ahead { first: bool, error: String },
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
        let mut docs: Vec<Key> = batch.iter().flat_map(|input| input.touches(&self.rules)).collect();
        docs.sort_unstable();
        docs.dedup();
        let again = |input: &&Input| match input {
            Input::Message(delivery) => {
                ask || delivery.delivered > 1 || delivery.redriven.is_some() || delivery.source.is_settled(delivery.seq)
            }
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
        let touched = batch.iter().flat_map(|input| input.touches(&self.rules));
        let mut plan = Plan {
            now,
            view: View::new(touched, loaded.docs),
            entries: Vec::with_capacity(batch.len()),
            keys: vec![],
            emitted: vec![],
            again: vec![],
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
        if !delivery.is_to_be_handled(entry) {
            self.tell_again(plan, delivery, entry);
            return End::Ack(Fate::Duplicate);
        }
        let failure = match &delivery.work {
            Err(Unread::Schema(error)) => Failure { reason: Reason::Schema, error: error.clone(), attempts: 0 },
            Err(Unread::Ahead(error)) => match self.ahead(plan, delivery, entry, error.clone()) {
                Ok(end) => return end,
                Err(failure) => failure,
            },
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
                    Ran::Ahead(error) => match self.ahead(plan, delivery, entry, error) {
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
        self.park(plan, delivery, entry, &failure);
        End::Parked { reason: failure.reason, error: failure.error }
    }

    /// Lets a message that is ahead of this release come back until its time is over. The first time is written down, and so is
    /// the end of a start; the others leave no trace.
    fn ahead(
        &self,
        plan: &mut Plan,
        delivery: &Delivery,
        entry: Option<&Entry>,
        error: String,
    ) -> Result<End, Failure> {
        let since = entry.and_then(|entry| entry.first_failure);
        if since.is_some_and(|since| plan.now.since(since) >= self.timing.ahead_patience) {
            let attempts = entry.map_or(0, |entry| entry.attempts);
            return Err(Failure { reason: Reason::Ahead, error, attempts });
        }
        if since.is_none() || entry.is_some_and(|entry| entry.started > 0) {
            let open = self.failed(plan, delivery, entry, State::Open, &error);
            plan.entries.push(open);
        }
        Ok(End::Ahead { first: since.is_none(), error })
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
            Ran::Retry(why) | Ran::Ahead(why) => Err(CommandError::Unavailable(why)),
            Ran::Rejected(reject) => Err(CommandError::Rejected(reject)),
            Ran::TooLarge(why) => Err(CommandError::TooLarge(why)),
            Ran::Panicked(error) => {
                tracing::error!(correlation = command.meta.correlation, error, "a command panicked");
                Err(CommandError::Panicked)
            }
            Ran::Misused(error) => {
                tracing::error!(correlation = command.meta.correlation, error, "a command staged what it must not");
                Err(CommandError::Panicked)
            }
        }
    }

    pub(crate) fn handle(
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
}

pub(crate) fn idempotency(input: &Input) -> Option<Idempotency> {
    match input {
        Input::Command(command) => command.idempotency,
        _ => None,
    }
}
