//! Rehearsal: what inputs would come to if they came now, one after the other. Nothing of it is committed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::event::Emitted;
use crate::handler::{Key, Wake};
use crate::hash::{HashMap, HashSet};
use crate::ids::{Id, Timestamp};
use crate::planner::{Decision, End, Facts, Input, Missed, Planner, Slots};
use crate::record::{DocWrite, Entry, Loaded, State, StoredDoc, Wanted};

/// What a rehearsal knows: what was loaded for it, overlaid with what its inputs would have written.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// `None`: there is no such document.
    docs: HashMap<Key, Option<StoredDoc>>,
    journal: HashMap<Id, Entry>,
    misses: u32,
}

/// What an input would come to.
#[derive(Debug)]
pub struct Rehearsed {
    /// Its end.
    pub end: End,
    /// What the journal knew of it before.
    pub known: Option<State>,
    /// The documents that it would change.
    pub changes: Vec<Change>,
    /// What it would publish.
    pub emitted: Vec<Emitted>,
}

/// What would change in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which document.
    pub key: Key,
    /// Whether it would be made.
    pub created: bool,
    /// The names of its fields that would differ, never their values.
    pub fields: Vec<String>,
    /// The kind of the wake that it would carry, if it is another one or due at another time: `Some(None)` if it is removed.
    pub wake: Option<Option<String>>,
}

impl Rehearsal {
    /// What has to be loaded before these can be rehearsed.
    pub fn wanted(&self, planner: &Planner, inputs: &[&Input]) -> Wanted {
        let mut wanted = planner.wanted(inputs, true);
        wanted.docs.retain(|key| !self.docs.contains_key(key));
        wanted
    }

    /// Takes what was loaded for `asked`.
    pub fn learn(&mut self, asked: Vec<Key>, loaded: Loaded) {
        self.docs.extend(asked.into_iter().map(|key| (key, None)));
        self.docs.extend(loaded.docs.into_iter().map(|doc| (doc.key.clone(), Some(doc))));
        self.journal.extend(loaded.journal.into_iter().map(|entry| (entry.id, entry)));
    }

    /// Whether a start of an input has no end: it is handled at this moment, or has ended the process.
    pub fn is_started(&self, id: Id) -> bool {
        self.journal.get(&id).is_some_and(|entry| entry.state == State::Open && entry.started > 0)
    }

    /// Decides one input, after those that were rehearsed before it.
    ///
    /// # Errors
    /// [`Missed`], when its handler has read what was not loaded: load it, [`learn`](Self::learn) it, and try again.
    pub fn rehearse(&mut self, planner: &Planner, input: &Input, now: Timestamp) -> Result<Rehearsed, Missed> {
        let loaded = Loaded {
            docs: self.docs.values().flatten().cloned().collect(),
            journal: self.journal.get(&input.id()).cloned().into_iter().collect(),
            keys: vec![],
        };
        let mut facts = Facts::new(self.docs.keys().cloned().collect(), loaded);
        facts.misses = self.misses;
        // No slot: no effect is claimed.
        let slots = Slots::new(0, usize::MAX);
        let Decision { write, mut after } =
            planner.decide(&[input], &facts, &HashSet::default(), &slots, now).inspect_err(|_| self.misses += 1)?;
        self.misses = 0;
        let known = self.journal.get(&input.id()).map(|entry| entry.state);
        let changes = write.docs.into_iter().filter_map(|doc| self.overlay(doc)).collect();
        self.journal.extend(write.entries.into_iter().map(|entry| (entry.id, entry)));
        let end = after.ends.pop().unwrap_or(End::Due);
        Ok(Rehearsed { end, known, changes, emitted: after.emitted })
    }

    /// Lays a document over what was loaded, and says how it differs.
    fn overlay(&mut self, doc: DocWrite) -> Option<Change> {
        let DocWrite { key, expected, write } = doc;
        let new = write?;
        let before = self.docs.get(&key).cloned().flatten();
        let due = |wake: &Wake| (wake.kind.clone(), wake.at, wake.generation);
        let wakes = (before.as_ref().and_then(|doc| doc.wake.as_ref()).map(due), new.wake.as_ref().map(due));
        let change = Change {
            key: key.clone(),
            created: before.is_none(),
            fields: differing(before.as_ref().map_or(&b"{}"[..], |doc| &doc.body), &new.body),
            wake: (wakes.0 != wakes.1).then(|| new.wake.as_ref().map(|wake| wake.kind.clone())),
        };
        let version = expected.unwrap_or(0) + 1;
        let doc = StoredDoc { key: key.clone(), version, shape: new.shape, body: new.body, wake: new.wake };
        self.docs.insert(key, Some(doc));
        (change.created || !change.fields.is_empty() || change.wake.is_some()).then_some(change)
    }
}

/// The names of the fields in which two JSON objects differ.
fn differing(before: &[u8], after: &[u8]) -> Vec<String> {
    let fields = |body| serde_json::from_slice::<BTreeMap<String, Value>>(body).unwrap_or_default();
    let (before, after) = (fields(before), fields(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}
