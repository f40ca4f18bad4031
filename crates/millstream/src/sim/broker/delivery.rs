//! What a consumer gives, what it is told, and where it stands.

use std::sync::Arc;

use super::config::ConsumerConfig;
use super::log::Message;

/// A place in the stream, and in the order of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the delivery, from 1 on; redeliveries have numbers of their own.
    pub consumer: u64,
    /// The sequence in the stream.
    pub stream: u64,
}

impl Position {
    pub(super) fn before(self) -> Self {
        Self { consumer: self.consumer - 1, stream: self.stream - 1 }
    }

    pub(super) fn after(self) -> Self {
        Self { consumer: self.consumer + 1, stream: self.stream + 1 }
    }
}

/// Where a consumer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Its configuration.
    pub config: ConsumerConfig,
    /// When it was created, in milliseconds.
    pub created: u64,
    /// The last delivery, and the highest sequence that was delivered.
    pub delivered: Position,
    /// All up to here is acked.
    pub ack_floor: Position,
    /// How many messages are yet to be delivered for the first time.
    pub num_pending: u64,
    /// How many messages are delivered and unacked.
    pub num_ack_pending: usize,
    /// How many of these were delivered more than once.
    pub num_redelivered: usize,
    /// The pin that is valid now.
    pub pin: Option<String>,
}

/// A pull.
#[derive(Clone, Copy, Debug)]
pub struct Pull<'a> {
    /// How many messages at most.
    pub batch: usize,
    /// The pin that who pulls was given with its last delivery.
    pub pin: Option<&'a str>,
}

impl Pull<'_> {
    /// A pull without a pin.
    pub fn of(batch: usize) -> Self {
        Self { batch, pin: None }
    }
}

/// A message that is given to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// What to ack it with.
    pub token: AckToken,
    /// How often it was delivered, with this time.
    pub delivered: u64,
    /// How many messages are yet to be delivered for the first time, after this one.
    pub pending: u64,
    /// The pin of who is given it, where one is pinned.
    pub pin: Option<String>,
}

/// What the subject says that an ack is published to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AckToken {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub durable: String,
    /// The message's sequence.
    pub stream_seq: u64,
    /// The number of the delivery.
    pub consumer_seq: u64,
    /// How often the message was delivered.
    pub delivered: u64,
}

/// What is said about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// It is handled.
    Ack,
    /// It is to be delivered again: at once, or after so many milliseconds.
    Nak(Option<u64>),
    /// It is not to be delivered again.
    Term,
    /// It is worked on: the ack wait begins anew.
    InProgress,
}
