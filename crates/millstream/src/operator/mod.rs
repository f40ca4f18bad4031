//! What an operator does to a running system, whatever it is made of: look at its streams, consumers and instances, follow and
//! trace events, deal with dead letters and wakes. Everything is found at the broker or asked of the services through it; the
//! command line and the console call the same functions.
//!
//! | module | what is there |
//! | --- | --- |
//! | [`read`] | a stream's messages in order, from a sequence or a time |
//! | [`dead`] | dead letters: list, show, redrive, edit, discard |
//! | [`audit`] | who did what, when and why; written before it is done |
//! | [`personal`] | what is masked where bodies are shown |
//! | [`status`] | streams, consumers, instances |
//! | [`tail`] | events as they come |
//! | [`trace`] | everything that one order or one request set off |
//! | [`wakes`] | what services will do later: list, move, fire, cancel |

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;

mod ask;
pub mod audit;
pub mod dead;
mod edit;
mod letters;
pub mod personal;
pub mod read;
mod redrive;
mod search;
pub mod status;
pub mod tail;
pub mod trace;
pub mod wakes;

/// How long the broker, or a service behind it, may take to answer one question.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How many are under way at once.
pub(crate) const WINDOW: usize = 256;

/// A connection to a system, for looking at it and for acting on it.
#[derive(Clone, Debug)]
pub struct Operator {
    pub(crate) client: Client,
    pub(crate) jetstream: Context,
}

impl Operator {
    /// Works through this connection.
    pub fn new(client: Client) -> Self {
        let jetstream = ContextBuilder::new().timeout(PATIENCE).build(client.clone());
        Self { client, jetstream }
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Who acts, and why: both stand in the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// Who, for example `ada@laptop`.
    pub who: String,
    /// Why, in the actor's own words.
    pub why: String,
}

/// Why something cannot be seen or done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The broker, or a service behind it, does not answer, or not sensibly.
    #[error("{0}")]
    Away(String),
    /// What is asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// It is there and may not be done to it; nothing was.
    #[error("{0}")]
    Refused(String),
}
