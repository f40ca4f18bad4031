//! The observer: polls the broker for the metrics and for the open tabs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Json;
use axum::extract::{Query, State};
use millstream::Timestamp;
use millstream::http::{Health, Probe};
use millstream::operator::OperatorError;
use millstream::operator::dead::{DeadFilter, DeadLetter};
use millstream::operator::verdict::Verdict;
use millstream::telemetry::metrics::BROKER_CONNECTED;
use millstream::telemetry::{Snapshot, Telemetry};
use serde::Deserialize;

use crate::live::News;
use crate::look::snapshot;
use crate::{Console, metrics};

/// Polling interval, and the shorter one while a tab is open.
const PAUSE: Duration = Duration::from_secs(4);
const WATCHED: Duration = Duration::from_secs(1);
/// Time limit for one poll; a slower broker counts as unavailable.
const PATIENCE: Duration = Duration::from_secs(10);

/// Selects dead letters; fields that are left out match everything.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    service: Option<String>,
    event: Option<String>,
    reason: Option<String>,
}

/// Maximum number of dead letters in an answer.
const PAGE: usize = 1000;

/// After so long a verdict no longer counts.
const OUTDATED: Duration = Duration::from_secs(15);

/// The verdict as of the last poll.
pub(crate) async fn verdict(State(console): State<Arc<Console>>) -> Json<Verdict> {
    let (judged, verdict) = console.hub.verdict();
    let age = judged.elapsed();
    Json(verdict.filter(|_| age < OUTDATED).unwrap_or_else(|| Verdict::outdated(age)))
}

/// The dead letters as of the last poll.
pub(crate) async fn dead_letters(
    State(console): State<Arc<Console>>,
    Query(wanted): Query<Wanted>,
) -> Json<Vec<DeadLetter>> {
    let Wanted { service, event, reason } = wanted;
    let wanted = DeadFilter { service, event, reason, ..DeadFilter::default() };
    let letters = console.letters.lock().await;
    Json(letters.list(&wanted).into_iter().take(PAGE).cloned().collect())
}

/// Whether the last poll of the broker succeeded.
pub(crate) struct Sees(pub(crate) Arc<AtomicBool>);

impl Probe for Sees {
    fn health(&self) -> Health {
        let broker = self.0.load(Ordering::Acquire);
        // It has no store.
        Health { database: true, broker, ..Health::default() }
    }
}

/// Polls until the process ends.
pub(crate) async fn look_on(console: Arc<Console>, telemetry: Telemetry, answers: Arc<AtomicBool>) -> Result<()> {
    let connected = telemetry.gauge(&BROKER_CONNECTED, &[]);
    let (mut told, mut news) = (false, News::default());
    loop {
        let looked = match tokio::time::timeout(PATIENCE, look(&console, &mut news)).await {
            Ok(looked) => looked.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let found = looked.is_ok();
        match looked {
            Ok(snapshot) => {
                if std::mem::take(&mut told) {
                    tracing::info!("broker available again");
                }
                telemetry.show(&snapshot);
            }
            Err(error) => {
                console.hub.trouble(&error);
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error, "cannot poll the broker; retrying");
                }
                // The last result is outdated.
                telemetry.show(&Snapshot::new(metrics::OBSERVED));
            }
        }
        answers.store(found, Ordering::Release);
        connected.set(f64::from(u8::from(found)));
        let watched = console.hub.watched();
        tokio::select! {
            () = tokio::time::sleep(if watched { WATCHED } else { PAUSE }) => {}
            () = console.hub.watcher(), if !watched => {}
        }
    }
}

/// One poll, for the metrics and for the tabs.
async fn look(console: &Console, news: &mut News) -> Result<Snapshot, OperatorError> {
    let mut letters = console.letters.lock().await;
    let examined = console.operator.examine(&mut letters).await;
    let mut seen = examined.inspect_err(|error| console.hub.judge(Verdict::blind(&error.to_string())))?;
    let now = Timestamp::system();
    if let Ok(told) = &mut seen.told {
        told.iter().for_each(|told| console.hub.hear(told.clone(), now.since(told.at)));
        // What was heard before and is not said any more is outdated in time, and does not hold the less.
        *told = console.hub.told();
    }
    console.hub.judge(seen.verdict(now));
    seen.letters.as_ref().map_err(|why| OperatorError::Away(why.clone()))?;
    news.tell(&letters, &console.hub);
    console.hub.look(&seen.status);
    Ok(snapshot(seen.status, &letters))
}
