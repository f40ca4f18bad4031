//! What is read: by key, by field, by due time, by batch. What the loop calls is not inlined, so that a profile can name it.

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::commit::code;
use super::schema::{field_value, int};
use super::session::Failure;
use crate::handler::{Key, Wake};
use crate::ids::{Id, Timestamp};
use crate::store::{
    Collection, Entry, IdempotencyKey, Instance, Loaded, Published, Selection, Settled, State, StoredDoc, WakesDue,
    Wanted,
};

const DOC: &str = "id, version, shape, body, wake";
const ENTRY: &str = "id, version, state, at, instance, batch, stream, seq, attempts, started, redrives, error, first_failure, \
                     last_failure, emitted, reply";

/// `CROSS` keeps SQLite from walking the whole outbox and looking up each entry's instance.
pub(super) const COUNT_UNPUBLISHED: &str = "SELECT count(*) FROM instances i CROSS JOIN journal j \
    WHERE j.instance = i.id AND j.batch > i.published AND j.emitted IS NOT NULL";

#[inline(never)]
pub(super) fn load(conn: &mut Connection, wanted: &Wanted) -> Result<Loaded, Failure> {
    // One read transaction: all of it is of one moment, and the locks are taken once.
    let tx = conn.transaction()?;
    let mut loaded = Loaded::default();
    for of_collection in wanted.docs.chunk_by(|a, b| a.collection == b.collection) {
        let mut read = tx.prepare_cached(&by_id(of_collection[0].collection))?;
        for Key { collection, id } in of_collection {
            loaded.docs.extend(read.query_row([id], |row| doc(collection, row)).optional()?);
        }
    }
    if !wanted.journal.is_empty() {
        let mut read = tx.prepare_cached(&format!("SELECT {ENTRY} FROM journal WHERE id = ?"))?;
        for id in &wanted.journal {
            loaded.journal.extend(read.query_row([id.bytes()], entry).optional()?);
        }
    }
    for hash in &wanted.keys {
        let mut read = tx.prepare_cached("SELECT command, fingerprint, expires FROM keys WHERE hash = ?")?;
        let key = |row: &Row<'_>| {
            Ok(IdempotencyKey {
                hash: *hash,
                command: id_at(row, 0)?,
                fingerprint: row.get(1)?,
                expires: Timestamp::from_millis(row.get::<_, i64>(2)?.unsigned_abs()),
            })
        };
        loaded.keys.extend(read.query_row([hash], key).optional()?);
    }
    tx.finish()?;
    Ok(loaded)
}

pub(super) fn get(conn: &mut Connection, key: &Key) -> Result<Option<StoredDoc>, Failure> {
    let mut read = conn.prepare_cached(&by_id(key.collection))?;
    Ok(read.query_row([&key.id], |row| doc(key.collection, row)).optional()?)
}

fn by_id(collection: &str) -> String {
    format!("SELECT {DOC} FROM \"doc_{collection}\" WHERE id = ?")
}

pub(super) fn find(conn: &mut Connection, query: &Selection) -> Result<Vec<StoredDoc>, Failure> {
    let mut sql = format!("SELECT {DOC} FROM \"doc_{}\" WHERE true", query.collection);
    let mut values: Vec<Value> = vec![];
    for (field, value) in &query.filters {
        sql += &format!(" AND {} = ?", field_value(field)?);
        values.push(value.clone().into());
    }
    let (beyond, direction) = if query.descending { ("<", "DESC") } else { (">", "ASC") };
    if let Some(after) = &query.after {
        sql += &format!(" AND id {beyond} ?");
        values.push(after.clone().into());
    }
    sql += &format!(" ORDER BY id {direction} LIMIT ?");
    values.push(limit(query.limit).into());
    collect(conn, &sql, params_from_iter(values), |row| doc(query.collection, row))
}

/// The earliest of every collection and kind, merged: an index gives each of them in order.
#[inline(never)]
pub(super) fn due_wakes(
    conn: &mut Connection,
    collections: &[Collection],
    kinds: &[&'static str],
    now: Timestamp,
    most: usize,
) -> Result<Vec<StoredDoc>, Failure> {
    let mut due = vec![];
    for Collection { name, .. } in collections {
        let sql =
            format!("SELECT {DOC} FROM \"doc_{name}\" WHERE wake_kind = ? AND wake_at <= ? ORDER BY wake_at LIMIT ?");
        for kind in kinds {
            let values = params![kind, int(now.millis()), limit(most)];
            due.extend(collect(conn, &sql, values, |row| doc(name, row))?);
        }
    }
    due.sort_by_key(|doc| doc.wake.as_ref().map(|wake| wake.at));
    due.truncate(most);
    Ok(due)
}

pub(super) fn wakes_due(
    conn: &mut Connection,
    collections: &[Collection],
    now: Timestamp,
) -> Result<Vec<WakesDue>, Failure> {
    let mut kinds: HashMap<String, WakesDue> = HashMap::new();
    for Collection { name, .. } in collections {
        let sql = format!(
            "SELECT wake_kind, count(*), min(wake_at) FROM \"doc_{name}\" \
             WHERE wake_at IS NOT NULL AND wake_at <= ? GROUP BY wake_kind"
        );
        let counted = |row: &Row<'_>| Ok(WakesDue { kind: row.get(0)?, due: uint(row, 1)?, oldest: time(row, 2)? });
        for new in collect(conn, &sql, [int(now.millis())], counted)? {
            kinds
                .entry(new.kind.clone())
                .and_modify(|have| {
                    have.due += new.due;
                    have.oldest = have.oldest.min(new.oldest);
                })
                .or_insert(new);
        }
    }
    Ok(kinds.into_values().collect())
}

pub(super) fn instances(conn: &mut Connection) -> Result<Vec<Instance>, Failure> {
    let instance =
        |row: &Row<'_>| Ok(Instance { id: id_at(row, 0)?, version: uint(row, 1)?, published_through: uint(row, 2)? });
    collect(conn, "SELECT id, version, published FROM instances", [], instance)
}

pub(super) fn unpublished(conn: &mut Connection, instance: Id, after: u64, most: usize) -> Result<Vec<Entry>, Failure> {
    let sql = format!(
        "SELECT {ENTRY} FROM journal WHERE instance = ? AND batch > ? AND emitted IS NOT NULL ORDER BY batch, id LIMIT ?"
    );
    collect(conn, &sql, params![instance.bytes(), int(after), limit(most)], entry)
}

pub(super) fn count_unpublished(conn: &mut Connection) -> Result<u64, Failure> {
    Ok(conn.prepare_cached(COUNT_UNPUBLISHED)?.query_row([], |row| uint(row, 0))?)
}

pub(super) fn settled(conn: &Connection, stream: &str) -> rusqlite::Result<Option<Settled>> {
    let number = |row: &Row<'_>, at| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(i64::unsigned_abs));
    let mark = |row: &Row<'_>| {
        Ok(Settled {
            stream: row.get(0)?,
            through: uint(row, 1)?,
            created: row.get(2)?,
            until: number(row, 3)?.map(Timestamp::from_millis),
            seen: number(row, 4)?,
        })
    };
    conn.prepare_cached("SELECT stream, through, created, until, seen FROM settled WHERE stream = ?")?
        .query_row([stream], mark)
        .optional()
}

pub(super) fn published(conn: &mut Connection, stream: &str) -> Result<Vec<Published>, Failure> {
    let marks = |row: &Row<'_>| {
        let text = row.get_ref(1)?.as_str()?;
        let marks = serde_json::from_str(text)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into()))?;
        Ok(Published { instance: id_at(row, 0)?, stream: stream.into(), marks })
    };
    collect(conn, "SELECT instance, marks FROM published WHERE stream = ? ORDER BY instance", [stream], marks)
}

fn collect<T>(
    conn: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Failure> {
    Ok(conn.prepare_cached(sql)?.query_map(values, read)?.collect::<Result<_, _>>()?)
}

fn doc(collection: &'static str, row: &Row<'_>) -> rusqlite::Result<StoredDoc> {
    Ok(StoredDoc {
        key: Key { collection, id: row.get(0)? },
        version: uint(row, 1)?,
        shape: row.get(2)?,
        body: Bytes::copy_from_slice(row.get_ref(3)?.as_bytes()?),
        wake: row.get_ref(4)?.as_str_or_null()?.map(wake).transpose()?,
    })
}

fn wake(json: &str) -> rusqlite::Result<Wake> {
    serde_json::from_str(json)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, error.into()))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let state = row.get(2)?;
    let moment = |column| {
        Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(|at| Timestamp::from_millis(at.unsigned_abs())))
    };
    Ok(Entry {
        id: id_at(row, 0)?,
        version: uint(row, 1)?,
        state: [State::Open, State::Done, State::Parked]
            .into_iter()
            .find(|known| code(*known) == state)
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(2, state))?,
        at: time(row, 3)?,
        instance: id_at(row, 4)?,
        batch: uint(row, 5)?,
        stream: row.get(6)?,
        seq: uint(row, 7)?,
        attempts: row.get(8)?,
        started: row.get(9)?,
        redrives: row.get(10)?,
        error: row.get(11)?,
        first_failure: moment(12)?,
        last_failure: moment(13)?,
        emitted: row.get_ref(14)?.as_blob_or_null()?.map(Bytes::copy_from_slice).unwrap_or_default(),
        reply: row.get_ref(15)?.as_blob_or_null()?.map(Bytes::copy_from_slice),
    })
}

pub(super) fn id_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Id> {
    Ok(Id::from(uuid::Uuid::from_bytes(row.get(column)?)))
}

pub(super) fn uint(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::unsigned_abs)
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    uint(row, column).map(Timestamp::from_millis)
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
