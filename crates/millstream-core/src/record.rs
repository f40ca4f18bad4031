//! What a store keeps, and what a commit writes: the records that the planner decides on and a database holds.

use bytes::Bytes;

pub use crate::handler::Key;
use crate::handler::Wake;
use crate::ids::{Id, Timestamp};

/// A document as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDoc {
    /// Where it is.
    pub key: Key,
    /// Raised by one with each commit that changes it; the first is 1.
    pub version: u64,
    /// [`Document::SHAPE`](crate::Document::SHAPE) of the release that wrote it.
    pub shape: u32,
    /// The document as JSON.
    pub body: Bytes,
    /// Its wake.
    pub wake: Option<Wake>,
}

/// A document that a commit guards, and writes if it has a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocWrite {
    /// Where it is.
    pub key: Key,
    /// The version it must have; `None`: it must not exist.
    pub expected: Option<u64>,
    /// What is written, with version `expected + 1`; `None`: nothing, the document is only guarded.
    pub write: Option<NewDoc>,
}

/// What is written of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDoc {
    /// [`Document::SHAPE`](crate::Document::SHAPE).
    pub shape: u32,
    /// The document as JSON.
    pub body: Bytes,
    /// Its wake.
    pub wake: Option<Wake>,
}

/// A collection to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Its name.
    pub name: &'static str,
    /// The JSON fields that queries filter by, nested ones with dots between the names.
    pub indexed: &'static [&'static str],
}

/// What a load asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Documents.
    pub docs: Vec<Key>,
    /// Journal entries.
    pub journal: Vec<Id>,
    /// Idempotency keys.
    pub keys: Vec<KeyHash>,
}

/// What a load found.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Documents.
    pub docs: Vec<StoredDoc>,
    /// Journal entries.
    pub journal: Vec<Entry>,
    /// Idempotency keys.
    pub keys: Vec<IdempotencyKey>,
}

/// A commit.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The committing instance; its row must exist.
    pub instance: Id,
    /// This batch's number, from 1 on for each instance id; written into the journal entries. A commit without entries
    /// repeats the last one.
    pub batch: u64,
    /// All batches up to this one are published; never lowers what the row has.
    pub published_through: u64,
    /// Documents, sorted by key.
    pub docs: Vec<DocWrite>,
    /// Journal entries: inserted where `version` is 1, otherwise they must exist with `version - 1`.
    pub journal: Vec<Entry>,
    /// Idempotency keys: inserted, or put in place of an expired one.
    pub keys: Vec<IdempotencyKey>,
    /// The time of the commit, by which keys are judged expired.
    pub now: Timestamp,
}

/// What has become of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not handled to an end: being retried, suspected, redriven. It answers no duplicate.
    Open,
    /// Handled.
    Done,
    /// Given up: what it emitted is the dead letter.
    Parked,
}

/// A journal entry: inbox, outbox and attempts of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The input's id.
    pub id: Id,
    /// Raised by one with each commit that writes it; the first is 1.
    pub version: u64,
    /// What has become of it.
    pub state: State,
    /// Failed attempts so far.
    pub attempts: u32,
    /// Starts as a suspect that have not come to an end.
    pub started: u32,
    /// How often it was redriven.
    pub redrives: u32,
    /// The last failure.
    pub error: Option<String>,
    /// When it first failed.
    pub first_failure: Option<Timestamp>,
    /// When it last failed.
    pub last_failure: Option<Timestamp>,
    /// What it emitted, as `Emitted::pack` writes it; empty if nothing.
    pub emitted: Bytes,
    /// What was answered to a command, kept if it had an idempotency key.
    pub reply: Option<Bytes>,
    /// The instance of its last commit.
    pub instance: Id,
    /// The batch of its last commit.
    pub batch: u64,
    /// The stream that a message came from; empty for commands and wakes.
    pub stream: String,
    /// The message's sequence in it.
    pub seq: u64,
    /// When it was last written.
    pub at: Timestamp,
}

impl Entry {
    /// Whether it answers a duplicate.
    pub fn answers(&self) -> bool {
        self.state != State::Open
    }
}

/// SHA-256 of (service, caller, method, route template, key).
pub type KeyHash = [u8; 32];

/// An `Idempotency-Key` and the command that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key with its scope, hashed.
    pub hash: KeyHash,
    /// The command.
    pub command: Id,
    /// SHA-256 of what the command asks for.
    pub fingerprint: [u8; 32],
    /// From when on the key may stand for another.
    pub expires: Timestamp,
}

/// An instance row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: Id,
    /// Raised by one with each commit.
    pub version: u64,
    /// All its batches up to this one are published.
    pub published_through: u64,
}

/// What a database knows of a stream that its service reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The stream.
    pub stream: String,
    /// Up to here entries have expired: a delivery at or below it without an entry is a duplicate.
    pub through: u64,
    /// The stream's creation time, which tells one stream from another of the same name.
    pub created: String,
    /// What was published later is not settled, whatever its sequence: a stream that was restored from a backup gives sequences
    /// again. `None`: only the sequence counts.
    pub until: Option<Timestamp>,
    /// Everything up to here is done with, as far as it was recorded; `None` if the mark is of a release that did not record it.
    pub seen: Option<u64>,
}

impl Settled {
    /// The mark of a service that goes on after `through`.
    pub fn new(stream: &str, created: &str, through: u64) -> Self {
        Self { stream: stream.into(), through, created: created.into(), until: None, seen: Some(through) }
    }

    /// Whether the entry of a message may have expired.
    pub fn covers(&self, seq: u64, published: Timestamp) -> bool {
        seq <= self.through && self.until.is_none_or(|until| published <= until)
    }

    /// Everything up to here is done with.
    pub fn recorded(&self) -> u64 {
        self.seen.unwrap_or(self.through)
    }

    /// Where a durable begins that is not there. What was handled after it, the journal answers.
    pub fn next(&self) -> u64 {
        self.through.min(self.recorded()) + 1
    }
}

/// How far a stream's entries may expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The stream.
    pub stream: String,
    /// Its creation time: entries of a stream whose mark has another stay.
    pub created: String,
    /// The ack floor of this service's durable: entries of messages above it stay.
    pub through: u64,
    /// Entries written at or after this stay as well: a copy of such a message may lie in what the durable has not read yet.
    pub before: Timestamp,
    /// Nothing that goes was published later than this; the mark takes it over.
    pub until: Timestamp,
}

/// Which journal entries may go: those that are done, older than `before`, published, and of a message whose durable has been
/// acked past it.
#[derive(Clone, Debug)]
pub struct Expiry {
    /// Entries at or after this stay.
    pub before: Timestamp,
    /// What more holds for entries of messages, for each stream. Entries of other streams stay.
    pub floors: Vec<Floor>,
    /// Idempotency keys that expire before this go.
    pub now: Timestamp,
    /// How many entries go at most.
    pub limit: usize,
}

/// What is due of one kind of wake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakesDue {
    /// The kind.
    pub kind: String,
    /// How many are due.
    pub due: u64,
    /// The earliest due time.
    pub oldest: Timestamp,
}

/// Why a commit did not happen, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A document or an entry has another version than expected.
    #[error("a guarded document or entry has changed")]
    Version,
    /// A journal entry or idempotency key is there already.
    #[error("an input of the batch is in the journal already")]
    Duplicate,
    /// Another writer was in the way, nothing is known to have changed: the same batch again.
    #[error("another writer was in the way")]
    Busy,
    /// The instance row is gone: it was swept, its owner may not commit under this id.
    #[error("the instance row is gone")]
    Fenced,
    /// The store is away; nothing was committed.
    #[error("store unavailable: {0}")]
    Away(String),
    /// The store is away; only the journal can tell whether the batch was committed.
    #[error("the outcome of a commit is unknown: {0}")]
    Unknown(String),
}
