//! Messages as a stream stores them, asked for in a form that can always be read: with headers and body as text in JSON. On its way
//! as a message, one with headers that the client cannot read ends the connection.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use millstream_core::stored;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::ids::Timestamp;

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) sequence: u64,
    /// What is not UTF-8 is replaced.
    pub(crate) subject: String,
    pub(crate) at: Timestamp,
    /// The block of headers.
    pub(crate) headers: Vec<u8>,
    pub(crate) payload: Bytes,
}

#[derive(Deserialize)]
struct Answer {
    message: Option<Message>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Message {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: Timestamp,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.to_string()
    }
}

/// How often it is looked whether the connection is another one by now.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// The broker's codes for "no message found" and "stream not found".
const NOT_FOUND: u64 = 10037;
const NO_STREAM: u64 = 10059;

/// Why there is no answer of use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no such stream.
    #[error("stream not found")]
    NoStream,
    #[error("{0}")]
    Other(String),
}

/// Asks for a message by the broker's API: `{"seq": 7}`, or the first from there or from a time on whose subject fits.
pub(crate) async fn get(
    client: &Client,
    stream: &str,
    request: &Value,
    patience: Duration,
) -> Result<Option<Raw>, Failure> {
    let (subject, payload) = (format!("$JS.API.STREAM.MSG.GET.{stream}"), Bytes::from(request.to_string()));
    let begun = Instant::now();
    loop {
        let before = connects(client);
        let left = patience.saturating_sub(begun.elapsed());
        let request = async_nats::Request::new().payload(payload.clone()).timeout(Some(left));
        let mut answer = pin!(client.send_request(subject.clone(), request));
        let answer = loop {
            match timeout(LOOK, &mut answer).await {
                Ok(answer) => break Some(answer),
                // The answer may have been lost with the connection, and is asked for again.
                Err(_) if connects(client) != before && begun.elapsed() < patience => break None,
                Err(_) => {}
            }
        };
        if let Some(answer) = answer {
            return read(&answer.map_err(|error| Failure::Other(error.to_string()))?.payload);
        }
    }
}

/// How often the connection came up.
pub(crate) fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Acquire)
}

fn read(answer: &[u8]) -> Result<Option<Raw>, Failure> {
    let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
    // A subject may be any bytes, too.
    let answer: Answer = serde_json::from_str(&String::from_utf8_lossy(answer)).map_err(|error| other(&error))?;
    let bytes = |text: &str| STANDARD.decode(text).map_err(|error| other(&error));
    match answer {
        Answer { message: Some(message), .. } => Ok(Some(Raw {
            sequence: message.seq,
            subject: message.subject,
            at: message.time,
            headers: bytes(&message.hdrs)?,
            payload: bytes(&message.data)?.into(),
        })),
        Answer { error: Some(Refusal { err_code: NOT_FOUND, .. }), .. } => Ok(None),
        Answer { error: Some(Refusal { err_code: NO_STREAM, .. }), .. } => Err(Failure::NoStream),
        Answer { error: Some(refusal), .. } => Err(Failure::Other(refusal.description)),
        Answer { .. } => Err(Failure::Other("an answer without a message".into())),
    }
}

impl Raw {
    /// Why the client cannot read it as a message; `None` if it can.
    pub(crate) fn unreadable(&self) -> Option<String> {
        if self.subject.contains(char::REPLACEMENT_CHARACTER) {
            return Some("its subject is not UTF-8".into());
        }
        stored::unreadable(&self.headers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[test]
    fn an_answer_is_read_whatever_bytes_the_message_has() {
        let answer =
            b"{\"message\":{\"subject\":\"bank.moved.\xff\",\"seq\":8,\"hdrs\":\"TkFUUy8xLjANClg6IFpv6w0KDQo=\",\
            \"data\":\"e30=\",\"time\":\"2026-11-26T23:57:00.360400589Z\"}}";
        let raw = read(answer).unwrap().unwrap();
        assert_eq!((raw.sequence, raw.payload.as_ref()), (8, &b"{}"[..]));
        assert_eq!(raw.headers, b"NATS/1.0\r\nX: Zo\xEB\r\n\r\n");
        assert_eq!(raw.unreadable().unwrap(), "its subject is not UTF-8");
        let raw = Raw { subject: "bank.moved.0".into(), ..raw };
        assert_eq!(raw.unreadable().unwrap(), "its headers are not UTF-8");
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_refused() {
        assert_eq!(read(br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#), Ok(None));
        let gone = read(br#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#);
        assert_eq!(gone, Err(Failure::NoStream));
        let full = read(br#"{"error":{"code":503,"err_code":10008,"description":"system temporarily unavailable"}}"#);
        assert_eq!(full, Err(Failure::Other("system temporarily unavailable".into())));
    }
    proptest! {
        #[test]
        fn whatever_is_answered_it_is_a_message_none_or_an_error(
            changes in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<Vec<u8>>()), 0..5),
            of_a_message in any::<bool>(),
        ) {
            let message = br#"{"message":{"subject":"a","seq":8,"hdrs":"TkFUUy8xLjANCg0K","data":"e30=","time":"2026-11-26T23:57:00Z"}}"#;
            let error = br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#;
            let mut answer = if of_a_message { message.to_vec() } else { error.to_vec() };
            for (from, to, bytes) in changes {
                let (from, to) = (from.index(answer.len() + 1), to.index(answer.len() + 1));
                drop(answer.splice(from.min(to)..from.max(to), bytes));
            }
            if let Ok(Some(raw)) = read(&answer) {
                prop_assert!(raw.headers.len() + raw.payload.len() <= answer.len());
                raw.unreadable();
            }
        }
    }
}
