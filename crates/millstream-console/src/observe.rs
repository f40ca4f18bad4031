//! The observer: looks at the broker on and on, for the metrics and for the open tabs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Json;
use axum::extract::{Query, State};
use millstream::http::{Health, Probe};
use millstream::operator::OperatorError;
use millstream::operator::dead::{DeadFilter, DeadLetter};
use millstream::telemetry::metrics::BROKER_CONNECTED;
use millstream::telemetry::{Snapshot, Telemetry};
use serde::Deserialize;

use crate::live::News;
use crate::look::snapshot;
use crate::{Console, metrics};

/// Time between two looks at the broker, and the same while a tab is open.
const PAUSE: Duration = Duration::from_secs(2);
const WATCHED: Duration = Duration::from_secs(1);
/// How long one look may take; a broker that is slower does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which dead letters are asked for; what is not named is not filtered by.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    service: Option<String>,
    event: Option<String>,
    reason: Option<String>,
}

/// The most dead letters in an answer.
const PAGE: usize = 1000;

/// The dead letters as of the last look.
pub(crate) async fn dead_letters(
    State(console): State<Arc<Console>>,
    Query(wanted): Query<Wanted>,
) -> Json<Vec<DeadLetter>> {
    let Wanted { service, event, reason } = wanted;
    let wanted = DeadFilter { service, event, reason, ..DeadFilter::default() };
    let letters = console.letters.lock().await;
    Json(letters.list(&wanted).into_iter().take(PAGE).cloned().collect())
}

/// Whether the last look at the broker was answered.
pub(crate) struct Sees(pub(crate) Arc<AtomicBool>);

impl Probe for Sees {
    fn health(&self) -> Health {
        let broker = self.0.load(Ordering::Acquire);
        // It keeps no data.
        Health { database: true, broker, ..Health::default() }
    }
}

/// Looks until the process ends.
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
                    tracing::info!("the broker answers again");
                }
                telemetry.show(&snapshot);
            }
            Err(error) => {
                console.hub.trouble(&error);
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error, "the broker cannot be looked at; trying on");
                }
                // What was seen last is no news any more.
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

/// One look, for the metrics and for the tabs.
async fn look(console: &Console, news: &mut News) -> Result<Snapshot, OperatorError> {
    let status = console.operator.status().await?;
    let mut letters = console.letters.lock().await;
    letters.update(&console.operator).await?;
    news.tell(&letters, &console.hub);
    console.hub.look(&status);
    Ok(snapshot(status, &letters))
}
