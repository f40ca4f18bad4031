//! What comes into the loop: an input to decide on, and a receipt, which says whom its end concerns.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::{HeaderMap, Subject};
use millstream_core::planner::{CommandInput, Delivery, DueInput, Input, OutcomeInput, Reply, Wire};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::accepted::CommandError;
use crate::event::decode_header;
use crate::ids::Timestamp;
use crate::progress::InEngine;
use crate::store::Settled;

/// An input and its receipt.
pub(crate) struct Arrival {
    pub(crate) input: Input,
    pub(crate) receipt: Receipt,
}

/// What the engine needs to let the origin of an input know its end.
pub(crate) enum Receipt {
    Message(MessageReceipt),
    Command {
        ticket: Ticket,
        answer: oneshot::Sender<Result<Reply, CommandError>>,
    },
    /// An effect, and how long it ran.
    Effect(Duration),
    Due,
}

pub(crate) struct MessageReceipt {
    pub(crate) source: Arc<Source>,
    /// Where its ack goes.
    pub(crate) reply: Option<Subject>,
    pub(crate) received: Instant,
    /// Counts it as being here until it is dropped.
    pub(crate) in_engine: InEngine,
}

impl MessageReceipt {
    /// What the broker is told. Nothing, if the durable was made anew: it goes by sequences, and delivers the message again, to be
    /// answered from the journal.
    pub(crate) fn ack(self, kind: AckKind) -> Option<(Subject, AckKind)> {
        Some((self.reply.filter(|_| self.in_engine.is_current())?, kind))
    }
}

impl Arrival {
    pub(crate) fn message(delivery: Delivery, receipt: MessageReceipt) -> Self {
        Self { input: Input::Message(Box::new(delivery)), receipt: Receipt::Message(receipt) }
    }

    pub(crate) fn command(
        command: CommandInput,
        ticket: Ticket,
        answer: oneshot::Sender<Result<Reply, CommandError>>,
    ) -> Self {
        Self { input: Input::Command(Box::new(command)), receipt: Receipt::Command { ticket, answer } }
    }

    pub(crate) fn outcome(outcome: OutcomeInput, took: Duration) -> Self {
        Self { input: Input::Outcome(Box::new(outcome)), receipt: Receipt::Effect(took) }
    }

    pub(crate) fn due(due: DueInput) -> Self {
        Self { input: Input::Due(Box::new(due)), receipt: Receipt::Due }
    }

    /// The size of its body in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match &self.input {
            Input::Message(delivery) => delivery.payload.len(),
            _ => 0,
        }
    }

    /// Whether its caller has taken it back.
    pub(crate) fn is_withdrawn(&self) -> bool {
        matches!(&self.receipt, Receipt::Command { ticket, .. } if ticket.is_withdrawn())
    }

    /// Takes over what the mark of its stream says now, and whether its durable has room for what waits, when so many before it do
    /// not wait any longer. Says whether it has none.
    pub(crate) fn see_source(&mut self, max_ack_pending: i64, surplus: i64) -> bool {
        if let (Input::Message(delivery), Receipt::Message(receipt)) = (&mut self.input, &self.receipt) {
            delivery.settled = receipt.source.is_settled(delivery.seq, delivery.published);
            delivery.crowded = receipt.in_engine.progress().is_crowded(max_ack_pending, surplus);
            return delivery.crowded;
        }
        false
    }
}

/// A message as async-nats has it.
pub(crate) struct NatsWire {
    pub(crate) subject: Subject,
    pub(crate) headers: Option<HeaderMap>,
}

impl Wire for NatsWire {
    fn subject(&self) -> &str {
        &self.subject
    }

    fn headers(&self) -> Vec<(String, String)> {
        let Some(headers) = &self.headers else { return vec![] };
        let pairs = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn header(&self, name: &str) -> Option<String> {
        self.headers.as_ref()?.get(name).map(|value| decode_header(value.as_str()))
    }

    fn each(&self, see: &mut dyn FnMut(&str, &str)) {
        for (name, values) in self.headers.iter().flat_map(HeaderMap::iter) {
            values.iter().for_each(|value| see(name.as_ref(), value.as_str()));
        }
    }
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
    pub(crate) fn is_settled(&self, seq: u64, published: Timestamp) -> bool {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.as_ref().is_some_and(|mark| mark.covers(seq, published))
    }
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

    /// Takes the command into a commit, if it is not in one already; `false` if it was withdrawn.
    pub(crate) fn enter_commit(&self) -> bool {
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
