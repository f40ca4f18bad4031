//! One look at the broker: everything that is there becomes series, and what is gone has none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;
use async_nats::Client;
use async_nats::jetstream::Context;
use millstream::Timestamp;
use millstream::operator::Operator;
use millstream::telemetry::Snapshot;
use millstream::telemetry::metrics::{REASONS, UNKNOWN_EVENT};

use crate::letters::{Known, Letter};
use crate::metrics::{
    ACK_PENDING, DEAD_LETTER_AGE, DEAD_LETTERS, INSTANCES, OBSERVED, OLDEST_UNACKED, PENDING, REDELIVERED,
    REDRIVE_OUTCOMES, REDRIVES, STREAM_BYTES, STREAM_LAST, STREAM_MESSAGES, STREAM_RATIO, WAITING,
};

/// Looks at one broker.
pub(crate) struct Observer {
    client: Client,
    jetstream: Context,
    /// By service.
    letters: BTreeMap<String, Known>,
}

impl Observer {
    pub(crate) fn new(client: Client, jetstream: Context) -> Self {
        Self { client, jetstream, letters: BTreeMap::new() }
    }

    /// What is there now.
    pub(crate) async fn look(&mut self) -> Result<Snapshot> {
        let status = Operator::new(self.client.clone()).status().await?;
        let mut snapshot = Snapshot::new(OBSERVED);
        let mut events: HashMap<String, BTreeSet<String>> = HashMap::new();
        let mut dead = vec![];
        for stream in &status.streams {
            let name = stream.name.as_str();
            snapshot.set(&STREAM_MESSAGES, &[name], stream.messages as f64);
            snapshot.set(&STREAM_BYTES, &[name], stream.bytes as f64);
            snapshot.set(&STREAM_LAST, &[name], stream.last_sequence as f64);
            let ratio = stream.max_bytes.map_or(0.0, |max| stream.bytes as f64 / max as f64);
            snapshot.set(&STREAM_RATIO, &[name], ratio);
            if let Some(service) = stream.dead_letters_of() {
                let stream = self.jetstream.get_stream_no_info(name).await?;
                let info = stream.get_info().await?;
                dead.push((service.to_owned(), stream, info));
            }
        }
        for consumer in status.consumers {
            let labels = [consumer.stream.as_str(), consumer.name.as_str()];
            snapshot.set(&PENDING, &labels, consumer.pending as f64);
            snapshot.set(&ACK_PENDING, &labels, consumer.ack_pending as f64);
            snapshot.set(&REDELIVERED, &labels, consumer.redelivered as f64);
            snapshot.set(&WAITING, &labels, consumer.waiting as f64);
            snapshot.set(&OLDEST_UNACKED, &labels, consumer.oldest_age_seconds);
            events.entry(consumer.name).or_default().extend(consumer.events);
        }
        let mut instances: BTreeMap<(String, String), u64> = BTreeMap::new();
        for instance in status.instances {
            *instances.entry((instance.service, instance.version)).or_default() += 1;
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
}
