//! Odd and large values, and many writers at once.

use super::{Subject, entry, input, put};
use crate::ids::{Id, Timestamp};
use crate::store::{CommitError, Entry};

/// Nothing in an id or a text is taken for syntax, and ids that look alike are different.
pub async fn odd_ids_and_texts_come_back_as_they_went_in(subject: Subject) {
    let mut writer = subject.writer().await;
    let ids = [
        "",
        "'; DROP TABLE accounts; --",
        "\"q\"",
        "$where",
        "a.b",
        "%_*?",
        "é",
        "e\u{301}",
        "ID",
        "id",
        " id",
        "🦀\n\t",
    ];
    for (n, id) in ids.iter().enumerate() {
        let body = serde_json::json!({ "owner": id, "n": n }).to_string();
        writer.commit(vec![put(id, None, body)], vec![]).await.unwrap();
    }
    for (n, id) in ids.iter().enumerate() {
        let doc = writer.doc(id).await.unwrap();
        assert_eq!(doc.key.id, *id);
        assert_eq!(doc.body, serde_json::json!({ "owner": id, "n": n }).to_string());
        let query = crate::store::Selection {
            collection: "accounts",
            filters: vec![("owner", (*id).into())],
            after: None,
            descending: false,
            limit: 10,
        };
        assert_eq!(writer.store.find(query).await.unwrap(), [doc], "{id:?} is found by its field, and nothing else is");
    }
}

/// Whatever may be staged is there again: each number with its digits, each name wherever it stands, and that twice, because an
/// update is not an insert.
pub async fn a_document_comes_back_digit_by_digit(subject: Subject) {
    let mut writer = subject.writer().await;
    let deep = [vec![b'['; 90], vec![b']'; 90]].concat();
    let bodies = [
        "7",
        "null",
        "[]",
        "\"text\"",
        r#"{"a":1,"b":-9223372036854775808,"c":18446744073709551615,"d":-0}"#,
        r#"{"a":10.50,"b":0.00,"c":-0.0,"d":1e+300,"e":5e-324,"f":1.2345678901234567e+16,"g":1000000000000000.0}"#,
        r#"{"a":[1,[2.50,[]],{},{"b":null}],"z":true,"y":false}"#,
        r#"{"z":{"$set":{"a":1}},"$inc":1,"a.b":{"":2},".":3,"$":4,"_id":{"$x":5},"é\n":"\u0000"}"#,
        r#"{"$ref":"a","$id":1,"$db":{"$oid":"b"},"$numberDecimal":"7","$date":[{"$uuid":8}]}"#,
        std::str::from_utf8(&deep).unwrap(),
    ];
    for version in [None, Some(1)] {
        let put = |(n, body): (usize, &&str)| put(&n.to_string(), version, (*body).to_owned());
        writer.commit(bodies.iter().enumerate().map(put).collect(), vec![]).await.unwrap();
        for (n, body) in bodies.iter().enumerate() {
            let doc = writer.doc(&n.to_string()).await.unwrap();
            assert_eq!(std::str::from_utf8(&doc.body), Ok(*body));
        }
    }
}

/// As large as a batch can get.
pub async fn large_values_come_back_whole(subject: Subject) {
    let mut writer = subject.writer().await;
    let body = serde_json::json!({ "owner": "x".repeat(100), "text": "y".repeat(3 << 20) }).to_string();
    let emitted: Vec<u8> = (0..4_u32 << 20).map(|n| (n % 251) as u8).collect();
    let large = Entry { emitted: emitted.clone().into(), reply: Some(emitted.clone().into()), ..entry(input(1)) };
    writer.commit(vec![put("large", None, body.clone())], vec![large]).await.unwrap();
    assert!(writer.doc("large").await.unwrap().body == body);
    let larger = body.replace('y', "zz");
    writer.commit(vec![put("large", Some(1), larger.clone())], vec![]).await.unwrap();
    assert!(writer.doc("large").await.unwrap().body == larger);
    let large = writer.entry(input(1)).await.unwrap();
    assert!(large.emitted == emitted && large.reply.unwrap() == emitted);
}

/// Several tasks on each of several stores raise one number, each change with an entry of its own.
pub async fn concurrent_writers_lose_no_change(subject: Subject) {
    const STORES: u64 = 3;
    const TASKS: u64 = 3;
    const CHANGES: u64 = 15;
    let mut writer = subject.writer().await;
    writer.commit(vec![put("n", None, "0")], vec![]).await.unwrap();
    let mut tasks = vec![];
    for store in 0..STORES {
        let store_of_tasks = subject.store().await;
        for task in 0..TASKS {
            let mut writer = super::Writer::new(store_of_tasks.clone()).await;
            tasks.push(tokio::spawn(async move {
                for change in 0..CHANGES {
                    let id = of(store, task, change);
                    loop {
                        let doc = writer.doc("n").await.unwrap();
                        let n: u64 = std::str::from_utf8(&doc.body).unwrap().parse().unwrap();
                        let raised = put("n", Some(doc.version), (n + 1).to_string());
                        match writer.commit(vec![raised], vec![entry(id)]).await {
                            Ok(()) => break,
                            Err(CommitError::Version | CommitError::Busy) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let doc = writer.doc("n").await.unwrap();
    let changes = STORES * TASKS * CHANGES;
    assert_eq!((&*doc.body, doc.version), (changes.to_string().as_bytes(), changes + 1));
    for store in 0..STORES {
        for task in 0..TASKS {
            for change in 0..CHANGES {
                assert!(writer.entry(of(store, task, change)).await.is_some());
            }
        }
    }
}

fn of(store: u64, task: u64, change: u64) -> Id {
    Id::derived(
        Timestamp::from_millis(1_700_000_000_000 + change),
        "conformance",
        &[store as u8, task as u8, change as u8],
        0,
    )
}
