//! MongoDB, from 5.0 on and as a replica set: one database a service, one transaction a batch.
//!
//! What is written is acknowledged once a majority of the members has it in its journal on the disk (`w: majority, j: true`),
//! and what is read is what a majority has: an answer is never taken back by an election. Documents are in collections of
//! their own names, the toolkit's own records in `millstream.journal`, `millstream.keys`, `millstream.instances`,
//! `millstream.settled` and `millstream.published`.

mod abandoned;
mod commit;
mod document;
mod expire;
mod json;
mod read;
mod rows;
mod trouble;
mod tx;
mod url;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use millstream_core::bson::DOC;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{
    Acknowledgment, ClientOptions, Hint, IndexOptions, ReadConcern, ReadPreference, SelectionCriteria,
    TransactionOptions, WriteConcern,
};
use mongodb::{Client, ClientSession, Database, IndexModel};
use tokio::sync::{Mutex, OnceCell};

use self::document::BODY;
use self::rows::{EntryRow, InstanceRow, KeyRow, PublishedRow, SettledRow, int, key};
use self::trouble::{Trouble, answer, code, said};
pub use self::url::MongoUrl;
use super::query::check_field;
use super::{
    Batch, Collection, CommitError, Entry, Expiry, Instance, Loaded, PrepareError, Published, Selection, Settled,
    Store, StoreError, StoredDoc, WakesDue, Wanted,
};
use crate::handler::Key;
use crate::ids::{Id, Timestamp};

const JOURNAL: &str = "millstream.journal";
const KEYS: &str = "millstream.keys";
const INSTANCES: &str = "millstream.instances";
const SETTLED: &str = "millstream.settled";
const PUBLISHED: &str = "millstream.published";

/// The index of what an earlier release has written.
const TEXTS: &str = "texts";

/// How long a primary is looked for; the driver's half a minute would be that of everybody who asks meanwhile.
const SELECTION: Duration = Duration::from_secs(2);

/// How many connections there are from the start, and at most. Opening one takes many times as long as a commit.
const POOL: (u32, u32) = (8, 64);

/// What MongoDB 5.0 says of itself in its greeting.
const WIRE_VERSION_OF_5_0: i32 = 13;

const NAMESPACE_EXISTS: i32 = 48;
const COMMAND_NOT_FOUND: i32 = 59;

/// A store in a database of a MongoDB server.
pub struct MongoStore {
    url: MongoUrl,
    database: String,
    link: OnceCell<Link>,
    collections: RwLock<Vec<Kept>>,
    /// The session of all transactions: one at a time, as the engine has them.
    session: Mutex<Option<ClientSession>>,
    /// Whether the session has a commit whose outcome is unknown, and that may still come about.
    unsettled: AtomicBool,
    /// Since when every commit has met a conflict.
    blocked: RwLock<Option<Instant>>,
}

/// A collection, and whether it has documents that an earlier release has written as text.
struct Kept {
    collection: Collection,
    texts: bool,
}

/// The client, and the database.
struct Link {
    client: Client,
    db: Database,
    /// By which the server knows this service's connections.
    app_name: String,
}

impl Link {
    fn docs(&self, collection: &str) -> mongodb::Collection<RawDocumentBuf> {
        self.db.collection(collection)
    }

    fn journal(&self) -> mongodb::Collection<EntryRow> {
        self.db.collection(JOURNAL)
    }

    fn keys(&self) -> mongodb::Collection<KeyRow> {
        self.db.collection(KEYS)
    }

    fn instances(&self) -> mongodb::Collection<InstanceRow> {
        self.db.collection(INSTANCES)
    }

    fn settled(&self) -> mongodb::Collection<SettledRow> {
        self.db.collection(SETTLED)
    }

    fn published(&self) -> mongodb::Collection<PublishedRow> {
        self.db.collection(PUBLISHED)
    }
}

impl MongoStore {
    /// A store in the database that the URL names, or else in `database`. It connects when it is first used.
    ///
    /// # Errors
    /// When neither names a database.
    pub fn open(url: &MongoUrl, database: Option<&str>) -> Result<Self, StoreError> {
        let database = url
            .database()
            .or(database.map(Into::into))
            .ok_or_else(|| StoreError::new("the URL names no database: use mongodb://host/database?replicaSet=name"))?;
        Ok(Self {
            url: url.clone(),
            database,
            link: OnceCell::new(),
            collections: RwLock::default(),
            session: Mutex::default(),
            unsettled: AtomicBool::new(false),
            blocked: RwLock::default(),
        })
    }

    async fn link(&self) -> Result<&Link, StoreError> {
        let connect = || async {
            let options = ClientOptions::parse(self.url.expose()).await;
            let mut options = options.map_err(|error| StoreError::new(said(&error)).with_source(error))?;
            options.tls = self.url.tls(options.tls);
            // What a commit promises is not for a URL to change.
            let write = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
            options.write_concern = Some(write.clone());
            options.read_concern = Some(ReadConcern::majority());
            options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
            options.server_selection_timeout.get_or_insert(SELECTION);
            let app_name = options.app_name.get_or_insert_with(|| self.database.clone()).clone();
            options.min_pool_size.get_or_insert(POOL.0);
            options.max_pool_size.get_or_insert(POOL.1);
            let client =
                Client::with_options(options).map_err(|error| StoreError::new(said(&error)).with_source(error))?;
            Ok(Link { db: client.database(&self.database), client, app_name })
        };
        self.link.get_or_try_init(connect).await
    }

    /// The link, once no earlier commit can come about any more: else what is read now may be no longer true when it is used.
    async fn settled_link(&self) -> Result<&Link, StoreError> {
        if self.unsettled.load(Ordering::Acquire)
            && let Some(session) = &mut *self.session.lock().await
        {
            tx::settle(session).await?;
            self.unsettled.store(false, Ordering::Release);
        }
        self.link().await
    }

    fn collections(&self) -> Vec<Collection> {
        let kept = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|kept| kept.collection).collect()
    }

    /// Whether a query has to look for documents that are text: as long as there may be some.
    fn seeks_texts(&self, query: &Selection) -> bool {
        let kept = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|kept| kept.collection.name == query.collection).is_none_or(|kept| kept.texts)
    }

    /// Says why this server will not do, if it will not.
    async fn examine(&self, link: &Link) -> Result<(), PrepareError> {
        let lacks = match link.db.run_command(doc! { "hello": 1 }).await {
            Ok(hello) => lacks(&hello),
            Err(error) => match &*error.kind {
                _ if code(&error) == Some(COMMAND_NOT_FOUND) => Some(OLD),
                ErrorKind::ServerSelection { message, .. } if message.contains("wire version") => Some(OLD),
                ErrorKind::IncompatibleServer { .. } => Some(OLD),
                _ => return Err(Trouble::from(error).into()),
            },
        };
        let said = |lacks| format!("the MongoDB at {} {lacks}", self.url.hosts());
        lacks.map_or(Ok(()), |lacks| Err(PrepareError::Unfit(said(lacks))))
    }

    async fn create(&self, collections: &[Collection]) -> Result<Vec<Kept>, PrepareError> {
        let link = self.link().await?;
        self.examine(link).await?;
        // The names within are the driver's, for a collection that is there already as for one that is not.
        let index = |keys: Document, name: &str, partial: Option<Document>| {
            let options = IndexOptions::builder().name(name.to_owned()).partial_filter_expression(partial).build();
            IndexModel::builder().keys(keys).options(options).build()
        };
        let emitted = doc! { "emitted": { "$exists": true } };
        let outbox = index(doc! { "instance": 1, "batch": 1, "_id": 1 }, "outbox", Some(emitted));
        let old = index(doc! { "stream": 1, "at": 1 }, "old", Some(doc! { "state": rows::DONE }));
        answer(link.journal().create_indexes([outbox, old])).await?;
        answer(link.keys().create_index(index(doc! { "expires": 1 }, "expires", None))).await?;
        let mut kept = vec![];
        for collection in collections {
            let waking = doc! { "wake.at": { "$exists": true } };
            let text = doc! { BODY: { "$exists": true } };
            // The one of texts costs nothing where there are none, and tells so at once.
            let mut indexes = vec![
                index(doc! { "wake.kind": 1, "wake.at": 1 }, "wake", Some(waking)),
                index(doc! { "_id": 1, "shape": 1 }, TEXTS, Some(text.clone())),
            ];
            for field in collection.indexed {
                check_field(field).map_err(|error| PrepareError::Unfit(error.to_string()))?;
                let field = format!("{DOC}.{field}");
                indexes.push(index(doc! { &field: 1, "_id": 1 }, &field, None));
            }
            let docs = link.docs(collection.name);
            answer(docs.create_indexes(indexes)).await?;
            let texts = answer(docs.find_one(text).hint(Hint::Name(TEXTS.into()))).await?.is_some();
            kept.push(Kept { collection: *collection, texts });
        }
        for name in [INSTANCES, SETTLED, PUBLISHED] {
            match link.db.create_collection(name).await {
                Err(error) if code(&error) != Some(NAMESPACE_EXISTS) => return Err(Trouble::from(error).into()),
                _ => {}
            }
        }
        link.client.warm_connection_pool().await;
        Ok(kept)
    }
}

const OLD: &str = "is older than 5.0: upgrade the server";

const STANDALONE: &str = "is a standalone server, and transactions need a replica set, of which one member is enough: \
                          start mongod with --replSet rs0 and run rs.initiate() in mongosh once";

/// What a server lacks, by its greeting.
fn lacks(hello: &Document) -> Option<&'static str> {
    if hello.get_i32("maxWireVersion").is_ok_and(|version| version < WIRE_VERSION_OF_5_0) {
        return Some(OLD);
    }
    // One that is to be a member and does not know its set yet will know it later.
    let member = hello.contains_key("setName") || hello.get_bool("isreplicaset").is_ok_and(|is| is);
    let sharded = hello.get_str("msg").is_ok_and(|message| message == "isdbgrid");
    (!member && !sharded).then_some(STANDALONE)
}

/// The options of every transaction: what it reads is of one moment.
fn transaction() -> TransactionOptions {
    TransactionOptions::builder().read_concern(ReadConcern::snapshot()).build()
}

impl From<Trouble> for PrepareError {
    fn from(trouble: Trouble) -> Self {
        Self::Away(trouble.into())
    }
}

impl Store for MongoStore {
    fn prepare<'a>(&'a self, collections: &'a [Collection]) -> BoxFuture<'a, Result<(), PrepareError>> {
        async move {
            let prepared = self.create(collections).await?;
            let mut known = self.collections.write().unwrap_or_else(PoisonError::into_inner);
            for new in prepared {
                known.retain(|old| old.collection.name != new.collection.name);
                known.push(new);
            }
            Ok(())
        }
        .boxed()
    }

    fn load(&self, wanted: Wanted) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        async move { Ok(read::load(self.settled_link().await?, &wanted).await?) }.boxed()
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<StoredDoc>, StoreError>> {
        async move { Ok(read::get(self.link().await?, &key).await?) }.boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>> {
        async move { self.commit_batch(&batch).await }.boxed()
    }

    fn find(&self, query: Selection) -> BoxFuture<'_, Result<Vec<StoredDoc>, StoreError>> {
        async move { read::find(self.link().await?, &query, self.seeks_texts(&query)).await }.boxed()
    }

    fn due_wakes<'a>(
        &'a self,
        kinds: &'a [&'static str],
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StoredDoc>, StoreError>> {
        let collections = self.collections();
        async move { Ok(read::due_wakes(self.link().await?, &collections, kinds, now, limit).await?) }.boxed()
    }

    fn wakes_due(&self, now: Timestamp) -> BoxFuture<'_, Result<Vec<WakesDue>, StoreError>> {
        let collections = self.collections();
        async move { Ok(read::wakes_due(self.link().await?, &collections, now).await?) }.boxed()
    }

    fn insert_instance(&self, id: Id) -> BoxFuture<'_, Result<(), StoreError>> {
        let insert = async move {
            let row = doc! { "$setOnInsert": { "version": 0_i64, "published": 0_i64 } };
            let instances = self.link().await?.instances();
            answer(instances.update_one(doc! { "_id": key(id) }, row).upsert(true)).await?;
            Ok(())
        };
        insert.boxed()
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<Instance>, StoreError>> {
        async move { Ok(read::instances(self.link().await?).await?) }.boxed()
    }

    fn delete_instance(&self, id: Id, version: u64) -> BoxFuture<'_, Result<bool, StoreError>> {
        let delete = async move {
            let link = self.link().await?;
            let instances = link.instances();
            // Who died in the middle of a commit holds its row.
            abandoned::abort(link).await?;
            let deleted = answer(instances.delete_one(doc! { "_id": key(id), "version": int(version) })).await?;
            Ok(deleted.deleted_count == 1)
        };
        delete.boxed()
    }

    fn unpublished(&self, instance: Id, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        async move { Ok(read::unpublished(self.link().await?, instance, after, limit).await?) }.boxed()
    }

    fn count_unpublished(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move { Ok(read::count_unpublished(self.link().await?).await?) }.boxed()
    }

    fn init_settled(&self, mark: Settled) -> BoxFuture<'_, Result<Settled, StoreError>> {
        let init = async move {
            let link = self.link().await?;
            // One that is there and of this very stream is not found, and then the insert meets it.
            let other = doc! { "_id": &mark.stream, "created": { "$ne": &mark.created } };
            let put = doc! { "$set": rows::mark(&mark) };
            match answer(link.settled().update_one(other, put).upsert(true)).await {
                Ok(_) | Err(Trouble::Duplicate) => {}
                Err(trouble) => return Err(trouble.into()),
            }
            let lost =
                || StoreError::new(format!("the mark of stream {} went away while it was being set", mark.stream));
            read::settled(link, &mark.stream).await?.ok_or_else(lost)
        };
        init.boxed()
    }

    fn move_settled(&self, from: Settled, to: Settled) -> BoxFuture<'_, Result<bool, StoreError>> {
        let put = async move {
            let mut there = rows::mark(&from);
            there.insert("_id", &from.stream);
            let moved =
                answer(self.link().await?.settled().update_one(there, doc! { "$set": rows::mark(&to) })).await?;
            Ok(moved.matched_count == 1)
        };
        put.boxed()
    }

    fn settled<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Option<Settled>, StoreError>> {
        async move { Ok(read::settled(self.link().await?, stream).await?) }.boxed()
    }

    fn put_published(&self, published: Published) -> BoxFuture<'_, Result<(), StoreError>> {
        let put = async move {
            let row = PublishedRow::new(&published)?;
            let all = self.link().await?.published();
            answer(all.replace_one(doc! { "_id": row.id() }, &row).upsert(true)).await?;
            Ok(())
        };
        put.boxed()
    }

    fn published<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<Vec<Published>, StoreError>> {
        async move { read::published(self.link().await?, stream).await }.boxed()
    }

    fn forget_published<'a>(&'a self, instance: Id, stream: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let forget = async move {
            let id = rows::published_id(instance, stream);
            answer(self.link().await?.published().delete_one(doc! { "_id": id })).await?;
            Ok(())
        };
        forget.boxed()
    }

    fn expire(&self, expiry: Expiry) -> BoxFuture<'_, Result<usize, StoreError>> {
        async move { expire::expire(self.settled_link().await?, &mut *self.session.lock().await, &expiry).await }
            .boxed()
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let clear = async move {
            let db = &self.settled_link().await?.db;
            let mut names = answer(db.list_collection_names()).await?;
            names.retain(|name| !name.starts_with("system."));
            // The marks first, and what they are of last.
            let own = [SETTLED, INSTANCES, KEYS, PUBLISHED, JOURNAL];
            names.sort_by_key(|name| own.iter().position(|own| own == name).unwrap_or(own.len()));
            for name in names {
                // As long as it takes: a large one takes minutes.
                db.collection::<Document>(&name).delete_many(doc! {}).await.map_err(Trouble::from)?;
            }
            Ok(())
        };
        clear.boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let ping = async move {
            // What is there to be written to, and not just any member that answers.
            answer(self.settled_link().await?.instances().find_one(doc! {})).await?;
            Ok(())
        };
        ping.boxed()
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
