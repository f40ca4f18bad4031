//! Dead letters as an operator deals with them: what they are called, and how they are chosen. They are redriven and discarded in
//! `redrive.rs`, edited in `edit.rs`, and read in `letters.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::header::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Id, Timestamp};

pub use crate::operator::letters::{Letters, Moves};
pub use crate::operator::redrive::MOST_TRIED;
pub use crate::protocol::{DryChange, DryEnd, DryRun};

/// What has become of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterState {
    /// Nobody has dealt with it.
    Dead,
    /// It is on its way back to its service, which has not told yet what became of it.
    Redriving,
    /// It was redriven and handled.
    Resolved,
    /// A changed copy of it was sent in its place.
    Edited,
    /// It was given up for good.
    Discarded,
}

/// A dead letter: what failed, and what is known of the failure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The service that gave it up.
    pub service: String,
    /// The type of event without its version, `orders.created`; `unknown` if it has none.
    pub event: String,
    /// Its id, by which the service's journal knows it.
    pub id: Id,
    /// What has become of it.
    pub state: LetterState,
    /// Why it was given up, as [`Reason::name`](crate::dead_letter::Reason::name) says it.
    pub reason: String,
    /// The last error.
    pub error: String,
    /// Groups dead letters of one cause.
    pub fingerprint: String,
    /// The stream it came from.
    pub stream: String,
    /// Its sequence there.
    pub sequence: u64,
    /// The subject it came on.
    pub subject: String,
    /// The durable consumer that was given it.
    pub consumer: String,
    /// How often it was handled in vain since it was last redriven.
    pub attempts: u32,
    /// How often it was redriven.
    pub redrives: u32,
    /// When it first failed.
    pub first_failure: Option<Timestamp>,
    /// When it last failed.
    pub last_failure: Option<Timestamp>,
    /// What it is about: the order's id.
    pub key: Option<String>,
    /// The correlation id.
    pub correlation: Option<String>,
    /// The id of what caused it.
    pub causation: Option<String>,
    /// When this record was written.
    pub at: Timestamp,
    /// How long the body was before it was cut, if it was.
    pub cut: Option<u64>,
    /// Who last acted on it, if anybody.
    pub who: Option<String>,
    /// Why they did.
    pub why: Option<String>,
    /// The dead letter that this is a changed copy of.
    pub edited_from: Option<Id>,
    /// The changed copy that was sent in its place.
    pub edited_to: Option<Id>,
    /// The names of the body's fields that are personal, to be masked where it is shown.
    pub personal: Vec<String>,
    /// The record's subject in the service's stream of dead letters.
    pub record: String,
    /// The record's sequence there.
    pub record_sequence: u64,
    /// All headers, as they were given.
    #[serde(skip)]
    pub headers: Vec<(String, String)>,
    /// All headers as they are on the wire, if it is to be sent.
    #[serde(skip)]
    pub(crate) wire: HeaderMap,
    /// The body.
    #[serde(skip)]
    pub payload: bytes::Bytes,
}

impl DeadLetter {
    /// When it last failed.
    pub(crate) fn failed(&self) -> Timestamp {
        self.last_failure.unwrap_or(self.at)
    }

    /// Whether somebody has dealt with it.
    pub fn is_dealt_with(&self) -> bool {
        !matches!(self.state, LetterState::Dead | LetterState::Redriving)
    }
}

/// Which dead letters are meant; what is not named is not filtered by. Those that were dealt with are left out unless `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DeadFilter {
    /// Of this service.
    pub service: Option<String>,
    /// Of this type of event.
    pub event: Option<String>,
    /// Given up for this reason.
    pub reason: Option<String>,
    /// With this fingerprint.
    pub fingerprint: Option<String>,
    /// About this key.
    pub key: Option<String>,
    /// With this correlation id.
    pub correlation: Option<String>,
    /// This one.
    pub id: Option<Id>,
    /// Last failed before this.
    pub before: Option<Timestamp>,
    /// Last failed at this time or later.
    pub since: Option<Timestamp>,
    /// Also those that are resolved, edited or discarded.
    pub all: bool,
}

impl DeadFilter {
    /// Whether a dead letter is meant.
    pub fn fits(&self, letter: &DeadLetter) -> bool {
        let same = |wanted: &Option<String>, have: &str| wanted.as_ref().is_none_or(|wanted| wanted == have);
        let has = |wanted: &Option<String>, have: &Option<String>| wanted.is_none() || wanted == have;
        (self.all || !letter.is_dealt_with())
            && same(&self.service, &letter.service)
            && same(&self.event, &letter.event)
            && same(&self.reason, &letter.reason)
            && same(&self.fingerprint, &letter.fingerprint)
            && has(&self.key, &letter.key)
            && has(&self.correlation, &letter.correlation)
            && self.id.is_none_or(|id| id == letter.id)
            && self.before.is_none_or(|before| letter.failed() < before)
            && self.since.is_none_or(|since| letter.failed() >= since)
    }
}

/// Dead letters of one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadGroup {
    /// The service.
    pub service: String,
    /// The type of event.
    pub event: String,
    /// Why they were given up.
    pub reason: String,
    /// Their fingerprint.
    pub fingerprint: String,
    /// How many there are.
    pub count: u64,
    /// How many of them are on their way back.
    pub redriving: u64,
    /// When the first of them first failed.
    pub first: Option<Timestamp>,
    /// When the last of them last failed.
    pub last: Option<Timestamp>,
    /// The error of one of them.
    pub error: String,
}

/// How to redrive.
#[derive(Clone, Debug)]
pub struct Redrive {
    /// At most so many.
    pub limit: usize,
    /// At most so many a second.
    pub per_second: u32,
    /// Also those that have failed again as often as the limit says.
    pub force: bool,
    /// Sends 1, then 2, 5, 20, 100 and so on, each time only once the services have handled all of those before; stops at the first that
    /// fails again, and leaves the rest as they are.
    pub canary: bool,
    /// Says what would go and what not, has the services run their handlers for what would go, and changes nothing.
    pub dry_run: bool,
}

impl Default for Redrive {
    fn default() -> Self {
        Self { limit: 10_000, per_second: 500, force: false, canary: false, dry_run: false }
    }
}

/// A dead letter that has come back so often is not redriven again unless forced.
pub const REDRIVES: u32 = 3;

/// What became of one dead letter that was to be acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fate {
    /// The service.
    pub service: String,
    /// The type of event.
    pub event: String,
    /// The dead letter.
    pub id: Id,
    /// The redrive's number.
    pub redrive: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it did not go, if it did not.
    pub why: Option<String>,
    /// In a dry run of a redrive, for the first [`MOST_TRIED`]: what would become of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRun>,
}

/// What became of a dead letter that was to be acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It would go.
    WouldGo,
    /// It was done.
    Done,
    /// It was held back: it has come back too often, its body was cut, it was dealt with, the limit is reached.
    Held,
    /// Somebody else has acted on it meanwhile.
    Taken,
    /// It could not be sent; the record says `redriving`, and the next run goes on with it.
    Failed,
}

/// How far an action on many dead letters is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// How many are to be acted on.
    pub total: usize,
    /// How many are dealt with.
    pub dealt_with: usize,
}

/// What became of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many ended in which way.
    pub counts: BTreeMap<Outcome, u64>,
    /// Each of them.
    pub fates: Vec<Fate>,
}

impl Report {
    /// How many of a dry run would end in which way.
    pub fn dry_ends(&self) -> BTreeMap<DryEnd, u64> {
        let mut ends = BTreeMap::new();
        for dry_run in self.fates.iter().filter_map(|fate| fate.dry_run.as_ref()) {
            *ends.entry(dry_run.end).or_default() += 1;
        }
        ends
    }

    pub(crate) fn add(&mut self, fate: Fate) {
        *self.counts.entry(fate.outcome).or_default() += 1;
        self.fates.push(fate);
    }
}

/// What an edit made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edited {
    /// The original.
    pub original: Id,
    /// The changed copy.
    pub id: Id,
    /// What differs: a JSON pointer, the old value, the new one; an absent value is null, and a number with more digits than a double has is a
    /// text.
    pub difference: Vec<(String, Value, Value)>,
}

/// How long a record stays after it was given up for good or edited.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
