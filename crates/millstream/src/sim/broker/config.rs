//! What streams and consumers are declared with, and why the broker refuses something.

use std::collections::BTreeMap;

/// A stream's configuration, as far as services declare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Its name, `ORDERS`.
    pub name: String,
    /// The subjects it holds, with the wildcards `*` and `>`.
    pub subjects: Vec<String>,
    /// How long a `Nats-Msg-Id` is known, in milliseconds.
    pub duplicate_window_ms: u64,
    /// The most it holds, in bytes as the server counts them; `None` is no limit.
    pub max_bytes: Option<u64>,
    /// The most messages of one subject, of which the oldest go; `None` is no limit.
    pub max_msgs_per_subject: Option<u64>,
    /// Whether a full stream refuses what is new instead of forgetting the oldest.
    pub discard_new: bool,
    /// Whether a message goes when it is acked.
    pub work_queue: bool,
    /// Whether messages may say how long they stay, with `Nats-TTL`.
    pub allow_message_ttl: bool,
    /// What is noted beside it.
    pub metadata: BTreeMap<String, String>,
}

impl StreamConfig {
    /// A stream without limits that knows ids for 30 seconds.
    pub fn new(name: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            subjects: vec![subject.into()],
            duplicate_window_ms: 30_000,
            max_bytes: None,
            max_msgs_per_subject: None,
            discard_new: true,
            work_queue: false,
            allow_message_ttl: false,
            metadata: BTreeMap::new(),
        }
    }
}

/// The configuration of a durable pull consumer with explicit acks that delivers a message as often as it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// Its name.
    pub durable: String,
    /// The subjects it is given, with wildcards; all if there are none.
    pub filter_subjects: Vec<String>,
    /// How long a delivery may stay unacked before it is delivered again, in milliseconds.
    pub ack_wait_ms: u64,
    /// How many deliveries may be unacked at once.
    pub max_ack_pending: usize,
    /// Where it begins.
    pub deliver: Deliver,
    /// Whether only one of those that pull is given anything.
    pub pinned: Option<Pinned>,
    /// What is noted beside it.
    pub metadata: BTreeMap<String, String>,
}

impl ConsumerConfig {
    /// A consumer of everything, with at most 1000 deliveries unacked.
    pub fn new(durable: impl Into<String>, ack_wait_ms: u64) -> Self {
        Self {
            durable: durable.into(),
            filter_subjects: vec![],
            ack_wait_ms,
            max_ack_pending: 1000,
            deliver: Deliver::All,
            pinned: None,
            metadata: BTreeMap::new(),
        }
    }

    pub(super) fn wants(&self, subject: &str) -> bool {
        self.filter_subjects.is_empty() || self.filter_subjects.iter().any(|filter| matches(filter, subject))
    }
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// With the first message that is there.
    All,
    /// With a sequence, also one that is yet to come.
    ByStartSequence(u64),
    /// After the last message that is there.
    New,
}

/// The priority policy `pinned_client`, with one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// How long who is pinned stays so without pulling, in milliseconds.
    pub timeout_ms: u64,
}

/// Why something is not done to a stream or a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no such stream.
    #[error("stream not found")]
    StreamNotFound,
    /// There is one with another configuration.
    #[error("stream name already in use with a different configuration")]
    StreamExists,
    /// Another stream has one of the subjects.
    #[error("subjects overlap with an existing stream")]
    SubjectsOverlap,
    /// There is no such consumer.
    #[error("consumer not found")]
    ConsumerNotFound,
    /// There is one with another configuration.
    #[error("consumer already exists")]
    ConsumerExists,
    /// There is no such message.
    #[error("no message found")]
    MessageNotFound,
    /// It cannot be changed to this, or be so at all.
    #[error("{0}")]
    Refused(&'static str),
}

/// Why a message is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No stream has the subject.
    #[error("no responders")]
    NoResponders,
    /// The stream is full.
    #[error("maximum bytes exceeded")]
    MaxBytes,
    /// `Nats-Expected-Last-Subject-Sequence` is not what is expected, but this.
    #[error("wrong last sequence: {0}")]
    WrongLastSequence(u64),
    /// It has a `Nats-TTL`, and the stream does not allow that.
    #[error("per-message TTL is disabled")]
    TtlDisabled,
    /// Its `Nats-TTL` cannot be read, or is less than a second.
    #[error("invalid per-message TTL")]
    TtlInvalid,
}

/// Why a pull is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// There is no such stream or consumer.
    #[error("no responders")]
    NoResponders,
    /// It names a pin that is not, or not any more, the one.
    #[error("Nats-Pin-Id mismatch")]
    PinMismatch,
}

/// Whether a filter, with the wildcards `*` and `>`, lets a subject through.
pub fn matches(filter: &str, subject: &str) -> bool {
    let (mut filter, mut subject) = (filter.split('.'), subject.split('.'));
    loop {
        match (filter.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Whether there is a subject that both filters let through.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lets_through_what_its_wildcards_say() {
        for (filter, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b.c", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
        ] {
            assert_eq!(matches(filter, subject), expected, "{filter} {subject}");
        }
    }

    #[test]
    fn filters_overlap_when_one_subject_goes_through_both() {
        for (one, other, expected) in [
            ("a.>", "a.b", true),
            ("a.*", "*.b", true),
            ("a.b", "a.c", false),
            ("a", "a.>", false),
            ("a.*", "a.b.c", false),
        ] {
            assert_eq!((overlap(one, other), overlap(other, one)), (expected, expected), "{one} {other}");
        }
    }
}
