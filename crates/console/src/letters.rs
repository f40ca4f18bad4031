//! The dead letters of one service, as known from its stream.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, Stream};
use async_nats::{Client, StatusCode};
use futures_util::{StreamExt, TryStreamExt};
use millstream::Timestamp;
use millstream::event::{decode_header, header, split_type};
use millstream::telemetry::metrics::{REASONS, UNKNOWN_EVENT};
use serde::Serialize;
use serde_json::json;

/// A dead letter.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Letter {
    pub(crate) service: String,
    pub(crate) event: String,
    pub(crate) reason: String,
    pub(crate) error: String,
    pub(crate) stream: String,
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    /// When it was parked.
    pub(crate) at: Timestamp,
}

/// What is known of a service's dead letters: their subjects hold one each.
#[derive(Default)]
pub(crate) struct Known {
    /// When the stream was made, and up to which sequence it was read.
    read: Option<(i128, u64)>,
    pub(crate) letters: HashMap<String, Letter>,
}

impl Known {
    /// Reads what has come since the last time, and forgets what is gone.
    pub(crate) async fn update(
        &mut self,
        service: &str,
        client: &Client,
        stream: &Stream<()>,
        info: &Info,
    ) -> Result<()> {
        let (created, last) = (info.created.unix_timestamp_nanos(), info.state.last_sequence);
        let seen = match self.read {
            Some((same, seen)) if same == created && seen <= last => seen,
            _ => {
                self.letters.clear();
                0
            }
        };
        if last > seen && info.state.messages > 0 {
            self.read_from(service, client, info, seen + 1).await?;
        } else if self.letters.len() as u64 != info.state.messages {
            let subjects = stream.info_with_subjects(">").await?;
            let subjects: HashSet<String> = subjects.map_ok(|(subject, _)| subject).try_collect().await?;
            self.letters.retain(|subject, _| subjects.contains(subject));
        }
        self.read = Some((created, last));
        Ok(())
    }

    /// Reads with direct gets: they need no consumer, and so no right to make one.
    async fn read_from(&mut self, service: &str, client: &Client, info: &Info, mut next: u64) -> Result<()> {
        let stream = info.config.name.as_str();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        loop {
            let request = json!({ "seq": next, "batch": BATCH, "next_by_subj": ">" }).to_string();
            client.publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox.clone(), request.into()).await?;
            let before = next;
            loop {
                let answer =
                    tokio::time::timeout(PATIENCE, answers.next()).await?.context("the connection is closed")?;
                // The end of the batch, or nothing there.
                if answer.status.is_some_and(|status| status != StatusCode::OK) {
                    break;
                }
                let message = StreamMessage::try_from(answer)?;
                next = message.sequence + 1;
                let letter = letter(service, stream, &message);
                self.letters.insert(letter.subject.clone(), letter);
            }
            if next == before || next > info.state.last_sequence {
                return Ok(());
            }
        }
    }
}

/// Dead letters that are asked for at once.
const BATCH: u32 = 500;
/// How long the next of them is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

fn letter(service: &str, stream: &str, message: &StreamMessage) -> Letter {
    let get = |name: &str| message.headers.get(name).map(|value| decode_header(value.as_str()));
    let event = get(header::TYPE).and_then(|kind| split_type(&kind).map(|(name, _)| name.to_owned()));
    let reason = get("Millstream-Reason").filter(|reason| REASONS.contains(&reason.as_str()));
    Letter {
        service: service.into(),
        event: event.unwrap_or_else(|| UNKNOWN_EVENT.into()),
        reason: reason.unwrap_or_else(|| "unknown".into()),
        error: get("Millstream-Error").unwrap_or_default(),
        stream: stream.into(),
        sequence: message.sequence,
        subject: message.subject.to_string(),
        at: millis(message.time.unix_timestamp_nanos()),
    }
}

/// A time as the broker gives it, in nanoseconds since 1970.
fn millis(nanos: i128) -> Timestamp {
    Timestamp(u64::try_from(nanos / 1_000_000).unwrap_or_default())
}
