//! What a route handler works with: commands go in through the engine, reads go to the store.

use bytes::Bytes;

use crate::handler::{Command, Document, Reject};
use crate::ids::Id;
use crate::store::{Query, StoreError};

/// The service, as its routes see it. Cheap to clone.
#[derive(Clone)]
pub struct Context {}

/// Who asks, and under which key: read from a request's headers, an axum extractor.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// `X-Correlation-Id`, or one made for this request.
    pub correlation: String,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The method.
    pub method: String,
    /// The route's template, `/orders/{id}`.
    pub route: String,
}

/// A command that is durably done.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The command's id; of the first one, if this is a repeat under its idempotency key.
    pub id: Id,
    /// The reply as JSON.
    pub reply: Bytes,
    /// Whether this repeats an earlier command.
    pub repeated: bool,
}

/// Why a command is not done, or not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The command's own decision.
    #[error("{}", .0.detail)]
    Rejected(Reject),
    /// The idempotency key stands for a different command.
    #[error("this Idempotency-Key was used for a different request")]
    KeyReused,
    /// An event it would emit is larger than the broker takes.
    #[error("{0}")]
    TooLarge(String),
    /// Not now; nothing was done.
    #[error("{0}")]
    Unavailable(String),
    /// The store did not say whether the commit happened; a repeat under the same idempotency key will tell.
    #[error("outcome unknown: repeat with the same Idempotency-Key")]
    OutcomeUnknown,
    /// It panicked.
    #[error("internal error")]
    Panicked,
}

impl Context {
    /// Executes a command: answers once its commit is durable.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn submit<C: Command>(&self, caller: &Caller, command: C) -> Result<Accepted, CommandError> {
        let _ = (caller, command);
        Err(CommandError::Unavailable("not started".into()))
    }

    /// Reads one document.
    ///
    /// # Errors
    /// When the store is away, or the document does not parse.
    pub async fn get<D: Document>(&self, id: &str) -> Result<Option<D>, StoreError> {
        let _ = id;
        Ok(None)
    }

    /// Finds documents by equality of indexed fields, sorted by id.
    ///
    /// # Errors
    /// When the store is away, or a document does not parse.
    pub async fn find<D: Document>(&self, query: Query) -> Result<Vec<D>, StoreError> {
        let _ = query;
        Ok(vec![])
    }
}
