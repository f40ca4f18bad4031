//! A stream's messages in order, read with direct gets in batches: they need no consumer, and so no right to make one.

use std::ops::ControlFlow;

use async_nats::header::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind as RawMessageErrorKind;
use async_nats::{Client, RequestErrorKind, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::event::{decode_header, header, split_type};
use crate::ids::{Id, Timestamp};
use crate::operator::{Operator, OperatorError, PATIENCE};

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
    /// A direct get of the first message from here on whose subject matches.
    fn request(self, filter: &str) -> Value {
        match self {
            Self::Sequence(sequence) => json!({ "seq": sequence.max(1), "next_by_subj": filter }),
            Self::Time(time) => json!({ "start_time": time, "next_by_subj": filter }),
        }
    }
}

impl Operator {
    /// The first message of a stream whose subject matches `filter`, if there is one. From a sequence also if the stream does not
    /// allow direct gets.
    ///
    /// # Errors
    /// When the broker does not answer, or refuses.
    pub async fn first(&self, stream: &str, filter: &str, from: ReadFrom) -> Result<Option<Stored>, OperatorError> {
        let away =
            |error: &dyn std::fmt::Display| OperatorError::Away(format!("stream {stream} cannot be read: {error}"));
        let request = from.request(filter);
        let request = async_nats::Request::new().payload(request.to_string().into()).timeout(Some(PATIENCE));
        let answer = self.client.send_request(format!("$JS.API.DIRECT.GET.{stream}"), request).await;
        let message = match (answer, from) {
            (Err(error), ReadFrom::Sequence(sequence)) if error.kind() == RequestErrorKind::NoResponders => {
                let handle = self.jetstream.get_stream_no_info(stream).await.map_err(|error| away(&error))?;
                match handle.raw_message_builder().sequence(sequence.max(1)).next_by_subject(filter).send().await {
                    Ok(message) => message,
                    Err(error) => match error.kind() {
                        RawMessageErrorKind::NoMessageFound => return Ok(None),
                        RawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
                            return Ok(None);
                        }
                        _ => return Err(away(&error)),
                    },
                }
            }
            (Err(error), _) => return Err(away(&error)),
            (Ok(answer), _) => match answer.status {
                None | Some(StatusCode::OK) => StreamMessage::try_from(answer).map_err(|error| away(&error))?,
                Some(StatusCode::NOT_FOUND) => return Ok(None),
                Some(status) => return Err(away(&format!("{status} {}", answer.description.unwrap_or_default()))),
            },
        };
        Ok(Some(stored(stream, message)))
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
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| away(&error))?;
        let mut next = if let ReadFrom::Sequence(sequence) = from { sequence.max(1) } else { 0 };
        let mut from = from;
        loop {
            let subject = format!("$JS.API.DIRECT.GET.{stream}");
            let mut request = from.request(filter);
            request["batch"] = BATCH.into();
            let body = request.to_string().into();
            client.publish_with_reply(subject, inbox.clone(), body).await.map_err(|error| away(&error))?;
            let before = next;
            loop {
                let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
                let answer = answer.map_err(|_| away(&format!("no answer within {PATIENCE:?}")))?;
                let answer = answer.ok_or_else(|| away(&"the connection is closed"))?;
                match answer.status {
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
}

/// A time as the broker gives it, in nanoseconds since 1970.
pub(crate) fn millis(nanos: i128) -> Timestamp {
    Timestamp::from_millis(u64::try_from(nanos / 1_000_000).unwrap_or_default())
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
