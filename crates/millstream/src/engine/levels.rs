//! What gauges and health say of the service at this moment. A task of its own: the loop may be waiting for the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::meters::Meters;
use crate::engine::status::Status;
use crate::engine::timing::{Clock, Timing};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);

/// Shows how the service is, again and again.
pub(crate) struct Levels {
    pub(crate) status: Arc<Status>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
}

impl Levels {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { status, meters, clock, timing } = self;
        loop {
            status.see_ready(status.waits(&timing).is_empty(), clock.now());
            let waiting = status.unpublished.load(Ordering::Relaxed).max(status.outbox.queued());
            let missed = status.missed().map_or(0, |(missed, _)| missed);
            let store = status.store_up.load(Ordering::Acquire);
            meters.levels(status.broker_up(), store, waiting, status.outbox.oldest(), missed);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}
