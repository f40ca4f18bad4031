//! Documents by field and by due time.

use super::{ACCOUNTS, NOW, Subject, Writer, put, put_with_wake};
use crate::ids::Timestamp;
use crate::store::{Selection, WakesDue};

async fn found(writer: &Writer, query: Selection) -> Vec<String> {
    writer.store.find(query).await.unwrap().into_iter().map(|doc| doc.key.id).collect()
}

/// Filters are equalities that must all hold; a page begins after the last id of the one before, in either order.
pub async fn a_query_filters_by_fields_and_pages_both_ways(subject: Subject) {
    let mut writer = subject.writer().await;
    let account = |id: &str, owner: &str, city: &str| {
        put(id, None, serde_json::json!({ "owner": owner, "city": city, "note": id }).to_string())
    };
    let docs = vec![
        account("1", "ann", "Oslo"),
        account("2", "bob", "Oslo"),
        account("3", "ann", "Rome"),
        account("4", "ann", "Oslo"),
        account("5", "o'neil \"x\"", "Oslo"),
    ];
    writer.commit(docs, vec![]).await.unwrap();
    let all = || Selection { collection: ACCOUNTS.name, filters: vec![], after: None, descending: false, limit: 10 };
    let of = |owner: &str| Selection { filters: vec![("owner", owner.into())], ..all() };
    assert_eq!(found(&writer, all()).await, ["1", "2", "3", "4", "5"]);
    assert_eq!(found(&writer, of("ann")).await, ["1", "3", "4"]);
    assert_eq!(found(&writer, of("o'neil \"x\"")).await, ["5"]);
    assert_eq!(found(&writer, of("nobody")).await, [""; 0]);
    let both = Selection { filters: vec![("owner", "ann".into()), ("city", "Oslo".into())], ..all() };
    assert_eq!(found(&writer, both).await, ["1", "4"]);
    assert_eq!(
        found(&writer, Selection { filters: vec![("note", "2".into())], ..all() }).await,
        ["2"],
        "without an index"
    );
    assert_eq!(found(&writer, Selection { filters: vec![("absent", "2".into())], ..all() }).await, [""; 0]);

    let page = |after: Option<&str>, descending, limit| Selection {
        after: after.map(Into::into),
        descending,
        limit,
        ..of("ann")
    };
    assert_eq!(found(&writer, page(None, false, 2)).await, ["1", "3"]);
    assert_eq!(found(&writer, page(Some("3"), false, 2)).await, ["4"]);
    assert_eq!(found(&writer, page(None, true, 2)).await, ["4", "3"]);
    assert_eq!(found(&writer, page(Some("3"), true, 2)).await, ["1"]);
    assert_eq!(found(&writer, page(Some("2"), true, 2)).await, ["1"], "a cursor need not be among what is found");

    let moved = put("4", Some(1), r#"{"owner":"bob","city":"Oslo","home":{"city":"Rome"}}"#);
    writer.commit(vec![moved], vec![]).await.unwrap();
    assert_eq!(found(&writer, of("ann")).await, ["1", "3"]);
    assert_eq!(found(&writer, of("bob")).await, ["2", "4"]);

    // A field is a text of its own: neither one among several, nor of several objects, nor a number that reads like it.
    let several = |id, body: &str| put(id, None, body.to_owned());
    let docs = vec![
        several("6", r#"{"owner":["bob"],"home":[{"city":"Rome"}]}"#),
        several("7", r#"{"owner":7,"home":{"city":["Rome"]},"home.city":"Rome"}"#),
        several("8", r#"{"owner":"7","home":{"city":"Rome"}}"#),
    ];
    writer.commit(docs, vec![]).await.unwrap();
    let at_home = |city: &str| Selection { filters: vec![("home.city", city.into())], ..all() };
    assert_eq!(found(&writer, at_home("Rome")).await, ["4", "8"]);
    assert_eq!(found(&writer, Selection { after: Some("4".into()), ..at_home("Rome") }).await, ["8"]);
    assert_eq!(found(&writer, of("bob")).await, ["2", "4"]);
    assert_eq!(found(&writer, of("7")).await, ["8"]);
    let neither = Selection { filters: vec![("owner", "ann".into()), ("owner", "bob".into())], ..all() };
    assert_eq!(found(&writer, neither).await, [""; 0]);
    let syntax = Selection { filters: vec![("home..city", "Rome".into())], ..all() };
    assert!(writer.store.find(syntax).await.is_err(), "it is no field");
}

async fn due(writer: &Writer, kinds: &[&'static str], now: u64, limit: usize) -> Vec<String> {
    let docs = writer.store.due_wakes(kinds, Timestamp::from_millis(now), limit).await.unwrap();
    docs.into_iter().map(|doc| doc.key.id).collect()
}

/// The sweep takes what has waited longest, and leaves kinds that are closed or not its own.
pub async fn due_wakes_come_earliest_first_and_only_of_the_kinds_asked_for(subject: Subject) {
    let mut writer = subject.writer().await;
    let docs = vec![
        put_with_wake("a", None, "charge", 30),
        put_with_wake("b", None, "refund", 20),
        put_with_wake("c", None, "charge", 10),
        put_with_wake("d", None, "deadline", 5),
        put_with_wake("e", None, "charge", 41),
        put("f", None, "{}"),
    ];
    writer.commit(docs.clone(), vec![]).await.unwrap();
    assert_eq!(due(&writer, &["charge", "refund"], 40, 10).await, ["c", "b", "a"]);
    assert_eq!(due(&writer, &["charge", "refund"], 40, 2).await, ["c", "b"]);
    assert_eq!(due(&writer, &["charge"], 30, 10).await, ["c", "a"], "what is due now is due");
    assert_eq!(due(&writer, &["charge"], 9, 10).await, [""; 0]);
    assert_eq!(due(&writer, &[], 40, 10).await, [""; 0]);
    let whole = writer.store.due_wakes(&["deadline"], NOW, 1).await.unwrap().remove(0);
    assert_eq!(whole.wake, docs[3].write.as_ref().and_then(|new| new.wake.clone()));
    assert_eq!(writer.doc("d").await, Some(whole));
}

/// The wake is part of its document's state.
pub async fn a_wake_that_was_moved_or_cleared_is_no_longer_due(subject: Subject) {
    let mut writer = subject.writer().await;
    let docs = vec![put_with_wake("a", None, "charge", 10), put_with_wake("b", None, "charge", 10)];
    writer.commit(docs, vec![]).await.unwrap();
    let docs = vec![put_with_wake("a", Some(1), "charge", 50), put("b", Some(1), "{}")];
    writer.commit(docs, vec![]).await.unwrap();
    assert_eq!(due(&writer, &["charge"], 20, 10).await, [""; 0]);
    assert_eq!(due(&writer, &["charge"], 60, 10).await, ["a"]);
    assert_eq!(writer.doc("b").await.unwrap().wake, None);
}

/// What an operator sees of overdue wakes.
pub async fn due_wakes_are_counted_by_kind(subject: Subject) {
    let mut writer = subject.writer().await;
    let docs = vec![
        put_with_wake("a", None, "charge", 30),
        put_with_wake("b", None, "refund", 20),
        put_with_wake("c", None, "charge", 10),
        put_with_wake("d", None, "deadline", 50),
    ];
    writer.commit(docs, vec![]).await.unwrap();
    let mut counted = writer.store.wakes_due(Timestamp::from_millis(40)).await.unwrap();
    counted.sort_by(|a, b| a.kind.cmp(&b.kind));
    let charge = WakesDue { kind: "charge".into(), due: 2, oldest: Timestamp::from_millis(10) };
    let refund = WakesDue { kind: "refund".into(), due: 1, oldest: Timestamp::from_millis(20) };
    assert_eq!(counted, [charge, refund]);
}
