//! Journal entries and idempotency keys.

use std::time::Duration;

use super::{NOW, Subject, entry, input};
use crate::ids::Timestamp;
use crate::store::{CommitError, Entry, IdempotencyKey, State, Wanted};

/// Loading what is absent is no failure.
pub async fn what_is_not_there_is_left_out_of_a_load(subject: Subject) {
    let mut writer = subject.writer().await;
    writer.commit(vec![super::put("a", None, "{}")], vec![entry(input(1))]).await.unwrap();
    let wanted =
        Wanted { docs: vec![super::key("a"), super::key("b")], journal: vec![input(1), input(2)], keys: vec![[0; 32]] };
    let loaded = writer.store.load(wanted).await.unwrap();
    assert_eq!(loaded.docs.iter().map(|doc| &*doc.key.id).collect::<Vec<_>>(), ["a"]);
    assert_eq!(loaded.journal.iter().map(|entry| entry.id).collect::<Vec<_>>(), [input(1)]);
    assert!(loaded.keys.is_empty());
    let nothing = writer.store.load(Wanted::default()).await.unwrap();
    assert!(nothing.docs.is_empty() && nothing.journal.is_empty() && nothing.keys.is_empty());
}

/// Every field, both empty and full.
pub async fn an_entry_comes_back_as_it_was_written(subject: Subject) {
    let mut writer = subject.writer().await;
    let full = |n, state| Entry {
        state,
        attempts: 3,
        started: 2,
        redrives: 1,
        error: Some("why 'not'\n\u{1F980}".into()),
        first_failure: Some(Timestamp::from_millis(5)),
        last_failure: Some(Timestamp::from_millis(6)),
        emitted: vec![0, 255, 10].into(),
        reply: Some(vec![0, 1].into()),
        stream: "ORDERS".into(),
        seq: 77,
        at: Timestamp::from_millis(9),
        ..entry(input(n))
    };
    let empty = Entry { emitted: "".into(), ..entry(input(4)) };
    let wanted = [full(1, State::Open), full(2, State::Done), full(3, State::Parked), empty];
    writer.commit(vec![], wanted.to_vec()).await.unwrap();
    for mut entry in wanted {
        (entry.instance, entry.batch) = (writer.instance, 1);
        assert_eq!(writer.entry(entry.id).await.unwrap(), entry);
    }
}

/// The unique id is what stops a second handling, also one by another instance, also after a failed first.
pub async fn a_second_entry_for_an_id_is_a_duplicate_whatever_its_state(subject: Subject) {
    let (mut one, mut other) = (subject.writer().await, subject.writer().await);
    for (n, state) in [(1, State::Open), (2, State::Done), (3, State::Parked)] {
        one.commit(vec![], vec![Entry { state, ..entry(input(n)) }]).await.unwrap();
        for writer in [&mut one, &mut other] {
            let second = writer.commit(vec![], vec![entry(input(n))]).await;
            assert_eq!(second, Err(CommitError::Duplicate), "{state:?}");
        }
        let kept = one.entry(input(n)).await.unwrap();
        assert_eq!((kept.state, kept.version, kept.instance), (state, 1, one.instance));
    }
}

/// An open entry is closed by whoever read its last version.
pub async fn an_entry_is_changed_only_under_its_version(subject: Subject) {
    let (mut one, mut other) = (subject.writer().await, subject.writer().await);
    let version = |version, state| Entry { version, state, ..entry(input(1)) };
    assert_eq!(one.commit(vec![], vec![version(2, State::Done)]).await, Err(CommitError::Version), "there is none");
    one.commit(vec![], vec![version(1, State::Open)]).await.unwrap();
    one.commit(vec![], vec![version(2, State::Open)]).await.unwrap();
    other.commit(vec![], vec![version(3, State::Parked)]).await.unwrap();
    for stale in [2, 3, 5] {
        assert_eq!(one.commit(vec![], vec![version(stale, State::Done)]).await, Err(CommitError::Version), "{stale}");
    }
    let kept = one.entry(input(1)).await.unwrap();
    assert_eq!((kept.version, kept.state, kept.instance), (3, State::Parked, other.instance));
}

/// A key is taken by one command, in one batch too, until the time of a commit has reached its end.
pub async fn a_key_stands_for_its_first_command_until_it_expires(subject: Subject) {
    let mut writer = subject.writer().await;
    let end = NOW + Duration::from_secs(60);
    let of = |n, expires| IdempotencyKey { hash: [7; 32], command: input(n), fingerprint: [n as u8; 32], expires };
    let held = async |writer: &super::Writer| {
        let wanted = Wanted { keys: vec![[7; 32]], ..Wanted::default() };
        writer.store.load(wanted).await.unwrap().keys.pop()
    };
    let twice = writer.commit_with(|batch| batch.keys = vec![of(1, end), of(2, end)]).await;
    assert_eq!(twice, Err(CommitError::Duplicate));
    assert_eq!(held(&writer).await, None);

    writer.commit_with(|batch| batch.keys = vec![of(1, end)]).await.unwrap();
    let taken = writer.commit_with(|batch| batch.keys = vec![of(2, end)]).await;
    assert_eq!(taken, Err(CommitError::Duplicate));
    assert_eq!(held(&writer).await, Some(of(1, end)));

    let later = end + Duration::from_secs(60);
    writer.commit_with(|batch| (batch.keys, batch.now) = (vec![of(3, later)], end)).await.unwrap();
    assert_eq!(held(&writer).await, Some(of(3, later)));
}
