//! The store port: what the engine asks of a database, and nothing more. An adapter passes [`conformance`].

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::config::StoreUrl;
pub use crate::handler::Key;
use crate::ids::{Id, Timestamp};
pub use crate::view::{DocWrite, NewDoc, StoredDoc};

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod memory;
#[cfg(feature = "mongodb")]
pub mod mongo;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// Opens the store that a URL names: `sqlite:///absolute/path.db`, `sqlite://relative/path.db`, or a plain path to such a file;
/// `mongodb://host/database?replicaSet=name` in a build with the feature `mongodb`.
///
/// # Errors
/// When the store cannot be opened, or this build has none of that kind. The URL itself may hold a password and is not repeated.
pub fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    match url.split_once("://") {
        #[cfg(feature = "sqlite")]
        None | Some(("sqlite", _)) => Ok(Arc::new(sqlite::SqliteStore::open(url)?)),
        #[cfg(feature = "mongodb")]
        Some(("mongodb" | "mongodb+srv", _)) => {
            let url = mongo::MongoUrl::read(url).map_err(StoreError)?;
            Ok(Arc::new(mongo::MongoStore::open(&url, None)?))
        }
        #[cfg(not(feature = "mongodb"))]
        Some(("mongodb" | "mongodb+srv", _)) => {
            Err(StoreError("this build has no MongoDB store, only SQLite: use sqlite:///path/to/file.db".into()))
        }
        _ => Err(StoreError("a store's URL is of the form sqlite:///path/to/file.db".into())),
    }
}

/// Opens the store of a service: in MongoDB a URL that names no database means the one of the service's name.
#[cfg_attr(not(feature = "mongodb"), expect(unused_variables, reason = "a file needs no other name"))]
pub(crate) fn open_for(url: &StoreUrl, service: &str) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        #[cfg(feature = "mongodb")]
        StoreUrl::Mongo(url) => Ok(Arc::new(mongo::MongoStore::open(url, Some(service))?)),
        StoreUrl::Sqlite(_) => open(&url.to_string()),
    }
}

/// A database with documents, the journal, idempotency keys, instance rows and `settled` marks of one service.
///
/// All methods may be called from several processes at once.
pub trait Store: Send + Sync + 'static {
    /// Creates what is missing: collections, the journal, indexes.
    fn prepare<'a>(&'a self, collections: &'a [Collection]) -> BoxFuture<'a, Result<(), PrepareError>>;

    /// Reads documents, journal entries and idempotency keys in one round trip. What does not exist is left out.
    fn load(&self, wanted: Wanted) -> BoxFuture<'_, Result<Loaded, StoreError>>;

    /// Reads one document for a caller outside of the engine, without waiting behind its commits.
    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<StoredDoc>, StoreError>>;

    /// Commits a batch durably, all or nothing. Every guard is checked: versions of documents and journal entries, absence
    /// where absence is expected, and the instance row, whose version is raised.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>>;

    /// Documents by equality of top-level JSON fields, sorted by id.
    fn find(&self, query: Query) -> BoxFuture<'_, Result<Vec<StoredDoc>, StoreError>>;

    /// Documents whose wake of one of `kinds` is due at `now`, earliest first, at most `limit`.
    fn due_wakes<'a>(
        &'a self,
        kinds: &'a [&'static str],
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredDoc>, StoreError>>;

    /// For each kind how many wakes are due at `now` and the earliest of their times.
    fn wakes_due(&self, now: Timestamp) -> BoxFuture<'_, Result<Vec<WakesDue>, StoreError>>;

    /// Inserts an instance row with version 0 and nothing published.
    fn insert_instance(&self, id: Id) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All instance rows.
    fn instances(&self) -> BoxFuture<'_, Result<Vec<Instance>, StoreError>>;

    /// Deletes an instance row if it has the version; says whether it did.
    fn delete_instance(&self, id: Id, version: u64) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Entries last committed by `instance` with something emitted, in batches above `after`, in order of batch, at most
    /// `limit` of them.
    fn unpublished(&self, instance: Id, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>>;

    /// How many entries with something emitted lie above the watermarks of the instances there are.
    fn count_unpublished(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Inserts the mark for a stream if there is none, or if the one there is belongs to another `created`; returns the mark
    /// that holds.
    fn init_settled(&self, mark: Settled) -> BoxFuture<'_, Result<Settled, StoreError>>;

    /// Reads the mark for a stream.
    fn settled<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Option<Settled>, StoreError>>;

    /// Deletes old journal entries, at most `limit` of them, and expired idempotency keys; see [`Expiry`]. In the same
    /// transaction raises each stream's mark to the highest sequence that it deletes. Returns how many entries went.
    fn expire(&self, expiry: Expiry) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Forgets everything: marks, instance rows, keys, the journal and all documents. Collections and indexes stay.
    ///
    /// In one transaction if the database can; otherwise the marks go first and the documents last, so that a service which starts
    /// after half of it has no mark and, beside its durable, refuses to go on (calling this again finishes it). Its caller has
    /// seen that no other instance lives.
    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Asks whether the store answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// A collection to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Its name.
    pub name: &'static str,
    /// The top-level JSON fields that queries filter by.
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

/// How far a stream's entries have expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The stream.
    pub stream: String,
    /// A delivery at or below it without an entry is a duplicate.
    pub through: u64,
    /// The stream's creation time, which tells one stream from another of the same name.
    pub created: String,
}

/// Which journal entries may go: those that are done, older than `before`, published, and of a message whose durable has been
/// acked past it.
#[derive(Clone, Debug)]
pub struct Expiry {
    /// Entries at or after this stay.
    pub before: Timestamp,
    /// For each stream the ack floor of this service's durable, in `through`. Entries of other streams stay, and those of a
    /// stream whose mark has another `created`.
    pub floors: Vec<Settled>,
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

/// A query for documents, sorted by id.
#[derive(Clone, Debug)]
pub struct Query {
    /// The collection.
    pub collection: &'static str,
    /// Top-level JSON fields and the text they must equal.
    pub filters: Vec<(&'static str, String)>,
    /// Only ids after this one in the order asked for.
    pub after: Option<String>,
    /// Whether the highest id comes first.
    pub descending: bool,
    /// How many at most.
    pub limit: usize,
}

/// The store does not answer, or not sensibly: a gate for the engine, never a message's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Why a store cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// It does not answer, and may do so later.
    #[error(transparent)]
    Away(#[from] StoreError),
    /// It answers, and will not do; the text names the remedy.
    #[error("{0}")]
    Unfit(String),
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
    #[error("the store is away: {0}")]
    Away(String),
    /// The store is away; only the journal can tell whether the batch was committed.
    #[error("the outcome of a commit is unknown: {0}")]
    Unknown(String),
}
