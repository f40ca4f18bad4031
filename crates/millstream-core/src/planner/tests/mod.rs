//! The planner's rules, each in a millisecond. Here are a process with its database, and builders of what it is given.

mod commands;
mod journal;
mod leases;
mod messages;
mod misses;
mod rehearsal;
mod service;
mod slots;
mod suspects;
mod wakes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::service::*;
use super::*;
use crate::dead_letter::{self, Reason, STATE};
use crate::event::{Event, Received, Stream};
use crate::handler::{Command, Document, Effect, Handler, Keys, Kind, Outage, Timer, Wake};
use crate::hash::{HashMap, HashSet};
use crate::metric::Metric;
use crate::record::{Batch, Loaded, State, StoredDoc};
use crate::redriven::Redriven;
use crate::retry::Retry;
use crate::unit::{Unread, outcome_meta};
use crate::work::{AnyHandler, CommandWork, HandlerOf, Itself};

const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// A process with its database: the shell around the planner in a few lines, which checks what a store would.
struct World {
    planner: Planner,
    slots: Slots,
    now: Timestamp,
    docs: BTreeMap<Key, StoredDoc>,
    journal: HashMap<Id, Entry>,
    keys: HashMap<KeyHash, IdempotencyKey>,
    batch: u64,
}

impl World {
    fn new() -> Self {
        Self {
            planner: planner(),
            slots: Slots::new(8, 3),
            now: START,
            docs: BTreeMap::new(),
            journal: HashMap::default(),
            keys: HashMap::default(),
            batch: 0,
        }
    }

    fn later(&mut self, by: Duration) {
        self.now = self.now + by;
    }

    fn load(&self, wanted: &Wanted) -> Loaded {
        Loaded {
            docs: wanted.docs.iter().filter_map(|key| self.docs.get(key)).cloned().collect(),
            journal: wanted.journal.iter().filter_map(|id| self.journal.get(id)).cloned().collect(),
            keys: wanted.keys.iter().filter_map(|hash| self.keys.get(hash)).cloned().collect(),
        }
    }

    fn facts(&self, batch: &[&Input]) -> Facts {
        let wanted = self.planner.wanted(batch, true);
        let mut facts = Facts::new(wanted.docs.clone(), self.load(&wanted));
        if let Some(originals) = facts.originals() {
            facts.learn_entries(self.load(&originals).journal);
        }
        facts
    }

    fn decide(&self, batch: &[&Input], doomed: &HashSet<Id>) -> Decision {
        let mut facts = self.facts(batch);
        loop {
            match self.planner.decide(batch, &facts, doomed, &self.slots, self.now) {
                Ok(decision) => return decision,
                Err(Missed(keys)) => {
                    let wanted = facts.wanted_after(&keys);
                    let found = self.load(&wanted);
                    facts.learn_documents(wanted.docs, found.docs);
                }
            }
        }
    }

    fn commit(&mut self, write: Write) -> Batch {
        let batch = write.into_batch(Id::default(), self.batch, 0);
        self.batch = batch.batch;
        for doc in &batch.docs {
            let have = self.docs.get(&doc.key).map(|doc| doc.version);
            assert_eq!(have, doc.expected, "the version of {:?}", doc.key);
            if let Some(new) = doc.write.clone() {
                let (key, version) = (doc.key.clone(), have.unwrap_or(0) + 1);
                let stored = StoredDoc { key: key.clone(), version, shape: new.shape, body: new.body, wake: new.wake };
                self.docs.insert(key, stored);
            }
        }
        for entry in &batch.journal {
            let old = self.journal.insert(entry.id, entry.clone());
            assert_eq!(entry.version, old.map_or(0, |old| old.version) + 1, "the version of the entry {}", entry.id);
        }
        for key in &batch.keys {
            let old = self.keys.insert(key.hash, key.clone());
            assert!(old.is_none_or(|old| old.expires <= self.now), "an idempotency key is there already");
        }
        batch
    }

    /// Decides a batch as it is, commits it, and takes the slots of its claims.
    fn run(&mut self, batch: impl IntoIterator<Item = Input>) -> Aftermath {
        let batch: Vec<Input> = batch.into_iter().collect();
        let Decision { write, after } = self.decide(&batch.iter().collect::<Vec<_>>(), &HashSet::default());
        self.commit(write);
        self.slots.take(&after.claims);
        after
    }

    /// The end of an only input.
    fn end(&mut self, input: impl Into<Input>) -> End {
        let mut after = self.run([input.into()]);
        assert_eq!(after.ends.len(), 1);
        after.ends.remove(0)
    }

    fn value(&self, account: &str) -> u32 {
        let doc = self.docs.get(&key(account));
        doc.map_or(0, |doc| serde_json::from_slice::<Account>(&doc.body).unwrap().value)
    }

    fn wake(&self, account: &str) -> Option<Wake> {
        self.docs.get(&key(account))?.wake.clone()
    }

    fn entry(&self, id: Id) -> &Entry {
        &self.journal[&id]
    }

    /// The wake that an account carries, as the sweep finds it.
    fn due(&self, account: &str) -> Input {
        let (key, wake) = (key(account), self.wake(account).expect("a wake"));
        let meta = outcome_meta(SERVICE, &key, &wake);
        let fires = self.planner.kinds.timers.get(wake.kind.as_str()).map(|timer| timer.clone().fire(account.into()));
        Input::Due(Box::new(DueInput { key, wake, meta, fires }))
    }

    /// The end of an effect that was claimed. Its slot is free again.
    fn ended(&mut self, claim: &Claimed, ended: Ended) -> Input {
        self.slots.release(&claim.key);
        let Claimed { key, wake, .. } = claim.clone();
        let meta = outcome_meta(SERVICE, &key, &wake);
        Input::Outcome(Box::new(OutcomeInput { key, wake, meta, ended }))
    }

    /// An effect was claimed and has this outcome.
    fn outcome(&mut self, claim: &Claimed, outcome: u32) -> Input {
        let settle = self.planner.kinds.effects[PAY.name()].clone().settle(claim.key.id.clone(), Arc::new(outcome));
        self.ended(claim, Ended::Outcome(settle))
    }
}

fn key(account: &str) -> Key {
    Key { collection: Account::COLLECTION, id: account.into() }
}

fn id(kind: &str, number: u32) -> Id {
    Id::derived(START, kind, &[], number)
}

fn meta(id: Id) -> Meta {
    Meta { id, time: START, correlation: id.to_string(), causation: None, traceparent: None }
}

/// Builds deliveries of a message.
#[derive(Clone)]
struct Message {
    number: u32,
    account: &'static str,
    does: Does,
    delivered: i64,
    settled: bool,
    crowded: bool,
    redrive: Option<u32>,
    unread: Option<Unread>,
}

/// The first message, delivered for the first time.
fn message(does: Does) -> Message {
    Message { number: 1, account: "a", does, delivered: 1, settled: false, crowded: false, redrive: None, unread: None }
}

impl Message {
    fn number(self, number: u32) -> Self {
        Self { number, ..self }
    }

    fn account(self, account: &'static str) -> Self {
        Self { account, ..self }
    }

    fn does(self, does: Does) -> Self {
        Self { does, ..self }
    }

    fn delivered(self, delivered: i64) -> Self {
        Self { delivered, ..self }
    }

    fn settled(self) -> Self {
        Self { settled: true, ..self }
    }

    fn crowded(self) -> Self {
        Self { crowded: true, ..self }
    }

    fn redrive(self, number: u32) -> Self {
        Self { redrive: Some(number), ..self }
    }

    fn unread(self, why: Unread) -> Self {
        Self { unread: Some(why), ..self }
    }

    fn id(&self) -> Id {
        id("deed", self.number)
    }

    fn delivery(&self) -> Delivery {
        let (id, meta) = (self.id(), meta(self.id()));
        let deed = Deed { account: self.account.into(), does: self.does.clone() };
        let mut wire = Emitted::event("sim", &meta, &deed).unwrap();
        let seq = u64::from(self.number);
        let redriven = self.redrive.map(|number| Redriven {
            id,
            number,
            record: Some(u64::from(number) * 10),
            stream: DEEDS.name.into(),
            seq,
            subject: wire.subject.clone(),
            first_failure: None,
            edited_from: None,
        });
        if redriven.is_some() {
            wire.subject = format!("redrive.{SERVICE}.deeds-done.{id}");
        }
        let handler: Arc<dyn AnyHandler> = Arc::new(HandlerOf::<Deed, _>::new(Clerk));
        let work = match &self.unread {
            Some(why) => Err(why.clone()),
            None => handler.decode(Deed::VERSION, meta.clone(), &wire.payload),
        };
        Delivery {
            id,
            meta,
            event: Deed::TYPE,
            work,
            stream: if redriven.is_some() { dead_letter::REDRIVE } else { DEEDS.name },
            consumer: SERVICE,
            seq,
            published: START,
            settled: self.settled,
            crowded: self.crowded,
            redriven,
            payload: wire.payload.clone(),
            wire: Box::new(wire),
            delivered: self.delivered,
            given_before: false,
        }
    }
}

impl From<Message> for Input {
    fn from(message: Message) -> Self {
        Self::Message(Box::new(message.delivery()))
    }
}

/// Each of these, as inputs.
fn inputs<const N: usize>(messages: [Message; N]) -> [Input; N] {
    messages.map(Input::from)
}

/// A command, under a key if there is one.
fn command(number: u32, does: Does, idempotency: Option<Idempotency>) -> Input {
    let id = id("command", number);
    let work = CommandWork { id, handler: Itself, command: Deed { account: "a".into(), does } };
    Input::Command(Box::new(CommandInput { id, meta: meta(id), work: Box::new(work), idempotency }))
}

fn under(key: u8, fingerprint: u8) -> Option<Idempotency> {
    Some(Idempotency { hash: [key; 32], fingerprint: [fingerprint; 32] })
}

/// Sets the effect on an account and returns its claim.
fn claimed(world: &mut World, account: &'static str) -> Claimed {
    let number = u32::try_from(1000 + world.journal.len()).unwrap();
    let mut after = world.run([message(Does::Pay(0)).number(number).account(account).into()]);
    assert_eq!(after.claims.len(), 1, "one claim: {:?}", after.claims);
    after.claims.remove(0)
}

fn accounts(claims: &[Claimed]) -> Vec<&str> {
    claims.iter().map(|claim| claim.key.id.as_str()).collect()
}

/// What records say that were emitted: `resolved`, or the reason of a dead letter, each with its number of redrives.
fn records(emitted: &[Emitted]) -> Vec<String> {
    let letters = emitted.iter().filter(|message| message.subject.starts_with("dlq."));
    let state = |letter: &Emitted| letter.header(STATE).or_else(|| letter.header("Millstream-Reason"));
    let told = |letter: &Emitted| Some(format!("{} {}", state(letter)?, letter.header(dead_letter::REDRIVES)?));
    letters.filter_map(told).collect()
}

fn handled() -> End {
    End::Ack(Fate::Handled)
}

fn duplicate() -> End {
    End::Ack(Fate::Duplicate)
}

/// Ends, as far as they can be compared.
fn same(ends: &[End], expected: &[End]) {
    let text = |ends: &[End]| ends.iter().map(|end| format!("{end:?}")).collect::<Vec<_>>();
    assert_eq!(text(ends), text(expected));
}
