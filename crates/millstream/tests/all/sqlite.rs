//! The SQLite store: the conformance suite, and a file that goes away and comes back.

use std::path::PathBuf;
use std::sync::Arc;

use millstream::ids::{Id, Timestamp};
use millstream::store::conformance::Database;
use millstream::store::{Batch, Collection, CommitError, Selection, Store, Wanted, open};

millstream::conformance_suite!(fresh);

fn fresh() -> Database {
    let folder = tempfile::tempdir().unwrap();
    Database::At { url: format!("sqlite://{}/store.db", folder.path().display()), keep: Box::new(folder) }
}

struct Place {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    instance: Id,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&format!("sqlite://{}/data/store.db", folder.path().display())).unwrap();
        store.prepare(&[Collection { name: "accounts", indexed: &[] }]).await.unwrap();
        let instance = Id::random(Timestamp::system());
        store.insert_instance(instance).await.unwrap();
        Self { folder, store, instance }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn commit(&self) -> Result<(), CommitError> {
        let batch = Batch {
            instance: self.instance,
            batch: 1,
            published_through: 0,
            docs: vec![],
            journal: vec![],
            keys: vec![],
            now: Timestamp::system(),
        };
        self.store.commit(batch).await
    }

    async fn version(&self) -> u64 {
        self.store.instances().await.unwrap()[0].version
    }

    /// Everything says that the store is away, and names the file.
    async fn assert_away(&self) {
        let path = self.path("data/store.db").display().to_string();
        let Err(CommitError::Away(error)) = self.commit().await else { panic!("a commit is not away") };
        assert!(error.contains(&path), "{error}");
        let query = Selection { collection: "accounts", filters: vec![], after: None, descending: false, limit: 1 };
        let errors = [
            self.store.ping().await.unwrap_err(),
            self.store.load(Wanted::default()).await.unwrap_err(),
            self.store.find(query).await.unwrap_err(),
            self.store.instances().await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains(&path), "{error}");
        }
    }
}

#[tokio::test]
async fn a_folder_that_was_moved_is_away_until_it_is_back_with_all_that_was_committed() {
    let place = Place::new().await;
    place.commit().await.unwrap();
    std::fs::rename(place.path("data"), place.path("elsewhere")).unwrap();
    place.assert_away().await;
    assert!(!place.path("data").exists(), "nothing is made in its place");
    std::fs::rename(place.path("elsewhere"), place.path("data")).unwrap();
    place.store.ping().await.unwrap();
    place.commit().await.unwrap();
    assert_eq!(place.version().await, 2);
}

#[tokio::test]
async fn a_file_that_was_moved_without_its_log_is_away_until_it_is_back() {
    let place = Place::new().await;
    place.commit().await.unwrap();
    std::fs::rename(place.path("data/store.db"), place.path("elsewhere.db")).unwrap();
    place.assert_away().await;
    std::fs::rename(place.path("elsewhere.db"), place.path("data/store.db")).unwrap();
    place.commit().await.unwrap();
    assert_eq!(place.version().await, 2);
}

#[tokio::test]
async fn another_file_in_its_place_is_away_unless_it_is_a_store() {
    let place = Place::new().await;
    place.commit().await.unwrap();
    std::fs::rename(place.path("data"), place.path("elsewhere")).unwrap();
    std::fs::create_dir(place.path("data")).unwrap();
    for content in ["", "this is no database, and long enough to be seen as none at all"] {
        std::fs::write(place.path("data/store.db"), content.repeat(100)).unwrap();
        place.assert_away().await;
        assert_eq!(std::fs::read_to_string(place.path("data/store.db")).unwrap(), content.repeat(100));
    }
    std::fs::remove_dir_all(place.path("data")).unwrap();
    std::fs::rename(place.path("elsewhere"), place.path("data")).unwrap();
    place.commit().await.unwrap();
    assert_eq!(place.version().await, 2);
}

#[tokio::test]
async fn a_deleted_file_is_away_and_not_made_anew() {
    let place = Place::new().await;
    place.commit().await.unwrap();
    std::fs::remove_dir_all(place.path("data")).unwrap();
    place.assert_away().await;
    assert!(!place.path("data").exists());
}

#[tokio::test]
async fn a_writer_that_holds_the_file_is_busy_and_not_away() {
    let place = Place::new().await;
    let other = rusqlite::Connection::open(place.path("data/store.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(place.commit().await, Err(CommitError::Busy));
    place.store.ping().await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    place.commit().await.unwrap();
}

#[tokio::test]
async fn a_file_of_a_later_release_or_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let later = folder.path().join("later.db");
    rusqlite::Connection::open(&later).unwrap().pragma_update(None, "user_version", 9).unwrap();
    let other = folder.path().join("other.db");
    std::fs::write(&other, "this is no database".repeat(100)).unwrap();
    for (path, expected) in [(later, "version 9"), (other, "not a database")] {
        let Err(error) = open(&path.display().to_string()) else { panic!("{} is opened", path.display()) };
        assert!(
            error.to_string().contains(expected) && error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_url_of_a_store_that_this_build_lacks_is_refused_without_repeating_its_password() {
    let mongo = ["mongodb://user:secret@host/db", "mongodb+srv://user:secret@host/db"];
    let mongo = mongo.into_iter().filter(|_| !cfg!(feature = "mongodb"));
    for url in mongo.chain(["postgres://user:secret@host/db"]) {
        let Err(error) = open(url) else { panic!("{url} is opened") };
        assert!(
            error.to_string().contains("sqlite:///path/to/file.db") && !error.to_string().contains("secret"),
            "{error}"
        );
    }
}
