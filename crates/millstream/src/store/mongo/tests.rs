//! What the conformance suite does not see: plans, what others see, and what an earlier release has left.

use super::*;
use crate::store::DocWrite;
use crate::testing::TestStore;

#[test]
fn a_server_that_is_too_old_or_stands_alone_is_told_by_its_greeting() {
    let member = |version: i32| doc! { "setName": "rs0", "maxWireVersion": version };
    assert_eq!(lacks(&member(12)), Some(OLD));
    assert_eq!(lacks(&member(13)), None);
    assert_eq!(lacks(&doc! { "isreplicaset": true, "maxWireVersion": 17 }), None);
    assert_eq!(lacks(&doc! { "msg": "isdbgrid", "maxWireVersion": 17 }), None);
    assert_eq!(lacks(&doc! { "maxWireVersion": 17 }), Some(STANDALONE));
}

const ORDERS: Collection = Collection { name: "orders", indexed: &["userId", "address.city"] };

async fn store(stores: &TestStore) -> MongoStore {
    let store = MongoStore::open(&MongoUrl::read(&stores.url("orders")).unwrap(), None).unwrap();
    store.prepare(&[ORDERS]).await.unwrap();
    store
}

fn new(body: impl Into<bytes::Bytes>) -> crate::store::NewDoc {
    crate::store::NewDoc { shape: 1, body: body.into(), wake: None }
}

fn of_user(user: &str) -> Selection {
    let filters = vec![("userId", user.into())];
    Selection { collection: "orders", filters, after: None, descending: true, limit: 10 }
}

async fn plan(link: &Link, command: &Document) -> String {
    let explain = doc! { "explain": command.clone(), "verbosity": "queryPlanner" };
    let plan = link.db.run_command(explain).await.unwrap();
    plan.get_document("queryPlanner").unwrap().get_document("winningPlan").unwrap().to_string()
}

#[tokio::test]
async fn what_the_engine_repeats_is_answered_by_an_index() {
    let Some(stores) = TestStore::on_mongo() else { return };
    let store = store(&stores).await;
    let link = store.link().await.unwrap();
    // Among so many a query of one user's has a way that is clearly the best.
    let body = |at| format!(r#"{{"userId":"user-{at}","address":{{"city":"city-{at}"}}}}"#);
    let many: Vec<_> = (0..300).map(|at| document::record(&format!("o{at}"), 1, &new(body(at))).unwrap()).collect();
    link.docs("orders").insert_many(many).await.unwrap();
    let (id, now) = (Id::random(Timestamp::system()), Timestamp::system());
    let found = |field, after: Option<&str>| {
        let filters = vec![(field, "7".into())];
        let query = Selection { filters, after: after.map(Into::into), ..of_user("7") };
        doc! { "find": "orders", "filter": read::filter(&query, false).unwrap(), "sort": { "_id": -1 }, "limit": 10 }
    };
    let due = read::due_filter(&["charge", "refund"], now);
    for (command, index) in [
        (found("userId", Some("p")), "doc.userId"),
        (found("address.city", None), "doc.address.city"),
        (doc! { "find": "orders", "filter": due, "sort": { "wake.at": 1 }, "limit": 10 }, "wake"),
        (doc! { "count": "orders", "query": read::overdue_filter(now) }, "wake"),
        (doc! { "find": JOURNAL, "filter": read::outbox(id, 3), "sort": { "batch": 1, "_id": 1 } }, "outbox"),
        (doc! { "count": JOURNAL, "query": read::outbox(id, 3) }, "outbox"),
        (doc! { "find": JOURNAL, "filter": expire::may_go("S", rows::date(now)), "sort": { "at": 1 } }, "old"),
        (doc! { "find": KEYS, "filter": expire::expired(now), "sort": { "expires": 1 } }, "expires"),
    ] {
        let plan = plan(link, &command).await;
        let named = plan.contains(&format!("\"indexName\": \"{index}\""));
        let walks = ["SORT", "COLLSCAN"].iter().any(|stage| plan.contains(&format!("\"stage\": \"{stage}\"")));
        assert!(named && !walks, "{command}: {plan}");
    }
}

#[tokio::test]
async fn a_document_is_for_others_to_query_and_a_number_is_one_to_them() {
    let Some(stores) = TestStore::on_mongo() else { return };
    let store = store(&stores).await;
    let orders = store.link().await.unwrap().db.collection::<Document>("orders");
    let bodies = [r#"{"totalAmount":99.90}"#, r#"{"totalAmount":100.01}"#, r#"{"totalAmount":200}"#];
    let records = bodies.iter().enumerate().map(|(n, body)| document::record(&n.to_string(), 1, &new(*body)).unwrap());
    store.link().await.unwrap().docs("orders").insert_many(records).await.unwrap();
    let dear = doc! { "doc.totalAmount": { "$gt": 100 } };
    let found = read::all(orders.find(dear).sort(doc! { "_id": 1 })).await.unwrap();
    let ids: Vec<_> = found.iter().map(|order| order.get_str("_id").unwrap()).collect();
    assert_eq!(ids, ["1", "2"]);
    let sum = doc! { "$group": { "_id": null, "sum": { "$sum": "$doc.totalAmount" } } };
    let sum = read::all(orders.aggregate([sum])).await.unwrap().remove(0);
    assert_eq!(sum.get("sum").unwrap().to_string(), "399.91");
}

#[tokio::test]
async fn what_an_earlier_release_wrote_as_text_is_read_found_and_bson_once_it_is_written_again() {
    let Some(stores) = TestStore::on_mongo() else { return };
    let url = stores.url("orders");
    let db = Client::with_uri_str(&url).await.unwrap().default_database().unwrap();
    let orders = db.collection::<Document>("orders");
    let options = IndexOptions::builder().name("userId".to_owned()).build();
    let earlier = IndexModel::builder().keys(doc! { "fields.userId": 1, "_id": 1 }).options(options).build();
    orders.create_index(earlier).await.unwrap();
    let text = |id: &str, user: &str| {
        let body = format!(r#"{{"userId":"{user}","total":10.50}}"#);
        let fields = doc! { "userId": user, "note": "old" };
        doc! { "_id": id, "version": 3_i64, "shape": 2_i64, "body": body, "fields": fields }
    };
    orders.insert_many([text("a", "ann"), text("b", "bob"), text("c", "ann")]).await.unwrap();

    let store = store(&stores).await;
    let instance = Id::random(Timestamp::system());
    store.insert_instance(instance).await.unwrap();
    let put = async |id: &str, expected: Option<u64>, body: &str| {
        let key = Key { collection: "orders", id: id.into() };
        let docs = vec![DocWrite { key, expected, write: Some(new(body.to_owned())) }];
        let now = Timestamp::system();
        let batch = Batch { instance, batch: 1, published_through: 0, docs, journal: vec![], keys: vec![], now };
        store.commit(batch).await.unwrap();
    };
    let found = async |query| {
        let found = store.find(query).await.unwrap();
        found.into_iter().map(|doc| (doc.key.id, doc.version)).collect::<Vec<_>>()
    };
    let of = |found: Vec<(String, u64)>, expected: &[(&str, u64)]| {
        let found: Vec<_> = found.iter().map(|(id, version)| (&**id, *version)).collect();
        assert_eq!(found, expected);
    };
    let read = store.get(Key { collection: "orders", id: "a".into() }).await.unwrap().unwrap();
    assert_eq!((read.version, read.shape, &*read.body), (3, 2, &br#"{"userId":"ann","total":10.50}"#[..]));
    put("d", None, r#"{"userId":"ann"}"#).await;
    put("b", Some(3), r#"{"userId":"ann","total":10.5}"#).await;
    of(found(of_user("ann")).await, &[("d", 1), ("c", 3), ("b", 4), ("a", 3)]);
    of(found(of_user("bob")).await, &[]);
    let after = Selection { after: Some("d".into()), limit: 2, ..of_user("ann") };
    of(found(after).await, &[("c", 3), ("b", 4)]);
    let by_no_index = Selection { filters: vec![("note", "old".into())], ..of_user("ann") };
    of(found(by_no_index).await, &[("c", 3), ("a", 3)]);

    let filter = read::filter(&of_user("ann"), true).unwrap();
    let command = doc! { "find": "orders", "filter": filter, "sort": { "_id": -1 } };
    let plan = plan(store.link().await.unwrap(), &command).await;
    assert!(plan.contains("SORT_MERGE") && plan.contains("\"doc.userId\"") && !plan.contains("COLLSCAN"), "{plan}");

    put("a", Some(3), r#"{"userId":"ann","total":11.50}"#).await;
    put("c", Some(3), r#"{"userId":"ann","total":12.50}"#).await;
    let record = orders.find_one(doc! { "_id": "a" }).await.unwrap().unwrap();
    assert_eq!(record.get_document("doc").unwrap().get("total").unwrap().to_string(), "11.50");
    assert!(!record.contains_key("body") && !record.contains_key("fields"), "{record}");
    assert!(store.seeks_texts(&of_user("ann")), "it has found some when it was prepared");
    store.prepare(&[ORDERS]).await.unwrap();
    assert!(!store.seeks_texts(&of_user("ann")), "there are none any more");
    of(found(of_user("ann")).await, &[("d", 1), ("c", 4), ("b", 4), ("a", 4)]);

    // The wake of what can no longer be staged goes on, and it is found as before.
    let odd = r#"{"digits":12345678901234567890123456789012345678901,"userId":"odd"}"#;
    put("e", None, odd).await;
    let read = store.get(Key { collection: "orders", id: "e".into() }).await.unwrap().unwrap();
    assert_eq!(read.body, odd);
    let row = store.link().await.unwrap().docs("orders").find_one(doc! { "fields.userId": "odd" }).await.unwrap();
    assert_eq!(row.unwrap().get_str("_id").unwrap(), "e");
}

/// The version is looked at in the transaction's snapshot, and who has changed the record since is in the way.
#[tokio::test]
async fn a_record_that_has_changed_since_a_transaction_began_is_a_conflict_and_one_that_had_changed_before_is_left() {
    let Some(stores) = TestStore::on_mongo() else { return };
    let (one, other) = (store(&stores).await, store(&stores).await);
    let instance = Id::random(Timestamp::system());
    one.insert_instance(instance).await.unwrap();
    let write = |expected, body: Option<&str>| {
        let key = Key { collection: "orders", id: "a".into() };
        DocWrite { key, expected, write: body.map(|body| new(body.to_owned())) }
    };
    let commit = async |write| {
        let (docs, now) = (vec![write], Timestamp::system());
        let batch = Batch { instance, batch: 1, published_through: 0, docs, journal: vec![], keys: vec![], now };
        other.commit(batch).await
    };
    let there = async || one.get(Key { collection: "orders", id: "a".into() }).await.unwrap().unwrap();
    commit(write(None, Some("1"))).await.unwrap();

    for late in [write(Some(1), Some("3")), write(Some(1), None)] {
        let mut session = one.session.lock().await;
        let mut tx = tx::Tx::begin(one.link().await.unwrap(), &mut session).await.unwrap();
        // Its snapshot is taken with the first command.
        tx.delete(SETTLED, doc! {}).await.unwrap();
        let version = there().await.version;
        commit(write(Some(version), Some("2"))).await.unwrap();
        let late = DocWrite { expected: Some(version), ..late };
        let refused = commit::documents(&mut tx, &[late]).await;
        assert!(matches!(refused, Err(commit::Refused::Trouble(Trouble::Conflict))), "somebody was in the way");
        tx.abort().await;
    }
    assert_eq!((there().await.version, &*there().await.body), (3, &b"2"[..]));

    for early in [write(Some(1), Some("3")), write(Some(1), None), write(Some(7), Some("3"))] {
        assert_eq!(commit(early).await, Err(CommitError::Version));
    }
    assert_eq!((there().await.version, &*there().await.body), (3, &b"2"[..]));
}
