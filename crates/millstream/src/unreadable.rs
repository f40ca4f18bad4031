//! Messages that the client cannot read: it closes its connection on one, and with the connection goes what was delivered beside it.
//! The broker delivers it again after the ack wait, and so on for ever.
//!
//! So after a connection was lost for no visible reason, what the durable has delivered and nobody has acked is looked at in another
//! form. What cannot be read is handed to the engine, which parks it with its bytes, and acked by its sequence.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::Subject;
use futures_util::{StreamExt, stream};
use millstream_core::planner::{Decoder, Incoming};
use millstream_core::stored;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::durable::info;
use crate::engine::arrival::{Arrival, MessageReceipt, Source};
use crate::engine::timing::Timing;
use crate::event::Emitted;
use crate::progress::{InEngine, Progress};
use crate::raw::{Raw, get};

/// Messages that are asked for at once.
const AT_ONCE: usize = 64;

/// Looks for them among what one durable has delivered.
pub(crate) struct Unreadable {
    pub(crate) broker: Broker,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) source: Arc<Source>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) inputs: mpsc::Sender<Arrival>,
    /// Set when nothing that is left from before the start stands in the way of pulling.
    pub(crate) looked: watch::Sender<bool>,
    pub(crate) timing: Timing,
}

/// What was looked at.
#[derive(Default)]
struct Seen {
    /// When the durable was made: another one may begin anywhere.
    created: String,
    /// All up to here.
    through: u64,
    /// What could not be read.
    found: BTreeSet<u64>,
}

impl Unreadable {
    /// Looks at the start, for the process before may have ended of one; after each reconnect to the same server; and after the
    /// second one within some ack waits to whichever.
    pub(crate) async fn run(self) {
        let mut link = self.broker.link.clone();
        let mut seen = Seen::default();
        // An ack before the durable has found its place would look like one of another database.
        while self.source.created().is_none() {
            tokio::time::sleep(self.timing.gate_retry.first).await;
        }
        // Longer than that pulling does not wait: much may be unacked, and little of it is of this kind.
        let first = tokio::time::timeout(self.timing.ack_wait, self.look(&mut seen)).await;
        if !seen.found.is_empty() {
            let parked = async {
                while self.progress.in_engine.load(Ordering::Acquire) > 0 {
                    tokio::time::sleep(self.timing.gate_retry.first).await;
                }
            };
            // Longer than that nobody waits: the store may be away.
            let _ = tokio::time::timeout(self.timing.publish_timeout, parked).await;
        }
        self.looked.send_replace(true);
        if !matches!(first, Ok(Ok(()))) {
            // What is left is looked at meanwhile; a look goes on where the one before has ended.
            self.look_until_done(&mut seen).await;
        }
        let mut server = self.server();
        let mut before: Option<Instant> = None;
        loop {
            if link.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if !link.borrow_and_update().up {
                continue;
            }
            let same = std::mem::replace(&mut server, self.server()) == server;
            let soon = before.replace(Instant::now()).is_some_and(|at| at.elapsed() < self.timing.ack_wait * 3);
            if same || soon {
                self.look_until_done(&mut seen).await;
            }
        }
    }

    /// Looks until it has seen everything, or the connection is lost.
    async fn look_until_done(&self, seen: &mut Seen) {
        while self.broker.is_up() {
            match self.look(seen).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(error, stream = self.source.stream, "what is unacked cannot be looked at");
                }
            }
            tokio::time::sleep(self.timing.gate_retry.longest).await;
        }
    }

    fn server(&self) -> String {
        self.broker.client.server_info().server_id
    }

    async fn look(&self, seen: &mut Seen) -> Result<(), String> {
        let Source { stream: name, consumer, .. } = *self.source;
        // Before the durable is looked at: an ack of what an earlier one has delivered is none of the next one's.
        let placed = self.progress.placed();
        let info = info(&self.broker, name, consumer).await?;
        let (floor, through) = (info.ack_floor.stream_sequence, info.delivered.stream_sequence);
        let created = info.created.to_string();
        if created != seen.created {
            *seen = Seen { created, ..Seen::default() };
        }
        seen.found.retain(|sequence| *sequence > floor);
        if info.num_ack_pending == 0 {
            return Ok(());
        }
        let mut filters = info.config.filter_subjects;
        filters.push(info.config.filter_subject);
        // What was found before may have lost its ack.
        let sequences: BTreeSet<u64> =
            seen.found.iter().copied().chain(floor.max(seen.through) + 1..=through).collect();
        let get = |sequence: u64| async move {
            get(&self.broker.client, name, &json!({ "seq": sequence }), self.timing.publish_timeout)
                .await
                .map(|raw| (sequence, raw))
        };
        let mut found = stream::iter(sequences).map(get).buffered(AT_ONCE);
        while let Some(looked) = found.next().await {
            let (sequence, raw) = looked?;
            if let Some(raw) = raw.filter(|raw| filters.iter().any(|filter| matches(filter, &raw.subject)))
                && let Some(why) = raw.unreadable()
            {
                tracing::error!(stream = name, sequence, why, "a message that the client cannot read; parking it");
                seen.found.insert(sequence);
                self.hand_over(raw, why, placed).await;
            }
            seen.through = seen.through.max(sequence);
        }
        Ok(())
    }

    /// Gives it to the engine. Its ack is by its sequence: it has no delivery that somebody has received.
    async fn hand_over(&self, raw: Raw, why: String, placed: u64) {
        let Raw { sequence: seq, subject, at: published, headers, payload } = raw;
        let Source { stream, consumer, .. } = *self.source;
        let reply = Subject::from(format!("$JS.ACK.{stream}.{consumer}.1.{seq}.{seq}.{}.0", published.millis()));
        let wire = Emitted { subject, headers: stored::lenient(&headers), payload: payload.clone() };
        // It may have been parked before, by this replica or by another.
        let delivered = 2;
        let incoming = Incoming { seq, delivered, given_before: true, published, wire: Box::new(wire), payload };
        let Some(delivery) = self.decoder.unreadable(incoming, why) else { return };
        let receipt = MessageReceipt {
            source: self.source.clone(),
            reply: Some(reply),
            received: Instant::now(),
            in_engine: InEngine::enter(&self.progress, placed),
        };
        // Without an engine there is nobody who parks it.
        let _ = self.inputs.send(Arrival::message(delivery, receipt)).await;
    }
}

/// Whether a filter lets a subject through.
fn matches(filter: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_matched_token_by_token() {
        for (filter, subject, expected) in [
            ("bank.moved.*", "bank.moved.0", true),
            ("bank.moved.*", "bank.paid.0", false),
            ("bank.moved.*", "bank.moved", false),
            ("bank.moved.*", "bank.moved.0.1", false),
            ("redrive.ledger.>", "redrive.ledger.x.y", true),
            ("redrive.ledger.>", "redrive.ledger", false),
            ("", "bank.moved.0", false),
        ] {
            assert_eq!(matches(filter, subject), expected, "{filter} {subject}");
        }
    }
}
