//! A batch as one transaction. Every guard is a condition of the statement that writes.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::schema::int;
use super::session::{Failure, write};
use crate::handler::Wake;
use crate::ids::Timestamp;
use crate::store::{Batch, CommitError, DocWrite, Entry, IdempotencyKey, State};

pub(super) fn commit(conn: &mut Connection, batch: &Batch) -> Result<(), Failure> {
    write(conn, |tx| {
        raise_instance(tx, batch)?;
        batch.docs.iter().try_for_each(|doc| document(tx, doc))?;
        batch.journal.iter().try_for_each(|entry| journal(tx, entry))?;
        batch.keys.iter().try_for_each(|key| idempotency_key(tx, key, batch.now))
    })
}

fn held(changed: usize, otherwise: CommitError) -> Result<(), Failure> {
    if changed == 1 { Ok(()) } else { Err(Failure::Refused(otherwise)) }
}

fn raise_instance(tx: &Transaction<'_>, batch: &Batch) -> Result<(), Failure> {
    let mut raise =
        tx.prepare_cached("UPDATE instances SET version = version + 1, published = max(published, ?2) WHERE id = ?1")?;
    held(raise.execute(params![batch.instance.bytes(), int(batch.published_through)])?, CommitError::Fenced)
}

fn document(tx: &Transaction<'_>, doc: &DocWrite) -> Result<(), Failure> {
    let (table, id) = (doc.key.collection, &doc.key.id);
    let Some(new) = &doc.write else {
        let mut read = tx.prepare_cached(&format!("SELECT version FROM \"doc_{table}\" WHERE id = ?"))?;
        let version: Option<i64> = read.query_row([id], |row| row.get(0)).optional()?;
        return held(usize::from(version == doc.expected.map(int)), CommitError::Version);
    };
    let (kind, at) = (new.wake.as_ref().map(|wake| &wake.kind), new.wake.as_ref().map(|wake| int(wake.at.millis())));
    let wake = new.wake.as_ref().map(wake_json).transpose()?;
    let (shape, body) = (new.shape, &*new.body);
    let changed = match doc.expected {
        None => tx
            .prepare_cached(&format!(
                "INSERT INTO \"doc_{table}\" (id, version, shape, body, wake_kind, wake_at, wake) \
                 VALUES (?, 1, ?, CAST(? AS TEXT), ?, ?, ?) ON CONFLICT DO NOTHING"
            ))?
            .execute(params![id, shape, body, kind, at, wake])?,
        Some(expected) => tx
            .prepare_cached(&format!(
                "UPDATE \"doc_{table}\" SET version = version + 1, shape = ?, body = CAST(? AS TEXT), \
                 wake_kind = ?, wake_at = ?, wake = ? WHERE id = ? AND version = ?"
            ))?
            .execute(params![shape, body, kind, at, wake, id, int(expected)])?,
    };
    held(changed, CommitError::Version)
}

fn wake_json(wake: &Wake) -> rusqlite::Result<String> {
    serde_json::to_string(wake).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn journal(tx: &Transaction<'_>, entry: &Entry) -> Result<(), Failure> {
    let (sql, otherwise) = if entry.version == 1 {
        let insert = "INSERT INTO journal (id, version, state, at, instance, batch, stream, seq, attempts, started, redrives, \
                      error, first_failure, last_failure, emitted, reply) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) ON CONFLICT DO NOTHING";
        (insert, CommitError::Duplicate)
    } else {
        let update = "UPDATE journal SET version = ?2, state = ?3, at = ?4, instance = ?5, batch = ?6, stream = ?7, seq = ?8, \
                      attempts = ?9, started = ?10, redrives = ?11, error = ?12, first_failure = ?13, last_failure = ?14, \
                      emitted = ?15, reply = ?16 WHERE id = ?1 AND version = ?2 - 1";
        (update, CommitError::Version)
    };
    let time = |at: Option<Timestamp>| at.map(|at| int(at.millis()));
    let changed = tx.prepare_cached(sql)?.execute(params![
        entry.id.bytes(),
        int(entry.version),
        code(entry.state),
        int(entry.at.millis()),
        entry.instance.bytes(),
        int(entry.batch),
        entry.stream,
        int(entry.seq),
        entry.attempts,
        entry.started,
        entry.redrives,
        entry.error,
        time(entry.first_failure),
        time(entry.last_failure),
        (!entry.emitted.is_empty()).then_some(&*entry.emitted),
        entry.reply.as_deref(),
    ])?;
    held(changed, otherwise)
}

/// How a state is written.
pub(super) fn code(state: State) -> i64 {
    match state {
        State::Open => 0,
        State::Done => 1,
        State::Parked => 2,
    }
}

fn idempotency_key(tx: &Transaction<'_>, key: &IdempotencyKey, now: Timestamp) -> Result<(), Failure> {
    let mut put = tx.prepare_cached(
        "INSERT INTO keys (hash, command, fingerprint, expires) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (hash) DO UPDATE \
         SET command = excluded.command, fingerprint = excluded.fingerprint, expires = excluded.expires \
         WHERE expires <= ?5",
    )?;
    let (expires, now) = (int(key.expires.millis()), int(now.millis()));
    held(put.execute(params![key.hash, key.command.bytes(), key.fingerprint, expires, now])?, CommitError::Duplicate)
}
