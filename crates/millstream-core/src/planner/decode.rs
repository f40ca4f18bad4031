//! Decoding: from a message on the wire to a delivery that can be decided on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use crate::event::{Meta, decode_header, header, split_type};
use crate::hash::{HashMap, HashSet};
use crate::ids::{Id, Timestamp};
use crate::planner::{Delivery, Wire};
use crate::redriven::Redriven;
use crate::unit::{Unread, Work, panic_text};
use crate::work::{AnyHandler, Nothing};

/// `event` of a message whose type no handler knows.
pub const UNKNOWN_EVENT: &str = "unknown";

/// Decodes what one durable delivers.
pub struct Decoder {
    /// The stream that is read.
    pub stream: &'static str,
    /// The durable.
    pub consumer: &'static str,
    /// The handlers, by type of event.
    pub handlers: HashMap<&'static str, Arc<dyn AnyHandler>>,
    /// Types that had a handler once.
    pub ignored: HashSet<&'static str>,
    /// Whether it is the work queue of redrives.
    pub redrives: bool,
}

/// A message as the broker delivers it.
pub struct Incoming {
    /// Its sequence in the stream.
    pub seq: u64,
    /// How often it has been delivered, this time included.
    pub delivered: i64,
    /// Whether a durable that was made anew since has given it to somebody.
    pub given_before: bool,
    /// When the broker took it.
    pub published: Timestamp,
    /// Subject and headers.
    pub wire: Box<dyn Wire>,
    /// The body.
    pub payload: Bytes,
}

/// What the headers of a message say of it; each is read once.
#[derive(Default)]
struct Attributes {
    id: Option<String>,
    ce_type: Option<String>,
    source: Option<String>,
    time: Option<String>,
    correlation: Option<String>,
    causation: Option<String>,
    traceparent: Option<String>,
}

impl Attributes {
    fn of(wire: &dyn Wire) -> Self {
        let mut all = Self::default();
        wire.each(&mut |name, value| {
            let attribute = match name {
                header::ID => &mut all.id,
                header::TYPE => &mut all.ce_type,
                header::SOURCE => &mut all.source,
                header::TIME => &mut all.time,
                header::CORRELATION => &mut all.correlation,
                header::CAUSATION => &mut all.causation,
                header::TRACEPARENT => &mut all.traceparent,
                _ => return,
            };
            attribute.get_or_insert_with(|| decode_header(value));
        });
        all
    }
}

impl Decoder {
    /// Reads a delivery. What no handler can read is a delivery as well, one that says why; `None` is something among the redrives
    /// that is none.
    pub fn decode(&self, incoming: Incoming) -> Option<Delivery> {
        let Incoming { seq, delivered, given_before, published, wire, payload } = incoming;
        let redriven = |name: &str| wire.header(name);
        let redriven = if self.redrives { Some(Redriven::read(redriven, wire.subject())?) } else { None };
        let mut attributes = Attributes::of(&*wire);
        let ce_type = attributes.ce_type.take();
        let meta = self.meta(attributes, seq, redriven.as_ref(), published);
        let (event, work) = self.work(ce_type, &meta, &payload);
        let (stream, consumer) = (self.stream, self.consumer);
        let id = meta.id;
        Some(Delivery {
            id,
            meta,
            event,
            work,
            stream,
            consumer,
            seq,
            published,
            settled: false,
            crowded: false,
            redriven,
            wire,
            payload,
            delivered,
            given_before,
        })
    }

    /// A message that came another way, for the client cannot read it as one: whatever it is, it is to be parked.
    pub fn unreadable(&self, incoming: Incoming, why: String) -> Option<Delivery> {
        Some(Delivery { work: Err(Unread::Schema(why)), ..self.decode(incoming)? })
    }

    /// The type of a message, if it is one that is ignored.
    pub fn ignores(&self, ce_type: &str) -> Option<&'static str> {
        self.ignored.get(split_type(ce_type)?.0).copied().filter(|_| !self.redrives)
    }

    fn meta(&self, given: Attributes, seq: u64, redriven: Option<&Redriven>, published: Timestamp) -> Meta {
        let first_published = redriven.and_then(|redriven| redriven.id.time()).unwrap_or(published);
        let time = given.time.and_then(|time| time.parse().ok()).unwrap_or(first_published);
        let id = match given.id {
            _ if let Some(redriven) = redriven => redriven.id,
            // An id that is no UUID is unique within its source only.
            Some(id) => id.parse().unwrap_or_else(|_| {
                let source = given.source.unwrap_or_default();
                Id::derived(time, "ce-id", format!("{source}\n{id}").as_bytes(), 0)
            }),
            None => Id::derived(published, "stream", format!("{}\n{seq}", self.stream).as_bytes(), 0),
        };
        Meta {
            id,
            time,
            correlation: given.correlation.unwrap_or_else(|| id.to_string()),
            causation: given.causation,
            traceparent: given.traceparent,
        }
    }

    fn work(
        &self,
        ce_type: Option<String>,
        meta: &Meta,
        payload: &[u8],
    ) -> (&'static str, Result<Box<dyn Work>, Unread>) {
        let schema = |why| (UNKNOWN_EVENT, Err(Unread::Schema(why)));
        let Some(ce_type) = ce_type else { return schema("the header ce-type is missing".into()) };
        let Some((name, version)) = split_type(&ce_type) else {
            return schema(format!("ce-type `{ce_type}` is not of the form orders.created.v1"));
        };
        // One that was given up before its type was ignored is done with, too, and its record says so.
        if let Some(ignored) = self.ignored.get(name) {
            return (ignored, Ok(Box::new(Nothing)));
        }
        let Some((name, handler)) = self.handlers.get_key_value(name) else {
            return (UNKNOWN_EVENT, Err(Unread::Ahead(format!("this release has no handler for `{ce_type}`"))));
        };
        // A panic here would end the consumer.
        let decode = || handler.clone().decode(version, meta.clone(), payload);
        let decoded = catch_unwind(AssertUnwindSafe(decode));
        let panicked = |panic: Box<dyn Any + Send>| format!("reading it panicked: {}", panic_text(&*panic));
        (name, decoded.unwrap_or_else(|panic| Err(Unread::Schema(panicked(panic)))))
    }
}
