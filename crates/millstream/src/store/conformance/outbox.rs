//! Instance rows, the fence, and what is unpublished.

use super::{NOW, Subject, Writer, entry, input, put};
use crate::store::{CommitError, Entry, Instance, Mark, Published};

async fn row(writer: &Writer) -> Option<Instance> {
    writer.store.instances().await.unwrap().into_iter().find(|row| row.id == writer.instance)
}

/// The owner of a row that was swept does not get another change in under that id.
pub async fn a_commit_without_its_instance_row_is_fenced(subject: Subject) {
    let mut writer = subject.writer().await;
    writer.commit(vec![put("a", None, "{}")], vec![entry(input(1))]).await.unwrap();
    assert!(writer.store.delete_instance(writer.instance, 1).await.unwrap());
    let fenced = writer.commit(vec![put("a", Some(1), "{}")], vec![entry(input(2))]).await;
    assert_eq!(fenced, Err(CommitError::Fenced));
    assert_eq!(writer.doc("a").await.unwrap().version, 1);
    assert_eq!(writer.entry(input(2)).await, None);
    assert_eq!(row(&writer).await, None, "and the row stays away");
}

/// Every commit shows that the owner lives, an empty one too.
pub async fn a_commit_raises_the_version_of_its_row_and_never_lowers_the_watermark(subject: Subject) {
    let (mut writer, bystander) = (subject.writer().await, subject.writer().await);
    let fresh = |writer: &Writer| Some(Instance { id: writer.instance, version: 0, published_through: 0 });
    assert_eq!(row(&writer).await, fresh(&writer));
    for (version, published, expected) in [(1, 5, 5), (2, 3, 5), (3, 8, 8)] {
        writer.commit_with(|batch| batch.published_through = published).await.unwrap();
        let expected = Instance { id: writer.instance, version, published_through: expected };
        assert_eq!(row(&writer).await, Some(expected));
    }
    assert_eq!(row(&bystander).await, fresh(&bystander));
}

/// A sweep that read an older version does not delete the row of an owner that lives.
pub async fn an_instance_row_is_deleted_only_under_its_version(subject: Subject) {
    let mut writer = subject.writer().await;
    writer.commit(vec![], vec![]).await.unwrap();
    for wrong in [0, 2] {
        assert!(!writer.store.delete_instance(writer.instance, wrong).await.unwrap());
    }
    writer.commit(vec![], vec![]).await.unwrap();
    assert!(writer.store.delete_instance(writer.instance, 2).await.unwrap());
    assert!(!writer.store.delete_instance(writer.instance, 2).await.unwrap(), "there is nothing left to delete");
}

/// Only what emitted something, of one instance, above a watermark, and no more than asked for.
pub async fn unpublished_entries_come_in_order_of_batch(subject: Subject) {
    let (mut writer, mut other) = (subject.writer().await, subject.writer().await);
    // The ids run against the order of the batches.
    for n in [9, 7, 5, 3] {
        let silent = Entry { emitted: "".into(), ..entry(input(n + 1)) };
        writer.commit(vec![], vec![entry(input(n)), silent]).await.unwrap();
    }
    other.commit(vec![], vec![entry(input(20))]).await.unwrap();
    let unpublished = async |after, limit| {
        let entries = writer.store.unpublished(writer.instance, after, limit).await.unwrap();
        entries.into_iter().map(|entry| (entry.batch, entry.id)).collect::<Vec<_>>()
    };
    assert_eq!(unpublished(0, 100).await, [(1, input(9)), (2, input(7)), (3, input(5)), (4, input(3))]);
    assert_eq!(unpublished(2, 100).await, [(3, input(5)), (4, input(3))]);
    assert_eq!(unpublished(0, 3).await, [(1, input(9)), (2, input(7)), (3, input(5))]);
    assert_eq!(unpublished(4, 100).await, []);
    let whole = &writer.store.unpublished(writer.instance, 3, 1).await.unwrap()[0];
    assert_eq!(*whole, writer.entry(input(3)).await.unwrap());
}

/// An entry that is committed again leaves the outbox of the one before.
pub async fn an_entry_belongs_to_the_batch_of_its_last_commit(subject: Subject) {
    let (mut first, mut second) = (subject.writer().await, subject.writer().await);
    first.commit(vec![], vec![entry(input(1)), entry(input(2))]).await.unwrap();
    let again = Entry { version: 2, emitted: "other".into(), ..entry(input(1)) };
    let silenced = Entry { version: 2, emitted: "".into(), ..entry(input(2)) };
    second.commit(vec![], vec![again, silenced]).await.unwrap();
    assert_eq!(first.store.unpublished(first.instance, 0, 10).await.unwrap(), []);
    let moved = second.store.unpublished(second.instance, 0, 10).await.unwrap();
    assert_eq!(moved.iter().map(|entry| (entry.id, &*entry.emitted)).collect::<Vec<_>>(), [(input(1), &b"other"[..])]);
}

/// They need no row, and outlive one.
pub async fn marks_of_instances_for_streams_are_kept_apart_and_replaced(subject: Subject) {
    let (store, other) = (subject.store().await, subject.store().await);
    let record = |n, stream: &str, seqs: &[u64]| {
        let mark = |seq: &u64| Mark { batch: seq / 2, seq: *seq, id: format!("m{seq}"), stored: None, at: NOW };
        Published { marks: seqs.iter().map(mark).collect(), ..Published::new(input(n), stream) }
    };
    assert_eq!(store.published("S").await.unwrap(), []);
    let (first, second) = (record(1, "S", &[7, u64::MAX >> 1]), record(2, "S", &[]));
    for record in [&second, &first, &record(1, "T", &[1])] {
        store.put_published(record.clone()).await.unwrap();
    }
    assert_eq!(other.published("S").await.unwrap(), [first.clone(), second]);
    let later = record(2, "S", &[3]);
    other.put_published(later.clone()).await.unwrap();
    assert_eq!(store.published("S").await.unwrap(), [first, later.clone()]);
    for _ in 0..2 {
        store.forget_published(input(1), "S").await.unwrap();
        assert_eq!(store.published("S").await.unwrap(), std::slice::from_ref(&later));
    }
    assert_eq!(store.published("T").await.unwrap(), [record(1, "T", &[1])]);
}

/// A missing row says that all of its entries are published.
pub async fn only_entries_above_the_watermarks_of_rows_there_are_count_as_unpublished(subject: Subject) {
    let (mut one, mut other) = (subject.writer().await, subject.writer().await);
    for n in [1, 3, 5] {
        let silent = Entry { emitted: "".into(), ..entry(input(n + 1)) };
        one.commit(vec![], vec![entry(input(n)), silent]).await.unwrap();
    }
    other.commit(vec![], vec![entry(input(20)), entry(input(21))]).await.unwrap();
    assert_eq!(one.store.count_unpublished().await.unwrap(), 5);
    one.commit_with(|batch| batch.published_through = 2).await.unwrap();
    assert_eq!(one.store.count_unpublished().await.unwrap(), 3);
    assert!(other.store.delete_instance(other.instance, 1).await.unwrap());
    assert_eq!(one.store.count_unpublished().await.unwrap(), 1);
}
