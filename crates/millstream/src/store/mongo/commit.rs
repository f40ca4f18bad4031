//! A batch as one transaction. What a statement does not find has changed or gone, and then nothing is committed.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mongodb::bson::{Binary, RawBson, RawDocumentBuf, doc, rawdoc};

use super::abandoned::{ABANDONED, abort};
use super::document::record;
use super::rows::{EntryRow, KeyRow, binary, date, int, key};
use super::trouble::{Trouble, answer};
use super::tx::{Tx, Uncommitted, raw};
use super::{INSTANCES, JOURNAL, KEYS, Link, MongoStore};
use crate::store::{Batch, CommitError, DocWrite};

/// Why a transaction is given up before its commit.
pub(super) enum Refused {
    Guard(CommitError),
    /// A key of the journal or of idempotency is taken, so says the transaction's snapshot.
    Taken,
    Trouble(Trouble),
}

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Trouble> for CommitError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            // Each command that can meet one knows what it means; as a last resort it is somebody in the way.
            Trouble::Duplicate | Trouble::Conflict => Self::Busy,
            Trouble::Away(said) => Self::Away(said),
        }
    }
}

impl MongoStore {
    /// Commits a batch, and sees to it that nothing that nobody will ever finish stays in the way.
    pub(super) async fn commit_batch(&self, batch: &Batch) -> Result<(), CommitError> {
        let link = self.settled_link().await.map_err(|error| CommitError::Away(error.to_string()))?;
        let done = self.try_commit(link, batch).await;
        if matches!(done, Err(CommitError::Busy)) {
            if self.blocked_for() >= ABANDONED {
                abort(link).await?;
            }
        } else {
            *self.blocked.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        done
    }

    /// For how long every commit has met a conflict.
    fn blocked_for(&self) -> Duration {
        let mut since = self.blocked.write().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed()
    }

    async fn try_commit(&self, link: &Link, batch: &Batch) -> Result<(), CommitError> {
        let keys: HashSet<_> = batch.keys.iter().map(|key| key.hash).collect();
        if keys.len() < batch.keys.len() {
            return Err(CommitError::Duplicate);
        }
        let mut session = self.session.lock().await;
        let mut tx = Tx::begin(link, &mut session).await?;
        let refused = match write(&mut tx, batch).await {
            Ok(()) => return self.finish(tx).await,
            Err(refused) => refused,
        };
        tx.abort().await;
        drop(session);
        match refused {
            Refused::Guard(error) => Err(error),
            Refused::Trouble(trouble) => Err(trouble.into()),
            Refused::Taken if is_taken(link, batch).await? => Err(CommitError::Duplicate),
            // What has expired makes way for what is new.
            Refused::Taken if forget_expired(link, batch).await? => Box::pin(self.try_commit(link, batch)).await,
            Refused::Taken => Err(CommitError::Busy),
        }
    }

    async fn finish(&self, tx: Tx<'_>) -> Result<(), CommitError> {
        match tx.commit().await {
            Ok(()) => Ok(()),
            Err(Uncommitted::No(trouble)) => Err(trouble.into()),
            Err(Uncommitted::Unknown { said, pending }) => {
                self.unsettled.store(pending, Ordering::Release);
                Err(CommitError::Unknown(said))
            }
        }
    }
}

async fn write(tx: &mut Tx<'_>, batch: &Batch) -> Result<(), Refused> {
    let raise = rawdoc! { "$inc": { "version": 1_i64 }, "$max": { "published": int(batch.published_through) } };
    let row = rawdoc! { "q": { "_id": key(batch.instance) }, "u": raise };
    held(tx.update(INSTANCES, vec![row]).await?.changed, 1, CommitError::Fenced)?;
    for docs in batch.docs.chunk_by(|a, b| a.key.collection == b.key.collection) {
        documents(tx, docs).await?;
    }
    journal(tx, batch).await?;
    let keys = batch.keys.iter().map(|held| raw(&KeyRow::from(held))).collect::<Result<Vec<_>, Trouble>>()?;
    tx.insert(KEYS, keys).await.map_err(taken)
}

/// Documents of one collection.
pub(super) async fn documents(tx: &mut Tx<'_>, docs: &[DocWrite]) -> Result<(), Refused> {
    let Some(DocWrite { key, .. }) = docs.first() else { return Ok(()) };
    let (mut inserts, mut updates) = (vec![], vec![]);
    for DocWrite { key, expected, write } in docs {
        let row = write.as_ref().map(|new| {
            let row = record(&key.id, expected.unwrap_or(0) + 1, new);
            row.map_err(|why| Trouble::Away(format!("the document {} of {}: {why}", key.id, key.collection)))
        });
        match (row.transpose()?, expected) {
            (Some(row), None) => inserts.push(row),
            (Some(row), Some(version)) => updates.push(if_version(&*key.id, *version, rawdoc! { "$literal": row })),
            // A write that changes nothing would be in nobody's way.
            (None, Some(version)) => {
                let more = rawdoc! { "$add": [{ "$ifNull": ["$guarded", 0_i64] }, 1_i64] };
                let touched = rawdoc! { "$mergeObjects": ["$$ROOT", { "guarded": more }] };
                updates.push(if_version(&*key.id, *version, touched));
            }
            // An absent document is guarded by inserting it, and by nothing less.
            (None, None) => {}
        }
    }
    match tx.insert(key.collection, inserts).await {
        Err(Trouble::Duplicate) => return Err(Refused::Guard(CommitError::Version)),
        other => other?,
    }
    let expected = updates.len();
    held(tx.update(key.collection, updates).await?.changed, expected, CommitError::Version)
}

/// A statement that puts something in the place of a record of this version, and leaves one of another as it is.
///
/// The filter is the id alone: with the version in it, to find the record would cost the server more than to change it. A record
/// that has changed since the transaction began is a conflict all the same.
fn if_version(id: impl Into<RawBson>, version: u64, then: RawDocumentBuf) -> RawDocumentBuf {
    let is_it = rawdoc! { "$eq": ["$version", int(version)] };
    let put = rawdoc! { "$replaceWith": { "$cond": [is_it, then, "$$ROOT"] } };
    rawdoc! { "q": { "_id": id.into() }, "u": [put] }
}

async fn journal(tx: &mut Tx<'_>, batch: &Batch) -> Result<(), Refused> {
    let (mut inserts, mut updates) = (vec![], vec![]);
    for entry in &batch.journal {
        let row = raw(&EntryRow::from(entry))?;
        if entry.version == 1 {
            inserts.push(row);
        } else {
            updates.push(if_version(key(entry.id), entry.version - 1, rawdoc! { "$literal": row }));
        }
    }
    tx.insert(JOURNAL, inserts).await.map_err(taken)?;
    let expected = updates.len();
    held(tx.update(JOURNAL, updates).await?.changed, expected, CommitError::Version)
}

fn held(changed: usize, expected: usize, otherwise: CommitError) -> Result<(), Refused> {
    if changed == expected { Ok(()) } else { Err(Refused::Guard(otherwise)) }
}

fn taken(trouble: Trouble) -> Refused {
    match trouble {
        Trouble::Duplicate => Refused::Taken,
        other => other.into(),
    }
}

/// Whether what a transaction met is there for good: its snapshot may show what a new primary does not have.
async fn is_taken(link: &Link, batch: &Batch) -> Result<bool, Trouble> {
    let ids: Vec<_> = batch.journal.iter().filter(|entry| entry.version == 1).map(|entry| key(entry.id)).collect();
    if answer(link.journal().find_one(doc! { "_id": { "$in": ids } })).await?.is_some() {
        return Ok(true);
    }
    let held = doc! { "_id": { "$in": hashes(batch) }, "expires": { "$gt": date(batch.now) } };
    Ok(answer(link.keys().find_one(held)).await?.is_some())
}

/// Deletes the keys that the batch has and that have expired; says whether there were any.
async fn forget_expired(link: &Link, batch: &Batch) -> Result<bool, Trouble> {
    let expired = doc! { "_id": { "$in": hashes(batch) }, "expires": { "$lte": date(batch.now) } };
    Ok(answer(link.keys().delete_many(expired)).await?.deleted_count > 0)
}

fn hashes(batch: &Batch) -> Vec<Binary> {
    batch.keys.iter().map(|key| binary(&key.hash)).collect()
}
