//! How a command ends.

use bytes::Bytes;

use crate::handler::Reject;
use crate::ids::Id;

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

/// What a command is told that comes while the service stops.
pub(crate) fn stopping() -> CommandError {
    CommandError::Unavailable("the service is shutting down".into())
}
