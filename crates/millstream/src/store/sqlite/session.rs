//! A connection on a thread of its own, and what becomes of it when the file or the disk goes away.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::schema;
use crate::ids::Id;
use crate::store::{CommitError, StoreError};

/// How often an operation that has no word for "busy" waits out the connection's busy time-out.
const PATIENCE: u32 = 5;

/// Opening a new file at the same time as another process can be refused as busy without the time-out being waited for.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// Why something did not happen.
pub(super) enum Failure {
    /// Before the end of the transaction: nothing was committed.
    Sql(rusqlite::Error),
    /// At `COMMIT`: what was written may be durable all the same.
    AtCommit(rusqlite::Error),
    /// A guard did not hold.
    Refused(CommitError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// A thread that does jobs on its session in order, and ends once its handle is dropped and the last is done.
pub(super) struct Thread {
    jobs: mpsc::Sender<Job>,
}

impl Thread {
    pub(super) fn start(name: &str, mut session: Session) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || queue.into_iter().for_each(|job| job(&mut session));
        std::thread::Builder::new()
            .name(name.into())
            .spawn(run)
            .map_err(|error| StoreError::new(format!("cannot start the thread {name}: {error}")))?;
        Ok(Self { jobs })
    }

    fn send<T: Send + 'static>(&self, work: impl FnOnce(&mut Session) -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        // A caller that no longer waits, or a thread that is gone, is seen at the other end of `answer`.
        let _ = self.jobs.send(Box::new(move |session| drop(answer.send(work(session)))));
        answered
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.send(work).await.unwrap_or_else(|_| Err(StoreError::new("the store's thread has ended")))
    }

    /// Writes beside the loop. Waits for other writers several times over, and lets what is queued have its turn in between.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Transaction<'_>) -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let work = Arc::new(work);
        for _ in 1..PATIENCE {
            let work = work.clone();
            if let Some(done) = self.ask(move |session| session.attempt(|conn| write(conn, &*work))).await? {
                return Ok(done);
            }
        }
        self.ask(move |session| session.attempt(|conn| write(conn, &*work))?.ok_or_else(|| session.busy())).await
    }

    pub(super) async fn commit(
        &self,
        work: impl FnOnce(&mut Session) -> Result<(), CommitError> + Send + 'static,
    ) -> Result<(), CommitError> {
        let ended = || Err(CommitError::Unknown("the store's thread has ended".into()));
        self.send(work).await.unwrap_or_else(|_| ended())
    }
}

/// A connection that is opened anew after it failed.
pub(super) struct Session {
    path: Arc<Path>,
    link: Option<Link>,
    /// Where the next search for expired entries goes on.
    pub(super) expired_to: Option<Id>,
}

impl Session {
    /// Opens the file, and creates what is missing: folder, file, tables.
    pub(super) fn create(path: &Arc<Path>) -> Result<Self, StoreError> {
        let away = |error: &dyn std::fmt::Display| StoreError::new(format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| away(&error))?;
        }
        let deadline = Instant::now() + OPEN_PATIENCE;
        let conn = loop {
            match schema::create(path) {
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => break other.map_err(|error| away(&error))?,
            }
        };
        let file = identity(path).ok_or_else(|| away(&"the file went away while it was being opened"))?;
        Ok(Self { path: path.clone(), link: Some(Link { conn, path: path.clone(), file }), expired_to: None })
    }

    /// Runs something that has no word for "busy": waits for other writers several times over.
    pub(super) fn patient<T>(
        &mut self,
        mut work: impl FnMut(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        for _ in 1..PATIENCE {
            if let Some(done) = self.attempt(&mut work)? {
                return Ok(done);
            }
        }
        self.attempt(work)?.ok_or_else(|| self.busy())
    }

    /// Runs it once; `None` if another writer is in the way.
    fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<Option<T>, StoreError> {
        match self.run(work) {
            Ok(done) => Ok(Some(done)),
            Err(CommitError::Busy) => Ok(None),
            Err(CommitError::Away(error) | CommitError::Unknown(error)) => Err(StoreError::new(error)),
            Err(error) => Err(StoreError::new(self.because(&error))),
        }
    }

    fn busy(&self) -> StoreError {
        StoreError::new(self.because(&CommitError::Busy))
    }

    /// Runs a commit. One into a file that is no longer in its place is as good as lost, but may come back with the file.
    pub(super) fn durable(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<(), Failure>,
    ) -> Result<(), CommitError> {
        self.run(work)?;
        match self.link.as_ref().is_some_and(Link::in_place) {
            true => Ok(()),
            false => Err(CommitError::Unknown(self.because(&"the file was moved or deleted during a commit"))),
        }
    }

    pub(super) fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, CommitError> {
        let failure = match work(self.connection()?) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        match failure {
            Failure::Refused(error) => Err(error),
            Failure::Sql(error) | Failure::AtCommit(error) if is_busy(&error) => Err(CommitError::Busy),
            Failure::Sql(error) => {
                self.cut();
                Err(CommitError::Away(self.because(&error)))
            }
            Failure::AtCommit(error) => {
                self.cut();
                Err(CommitError::Unknown(self.because(&error)))
            }
        }
    }

    /// The connection, if the file that it has open is the one at the path. SQLite itself goes on happily with a file that was
    /// deleted or moved, and what it commits is lost.
    fn connection(&mut self) -> Result<&mut Connection, CommitError> {
        if self.link.as_ref().is_some_and(|link| !link.in_place()) {
            self.cut();
        }
        let link = match self.link.take() {
            Some(link) => link,
            None => self.reopen()?,
        };
        Ok(&mut self.link.insert(link).conn)
    }

    fn reopen(&self) -> Result<Link, CommitError> {
        let away = |error: &dyn std::fmt::Display| CommitError::Away(self.because(error));
        let file = identity(&self.path).ok_or_else(|| away(&"there is no such file"))?;
        let conn = schema::reopen(&self.path).map_err(|error| match is_busy(&error) {
            true => CommitError::Busy,
            false => away(&error),
        })?;
        let link = Link { conn, path: self.path.clone(), file };
        if link.in_place() { Ok(link) } else { Err(away(&"the file was replaced while it was being opened")) }
    }

    /// Closes a connection that is of no use any more.
    fn cut(&mut self) {
        if let Some(link) = self.link.take() {
            link.leave_the_log();
        }
    }

    fn because(&self, error: &dyn std::fmt::Display) -> String {
        format!("{}: {error}", self.path.display())
    }
}

struct Link {
    conn: Connection,
    path: Arc<Path>,
    file: (u64, u64),
}

impl Link {
    fn in_place(&self) -> bool {
        identity(&self.path) == Some(self.file)
    }

    /// The last connection to close writes the log back and deletes it *by name*: after the file was moved that would be the
    /// log of another.
    fn leave_the_log(&self) {
        let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.in_place() {
            self.leave_the_log();
        }
    }
}

/// Which file is at the path: its device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Whether another connection is in the way and nothing is wrong.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
    )
}

/// Runs `work` in a transaction that holds the write lock from its start, so that nothing read in it can change.
pub(super) fn write<T>(
    conn: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&tx)?;
    tx.commit().map_err(Failure::AtCommit)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Session, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("store.db").into();
        (Session::create(&path).unwrap(), folder)
    }

    fn sqlite(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
    }

    #[test]
    fn a_commit_that_fails_at_its_sync_is_unknown_and_the_connection_is_opened_anew() {
        let (mut session, _folder) = session();
        let failed = session.durable(|_| Err(Failure::AtCommit(sqlite(rusqlite::ffi::SQLITE_IOERR_FSYNC))));
        assert!(matches!(failed, Err(CommitError::Unknown(_))), "{failed:?}");
        assert!(session.link.is_none());
        session.durable(|_| Ok(())).unwrap();
    }

    #[test]
    fn a_full_disk_is_away_and_names_the_file() {
        let (mut session, folder) = session();
        let Err(CommitError::Away(error)) = session.durable(|_| Err(sqlite(rusqlite::ffi::SQLITE_FULL).into())) else {
            panic!("not away")
        };
        assert!(error.contains(&*folder.path().to_string_lossy()), "{error}");
    }

    #[test]
    fn another_writer_is_busy_and_not_away() {
        let (mut session, _folder) = session();
        for code in [rusqlite::ffi::SQLITE_BUSY, rusqlite::ffi::SQLITE_LOCKED] {
            assert_eq!(session.durable(|_| Err(Failure::AtCommit(sqlite(code)))), Err(CommitError::Busy));
            assert_eq!(session.durable(|_| Err(sqlite(code).into())), Err(CommitError::Busy));
        }
        assert!(session.link.is_some(), "the connection is kept");
    }
}
