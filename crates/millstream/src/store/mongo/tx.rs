//! A transaction, command by command.

use std::time::Duration;

use mongodb::ClientSession;
use mongodb::bson::{Document, RawArrayBuf, RawDocumentBuf, rawdoc, serialize_to_raw_document_buf};
use mongodb::error::{Error, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Link;
use super::trouble::{DUPLICATE_KEY, Trouble, answer, code, said};

/// How many bytes of statements go into one command, which is a document of at most 16 MiB itself.
const COMMAND_BYTES: usize = 12 << 20;

/// How long a commit whose outcome is unknown is repeated before the caller is told.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

const NO_SUCH_TRANSACTION: i32 = 251;

/// A transaction that has begun.
///
/// All of a store's transactions are of one session: there the server aborts what an earlier one has left behind, which would
/// otherwise be in the way for a minute after a connection was lost.
pub(super) struct Tx<'a> {
    link: &'a Link,
    session: &'a mut ClientSession,
}

/// What the statements of a command have done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How many records they found …
    pub(super) found: usize,
    /// … and of these how many they changed.
    pub(super) changed: usize,
}

/// How a commit ended that did not simply succeed.
pub(super) enum Uncommitted {
    /// Nothing was committed.
    No(Trouble),
    /// Only the journal can tell.
    Unknown {
        /// What is known of it.
        said: String,
        /// Whether it can still come about. Then it must be repeated until it cannot: whoever asks the journal before that may
        /// be told what is not true a moment later.
        pending: bool,
    },
}

impl<'a> Tx<'a> {
    pub(super) async fn begin(link: &'a Link, session: &'a mut Option<ClientSession>) -> Result<Self, Trouble> {
        let session = match session {
            Some(session) => session,
            None => session.insert(answer(link.client.start_session()).await?),
        };
        // There is one only if a caller has gone away in the middle of it.
        answer(session.abort_transaction()).await.ok();
        answer(session.start_transaction().with_options(super::transaction())).await?;
        Ok(Self { link, session })
    }

    /// Inserts records.
    pub(super) async fn insert(&mut self, collection: &str, records: Vec<RawDocumentBuf>) -> Result<(), Trouble> {
        let insert = |documents| rawdoc! { "insert": collection, "documents": documents };
        self.run_all(records, insert).await.map(drop)
    }

    /// Runs statements.
    pub(super) async fn update(&mut self, collection: &str, statements: Vec<RawDocumentBuf>) -> Result<Done, Trouble> {
        self.run_all(statements, |updates| rawdoc! { "update": collection, "updates": updates }).await
    }

    /// Runs a command for as many parts at a time as fit into it.
    async fn run_all(
        &mut self,
        parts: Vec<RawDocumentBuf>,
        command: impl Fn(RawArrayBuf) -> RawDocumentBuf,
    ) -> Result<Done, Trouble> {
        let mut done = Done::default();
        let mut rest = parts.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut some, mut bytes) = (RawArrayBuf::new(), 0);
            while let Some(next) = rest.next_if(|next| bytes == 0 || bytes + next.as_bytes().len() <= COMMAND_BYTES) {
                bytes += next.as_bytes().len();
                some.push(next);
            }
            let Done { found, changed } = self.run(command(some)).await?;
            done = Done { found: done.found + found, changed: done.changed + changed };
        }
        Ok(done)
    }

    /// Deletes the records that a filter finds; says how many.
    pub(super) async fn delete(&mut self, collection: &str, filter: Document) -> Result<usize, Trouble> {
        let filter = raw(&filter)?;
        let mut deletes = RawArrayBuf::new();
        deletes.push(rawdoc! { "q": filter, "limit": 0 });
        Ok(self.run(rawdoc! { "delete": collection, "deletes": deletes }).await?.found)
    }

    async fn run(&mut self, command: RawDocumentBuf) -> Result<Done, Trouble> {
        let reply = answer(self.link.db.run_raw_command(command).session(&mut *self.session)).await?;
        match refusal(&reply) {
            None => {
                let count = |name| reply.get_i32(name).ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                Ok(Done { found: count("n"), changed: count("nModified") })
            }
            Some(Refusal { code: DUPLICATE_KEY, .. }) => Err(Trouble::Duplicate),
            Some(Refusal { said, .. }) => Err(Trouble::Away(format!("MongoDB: {said}"))),
        }
    }

    /// Waits for the abort, so that what comes next does not meet what this has written.
    pub(super) async fn abort(self) {
        tokio::time::timeout(PATIENCE, self.session.abort_transaction()).await.ok();
    }

    pub(super) async fn commit(self) -> Result<(), Uncommitted> {
        let until = Instant::now() + PATIENCE;
        let mut unknown = None;
        loop {
            let ended = match tokio::time::timeout_at(until, self.session.commit_transaction()).await {
                Ok(ended) => commit_ended(ended),
                Err(_) => Ended::Unknown(format!("MongoDB does not answer a commit within {PATIENCE:?}")),
            };
            match (ended, unknown.take()) {
                (Ended::Committed, _) => return Ok(()),
                (Ended::Unknown(said), _) if Instant::now() < until => unknown = Some(said),
                (Ended::Unknown(said), _) => return Err(Uncommitted::Unknown { said, pending: true }),
                // The driver has repeated it once by itself, so this may be the answer to a repetition.
                (Ended::Over(said), _) | (Ended::Refused(_), Some(said)) => {
                    return Err(Uncommitted::Unknown { said, pending: false });
                }
                (Ended::Refused(trouble), None) => return Err(Uncommitted::No(trouble)),
            }
            sleep(PAUSE).await;
        }
    }
}

/// Repeats a commit whose outcome is unknown; says whether it can come about no more.
pub(super) async fn settle(session: &mut ClientSession) -> Result<(), Trouble> {
    match tokio::time::timeout(PATIENCE, session.commit_transaction()).await.map(commit_ended) {
        Ok(Ended::Unknown(said)) => Err(Trouble::Away(said)),
        Err(_) => Err(Trouble::Away(format!("MongoDB does not answer a commit within {PATIENCE:?}"))),
        Ok(_) => Ok(()),
    }
}

enum Ended {
    Committed,
    /// It may have been committed, and may yet be.
    Unknown(String),
    /// The server knows no such transaction (any more).
    Over(String),
    Refused(Trouble),
}

fn commit_ended(result: Result<(), Error>) -> Ended {
    match result {
        Ok(()) => Ended::Committed,
        Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => Ended::Unknown(said(&error)),
        Err(error) if code(&error) == Some(NO_SUCH_TRANSACTION) => Ended::Over(said(&error)),
        Err(error) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => Ended::Refused(error.into()),
        // What nobody has foreseen is not taken for a no.
        Err(error) => Ended::Over(said(&error)),
    }
}

struct Refusal {
    code: i32,
    said: String,
}

/// What a statement of a command was refused for, in a reply that is otherwise a success.
fn refusal(reply: &Document) -> Option<Refusal> {
    let first = reply.get_array("writeErrors").ok()?.first()?.as_document()?;
    let said = first.get_str("errmsg").unwrap_or("a write was refused").to_owned();
    Some(Refusal { code: first.get_i32("code").unwrap_or_default(), said })
}

pub(super) fn raw<T: Serialize>(row: &T) -> Result<RawDocumentBuf, Trouble> {
    serialize_to_raw_document_buf(row).map_err(|error| Trouble::Away(error.to_string()))
}
