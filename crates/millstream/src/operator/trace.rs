//! Everything that one order or one request set off. Nothing is kept for it: an id says its time and its partition, so that
//! seconds of one eighth of a stream are read; a correlation id is searched for. What was handled is asked of the services.

use std::time::Duration;

use serde::Serialize;

use crate::ids::Timestamp;
use crate::operator::dead::DeadLetter;
use crate::operator::tail::Shown;
use crate::operator::wakes::PendingWake;
use crate::operator::{Operator, OperatorError};

/// What one order or request set off.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// What was asked for.
    pub id: String,
    /// Its events in the order of their causes, then of time.
    pub events: Vec<TracedEvent>,
    /// Dead letters of it.
    pub dead: Vec<DeadLetter>,
    /// What services will still do about it.
    pub wakes: Vec<PendingWake>,
    /// What is missing, in words: an event whose cause was not found, one that a consumer has not handled, a service that does not
    /// answer.
    pub gaps: Vec<String>,
}

/// An event, and who has handled it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TracedEvent {
    /// The event.
    #[serde(flatten)]
    pub event: Shown,
    /// How many causes before it were found: 0 for what set it all off.
    pub depth: u32,
    /// What became of it, for each service that is given events of its type.
    pub handled: Vec<Handled>,
}

/// What became of an event at a service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handled {
    /// The service.
    pub service: String,
    /// `done`, `parked`, `open` (it is tried again), `waiting` (not handled yet), `expired` (handled too long ago to tell), `silent`
    /// (the service does not answer).
    pub state: String,
    /// When it was last written of.
    pub at: Option<Timestamp>,
    /// Failed attempts.
    pub attempts: u32,
    /// How often it was redriven.
    pub redrives: u32,
    /// The last error.
    pub error: Option<String>,
    /// The instance that wrote it.
    pub instance: Option<String>,
}

/// How far a trace looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// How long before now a correlation id is searched for.
    pub since: Duration,
    /// How long after an order's beginning its events are looked for.
    pub within: Duration,
}

impl Default for Look {
    fn default() -> Self {
        Self { since: Duration::from_secs(3600), within: Duration::from_secs(3600) }
    }
}

impl Operator {
    /// What an order, an event or a request set off: `id` is a key, an event's id or a correlation id.
    ///
    /// # Errors
    /// When nothing is found, or the broker does not answer.
    pub async fn trace(&self, _id: &str, _look: Look) -> Result<Trace, OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }
}
