//! What a failed command means for the engine.

use std::time::Duration;

use mongodb::error::{Error, ErrorKind, TRANSIENT_TRANSACTION_ERROR, WriteFailure};

use crate::store::StoreError;

/// How long a single command may take. The driver itself waits for a server that holds its connections open and says nothing.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) const DUPLICATE_KEY: i32 = 11000;

/// The server is about to stop, or is no primary any more: nothing is in the way, but nobody is there either.
const STEPPING_DOWN: [i32; 9] = [91, 189, 10058, 10107, 11600, 11602, 13435, 13436, 17405];

/// Why a command did not do what it was to do.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A record of this key is there already.
    Duplicate,
    /// Another transaction was in the way: the same again, from the start.
    Conflict,
    /// Nobody answers, or not sensibly.
    Away(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match code(&error) {
            Some(DUPLICATE_KEY) => Self::Duplicate,
            Some(code) if !STEPPING_DOWN.contains(&code) && error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {
                Self::Conflict
            }
            _ => Self::Away(said(&error)),
        }
    }
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        Self::new(match trouble {
            Trouble::Duplicate => "MongoDB has this record already".into(),
            Trouble::Conflict => "another writer was in the way".into(),
            Trouble::Away(said) => said,
        })
    }
}

/// The server's code for an error, if it is the server's error.
pub(super) fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::InsertMany(insert) => insert.write_errors.as_ref()?.first().map(|write| write.code),
        _ => None,
    }
}

/// What an error says; the whole of it would repeat the server's answer, and with it data.
pub(super) fn said(error: &Error) -> String {
    format!("MongoDB: {}", error.kind)
}

/// Waits for the answer to one command.
pub(super) async fn answer<T>(command: impl IntoFuture<Output = Result<T, Error>>) -> Result<T, Trouble> {
    match tokio::time::timeout(ANSWER, command.into_future()).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Away(format!("MongoDB does not answer within {ANSWER:?}"))),
    }
}
