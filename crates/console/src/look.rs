//! One look at the broker: everything that is there becomes series, and what is gone has none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream::consumer::Info as ConsumerInfo;
use async_nats::jetstream::stream::{Info as StreamInfo, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, Subscriber};
use futures_util::{StreamExt, TryStreamExt};
use millstream::Timestamp;
use millstream::operator::Operator;
use millstream::operator::dead::{DeadFilter, DeadLetter, Letters, Moves};
use millstream::telemetry::Snapshot;
use millstream::telemetry::metrics::{REASONS, UNKNOWN_EVENT};
use serde::Deserialize;

use crate::metrics::{
    ACK_PENDING, DEAD_LETTER_AGE, DEAD_LETTERS, INSTANCES, OBSERVED, OLDEST_UNACKED, PENDING, REDELIVERED,
    REDRIVE_OUTCOMES, REDRIVES, STREAM_BYTES, STREAM_LAST, STREAM_MESSAGES, STREAM_RATIO, WAITING,
};

/// How long after an instance's answer another one is waited for.
const QUIET: Duration = Duration::from_millis(300);
/// How long answers of instances are waited for.
const ANSWERS: Duration = Duration::from_secs(1);
/// The reason of a dead letter that has none of ours.
const UNKNOWN_REASON: &str = "unknown";

/// Looks at one broker.
pub(crate) struct Observer {
    client: Client,
    jetstream: Context,
    operator: Operator,
    letters: Letters,
}

/// An answer to `$SRV.PING`, as far as it is of interest.
#[derive(Deserialize)]
struct Pong {
    name: String,
    version: String,
}

impl Observer {
    pub(crate) fn new(client: Client, jetstream: Context) -> Self {
        let operator = Operator::new(client.clone());
        Self { client, jetstream, operator, letters: Letters::default() }
    }

    /// What is there now.
    pub(crate) async fn look(&mut self) -> Result<Snapshot> {
        let (streams, mut instances) = tokio::try_join!(self.streams(), self.instances())?;
        let mut snapshot = Snapshot::new(OBSERVED);
        let mut events: HashMap<String, BTreeSet<String>> = HashMap::new();
        for info in streams {
            let name = info.config.name.as_str();
            let state = &info.state;
            snapshot.set(&STREAM_MESSAGES, &[name], state.messages as f64);
            snapshot.set(&STREAM_BYTES, &[name], state.bytes as f64);
            snapshot.set(&STREAM_LAST, &[name], state.last_sequence as f64);
            let ratio = if info.config.max_bytes > 0 { state.bytes as f64 / info.config.max_bytes as f64 } else { 0.0 };
            snapshot.set(&STREAM_RATIO, &[name], ratio);
            let stream = self.jetstream.get_stream_no_info(name).await?;
            let consumers: Vec<ConsumerInfo> = stream.consumers().try_collect().await?;
            for consumer in consumers.iter().filter(|consumer| consumer.config.durable_name.is_some()) {
                let labels = [name, consumer.name.as_str()];
                snapshot.set(&PENDING, &labels, consumer.num_pending as f64);
                snapshot.set(&ACK_PENDING, &labels, consumer.num_ack_pending as f64);
                snapshot.set(&REDELIVERED, &labels, consumer.num_redelivered as f64);
                snapshot.set(&WAITING, &labels, consumer.num_waiting as f64);
                snapshot.set(&OLDEST_UNACKED, &labels, oldest_unacked(&stream, consumer).await?);
                let handled =
                    filters(consumer).into_iter().filter_map(|filter| Some(filter.strip_suffix(".*")?.to_owned()));
                events.entry(consumer.name.clone()).or_default().extend(handled);
            }
        }
        self.letters.update(&self.operator).await?;
        let now = Timestamp::system();
        // Those that somebody has to deal with.
        let dead = self.letters.list(&DeadFilter::default());
        for (service, moves) in self.letters.services() {
            // A durable has its service's name, and what it handles is a closed set.
            let events = events.entry(service.to_owned()).or_default();
            let of_set = |event| events.is_empty() || events.contains(event);
            let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
            for event in events.iter().map(String::as_str).chain([UNKNOWN_EVENT]) {
                counts.extend(REASONS.iter().map(|reason| ((event, *reason), 0)));
            }
            let mut oldest: Option<Timestamp> = None;
            for letter in dead.iter().filter(|letter| letter.service == service) {
                let event = if of_set(&letter.event) { letter.event.as_str() } else { UNKNOWN_EVENT };
                let reason = REASONS.iter().find(|reason| **reason == letter.reason).unwrap_or(&UNKNOWN_REASON);
                *counts.entry((event, reason)).or_default() += 1;
                let failed = letter.last_failure.unwrap_or(letter.at);
                oldest = Some(oldest.map_or(failed, |oldest| oldest.min(failed)));
            }
            for ((event, reason), count) in counts {
                snapshot.set(&DEAD_LETTERS, &[service, event, reason], count as f64);
            }
            let age = oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
            snapshot.set(&DEAD_LETTER_AGE, &[service], age);
            let Moves { sent, handled, failed_again, discarded } = moves;
            for (outcome, count) in REDRIVE_OUTCOMES.into_iter().zip([sent, handled, failed_again, discarded]) {
                snapshot.set(&REDRIVES, &[service, outcome], count as f64);
            }
            if !instances.keys().any(|(name, _)| name == service) {
                instances.insert((service.to_owned(), String::new()), 0);
            }
        }
        for ((service, version), count) in &instances {
            snapshot.set(&INSTANCES, &[service, version], *count as f64);
        }
        Ok(snapshot)
    }

    /// The dead letters that somebody has to deal with as of the last look, the oldest first, if any have changed since `changes`.
    pub(crate) fn letters(&self, changes: &mut u64) -> Option<Vec<DeadLetter>> {
        let same = std::mem::replace(changes, self.letters.changes()) == self.letters.changes();
        (!same).then(|| self.letters.list(&DeadFilter::default()).into_iter().cloned().collect())
    }

    async fn streams(&self) -> Result<Vec<StreamInfo>> {
        Ok(self.jetstream.streams().try_collect().await?)
    }

    /// Who answers on the broker, by service and release.
    async fn instances(&self) -> Result<BTreeMap<(String, String), u64>> {
        let inbox = self.client.new_inbox();
        let mut answers: Subscriber = self.client.subscribe(inbox.clone()).await?;
        self.client.publish_with_reply("$SRV.PING", inbox, "".into()).await?;
        let mut found = BTreeMap::new();
        let until = tokio::time::Instant::now() + ANSWERS;
        loop {
            let quiet = (tokio::time::Instant::now() + QUIET).min(until);
            let Ok(Some(answer)) = tokio::time::timeout_at(quiet, answers.next()).await else { return Ok(found) };
            if let Ok(Pong { name, version }) = serde_json::from_slice(&answer.payload) {
                *found.entry((name, version)).or_default() += 1;
            }
        }
    }
}

fn filters(consumer: &ConsumerInfo) -> Vec<&str> {
    let config = &consumer.config;
    let mut filters: Vec<&str> = config.filter_subjects.iter().map(String::as_str).collect();
    if !config.filter_subject.is_empty() {
        filters.push(&config.filter_subject);
    }
    filters
}

/// The age in seconds of the first message after the ack floor that the consumer is for.
async fn oldest_unacked(stream: &Stream<()>, consumer: &ConsumerInfo) -> Result<f64> {
    if consumer.num_pending == 0 && consumer.num_ack_pending == 0 {
        return Ok(0.0);
    }
    let mut filters = filters(consumer);
    if filters.is_empty() {
        filters.push(">");
    }
    let mut oldest: Option<(u64, Timestamp)> = None;
    for filter in filters {
        let next =
            stream.raw_message_builder().sequence(consumer.ack_floor.stream_sequence + 1).next_by_subject(filter);
        match next.send().await {
            Ok(message) => {
                let found = (message.sequence, millis(message.time.unix_timestamp_nanos()));
                oldest = Some(oldest.map_or(found, |oldest| oldest.min(found)));
            }
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => {}
                LastRawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {}
                _ => return Err(error.into()),
            },
        }
    }
    Ok(oldest.map_or(0.0, |(_, at)| Timestamp::system().since(at).as_secs_f64()))
}

/// A time as the broker gives it, in nanoseconds since 1970.
fn millis(nanos: i128) -> Timestamp {
    Timestamp(u64::try_from(nanos / 1_000_000).unwrap_or_default())
}
