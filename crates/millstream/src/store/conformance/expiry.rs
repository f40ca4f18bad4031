//! Old entries go, with the marks that answer for them; and everything goes at once.

use std::time::Duration;

use super::{ACCOUNTS, NOW, Subject, Writer, entry, input, put, put_with_wake};
use crate::ids::{Id, Timestamp};
use crate::store::{
    Batch, CommitError, Entry, Expiry, Floor, IdempotencyKey, Published, Selection, Settled, State, Wanted,
};

const OLD: Timestamp = Timestamp::from_millis(NOW.millis() - 1);

fn mark(stream: &str, through: u64, created: &str) -> Settled {
    Settled::new(stream, created, through)
}

fn floor(stream: &str, through: u64, created: &str) -> Floor {
    Floor { stream: stream.into(), created: created.into(), through, before: NOW, until: NOW }
}

/// A mark after entries up to `through` have gone.
fn raised(stream: &str, through: u64) -> Settled {
    Settled { until: Some(NOW), ..mark(stream, through, "monday") }
}

fn expiry(floors: &[(&str, u64)]) -> Expiry {
    let floors = floors.iter().map(|(stream, through)| floor(stream, *through, "monday")).collect();
    Expiry { before: NOW, floors, now: NOW, limit: 100 }
}

fn old(n: u64) -> Entry {
    Entry { at: OLD, ..entry(input(n)) }
}

fn old_message(n: u64, stream: &str, seq: u64) -> Entry {
    Entry { stream: stream.into(), seq, ..old(n) }
}

async fn left(writer: &Writer, ids: &[Id]) -> Vec<Id> {
    let wanted = Wanted { journal: ids.to_vec(), ..Wanted::default() };
    writer.store.load(wanted).await.unwrap().journal.into_iter().map(|entry| entry.id).collect()
}

/// Commits entries and says that they are published.
async fn published(writer: &mut Writer, entries: Vec<Entry>) {
    writer.commit_with(|batch| (batch.journal, batch.published_through) = (entries, batch.batch)).await.unwrap();
}

/// The mark of a first start stays; a stream that was made anew under the same name has sequences of its own.
pub async fn a_mark_is_set_once_for_a_stream_and_anew_for_another_of_its_name(subject: Subject) {
    let store = subject.store().await;
    assert_eq!(store.settled("S").await.unwrap(), None);
    assert_eq!(store.init_settled(mark("S", 5, "monday")).await.unwrap(), mark("S", 5, "monday"));
    assert_eq!(store.init_settled(mark("S", 9, "monday")).await.unwrap(), mark("S", 5, "monday"));
    assert_eq!(store.init_settled(mark("T", 1, "monday")).await.unwrap(), mark("T", 1, "monday"));
    assert_eq!(store.init_settled(mark("S", 2, "friday")).await.unwrap(), mark("S", 2, "friday"));
    assert_eq!(store.settled("S").await.unwrap(), Some(mark("S", 2, "friday")));
    assert_eq!(store.settled("T").await.unwrap(), Some(mark("T", 1, "monday")));
}

/// What is open is still to do, what is parked is kept for the operator.
pub async fn only_entries_that_are_done_and_old_expire(subject: Subject) {
    let mut writer = subject.writer().await;
    let young = Entry { at: NOW, ..entry(input(2)) };
    let open = Entry { state: State::Open, ..old(3) };
    let parked = Entry { state: State::Parked, ..old(4) };
    published(&mut writer, vec![old(1), young, open, parked]).await;
    assert_eq!(writer.store.expire(expiry(&[])).await.unwrap(), 1);
    assert_eq!(left(&writer, &[1, 2, 3, 4].map(input)).await, [2, 3, 4].map(input));
}

/// An entry above the watermark of its instance may hold an event that nobody has seen.
pub async fn only_published_entries_expire(subject: Subject) {
    let (mut writer, mut swept) = (subject.writer().await, subject.writer().await);
    swept.commit(vec![], vec![old(1)]).await.unwrap();
    writer.commit(vec![], vec![old(2)]).await.unwrap();
    writer.commit(vec![], vec![old(3)]).await.unwrap();
    writer.commit_with(|batch| batch.published_through = 1).await.unwrap();
    assert_eq!(writer.store.expire(expiry(&[])).await.unwrap(), 1);
    assert_eq!(left(&writer, &[1, 2, 3].map(input)).await, [1, 3].map(input));
    assert!(swept.store.delete_instance(swept.instance, 1).await.unwrap());
    assert_eq!(writer.store.expire(expiry(&[])).await.unwrap(), 1, "without a row all is published");
    assert_eq!(left(&writer, &[1, 2, 3].map(input)).await, [input(3)]);
}

/// A message that the durable has not acked may be delivered again and needs its entry. So does one of a stream without a mark:
/// nothing else would answer for it.
pub async fn only_entries_of_acked_messages_expire(subject: Subject) {
    let mut writer = subject.writer().await;
    for stream in ["S", "T"] {
        writer.store.init_settled(mark(stream, 0, "monday")).await.unwrap();
    }
    let entries = vec![
        old_message(1, "S", 10),
        old_message(2, "S", 11),
        old_message(3, "T", 1),
        old_message(4, "WITHOUT_MARK", 1),
        old(5),
    ];
    published(&mut writer, entries).await;
    assert_eq!(writer.store.expire(expiry(&[("S", 10), ("WITHOUT_MARK", 10)])).await.unwrap(), 2);
    assert_eq!(left(&writer, &[1, 2, 3, 4, 5].map(input)).await, [2, 3, 4].map(input));
    assert_eq!(writer.store.expire(expiry(&[("S", 11), ("T", 1)])).await.unwrap(), 2);
    assert_eq!(left(&writer, &[1, 2, 3, 4, 5].map(input)).await, [input(4)]);
}

/// What is acked of a stream says nothing of another that was made in its place.
pub async fn the_floor_of_a_stream_lets_no_entry_go_under_the_mark_of_another_of_its_name(subject: Subject) {
    let mut writer = subject.writer().await;
    writer.store.init_settled(mark("S", 0, "friday")).await.unwrap();
    published(&mut writer, vec![old_message(1, "S", 10)]).await;
    assert_eq!(writer.store.expire(expiry(&[("S", 10)])).await.unwrap(), 0);
    assert_eq!(left(&writer, &[input(1)]).await, [input(1)]);
    assert_eq!(writer.store.settled("S").await.unwrap(), Some(mark("S", 0, "friday")));
    let floors = vec![floor("S", 10, "friday")];
    assert_eq!(writer.store.expire(Expiry { floors, ..expiry(&[]) }).await.unwrap(), 1);
}

/// Never to the floor, never down, and only of streams of which something went.
pub async fn expiry_raises_the_mark_to_the_highest_sequence_that_went(subject: Subject) {
    let mut writer = subject.writer().await;
    for (stream, through) in [("S", 0), ("T", 50), ("U", 3)] {
        writer.store.init_settled(mark(stream, through, "monday")).await.unwrap();
    }
    let stays = Entry { at: NOW, ..old_message(4, "S", 14) };
    let entries =
        vec![old_message(1, "S", 12), old_message(2, "S", 13), old_message(3, "S", 11), stays, old_message(5, "T", 40)];
    published(&mut writer, entries).await;
    let floors = [("S", 1_000), ("T", 1_000), ("U", 1_000)];
    assert_eq!(writer.store.expire(expiry(&floors)).await.unwrap(), 4);
    for mark in [raised("S", 13), raised("T", 50), mark("U", 3, "monday")] {
        assert_eq!(writer.store.settled(&mark.stream).await.unwrap(), Some(mark));
    }
}

/// A copy of what was handled may lie in a backlog: its entry stays until the durable is past that time.
pub async fn an_entry_stays_while_its_durable_is_in_a_time_before_it(subject: Subject) {
    let mut writer = subject.writer().await;
    writer.store.init_settled(mark("S", 0, "monday")).await.unwrap();
    let older = Entry { at: Timestamp::from_millis(OLD.millis() - 10), ..old_message(1, "S", 1) };
    published(&mut writer, vec![older, old_message(2, "S", 2)]).await;
    let floors = vec![Floor { before: OLD, until: OLD, ..floor("S", 9, "monday") }];
    assert_eq!(writer.store.expire(Expiry { floors, ..expiry(&[]) }).await.unwrap(), 1);
    assert_eq!(left(&writer, &[1, 2].map(input)).await, [input(2)]);
    assert_eq!(writer.store.settled("S").await.unwrap(), Some(Settled { until: Some(OLD), ..raised("S", 1) }));
    assert_eq!(writer.store.expire(expiry(&[("S", 9)])).await.unwrap(), 1);
    assert_eq!(writer.store.settled("S").await.unwrap(), Some(raised("S", 2)));
}

/// Two that have read the same mark do not both change it.
pub async fn a_mark_is_moved_only_from_where_it_was_read(subject: Subject) {
    let store = subject.store().await;
    let first = mark("S", 5, "monday");
    let seen = Settled { seen: Some(9), ..first.clone() };
    let timed = Settled { until: Some(OLD), seen: None, ..seen.clone() };
    assert!(!store.move_settled(first.clone(), seen.clone()).await.unwrap());
    store.init_settled(first.clone()).await.unwrap();
    for (from, to, moved) in
        [(&first, &seen, true), (&first, &seen, false), (&seen, &timed, true), (&timed, &first, true)]
    {
        assert_eq!(store.move_settled(from.clone(), to.clone()).await.unwrap(), moved, "{from:?} {to:?}");
    }
    assert_eq!(store.settled("S").await.unwrap(), Some(first));
}

/// Chunk by chunk, whatever lies between, all goes that may go.
pub async fn entries_that_stay_do_not_keep_later_ones_from_expiring(subject: Subject) {
    let mut writer = subject.writer().await;
    let parked = |n| Entry { state: State::Parked, ..old(n) };
    let entries = (0..200).map(|n| if n % 4 == 3 { old(n) } else { parked(n) }).collect();
    published(&mut writer, entries).await;
    let chunk = Expiry { limit: 20, ..expiry(&[]) };
    let mut went = vec![];
    for _ in 0..4 {
        went.push(writer.store.expire(chunk.clone()).await.unwrap());
    }
    assert_eq!(went, [20, 20, 10, 0]);
    published(&mut writer, vec![old(1_000), Entry { version: 2, ..old(0) }]).await;
    assert_eq!(writer.store.expire(chunk.clone()).await.unwrap(), 2, "before and after those that stayed");

    published(&mut writer, (2_000..7_000).map(parked).collect()).await;
    published(&mut writer, vec![old(7_000)]).await;
    let mut calls = 1;
    while writer.store.expire(chunk.clone()).await.unwrap() == 0 {
        assert!(calls < 10, "thousands that stay are passed in a few calls");
        calls += 1;
    }
}

/// A key goes once its time has come, and not before.
pub async fn expired_keys_go(subject: Subject) {
    let mut writer = subject.writer().await;
    let of = |n: u8, expires| IdempotencyKey { hash: [n; 32], command: input(1), fingerprint: [0; 32], expires };
    let keys = vec![of(1, OLD), of(2, NOW), of(3, NOW + Duration::from_secs(1))];
    let early = Timestamp::from_millis(NOW.millis() - 10);
    writer.commit_with(|batch| (batch.keys, batch.now) = (keys, early)).await.unwrap();
    assert_eq!(writer.store.expire(expiry(&[])).await.unwrap(), 0, "keys do not count as entries");
    let wanted = Wanted { keys: vec![[1; 32], [2; 32], [3; 32]], ..Wanted::default() };
    let left = writer.store.load(wanted).await.unwrap().keys;
    assert_eq!(left.iter().map(|key| key.hash[0]).collect::<Vec<_>>(), [2, 3]);
}

/// Nothing of what was there is left, and its writers are fenced.
pub async fn a_cleared_database_is_as_a_new_one(subject: Subject) {
    let mut before = subject.writer().await;
    before.store.init_settled(mark("S", 5, "monday")).await.unwrap();
    before.store.put_published(Published::new(before.instance, "S")).await.unwrap();
    let key = || IdempotencyKey { hash: [1; 32], command: input(1), fingerprint: [0; 32], expires: NOW };
    let everything = |batch: &mut Batch| {
        batch.docs = vec![put("a", None, r#"{"owner":"ann"}"#), put_with_wake("b", None, "look", 1)];
        (batch.journal, batch.keys) = (vec![entry(input(1)), old_message(2, "S", 6)], vec![key()]);
    };
    before.commit_with(everything).await.unwrap();
    for _ in 0..2 {
        before.store.clear().await.unwrap();
        let wanted = Wanted {
            docs: ["a", "b"].map(super::key).to_vec(),
            journal: [1, 2].map(input).to_vec(),
            keys: vec![[1; 32]],
        };
        let left = before.store.load(wanted).await.unwrap();
        assert_eq!((left.docs, left.journal, left.keys.len()), (vec![], vec![], 0));
        assert_eq!(before.store.settled("S").await.unwrap(), None);
        assert_eq!(before.store.published("S").await.unwrap(), []);
        assert_eq!(before.store.instances().await.unwrap(), []);
        assert_eq!(before.store.due_wakes(&["look"], NOW, 10).await.unwrap(), []);
        assert_eq!(before.store.count_unpublished().await.unwrap(), 0);
    }
    assert_eq!(before.commit(vec![put("a", None, "{}")], vec![]).await, Err(CommitError::Fenced));
    let mut after = subject.writer().await;
    after.commit_with(everything).await.unwrap();
    let query = Selection {
        collection: ACCOUNTS.name,
        filters: vec![("owner", "ann".into())],
        after: None,
        descending: false,
        limit: 10,
    };
    assert_eq!(after.store.find(query).await.unwrap().len(), 1);
}
