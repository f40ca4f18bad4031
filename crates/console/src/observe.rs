//! The observer: looks at the broker on and on, for the metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Result;
use async_nats::Client;
use async_nats::jetstream::context::ContextBuilder;
use axum::Json;
use axum::extract::{Query, State};
use millstream::http::{Health, Probe};
use millstream::telemetry::metrics::BROKER_CONNECTED;
use millstream::telemetry::{Snapshot, Telemetry};
use serde::Deserialize;

use crate::letters::Letter;
use crate::look::Observer;
use crate::metrics;

/// Time between two looks at the broker.
const PAUSE: Duration = Duration::from_secs(2);
/// How long one look may take; a broker that is slower does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The dead letters as of the last look.
pub(crate) type Letters = Arc<RwLock<Vec<Letter>>>;

/// Which dead letters are asked for; what is not named is not filtered by.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    service: Option<String>,
    event: Option<String>,
    reason: Option<String>,
}

/// The most dead letters in an answer.
const PAGE: usize = 1000;

pub(crate) async fn dead_letters(State(letters): State<Letters>, Query(wanted): Query<Wanted>) -> Json<Vec<Letter>> {
    let fits = |wanted: &Option<String>, have: &str| wanted.as_ref().is_none_or(|wanted| wanted == have);
    let letters = letters.read().unwrap_or_else(PoisonError::into_inner);
    let fitting = letters.iter().filter(|letter| {
        fits(&wanted.service, &letter.service)
            && fits(&wanted.event, &letter.event)
            && fits(&wanted.reason, &letter.reason)
    });
    Json(fitting.take(PAGE).cloned().collect())
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
pub(crate) async fn look_on(
    client: Client,
    telemetry: Telemetry,
    answers: Arc<AtomicBool>,
    letters: Letters,
) -> Result<()> {
    let jetstream = ContextBuilder::new().timeout(Duration::from_secs(5)).build(client.clone());
    let mut observer = Observer::new(client, jetstream);
    let connected = telemetry.gauge(&BROKER_CONNECTED, &[]);
    let mut told = false;
    loop {
        let looked = match tokio::time::timeout(PATIENCE, observer.look()).await {
            Ok(looked) => looked.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        let found = looked.is_ok();
        match looked {
            Ok(snapshot) => {
                if std::mem::take(&mut told) {
                    tracing::info!("the broker answers again");
                }
                telemetry.show(&snapshot);
                *letters.write().unwrap_or_else(PoisonError::into_inner) = observer.letters();
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error, "the broker cannot be looked at; trying on");
                }
                // What was seen last is no news any more.
                telemetry.show(&Snapshot::new(metrics::OBSERVED));
            }
        }
        answers.store(found, Ordering::Release);
        connected.set(f64::from(u8::from(found)));
        tokio::time::sleep(PAUSE).await;
    }
}
