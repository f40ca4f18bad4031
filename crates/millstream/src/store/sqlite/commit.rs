//! A batch as one transaction. Every guard is a condition of the statement that writes. The parts are not inlined, so that a profile
//! can name them.

use std::borrow::Cow;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, params};

use super::schema::int;
use super::session::{Failure, write};
use crate::handler::Wake;
use crate::ids::Timestamp;
use crate::store::{Batch, CommitError, DocWrite, Entry, IdempotencyKey, State};

#[inline(never)]
pub(super) fn commit(conn: &mut Connection, batch: &Batch) -> Result<(), Failure> {
    write(conn, |tx| {
        let mut statements = Statements { tx, taken: vec![] };
        raise_instance(tx, batch)?;
        batch.docs.iter().try_for_each(|doc| document(&mut statements, doc))?;
        batch.journal.iter().try_for_each(|entry| journal(&mut statements, entry))?;
        batch.keys.iter().try_for_each(|key| idempotency_key(tx, key, batch.now))
    })
}

/// What a row is written with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind<'b> {
    Read(&'b str),
    Insert(&'b str),
    Update(&'b str),
    NewEntry,
    Entry,
}

/// The statements of one transaction, each taken from the connection's cache once and not for each row.
struct Statements<'t, 'b> {
    tx: &'t Transaction<'t>,
    taken: Vec<(Kind<'b>, CachedStatement<'t>)>,
}

impl<'t, 'b> Statements<'t, 'b> {
    fn of(&mut self, kind: Kind<'b>) -> rusqlite::Result<&mut CachedStatement<'t>> {
        let at = match self.taken.iter().position(|(taken, _)| *taken == kind) {
            Some(at) => at,
            None => {
                self.taken.push((kind, self.tx.prepare_cached(&kind.sql())?));
                self.taken.len() - 1
            }
        };
        Ok(&mut self.taken[at].1)
    }
}

impl Kind<'_> {
    fn sql(self) -> Cow<'static, str> {
        match self {
            Self::Read(table) => format!("SELECT version FROM \"doc_{table}\" WHERE id = ?").into(),
            Self::Insert(table) => format!(
                "INSERT INTO \"doc_{table}\" (id, version, shape, body, wake_kind, wake_at, wake) \
                 VALUES (?, 1, ?, CAST(? AS TEXT), ?, ?, ?) ON CONFLICT DO NOTHING"
            )
            .into(),
            Self::Update(table) => format!(
                "UPDATE \"doc_{table}\" SET version = version + 1, shape = ?, body = CAST(? AS TEXT), \
                 wake_kind = ?, wake_at = ?, wake = ? WHERE id = ? AND version = ?"
            )
            .into(),
            Self::NewEntry => {
                "INSERT INTO journal (id, version, state, at, instance, batch, stream, seq, attempts, started, redrives, \
                 error, first_failure, last_failure, emitted, reply) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) ON CONFLICT DO NOTHING"
                    .into()
            }
            Self::Entry => {
                "UPDATE journal SET version = ?2, state = ?3, at = ?4, instance = ?5, batch = ?6, stream = ?7, seq = ?8, \
                 attempts = ?9, started = ?10, redrives = ?11, error = ?12, first_failure = ?13, last_failure = ?14, \
                 emitted = ?15, reply = ?16 WHERE id = ?1 AND version = ?2 - 1"
                    .into()
            }
        }
    }
}

fn held(changed: usize, otherwise: CommitError) -> Result<(), Failure> {
    if changed == 1 { Ok(()) } else { Err(Failure::Refused(otherwise)) }
}

#[inline(never)]
fn raise_instance(tx: &Transaction<'_>, batch: &Batch) -> Result<(), Failure> {
    let mut raise =
        tx.prepare_cached("UPDATE instances SET version = version + 1, published = max(published, ?2) WHERE id = ?1")?;
    held(raise.execute(params![batch.instance.bytes(), int(batch.published_through)])?, CommitError::Fenced)
}

#[inline(never)]
fn document<'b>(statements: &mut Statements<'_, 'b>, doc: &'b DocWrite) -> Result<(), Failure> {
    let (table, id) = (doc.key.collection, &doc.key.id);
    let Some(new) = &doc.write else {
        let read = statements.of(Kind::Read(table))?;
        let version: Option<i64> = read.query_row([id], |row| row.get(0)).optional()?;
        return held(usize::from(version == doc.expected.map(int)), CommitError::Version);
    };
    let (kind, at) = (new.wake.as_ref().map(|wake| &wake.kind), new.wake.as_ref().map(|wake| int(wake.at.millis())));
    let wake = new.wake.as_ref().map(wake_json).transpose()?;
    let (shape, body) = (new.shape, &*new.body);
    let changed = match doc.expected {
        None => statements.of(Kind::Insert(table))?.execute(params![id, shape, body, kind, at, wake])?,
        Some(expected) => {
            statements.of(Kind::Update(table))?.execute(params![shape, body, kind, at, wake, id, int(expected)])?
        }
    };
    held(changed, CommitError::Version)
}

fn wake_json(wake: &Wake) -> rusqlite::Result<String> {
    serde_json::to_string(wake).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

#[inline(never)]
fn journal(statements: &mut Statements<'_, '_>, entry: &Entry) -> Result<(), Failure> {
    let (kind, otherwise) =
        if entry.version == 1 { (Kind::NewEntry, CommitError::Duplicate) } else { (Kind::Entry, CommitError::Version) };
    let time = |at: Option<Timestamp>| at.map(|at| int(at.millis()));
    let changed = statements.of(kind)?.execute(params![
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

#[inline(never)]
fn idempotency_key(tx: &Transaction<'_>, key: &IdempotencyKey, now: Timestamp) -> Result<(), Failure> {
    let mut put = tx.prepare_cached(
        "INSERT INTO keys (hash, command, fingerprint, expires) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (hash) DO UPDATE \
         SET command = excluded.command, fingerprint = excluded.fingerprint, expires = excluded.expires \
         WHERE expires <= ?5",
    )?;
    let (expires, now) = (int(key.expires.millis()), int(now.millis()));
    held(put.execute(params![key.hash, key.command.bytes(), key.fingerprint, expires, now])?, CommitError::Duplicate)
}
