//! How a document looks in MongoDB: BSON of its own under `doc`, beside what the toolkit keeps of it.
//!
//! Earlier releases wrote it as JSON text under `body`, and its top-level texts under `fields`, to be queried by. Such a record is
//! read and found as it is, and has the new form when it is next written.

use std::collections::BTreeMap;

use millstream_core::bson::{DOC, encode};
use mongodb::bson::raw::{CString, cstr};
use mongodb::bson::{
    DateTime, RawBsonRef, RawDocument, RawDocumentBuf, Uuid, deserialize_from_slice, rawdoc,
    serialize_to_raw_document_buf,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::query::check_field;
use super::json::json;
use super::rows::{count, date, id, int, time, uuid};
use super::trouble::Trouble;
use crate::handler::{Key, Wake};
use crate::store::{NewDoc, StoredDoc};

/// What only a record of an earlier release has: the JSON text …
pub(super) const BODY: &str = "body";

/// … and its texts.
pub(super) const FIELDS: &str = "fields";

/// A document as it is to be written, or why it cannot be.
pub(super) fn record(id: &str, version: u64, new: &NewDoc) -> Result<RawDocumentBuf, String> {
    let mut record = rawdoc! { "_id": id, "version": int(version), "shape": i64::from(new.shape) };
    match encode(&new.body) {
        Ok(bson) => {
            let bson = RawDocumentBuf::from_bytes(bson).map_err(|error| error.to_string())?;
            if let Some(doc) = bson.get(DOC).map_err(|error| error.to_string())? {
                record.append(cstr!("doc"), doc);
            }
        }
        // Such a one can no longer be staged. If an earlier release has left it, it stays text, is found as before, and its wake goes on.
        Err(_) => {
            record.append(cstr!("body"), std::str::from_utf8(&new.body).map_err(|error| error.to_string())?);
            let mut fields = RawDocumentBuf::new();
            for (name, text) in texts(&new.body) {
                fields.append(CString::try_from(name).map_err(|error| error.to_string())?, text);
            }
            record.append(cstr!("fields"), fields);
        }
    }
    if let Some(wake) = &new.wake {
        let wake = serialize_to_raw_document_buf(&WakeRow::new(wake)).map_err(|error| error.to_string())?;
        record.append(cstr!("wake"), wake);
    }
    Ok(record)
}

/// The top-level fields of a JSON object whose values are texts and that can be queried by; of anything else none.
fn texts(body: &[u8]) -> BTreeMap<String, String> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).unwrap_or_default();
    let text = |(name, value): (String, &RawValue)| {
        let value = serde_json::from_str(value.get()).ok()?;
        check_field(&name).is_ok().then_some((name, value))
    };
    fields.into_iter().filter_map(text).collect()
}

/// The document of a record.
pub(super) fn stored(record: &RawDocument, collection: &'static str) -> Result<StoredDoc, Trouble> {
    read(record, collection).map_err(|why| {
        let id = record.get_str("_id").unwrap_or_default();
        Trouble::Away(format!("MongoDB: the document {id} of `{collection}` cannot be read: {why}"))
    })
}

fn read(record: &RawDocument, collection: &'static str) -> Result<StoredDoc, String> {
    let said = |error: mongodb::bson::error::Error| error.to_string();
    let number = |name| record.get_i64(name).map_err(said);
    let body = match record.get(DOC).map_err(said)? {
        Some(doc) => json(doc)?,
        None => record.get_str(BODY).map_err(said)?.as_bytes().to_vec(),
    };
    let wake = match record.get("wake").map_err(said)? {
        Some(RawBsonRef::Document(wake)) => Some(deserialize_from_slice::<WakeRow>(wake.as_bytes()).map_err(said)?),
        _ => None,
    };
    Ok(StoredDoc {
        key: Key { collection, id: record.get_str("_id").map_err(said)?.into() },
        version: number("version")?.unsigned_abs(),
        shape: count(number("shape")?),
        body: body.into(),
        wake: wake.map(WakeRow::into_wake),
    })
}

#[derive(Serialize, Deserialize)]
struct WakeRow {
    kind: String,
    at: DateTime,
    opened: DateTime,
    attempt: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<DateTime>,
    generation: i64,
    cause: Uuid,
    correlation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

impl WakeRow {
    fn new(wake: &Wake) -> Self {
        Self {
            kind: wake.kind.clone(),
            at: date(wake.at),
            opened: date(wake.opened),
            attempt: wake.attempt.into(),
            lease: wake.lease.map(date),
            generation: int(wake.generation),
            cause: uuid(wake.cause),
            correlation: wake.correlation.clone(),
            traceparent: wake.traceparent.clone(),
        }
    }

    fn into_wake(self) -> Wake {
        Wake {
            kind: self.kind,
            opened: time(self.opened),
            at: time(self.at),
            attempt: count(self.attempt),
            lease: self.lease.map(time),
            generation: self.generation.unsigned_abs(),
            cause: id(self.cause),
            correlation: self.correlation,
            traceparent: self.traceparent,
        }
    }
}
