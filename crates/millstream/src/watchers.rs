//! All who watch a document in this process, and the task that asks the store for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::timing::Timing;
use crate::handler::Key;
use crate::store::{Store, StoreError, StoredDoc, Wanted};

/// Why a document cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// As many as may be are watched already.
    #[error("the limit of {0} concurrent watches is reached: retry later or poll")]
    TooMany(usize),
    /// The service stops.
    #[error("the service is shutting down")]
    Stopping,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
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

    pub(crate) fn register(&self, key: &Key) -> Result<News, WatchError> {
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
                Err(error) => tracing::debug!(%error, "cannot load watched documents"),
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
