//! Events as they come.

use serde::Serialize;
use serde_json::Value;

use crate::ids::{Id, Timestamp};
use crate::operator::read::Stored;
use crate::operator::{Operator, OperatorError};

/// An event as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Its stream.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// When it was stored.
    pub at: Timestamp,
    /// Its id.
    pub id: Option<Id>,
    /// Its type with its version, `orders.created.v1`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The service that emitted it.
    pub source: Option<String>,
    /// When it happened.
    pub time: Option<Timestamp>,
    /// What it is about.
    pub key: Option<String>,
    /// The correlation id.
    pub correlation: Option<String>,
    /// The id of what caused it.
    pub causation: Option<String>,
    /// The names of the body's fields that are personal.
    pub personal: Vec<String>,
    /// All headers as they were given.
    pub headers: Vec<(String, String)>,
    /// The body: JSON as it is, anything else as a text that says its length.
    pub payload: Value,
}

impl Shown {
    /// A stored message, decoded.
    pub fn of(_stored: &Stored) -> Self {
        unimplemented!("not built yet")
    }

    /// Puts `•••` in place of the values of personal fields, at any depth.
    pub fn mask(&mut self) {}
}

/// Which events are meant; what is not named is not filtered by.
#[derive(Clone, Debug, Default)]
pub struct TailFilter {
    /// Of this stream.
    pub stream: Option<String>,
    /// Of this type, without its version.
    pub event: Option<String>,
    /// About this key.
    pub key: Option<String>,
    /// With this correlation id.
    pub correlation: Option<String>,
}

/// Follows all event streams: where each is, and what has come since.
#[derive(Debug)]
pub struct Tail;

impl Tail {
    /// Begins at a time: what was stored then or later is given.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn start(_operator: Operator, _since: Timestamp, _filter: TailFilter) -> Result<Self, OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }

    /// What has come since the last time, over all streams in the order of time, at most `limit`; and how many were skipped because
    /// there were more. Streams that are made meanwhile are found.
    ///
    /// # Errors
    /// When the broker does not answer; calling again goes on where it was.
    pub async fn next(&mut self, _limit: usize) -> Result<(Vec<Stored>, u64), OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }
}
