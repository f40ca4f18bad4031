//! Who did what, when and why. An entry is stored before the act, so that nothing is done that nobody answers for.

use serde::{Deserialize, Serialize};

use crate::ids::{Id, Timestamp};
use crate::operator::{Operator, OperatorError};

/// The stream of audit entries; `audit.<service>.<action>.<subject's id>`.
pub const STREAM: &str = "AUDIT";

/// What was about to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// `redrive`, `edit`, `discard`, `move`, `fire`, `cancel`, `reveal`.
    pub action: String,
    /// The service it is done to.
    pub service: String,
    /// What it is done to: the id of a dead letter, or a wake's `collection/document`.
    pub what: String,
    /// Why, in the actor's own words.
    pub why: String,
    /// More of it: the redrive's number, the new time of a wake, the difference that an edit makes.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

impl Operator {
    /// Stores entries, and returns when the broker has them all.
    ///
    /// # Errors
    /// When the broker does not take them; then nothing may be done.
    pub async fn audit(&self, _entries: &[AuditEntry]) -> Result<(), OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }

    /// The last entries, the newest first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn audited(&self, _limit: usize) -> Result<Vec<AuditEntry>, OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }

    /// The entries about one dead letter or wake, the oldest first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn audited_about(&self, _id: Id) -> Result<Vec<AuditEntry>, OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }
}
