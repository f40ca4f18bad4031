//! The dead letters of one service, as known from its stream.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Info, Stream};
use futures_util::{StreamExt, TryStreamExt};
use millstream::Timestamp;
use millstream::event::{decode_header, header, split_type};
use millstream::telemetry::metrics::{REASONS, UNKNOWN_EVENT};
use serde::Serialize;

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
    /// Reads what has come since the last time, headers only, and forgets what is gone.
    pub(crate) async fn update(&mut self, service: &str, stream: &Stream<()>, info: &Info) -> Result<()> {
        let (created, last) = (info.created.unix_timestamp_nanos(), info.state.last_sequence);
        let seen = match self.read {
            Some((same, seen)) if same == created && seen <= last => seen,
            _ => {
                self.letters.clear();
                0
            }
        };
        if last > seen && info.state.messages > 0 {
            self.read_from(service, stream, info, seen + 1).await?;
        } else if self.letters.len() as u64 != info.state.messages {
            let subjects = stream.info_with_subjects(">").await?;
            let subjects: HashSet<String> = subjects.map_ok(|(subject, _)| subject).try_collect().await?;
            self.letters.retain(|subject, _| subjects.contains(subject));
        }
        self.read = Some((created, last));
        Ok(())
    }

    async fn read_from(&mut self, service: &str, stream: &Stream<()>, info: &Info, start: u64) -> Result<()> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: start },
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            inactive_threshold: Duration::from_secs(10),
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let mut left = usize::try_from(consumer.cached_info().num_pending)?;
        while left > 0 {
            let batch = left.min(1000);
            let mut messages = consumer.fetch().max_messages(batch).expires(Duration::from_secs(5)).messages().await?;
            while let Some(message) = messages.next().await {
                let message = message.map_err(anyhow::Error::from_boxed)?;
                let at = message.info().map_err(anyhow::Error::from_boxed)?;
                let (sequence, at) = (at.stream_sequence, at.published.unix_timestamp_nanos() / 1_000_000);
                let headers = message.headers.clone().unwrap_or_default();
                let subject = message.subject.to_string();
                let at = Timestamp(u64::try_from(at).unwrap_or_default());
                let letter = letter(service, &info.config.name, sequence, &subject, at, &headers);
                self.letters.insert(subject, letter);
            }
            left -= batch;
        }
        stream.delete_consumer(&consumer.cached_info().name).await?;
        Ok(())
    }
}

fn letter(service: &str, stream: &str, sequence: u64, subject: &str, at: Timestamp, headers: &HeaderMap) -> Letter {
    let get = |name: &str| headers.get(name).map(|value| decode_header(value.as_str()));
    let event = get(header::TYPE).and_then(|kind| split_type(&kind).map(|(name, _)| name.to_owned()));
    let reason = get("Millstream-Reason").filter(|reason| REASONS.contains(&reason.as_str()));
    Letter {
        service: service.into(),
        event: event.unwrap_or_else(|| UNKNOWN_EVENT.into()),
        reason: reason.unwrap_or_else(|| "unknown".into()),
        error: get("Millstream-Error").unwrap_or_default(),
        stream: stream.into(),
        sequence,
        subject: subject.into(),
        at,
    }
}
