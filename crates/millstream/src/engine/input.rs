//! What comes into the loop: messages, commands, outcomes of effects, due wakes.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::commands::{CommandError, Done as Accepted};
use crate::dead_letter;
use crate::event::Meta;
use crate::handler::{Key, Outage, Wake};
use crate::ids::Id;
use crate::progress::InEngine;
use crate::redriven::Redriven;
use crate::store::{Entry, KeyHash, Settled};
use crate::unit::{Rules, Unread, Work};

pub(crate) enum Input {
    Message(Box<Delivery>),
    Command(Box<CommandInput>),
    /// An effect has run, or nobody knows.
    Outcome(Box<OutcomeInput>),
    /// A wake is due: an effect to claim, or a timer to fire.
    Due(Box<DueInput>),
}

/// A message as delivered, decoded ahead of the loop.
pub(crate) struct Delivery {
    pub(crate) id: Id,
    pub(crate) meta: Meta,
    /// The name of the handled type, or `unknown`.
    pub(crate) event: &'static str,
    /// What is to be done, or why it cannot be read.
    pub(crate) work: Result<Box<dyn Work>, Unread>,
    pub(crate) source: Arc<Source>,
    pub(crate) seq: u64,
    /// Set if it was handed back by an operator.
    pub(crate) redriven: Option<Redriven>,
    pub(crate) subject: Subject,
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) payload: Bytes,
    /// How often the broker has delivered it, this time included: a hint, never a verdict.
    pub(crate) delivered: i64,
    /// Where its ack goes.
    pub(crate) reply: Option<Subject>,
    /// Further deliveries of the same message, acked with it.
    pub(crate) twins: Vec<Delivery>,
    /// Counts it as being here until it is dropped.
    pub(crate) _in_engine: InEngine,
    pub(crate) received: tokio::time::Instant,
}

/// Where deliveries come from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) stream: &'static str,
    pub(crate) consumer: &'static str,
    /// How far the stream's entries have expired; known once the durable is declared.
    settled: Mutex<Option<Settled>>,
}

impl Source {
    pub(crate) fn new(stream: &'static str, consumer: &'static str) -> Self {
        Self { stream, consumer, settled: Mutex::new(None) }
    }

    /// Takes the mark that holds from now on: of this stream, or of another that was made in its place.
    pub(crate) fn declare(&self, mark: Settled) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark);
    }

    /// Takes a later mark, unless it is of another stream than the declared one.
    pub(crate) fn raise(&self, mark: Settled) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.as_ref().is_some_and(|declared| declared.created == mark.created) {
            *settled = Some(mark);
        }
    }

    /// The creation time of the stream that was declared.
    pub(crate) fn created(&self) -> Option<String> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|mark| mark.created.clone())
    }

    /// Whether the entry of the message with this sequence may have expired.
    pub(crate) fn is_settled(&self, seq: u64) -> bool {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|mark| seq <= mark.through)
    }
}

pub(crate) struct CommandInput {
    pub(crate) id: Id,
    pub(crate) meta: Meta,
    pub(crate) work: Box<dyn Work>,
    pub(crate) idempotency: Option<Idempotency>,
    pub(crate) ticket: Ticket,
    pub(crate) answer: oneshot::Sender<Result<Accepted, CommandError>>,
}

/// An idempotency key and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idempotency {
    pub(crate) hash: KeyHash,
    pub(crate) fingerprint: [u8; 32],
}

/// Who has a command: its caller may withdraw it while it queues, and must wait for the journal once it is in a commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<AtomicU8>);

const QUEUED: u8 = 0;
const COMMITTING: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Ticket {
    /// Takes the command back; `false` if it is in a commit.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.compare_exchange(QUEUED, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the command into a commit; `false` if it was withdrawn.
    pub(crate) fn commit(&self) -> bool {
        let taken = self.0.compare_exchange(QUEUED, COMMITTING, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok() || taken == Err(COMMITTING)
    }

    /// The commit did not happen.
    pub(crate) fn requeue(&self) {
        let _ = self.0.compare_exchange(COMMITTING, QUEUED, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Acquire) == WITHDRAWN
    }
}

pub(crate) struct OutcomeInput {
    pub(crate) key: Key,
    /// The wake as it was claimed.
    pub(crate) wake: Wake,
    pub(crate) meta: Meta,
    pub(crate) ended: Ended,
    /// How long it ran.
    pub(crate) took: Duration,
}

/// How a run of an effect ended.
pub(crate) enum Ended {
    /// With an outcome, to be settled.
    Outcome(Box<dyn Work>),
    /// Nobody knows: tried again after the backoff.
    Outage(Outage),
    /// It did not end before the shutdown: whoever comes next may try at once.
    GivenBack,
}

pub(crate) struct DueInput {
    pub(crate) key: Key,
    /// The wake as the sweep saw it.
    pub(crate) wake: Wake,
    pub(crate) meta: Meta,
    /// Set for a timer.
    pub(crate) fires: Option<Box<dyn Work>>,
}

impl Input {
    /// The id that the journal knows it by.
    pub(crate) fn id(&self) -> Id {
        match self {
            Self::Message(delivery) => delivery.id,
            Self::Command(command) => command.id,
            Self::Outcome(outcome) => outcome.meta.id,
            Self::Due(due) => due.meta.id,
        }
    }

    /// Whether it is a timer's due time.
    pub(crate) fn fires(&self) -> bool {
        matches!(self, Self::Due(due) if due.fires.is_some())
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Message(delivery) => delivery.payload.len(),
            _ => 0,
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

/// A `touches` that panics names nothing; the handler then panics in its turn, where that is caught and parked.
fn touched(work: &dyn Work) -> Vec<Key> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.touches().0)).unwrap_or_default()
}

impl Delivery {
    /// The number of the redrive that it is.
    pub(crate) fn redrive(&self) -> Option<u32> {
        self.redriven.as_ref().map(|redriven| redriven.number)
    }

    /// The stream, sequence and subject of the message itself, whichever way it came.
    pub(crate) fn origin(&self) -> (&str, u64, &str) {
        match &self.redriven {
            Some(redriven) => (&redriven.stream, redriven.seq, &redriven.subject),
            None => (self.source.stream, self.seq, &self.subject),
        }
    }

    /// The subject of its record among the dead letters.
    pub(crate) fn record(&self, service: &str) -> String {
        match self.subject.strip_prefix("redrive.").filter(|_| self.redriven.is_some()) {
            Some(rest) => format!("dlq.{rest}"),
            None => dead_letter::record(service, &self.wire_headers(), self.id),
        }
    }

    /// Whether its message is to be handled, by what the journal knows of it; otherwise it is only acked.
    pub(crate) fn is_to_be_handled(&self, entry: Option<&Entry>) -> bool {
        let first = |delivery: &Self| match delivery.redrive() {
            None => !delivery.source.is_settled(delivery.seq),
            Some(number) => number == 0,
        };
        match (entry, self.redrive()) {
            (Some(entry), _) if entry.answers() => false,
            (Some(entry), Some(number)) if number > 0 => number >= entry.redrives,
            (Some(_), _) => true,
            // A redrive of what the journal does not know is none; but what came with it may be the message itself.
            (None, _) => first(self) || self.twins.iter().any(first),
        }
    }

    /// The headers as they were on the wire.
    pub(crate) fn wire_headers(&self) -> Vec<(String, String)> {
        let Some(headers) = &self.headers else { return vec![] };
        let pairs = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }
}
