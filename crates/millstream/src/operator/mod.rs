//! What an operator does to a running system, whatever it is made of: look at its streams, consumers and instances, follow and
//! trace events, deal with dead letters and wakes. Everything is found at the broker or asked of the services through it; the
//! command line and the console call the same functions.
//!
//! | module | what is there |
//! | --- | --- |
//! | [`read`] | a stream's messages in order, from a sequence or a time |
//! | [`browse`] | a stream of events page by page, the newest first |
//! | [`dead`] | dead letters: list, show, redrive, edit, discard |
//! | [`declare`] | the streams of a release, made before its services start |
//! | [`exact`] | bodies as they were written, digit for digit |
//! | [`as_test`] | a dead letter as a test of its service |
//! | [`audit`] | who did what, when and why; written before it is done |
//! | [`personal`] | what is masked where bodies are shown |
//! | [`status`] | streams, consumers, instances |
//! | [`verdict`] | whether all is well, in one sentence; what is wrong, and what to do |
//! | [`invariants`] | what checkers of invariants say |
//! | [`tail`] | events as they come |
//! | [`trace`] | everything that one order or one request set off |
//! | [`wakes`] | what services will do later: list, move, fire, cancel |

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;

use crate::terminal::steers;

pub mod as_test;
mod ask;
pub mod audit;
pub mod browse;
pub mod dead;
pub mod declare;
mod dry_run;
pub(crate) mod edit;
pub mod exact;
pub mod invariants;
pub(crate) mod letters;
pub mod personal;
pub mod read;
pub(crate) mod redrive;
mod search;
pub mod status;
pub mod tail;
pub mod trace;
pub mod verdict;
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

/// The longest name of an actor, and the longest reason.
const WHO: usize = 100;
const WHY: usize = 500;

impl By {
    /// Whether this can stand in the audit: each one line of text, which no terminal takes for orders, and neither without end.
    ///
    /// # Errors
    /// Says which of the two cannot, and what would be right.
    pub fn check(&self) -> Result<(), OperatorError> {
        for (name, text, most) in [("name (who)", &self.who, WHO), ("reason (why)", &self.why, WHY)] {
            let length = text.chars().count();
            if text.trim().is_empty() || length > most || text.chars().any(steers) {
                let what = format!("the {name} must be one line of 1 to {most} characters, without control characters");
                return Err(OperatorError::Refused(what));
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_a_reason_that_steers_a_terminal_is_refused() {
        let by = |who: &str, why: &str| By { who: who.into(), why: why.into() }.check();
        assert_eq!(by("Zoë@laptop (console)", "the bank is open again"), Ok(()));
        for (who, why) in [
            ("\u{1b}[2Jx", "fine"),
            ("ada", "two\nlines"),
            ("ada", "turned \u{202e}round"),
            ("ada", "  "),
            ("", "fine"),
            ("ada", &*"x".repeat(501)),
        ] {
            let refused = by(who, why);
            assert!(matches!(&refused, Err(OperatorError::Refused(what)) if what.contains("one line")), "{refused:?}");
        }
    }
}
