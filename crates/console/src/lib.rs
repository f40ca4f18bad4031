//! The observer: metrics of what only the broker knows, and no service can tell once it is gone: how far consumers are behind,
//! what lies in the dead letter streams, how full streams are, which instances are there. One of it is enough for a system.
//!
//! * [`metrics`] is the table of what it shows;
//! * `look.rs` looks at the broker, every two seconds.
//!
//! | route | |
//! | --- | --- |
//! | `/metrics` | what was found at the last look; nothing of the broker while that is away |
//! | `/dead-letters?service=&event=&reason=` | the dead letters that fit and nobody has dealt with, as JSON, the oldest first |
//! | `/readyz`, `/health` | whether the broker answers |
//! | `/livez` | whether the process works |
#![warn(missing_docs)]

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Result;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use millstream::config::Config;
use millstream::http::{Health, MAX_IN_FLIGHT, Probe, shell};
use millstream::operator::dead::{DeadFilter, DeadLetter};
use millstream::telemetry::metrics::BROKER_CONNECTED;
use millstream::telemetry::{Snapshot, Telemetry};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::Instrument;

use crate::look::Observer;

mod look;
pub mod metrics;

/// Name of the observer, to the broker and in logs.
const NAME: &str = "console";
/// Time between two looks at the broker.
const PAUSE: Duration = Duration::from_secs(2);
/// How long one look may take; a broker that is slower does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the broker that `config` names, and serves what it finds on `listener` until `shutdown`. It starts before the
/// broker, and waits for it unready.
///
/// # Errors
/// When the credentials cannot be read, or HTTP cannot be served.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let telemetry = Telemetry::only(NAME, metrics::OWN);
    telemetry.show(&Snapshot::new(metrics::OBSERVED));
    let span = telemetry.span();
    let answers = Arc::new(AtomicBool::new(false));
    let letters = Letters::default();
    let routes = Router::new().route("/dead-letters", get(dead_letters));
    let router = shell(routes, letters.clone(), Arc::new(Sees(answers.clone())), telemetry.clone(), MAX_IN_FLIGHT);
    let looking = look_on(config, telemetry.clone(), answers, letters).instrument(span);
    let (stop, mut stopped) = watch::channel(());
    let stopped = async move { drop(stopped.changed().await) };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stopped) => Ok(served?),
        error = looking => error,
        () = telemetry.upkeep(shutdown) => {
            drop(stop);
            Ok(())
        }
    }
}

/// The dead letters as of the last look.
type Letters = Arc<RwLock<Vec<DeadLetter>>>;

/// Which dead letters are asked for; what is not named is not filtered by.
#[derive(Deserialize)]
struct Wanted {
    service: Option<String>,
    event: Option<String>,
    reason: Option<String>,
}

/// The most dead letters in an answer.
const PAGE: usize = 1000;

async fn dead_letters(State(letters): State<Letters>, Query(wanted): Query<Wanted>) -> Json<Vec<DeadLetter>> {
    let Wanted { service, event, reason } = wanted;
    let wanted = DeadFilter { service, event, reason, ..DeadFilter::default() };
    let letters = letters.read().unwrap_or_else(PoisonError::into_inner);
    let fitting = letters.iter().filter(|letter| wanted.fits(letter));
    Json(fitting.take(PAGE).cloned().collect())
}

/// Whether the last look at the broker was answered.
struct Sees(Arc<AtomicBool>);

impl Probe for Sees {
    fn health(&self) -> Health {
        let broker = self.0.load(Ordering::Acquire);
        // It keeps no data.
        Health { database: true, broker, ..Health::default() }
    }
}

/// Looks until the process ends.
async fn look_on(config: Config, telemetry: Telemetry, answers: Arc<AtomicBool>, letters: Letters) -> Result<()> {
    let options = config.connect_options().await?.name(NAME).retry_on_initial_connect();
    let options = options.custom_inbox_prefix(millstream::broker::inbox_prefix(NAME));
    let client = options.connect(config.nats_url.servers()).await?;
    let mut observer = Observer::new(client);
    let connected = telemetry.gauge(&BROKER_CONNECTED, &[]);
    let (mut told, mut changes) = (false, 0);
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
                if let Some(now) = observer.letters(&mut changes) {
                    *letters.write().unwrap_or_else(PoisonError::into_inner) = now;
                }
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
