//! Events: what they are called, where they live, and how they look on the wire.
//!
//! The wire form is CloudEvents 1.0 in binary mode: the attributes are NATS headers (`ce-id`, `ce-type`, …), the body is
//! JSON. Header values are printable ASCII on the wire (percent-encoded, as the CloudEvents HTTP binding says) and come back
//! as they went in.

use std::borrow::Cow;
use std::ops::Deref;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ids::{Id, Timestamp};

/// A stream of the broker: one per domain, declared by the service that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The stream's name, `ORDERS`.
    pub name: &'static str,
    /// The first token of its subjects, `orders`; the stream holds `orders.>`.
    pub domain: &'static str,
    /// How many partitions a key is hashed onto; the last token of a subject.
    pub partitions: u32,
    /// The stream's size limit in bytes.
    pub max_bytes: u64,
}

impl Stream {
    /// A stream of 8 partitions and at most 1 GiB.
    pub const fn new(name: &'static str, domain: &'static str) -> Self {
        Self { name, domain, partitions: 8, max_bytes: 1 << 30 }
    }

    #[doc(hidden)]
    /// The partition of a key: FNV-1a (32 bit) modulo the partition count.
    pub fn partition(&self, key: &str) -> u32 {
        partition(key, self.partitions)
    }
}

/// The partition of a key in a stream that has so many.
pub fn partition(key: &str, partitions: u32) -> u32 {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % partitions.max(1)
}

/// Something that has happened, published by one service for others.
///
/// A breaking change of the body is a new `VERSION`; an added field is not, for readers ignore fields they do not know. What is
/// still in a stream in the old version is converted to the new one, if the new one says how:
///
/// ```
/// # use millstream_core::{Event, Stream, event::Older};
/// # use serde::{Deserialize, Serialize};
/// # const TEMPERATURES: Stream = Stream::new("TEMPERATURES", "temperatures");
/// #[derive(Serialize, Deserialize)]
/// struct MeasuredV1 { sensor: String, fahrenheit: i32 }
///
/// #[derive(Serialize, Deserialize)]
/// struct Measured { sensor: String, celsius: i32 }
///
/// impl From<MeasuredV1> for Measured {
///     fn from(old: MeasuredV1) -> Self { Self { sensor: old.sensor, celsius: (old.fahrenheit - 32) * 5 / 9 } }
/// }
///
/// impl Event for MeasuredV1 {
///     const TYPE: &'static str = "temperatures.measured";
///     const STREAM: Stream = TEMPERATURES;
///     fn key(&self) -> &str { &self.sensor }
/// }
///
/// impl Event for Measured {
///     const TYPE: &'static str = MeasuredV1::TYPE;
///     const VERSION: u32 = 2;
///     const OLDER: &'static [Older<Self>] = &[Older::of::<MeasuredV1>()];
///     const STREAM: Stream = TEMPERATURES;
///     fn key(&self) -> &str { &self.sensor }
/// }
/// ```
///
/// An event whose type does not lie in its stream would be published to nowhere, and waited for in vain by whoever reads it. Using
/// it in [`Unit::emit`](crate::Unit::emit) or in a service's declaration does not compile:
///
/// ```compile_fail
/// # use millstream_core::{Event, Stream, Unit};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// struct Measured { sensor: String }
///
/// impl Event for Measured {
///     // The stream's domain is `temperatures`.
///     const TYPE: &'static str = "temperature.measured";
///     const STREAM: Stream = Stream::new("TEMPERATURES", "temperatures");
///     fn key(&self) -> &str { &self.sensor }
/// }
///
/// fn say(unit: &mut Unit<'_>) {
///     unit.emit(&Measured { sensor: "roof".into() });
/// }
/// # let _ = say as fn(&mut Unit<'_>);
/// ```
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `<domain>.<event>`, for example `orders.created`: the first two tokens of its subject, and the domain is its stream's.
    const TYPE: &'static str;
    /// The version of the body.
    const VERSION: u32 = 1;
    /// The older versions that handlers of this one can read, too.
    const OLDER: &'static [Older<Self>] = &[];
    /// The stream it is published to.
    const STREAM: Stream;
    /// The names of the body's fields, at any depth, that say something about a person. They go on the wire as they are;
    /// an operator's tools show them masked unless asked not to, and that is audited.
    const PERSONAL: &'static [&'static str] = &[];

    /// What the event is about: the order's id. Events of one key share a partition.
    fn key(&self) -> &str;
}

/// An older version of an event, and how it becomes the current one.
#[derive(Debug)]
pub struct Older<E> {
    /// The older version.
    pub version: u32,
    /// Reads a body of that version.
    pub read: fn(&[u8]) -> Result<E, serde_json::Error>,
}

impl<E: Event> Older<E> {
    /// The version that is described by `O`, raised by `From`. It does not compile if `O` is not an older version of the same
    /// type.
    pub const fn of<O: Event>() -> Self
    where
        E: From<O>,
    {
        assert!(same(O::TYPE, E::TYPE), "an older version has the type of the current one");
        assert!(O::VERSION < E::VERSION, "an older version has a lower number than the current one");
        Self { version: O::VERSION, read: |body| serde_json::from_slice::<O>(body).map(E::from) }
    }
}

/// Fails, at compile time where it is called in a `const` block, if the type of an event does not lie in its stream.
#[doc(hidden)]
pub const fn assert_type_in_stream<E: Event>() {
    assert!(
        lies_in(E::TYPE, E::STREAM.domain),
        "an event's TYPE is `<domain>.<event>`: two tokens of which the first is the domain of its STREAM"
    );
}

/// Whether a type is the domain, a dot, and one more token that a subject may have.
const fn lies_in(event: &str, domain: &str) -> bool {
    let (event, domain) = (event.as_bytes(), domain.as_bytes());
    if event.len() < domain.len() + 2 || event[domain.len()] != b'.' {
        return false;
    }
    let mut at = 0;
    while at < event.len() {
        let right = match at {
            _ if at < domain.len() => event[at] == domain[at] && event[at] != b'.',
            _ if at == domain.len() => true,
            _ => event[at].is_ascii_graphic() && !matches!(event[at], b'.' | b'*' | b'>'),
        };
        if !right {
            return false;
        }
        at += 1;
    }
    true
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// An event's type as `ce-type` carries it: `orders.created.v1`.
pub fn type_with_version(name: &str, version: u32) -> String {
    format!("{name}.v{version}")
}

/// Splits `orders.created.v1` into name and version; `None` if it is not of that form.
pub fn split_type(ce_type: &str) -> Option<(&str, u32)> {
    let (name, version) = ce_type.rsplit_once(".v")?;
    Some((name, version.parse().ok()?))
}

/// What travels beside an event's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The event's id, also its `Nats-Msg-Id`.
    pub id: Id,
    /// When it happened.
    pub time: Timestamp,
    /// The id that ties together everything one request set off; it goes through every hop unchanged.
    pub correlation: String,
    /// The id of the event or command that directly caused this one.
    pub causation: Option<String>,
    /// The W3C trace context, passed through.
    pub traceparent: Option<String>,
}

/// An event as a handler gets it: the body, by dereference, and what travelled beside it.
#[derive(Clone, Debug)]
pub struct Received<E> {
    /// Id, time, correlation.
    pub meta: Meta,
    /// The body.
    pub body: E,
}

impl<E> Deref for Received<E> {
    type Target = E;
    fn deref(&self) -> &E {
        &self.body
    }
}

/// A message ready for the broker: what the journal keeps and the publisher sends, byte for byte the same each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Where it is published.
    pub subject: String,
    /// Header names and values, encoded for the wire, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub payload: Bytes,
}

/// The header names of the wire.
pub mod header {
    /// CloudEvents `id`.
    pub const ID: &str = "ce-id";
    /// CloudEvents `type`, with the version.
    pub const TYPE: &str = "ce-type";
    /// CloudEvents `source`: the service that emitted the event.
    pub const SOURCE: &str = "ce-source";
    /// CloudEvents `specversion`.
    pub const SPEC: &str = "ce-specversion";
    /// CloudEvents `time`, RFC 3339.
    pub const TIME: &str = "ce-time";
    /// CloudEvents `subject`: the event's key.
    pub const SUBJECT: &str = "ce-subject";
    /// CloudEvents `datacontenttype`.
    pub const CONTENT_TYPE: &str = "ce-datacontenttype";
    /// Correlation id, a CloudEvents extension.
    pub const CORRELATION: &str = "ce-correlationid";
    /// Causation id, a CloudEvents extension.
    pub const CAUSATION: &str = "ce-causationid";
    /// The names of the body's personal fields, with commas between them, a CloudEvents extension; absent if there are none.
    pub const PERSONAL: &str = "ce-personalfields";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// The broker's deduplication key.
    pub const MSG_ID: &str = "Nats-Msg-Id";
}

impl Emitted {
    /// The wire form of `event`, emitted by `service`.
    ///
    /// # Errors
    /// When the body cannot be written as JSON.
    pub fn event<E: Event>(service: &str, meta: &Meta, event: &E) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_vec(event)?.into();
        let key = event.key();
        let id = meta.id.to_string();
        let mut headers = Vec::with_capacity(12);
        let mut put = |name: &str, value: &str| headers.push((name.to_owned(), encode_header(value)));
        put(header::MSG_ID, &id);
        put(header::SPEC, "1.0");
        put(header::ID, &id);
        put(header::TYPE, &type_with_version(E::TYPE, E::VERSION));
        put(header::SOURCE, service);
        put(header::TIME, &meta.time.to_string());
        put(header::SUBJECT, key);
        put(header::CONTENT_TYPE, "application/json");
        put(header::CORRELATION, &meta.correlation);
        if let Some(causation) = &meta.causation {
            put(header::CAUSATION, causation);
        }
        if let Some(traceparent) = &meta.traceparent {
            put(header::TRACEPARENT, traceparent);
        }
        if !E::PERSONAL.is_empty() {
            put(header::PERSONAL, &E::PERSONAL.join(","));
        }
        Ok(Self { subject: format!("{}.{}", E::TYPE, E::STREAM.partition(key)), headers, payload })
    }

    /// The decoded value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| decode_header(value))
    }

    /// The size on the wire in bytes: headers and body.
    pub fn wire_size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        12 + headers + self.payload.len()
    }

    /// Writes messages as the journal keeps them: for each a length, the subject, the headers a line each, an empty line, the
    /// body. The lines need no escaping, for encoded header values hold no line breaks.
    pub fn pack(messages: &[Self]) -> Vec<u8> {
        let mut out = Vec::with_capacity(messages.iter().map(|m| m.wire_size() + m.subject.len() + 8).sum());
        for message in messages {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(message.subject.as_bytes());
            out.push(b'\n');
            for (name, value) in &message.headers {
                out.extend_from_slice(name.as_bytes());
                out.push(b':');
                out.extend_from_slice(value.as_bytes());
                out.push(b'\n');
            }
            out.push(b'\n');
            out.extend_from_slice(&message.payload);
            let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        out
    }

    /// Reads what [`Emitted::pack`] wrote; `None` if the bytes are not of that form.
    pub fn unpack(mut bytes: &[u8]) -> Option<Vec<Self>> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            let (mut message, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            bytes = rest;
            let mut line = || {
                let end = message.iter().position(|byte| *byte == b'\n')?;
                let (line, rest) = message.split_at(end);
                message = &rest[1..];
                std::str::from_utf8(line).ok()
            };
            let subject = line()?.to_owned();
            let mut headers = Vec::new();
            loop {
                let line = line()?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':')?;
                headers.push((name.to_owned(), value.to_owned()));
            }
            messages.push(Self { subject, headers, payload: Bytes::copy_from_slice(message) });
        }
        Some(messages)
    }
}

/// What must be encoded in a header value: everything but printable ASCII, and of that what would be read as an encoding or
/// trimmed as white space.
const HEADER: &AsciiSet = &CONTROLS.add(b'%').add(b' ').add(b'"');

/// A header value as it goes over the wire.
pub fn encode_header(value: &str) -> String {
    Cow::from(utf8_percent_encode(value, HEADER)).into_owned()
}

/// A header value as it was given.
pub fn decode_header(value: &str) -> String {
    if value.contains('%') { percent_decode_str(value).decode_utf8_lossy().into_owned() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_printable_ascii_and_come_back_as_they_went_in() {
        for value in ["plain", "Zoë & 日本", "50% off", "a\r\nb: c", " padded ", "\"quoted\"", ""] {
            let wire = encode_header(value);
            assert!(wire.bytes().all(|byte| byte.is_ascii_graphic()), "{wire:?}");
            assert_eq!(decode_header(&wire), value);
        }
    }

    #[derive(Serialize, serde::Deserialize)]
    struct Moved<const PERSONAL: bool>;

    impl<const PERSONAL: bool> Event for Moved<PERSONAL> {
        const TYPE: &'static str = "people.moved";
        const STREAM: Stream = Stream::new("PEOPLE", "people");
        const PERSONAL: &'static [&'static str] = if PERSONAL { &["name", "street"] } else { &[] };
        fn key(&self) -> &str {
            "k"
        }
    }

    #[test]
    fn the_wire_says_which_fields_are_personal() {
        let time = Timestamp::from_millis(1);
        let meta = Meta { id: Id::random(time), time, correlation: "c".into(), causation: None, traceparent: None };
        let of = |event: Result<Emitted, _>| event.unwrap().header(header::PERSONAL);
        assert_eq!(of(Emitted::event("s", &meta, &Moved::<true>)).as_deref(), Some("name,street"));
        assert_eq!(of(Emitted::event("s", &meta, &Moved::<false>)), None);
    }

    #[test]
    fn packed_messages_come_back_byte_for_byte() {
        let message = |body: &'static [u8]| Emitted {
            subject: "orders.created.3".into(),
            headers: vec![("ce-id".into(), "1".into()), ("traceparent".into(), "00-a-b-01".into())],
            payload: Bytes::from_static(body),
        };
        for messages in [vec![], vec![message(b"{\n\"a\":1}\n\n")], vec![message(b""), message(b"\n"), message(b"{}")]]
        {
            assert_eq!(Emitted::unpack(&Emitted::pack(&messages)).unwrap(), messages);
        }
        let mut cut = Emitted::pack(&[message(b"{}")]);
        cut.pop();
        assert!(Emitted::unpack(&cut).is_none());
    }

    #[test]
    fn a_type_lies_in_its_stream_if_it_is_the_domain_and_one_more_token() {
        assert!(lies_in("orders.created", "orders"));
        for wrong in
            ["order.created", "orders", "orders.", "orders.a.b", "ordersx.a", "orders.*", "orders.a b", "Orders.a"]
        {
            assert!(!lies_in(wrong, "orders"), "{wrong}");
        }
        assert!(!lies_in("a.b.c", "a.b"));
    }

    #[test]
    fn a_type_carries_its_version() {
        assert_eq!(split_type(&type_with_version("orders.created", 2)), Some(("orders.created", 2)));
        assert_eq!(split_type("orders.created"), None);
    }

    #[test]
    fn partitions_are_stable() {
        // FNV-1a of "a" is 0xe40c292c (http://www.isthe.com/chongo/tech/comp/fnv/).
        assert_eq!(Stream::new("S", "s").partition("a"), 0xe40c_292c_u32 % 8);
    }
}
