//! Documents under their versions.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::{Subject, Writer, entry, guard, input, key, put};
use crate::ids::Timestamp;
use crate::store::{CommitError, DocWrite, IdempotencyKey, Wanted};

/// A document that is expected to be absent is refused where it is present.
pub async fn a_document_is_created_once(subject: Subject) {
    let mut writer = subject.writer().await;
    writer.commit(vec![put("a", None, r#"{"n":1}"#)], vec![]).await.unwrap();
    let again = writer.commit(vec![put("a", None, r#"{"n":2}"#)], vec![]).await;
    assert_eq!(again, Err(CommitError::Version));
    let doc = writer.doc("a").await.unwrap();
    assert_eq!((doc.version, doc.shape, &*doc.body), (1, 1, &br#"{"n":1}"#[..]));
}

/// Neither an older nor a newer version than the one there will do, nor any of a document that is absent.
pub async fn a_document_is_changed_only_under_its_version(subject: Subject) {
    let mut writer = subject.writer().await;
    writer.commit(vec![put("a", None, r#"{"n":1}"#)], vec![]).await.unwrap();
    writer.commit(vec![put("a", Some(1), r#"{"n":2}"#)], vec![]).await.unwrap();
    for wrong in [put("a", Some(1), "{}"), put("a", Some(3), "{}"), put("b", Some(1), "{}")] {
        assert_eq!(writer.commit(vec![wrong.clone()], vec![]).await, Err(CommitError::Version), "{wrong:?}");
    }
    let doc = writer.doc("a").await.unwrap();
    assert_eq!((doc.version, &*doc.body), (2, &br#"{"n":2}"#[..]));
    assert_eq!(writer.doc("b").await, None);
}

/// What was only read counts as much as what is written.
pub async fn a_guarded_read_is_refused_once_the_document_has_changed(subject: Subject) {
    let (mut one, mut other) = (subject.writer().await, subject.writer().await);
    one.commit(vec![put("a", None, "{}"), put("b", None, "{}")], vec![]).await.unwrap();
    other.commit(vec![put("b", Some(1), "{}")], vec![]).await.unwrap();
    let stale = one.commit(vec![put("a", Some(1), "{}"), guard("b", 1)], vec![]).await;
    assert_eq!(stale, Err(CommitError::Version));
    let absent = one.commit(vec![put("a", Some(1), "{}"), guard("c", 1)], vec![]).await;
    assert_eq!(absent, Err(CommitError::Version));
    one.commit(vec![put("a", Some(1), "{}"), guard("b", 2)], vec![]).await.unwrap();
}

/// A guard is no change to those who come later.
pub async fn a_guarded_read_leaves_the_document_as_it_is(subject: Subject) {
    let mut writer = subject.writer().await;
    writer.commit(vec![put("a", None, r#"{"n":1}"#)], vec![]).await.unwrap();
    let before = writer.doc("a").await.unwrap();
    writer.commit(vec![guard("a", 1)], vec![]).await.unwrap();
    assert_eq!(writer.doc("a").await.unwrap(), before);
}

/// A refused part takes all others with it, those before and those after it.
pub async fn a_batch_is_all_or_nothing_whichever_part_is_refused(subject: Subject) {
    let mut writer = subject.writer().await;
    let idempotency = |hash, n| IdempotencyKey {
        hash: [hash; 32],
        command: input(n),
        fingerprint: [0; 32],
        expires: Timestamp::from_millis(u64::MAX / 4),
    };
    let taken = idempotency(1, 1);
    writer
        .commit_with(|batch| {
            batch.docs = vec![put("m", None, "{}")];
            batch.journal = vec![entry(input(1))];
            batch.keys = vec![taken];
        })
        .await
        .unwrap();
    let row = writer.store.instances().await.unwrap();

    let good = || (vec![put("a", None, "{}"), put("z", None, "{}")], vec![entry(input(2))], vec![idempotency(2, 2)]);
    for part in ["document", "guard", "entry", "entry's version", "key"] {
        let (mut docs, mut journal, mut keys) = good();
        let expected = match part {
            "document" => {
                docs.insert(1, put("m", None, "{}"));
                CommitError::Version
            }
            "guard" => {
                docs.insert(1, guard("m", 7));
                CommitError::Version
            }
            "entry" => {
                journal.push(entry(input(1)));
                CommitError::Duplicate
            }
            "entry's version" => {
                let mut stale = entry(input(1));
                stale.version = 5;
                journal.push(stale);
                CommitError::Version
            }
            _ => {
                keys.push(idempotency(1, 3));
                CommitError::Duplicate
            }
        };
        let refused = writer.commit_with(|batch| (batch.docs, batch.journal, batch.keys) = (docs, journal, keys)).await;
        assert_eq!(refused, Err(expected), "{part}");
        let all = Wanted { docs: vec![key("a"), key("z")], journal: vec![input(2)], keys: vec![[2; 32]] };
        let left = writer.store.load(all).await.unwrap();
        assert!(left.docs.is_empty() && left.journal.is_empty() && left.keys.is_empty(), "{part} leaves {left:?}");
        assert_eq!(writer.store.instances().await.unwrap(), row, "{part} leaves a raised row");
    }
    let (docs, journal, keys) = good();
    writer.commit_with(|batch| (batch.docs, batch.journal, batch.keys) = (docs, journal, keys)).await.unwrap();
}

/// Write skew: each of two writers reads two accounts that hold 50 each, and takes 80 from one of them if together they hold as
/// much. Both at once would overdraw them, although they write different documents.
pub async fn two_writers_never_overdraw_two_accounts(subject: Subject) {
    const ROUNDS: usize = 1_000;
    let mut bank = subject.writer().await;
    for chunk in (0..ROUNDS).collect::<Vec<_>>().chunks(250) {
        let accounts = chunk.iter().flat_map(|round| ["a", "b"].map(|which| put(&account(which, *round), None, "50")));
        bank.commit(accounts.collect(), vec![]).await.unwrap();
    }
    let both_have_read = Arc::new(Barrier::new(2));
    let tasks = ["a", "b"].map(|own| (own, both_have_read.clone()));
    let mut running = vec![];
    for (own, both_have_read) in tasks {
        let mut writer = subject.writer().await;
        running.push(tokio::spawn(async move {
            let (mut withdrawals, mut conflicts) = (0, 0);
            for round in 0..ROUNDS {
                let mut staged = withdrawal(&writer, own, round).await;
                both_have_read.wait().await;
                while let Some(docs) = staged.take() {
                    match writer.commit(docs, vec![]).await {
                        Ok(()) => withdrawals += 1,
                        Err(CommitError::Version | CommitError::Busy) => {
                            conflicts += 1;
                            staged = withdrawal(&writer, own, round).await;
                        }
                        Err(error) => panic!("round {round}: {error}"),
                    }
                }
            }
            (withdrawals, conflicts)
        }));
    }
    let (mut withdrawals, mut conflicts) = (0, 0);
    for task in running {
        let (done, refused) = task.await.unwrap();
        withdrawals += done;
        conflicts += refused;
    }
    for round in 0..ROUNDS {
        let (a, b) = (balance(&bank, &account("a", round)).await.0, balance(&bank, &account("b", round)).await.0);
        assert!(a + b >= 0, "round {round}: {a} and {b}");
    }
    assert_eq!(withdrawals, ROUNDS, "each round one gets through");
    assert!(conflicts >= ROUNDS, "and the other meets a conflict: {conflicts}");
}

fn account(which: &str, round: usize) -> String {
    format!("{which}{round}")
}

async fn balance(writer: &Writer, id: &str) -> (i64, u64) {
    let doc = writer.doc(id).await.unwrap();
    (std::str::from_utf8(&doc.body).unwrap().parse().unwrap(), doc.version)
}

async fn withdrawal(writer: &Writer, own: &str, round: usize) -> Option<Vec<DocWrite>> {
    let other = account(if own == "a" { "b" } else { "a" }, round);
    let own = account(own, round);
    let (own_balance, own_version) = balance(writer, &own).await;
    let (other_balance, other_version) = balance(writer, &other).await;
    let left = (own_balance + other_balance >= 80).then(|| (own_balance - 80).to_string())?;
    let mut docs = vec![put(&own, Some(own_version), left), guard(&other, other_version)];
    docs.sort_by(|a, b| a.key.cmp(&b.key));
    Some(docs)
}
