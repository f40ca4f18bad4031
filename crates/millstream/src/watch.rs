//! Watching documents: whoever changes one, this process or another one on the same database, its watchers are told.
//!
//! While anybody watches, one task asks the store every [`Timing::watch_every`](crate::engine::timing::Timing::watch_every) for
//! all watched documents in one query. So neither an event nor a commit costs a query, a change by another replica is seen like
//! one's own, and the broker has no part in it.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::commands::{self, Context};
use crate::engine::timing::Timing;
use crate::handler::{Document, Key};
use crate::store::{Store, StoreError, StoredDoc, Wanted};

/// A document as it stands, and its version: raised by one with each commit that changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched<D> {
    /// The version.
    pub version: u64,
    /// The document.
    pub document: D,
}

/// Why a document cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// As many as may be are watched already.
    #[error("{0} requests watch a document, which is the limit: try again, or ask for the document from time to time")]
    TooMany(usize),
    /// The service stops.
    #[error("the service is shutting down")]
    Stopping,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
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
                        tracing::warn!(%error, id = doc.key.id, "a watched document cannot be read");
                        None
                    }
                };
            }
            self.news.changed().await.ok()?;
            self.present.clone_from(&self.news.borrow_and_update());
        }
    }
}

/// All who watch in this process.
#[derive(Clone)]
pub(crate) struct Watchers(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    timing: Timing,
    places: Arc<Semaphore>,
    /// Wakes the task that asks the store.
    registered: Notify,
    /// Cancelled when the service stops.
    closed: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watched: HashMap<Key, watch::Sender<Option<StoredDoc>>>,
}

type News = (watch::Receiver<Option<StoredDoc>>, OwnedSemaphorePermit);

impl Watchers {
    pub(crate) fn new(store: Arc<dyn Store>, timing: Timing) -> Self {
        let places = Arc::new(Semaphore::new(timing.watch_limit));
        Self(Arc::new(Inner {
            store,
            timing,
            places,
            registered: Notify::new(),
            closed: CancellationToken::new(),
            state: Mutex::default(),
        }))
    }

    fn register(&self, key: &Key) -> Result<News, WatchError> {
        let inner = &self.0;
        let place = inner.places.clone().try_acquire_owned();
        let place = place.map_err(|_| WatchError::TooMany(inner.timing.watch_limit))?;
        let mut state = inner.state();
        if inner.closed.is_cancelled() {
            return Err(WatchError::Stopping);
        }
        let news = state.watched.entry(key.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe();
        drop(state);
        inner.registered.notify_one();
        Ok((news, place))
    }

    /// Ends all watches, and refuses new ones.
    pub(crate) fn close(&self) {
        let mut state = self.0.state();
        self.0.closed.cancel();
        state.watched.clear();
    }

    /// Asks the store while anybody watches, until the service stops.
    pub(crate) async fn run(self) {
        let inner = &self.0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(inner.timing.watch_every) => {}
                () = inner.closed.cancelled() => return,
            }
            let Some(docs) = inner.wanted() else {
                tokio::select! {
                    () = inner.registered.notified() => continue,
                    () = inner.closed.cancelled() => return,
                }
            };
            // A store that is away takes its time; meanwhile there is nothing to tell.
            let loaded = tokio::select! {
                loaded = inner.store.load(Wanted { docs, ..Wanted::default() }) => loaded,
                () = inner.closed.cancelled() => return,
            };
            match loaded {
                Ok(loaded) => inner.tell(loaded.docs),
                Err(error) => tracing::debug!(%error, "watched documents cannot be looked at now"),
            }
        }
    }
}

impl Inner {
    /// No panic under the lock leaves anything half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is watched, sorted; `None` if nothing is.
    fn wanted(&self) -> Option<Vec<Key>> {
        let mut state = self.state();
        state.watched.retain(|_, news| news.receiver_count() > 0);
        if state.watched.is_empty() {
            return None;
        }
        let mut docs: Vec<Key> = state.watched.keys().cloned().collect();
        docs.sort();
        Some(docs)
    }

    fn tell(&self, docs: Vec<StoredDoc>) {
        let state = self.state();
        for doc in docs {
            if let Some(news) = state.watched.get(&doc.key) {
                news.send_if_modified(|known| {
                    let changed = known.as_ref().is_none_or(|known| known.version != doc.version);
                    if changed {
                        *known = Some(doc);
                    }
                    changed
                });
            }
        }
    }
}
