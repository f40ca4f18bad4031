//! What every adapter of the store port must do, as a suite of tests. An adapter's test file is its constructor:
//!
//! ```text
//! millstream::conformance_suite!(fresh);
//!
//! fn fresh() -> Database {
//!     let folder = tempfile::tempdir().unwrap();
//!     Database::At { url: format!("sqlite://{}/store.db", folder.path().display()), keep: Box::new(folder) }
//! }
//! ```
//!
//! A store that lives in one process is made by `fresh() -> Database` too, as [`Database::InProcess`], and its suite is
//! `conformance_suite!(fresh, in_process)`.
#![allow(clippy::unwrap_used, reason = "these are tests, only shared by adapters")]

mod expiry;
mod guards;
mod journal;
mod outbox;
mod processes;
mod queries;
mod values;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

pub use self::expiry::*;
pub use self::guards::*;
pub use self::journal::*;
pub use self::outbox::*;
pub use self::processes::*;
pub use self::queries::*;
pub use self::values::*;
use super::{Batch, Collection, CommitError, DocWrite, Entry, NewDoc, State, Store, StoredDoc, Wanted};
use crate::handler::{Key, Wake};
use crate::ids::{Id, Timestamp};

/// Turns each check of the suite into a test of its own, each on a database of its own that `$fresh() -> Database` makes, or
/// `$fresh() -> Option<Database>` where there may be no server for one.
///
/// With `in_process` the checks that need several processes on one database are left out: nobody has checked then what is there
/// after a kill, or that two processes see what the other does.
#[macro_export]
macro_rules! conformance_suite {
    ($fresh:path) => {
        $crate::conformance_suite! { $fresh, in_process }
        $crate::conformance_suite! { @tests $fresh:
            what_was_committed_before_a_kill_is_there_after_it,
            two_processes_share_a_database,
        }

        /// Not a check: what a check of processes runs in the processes that it starts.
        #[test]
        fn a_child_process() {
            $crate::store::conformance::child();
        }
    };
    ($fresh:path, in_process) => {
        $crate::conformance_suite! { @tests $fresh:
            a_document_is_created_once,
            a_document_is_changed_only_under_its_version,
            a_guarded_read_is_refused_once_the_document_has_changed,
            a_guarded_read_leaves_the_document_as_it_is,
            a_batch_is_all_or_nothing_whichever_part_is_refused,
            two_writers_never_overdraw_two_accounts,
            what_is_not_there_is_left_out_of_a_load,
            an_entry_comes_back_as_it_was_written,
            a_second_entry_for_an_id_is_a_duplicate_whatever_its_state,
            an_entry_is_changed_only_under_its_version,
            a_key_stands_for_its_first_command_until_it_expires,
            a_commit_without_its_instance_row_is_fenced,
            a_commit_raises_the_version_of_its_row_and_never_lowers_the_watermark,
            an_instance_row_is_deleted_only_under_its_version,
            unpublished_entries_come_in_order_of_batch,
            an_entry_belongs_to_the_batch_of_its_last_commit,
            only_entries_above_the_watermarks_of_rows_there_are_count_as_unpublished,
            marks_of_instances_for_streams_are_kept_apart_and_replaced,
            a_query_filters_by_fields_and_pages_both_ways,
            due_wakes_come_earliest_first_and_only_of_the_kinds_asked_for,
            a_wake_that_was_moved_or_cleared_is_no_longer_due,
            due_wakes_are_counted_by_kind,
            a_mark_is_set_once_for_a_stream_and_anew_for_another_of_its_name,
            a_mark_is_moved_only_from_where_it_was_read,
            an_entry_stays_while_its_durable_is_in_a_time_before_it,
            only_entries_that_are_done_and_old_expire,
            only_published_entries_expire,
            only_entries_of_acked_messages_expire,
            the_floor_of_a_stream_lets_no_entry_go_under_the_mark_of_another_of_its_name,
            expiry_raises_the_mark_to_the_highest_sequence_that_went,
            entries_that_stay_do_not_keep_later_ones_from_expiring,
            expired_keys_go,
            a_cleared_database_is_as_a_new_one,
            odd_ids_and_texts_come_back_as_they_went_in,
            a_document_comes_back_digit_by_digit,
            large_values_come_back_whole,
            concurrent_writers_lose_no_change,
        }
    };
    (@tests $fresh:path: $($check:ident),* $(,)?) => {
        $(
            #[test]
            fn $check() {
                let child = concat!(module_path!(), "::a_child_process");
                $crate::store::conformance::run($fresh(), child, $crate::store::conformance::$check);
            }
        )*
    };
}

/// An empty database.
pub enum Database {
    /// One that any process can open.
    At {
        /// Where it is, for [`open`](super::open).
        url: String,
        /// What must live as long as it.
        keep: Box<dyn Any + Send + Sync>,
    },
    /// One of this process alone.
    InProcess(Arc<dyn Store>),
}

/// A database under test.
pub struct Subject {
    database: Database,
    /// The test that a child process runs.
    child: &'static str,
}

/// Runs one check; what [`conformance_suite!`](crate::conformance_suite) calls.
///
/// `database` is a [`Database`], or `None` if the machine has no server for one; then somebody has said so already.
pub fn run<F: Future<Output = ()>>(
    database: impl Into<Option<Database>>,
    child: &'static str,
    check: impl FnOnce(Subject) -> F,
) {
    let Some(database) = database.into() else { return };
    runtime().block_on(check(Subject { database, child }));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The collection that the checks use.
const ACCOUNTS: Collection = Collection { name: "accounts", indexed: &["owner", "city", "home.city"] };

/// Some time, and the time of every commit that does not say another.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

async fn prepared(store: Arc<dyn Store>) -> Arc<dyn Store> {
    store.prepare(&[ACCOUNTS]).await.unwrap();
    store
}

impl Subject {
    /// A store of its own on the database, as another replica has; of a database in one process the one that there is.
    async fn store(&self) -> Arc<dyn Store> {
        let store = match &self.database {
            Database::At { url, .. } => super::open(url).unwrap(),
            Database::InProcess(store) => store.clone(),
        };
        prepared(store).await
    }

    async fn writer(&self) -> Writer {
        Writer::new(self.store().await).await
    }
}

/// An instance with its row, which counts its batches.
struct Writer {
    store: Arc<dyn Store>,
    instance: Id,
    next: u64,
}

impl Writer {
    async fn new(store: Arc<dyn Store>) -> Self {
        let instance = Id::random(Timestamp::system());
        store.insert_instance(instance).await.unwrap();
        Self { store, instance, next: 1 }
    }

    async fn commit(&mut self, docs: Vec<DocWrite>, journal: Vec<Entry>) -> Result<(), CommitError> {
        self.commit_with(|batch| (batch.docs, batch.journal) = (docs, journal)).await
    }

    async fn commit_with(&mut self, change: impl FnOnce(&mut Batch)) -> Result<(), CommitError> {
        let mut batch = Batch {
            instance: self.instance,
            batch: self.next,
            published_through: 0,
            docs: vec![],
            journal: vec![],
            keys: vec![],
            now: NOW,
        };
        change(&mut batch);
        for entry in &mut batch.journal {
            (entry.instance, entry.batch) = (batch.instance, batch.batch);
        }
        self.store.commit(batch).await?;
        self.next += 1;
        Ok(())
    }

    async fn doc(&self, id: &str) -> Option<StoredDoc> {
        let wanted = Wanted { docs: vec![key(id)], ..Wanted::default() };
        self.store.load(wanted).await.unwrap().docs.pop()
    }

    async fn entry(&self, id: Id) -> Option<Entry> {
        let wanted = Wanted { journal: vec![id], ..Wanted::default() };
        self.store.load(wanted).await.unwrap().journal.pop()
    }
}

fn key(id: &str) -> Key {
    Key { collection: ACCOUNTS.name, id: id.into() }
}

fn put(id: &str, expected: Option<u64>, body: impl Into<Bytes>) -> DocWrite {
    DocWrite { key: key(id), expected, write: Some(NewDoc { shape: 1, body: body.into(), wake: None }) }
}

fn put_with_wake(id: &str, expected: Option<u64>, kind: &str, at: u64) -> DocWrite {
    let wake = Wake {
        kind: kind.into(),
        opened: NOW,
        at: Timestamp::from_millis(at),
        attempt: 2,
        lease: Some(Timestamp::from_millis(5)),
        generation: 3,
        cause: input(1),
        correlation: "c\"1".into(),
        traceparent: Some("00-1-2-01".into()),
    };
    DocWrite { key: key(id), expected, write: Some(NewDoc { shape: 1, body: "{}".into(), wake: Some(wake) }) }
}

fn guard(id: &str, expected: u64) -> DocWrite {
    DocWrite { key: key(id), expected: Some(expected), write: None }
}

/// The id of the `n`-th input.
fn input(n: u64) -> Id {
    Id::derived(Timestamp::from_millis(1_700_000_000_000 + n), "conformance", &n.to_be_bytes(), 0)
}

/// The entry of an input that was handled and emitted something; its instance and batch are those of the commit.
fn entry(id: Id) -> Entry {
    Entry {
        id,
        version: 1,
        state: State::Done,
        attempts: 0,
        started: 0,
        redrives: 0,
        error: None,
        first_failure: None,
        last_failure: None,
        emitted: "emitted".into(),
        reply: None,
        instance: id,
        batch: 0,
        stream: String::new(),
        seq: 0,
        at: NOW,
    }
}
