//! Sending acks and naks, from a task of its own.

use std::sync::Arc;

use async_nats::Subject;
use async_nats::jetstream::AckKind;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::engine::meters::Meters;

/// Sends acks and naks from a task of its own, so that the loop never waits for the connection.
#[derive(Clone)]
pub(crate) struct Acker(mpsc::UnboundedSender<Vec<(Subject, AckKind)>>);

impl Acker {
    /// An acker and the task that sends for it until the last acker is dropped.
    pub(crate) fn new(broker: &Broker, meters: Arc<Meters>) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (acks, mut queue) = mpsc::unbounded_channel::<Vec<(Subject, AckKind)>>();
        let client = broker.client.clone();
        let task = async move {
            while let Some(batch) = queue.recv().await {
                let started = Instant::now();
                for (reply, kind) in batch {
                    fail::fail_point!("before_ack");
                    // A lost ack is a redelivery that the journal answers.
                    if let Err(error) = client.publish(reply, kind.into()).await {
                        tracing::debug!(%error, "ack not sent");
                    }
                    fail::fail_point!("after_ack");
                }
                meters.exchanged("ack", started);
            }
        };
        (Self(acks), task)
    }

    pub(crate) fn send(&self, batch: Vec<(Subject, AckKind)>) {
        // The task ends only after the last acker is gone.
        let _ = self.0.send(batch);
    }
}
