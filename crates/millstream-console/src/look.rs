//! Turns one poll of the broker into series; what no longer exists has none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millstream::Timestamp;
use millstream::operator::dead::{DeadFilter, Letters, Moves};
use millstream::operator::status::SystemStatus;
use millstream::telemetry::Snapshot;
use millstream::telemetry::metrics::{REASONS, UNKNOWN_EVENT};

use crate::metrics::{
    ACK_PENDING, DEAD_LETTER_AGE, DEAD_LETTERS, INSTANCES, OBSERVED, OLDEST_UNACKED, PENDING, REDELIVERED,
    REDRIVE_OUTCOMES, REDRIVES, STREAM_BYTES, STREAM_LAST, STREAM_MESSAGES, STREAM_RATIO, WAITING,
};

/// Label for dead letters with an unknown reason.
const UNKNOWN_REASON: &str = "unknown";

/// The result of a poll, as series.
pub(crate) fn snapshot(status: SystemStatus, letters: &Letters) -> Snapshot {
    let mut snapshot = Snapshot::new(OBSERVED);
    for stream in &status.streams {
        let name = stream.name.as_str();
        snapshot.set(&STREAM_MESSAGES, &[name], stream.messages as f64);
        snapshot.set(&STREAM_BYTES, &[name], stream.bytes as f64);
        snapshot.set(&STREAM_LAST, &[name], stream.last_sequence as f64);
        let ratio = stream.max_bytes.map_or(0.0, |max| stream.bytes as f64 / max as f64);
        snapshot.set(&STREAM_RATIO, &[name], ratio);
    }
    let mut events: HashMap<String, BTreeSet<String>> = HashMap::new();
    for consumer in status.consumers {
        let labels = [consumer.stream.as_str(), consumer.name.as_str()];
        snapshot.set(&PENDING, &labels, consumer.pending as f64);
        snapshot.set(&ACK_PENDING, &labels, consumer.ack_pending as f64);
        snapshot.set(&REDELIVERED, &labels, consumer.redelivered as f64);
        snapshot.set(&WAITING, &labels, consumer.waiting as f64);
        snapshot.set(&OLDEST_UNACKED, &labels, consumer.oldest_age_seconds);
        // A durable has the name of its service, and the events it handles are a closed set.
        events.entry(consumer.name).or_default().extend(consumer.events);
    }
    let mut instances: BTreeMap<(String, String), u64> = BTreeMap::new();
    for instance in status.instances {
        *instances.entry((instance.service, instance.version)).or_default() += 1;
    }
    for (service, moves) in letters.services() {
        dead_letters(&mut snapshot, letters, service, events.get(service));
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
    snapshot
}

/// Number and age of a service's unresolved dead letters.
fn dead_letters(snapshot: &mut Snapshot, letters: &Letters, service: &str, events: Option<&BTreeSet<String>>) {
    let of_set = |event| events.is_none_or(|events| events.is_empty() || events.contains(event));
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for event in events.into_iter().flatten().map(String::as_str).chain([UNKNOWN_EVENT]) {
        counts.extend(REASONS.iter().map(|reason| ((event, *reason), 0)));
    }
    let mut oldest: Option<Timestamp> = None;
    let dead = letters.list(&DeadFilter { service: Some(service.into()), ..DeadFilter::default() });
    for letter in dead {
        let event = if of_set(&letter.event) { letter.event.as_str() } else { UNKNOWN_EVENT };
        let reason = REASONS.iter().find(|reason| **reason == letter.reason).unwrap_or(&UNKNOWN_REASON);
        *counts.entry((event, reason)).or_default() += 1;
        let failed = letter.last_failure.unwrap_or(letter.at);
        oldest = Some(oldest.map_or(failed, |oldest| oldest.min(failed)));
    }
    for ((event, reason), count) in counts {
        snapshot.set(&DEAD_LETTERS, &[service, event, reason], count as f64);
    }
    let age = oldest.map_or(0.0, |oldest| Timestamp::system().since(oldest).as_secs_f64());
    snapshot.set(&DEAD_LETTER_AGE, &[service], age);
}
