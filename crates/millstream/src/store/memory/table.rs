//! Rows by key, with the index that answers what is asked of them most.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::RangeBounds;

use crate::ids::{Id, Timestamp};
use crate::store::{Entry, IdempotencyKey, KeyHash, StoredDoc};

/// What is kept in a [`Table`].
pub(super) trait Row {
    /// A place in the table's index; it ends in the row's key, so that no two rows share one.
    type Place: Ord + Clone + Debug;

    /// Where the row is in the index, if it is.
    fn place(&self) -> Option<Self::Place>;
}

/// Documents by the due time of their wakes.
impl Row for StoredDoc {
    type Place = (String, Timestamp, String);

    fn place(&self) -> Option<Self::Place> {
        self.wake.as_ref().map(|wake| (wake.kind.clone(), wake.at, self.key.id.clone()))
    }
}

/// The outbox: entries with something emitted.
impl Row for Entry {
    type Place = (Id, u64, Id);

    fn place(&self) -> Option<Self::Place> {
        (!self.emitted.is_empty()).then_some((self.instance, self.batch, self.id))
    }
}

/// Keys by their end.
impl Row for IdempotencyKey {
    type Place = (Timestamp, KeyHash);

    fn place(&self) -> Option<Self::Place> {
        Some((self.expires, self.hash))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Table<K, R: Row> {
    rows: BTreeMap<K, R>,
    index: BTreeSet<R::Place>,
}

impl<K, R: Row> Default for Table<K, R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), index: BTreeSet::new() }
    }
}

impl<K: Ord, R: Row> Table<K, R> {
    pub(super) fn get(&self, key: &K) -> Option<&R> {
        self.rows.get(key)
    }

    /// Puts a row in the place of another, or nothing; returns what was there.
    pub(super) fn put(&mut self, key: K, row: Option<R>) -> Option<R> {
        let place = row.as_ref().and_then(Row::place);
        let old = match row {
            Some(row) => self.rows.insert(key, row),
            None => self.rows.remove(&key),
        };
        if let Some(place) = old.as_ref().and_then(Row::place) {
            self.index.remove(&place);
        }
        self.index.extend(place);
        old
    }

    pub(super) fn range<'a>(&'a self, keys: impl RangeBounds<&'a K>) -> impl DoubleEndedIterator<Item = &'a R>
    where
        K: 'a,
    {
        let bounds = (keys.start_bound().cloned(), keys.end_bound().cloned());
        self.rows.range::<K, _>(bounds).map(|(_, row)| row)
    }

    /// The index from a place on.
    pub(super) fn indexed(&self, from: R::Place) -> impl Iterator<Item = &R::Place> {
        self.index.range(from..)
    }
}
