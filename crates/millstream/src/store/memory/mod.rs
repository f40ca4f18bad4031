//! A store in memory, for simulations and tests: a plain value, without I/O, clock or chance.
//!
//! [`Memory`] answers as the SQLite store does, in the same order, and every call of it has one answer. A clone of it is a backup,
//! and putting the clone back is restoring it. [`MemoryStore`] lends it to the engine:
//!
//! ```
//! use millstream::store::memory::MemoryStore;
//!
//! let store = MemoryStore::new();
//! let backup = store.with(|memory| memory.clone());
//! // What a service commits to the store is lost once the backup is put back.
//! store.with(|memory| *memory = backup);
//! ```

mod adapter;
mod commit;
mod expire;
mod table;

use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::Value;

pub use self::adapter::MemoryStore;
use self::table::Table;
use super::{
    Collection, Entry, IdempotencyKey, Instance, Key, KeyHash, Loaded, Published, Selection, Settled, StoredDoc,
    WakesDue, Wanted,
};
use crate::ids::{Id, Timestamp};

/// A database as a value. Its methods are those of [`Store`](super::Store), which say what they do; none but
/// [`Memory::commit`] can fail.
///
/// A collection that was never prepared has no documents, and takes none. Queries by field look at every document of their
/// collection; all else that the engine repeats is answered by an index.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// In the order in which they were first prepared, which is the order of wakes that are due at the same time.
    collections: Vec<Docs>,
    journal: Table<Id, Entry>,
    keys: Table<KeyHash, IdempotencyKey>,
    instances: BTreeMap<Id, Instance>,
    settled: BTreeMap<String, Settled>,
    published: BTreeMap<(String, Id), Published>,
    /// Where the next search for expired entries goes on.
    expired_to: Option<Id>,
}

#[derive(Clone, Debug)]
struct Docs {
    name: &'static str,
    rows: Table<String, StoredDoc>,
}

impl Memory {
    /// Makes the collections that are missing.
    pub fn prepare(&mut self, collections: &[Collection]) {
        for Collection { name, .. } in collections {
            if self.docs(name).is_none() {
                self.collections.push(Docs { name, rows: Table::default() });
            }
        }
    }

    /// Documents, journal entries and idempotency keys, those that are there.
    pub fn load(&self, wanted: &Wanted) -> Loaded {
        Loaded {
            docs: wanted.docs.iter().filter_map(|key| self.get(key)).collect(),
            journal: wanted.journal.iter().filter_map(|id| self.journal.get(id)).cloned().collect(),
            keys: wanted.keys.iter().filter_map(|hash| self.keys.get(hash)).cloned().collect(),
        }
    }

    /// One document.
    pub fn get(&self, key: &Key) -> Option<StoredDoc> {
        self.docs(key.collection)?.get(&key.id).cloned()
    }

    /// Documents by equality of JSON fields, sorted by id.
    pub fn find(&self, query: &Selection) -> Vec<StoredDoc> {
        let Some(docs) = self.docs(query.collection) else { return vec![] };
        let beyond = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let found = |doc: &&StoredDoc| has_fields(doc, &query.filters);
        if query.descending {
            docs.range((Bound::Unbounded, beyond)).rev().filter(found).take(query.limit).cloned().collect()
        } else {
            docs.range((beyond, Bound::Unbounded)).filter(found).take(query.limit).cloned().collect()
        }
    }

    /// Documents whose wake of one of `kinds` is due at `now`, earliest first, at most `limit`.
    pub fn due_wakes(&self, kinds: &[&str], now: Timestamp, limit: usize) -> Vec<StoredDoc> {
        let mut due = vec![];
        for Docs { rows, .. } in &self.collections {
            for kind in kinds {
                let ids = due_of(rows, kind, now).take(limit);
                due.extend(ids.filter_map(|(at, id)| Some((at, rows.get(id)?))));
            }
        }
        due.sort_by_key(|(at, _)| *at);
        due.truncate(limit);
        due.into_iter().map(|(_, doc)| doc.clone()).collect()
    }

    /// For each kind how many wakes are due at `now` and the earliest of their times, sorted by kind.
    pub fn wakes_due(&self, now: Timestamp) -> Vec<WakesDue> {
        let mut counted: BTreeMap<&str, WakesDue> = BTreeMap::new();
        for Docs { rows, .. } in &self.collections {
            let mut from = (String::new(), Timestamp::default(), String::new());
            while let Some((kind, ..)) = rows.indexed(from).next() {
                for (at, _) in due_of(rows, kind, now) {
                    let new = || WakesDue { kind: kind.clone(), due: 0, oldest: at };
                    let of_kind = counted.entry(kind).or_insert_with(new);
                    of_kind.due += 1;
                    of_kind.oldest = of_kind.oldest.min(at);
                }
                // No text lies between this kind and the one it leads to.
                from = (format!("{kind}\0"), Timestamp::default(), String::new());
            }
        }
        counted.into_values().collect()
    }

    /// Inserts an instance row with version 0 and nothing published, if there is none of that id.
    pub fn insert_instance(&mut self, id: Id) {
        self.instances.entry(id).or_insert(Instance { id, version: 0, published_through: 0 });
    }

    /// All instance rows, sorted by id.
    pub fn instances(&self) -> Vec<Instance> {
        self.instances.values().cloned().collect()
    }

    /// Deletes an instance row if it has the version; says whether it did.
    pub fn delete_instance(&mut self, id: Id, version: u64) -> bool {
        let has_it = self.instances.get(&id).is_some_and(|row| row.version == version);
        has_it && self.instances.remove(&id).is_some()
    }

    /// Entries last committed by `instance` with something emitted, in batches above `after`, in order of batch and id, at
    /// most `limit` of them.
    pub fn unpublished(&self, instance: Id, after: u64, limit: usize) -> Vec<Entry> {
        self.outbox(instance, after).take(limit).filter_map(|id| self.journal.get(&id)).cloned().collect()
    }

    /// How many entries with something emitted lie above the watermarks of the instances there are.
    pub fn count_unpublished(&self) -> u64 {
        self.instances.values().map(|row| self.outbox(row.id, row.published_through).count() as u64).sum()
    }

    /// Inserts the mark for a stream if there is none, or if the one there is belongs to another `created`; returns the mark
    /// that holds.
    pub fn init_settled(&mut self, mark: Settled) -> Settled {
        let held = self.settled.entry(mark.stream.clone()).or_insert_with(|| mark.clone());
        if held.created != mark.created {
            *held = mark;
        }
        held.clone()
    }

    /// Puts the mark `to` in the place of `from`, if that is the mark that is there; says whether it was.
    pub fn move_settled(&mut self, from: &Settled, to: Settled) -> bool {
        match self.settled.get_mut(&from.stream).filter(|held| *held == from) {
            Some(held) => *held = to,
            None => return false,
        }
        true
    }

    /// The mark for a stream.
    pub fn settled(&self, stream: &str) -> Option<Settled> {
        self.settled.get(stream).cloned()
    }

    /// Writes the marks of an instance for a stream.
    pub fn put_published(&mut self, published: Published) {
        self.published.insert((published.stream.clone(), published.instance), published);
    }

    /// The marks of all instances for a stream, sorted by instance.
    pub fn published(&self, stream: &str) -> Vec<Published> {
        self.published.values().filter(|published| published.stream == stream).cloned().collect()
    }

    /// Deletes the marks of an instance for a stream.
    pub fn forget_published(&mut self, instance: Id, stream: &str) {
        self.published.remove(&(stream.to_owned(), instance));
    }

    /// Forgets everything; the collections stay.
    pub fn clear(&mut self) {
        let collections = self.collections.iter().map(|docs| Docs { name: docs.name, rows: Table::default() });
        *self = Self { collections: collections.collect(), expired_to: self.expired_to, ..Self::default() };
    }

    fn docs(&self, collection: &str) -> Option<&Table<String, StoredDoc>> {
        self.collections.iter().find(|docs| docs.name == collection).map(|docs| &docs.rows)
    }

    /// The ids of an instance's entries with something emitted, in batches above `after`.
    fn outbox(&self, instance: Id, after: u64) -> impl Iterator<Item = Id> {
        let of_instance = self.journal.indexed((instance, after, Id::default()));
        of_instance
            .take_while(move |(of, ..)| *of == instance)
            .filter(move |(_, batch, _)| *batch > after)
            .map(|(.., id)| *id)
    }
}

/// The due times and ids of a collection's documents whose wake of a kind is due, earliest first.
fn due_of<'a>(
    rows: &'a Table<String, StoredDoc>,
    kind: &str,
    now: Timestamp,
) -> impl Iterator<Item = (Timestamp, &'a String)> {
    let kind = kind.to_owned();
    let from = (kind.clone(), Timestamp::default(), String::new());
    rows.indexed(from).take_while(move |(of, at, _)| *of == kind && *at <= now).map(|(_, at, id)| (*at, id))
}

fn has_fields(doc: &StoredDoc, filters: &[(&'static str, String)]) -> bool {
    if filters.is_empty() {
        return true;
    }
    let body: Value = serde_json::from_slice(&doc.body).unwrap_or_default();
    let value_of = |field: &str| field.split('.').try_fold(&body, |value, name| value.get(name));
    filters.iter().all(|(field, text)| value_of(field).and_then(Value::as_str) == Some(text))
}
