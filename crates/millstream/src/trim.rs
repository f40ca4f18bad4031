//! Retention: the owner of a stream takes away what all its readers have, and knows when it is nearly full.
//!
//! Nothing is taken away that a reader still needs: a backlog becomes back pressure at the edge (commands are answered 503),
//! never a loss. A stream that nobody has read yet is kept whole, for its first reader may come late; its owner can name the readers
//! that are to come. A durable that was seen once holds the stream until it is made best effort, also while it is missing, for it
//! may come back; the stream's metadata remember it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::jetstream::stream::{Config as StreamConfig, Info};
use fail::fail_point;
use futures_util::TryStreamExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::capacity::Capacity;
use crate::declare::{BEST_EFFORT, READERS};
use crate::engine::meters::Meters;
use crate::engine::timing::{Clock, Timing};
use crate::ids::Timestamp;
use crate::raw;
use crate::release::Release;

/// The task that looks after one stream.
pub(crate) struct Trimmer {
    pub(crate) broker: Broker,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) release: Release,
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    pub(crate) meters: Arc<Meters>,
    /// Told when the stream cannot be found.
    pub(crate) missing: Arc<Notify>,
}

/// A durable, as far as trimming goes.
#[derive(Clone, Debug, PartialEq)]
struct Reader {
    name: String,
    best_effort: bool,
    /// All up to here is handled.
    ack_floor: u64,
    /// It has nothing to come, and nothing that is not acked.
    idle: bool,
}

impl Trimmer {
    /// Looks at the stream again and again, until it is dropped. Every replica of the owner does: trimming twice is trimming once.
    pub(crate) async fn run(self) {
        let (stream, mut held, mut told_at) = (self.capacity.stream.name, None, Instant::now());
        let mut last = 0;
        loop {
            let why = self.tick(&mut last).await.err();
            self.meters.trim_held(stream, why.is_some());
            // Without a connection there is nothing to say that was not said.
            if why != held && self.broker.is_up() {
                match &why {
                    Some(why) => tracing::warn!(stream, why, "trimming paused"),
                    None => tracing::info!(stream, after = ?told_at.elapsed(), "trimming resumed"),
                }
                (held, told_at) = (why, Instant::now());
            }
            tokio::time::sleep(self.timing.trim_every).await;
        }
    }

    /// Reads the stream first and its durables then: what is published in between lies above everything that is taken away.
    /// `last` is the stream's last sequence, here of the tick before: the broker stores a message a moment before a durable
    /// counts it as pending.
    async fn tick(&self, last: &mut u64) -> Result<(), String> {
        let name = self.capacity.stream.name;
        let stream = self.broker.jetstream.get_stream(name).await;
        let stream = stream.inspect_err(|_| self.missing.notify_one()).map_err(|error| error.to_string())?;
        let info = stream.cached_info();
        // A stream that was made anew begins anew.
        let before = std::mem::replace(last, info.state.last_sequence).min(info.state.last_sequence);
        let full = fullness(info);
        let was_full = self.capacity.set_full(full >= self.timing.admit_below);
        // Named for the stream, so that a test stops the one that it is about.
        fail_point!(format!("stream_read_{name}").as_str());
        let durables: Vec<Reader> = stream
            .consumers()
            .try_filter_map(async |consumer| Ok(Reader::of(&consumer)))
            .try_collect()
            .await
            .map_err(|error| format!("cannot list its consumers: {error}"))?;
        if self.capacity.is_full() && !was_full {
            let slowest = durables.iter().filter(|reader| !reader.best_effort && !reader.idle);
            let slowest = slowest.min_by_key(|reader| reader.ack_floor).map(|reader| reader.name.as_str());
            tracing::warn!(
                stream = name,
                slowest,
                "the stream is nearly full: commands are refused until its readers catch up"
            );
        }
        let was_read = info.config.metadata.contains_key(READERS) || !durables.is_empty();
        let known = self.remember(info, &durables).await;
        if let Some(missing) = known.iter().find(|known| durables.iter().all(|durable| durable.name != **known)) {
            let noted = if self.broker.declares { "" } else { "run `millstream declare`, " };
            return Err(format!(
                "the durable {missing} of {name} is missing: start its service, or, if it is gone for good, make a durable of \
                 that name with the metadata {BEST_EFFORT}=true, {noted}and delete it a minute later"
            ));
        }
        let old = self.first_younger(info).await?;
        let below = |floor| below(info, floor, old, self.timing.trim_above);
        // Only when there is something to trim: after a first start everybody is awaited.
        if let Some(why) = awaited(name, was_read, self.capacity.readers.as_deref(), &durables)
            && below(before) > info.state.first_sequence
        {
            return Err(why);
        }
        let below = below(floor(before, &durables));
        if below > info.state.first_sequence {
            let purged = stream.purge().sequence(below).await.map_err(|error| format!("cannot purge it: {error}"))?;
            self.meters.trimmed(name, purged.purged);
            tracing::debug!(stream = name, below, messages = purged.purged, "trimmed");
        }
        Ok(())
    }

    /// The durables that hold the stream: those that are there, and those that were. What is new is written into the stream's
    /// metadata, by the next tick if not by this one; or by whoever declares the stream, if that is not the service.
    async fn remember(&self, info: &Info, durables: &[Reader]) -> BTreeSet<String> {
        let noted = info.config.metadata.get(READERS).map_or("", String::as_str);
        let mut known: BTreeSet<String> =
            noted.split(',').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect();
        let before = known.clone();
        for durable in durables {
            if durable.best_effort {
                known.remove(&durable.name);
            } else {
                known.insert(durable.name.clone());
            }
        }
        let noted = info.config.metadata.contains_key(READERS) || durables.is_empty();
        let may = self.broker.declares && !self.release.is_older_than(&info.config.metadata);
        if (known != before || !noted) && may {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let mut config: StreamConfig = info.config.clone();
            config.metadata.insert(READERS.into(), names.join(","));
            if let Err(error) = self.broker.jetstream.update_stream(&config).await {
                tracing::debug!(%error, stream = config.name, "cannot store the readers of a stream yet");
            }
        }
        known
    }

    /// The first sequence that is younger than what is kept in any case; the stream's first if nothing is older.
    async fn first_younger(&self, info: &Info) -> Result<u64, String> {
        let cut = self.clock.now() - self.timing.trim_older_than;
        let millis = info.state.first_timestamp.unix_timestamp_nanos() / 1_000_000;
        if info.state.messages == 0 || u64::try_from(millis).is_ok_and(|oldest| Timestamp::from_millis(oldest) >= cut) {
            return Ok(info.state.first_sequence);
        }
        let wanted = serde_json::json!({ "start_time": cut, "next_by_subj": ">" });
        let found =
            raw::get(&self.broker.client, self.capacity.stream.name, &wanted, self.timing.publish_timeout).await;
        let found = found.map_err(|error| format!("its first young message cannot be found: {error}"))?;
        Ok(found.map_or(info.state.last_sequence + 1, |found| found.sequence))
    }
}

impl Reader {
    fn of(consumer: &async_nats::jetstream::consumer::Info) -> Option<Self> {
        Some(Self {
            name: consumer.config.durable_name.clone()?,
            best_effort: consumer.config.metadata.get(BEST_EFFORT).is_some_and(|value| value == "true"),
            ack_floor: consumer.ack_floor.stream_sequence,
            idle: consumer.num_pending == 0 && consumer.num_ack_pending == 0,
        })
    }
}

/// The share of its limit that a stream takes; 0 without a limit.
fn fullness(info: &Info) -> f64 {
    let limit = info.config.max_bytes;
    if limit > 0 { info.state.bytes as f64 / limit as f64 } else { 0.0 }
}

/// Which reader is yet to come, and holds all of the stream until then.
fn awaited(stream: &str, was_read: bool, named: Option<&[&str]>, durables: &[Reader]) -> Option<String> {
    let is_missing = |reader: &&&str| durables.iter().all(|durable| durable.name != **reader);
    match named {
        Some(named) => named.iter().find(is_missing).map(|reader| {
            format!(
                "{reader}, which is to read {stream}, has no durable on it: start that service, or do not name it in `read_by` \
                 any more"
            )
        }),
        None if was_read => None,
        None => Some(format!(
            "nobody has read {stream} yet, and what is trimmed would be missing for its first reader: start that service or, if \
             there is none, say so with `read_by([])` where the stream is published"
        )),
    }
}

/// All up to here is handled by everybody. `last` was the stream's last sequence well before the durables were read.
fn floor(last: u64, durables: &[Reader]) -> u64 {
    let holding = durables.iter().filter(|durable| !durable.best_effort);
    let floors = holding.map(|durable| if durable.idle { last } else { durable.ack_floor });
    floors.min().unwrap_or(last).min(last)
}

/// The sequence below which everything goes: what all have handled and is old, or, once the stream is too full, the oldest of
/// what all have handled, until there is some room again.
fn below(info: &Info, floor: u64, first_younger: u64, trim_above: f64) -> u64 {
    let state = &info.state;
    let mut below = first_younger;
    let full = fullness(info);
    if full > trim_above {
        let share = (full - trim_above + LESS) / full;
        let some = (state.messages as f64 * share).ceil() as u64;
        below = below.max(state.first_sequence + some);
    }
    below.min(floor + 1)
}

/// By how much of its limit a stream is emptied further than to where trimming begins.
const LESS: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(ack_floor: u64, idle: bool, best_effort: bool) -> Reader {
        Reader { name: "r".into(), best_effort, ack_floor, idle }
    }

    #[test]
    fn the_floor_is_the_least_of_what_all_have_handled() {
        for (readers, expected) in [
            // Nobody holds it any more. Whether somebody is yet to come is asked before.
            (vec![], 100),
            (vec![reader(40, false, false), reader(70, false, false)], 40),
            (vec![reader(40, true, false), reader(70, false, false)], 70),
            (vec![reader(40, true, false)], 100),
            (vec![reader(40, false, true), reader(70, false, false)], 70),
            // It has handled what came after the stream was read.
            (vec![reader(120, false, false)], 100),
        ] {
            assert_eq!(floor(100, &readers), expected, "{readers:?}");
        }
    }

    #[test]
    fn a_stream_is_kept_whole_for_a_reader_that_is_named_and_without_names_for_the_first() {
        let here = [reader(40, false, false)];
        for (was_read, named, durables, expected) in [
            (false, None, &[][..], Some("nobody has read S yet")),
            (true, None, &[], None),
            (true, None, &here, None),
            (false, Some(&[][..]), &[], None),
            (false, Some(&["r"]), &[], Some("r, which is to read S,")),
            (true, Some(&["r", "other"]), &here, Some("other, which is to read S,")),
            (true, Some(&["r"]), &here, None),
        ] {
            let why = awaited("S", was_read, named, durables);
            let fits = why
                .as_deref()
                .zip(expected)
                .map_or(why.is_none() && expected.is_none(), |(why, expected)| why.starts_with(expected));
            assert!(fits, "{was_read} {named:?} {durables:?}: {why:?}");
        }
    }

    fn info(bytes: u64) -> Info {
        serde_json::from_value(serde_json::json!({
            "config": StreamConfig { name: "S".into(), max_bytes: 1000, ..StreamConfig::default() },
            "created": "2026-01-31T12:00:00Z",
            "state": { "messages": 100, "bytes": bytes, "first_seq": 1001, "first_ts": "2026-01-31T12:00:00Z",
                       "last_seq": 1100, "last_ts": "2026-01-31T12:00:00Z", "consumer_count": 1 },
        }))
        .unwrap()
    }

    #[test]
    fn what_goes_is_old_or_the_oldest_of_a_full_stream_and_never_above_the_floor() {
        for (bytes, floor, first_younger, expected) in [
            (500, 1100, 1001, 1001),
            (500, 1100, 1050, 1050),
            (500, 1030, 1050, 1031),
            (500, 1000, 1050, 1001),
            (800, 1100, 1001, 1001),
            (1000, 1100, 1001, 1031),
            (1000, 1010, 1001, 1011),
            (1000, 1100, 1050, 1050),
        ] {
            assert_eq!(below(&info(bytes), floor, first_younger, 0.8), expected, "{bytes} {floor} {first_younger}");
        }
    }
}
