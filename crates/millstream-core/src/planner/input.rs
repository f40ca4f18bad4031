//! What is decided on: messages, commands, outcomes of effects, due wakes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::dead_letter;
use crate::event::{Emitted, Meta};
use crate::handler::{Key, Outage, Wake};
use crate::ids::{Id, Timestamp};
use crate::record::{Entry, KeyHash};
use crate::redriven::Redriven;
use crate::unit::{Rules, Unread, Work};

/// One input of a batch.
pub enum Input {
    /// A message as delivered.
    Message(Box<Delivery>),
    /// What a caller asks for.
    Command(Box<CommandInput>),
    /// An effect has run, or its outcome is unknown.
    Outcome(Box<OutcomeInput>),
    /// A wake is due: an effect to claim, or a timer to fire.
    Due(Box<DueInput>),
}

/// A message as it was on the wire. Its headers are listed only when it is parked or the outcome of its redrive is published.
pub trait Wire: Send + Sync {
    /// Its subject.
    fn subject(&self) -> &str;
    /// Its headers, in order, as they were on the wire.
    fn headers(&self) -> Vec<(String, String)>;
    /// The decoded value of a header.
    fn header(&self, name: &str) -> Option<String>;
    /// Shows every header by name and value as they were on the wire; of several values the first comes first.
    fn each(&self, see: &mut dyn FnMut(&str, &str));
}

impl Wire for Emitted {
    fn subject(&self) -> &str {
        &self.subject
    }

    fn headers(&self) -> Vec<(String, String)> {
        self.headers.clone()
    }

    fn header(&self, name: &str) -> Option<String> {
        Self::header(self, name)
    }

    fn each(&self, see: &mut dyn FnMut(&str, &str)) {
        self.headers.iter().for_each(|(name, value)| see(name, value));
    }
}

/// A message as delivered and decoded.
pub struct Delivery {
    /// The id by which the journal knows its message.
    pub id: Id,
    /// What travelled beside the body.
    pub meta: Meta,
    /// The name of the handled type, or `unknown`.
    pub event: &'static str,
    /// What is to be done, or why it cannot be read.
    pub work: Result<Box<dyn Work>, Unread>,
    /// The stream that it was read from.
    pub stream: &'static str,
    /// The durable that it was read by.
    pub consumer: &'static str,
    /// Its sequence in the stream.
    pub seq: u64,
    /// When the broker took it.
    pub published: Timestamp,
    /// Whether its journal entry may have expired, by the mark of its stream: then a message without an entry is a duplicate.
    pub settled: bool,
    /// Whether so many messages wait for a newer release that another one would keep the durable from going on.
    pub crowded: bool,
    /// Set if an operator has handed it back.
    pub redriven: Option<Redriven>,
    /// The message itself.
    pub wire: Box<dyn Wire>,
    /// The body.
    pub payload: Bytes,
    /// How often the broker has delivered it, this time included: a hint, never a verdict.
    pub delivered: i64,
    /// Whether a durable that was made anew since has given it to somebody.
    pub given_before: bool,
}

impl Delivery {
    /// Whether somebody may have got it before, who may have died of it.
    pub(crate) fn was_given_out(&self) -> bool {
        self.delivered > 1 || self.given_before
    }

    /// The number of the redrive that it is.
    pub fn redrive(&self) -> Option<u32> {
        self.redriven.as_ref().map(|redriven| redriven.number)
    }

    /// The stream, sequence and subject of the message itself, whichever way it came.
    pub fn origin(&self) -> (&str, u64, &str) {
        match &self.redriven {
            Some(redriven) => (&redriven.stream, redriven.seq, &redriven.subject),
            None => (self.stream, self.seq, self.wire.subject()),
        }
    }

    /// The subject of its record among the dead letters.
    pub fn record(&self, service: &str) -> String {
        match self.wire.subject().strip_prefix("redrive.").filter(|_| self.redriven.is_some()) {
            Some(rest) => format!("dlq.{rest}"),
            None => dead_letter::record(service, &self.wire.headers(), self.id),
        }
    }

    /// The sequence of the record that the outcome of so many redrives replaces: 0 of what knows no record, and replaces none. What an
    /// operator has done about a record meanwhile is final.
    pub(crate) fn replaces(&self, redrives: u32) -> Option<u64> {
        match &self.redriven {
            Some(redriven) if redriven.number > 0 => redriven.record.filter(|_| redriven.number == redrives),
            _ => Some(0),
        }
    }

    /// Whether its message is to be handled, by what the journal knows of it; otherwise it is only acked.
    pub fn is_to_be_handled(&self, entry: Option<&Entry>) -> bool {
        match (entry, self.redrive()) {
            (Some(entry), _) if entry.answers() => false,
            // Once it was redriven, only the latest redrive knows which record its outcome is to replace.
            (Some(entry), number) => number.unwrap_or_default() >= entry.redrives,
            (None, None) => !self.settled,
            // A redrive of what the journal does not know is none; a changed copy is a message of its own.
            (None, Some(number)) => number == 0,
        }
    }
}

/// A command and who may repeat it.
pub struct CommandInput {
    /// Its id.
    pub id: Id,
    /// Its id, time, correlation.
    pub meta: Meta,
    /// What is to be done.
    pub work: Box<dyn Work>,
    /// The key that it came with.
    pub idempotency: Option<Idempotency>,
}

/// An idempotency key and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key with its scope, hashed.
    pub hash: KeyHash,
    /// SHA-256 of what the command asks for.
    pub fingerprint: [u8; 32],
}

/// How a run of an effect ended.
pub enum Ended {
    /// With an outcome, to be settled.
    Outcome(Box<dyn Work>),
    /// Its outcome is unknown: tried again after the backoff.
    Outage(Outage),
    /// It did not end before the shutdown: the next instance may try at once.
    GivenBack,
}

/// An effect that was claimed and has run.
pub struct OutcomeInput {
    /// The document that carries the wake.
    pub key: Key,
    /// The wake as it was claimed.
    pub wake: Wake,
    /// The id of the outcome, and the correlation that the wake carries.
    pub meta: Meta,
    /// How it ended.
    pub ended: Ended,
}

/// A wake that is due.
pub struct DueInput {
    /// The document that carries it.
    pub key: Key,
    /// The wake as the sweep saw it.
    pub wake: Wake,
    /// The id of its outcome, and the correlation that it carries.
    pub meta: Meta,
    /// Set for a timer.
    pub fires: Option<Box<dyn Work>>,
}

impl Input {
    /// The id that the journal knows it by.
    pub fn id(&self) -> Id {
        match self {
            Self::Message(delivery) => delivery.id,
            Self::Command(command) => command.id,
            Self::Outcome(outcome) => outcome.meta.id,
            Self::Due(due) => due.meta.id,
        }
    }

    /// Where it stands in a batch. A fact that is here beats a deadline that has passed, so timers come last. A message comes
    /// before its redrives, and these in order: a redrive of what the journal does not know yet is none.
    pub fn rank(&self) -> (bool, u64) {
        match self {
            Self::Message(delivery) => (false, delivery.redrive().map_or(0, |number| 1 + u64::from(number))),
            Self::Due(due) => (due.fires.is_some(), 0),
            _ => (false, 0),
        }
    }

    /// The documents to load for it.
    pub(crate) fn touches(&self, rules: &Rules) -> Vec<Key> {
        let mut keys = match self {
            Self::Message(delivery) => delivery.work.as_ref().map_or(vec![], |work| touched(&**work)),
            Self::Command(command) => touched(&*command.work),
            Self::Outcome(outcome) => vec![outcome.key.clone()],
            Self::Due(due) => vec![due.key.clone()],
        };
        keys.retain(|key| rules.keeps(key));
        keys
    }

    /// Whether a journal entry comes of it: claims and failed attempts of effects have none.
    pub(crate) fn journalled(&self) -> bool {
        match self {
            Self::Message(_) | Self::Command(_) => true,
            Self::Outcome(outcome) => matches!(outcome.ended, Ended::Outcome(_)),
            Self::Due(due) => due.fires.is_some(),
        }
    }
}

/// A `touches` that panics names nothing: what the handler uses is then loaded when it is missed.
fn touched(work: &dyn Work) -> Vec<Key> {
    catch_unwind(AssertUnwindSafe(|| work.touches().0)).unwrap_or_default()
}
