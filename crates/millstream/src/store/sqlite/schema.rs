//! The file's tables and the connection's settings.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::session::{Failure, write};
use crate::store::Collection;
use crate::store::query::check_field;

/// The version of the tables, kept in the file. A file of a later one is refused.
const VERSION: i64 = 1;

const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Room for every statement that the engine repeats, for some dozen collections.
const CACHED_STATEMENTS: usize = 128;

/// In pages of this size a row of the journal with up to two kilobytes of emitted events lies beside others, and does not spill
/// into a page of its own.
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

/// A table that earlier releases of the toolkit did not have, and leave alone.
const PUBLISHED: &str = "
CREATE TABLE IF NOT EXISTS published (
    stream TEXT NOT NULL, instance BLOB NOT NULL, marks TEXT NOT NULL, PRIMARY KEY (stream, instance)
) WITHOUT ROWID;
";

/// Columns that earlier releases of the toolkit did not have. They may be NULL, and those releases leave them so.
const LATER: [(&str, &str, &str); 2] = [("settled", "until", "INTEGER"), ("settled", "seen", "INTEGER")];

/// Opens the file, created where there is none, with the tables that every service has.
pub(super) fn create(path: &Path) -> rusqlite::Result<Connection> {
    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
    let version = version(&conn)?;
    if version != 0 && version != VERSION {
        return Err(foreign(version));
    }
    conn.pragma_update(None, "page_size", PAGE)?;
    configure(&conn)?;
    if version == 0 {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(TABLES)?;
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()?;
    }
    complete(&mut conn)?;
    Ok(conn)
}

/// Adds what a file of an earlier release lacks.
fn complete(conn: &mut Connection) -> rusqlite::Result<()> {
    let lacks = |conn: &Connection, table: &str, column: &str| -> rusqlite::Result<bool> {
        Ok(!conn.prepare(&format!("SELECT 1 FROM pragma_table_info('{table}') WHERE name = ?"))?.exists([column])?)
    };
    if conn.prepare("SELECT 1 FROM pragma_table_info('published')")?.query([])?.next()?.is_none() {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(PUBLISHED)?;
        tx.commit()?;
    }
    for (table, column, kind) in LATER {
        if lacks(conn, table, column)? {
            // Another process may be doing the same.
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if lacks(&tx, table, column)? {
                tx.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
            }
            tx.commit()?;
        }
    }
    Ok(())
}

/// Opens a file that was there before. What is at its place now may be anything, and is not touched unless it is a store.
pub(super) fn reopen(path: &Path) -> rusqlite::Result<Connection> {
    let mut conn = connect(path, OpenFlags::empty())?;
    match version(&conn)? {
        VERSION => configure(&conn)?,
        other => return Err(foreign(other)),
    }
    complete(&mut conn)?;
    Ok(conn)
}

fn connect(path: &Path, create: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(conn)
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", LOG_PAGES * PAGE)
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

/// Deletes every row of every table, those of collections that this release no longer has, too.
pub(super) fn clear(conn: &mut Connection) -> Result<(), Failure> {
    write(conn, |tx| {
        let mut tables =
            tx.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")?;
        let tables: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        tables.iter().try_for_each(|table| Ok(tx.execute_batch(&format!("DELETE FROM \"{table}\""))?))
    })
}

/// The SQL for a document's field, the same text in an index and in the queries that are to use it.
pub(super) fn field_value(field: &str) -> rusqlite::Result<String> {
    check_field(field).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    Ok(format!("json_extract(body, '$.{field}')"))
}

/// SQLite's integers are signed; what does not fit is later than any time and higher than any count there will be.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::read::COUNT_UNPUBLISHED;
    use super::*;

    const ORDERS: Collection = Collection { name: "orders", indexed: &["userId"] };

    fn database() -> (Connection, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut conn = create(&folder.path().join("store.db")).unwrap();
        assert!(collections(&mut conn, &[ORDERS]).is_ok());
        (conn, folder)
    }

    #[test]
    fn every_connection_logs_ahead_and_syncs_at_each_commit() {
        let (created, folder) = database();
        let reopened = reopen(&folder.path().join("store.db")).unwrap();
        for conn in [created, reopened] {
            let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            let synchronous: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
            assert_eq!((&*mode, synchronous), ("wal", 2));
        }
    }

    #[test]
    fn what_the_engine_repeats_is_answered_by_an_index() {
        let (conn, _folder) = database();
        for (sql, index) in [
            (
                "SELECT wake FROM doc_orders WHERE wake_kind = ? AND wake_at <= ? ORDER BY wake_at LIMIT ?",
                "doc_orders.wake",
            ),
            (
                &format!(
                    "SELECT id FROM doc_orders WHERE true AND {} = ? AND id > ? ORDER BY id",
                    field_value("userId").unwrap()
                ),
                "doc_orders.userId",
            ),
            (
                "SELECT reply FROM journal WHERE instance = ? AND batch > ? AND emitted IS NOT NULL ORDER BY batch, id LIMIT ?",
                "outbox",
            ),
            (COUNT_UNPUBLISHED, "INDEX outbox (instance=? AND batch>?)"),
            ("SELECT hash FROM keys WHERE expires < ? ORDER BY expires LIMIT ?", "keys_expire"),
        ] {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let nulls = vec![rusqlite::types::Null; explain.parameter_count()];
            let plan: Vec<String> = explain
                .query_map(rusqlite::params_from_iter(nulls), |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let plan = plan.join("; ");
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}
