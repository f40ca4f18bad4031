//! Events as they come.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

use serde::Serialize;

use crate::event::{header, partition, split_type};
use crate::ids::{Id, Timestamp};
use crate::operator::exact::Exact;
use crate::operator::personal;
use crate::operator::read::{ReadFrom, Stored};
use crate::operator::status::StreamStatus;
use crate::operator::{Operator, OperatorError};

/// An event as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Its stream.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// When it was stored.
    pub at: Timestamp,
    /// Its id.
    pub id: Option<Id>,
    /// Its type with its version, `orders.created.v1`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The service that emitted it.
    pub source: Option<String>,
    /// When it happened.
    pub time: Option<Timestamp>,
    /// What it is about.
    pub key: Option<String>,
    /// The correlation id.
    pub correlation: Option<String>,
    /// The id of what caused it.
    pub causation: Option<String>,
    /// The names of the body's fields that are personal.
    pub personal: Vec<String>,
    /// All headers as they were given.
    pub headers: Vec<(String, String)>,
    /// The body: JSON as it is, anything else as a text that says its length.
    pub payload: Exact,
}

impl Shown {
    /// A stored message, decoded.
    pub fn of(stored: &Stored) -> Self {
        let get = |name: &str| stored.header(name);
        // What the broker adds to a message when it gives it to a reader.
        let added = |name: &str| name.starts_with("Nats-") && name != header::MSG_ID;
        let payload = Exact::read(&stored.payload)
            .unwrap_or_else(|_| Exact::text(&format!("{} bytes that are not JSON", stored.payload.len())));
        Self {
            stream: stored.stream.clone(),
            sequence: stored.sequence,
            subject: stored.subject.clone(),
            at: stored.at,
            id: stored.id(),
            kind: get(header::TYPE),
            source: get(header::SOURCE),
            time: get(header::TIME).and_then(|time| time.parse().ok()),
            key: get(header::SUBJECT),
            correlation: get(header::CORRELATION),
            causation: get(header::CAUSATION),
            personal: personal::names(get(header::PERSONAL)),
            headers: stored.all_headers().into_iter().filter(|(name, _)| !added(name)).collect(),
            payload,
        }
    }

    /// Masks the values of personal fields.
    pub fn mask(&mut self) {
        self.payload.mask(&self.personal);
    }

    /// The type without its version.
    pub fn event(&self) -> Option<&str> {
        Some(split_type(self.kind.as_deref()?)?.0)
    }
}

/// Which events are meant; what is not named is not filtered by.
#[derive(Clone, Debug, Default)]
pub struct TailFilter {
    /// Of this stream.
    pub stream: Option<String>,
    /// Of this type, without its version.
    pub event: Option<String>,
    /// About this key.
    pub key: Option<String>,
    /// With this correlation id.
    pub correlation: Option<String>,
}

impl TailFilter {
    /// Whether all is meant: then sequences tell how many there are.
    fn is_open(&self) -> bool {
        self.event.is_none() && self.key.is_none() && self.correlation.is_none()
    }

    fn fits(&self, stored: &Stored) -> bool {
        let fits = |wanted: &Option<String>, have: &dyn Fn() -> Option<String>| {
            wanted.as_ref().is_none_or(|wanted| have().as_ref() == Some(wanted))
        };
        fits(&self.event, &|| stored.event())
            && fits(&self.key, &|| stored.header(header::SUBJECT))
            && fits(&self.correlation, &|| stored.header(header::CORRELATION))
    }

    /// What of a stream has to be read: one type of event, one partition.
    fn subjects(&self, stream: &StreamStatus) -> String {
        let event = self.event.as_deref().unwrap_or("*.*");
        match (&self.key, stream.partitions) {
            (Some(key), Some(partitions)) => format!("{event}.{}", partition(key, partitions)),
            _ if self.event.is_some() => format!("{event}.>"),
            _ => ">".into(),
        }
    }
}

/// Follows all event streams: where each is, and what has come since.
#[derive(Debug)]
pub struct Tail {
    operator: Operator,
    since: Timestamp,
    filter: TailFilter,
    /// By stream.
    places: HashMap<String, Place>,
}

/// How far a stream was read.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The stream's creation, which tells it from another of the same name.
    created: Timestamp,
    /// The sequence to go on with.
    next: u64,
}

impl Tail {
    /// Begins at a time: what was stored then or later is given.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn start(operator: Operator, since: Timestamp, filter: TailFilter) -> Result<Self, OperatorError> {
        let mut tail = Self { operator, since, filter, places: HashMap::new() };
        for stream in tail.streams().await? {
            let place = tail.place(&stream).await?;
            tail.places.insert(stream.name, place);
        }
        Ok(tail)
    }

    /// What has come since the last time, over all streams in the order of time, at most `limit`; and how many were skipped because
    /// there were more: the newest are given. Streams that are made meanwhile are found.
    ///
    /// # Errors
    /// When the broker does not answer; calling again goes on where it was.
    pub async fn next(&mut self, limit: usize) -> Result<(Vec<Stored>, u64), OperatorError> {
        let streams = self.streams().await?;
        let read = streams.iter().map(|stream| self.read(stream, limit));
        let read = futures_util::future::try_join_all(read).await?;
        let mut places = HashMap::new();
        let (mut found, mut skipped) = (vec![], 0);
        for (stream, Read { place, kept, passed }) in streams.into_iter().zip(read) {
            places.insert(stream.name, place);
            skipped += passed;
            // A clock that was set back must not put a stream's messages out of their order.
            let mut latest = Timestamp::default();
            found.extend(kept.into_iter().map(|message| {
                latest = latest.max(message.at);
                (latest, message)
            }));
        }
        found.sort_by_key(|(at, _)| *at);
        let over = found.len().saturating_sub(limit);
        skipped += over as u64;
        self.places = places;
        Ok((found.into_iter().skip(over).map(|(_, message)| message).collect(), skipped))
    }

    /// The streams that are followed: those of domains, or the one that is named.
    async fn streams(&self) -> Result<Vec<StreamStatus>, OperatorError> {
        let mut streams = self.operator.streams().await?;
        match &self.filter.stream {
            Some(name) => {
                streams.retain(|stream| stream.name == *name);
                if streams.is_empty() {
                    return Err(OperatorError::NotFound(format!("there is no stream {name}")));
                }
            }
            None => streams.retain(|stream| stream.partitions.is_some()),
        }
        Ok(streams)
    }

    /// Where reading a stream goes on.
    async fn place(&self, stream: &StreamStatus) -> Result<Place, OperatorError> {
        if let Some(place) = self.places.get(&stream.name) {
            let next = if place.created == stream.created {
                // A broker that lost its tail counts on from before it.
                place.next.min(stream.last_sequence + 1)
            } else {
                stream.first_sequence
            };
            return Ok(Place { created: stream.created, next });
        }
        let first = self.operator.first(&stream.name, ">", ReadFrom::Time(self.since)).await?;
        // What is stored after this look at the stream has a higher sequence.
        let next = first.map_or(stream.last_sequence + 1, |first| first.sequence);
        Ok(Place { created: stream.created, next })
    }

    /// Reads what has come in a stream, and keeps the newest `limit` that fit.
    async fn read(&self, stream: &StreamStatus, limit: usize) -> Result<Read, OperatorError> {
        let mut place = self.place(stream).await?;
        let (mut kept, mut passed) = (VecDeque::new(), 0);
        if place.next > stream.last_sequence {
            return Ok(Read { place, kept, passed });
        }
        if self.filter.is_open() {
            let from = place.next.max(stream.first_sequence);
            place.next = from.max((stream.last_sequence + 1).saturating_sub(limit as u64));
            passed = place.next - from;
        }
        let subjects = self.filter.subjects(stream);
        let each = |message: Stored| {
            if message.sequence > stream.last_sequence {
                return ControlFlow::Break(());
            }
            if self.filter.fits(&message) {
                kept.push_back(message);
            }
            if kept.len() > limit {
                kept.pop_front();
                passed += 1;
            }
            ControlFlow::Continue(())
        };
        self.operator.read(&stream.name, &subjects, ReadFrom::Sequence(place.next), each).await?;
        place.next = stream.last_sequence + 1;
        Ok(Read { place, kept, passed })
    }
}

/// What was read of a stream.
struct Read {
    place: Place,
    kept: VecDeque<Stored>,
    passed: u64,
}
