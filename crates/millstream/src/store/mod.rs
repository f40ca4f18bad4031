//! The store port: what the engine asks of a database, and nothing more. An adapter passes [`conformance`].

use std::error::Error;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::ids::{Id, Timestamp};
pub use millstream_core::published::{Mark, Published};
pub use millstream_core::record::{
    Batch, Collection, CommitError, DocWrite, Entry, Expiry, Floor, IdempotencyKey, Instance, Key, KeyHash, Loaded,
    NewDoc, Settled, State, StoredDoc, WakesDue, Wanted,
};

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod memory;
#[cfg(feature = "mongodb")]
pub mod mongo;
pub(crate) mod query;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod url;

pub use url::StoreUrl;

pub use query::Query;

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
            let url = mongo::MongoUrl::read(url).map_err(StoreError::new)?;
            Ok(Arc::new(mongo::MongoStore::open(&url, None)?))
        }
        #[cfg(not(feature = "mongodb"))]
        Some(("mongodb" | "mongodb+srv", _)) => {
            Err(StoreError::new("this build has no MongoDB store, only SQLite: use sqlite:///path/to/file.db"))
        }
        _ => Err(StoreError::new("a store's URL is of the form sqlite:///path/to/file.db")),
    }
}

/// Opens the store of a service: in MongoDB a URL that names no database means the one of the service's name.
#[cfg_attr(not(feature = "mongodb"), expect(unused_variables, reason = "a file needs no other name"))]
pub(crate) fn open_for(url: &StoreUrl, service: &str) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        #[cfg(feature = "mongodb")]
        StoreUrl::Mongo(url) => Ok(Arc::new(mongo::MongoStore::open(url, Some(service))?)),
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::at(path)?)),
        #[cfg(not(feature = "sqlite"))]
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

    /// Documents by equality of JSON fields, sorted by id.
    fn find(&self, selection: Selection) -> BoxFuture<'_, Result<Vec<StoredDoc>, StoreError>>;

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

    /// Puts the mark `to` in the place of `from`, if that is the mark that is there; says whether it was.
    fn move_settled(&self, from: Settled, to: Settled) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Reads the mark for a stream.
    fn settled<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Option<Settled>, StoreError>>;

    /// Writes the marks of an instance for a stream, in place of those that are there. The instance need not have a row: its marks
    /// outlive it.
    fn put_published(&self, published: Published) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The marks of all instances for a stream, sorted by instance.
    fn published<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Vec<Published>, StoreError>>;

    /// Deletes the marks of an instance for a stream, if there are any.
    fn forget_published<'a>(&'a self, instance: Id, stream: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Deletes old journal entries, at most `limit` of them, and expired idempotency keys; see [`Expiry`]. In the same
    /// transaction raises each stream's mark to the highest sequence that it deletes, and to its floor's `until`. Returns how many
    /// entries went.
    fn expire(&self, expiry: Expiry) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Forgets everything: marks of both kinds, instance rows, keys, the journal and all documents. Collections and indexes stay.
    ///
    /// In one transaction if the database can; otherwise the marks go first and the documents last, so that a service which starts
    /// after half of it has no mark and, beside its durable, refuses to go on (calling this again finishes it). Its caller has
    /// seen that no other instance lives.
    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Asks whether the store answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Documents of a collection, sorted by id: a [`Query`] as the port sees it.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The collection.
    pub collection: &'static str,
    /// JSON fields, nested ones with dots between the names, and the text they must equal.
    pub filters: Vec<(&'static str, String)>,
    /// Only ids after this one in the order asked for.
    pub after: Option<String>,
    /// Whether the highest id comes first.
    pub descending: bool,
    /// How many at most.
    pub limit: usize,
}

/// The store does not answer, or not sensibly: a gate for the engine, never a message's fault.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct StoreError {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// What the database said, or did not.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    /// With the error behind it.
    #[must_use]
    pub fn with_source(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }
}

/// Two that say the same are the same.
impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for StoreError {}

/// Why a store cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// It does not answer, and may do so later.
    #[error(transparent)]
    Away(#[from] StoreError),
    /// It answers, and will not do; the text names the remedy.
    #[error("{0}")]
    Unfit(String),
}
