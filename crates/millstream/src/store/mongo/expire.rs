//! Old entries go in small chunks, stream by stream, in one transaction with the marks that answer for them.

use mongodb::ClientSession;
use mongodb::bson::{DateTime, Document, Uuid, doc, rawdoc};
use serde::Deserialize;

use super::read::{all, instance_rows, limit};
use super::rows::{DONE, date, int};
use super::trouble::{Trouble, answer};
use super::tx::{Tx, Uncommitted};
use super::{JOURNAL, KEYS, Link, SETTLED};
use crate::ids::Timestamp;
use crate::store::{Expiry, Floor, StoreError};

/// What is read of an entry that may go.
#[derive(Deserialize)]
struct Old {
    #[serde(rename = "_id")]
    id: Uuid,
    seq: i64,
}

/// Nothing expires while another writer is in the way: the next call will do.
pub(super) async fn expire(
    link: &Link,
    session: &mut Option<ClientSession>,
    expiry: &Expiry,
) -> Result<usize, StoreError> {
    keys(link, expiry).await?;
    let mut gone = 0;
    // What came from no stream needs no mark.
    let no_stream = Floor {
        stream: String::new(),
        created: String::new(),
        through: 0,
        before: expiry.before,
        until: Timestamp::default(),
    };
    for floor in [&no_stream].into_iter().chain(&expiry.floors) {
        match of_stream(link, session, expiry, floor, expiry.limit - gone).await {
            Ok(more) => gone += more,
            Err(Trouble::Away(said)) => return Err(StoreError::new(said)),
            Err(Trouble::Conflict | Trouble::Duplicate) => {}
        }
    }
    Ok(gone)
}

async fn of_stream(
    link: &Link,
    session: &mut Option<ClientSession>,
    expiry: &Expiry,
    floor: &Floor,
    most: usize,
) -> Result<usize, Trouble> {
    if most == 0 {
        return Ok(0);
    }
    let (before, through) = (date(floor.before.min(expiry.before)), int(floor.through));
    let mut filter = may_go(&floor.stream, before);
    filter.insert("seq", doc! { "$lte": through });
    let above: Vec<Document> = instance_rows(link)
        .await?
        .into_iter()
        .map(|row| doc! { "instance": row.id, "batch": { "$gt": row.published } })
        .collect();
    if !above.is_empty() {
        filter.insert("$nor", above);
    }
    let journal = link.db.collection::<Old>(JOURNAL);
    let old = journal.find(filter).sort(doc! { "at": 1 }).limit(limit(most));
    let old = all(old.projection(doc! { "seq": 1 })).await?;
    let Some(highest) = old.iter().map(|entry| entry.seq).max() else { return Ok(0) };

    let mut tx = Tx::begin(link, session).await?;
    match delete(&mut tx, &old, floor, highest, before).await {
        Ok(true) => match tx.commit().await {
            Ok(()) => Ok(old.len()),
            Err(Uncommitted::No(trouble)) => Err(trouble),
            // If it comes about after all, it does what was to be done.
            Err(Uncommitted::Unknown { said, .. }) => Err(Trouble::Away(said)),
        },
        Ok(false) => {
            tx.abort().await;
            Ok(0)
        }
        Err(trouble) => {
            tx.abort().await;
            Err(trouble)
        }
    }
}

/// Deletes entries and raises the mark of their stream; `false` if they, or the mark, are not what they were any more.
async fn delete(tx: &mut Tx<'_>, old: &[Old], floor: &Floor, highest: i64, before: DateTime) -> Result<bool, Trouble> {
    if !floor.stream.is_empty() {
        let mark = rawdoc! { "_id": &*floor.stream, "created": &*floor.created };
        let raise =
            rawdoc! { "q": mark, "u": { "$max": { "through": highest, "seen": highest, "until": date(floor.until) } } };
        if tx.update(SETTLED, vec![raise]).await?.found != 1 {
            return Ok(false);
        }
    }
    let ids: Vec<Uuid> = old.iter().map(|entry| entry.id).collect();
    let gone = tx.delete(JOURNAL, doc! { "_id": { "$in": ids }, "state": DONE, "at": { "$lt": before } }).await?;
    Ok(gone == old.len())
}

pub(super) fn may_go(stream: &str, before: DateTime) -> Document {
    doc! { "state": DONE, "stream": stream, "at": { "$lt": before } }
}

pub(super) fn expired(now: Timestamp) -> Document {
    doc! { "expires": { "$lt": date(now) } }
}

async fn keys(link: &Link, expiry: &Expiry) -> Result<(), Trouble> {
    if expiry.limit == 0 {
        return Ok(());
    }
    let filter = expired(expiry.now);
    let keys = link.db.collection::<Document>(KEYS);
    let old = keys.find(filter.clone()).sort(doc! { "expires": 1 });
    let old = all(old.limit(limit(expiry.limit)).projection(doc! { "_id": 1 })).await?;
    let hashes: Vec<_> = old.into_iter().filter_map(|mut key| key.remove("_id")).collect();
    if hashes.is_empty() {
        return Ok(());
    }
    let mut still = filter;
    still.insert("_id", doc! { "$in": hashes });
    answer(link.keys().delete_many(still)).await?;
    Ok(())
}
