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
use millstream::telemetry::Snapshot;
use millstream::telemetry::metrics::{REASONS, UNKNOWN_EVENT};
use serde::Deserialize;

use crate::letters::{Known, Letter, millis};
use crate::metrics::{
    ACK_PENDING, DEAD_LETTER_AGE, DEAD_LETTERS, INSTANCES, OBSERVED, OLDEST_UNACKED, PENDING, REDELIVERED,
    REDRIVE_OUTCOMES, REDRIVES, STREAM_BYTES, STREAM_LAST, STREAM_MESSAGES, STREAM_RATIO, WAITING,
};

/// How long after an instance's answer another one is waited for.
const QUIET: Duration = Duration::from_millis(300);
/// How long answers of instances are waited for.
const ANSWERS: Duration = Duration::from_secs(1);

/// Looks at one broker.
pub(crate) struct Observer {
    client: Client,
    jetstream: Context,
    /// By service.
    letters: BTreeMap<String, Known>,
}

/// An answer to `$SRV.PING`, as far as it is of interest.
#[derive(Deserialize)]
struct Pong {
    name: String,
    version: String,
}

impl Observer {
    pub(crate) fn new(client: Client, jetstream: Context) -> Self {
        Self { client, jetstream, letters: BTreeMap::new() }
    }

    /// What is there now.
    pub(crate) async fn look(&mut self) -> Result<Snapshot> {
        let (streams, mut instances) = tokio::try_join!(self.streams(), self.instances())?;
        let mut snapshot = Snapshot::new(OBSERVED);
        let mut events: HashMap<String, BTreeSet<String>> = HashMap::new();
        let mut dead = vec![];
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
            if let Some(service) = dead_letters_of(&info) {
                dead.push((service.to_owned(), stream, info));
            }
        }
        let now = Timestamp::system();
        let services: BTreeSet<String> = dead.iter().map(|(service, ..)| service.clone()).collect();
        self.letters.retain(|service, _| services.contains(service));
        for (service, stream, info) in &dead {
            let known = self.letters.entry(service.clone()).or_default();
            known.update(service, &self.client, stream, info).await?;
            // A durable has its service's name, and what it handles is a closed set.
            let events = events.entry(service.clone()).or_default();
            let foreign = |letter: &&mut Letter| !events.is_empty() && !events.contains(&letter.event);
            known.letters.values_mut().filter(foreign).for_each(|letter| letter.event = UNKNOWN_EVENT.into());
            let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
            for event in events.iter().map(String::as_str).chain([UNKNOWN_EVENT]) {
                counts.extend(REASONS.iter().map(|reason| ((event, *reason), 0)));
            }
            for letter in known.letters.values() {
                *counts.entry((&letter.event, &letter.reason)).or_default() += 1;
            }
            for ((event, reason), count) in counts {
                snapshot.set(&DEAD_LETTERS, &[service, event, reason], count as f64);
            }
            let oldest = known.letters.values().map(|letter| letter.at).min();
            let age = oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
            snapshot.set(&DEAD_LETTER_AGE, &[service], age);
            for outcome in REDRIVE_OUTCOMES {
                snapshot.set(&REDRIVES, &[service, outcome], 0.0);
            }
            if !instances.keys().any(|(name, _)| name == service) {
                instances.insert((service.clone(), String::new()), 0);
            }
        }
        for ((service, version), count) in &instances {
            snapshot.set(&INSTANCES, &[service, version], *count as f64);
        }
        Ok(snapshot)
    }

    /// The dead letters as of the last look, the oldest first.
    pub(crate) fn letters(&self) -> Vec<Letter> {
        let all = self.letters.values().flat_map(|known| known.letters.values());
        let mut all: Vec<Letter> = all.cloned().collect();
        all.sort_unstable_by_key(|letter| (letter.at, letter.sequence));
        all
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

/// The service whose dead letters a stream has.
fn dead_letters_of(info: &StreamInfo) -> Option<&str> {
    let subject = info.config.subjects.first()?.strip_prefix("dlq.")?;
    let (service, _) = subject.split_once('.')?;
    info.config.name.starts_with("DLQ_").then_some(service)
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
