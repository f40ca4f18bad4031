//! What the planner decides: what one commit writes, and what follows it.

use std::time::Duration;

use bytes::Bytes;

use crate::dead_letter::Reason;
use crate::event::Emitted;
use crate::handler::{Key, Reject, Wake};
use crate::hash::HashMap;
use crate::ids::{Id, Timestamp};
use crate::planner::{Input, MISSES};
use crate::record::{Batch, DocWrite, Entry, IdempotencyKey, KeyHash, Loaded, StoredDoc, Wanted};
use crate::unit::Count;

/// What was loaded for a batch.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The documents that were asked for, found or not.
    pub(crate) asked: Vec<Key>,
    pub(crate) docs: Vec<StoredDoc>,
    pub(crate) journal: HashMap<Id, Entry>,
    pub(crate) keys: HashMap<KeyHash, IdempotencyKey>,
    /// How often documents were loaded that no `touches` had named.
    pub(crate) misses: u32,
}

impl Facts {
    /// What was found of what was asked for.
    pub fn new(asked: Vec<Key>, loaded: Loaded) -> Self {
        let Loaded { docs, journal, keys } = loaded;
        let journal = journal.into_iter().map(|entry| (entry.id, entry)).collect();
        let keys = keys.into_iter().map(|key| (key.hash, key)).collect();
        Self { asked, docs, journal, keys, misses: 0 }
    }

    /// The journal entries of the commands that the idempotency keys stand for, to be loaded as well; `None` if there are none.
    pub fn originals(&self) -> Option<Wanted> {
        let journal: Vec<Id> = self.keys.values().map(|key| key.command).collect();
        (!journal.is_empty()).then(|| Wanted { journal, ..Wanted::default() })
    }

    /// Adds journal entries: of originals, or of starts that were committed.
    pub fn learn_entries(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.journal.extend(entries.into_iter().map(|entry| (entry.id, entry)));
    }

    /// What is to be loaded after handlers have missed documents: all of them, so that all are of one moment.
    pub fn wanted_after(&self, missed: &[Key]) -> Wanted {
        let mut docs: Vec<Key> = self.asked.iter().chain(missed).cloned().collect();
        docs.sort_unstable();
        docs.dedup();
        Wanted { docs, ..Wanted::default() }
    }

    /// Takes the documents that were loaded after a miss.
    pub fn learn_documents(&mut self, asked: Vec<Key>, found: Vec<StoredDoc>) {
        self.misses += 1;
        self.asked = asked;
        self.docs = found;
    }

    /// Whether documents were missed so often that the batch has to be halved: one input after the other may miss what the one
    /// before it has made. An input alone that goes on missing is a defect.
    pub fn miss_too_often(&self, batch: &[&Input]) -> bool {
        batch.len() > 1 && self.misses >= MISSES
    }
}

/// What was decided on a batch. The commit consumes `write`, and only when that is durable, `after` is carried out.
pub struct Decision {
    /// What the commit writes.
    pub write: Write,
    /// What follows the commit.
    pub after: Aftermath,
}

/// What one commit writes.
#[derive(Debug, Default)]
pub struct Write {
    /// The time of the batch.
    pub now: Timestamp,
    /// Documents to guard and to write, sorted by key.
    pub docs: Vec<DocWrite>,
    /// Journal entries; the instance and the batch are those of the commit.
    pub entries: Vec<Entry>,
    /// Idempotency keys.
    pub keys: Vec<IdempotencyKey>,
}

impl Write {
    /// Whether there is nothing to write; what was only read needs no commit.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.docs.iter().all(|doc| doc.write.is_none())
    }

    /// When the first of the wakes comes due that documents are written with.
    pub fn earliest_wake(&self) -> Option<Timestamp> {
        let written = self.docs.iter().filter_map(|doc| doc.write.as_ref());
        written.filter_map(|write| write.wake.as_ref()).map(|wake| wake.at).min()
    }

    /// The commit of an instance whose last batch with entries had the number `last`. Its own number is that of the next one, or
    /// `last` again if it has no entries.
    pub fn into_batch(self, instance: Id, last: u64, published_through: u64) -> Batch {
        let Self { now, docs, entries, keys } = self;
        let batch = last + u64::from(!entries.is_empty());
        let journal = entries.into_iter().map(|entry| Entry { instance, batch, ..entry }).collect();
        Batch { instance, batch, published_through, docs, journal, keys, now }
    }
}

/// What follows a commit.
pub struct Aftermath {
    /// The time of the batch.
    pub now: Timestamp,
    /// What becomes of each input, in the order of the batch.
    pub ends: Vec<End>,
    /// What is published, in order.
    pub emitted: Vec<Emitted>,
    /// Those of the emitted that were committed with an earlier batch: outcomes of redrives, published again in their turn, so that
    /// none of them takes the place of a later outcome.
    pub again: Vec<Emitted>,
    /// How many of the written entries have emitted something; `None` if no entry was written.
    pub emitting: Option<u64>,
    /// Numbers for the service's metrics.
    pub counts: Vec<Count>,
    /// Effects to run. Their slots are taken with [`Slots::take`](crate::planner::Slots::take).
    pub claims: Vec<Claimed>,
    /// How often the batch was run again because a handler read a document that its `touches` does not name.
    pub misses: u32,
}

/// A claim of an effect, as committed.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The document that carries the wake.
    pub key: Key,
    /// The wake as claimed.
    pub wake: Wake,
    /// The document as JSON.
    pub document: Bytes,
    /// Its shape.
    pub shape: u32,
}

/// What becomes of an input after the commit.
#[derive(Clone, Debug)]
pub enum End {
    /// A message is done with.
    Ack(Fate),
    /// A message comes back after a delay.
    Nak {
        /// The delay.
        delay: Duration,
        /// Failed attempts so far.
        attempts: u32,
        /// The failure.
        error: String,
    },
    /// A message comes back until a newer release takes it.
    Ahead {
        /// Whether this is the first time.
        first: bool,
        /// What this release does not know.
        error: String,
    },
    /// A message is given up; its dead letter is among the emitted.
    Parked {
        /// Why.
        reason: Reason,
        /// The failure.
        error: String,
    },
    /// A command has its answer.
    Answer(Result<Reply, CommandFailure>),
    /// An effect's outcome is settled.
    Settled,
    /// An effect's outcome stays unknown, or could not be settled, which is a defect: it is tried again.
    Outage {
        /// Why.
        why: String,
        /// Whether `settle` failed.
        defect: bool,
    },
    /// A due wake is claimed or fired, or was dealt with by another instance.
    Due,
    /// A timer failed, which is a defect: it is tried again.
    Unfired(String),
    /// An outcome that came too late: another attempt has settled the wake.
    Late,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its handler has run, and this commit has what it staged.
    Handled,
    /// It was handled or given up before.
    Duplicate,
}

/// What a command is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The command's id; of the first one, if this is a repeat under its idempotency key.
    pub id: Id,
    /// The reply as JSON.
    pub reply: Bytes,
    /// Whether this repeats an earlier command.
    pub repeated: bool,
}

/// Why a command is not done, as decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFailure {
    /// The command's own decision.
    Rejected(Reject),
    /// The idempotency key stands for a different command.
    KeyReused,
    /// What it would stage is too large.
    TooLarge(String),
    /// Not now; nothing was done.
    Unavailable(String),
    /// It was committed, and its reply was not kept.
    OutcomeUnknown,
    /// It panicked, or staged what it must not.
    Defect(String),
}
