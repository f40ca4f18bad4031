//! How a command ends.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use millstream_core::planner::Reply;
use serde::de::DeserializeOwned;

use crate::handler::Reject;
use crate::ids::Id;

/// A command that is durably done, and its reply of type `R`.
///
/// As an answer to a request it is 200 with the reply as JSON, byte for byte the same when a request is repeated, and the header
/// `idempotency-replayed: true` with a repeat. Another status is put before it: `(StatusCode::ACCEPTED, accepted)`.
pub struct Accepted<R> {
    /// The command's id; of the first one, if this is a repeat under its idempotency key.
    pub id: Id,
    /// Whether this repeats an earlier command.
    pub repeated: bool,
    pub(crate) json: Bytes,
    reply: PhantomData<fn() -> R>,
}

impl<R> Accepted<R> {
    pub(crate) fn new(Reply { id, reply, repeated }: Reply) -> Self {
        Self { id, repeated, json: reply, reply: PhantomData }
    }

    /// The reply as JSON, as it was committed.
    pub fn json(&self) -> &Bytes {
        &self.json
    }
}

impl<R: DeserializeOwned> Accepted<R> {
    /// The reply.
    ///
    /// # Errors
    /// [`CommandError::Unreadable`] when it repeats a command of another release, whose reply looked different.
    pub fn reply(&self) -> Result<R, CommandError> {
        serde_json::from_slice(&self.json).map_err(|error| CommandError::Unreadable(error.to_string()))
    }
}

impl<R> Clone for Accepted<R> {
    fn clone(&self) -> Self {
        Self { id: self.id, repeated: self.repeated, json: self.json.clone(), reply: PhantomData }
    }
}

impl<R> fmt::Debug for Accepted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("id", &self.id)
            .field("repeated", &self.repeated)
            .field("json", &self.json)
            .finish()
    }
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
    /// It panicked, or staged what it must not; the log says what.
    #[error("internal error")]
    Panicked,
    /// It is done, and its reply is not of the type expected.
    #[error("the reply cannot be read: {0}")]
    Unreadable(String),
}

/// What a command is told that comes while the service stops.
pub(crate) fn stopping() -> CommandError {
    CommandError::Unavailable("the service is shutting down".into())
}
