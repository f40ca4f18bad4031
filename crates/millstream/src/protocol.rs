//! What an operator asks of a service and what a service answers: both ends of it use these.

use serde::{Deserialize, Serialize};

use crate::ids::{Id, Timestamp};

/// The most ids in one question.
pub(crate) const MOST_IDS: usize = 256;
/// The most wakes in one answer.
pub(crate) const MOST_WAKES: usize = 1000;
/// The most redrives in one question.
pub(crate) const MOST_REDRIVES: usize = 100;
/// The most documents, fields of a document and events that a dry run names.
pub(crate) const MOST_NAMED: usize = 8;

/// Where an instance of a service answers: how it is (`status`), and what [`Asked`] names. Not below the service's own domain,
/// which is a stream's.
pub(crate) fn subject(endpoint: &str, service: &str) -> String {
    format!("millstream.{endpoint}.{service}")
}

/// What can be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    Journal,
    Wakes,
    Act,
    DryRun,
}

impl Asked {
    pub(crate) const ALL: [Self; 4] = [Self::Journal, Self::Wakes, Self::Act, Self::DryRun];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Wakes => "wakes",
            Self::Act => "act",
            Self::DryRun => "dry-run",
        }
    }
}

/// What became of these?
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalQuestion {
    pub(crate) ids: Vec<Id>,
}

/// What the journal has of what was asked for, in any order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JournalAnswer {
    pub(crate) entries: Vec<Journalled>,
}

/// What became of an input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Journalled {
    pub(crate) id: Id,
    /// `open`, `done` or `parked`.
    pub(crate) state: String,
    pub(crate) attempts: u32,
    pub(crate) started: u32,
    pub(crate) redrives: u32,
    pub(crate) error: Option<String>,
    pub(crate) first_failure: Option<Timestamp>,
    pub(crate) last_failure: Option<Timestamp>,
    pub(crate) at: Timestamp,
    pub(crate) instance: Id,
    pub(crate) stream: String,
    pub(crate) seq: u64,
}

/// What waits?
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WakesQuestion {
    /// Only of this kind.
    pub(crate) kind: Option<String>,
    /// Only of this document.
    pub(crate) document: Option<String>,
    pub(crate) limit: Option<usize>,
}

/// Do this to a wake, if it is still the one that was seen.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActQuestion {
    pub(crate) collection: String,
    pub(crate) document: String,
    pub(crate) kind: String,
    pub(crate) generation: u64,
    pub(crate) attempt: u32,
    pub(crate) act: WakeAct,
    pub(crate) who: String,
    pub(crate) why: String,
}

/// What would become of these redrives, one after the other?
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DryRunQuestion {
    pub(crate) redrives: Vec<RedriveMessage>,
}

/// A redrive as it would be sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedriveMessage {
    pub(crate) subject: String,
    /// As on the wire.
    pub(crate) headers: Vec<(String, String)>,
    /// In base64.
    pub(crate) payload: String,
}

/// What would become of a dead letter if it were redriven now: its handler has run over the documents as they are, and as the dead
/// letters before it in the same question would have changed them, and nothing was committed. Effects, timers and other messages, which would run in
/// between, are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    /// How it would end.
    pub end: DryEnd,
    /// Why it would fail, or why nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The documents that would change, eight at the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<DryChange>,
    /// How many documents would change.
    #[serde(default)]
    pub changed: usize,
    /// The types of the events that would be published, eight at the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

/// How a dead letter would end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DryEnd {
    /// It would be handled.
    Handled,
    /// It was handled already; nothing would be done.
    Duplicate,
    /// It would fail, and be tried again after a delay.
    Retried,
    /// It would wait for a newer release.
    Waits,
    /// It would be parked again.
    Parked,
    /// Nobody could say.
    Unknown,
}

/// What would change in a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DryChange {
    /// Its collection.
    pub collection: String,
    /// Its id.
    pub document: String,
    /// Whether it would be created.
    pub created: bool,
    /// The names of the fields that would change, eight at the most.
    pub fields: Vec<String>,
    /// The wake that it would then carry, if that changes; an empty text for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<String>,
}

impl DryRun {
    /// Nobody could say what would become of it.
    pub(crate) fn unknown(why: impl Into<String>) -> Self {
        Self { end: DryEnd::Unknown, error: Some(why.into()), changes: vec![], changed: 0, events: vec![] }
    }
}

/// A wake that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingWake {
    /// The service.
    pub service: String,
    /// The collection of its document.
    pub collection: String,
    /// The document's id.
    pub document: String,
    /// What it is for: `deadline`, `charge`.
    pub kind: String,
    /// When it was set.
    pub opened: Timestamp,
    /// When it is due.
    pub at: Timestamp,
    /// How often it was tried.
    pub attempt: u32,
    /// Until when the instance that tries it has it to itself; none while no attempt is under way.
    #[serde(default)]
    pub lease: Option<Timestamp>,
    /// Tells one wake of a document from the next.
    pub generation: u64,
    /// Whether it may be cancelled.
    pub cancellable: bool,
    /// The correlation id of what set it.
    pub correlation: String,
}

/// What is done to a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "action")]
pub enum WakeAct {
    /// It is due at another time.
    Move {
        /// When.
        to: Timestamp,
    },
    /// It is due now.
    Fire,
    /// It is not due any more. Only what its kind allows: a deadline, never a charge that may have been sent.
    Cancel,
}

impl WakeAct {
    /// As the audit names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Move { .. } => "move",
            Self::Fire => "fire",
            Self::Cancel => "cancel",
        }
    }
}
