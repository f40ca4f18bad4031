//! Supervision: a task that ends before the service is stopped takes the service with it, which would otherwise stay ready and be
//! deaf.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::unit::panic_text;

/// How a task ended that should have run until the service stops.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskEnd {
    /// With a panic, whose message this is.
    Panicked(String),
    /// It returned.
    Returned,
}

impl fmt::Display for TaskEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Returned => f.write_str("ended unexpectedly"),
        }
    }
}

/// Watches the tasks of a service, and stops the service when one fails.
#[derive(Clone)]
pub(crate) struct Supervisor(Arc<Inner>);

struct Inner {
    #[cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "it is part of the names of failpoints"))]
    service: &'static str,
    stop: CancellationToken,
    /// The first task that failed: the later ones may have failed because of it.
    failed: OnceLock<(String, TaskEnd)>,
}

impl Supervisor {
    pub(crate) fn new(service: &'static str) -> Self {
        Self(Arc::new(Inner { service, stop: CancellationToken::new(), failed: OnceLock::new() }))
    }

    /// Stops every task of the service.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// The task that has ended the service, if one has.
    pub(crate) fn failed(&self) -> Option<(String, TaskEnd)> {
        self.0.failed.get().cloned()
    }

    /// Runs a task that is to go on until the service stops; `None` if it panicked.
    pub(crate) async fn watch<T>(self, task: impl Into<String>, run: impl Future<Output = T>) -> Option<T> {
        let task = task.into();
        #[cfg(feature = "failpoints")]
        let struck = failpoint::struck(format!("task {task} of {}", self.0.service));
        let run = async {
            #[cfg(feature = "failpoints")]
            return tokio::select! {
                biased;
                ended = run => Some(ended),
                () = struck => None,
            };
            #[cfg(not(feature = "failpoints"))]
            Some(run.await)
        };
        match AssertUnwindSafe(run).catch_unwind().await {
            Ok(ended) => {
                if !self.0.stop.is_cancelled() {
                    self.fail(task, TaskEnd::Returned);
                }
                ended
            }
            Err(panic) => {
                self.fail(task, TaskEnd::Panicked(panic_text(&*panic)));
                None
            }
        }
    }

    /// Spawns a watched task, which is aborted when `tasks` is dropped.
    pub(crate) fn spawn(
        &self,
        tasks: &mut JoinSet<()>,
        task: impl Into<String>,
        run: impl Future<Output = ()> + Send + 'static,
    ) {
        let watched = self.clone().watch(task.into(), run);
        tasks.spawn(watched.map(|_| ()).in_current_span());
    }

    fn fail(&self, task: String, end: TaskEnd) {
        tracing::error!(task, %end, "a task failed; stopping the service");
        // Only the first is kept.
        let _ = self.0.failed.set((task, end));
        self.0.stop.cancel();
    }
}

#[cfg(feature = "failpoints")]
mod failpoint {
    use std::time::Duration;

    /// Panics or returns when a test asks for it at the failpoint of that name.
    pub(super) async fn struck(name: String) {
        loop {
            fail::fail_point!(name.as_str(), |_| ());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn watched(supervisor: &Supervisor, run: impl Future<Output = ()>) -> Option<(String, TaskEnd)> {
        supervisor.clone().watch("upkeep", run).await;
        supervisor.failed()
    }

    #[tokio::test]
    async fn a_task_that_ends_before_the_stop_stops_the_service_and_is_named() {
        let supervisor = Supervisor::new("ledger");
        assert_eq!(watched(&supervisor, async {}).await, Some(("upkeep".into(), TaskEnd::Returned)));
        assert!(supervisor.stop().is_cancelled());
    }

    #[tokio::test]
    async fn the_first_panic_is_kept_with_its_message() {
        let supervisor = Supervisor::new("ledger");
        let panicked = Some(("upkeep".into(), TaskEnd::Panicked("boom".into())));
        assert_eq!(watched(&supervisor, async { panic!("boom") }).await, panicked);
        assert_eq!(watched(&supervisor, async { panic!("another") }).await, panicked);
    }

    #[tokio::test]
    async fn a_task_that_ends_after_the_stop_has_not_failed() {
        let supervisor = Supervisor::new("ledger");
        supervisor.stop().cancel();
        assert_eq!(watched(&supervisor, async {}).await, None);
    }
}
