//! How the records of the toolkit look in MongoDB.

use bytes::Bytes;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, Uuid, doc};
use serde::{Deserialize, Serialize};

use crate::ids::{Id, Timestamp};
use crate::store::{Entry, IdempotencyKey, Instance, Published, Settled, State, StoreError};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryRow {
    #[serde(rename = "_id")]
    id: Uuid,
    version: i64,
    state: StateRow,
    attempts: i64,
    started: i64,
    redrives: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<DateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<DateTime>,
    /// Absent where there is nothing: only the others are in the index that is the outbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    emitted: Option<Binary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Binary>,
    instance: Uuid,
    batch: i64,
    stream: String,
    seq: i64,
    at: DateTime,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateRow {
    Open,
    Done,
    Parked,
}

/// How [`State::Done`] is written.
pub(super) const DONE: &str = "done";

impl From<&Entry> for EntryRow {
    fn from(entry: &Entry) -> Self {
        Self {
            id: uuid(entry.id),
            version: int(entry.version),
            state: match entry.state {
                State::Open => StateRow::Open,
                State::Done => StateRow::Done,
                State::Parked => StateRow::Parked,
            },
            attempts: entry.attempts.into(),
            started: entry.started.into(),
            redrives: entry.redrives.into(),
            error: entry.error.clone(),
            first_failure: entry.first_failure.map(date),
            last_failure: entry.last_failure.map(date),
            emitted: (!entry.emitted.is_empty()).then(|| binary(&entry.emitted)),
            reply: entry.reply.as_deref().map(binary),
            instance: uuid(entry.instance),
            batch: int(entry.batch),
            stream: entry.stream.clone(),
            seq: int(entry.seq),
            at: date(entry.at),
        }
    }
}

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Self {
        Self {
            id: id(row.id),
            version: row.version.unsigned_abs(),
            state: match row.state {
                StateRow::Open => State::Open,
                StateRow::Done => State::Done,
                StateRow::Parked => State::Parked,
            },
            attempts: count(row.attempts),
            started: count(row.started),
            redrives: count(row.redrives),
            error: row.error,
            first_failure: row.first_failure.map(time),
            last_failure: row.last_failure.map(time),
            emitted: row.emitted.map(|emitted| Bytes::from(emitted.bytes)).unwrap_or_default(),
            reply: row.reply.map(|reply| reply.bytes.into()),
            instance: id(row.instance),
            batch: row.batch.unsigned_abs(),
            stream: row.stream,
            seq: row.seq.unsigned_abs(),
            at: time(row.at),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct KeyRow {
    #[serde(rename = "_id")]
    hash: Binary,
    command: Uuid,
    fingerprint: Binary,
    expires: DateTime,
}

impl From<&IdempotencyKey> for KeyRow {
    fn from(key: &IdempotencyKey) -> Self {
        Self {
            hash: binary(&key.hash),
            command: uuid(key.command),
            fingerprint: binary(&key.fingerprint),
            expires: date(key.expires),
        }
    }
}

impl KeyRow {
    /// The key; `None` if it is not of this store's making.
    pub(super) fn into_key(self) -> Option<IdempotencyKey> {
        Some(IdempotencyKey {
            hash: self.hash.bytes.try_into().ok()?,
            command: id(self.command),
            fingerprint: self.fingerprint.bytes.try_into().ok()?,
            expires: time(self.expires),
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct InstanceRow {
    #[serde(rename = "_id")]
    pub(super) id: Uuid,
    version: i64,
    pub(super) published: i64,
}

impl From<InstanceRow> for Instance {
    fn from(row: InstanceRow) -> Self {
        Self { id: id(row.id), version: row.version.unsigned_abs(), published_through: row.published.unsigned_abs() }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct SettledRow {
    #[serde(rename = "_id")]
    stream: String,
    through: i64,
    created: String,
    /// Earlier releases did not write these two.
    #[serde(default)]
    until: Option<DateTime>,
    #[serde(default)]
    seen: Option<i64>,
}

impl From<SettledRow> for Settled {
    fn from(row: SettledRow) -> Self {
        Self {
            stream: row.stream,
            through: row.through.unsigned_abs(),
            created: row.created,
            until: row.until.map(time),
            seen: row.seen.map(i64::unsigned_abs),
        }
    }
}

/// Whose marks for which stream. There are few, for a restart makes one: they are found without an index.
#[derive(Serialize, Deserialize)]
struct PublishedId {
    stream: String,
    instance: Uuid,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PublishedRow {
    #[serde(rename = "_id")]
    id: PublishedId,
    /// As JSON.
    marks: String,
}

impl PublishedRow {
    pub(super) fn new(published: &Published) -> Result<Self, StoreError> {
        let marks = serde_json::to_string(&published.marks).map_err(|error| StoreError::new(error.to_string()))?;
        let id = PublishedId { stream: published.stream.clone(), instance: uuid(published.instance) };
        Ok(Self { id, marks })
    }

    pub(super) fn id(&self) -> Document {
        doc! { "stream": &self.id.stream, "instance": self.id.instance }
    }

    pub(super) fn into_published(self) -> Result<Published, StoreError> {
        let marks = serde_json::from_str(&self.marks).map_err(|error| StoreError::new(error.to_string()))?;
        Ok(Published { instance: id(self.id.instance), stream: self.id.stream, marks })
    }
}

pub(super) fn published_id(instance: Id, stream: &str) -> Document {
    doc! { "stream": stream, "instance": uuid(instance) }
}

/// The fields of a mark. One that is not there is null, which in a filter finds those without it as well.
pub(super) fn mark(mark: &Settled) -> Document {
    doc! {
        "through": int(mark.through),
        "created": &mark.created,
        "until": mark.until.map(date),
        "seen": mark.seen.map(int),
    }
}

/// BSON's integers are signed; what does not fit is later than any time and higher than any count there will be.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn date(at: Timestamp) -> DateTime {
    DateTime::from_millis(int(at.millis()))
}

pub(super) fn time(at: DateTime) -> Timestamp {
    Timestamp::from_millis(at.timestamp_millis().unsigned_abs())
}

/// An id in a query or a statement.
pub(super) fn key(id: Id) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: id.bytes().to_vec() }
}

pub(super) fn uuid(id: Id) -> Uuid {
    Uuid::from_bytes(*id.bytes())
}

pub(super) fn id(uuid: Uuid) -> Id {
    Id::from(uuid::Uuid::from_bytes(uuid.bytes()))
}

pub(super) fn binary(bytes: &[u8]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() }
}
