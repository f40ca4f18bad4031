//! Watching documents: whoever changes one, this process or another one on the same database, its watchers are told.
//!
//! While anybody watches, one task asks the store every [`Timing::watch_every`](crate::engine::timing::Timing::watch_every) for
//! all watched documents in one query. So neither an event nor a commit costs a query, a change by another replica is seen like
//! one's own, and the broker has no part in it.

use std::marker::PhantomData;

use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::commands::{self, Context};
use crate::handler::{Document, Key};
use crate::store::StoredDoc;
pub use crate::watchers::WatchError;

/// A document as it stands, and its version: raised by one with each commit that changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched<D> {
    /// The version.
    pub version: u64,
    /// The document.
    pub document: D,
}

/// Tells how a document stands, and then each time that it has changed. It ends when the service stops.
///
/// Who is slow, or looks away, gets the latest state and not each one between: nothing is queued.
pub struct Watch<D> {
    /// The latest that is known.
    pub(crate) present: Option<StoredDoc>,
    /// The version that was told last.
    pub(crate) told: u64,
    news: watch::Receiver<Option<StoredDoc>>,
    _place: OwnedSemaphorePermit,
    of: PhantomData<fn() -> D>,
}

impl Context {
    /// Watches a document, from how it stands now on. One that does not exist may be watched until it does.
    ///
    /// # Errors
    /// See [`WatchError`].
    pub async fn watch<D: Document>(&self, id: &str) -> Result<Watch<D>, WatchError> {
        let key = Key { collection: D::COLLECTION, id: id.into() };
        // First the registration, then the look: a change between the two is told.
        let (news, place) = self.0.watchers.register(&key)?;
        let present = self.in_time(self.0.store.get(key)).await?;
        Ok(Watch { present, told: 0, news, _place: place, of: PhantomData })
    }
}

impl<D: Document> Watch<D> {
    /// Whether there is the document.
    pub fn exists(&self) -> bool {
        self.present.is_some()
    }

    /// The document as it stands, the first time; afterwards waits until it has changed. `None`: the service stops, or a newer
    /// release has written what this one cannot read.
    pub async fn next(&mut self) -> Option<Watched<D>> {
        loop {
            // Looks overlap, and an older one may come in last: nobody is told of a state that is gone.
            if let Some(doc) = self.present.as_ref().filter(|doc| doc.version > self.told) {
                self.told = doc.version;
                return match commands::read(doc) {
                    Ok(document) => Some(Watched { version: self.told, document }),
                    Err(error) => {
                        tracing::warn!(%error, id = doc.key.id, "cannot read a watched document");
                        None
                    }
                };
            }
            self.news.changed().await.ok()?;
            self.present.clone_from(&self.news.borrow_and_update());
        }
    }
}
