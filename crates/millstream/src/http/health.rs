//! Health: `/livez` says that the process works, `/readyz` that it can do its whole job, `/health` tells both in detail.
//!
//! `/health` and `/readyz` answer 200 when all is well and 503 otherwise, as the health checks of other frameworks do;
//! `/livez` never depends on anything outside, so that a healthy process is not restarted because its database is away.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};

use crate::engine::arrival::Source;
use crate::engine::status::{Silence, Status};
use crate::engine::timing::Timing;
use crate::ids::Timestamp;
use crate::progress::Progress;

/// Tells how the engine is. It is asked for each health check, and so does no I/O.
pub trait Probe: Send + Sync + 'static {
    /// How it is now.
    fn health(&self) -> Health;

    /// Whether the service is stopping.
    fn draining(&self) -> bool {
        self.health().draining
    }
}

/// How a service is.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Whether the store answers.
    pub database: bool,
    /// Whether the broker is connected.
    pub broker: bool,
    /// The version of the broker; none before it was reached.
    pub broker_version: Option<String>,
    /// Why it cannot do its whole job, in plain sentences.
    pub waiting_for: Vec<String>,
    /// What an operator should know although the service works: messages that were gone before they were read, a database or a
    /// stream that was restored from a backup, what the broker's version lacks.
    pub notes: Vec<String>,
    /// Its consumers.
    pub consumers: Vec<ConsumerHealth>,
    /// How many more commands it accepts.
    pub commands_free: u64,
    /// Whether it is stopping.
    pub draining: bool,
    /// What outside of the system does not answer: the service does everything else meanwhile.
    pub unanswered: Vec<Unanswered>,
    /// Since when it cannot do its whole job.
    pub waiting_since: Option<Timestamp>,
    /// The wakes that are due, by kind.
    pub due: Vec<Due>,
    /// Replicas that it saw alive, that ended without a clean stop, and that none has replaced.
    pub missed: Option<Missed>,
}

/// Wakes of a kind that are due.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Due {
    /// Their kind.
    pub kind: String,
    /// Since when the earliest is due.
    pub since: Timestamp,
    /// How many are.
    pub waiting: u64,
}

/// Replicas that are missed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missed {
    /// How many.
    pub replicas: usize,
    /// When the first of them was last heard of.
    pub since: Timestamp,
}

/// A kind of effect whose outside does not answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unanswered {
    /// The kind of effect.
    pub effect: String,
    /// When the first attempt failed that no answer has followed.
    pub since: Timestamp,
    /// Effects that wait.
    pub waiting: u64,
}

/// How far a consumer is.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerHealth {
    /// The stream.
    pub stream: String,
    /// The durable's name.
    pub durable: String,
    /// Whether it pulls.
    pub pulling: bool,
    /// Whether another replica reads, and this one is there to take over.
    pub standby: bool,
    /// Messages that it has not been given yet.
    pub pending: u64,
    /// Messages that it was given and has not acked yet.
    pub ack_pending: u64,
}

impl Health {
    /// What stands between the service and its whole job; empty if it is ready.
    pub fn waiting(&self) -> Vec<String> {
        let mut waiting = self.waiting_for.clone();
        let mut unless = |fine: bool, why: String| {
            if !fine && self.waiting_for.is_empty() {
                waiting.push(why);
            }
        };
        unless(self.database, "the database does not answer".into());
        unless(self.broker, "the broker is not connected".into());
        for consumer in &self.consumers {
            unless(consumer.pulling, format!("the consumer {} of {} does not pull", consumer.durable, consumer.stream));
        }
        if self.draining {
            waiting.push("the service is stopping".into());
        }
        waiting
    }
}

impl Health {
    /// As `/health` shows it.
    pub(crate) fn to_json(&self) -> Value {
        let waiting = self.waiting();
        let up = |up: bool| if up { "UP" } else { "DOWN" };
        json!({
            "status": if waiting.is_empty() && self.unanswered.is_empty() { "UP" } else { "DEGRADED" },
            "timestamp": Timestamp::system(),
            "services": { "database": up(self.database), "messageBroker": up(self.broker) },
            "brokerVersion": self.broker_version,
            "consumers": self.consumers,
            "commandsAccepted": self.commands_free,
            "waitingFor": waiting,
            "waitingSince": self.waiting_since,
            "unanswered": self.unanswered,
            "due": self.due,
            "missed": self.missed,
            "notes": self.notes,
        })
    }
}

/// Tells the health routes how the engine is.
pub(crate) struct EngineProbe {
    status: Arc<Status>,
    timing: Timing,
}

impl EngineProbe {
    pub(crate) fn new(status: Arc<Status>, timing: Timing) -> Self {
        Self { status, timing }
    }
}

impl Probe for EngineProbe {
    fn health(&self) -> Health {
        let consumer = |(source, progress): (Arc<Source>, Arc<Progress>)| ConsumerHealth {
            stream: source.stream.into(),
            durable: source.consumer.into(),
            pulling: progress.pulling.load(Ordering::Acquire),
            standby: progress.stands_by(),
            pending: progress.pending.load(Ordering::Acquire),
            ack_pending: progress.ack_pending.load(Ordering::Acquire),
        };
        let unanswered = |(effect, Silence { since, waiting })| Unanswered { effect, since, waiting };
        let due = |(kind, Silence { since, waiting })| Due { kind, since, waiting };
        let missed = |(replicas, since)| Missed { replicas, since };
        let refuses = self.status.refuses(&self.timing).is_some();
        Health {
            database: self.status.store_up.load(Ordering::Acquire),
            broker: self.status.broker_up(),
            broker_version: self.status.broker_version(),
            waiting_for: self.status.waits(&self.timing),
            notes: self.status.broker_lacks().into_iter().chain(self.status.notes()).collect(),
            consumers: self.status.consumers().into_iter().map(consumer).collect(),
            commands_free: if refuses { 0 } else { self.status.room(&self.timing) },
            draining: self.draining(),
            unanswered: self.status.silences().into_iter().map(unanswered).collect(),
            waiting_since: self.status.unready_since(),
            due: self.status.due().into_iter().map(due).collect(),
            missed: self.status.missed().map(missed),
        }
    }

    fn draining(&self) -> bool {
        self.status.draining.load(Ordering::Acquire)
    }
}

pub(super) fn routes(probe: Arc<dyn Probe>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/readyz", get(ready))
        .with_state(probe)
        .route("/livez", get(async || Json(json!({ "status": "alive" }))))
}

async fn health(State(probe): State<Arc<dyn Probe>>) -> impl IntoResponse {
    let health = probe.health();
    (status(&health.waiting()), Json(health.to_json()))
}

async fn ready(State(probe): State<Arc<dyn Probe>>) -> impl IntoResponse {
    let health = probe.health();
    let waiting = health.waiting();
    let said = if waiting.is_empty() { "ready" } else { "waiting" };
    (status(&waiting), Json(json!({ "status": said, "waitingFor": waiting, "notes": health.notes })))
}

fn status(waiting: &[String]) -> StatusCode {
    if waiting.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_does_not_pull_makes_a_service_unready_though_the_broker_is_there() {
        let consumer = ConsumerHealth { stream: "ORDERS".into(), durable: "payments".into(), ..Default::default() };
        let mut health = Health { database: true, broker: true, consumers: vec![consumer], ..Default::default() };
        assert_eq!(health.waiting(), ["the consumer payments of ORDERS does not pull"]);
        health.consumers[0].pulling = true;
        assert!(health.waiting().is_empty());
    }
}
