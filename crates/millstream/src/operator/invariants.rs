//! What checkers of invariants say of a system. A checker publishes each result to [`SUBJECT`], and answers its last one to
//! whoever asks on [`LAST`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::operator::{Operator, OperatorError};

/// Where results are published.
pub const SUBJECT: &str = "millstream.invariants";
/// Where the last result is asked for.
pub const LAST: &str = "millstream.invariants.last";

/// For how long a checker that says no more counts as slow.
const GRACE: Duration = Duration::from_secs(30);

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Who checks.
    pub source: String,
    /// When the check began.
    pub at: Timestamp,
    /// Within how many seconds of that the next result is to be expected; a checker of a large system takes its time.
    #[serde(default)]
    pub next_within: u64,
    /// What was checked.
    pub invariants: Vec<Invariant>,
}

/// Whether an invariant holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// The invariant.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was compared, or the first of what contradicts it.
    #[serde(default)]
    pub detail: String,
}

impl Told {
    /// Whether the next result should have come long ago: what this one says may no longer be so.
    pub fn is_outdated(&self, now: Timestamp) -> bool {
        now.since(self.at) > Duration::from_secs(self.next_within) + GRACE
    }
}

impl Operator {
    /// The last results of all checkers that answer.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn told(&self) -> Result<Vec<Told>, OperatorError> {
        let answers = self.ask_all(LAST).await?;
        let read = |payload: &[u8]| {
            serde_json::from_slice(payload)
                .map_err(|error| OperatorError::Away(format!("what a checker of invariants says: {error}")))
        };
        let mut told = answers.iter().map(|answer| read(&answer.payload)).collect::<Result<Vec<Told>, _>>()?;
        told.sort_by(|one, other| one.source.cmp(&other.source));
        Ok(told)
    }
}
