//! A stream's messages in order, read with direct gets in batches: they need no consumer, and so no right to make one. One message
//! that the client cannot read ends its connection, and with it the batch: then it is read one by one, in another form.

use std::ops::ControlFlow;

use async_nats::header::{HeaderMap, HeaderValue};
use async_nats::jetstream::message::StreamMessage;
use async_nats::{Client, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use millstream_core::stored::lenient;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::event::{decode_header, header, split_type};
use crate::ids::{Id, Timestamp};
use crate::operator::{Operator, OperatorError, PATIENCE};
use crate::raw::{self, Failure, LOOK, Raw};

/// Messages that are asked for at once.
const BATCH: u32 = 500;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// With the first message at or above this sequence.
    Sequence(u64),
    /// With the first message that was stored at this time or later.
    Time(Timestamp),
}

/// A message as a stream holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The stream.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// When it was stored.
    pub at: Timestamp,
    /// Its headers, encoded as on the wire.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Bytes,
}

impl Stored {
    /// A header's value as it was given.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| decode_header(value.as_str()))
    }

    /// All headers with their values as they were given, in the order of their names.
    pub fn all_headers(&self) -> Vec<(String, String)> {
        let values = self.headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let mut all: Vec<_> = values.map(|(name, value)| (name.to_string(), decode_header(value.as_str()))).collect();
        all.sort();
        all
    }

    /// The event's id, if it is one of ours.
    pub fn id(&self) -> Option<Id> {
        self.header(header::ID)?.parse().ok()
    }

    /// The event's type without its version, `orders.created`.
    pub fn event(&self) -> Option<String> {
        Some(split_type(&self.header(header::TYPE)?)?.0.to_owned())
    }
}

impl ReadFrom {
    /// Where reading goes on: where it began if nothing was read.
    fn after(self, next: u64) -> Self {
        if next > 0 { Self::Sequence(next) } else { self }
    }

    /// A direct get of the first message from here on whose subject matches.
    fn request(self, filter: &str) -> Value {
        match self {
            Self::Sequence(sequence) => json!({ "seq": sequence.max(1), "next_by_subj": filter }),
            Self::Time(time) => json!({ "start_time": time, "next_by_subj": filter }),
        }
    }
}

impl Operator {
    /// The first message of a stream whose subject matches `filter`, if there is one.
    ///
    /// # Errors
    /// When there is no such stream, the broker does not answer, or it refuses.
    pub async fn first(&self, stream: &str, filter: &str, from: ReadFrom) -> Result<Option<Stored>, OperatorError> {
        // In a subject it would ask for something else.
        if !is_name(stream) {
            return Err(unread(stream, &Failure::NoStream));
        }
        let found = raw::get(&self.client, stream, &from.request(filter), PATIENCE).await;
        Ok(found.map_err(|error| unread(stream, &error))?.map(|raw| as_stored(stream, raw)))
    }

    /// Reads the messages of a stream whose subjects match `filter`, in order, until `each` breaks off or there is no further
    /// one. Gives the sequence to go on with.
    ///
    /// # Errors
    /// When the broker does not answer, or refuses.
    pub async fn read(
        &self,
        stream: &str,
        filter: &str,
        from: ReadFrom,
        mut each: impl FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<u64, OperatorError> {
        let away =
            |error: &dyn std::fmt::Display| OperatorError::Away(format!("stream {stream} cannot be read: {error}"));
        let client: &Client = &self.client;
        let mut next = if let ReadFrom::Sequence(sequence) = from { sequence.max(1) } else { 0 };
        let mut from = from;
        'batch: loop {
            let connects = raw::connects(client);
            let inbox = client.new_inbox();
            let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| away(&error))?;
            let subject = format!("$JS.API.DIRECT.GET.{stream}");
            let mut request = from.request(filter);
            request["batch"] = BATCH.into();
            let body = request.to_string().into();
            client.publish_with_reply(subject, inbox.clone(), body).await.map_err(|error| away(&error))?;
            let before = next;
            let mut asked = Instant::now();
            loop {
                let answer = tokio::time::timeout(LOOK, answers.next()).await;
                // What comes over another connection than was asked is the rest of the batch, without what was lost.
                if raw::connects(client) != connects {
                    // The rest may end this connection, too.
                    drop(answers);
                    from = from.after(next);
                    match self.read_one_by_one(stream, filter, from, &mut each).await? {
                        (ControlFlow::Break(()), next) => return Ok(next),
                        (ControlFlow::Continue(()), after) => next = after,
                    }
                    from = from.after(next);
                    continue 'batch;
                }
                let answer = match answer {
                    Ok(answer) => answer.ok_or_else(|| away(&"the connection is closed"))?,
                    Err(_) if asked.elapsed() < PATIENCE => continue,
                    Err(_) => return Err(away(&format!("no answer within {PATIENCE:?}"))),
                };
                asked = Instant::now();
                // A message of the stream may have been published with a status of its own.
                let is_message = answer.headers.as_ref().is_some_and(|headers| headers.get("Nats-Sequence").is_some());
                match answer.status.filter(|_| !is_message) {
                    None | Some(StatusCode::OK) => {}
                    Some(StatusCode::NO_RESPONDERS) => {
                        return Err(OperatorError::NotFound(format!("there is no stream {stream}")));
                    }
                    // The end of the batch, or nothing there.
                    Some(_) => break,
                }
                let message = StreamMessage::try_from(answer).map_err(|error| away(&error))?;
                next = message.sequence + 1;
                if each(stored(stream, message)).is_break() {
                    return Ok(next);
                }
            }
            if next == before {
                return Ok(next);
            }
            from = ReadFrom::Sequence(next);
        }
    }

    /// Reads on in a form that can always be read, up to a message that has to be read so. Gives the sequence to go on with.
    async fn read_one_by_one(
        &self,
        stream: &str,
        filter: &str,
        mut from: ReadFrom,
        each: &mut impl FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<(ControlFlow<()>, u64), OperatorError> {
        let mut next = if let ReadFrom::Sequence(sequence) = from { sequence } else { 0 };
        for _ in 0..BATCH {
            let found = raw::get(&self.client, stream, &from.request(filter), PATIENCE).await;
            let found = found.map_err(|error| unread(stream, &error))?;
            let Some(raw) = found else { break };
            next = raw.sequence + 1;
            from = ReadFrom::Sequence(next);
            let why = raw.unreadable();
            if each(as_stored(stream, raw)).is_break() {
                return Ok((ControlFlow::Break(()), next));
            }
            if let Some(why) = why {
                tracing::warn!(stream, sequence = next - 1, why, "a message that the client cannot read");
                break;
            }
        }
        Ok((ControlFlow::Continue(()), next))
    }
}

/// Whether a stream can have this name.
fn is_name(stream: &str) -> bool {
    let legal = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '.' | '*' | '>' | '/' | '\\');
    !stream.is_empty() && stream.chars().all(legal)
}

fn unread(stream: &str, error: &Failure) -> OperatorError {
    match error {
        Failure::NoStream => OperatorError::NotFound(format!("there is no stream {stream}")),
        Failure::Other(why) => OperatorError::Away(format!("stream {stream} cannot be read: {why}")),
    }
}

/// A time as the broker gives it, in nanoseconds since 1970.
pub(crate) fn millis(nanos: i128) -> Timestamp {
    Timestamp::from_millis(u64::try_from(nanos / 1_000_000).unwrap_or_default())
}

fn as_stored(stream: &str, raw: Raw) -> Stored {
    let mut headers = HeaderMap::new();
    for (name, value) in lenient(&raw.headers) {
        headers.append(name.as_str(), HeaderValue::from(value));
    }
    Stored {
        stream: stream.into(),
        sequence: raw.sequence,
        subject: raw.subject,
        at: raw.at,
        headers,
        payload: raw.payload,
    }
}

fn stored(stream: &str, message: StreamMessage) -> Stored {
    Stored {
        stream: stream.into(),
        sequence: message.sequence,
        subject: message.subject.to_string(),
        at: millis(message.time.unix_timestamp_nanos()),
        headers: message.headers,
        payload: message.payload,
    }
}
