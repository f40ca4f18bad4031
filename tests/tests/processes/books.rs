//! The ledger's database, as the test's own connection sees it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use millstream::testing::TestStore;
use millstream::testing::mongo::mongodb::bson::{Bson, Document, doc};
use millstream::testing::mongo::mongodb::{self, Client};
use rusqlite::{Connection, OpenFlags};

use super::ledger::{NAME, Slip};

/// A database of either kind.
pub(super) struct Books {
    pub(super) stores: TestStore,
    mongo: Option<String>,
}

impl Books {
    pub(super) fn in_a_file() -> Self {
        Self { stores: TestStore::new(), mongo: None }
    }

    /// `None` if there is no MongoDB.
    pub(super) fn on_mongo() -> Option<Self> {
        let stores = TestStore::on_mongo()?;
        let mongo = Some(stores.url(NAME));
        Some(Self { stores, mongo })
    }

    pub(super) fn open(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.stores.path(NAME), flags).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        conn
    }

    fn count(&self, sql: &str) -> u64 {
        self.open().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
    }

    /// The ids of the instance rows.
    pub(super) fn instances(&self) -> BTreeSet<Vec<u8>> {
        if let Some(mongo) = &self.mongo {
            let id = |row: Document| match row.get("_id") {
                Some(Bson::Binary(id)) => id.bytes.clone(),
                other => panic!("{other:?} is no id"),
            };
            return found(mongo, "millstream.instances", doc! {}).into_iter().map(id).collect();
        }
        let conn = self.open();
        let mut ids = conn.prepare("SELECT id FROM instances").unwrap();
        let ids = ids.query_map([], |row| row.get(0)).unwrap();
        ids.map(Result::unwrap).collect()
    }

    /// The sum of the versions of the instance rows.
    pub(super) fn instance_versions(&self) -> u64 {
        let Some(mongo) = &self.mongo else {
            return self.count("SELECT coalesce(sum(version), 0) FROM instances");
        };
        let rows = found(mongo, "millstream.instances", doc! {});
        rows.iter().map(|row| row.get_i64("version").unwrap().unsigned_abs()).sum()
    }

    /// How many wakes are open.
    pub(super) fn wakes(&self) -> usize {
        let Some(mongo) = &self.mongo else {
            return self.count("SELECT count(*) FROM doc_slips WHERE wake_at IS NOT NULL") as usize;
        };
        found(mongo, "slips", doc! { "wake": { "$exists": true } }).len()
    }

    /// How many entries are not known to be published.
    pub(super) fn unpublished(&self) -> usize {
        let Some(mongo) = &self.mongo else {
            let sql = "SELECT count(*) FROM journal j JOIN instances i ON j.instance = i.id \
                       WHERE j.batch > i.published AND j.emitted IS NOT NULL";
            return self.count(sql) as usize;
        };
        let of_row = |row: Document| {
            let above = doc! { "$gt": row.get_i64("published").unwrap() };
            let filter = doc! { "instance": row.get("_id").unwrap(), "batch": above, "emitted": { "$exists": true } };
            found(mongo, "millstream.journal", filter).len()
        };
        found(mongo, "millstream.instances", doc! {}).into_iter().map(of_row).sum()
    }

    /// How many entries of the journal have not come to their end.
    pub(super) fn open_entries(&self) -> usize {
        let Some(mongo) = &self.mongo else {
            return self.count("SELECT count(*) FROM journal WHERE state = 0") as usize;
        };
        found(mongo, "millstream.journal", doc! { "state": "open" }).len()
    }

    fn bodies(&self, collection: &str) -> Vec<(String, String)> {
        if let Some(mongo) = &self.mongo {
            let body = |row: Document| {
                let doc = serde_json::to_string(row.get_document("doc").unwrap()).unwrap();
                (row.get_str("_id").unwrap().to_owned(), doc)
            };
            return found(mongo, collection, doc! {}).into_iter().map(body).collect();
        }
        let conn = self.open();
        let mut rows = conn.prepare(&format!("SELECT id, body FROM doc_{collection}")).unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    pub(super) fn slips(&self) -> BTreeMap<u64, Slip> {
        let slip = |(id, body): (String, String)| (id.parse().unwrap(), serde_json::from_str(&body).unwrap());
        self.bodies("slips").into_iter().map(slip).collect()
    }

    /// The sum of the tallies.
    pub(super) fn tallied(&self) -> u64 {
        let tally = |(_, body): &(String, String)| {
            let tally: serde_json::Value = serde_json::from_str(body).unwrap();
            tally["count"].as_u64().unwrap()
        };
        self.bodies("tallies").iter().map(tally).sum()
    }
}

/// Asks on a thread and a connection of its own, so that whoever asks need not know of waiting.
fn found(url: &str, collection: &str, filter: Document) -> Vec<Document> {
    let ask = async {
        let db = Client::with_uri_str(url).await?.default_database().expect("the URL names a database");
        db.collection::<Document>(collection).find(filter).await?.try_collect().await
    };
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(ask);
    let found: mongodb::error::Result<_> = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    found.unwrap()
}
