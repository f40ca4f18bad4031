//! Dead letters: what is parked, as a message that stock tools can read.
//!
//! A dead letter keeps the body and the headers of the message that failed; what is known of the failure stands in headers
//! beginning with `Millstream-`. It goes to `dlq.<service>.<event>.<id>`, one message a subject, in the stream
//! `DLQ_<SERVICE>`.
//!
//! That message is the **record** of what failed, and what is done about it replaces it: redriven, it says `redriving` in
//! [`STATE`] until its service has written the outcome in its place, another dead letter or `resolved`. What is on its way back
//! lies in the work queue [`REDRIVE`], as `redrive.<service>.<event>.<id>`.

use std::time::Duration;

use bytes::Bytes;

use crate::event::{Emitted, encode_header, header};
use crate::ids::{Id, Timestamp};
use sha2::{Digest, Sha256};

/// The work queue of what is handed back to the services that gave it up.
pub const REDRIVE: &str = "REDRIVE";

/// The header that says what became of a dead letter: absent, nobody has dealt with it.
pub const STATE: &str = "Millstream-State";

#[doc(hidden)]
/// In a redrive: its number, from 1 on; 0 for a changed copy that is sent in place of a dead letter.
pub const NUMBER: &str = "Millstream-Redrive";

#[doc(hidden)]
/// In a redrive: the sequence of the record that says so, which the outcome replaces.
pub const RECORD: &str = "Millstream-Record";

#[doc(hidden)]
/// The broker stores a message with it only while the last one of its subject has this sequence; 0: while there is none.
pub const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

#[doc(hidden)]
/// In a record: how often what failed was redriven.
pub const REDRIVES: &str = "Millstream-Redrives";

#[doc(hidden)]
/// In a changed copy: the id of the dead letter that it is of.
pub const EDITED_FROM: &str = "Millstream-Edited-From";

/// How long the record of what was redriven and handled stays.
const RESOLVED: Duration = Duration::from_secs(24 * 3600);

/// What a dead letter may be larger than the message that it is of, in bytes.
pub const ROOM: usize = 16 << 10;

/// Why a message was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The handler rejected it.
    Rejected,
    /// It was retried as often as the policy says.
    Exhausted,
    /// It could not be read, or is of an old version that nothing raises.
    Schema,
    /// It is of a type or version, or about a document, that only a newer release would know, and none came in time.
    Ahead,
    /// The handler panicked.
    Panic,
    /// The handler staged what the service does not declare, or the wake of a document whose effect is under way.
    Misuse,
    /// It killed the process, alone, several times.
    Crash,
    /// What it would emit is larger than the broker takes.
    TooLarge,
    /// It was redriven, and the service's journal does not know it.
    Unknown,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Rejected,
        Self::Exhausted,
        Self::Schema,
        Self::Ahead,
        Self::Panic,
        Self::Misuse,
        Self::Crash,
        Self::TooLarge,
        Self::Unknown,
    ];

    /// As it stands in the header `Millstream-Reason` and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Schema => "schema",
            Self::Ahead => "ahead",
            Self::Panic => "panic",
            Self::Misuse => "misuse",
            Self::Crash => "crash",
            Self::TooLarge => "too_large",
            Self::Unknown => "unknown",
        }
    }
}

/// The stream that holds a service's dead letters: `DLQ_PAYMENTS`.
pub fn stream_name(service: &str) -> String {
    format!("DLQ_{}", service.to_uppercase().replace('-', "_"))
}

/// The subjects of a service's dead letters: `dlq.payments.>`.
pub fn subjects(service: &str) -> String {
    format!("dlq.{service}.>")
}

#[doc(hidden)]
/// The subject of the record of what failed.
pub fn record(service: &str, headers: &[(String, String)], id: Id) -> String {
    format!("dlq.{service}.{}.{id}", subject_token(event_of(headers).unwrap_or("unknown")))
}

/// The type of event, without its version, that headers as they are on the wire name.
fn event_of(headers: &[(String, String)]) -> Option<&str> {
    let kind = headers.iter().find(|(name, _)| name == header::TYPE).map(|(_, value)| value.as_str())?;
    Some(crate::event::split_type(kind).map_or(kind, |(name, _)| name))
}

/// Of the headers of a message those that are its own and not the broker's or ours, as they may be sent to all.
fn own(headers: &[(String, String)]) -> impl Iterator<Item = (String, String)> {
    let theirs = |name: &str| !name.starts_with("Nats-") && !name.starts_with("Millstream-");
    // One value that is not printable ASCII would make other clients drop all headers.
    let plain = |value: &str| value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let wire = move |value: &String| if plain(value) { value.clone() } else { encode_header(value) };
    headers.iter().filter(move |(name, _)| theirs(name)).map(move |(name, value)| (name.clone(), wire(value)))
}

#[doc(hidden)]
/// What takes the place of a record whose redrive was handled: the headers, and what was known of the failure, for a day.
pub fn resolved(record: String, replaces: Option<u64>, id: Id, number: u32, headers: &[(String, String)]) -> Emitted {
    let mut all = vec![(header::MSG_ID.to_owned(), format!("{id}:{number}:resolved"))];
    all.extend(replaces.map(|sequence| (EXPECTED.to_owned(), sequence.to_string())));
    all.push(("Nats-TTL".into(), format!("{}s", RESOLVED.as_secs())));
    all.extend(own(headers));
    let ours = ["State", "Redrive", "Record", "Redrives", "Id"].map(|name| format!("Millstream-{name}"));
    let known = |name: &str| name.starts_with("Millstream-") && !ours.iter().any(|ours| ours == name);
    all.extend(headers.iter().filter(|(name, _)| known(name)).cloned());
    all.push(("Millstream-Id".into(), id.to_string()));
    all.push((STATE.into(), "resolved".into()));
    all.push((REDRIVES.into(), number.to_string()));
    Emitted { subject: record, headers: all, payload: Bytes::new() }
}

#[doc(hidden)]
/// What is parked, and what is known of it.
pub struct Parked<'a> {
    pub service: &'a str,
    /// The subject of its record.
    pub record: String,
    pub id: Id,
    pub redrives: u32,
    /// The sequence of the record that it replaces: 0 if it is the first, `None` if nobody knows.
    pub replaces: Option<u64>,
    pub reason: Reason,
    pub error: &'a str,
    pub stream: &'a str,
    pub seq: u64,
    pub subject: &'a str,
    pub consumer: &'a str,
    pub attempts: u32,
    pub first_failure: Timestamp,
    pub last_failure: Timestamp,
    /// What it is a changed copy of.
    pub edited_from: Option<Id>,
    /// The message's own headers as they were on the wire.
    pub headers: &'a [(String, String)],
    pub payload: Bytes,
}

/// Longest error text in a dead letter, in bytes.
const ERROR_BYTES: usize = 1024;

impl Parked<'_> {
    /// The dead letter, at most `max_bytes` long: a longer body is cut, and the letter says so.
    pub fn letter(&self, max_bytes: usize) -> Emitted {
        let event = event_of(self.headers);
        let error = clip(self.error, ERROR_BYTES);
        let mut headers: Vec<(String, String)> =
            vec![(header::MSG_ID.into(), format!("{}:{}", self.id, self.redrives))];
        headers.extend(self.replaces.map(|sequence| (EXPECTED.to_owned(), sequence.to_string())));
        headers.extend(own(self.headers));
        let mut put = |name: &str, value: &str| headers.push((format!("Millstream-{name}"), encode_header(value)));
        put("Id", &self.id.to_string());
        put("Service", self.service);
        put("Reason", self.reason.name());
        put("Error", error);
        put("Fingerprint", &fingerprint(event.unwrap_or_default(), self.reason, self.error));
        put("Stream", self.stream);
        put("Sequence", &self.seq.to_string());
        put("Subject", self.subject);
        put("Consumer", self.consumer);
        put("Attempts", &self.attempts.to_string());
        put("Redrives", &self.redrives.to_string());
        put("First-Failure", &self.first_failure.to_string());
        put("Last-Failure", &self.last_failure.to_string());
        if let Some(original) = self.edited_from {
            put("Edited-From", &original.to_string());
        }
        let mut letter = Emitted { subject: self.record.clone(), headers, payload: self.payload.clone() };
        if letter.wire_size() > max_bytes {
            if letter.wire_size() - letter.payload.len() > max_bytes / 2 {
                let ours = |name: &str| name == header::MSG_ID || name == EXPECTED || name.starts_with("Millstream-");
                letter.headers.retain(|(name, _)| ours(name));
            }
            letter.headers.push(("Millstream-Cut".into(), format!("{}", self.payload.len())));
            let room = max_bytes.saturating_sub(letter.wire_size() - letter.payload.len());
            letter.payload.truncate(room);
        }
        letter
    }
}

/// Groups dead letters of one cause: a hash of event, reason and error with its digits left out, for they are mostly ids.
fn fingerprint(event: &str, reason: Reason, error: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(event);
    hash.update([0]);
    hash.update(reason.name());
    hash.update([0]);
    let words = error.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    for word in words {
        hash.update(word);
        hash.update([0]);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[doc(hidden)]
pub fn clip(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[doc(hidden)]
/// A text as one token of a subject.
pub fn subject_token(text: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let token: String = text.chars().take(64).map(legal).collect();
    if token.is_empty() { "unknown".into() } else { token }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(payload: Bytes, error: &str) -> Emitted {
        let headers = [(header::TYPE.into(), "inventory.reserved.v1".into()), ("Nats-Msg-Id".into(), "old".into())];
        let id = Id::derived(Timestamp::from_millis(1), "x", b"y", 0);
        Parked {
            service: "payments",
            record: record("payments", &headers, id),
            id,
            redrives: 0,
            replaces: Some(0),
            reason: Reason::Exhausted,
            error,
            stream: "INVENTORY",
            seq: 7,
            subject: "inventory.reserved.3",
            consumer: "payments",
            attempts: 8,
            first_failure: Timestamp::from_millis(1000),
            last_failure: Timestamp::from_millis(2000),
            edited_from: None,
            headers: &headers,
            payload,
        }
        .letter(2000)
    }

    #[test]
    fn a_dead_letter_keeps_body_and_headers_and_says_why() {
        let letter = parked(Bytes::from_static(b"{}"), "no order Zoë\r\n1");
        assert!(letter.subject.starts_with("dlq.payments.inventory-reserved."), "{}", letter.subject);
        assert_eq!(letter.payload, "{}");
        assert_eq!(letter.header(header::TYPE).unwrap(), "inventory.reserved.v1");
        assert_eq!(letter.header("Millstream-Reason").unwrap(), "exhausted");
        assert_eq!(letter.header("Millstream-Error").unwrap(), "no order Zoë\r\n1");
        assert_eq!(letter.headers.iter().filter(|(name, _)| name == header::MSG_ID).count(), 1);
        assert!(letter.header(header::MSG_ID).unwrap().ends_with(":0"));
    }

    #[test]
    fn a_dead_letter_too_large_for_the_broker_is_cut_and_says_so() {
        let letter = parked(Bytes::from(vec![b'x'; 5000]), "no");
        assert!(letter.wire_size() <= 2000);
        assert_eq!(letter.header("Millstream-Cut").unwrap(), "5000");
    }

    #[test]
    fn errors_that_differ_only_in_ids_share_a_fingerprint() {
        let of = |error| parked(Bytes::new(), error).header("Millstream-Fingerprint").unwrap();
        assert_eq!(of("order 019ac3f0-11 is unknown"), of("order 019bd4ff-7 is unknown"));
        assert_ne!(of("order 1 is unknown"), of("order 1 is late"));
    }
}
