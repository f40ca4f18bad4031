//! What is there: streams, consumers, instances.

use serde::Serialize;

use crate::ids::Timestamp;
use crate::operator::{Operator, OperatorError};

/// A system at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemStatus {
    /// All streams, by name.
    pub streams: Vec<StreamStatus>,
    /// All durable consumers, by stream and name.
    pub consumers: Vec<ConsumerStatus>,
    /// All instances that answer, by service.
    pub instances: Vec<InstanceStatus>,
}

/// A stream.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub subjects: Vec<String>,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// How many bytes it may hold; `None` if there is no limit.
    pub max_bytes: Option<u64>,
    /// Its first message's sequence.
    pub first_sequence: u64,
    /// Its last message's sequence.
    pub last_sequence: u64,
    /// When it was made.
    pub created: Timestamp,
    /// The number of its partitions, if it is a domain's.
    pub partitions: Option<u32>,
    /// The release that last declared it.
    pub release: Option<String>,
}

/// A durable consumer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStatus {
    /// Its stream.
    pub stream: String,
    /// Its name, which is its service's.
    pub name: String,
    /// The types of event it is given.
    pub events: Vec<String>,
    /// Messages it has not been given.
    pub pending: u64,
    /// Messages it has been given and has not acked.
    pub ack_pending: u64,
    /// Of those, how many it was given more than once.
    pub redelivered: u64,
    /// Pulls that wait.
    pub waiting: u64,
    /// Everything up to this sequence is acked.
    pub ack_floor: u64,
    /// Age of the oldest message that is not acked, in seconds; 0 if there is none.
    pub oldest_age_seconds: f64,
}

/// An instance of a service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// The service.
    pub service: String,
    /// The instance's id.
    pub instance: String,
    /// Its release.
    pub version: String,
    /// The revision of its source, if known.
    pub revision: String,
    /// When it started.
    pub started: Option<Timestamp>,
    /// Its health, as `/health` says it.
    pub health: serde_json::Value,
    /// Its counters since it started, by name.
    pub totals: serde_json::Value,
}

impl Operator {
    /// What is there now.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn status(&self) -> Result<SystemStatus, OperatorError> {
        Err(OperatorError::Away("not built yet".into()))
    }
}
