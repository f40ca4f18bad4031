//! A batch is written part by part, and what a refused part leaves behind is taken back.

use super::{Memory, Table};
use crate::ids::{Id, Timestamp};
use crate::store::{Batch, CommitError, DocWrite, Entry, IdempotencyKey, Key, KeyHash, StoredDoc};

/// What was there before a write.
enum Old {
    Doc(Key, Option<StoredDoc>),
    Entry(Id, Option<Entry>),
    Key(KeyHash, Option<IdempotencyKey>),
}

impl Memory {
    /// Commits a batch, all or nothing. Every guard is checked: versions of documents and journal entries, absence where
    /// absence is expected, and the instance row, whose version is raised.
    ///
    /// # Errors
    /// The first guard that does not hold. [`CommitError::Away`] if a collection was never prepared.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if !self.instances.contains_key(&batch.instance) {
            return Err(CommitError::Fenced);
        }
        let mut written = vec![];
        if let Err(refused) = self.write(batch, &mut written) {
            written.into_iter().rev().for_each(|old| self.put_back(old));
            return Err(refused);
        }
        if let Some(row) = self.instances.get_mut(&batch.instance) {
            row.version += 1;
            row.published_through = row.published_through.max(batch.published_through);
        }
        Ok(())
    }

    fn write(&mut self, batch: &Batch, written: &mut Vec<Old>) -> Result<(), CommitError> {
        for doc in &batch.docs {
            written.extend(self.document(doc)?);
        }
        for entry in &batch.journal {
            written.push(self.entry(entry)?);
        }
        for key in &batch.keys {
            written.push(self.key(key, batch.now)?);
        }
        Ok(())
    }

    fn document(&mut self, doc: &DocWrite) -> Result<Option<Old>, CommitError> {
        let rows = self.rows_of(doc.key.collection)?;
        if rows.get(&doc.key.id).map(|there| there.version) != doc.expected {
            return Err(CommitError::Version);
        }
        let Some(new) = &doc.write else { return Ok(None) };
        let row = StoredDoc {
            key: doc.key.clone(),
            version: doc.expected.unwrap_or(0) + 1,
            shape: new.shape,
            body: new.body.clone(),
            wake: new.wake.clone(),
        };
        Ok(Some(Old::Doc(doc.key.clone(), rows.put(doc.key.id.clone(), Some(row)))))
    }

    fn entry(&mut self, entry: &Entry) -> Result<Old, CommitError> {
        match (entry.version, self.journal.get(&entry.id)) {
            (1, None) => {}
            (1, Some(_)) => return Err(CommitError::Duplicate),
            (version, Some(there)) if there.version + 1 == version => {}
            _ => return Err(CommitError::Version),
        }
        Ok(Old::Entry(entry.id, self.journal.put(entry.id, Some(entry.clone()))))
    }

    fn key(&mut self, key: &IdempotencyKey, now: Timestamp) -> Result<Old, CommitError> {
        if self.keys.get(&key.hash).is_some_and(|there| there.expires > now) {
            return Err(CommitError::Duplicate);
        }
        Ok(Old::Key(key.hash, self.keys.put(key.hash, Some(key.clone()))))
    }

    fn put_back(&mut self, old: Old) {
        match old {
            Old::Doc(Key { collection, id }, doc) => {
                if let Ok(rows) = self.rows_of(collection) {
                    rows.put(id, doc);
                }
            }
            Old::Entry(id, entry) => drop(self.journal.put(id, entry)),
            Old::Key(hash, key) => drop(self.keys.put(hash, key)),
        }
    }

    fn rows_of(&mut self, collection: &str) -> Result<&mut Table<String, StoredDoc>, CommitError> {
        let docs = self.collections.iter_mut().find(|docs| docs.name == collection);
        let missing = || CommitError::Away(format!("the collection `{collection}` was never prepared"));
        docs.map(|docs| &mut docs.rows).ok_or_else(missing)
    }
}
