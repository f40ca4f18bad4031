//! SQLite: one file a service, in WAL mode and synced at every commit. Several processes on one host may share the file.
//!
//! A writer thread owns one connection and does all that the engine's loop asks for, in order. A reader thread owns another,
//! so that what HTTP asks for does not queue behind commits.

mod commit;
mod expire;
mod read;
mod schema;
mod session;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::{OptionalExtension, Transaction, params};

use self::session::{Failure, Session, Thread};
use super::{
    Batch, Collection, CommitError, Entry, Expiry, Instance, Loaded, PrepareError, Published, Selection, Settled,
    Store, StoreError, StoreUrl, StoredDoc, WakesDue, Wanted,
};
use crate::handler::Key;
use crate::ids::{Id, Timestamp};

/// A store in one SQLite file.
pub struct SqliteStore {
    writer: Thread,
    reader: Thread,
    collections: RwLock<Vec<Collection>>,
}

impl SqliteStore {
    /// Opens `sqlite:///absolute/path.db`, `sqlite://relative/path.db` or a plain path, and creates the file and its folder
    /// where there is none.
    ///
    /// From then on the file is expected to stay: while it is gone, everything answers that the store is away, and a new file
    /// is never made in its place.
    ///
    /// # Errors
    /// When the URL has another form, or the file cannot be opened, or is no database of this release's making.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::at(&path_of(url)?)
    }

    /// Opens the file at a path.
    pub(crate) fn at(path: &Path) -> Result<Self, StoreError> {
        let path: Arc<Path> = path.into();
        let writer = Session::create(&path)?;
        let reader = Session::create(&path)?;
        Ok(Self {
            writer: Thread::start("store-writer", writer)?,
            reader: Thread::start("store-reader", reader)?,
            collections: RwLock::default(),
        })
    }

    fn collections(&self) -> Vec<Collection> {
        self.collections.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn path_of(url: &str) -> Result<PathBuf, StoreError> {
    let path = match url.split_once("://") {
        Some(("sqlite", path)) if !path.ends_with('/') => match StoreUrl::read(url) {
            Ok(StoreUrl::Sqlite(path)) => return Ok(path),
            _ => path,
        },
        Some(("sqlite", path)) => path,
        Some((scheme, _)) => {
            return Err(StoreError::new(format!("`{scheme}://` is not SQLite: use sqlite:///path/to/file.db")));
        }
        None => url,
    };
    // An in-memory database would be another one for each connection, and settings in a query would become part of the name.
    if path.is_empty() || path.ends_with('/') || path.contains([':', '?']) {
        return Err(StoreError::new(format!("`{url}` names no file: use sqlite:///path/to/file.db")));
    }
    Ok(path.into())
}

impl Store for SqliteStore {
    fn prepare<'a>(&'a self, collections: &'a [Collection]) -> BoxFuture<'a, Result<(), PrepareError>> {
        let wanted = collections.to_vec();
        async move {
            let create = wanted.clone();
            self.writer.ask(move |session| session.patient(|conn| schema::collections(conn, &create))).await?;
            let mut known = self.collections.write().unwrap_or_else(PoisonError::into_inner);
            for new in wanted {
                if known.iter().all(|old| old.name != new.name) {
                    known.push(new);
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn load(&self, wanted: Wanted) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        self.writer.ask(move |session| session.patient(|conn| read::load(conn, &wanted))).boxed()
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<StoredDoc>, StoreError>> {
        self.reader.ask(move |session| session.patient(|conn| read::get(conn, &key))).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>> {
        self.writer.commit(move |session| session.durable(|conn| commit::commit(conn, &batch))).boxed()
    }

    fn find(&self, query: Selection) -> BoxFuture<'_, Result<Vec<StoredDoc>, StoreError>> {
        self.reader.ask(move |session| session.patient(|conn| read::find(conn, &query))).boxed()
    }

    fn due_wakes<'a>(
        &'a self,
        kinds: &'a [&'static str],
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredDoc>, StoreError>> {
        let (collections, kinds) = (self.collections(), kinds.to_vec());
        self.writer
            .ask(move |session| session.patient(|conn| read::due_wakes(conn, &collections, &kinds, now, limit)))
            .boxed()
    }

    fn wakes_due(&self, now: Timestamp) -> BoxFuture<'_, Result<Vec<WakesDue>, StoreError>> {
        let collections = self.collections();
        self.reader.ask(move |session| session.patient(|conn| read::wakes_due(conn, &collections, now))).boxed()
    }

    fn insert_instance(&self, id: Id) -> BoxFuture<'_, Result<(), StoreError>> {
        let insert = move |tx: &Transaction<'_>| {
            tx.prepare_cached(
                "INSERT INTO instances (id, version, published) VALUES (?, 0, 0) ON CONFLICT DO NOTHING",
            )?
            .execute([id.bytes()])?;
            Ok(())
        };
        self.writer.write(insert).boxed()
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<Instance>, StoreError>> {
        self.writer.ask(|session| session.patient(read::instances)).boxed()
    }

    fn delete_instance(&self, id: Id, version: u64) -> BoxFuture<'_, Result<bool, StoreError>> {
        let delete = move |tx: &Transaction<'_>| {
            let mut delete = tx.prepare_cached("DELETE FROM instances WHERE id = ? AND version = ?")?;
            Ok(delete.execute(params![id.bytes(), schema::int(version)])? == 1)
        };
        self.writer.write(delete).boxed()
    }

    fn unpublished(&self, instance: Id, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        self.writer.ask(move |session| session.patient(|conn| read::unpublished(conn, instance, after, limit))).boxed()
    }

    fn count_unpublished(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.reader.ask(|session| session.patient(read::count_unpublished)).boxed()
    }

    fn init_settled(&self, mark: Settled) -> BoxFuture<'_, Result<Settled, StoreError>> {
        let init = move |tx: &Transaction<'_>| {
            tx.prepare_cached(
                "INSERT INTO settled (stream, through, created, until, seen) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT (stream) DO UPDATE SET through = excluded.through, created = excluded.created, \
                 until = excluded.until, seen = excluded.seen WHERE created <> excluded.created",
            )?
            .execute(params![
                mark.stream,
                schema::int(mark.through),
                mark.created,
                until(&mark),
                seen(&mark)
            ])?;
            read::settled(tx, &mark.stream)?.ok_or(Failure::Sql(rusqlite::Error::QueryReturnedNoRows))
        };
        self.writer.write(init).boxed()
    }

    fn move_settled(&self, from: Settled, to: Settled) -> BoxFuture<'_, Result<bool, StoreError>> {
        let put = move |tx: &Transaction<'_>| {
            let mut put = tx.prepare_cached(
                "UPDATE settled SET through = ?, created = ?, until = ?, seen = ? \
                 WHERE stream = ? AND through = ? AND created = ? AND until IS ? AND seen IS ?",
            )?;
            let moved = put.execute(params![
                schema::int(to.through),
                to.created,
                until(&to),
                seen(&to),
                from.stream,
                schema::int(from.through),
                from.created,
                until(&from),
                seen(&from)
            ])?;
            Ok(moved == 1)
        };
        self.writer.write(put).boxed()
    }

    fn settled<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Option<Settled>, StoreError>> {
        let stream = stream.to_owned();
        self.writer.ask(move |session| session.patient(|conn| Ok(read::settled(conn, &stream)?))).boxed()
    }

    fn put_published(&self, published: Published) -> BoxFuture<'_, Result<(), StoreError>> {
        let put = move |tx: &Transaction<'_>| {
            let mut put = tx.prepare_cached(
                "INSERT INTO published (stream, instance, marks) VALUES (?, ?, ?) \
                 ON CONFLICT (stream, instance) DO UPDATE SET marks = excluded.marks",
            )?;
            let marks = serde_json::to_string(&published.marks)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            put.execute(params![published.stream, published.instance.bytes(), marks])?;
            Ok(())
        };
        self.writer.write(put).boxed()
    }

    fn published<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Vec<Published>, StoreError>> {
        let stream = stream.to_owned();
        self.writer.ask(move |session| session.patient(|conn| read::published(conn, &stream))).boxed()
    }

    fn forget_published<'a>(&'a self, instance: Id, stream: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let stream = stream.to_owned();
        let forget = move |tx: &Transaction<'_>| {
            let mut forget = tx.prepare_cached("DELETE FROM published WHERE stream = ? AND instance = ?")?;
            forget.execute(params![stream, instance.bytes()])?;
            Ok(())
        };
        self.writer.write(forget).boxed()
    }

    fn expire(&self, expiry: Expiry) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.writer.ask(move |session| session.expire(&expiry)).boxed()
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.writer.ask(|session| session.patient(schema::clear)).boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let ping = |session: &mut Session| {
            session.patient(|conn| {
                conn.prepare_cached("SELECT version FROM instances LIMIT 1")?.query_row([], |_| Ok(())).optional()?;
                Ok(())
            })
        };
        self.reader.ask(ping).boxed()
    }
}

fn until(mark: &Settled) -> Option<i64> {
    mark.until.map(|until| schema::int(until.millis()))
}

fn seen(mark: &Settled) -> Option<i64> {
    mark.seen.map(schema::int)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_absolute_or_a_relative_file() {
        assert_eq!(path_of("sqlite:///var/lib/orders.db").unwrap(), PathBuf::from("/var/lib/orders.db"));
        assert_eq!(path_of("sqlite://data/orders.db").unwrap(), PathBuf::from("data/orders.db"));
        assert_eq!(path_of("/var/lib/orders.db").unwrap(), PathBuf::from("/var/lib/orders.db"));
    }

    #[test]
    fn a_url_without_a_file_is_refused_with_the_right_form() {
        for url in
            ["", "sqlite://", "sqlite::memory:", ":memory:", "sqlite:///data/", "sqlite://a.db?mode=ro", "mysql://h/d"]
        {
            let error = path_of(url).unwrap_err();
            assert!(error.to_string().contains("sqlite:///path/to/file.db"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn what_is_written_beside_the_loop_keeps_no_commit_from_its_turn_while_another_writer_is_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(path.to_str().unwrap()).unwrap();
        let id = Id::random(Timestamp::from_millis(1));
        store.insert_instance(id).await.unwrap();
        let another = rusqlite::Connection::open(&path).unwrap();
        another.execute_batch("BEGIN IMMEDIATE").unwrap();

        let mark = store.put_published(Published::new(id, "S"));
        let batch = Batch {
            instance: id,
            batch: 0,
            published_through: 0,
            docs: vec![],
            journal: vec![],
            keys: vec![],
            now: Timestamp::from_millis(1),
        };
        let commit = async {
            // After what it finds queued.
            tokio::task::yield_now().await;
            let refused = store.commit(batch).await;
            another.execute_batch("ROLLBACK").unwrap();
            refused
        };
        let (marked, committed) = tokio::join!(mark, commit);
        assert_eq!(committed, Err(CommitError::Busy));
        marked.expect("it has waited longer");
    }
}
