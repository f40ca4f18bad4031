//! What is read: by key, by field, by due time, by batch. All of it is what a majority of the members has.

use std::collections::HashMap;

use futures_util::future::{try_join_all, try_join3};
use futures_util::{FutureExt, TryStreamExt};
use millstream_core::bson::DOC;
use mongodb::Cursor;
use mongodb::action::Action;
use mongodb::bson::{DateTime, Document, doc};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Link;
use super::document::{FIELDS, stored};
use super::rows::{InstanceRow, PublishedRow, binary, date, int, key};
use super::trouble::{Trouble, answer};
use crate::handler::Key;
use crate::ids::{Id, Timestamp};
use crate::store::query::check_field;
use crate::store::{
    Collection, Entry, IdempotencyKey, Instance, Loaded, Published, Selection, Settled, StoreError, StoredDoc,
    WakesDue, Wanted,
};

/// Everything in the first answer, as far as it fits into one.
const AT_ONCE: u32 = 10_000;

pub(super) async fn load(link: &Link, wanted: &Wanted) -> Result<Loaded, Trouble> {
    let of_collections = wanted.docs.chunk_by(|a, b| a.collection == b.collection).map(|keys| docs(link, keys));
    let (docs, journal, keys) = try_join3(
        try_join_all(of_collections).boxed(),
        entries(link, &wanted.journal).boxed(),
        keys(link, &wanted.keys).boxed(),
    )
    .await?;
    Ok(Loaded { docs: docs.into_iter().flatten().collect(), journal, keys })
}

/// Documents of one collection.
async fn docs(link: &Link, wanted: &[Key]) -> Result<Vec<StoredDoc>, Trouble> {
    let Some(Key { collection, .. }) = wanted.first() else { return Ok(vec![]) };
    let ids: Vec<&str> = wanted.iter().map(|key| &*key.id).collect();
    let records = all(link.docs(collection).find(doc! { "_id": { "$in": ids } }).batch_size(AT_ONCE)).await?;
    records.iter().map(|record| stored(record, collection)).collect()
}

async fn entries(link: &Link, wanted: &[Id]) -> Result<Vec<Entry>, Trouble> {
    if wanted.is_empty() {
        return Ok(vec![]);
    }
    let ids: Vec<_> = wanted.iter().map(|id| key(*id)).collect();
    let rows = all(link.journal().find(doc! { "_id": { "$in": ids } }).batch_size(AT_ONCE)).await?;
    Ok(rows.into_iter().map(Entry::from).collect())
}

async fn keys(link: &Link, wanted: &[[u8; 32]]) -> Result<Vec<IdempotencyKey>, Trouble> {
    if wanted.is_empty() {
        return Ok(vec![]);
    }
    let hashes: Vec<_> = wanted.iter().map(|hash| binary(hash)).collect();
    let rows = all(link.keys().find(doc! { "_id": { "$in": hashes } }).batch_size(AT_ONCE)).await?;
    rows.into_iter()
        .map(|row| {
            row.into_key().ok_or_else(|| Trouble::Away("an idempotency key is not of this store's making".into()))
        })
        .collect()
}

pub(super) async fn get(link: &Link, key: &Key) -> Result<Option<StoredDoc>, Trouble> {
    let record = answer(link.docs(key.collection).find_one(doc! { "_id": &key.id })).await?;
    record.map(|record| stored(&record, key.collection)).transpose()
}

/// With `texts`, also those that an earlier release has written as text.
pub(super) async fn find(link: &Link, query: &Selection, texts: bool) -> Result<Vec<StoredDoc>, StoreError> {
    let filter = filter(query, texts)?;
    if query.limit == 0 {
        return Ok(vec![]);
    }
    let by_id = doc! { "_id": if query.descending { -1 } else { 1 } };
    let docs = link.docs(query.collection);
    let found = docs.find(filter).sort(by_id).limit(limit(query.limit));
    let records = all(found.batch_size(AT_ONCE)).await?;
    Ok(records.iter().map(|record| stored(record, query.collection)).collect::<Result<_, _>>()?)
}

pub(super) fn filter(query: &Selection, texts: bool) -> Result<Document, StoreError> {
    query.filters.iter().try_for_each(|(field, _)| check_field(field))?;
    let by_fields_of = |root: &str| {
        // MongoDB looks into arrays: without this a field would equal each text in it.
        let no_array = doc! { "$not": { "$type": "array" } };
        let mut conditions = vec![];
        if !query.filters.is_empty() {
            conditions.push(doc! { root: no_array.clone() });
        }
        for (field, text) in &query.filters {
            let mut path = root.to_owned();
            for name in field.split('.') {
                path = format!("{path}.{name}");
                conditions.push(doc! { &path: no_array.clone() });
            }
            conditions.push(doc! { path: text });
        }
        if let Some(after) = &query.after {
            let beyond = if query.descending { "$lt" } else { "$gt" };
            conditions.push(doc! { "_id": { beyond: after } });
        }
        if conditions.is_empty() {
            doc! {}
        } else {
            doc! { "$and": conditions }
        }
    };
    if texts && !query.filters.is_empty() {
        return Ok(doc! { "$or": [by_fields_of(DOC), by_fields_of(FIELDS)] });
    }
    Ok(by_fields_of(DOC))
}

/// The earliest of every collection, merged: an index gives each kind in order.
pub(super) async fn due_wakes(
    link: &Link,
    collections: &[Collection],
    kinds: &[&'static str],
    now: Timestamp,
    most: usize,
) -> Result<Vec<StoredDoc>, Trouble> {
    if kinds.is_empty() || most == 0 {
        return Ok(vec![]);
    }
    let of_collection = |collection: &'static str| async move {
        let docs = link.docs(collection);
        let due = docs.find(due_filter(kinds, now)).sort(doc! { "wake.at": 1 });
        let records = all(due.limit(limit(most)).batch_size(AT_ONCE)).await?;
        records.iter().map(|record| stored(record, collection)).collect::<Result<Vec<_>, Trouble>>()
    };
    let found = try_join_all(collections.iter().map(|collection| of_collection(collection.name))).await?;
    let mut due: Vec<StoredDoc> = found.into_iter().flatten().collect();
    due.sort_by_key(|doc| doc.wake.as_ref().map(|wake| wake.at));
    due.truncate(most);
    Ok(due)
}

pub(super) fn due_filter(kinds: &[&'static str], now: Timestamp) -> Document {
    doc! { "wake.kind": { "$in": kinds }, "wake.at": { "$lte": date(now) } }
}

/// Of every kind: the index begins with it.
pub(super) fn overdue_filter(now: Timestamp) -> Document {
    doc! { "wake.kind": { "$gte": "" }, "wake.at": { "$lte": date(now) } }
}

pub(super) async fn wakes_due(
    link: &Link,
    collections: &[Collection],
    now: Timestamp,
) -> Result<Vec<WakesDue>, Trouble> {
    #[derive(Deserialize)]
    struct Counted {
        #[serde(rename = "_id")]
        kind: String,
        due: i64,
        oldest: DateTime,
    }
    let mut kinds: HashMap<String, WakesDue> = HashMap::new();
    for Collection { name, .. } in collections {
        let docs = link.docs(name);
        let counted = docs.aggregate([
            doc! { "$match": overdue_filter(now) },
            doc! { "$group": { "_id": "$wake.kind", "due": { "$sum": 1_i64 }, "oldest": { "$min": "$wake.at" } } },
        ]);
        for Counted { kind, due, oldest } in all(counted.with_type()).await? {
            let (due, oldest) = (due.unsigned_abs(), Timestamp::from_millis(oldest.timestamp_millis().unsigned_abs()));
            let of_kind = kinds.entry(kind.clone()).or_insert(WakesDue { kind, due: 0, oldest });
            of_kind.due += due;
            of_kind.oldest = of_kind.oldest.min(oldest);
        }
    }
    Ok(kinds.into_values().collect())
}

pub(super) async fn instance_rows(link: &Link) -> Result<Vec<InstanceRow>, Trouble> {
    all(link.instances().find(doc! {}).batch_size(AT_ONCE)).await
}

pub(super) async fn instances(link: &Link) -> Result<Vec<Instance>, Trouble> {
    Ok(instance_rows(link).await?.into_iter().map(Instance::from).collect())
}

pub(super) async fn unpublished(link: &Link, instance: Id, after: u64, most: usize) -> Result<Vec<Entry>, Trouble> {
    if most == 0 {
        return Ok(vec![]);
    }
    let journal = link.journal();
    let found = journal.find(outbox(instance, after)).sort(doc! { "batch": 1, "_id": 1 }).limit(limit(most));
    Ok(all(found.batch_size(AT_ONCE)).await?.into_iter().map(Entry::from).collect())
}

pub(super) fn outbox(instance: Id, after: u64) -> Document {
    doc! { "instance": key(instance), "batch": { "$gt": int(after) }, "emitted": { "$exists": true } }
}

pub(super) async fn count_unpublished(link: &Link) -> Result<u64, Trouble> {
    let above = |row: InstanceRow| {
        let journal = link.journal();
        async move {
            let filter = doc! { "instance": row.id, "batch": { "$gt": row.published }, "emitted": { "$exists": true } };
            answer(journal.count_documents(filter)).await
        }
    };
    let counts = try_join_all(instance_rows(link).await?.into_iter().map(above)).await?;
    Ok(counts.into_iter().sum())
}

pub(super) async fn settled(link: &Link, stream: &str) -> Result<Option<Settled>, Trouble> {
    Ok(answer(link.settled().find_one(doc! { "_id": stream })).await?.map(Settled::from))
}

pub(super) async fn published(link: &Link, stream: &str) -> Result<Vec<Published>, StoreError> {
    let of_stream = doc! { "_id.stream": stream };
    let rows = all(link.published().find(of_stream).sort(doc! { "_id.instance": 1 }).batch_size(AT_ONCE)).await?;
    rows.into_iter().map(PublishedRow::into_published).collect()
}

/// All that a query finds.
pub(super) async fn all<T: DeserializeOwned + Unpin + Send + Sync>(
    query: impl Action<Output = mongodb::error::Result<Cursor<T>>>,
) -> Result<Vec<T>, Trouble> {
    let cursor = answer(query).await?;
    answer(cursor.try_collect()).await
}

pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
