//! The file's tables and the connection's settings.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::session::{Failure, write};
use crate::store::{Collection, StoreError};

/// The version of the tables, kept in the file. A file of a later one is refused.
const VERSION: i64 = 1;

const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Room for every statement that the engine repeats, for some dozen collections.
const CACHED_STATEMENTS: usize = 128;

/// A row of the journal with up to two kilobytes of emitted events still fits beside others in a page of this size, and does not spill
/// into pages of its own.
const PAGE: i64 = 8_192;

/// Once the log has grown by so many pages it is written back to the file, and begun anew in its place.
const LOG_PAGES: i64 = 1_000;

/// The pages kept in memory, for each of two connections.
const CACHE_KIB: i64 = 16_000;

/// The ids of the journal sort by time, so its rows are appended to a tree without row numbers. What has been emitted is NULL
/// where there is nothing, and only the others are in the index: it is the outbox.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS journal (
    id BLOB PRIMARY KEY, version INTEGER NOT NULL, state INTEGER NOT NULL, at INTEGER NOT NULL, instance BLOB NOT NULL,
    batch INTEGER NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL, attempts INTEGER NOT NULL, started INTEGER NOT NULL,
    redrives INTEGER NOT NULL, error TEXT, first_failure INTEGER, last_failure INTEGER, emitted BLOB, reply BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outbox ON journal (instance, batch) WHERE emitted IS NOT NULL;
CREATE TABLE IF NOT EXISTS keys (
    hash BLOB PRIMARY KEY, command BLOB NOT NULL, fingerprint BLOB NOT NULL, expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_expire ON keys (expires);
CREATE TABLE IF NOT EXISTS instances (
    id BLOB PRIMARY KEY, version INTEGER NOT NULL, published INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settled (
    stream TEXT PRIMARY KEY, through INTEGER NOT NULL, created TEXT NOT NULL
) WITHOUT ROWID;
";

/// Opens the file, created where there is none, with the tables that every service has.
pub(super) fn create(path: &Path) -> rusqlite::Result<Connection> {
    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
    match version(&conn)? {
        VERSION => {}
        0 => {
            let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "user_version", VERSION)?;
            tx.commit()?;
        }
        other => return Err(foreign(other)),
    }
    Ok(conn)
}

/// Opens a file that was there before. What is at its place now may be anything, and nothing is created in it.
pub(super) fn reopen(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::empty())?;
    match version(&conn)? {
        VERSION => Ok(conn),
        other => Err(foreign(other)),
    }
}

fn connect(path: &Path, create: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    if !create.is_empty() {
        conn.pragma_update(None, "page_size", PAGE)?;
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", LOG_PAGES * PAGE)?;
    Ok(conn)
}

fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn foreign(version: i64) -> rusqlite::Error {
    let error = format!("its tables are of version {version}, and this release knows only version {VERSION}");
    rusqlite::Error::ToSqlConversionFailure(error.into())
}

/// Creates what is missing of collections.
pub(super) fn collections(conn: &mut Connection, collections: &[Collection]) -> Result<(), Failure> {
    write(conn, |tx| {
        for Collection { name, indexed } in collections {
            tx.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS \"doc_{name}\" (
                     id TEXT PRIMARY KEY, version INTEGER NOT NULL, shape INTEGER NOT NULL, body TEXT NOT NULL,
                     wake_kind TEXT, wake_at INTEGER, wake TEXT
                 ) WITHOUT ROWID;
                 CREATE INDEX IF NOT EXISTS \"doc_{name}.wake\" ON \"doc_{name}\" (wake_kind, wake_at)
                     WHERE wake_at IS NOT NULL;"
            ))?;
            for field in *indexed {
                let value = field_value(field)?;
                tx.execute_batch(&format!(
                    "CREATE INDEX IF NOT EXISTS \"doc_{name}.{field}\" ON \"doc_{name}\" ({value}, id);"
                ))?;
            }
        }
        Ok(())
    })
}

/// The SQL for a document's field, the same text in an index and in the queries that are to use it.
pub(super) fn field_value(field: &str) -> rusqlite::Result<String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if field.is_empty() || !field.bytes().all(legal) {
        let error = StoreError(format!("a field to query by is made of A-Z, a-z, 0-9 and _, not `{field}`"));
        return Err(rusqlite::Error::ToSqlConversionFailure(error.into()));
    }
    Ok(format!("json_extract(body, '$.{field}')"))
}

/// SQLite's integers are signed; what does not fit is later than any time and higher than any count there will be.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
