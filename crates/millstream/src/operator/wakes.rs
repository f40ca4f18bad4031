//! What services will do later: deadlines, charges, refunds, mails, and their retries. Asked of the services, and executed by
//! them as commands.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::operator::{By, Operator, OperatorError};

/// A wake that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingWake {
    /// The service.
    pub service: String,
    /// The collection of its document.
    pub collection: String,
    /// The document's id.
    pub document: String,
    /// What it is for: `deadline`, `charge`.
    pub kind: String,
    /// When it was set.
    pub opened: Timestamp,
    /// When it is due.
    pub at: Timestamp,
    /// How often it was tried.
    pub attempt: u32,
    /// Until when the instance that tries it has it to itself; none while no attempt is under way.
    #[serde(default)]
    pub lease: Option<Timestamp>,
    /// Tells one wake of a document from the next.
    pub generation: u64,
    /// Whether it may be cancelled.
    pub cancellable: bool,
    /// The correlation id of what set it.
    pub correlation: String,
}

/// What is done to a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "action")]
pub enum WakeAct {
    /// It is due at another time.
    Move {
        /// When.
        to: Timestamp,
    },
    /// It is due now.
    Fire,
    /// It is not due any more. Only what its kind allows: a deadline, never a charge that may have been sent.
    Cancel,
}

/// Which wakes are meant; what is not named is not filtered by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WakeFilter {
    /// Of this service.
    pub service: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Of this document.
    pub document: Option<String>,
}

impl Operator {
    /// What waits, the earliest first, at most `limit` for each service; and the services that did not answer.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn wakes(
        &self,
        _filter: &WakeFilter,
        _limit: usize,
    ) -> Result<(Vec<PendingWake>, Vec<String>), OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }

    /// Does something to a wake, if it is still as it was seen.
    ///
    /// # Errors
    /// When it has changed meanwhile, its kind does not allow it, or its service does not answer.
    pub async fn act_on(&self, _wake: &PendingWake, _act: WakeAct, _by: &By) -> Result<PendingWake, OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }
}
