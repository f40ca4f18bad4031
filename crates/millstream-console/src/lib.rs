//! The operator's console: a web page to watch and operate a running system, and an observer that exports metrics only the
//! broker can provide. It stores nothing: everything is read from the broker or queried from the services, with the functions of
//! [`millstream::operator`] that the command line uses too.
//!
//! * `page.rs` serves the page, which is compiled in and loads nothing from other hosts;
//! * `live.rs` sends live updates to every open tab; `tab.rs` bounds the queue of each;
//! * `api.rs` and `browse.rs` answer the page's queries, `act.rs` performs its actions;
//! * `guard.rs` protects both from other origins, and `lock.rs` the actions from whoever has not the key;
//! * `observe.rs` polls the broker every second or two, for the tabs and for the metrics; `look.rs` turns the result into series, and
//!   [`metrics`] is their table.
//!
//! | route | |
//! | --- | --- |
//! | `/` | the page |
//! | `/api/…` | the page's queries and actions |
//! | `/runbook` | the application's runbook, with an anchor at each heading |
//! | `/api/verdict` | whether all is well, in one sentence, and everything that is wrong |
//! | `/metrics` | the result of the last poll; no series of the broker while it is unavailable |
//! | `/dead-letters?service=&event=&reason=` | matching unresolved dead letters as JSON, oldest first |
//! | `/readyz`, `/health` | whether the broker answers |
//! | `/livez` | whether the process is alive |
#![warn(missing_docs)]

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use async_nats::ConnectOptions;
use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use millstream::api_keys::HashedKey;
use millstream::config::{Config, NatsUrl};
use millstream::http::{MAX_IN_FLIGHT, serve as serve_http, shell};
use millstream::operator::Operator;
use millstream::operator::dead::Letters;
use millstream::telemetry::{Snapshot, Telemetry};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tracing::Instrument;

use crate::live::Hub;
use crate::lock::Acting;
use crate::observe::Sees;

mod act;
mod api;
mod browse;
mod guard;
mod live;
mod lock;
mod look;
pub mod metrics;
mod observe;
mod page;
mod runbook;
mod tab;

/// Name of the console, to the broker and in logs.
const NAME: &str = "console";

/// Settings of a console.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses of the broker.
    pub servers: NatsUrl,
    /// Connection options and credentials.
    pub connect: ConnectOptions,
    /// Whether the page may act; otherwise it is read-only.
    pub actions: Actions,
    /// The key that actions need. Reading needs none.
    pub key: Option<HashedKey>,
    /// Host names of the console, besides `localhost` and IP addresses. Requests under any other name are refused, which
    /// prevents DNS rebinding.
    pub names: Vec<String>,
    /// Demo actions that the page offers.
    pub demo: Vec<DemoAction>,
    /// The application's runbook in Markdown, served at `/runbook`. The sections have the names of alerts.
    pub runbook: Option<String>,
}

impl Settings {
    /// A read-only console for the broker of a service's configuration.
    ///
    /// # Errors
    /// When the credentials cannot be read.
    pub async fn of(config: &Config) -> io::Result<Self> {
        let (servers, connect) = (config.nats_url.clone(), config.connect_options().await?);
        Ok(Self { servers, connect, actions: Actions::No, key: None, names: vec![], demo: vec![], runbook: None })
    }
}

/// Whether the page may act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Actions {
    /// It is read-only.
    #[default]
    No,
    /// It may, with the key if there is one; without one only where nobody else can reach it: on a loopback address.
    Yes,
    /// It may, and if there is no key, for whoever can reach it: for a demo.
    ByAnyone,
}

/// A button of the page that sends one HTTP request from the console's process. Its meaning is up to the application that
/// offers it.
#[derive(Clone, Debug)]
pub struct DemoAction {
    /// The label of the button.
    pub label: String,
    /// What to expect, in one sentence.
    pub hint: String,
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The JSON body, if any.
    pub body: Option<Value>,
}

/// State shared by all routes.
struct Console {
    operator: Operator,
    /// The dead letters as of the last poll or query.
    letters: Mutex<Letters>,
    hub: Hub,
    acting: Acting,
    names: Vec<String>,
    demo: Vec<DemoAction>,
    runbook: Option<String>,
    /// For the demo's actions.
    http: reqwest::Client,
}

/// A client for the demo's actions, which are about this system: a proxy of the environment is for other hosts.
fn direct() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().build()
}

/// Serves the console on `listener` until `shutdown`. It may start before the broker, and is not ready until that is available.
///
/// # Errors
/// When HTTP cannot be served.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let acting = Acting::of(settings.actions, settings.key, listener.local_addr()?.ip());
    let telemetry = Telemetry::only(NAME, metrics::OWN);
    telemetry.show(&Snapshot::new(metrics::OBSERVED));
    let span = telemetry.span();
    span.in_scope(|| acting.tell());
    let options = settings.connect.name(NAME).retry_on_initial_connect();
    let options = options.custom_inbox_prefix(millstream::broker::inbox_prefix(NAME));
    let client = options.connect(settings.servers.servers()).await?;
    let console = Arc::new(Console {
        operator: Operator::new(client),
        letters: Mutex::default(),
        hub: Hub::default(),
        acting,
        names: settings.names,
        demo: settings.demo,
        runbook: settings.runbook,
        http: direct()?,
    });
    let answers = Arc::new(AtomicBool::new(false));
    let observed = Router::new().route("/dead-letters", get(observe::dead_letters));
    let observed = observed.route("/api/verdict", get(observe::verdict));
    let routes = page::routes()
        .merge(api::routes())
        .merge(browse::routes())
        .merge(runbook::routes())
        .merge(act::routes())
        .merge(lock::routes())
        .merge(live::routes())
        .merge(observed);
    let routes = guard::around(routes, &console);
    let router = shell(routes, console.clone(), Arc::new(Sees(answers.clone())), telemetry.clone(), MAX_IN_FLIGHT);
    let looking = observe::look_on(console.clone(), telemetry.clone(), answers).instrument(span.clone());
    let living = live::run(console.clone()).instrument(span);
    let (stop, mut stopped) = watch::channel(());
    let stopped = async move { drop(stopped.changed().await) };
    let listener = listener.tap_io(tab::notice_early);
    let served = tokio::select! {
        served = serve_http(listener, router, stopped) => Ok(served?),
        never = looking => never,
        never = living => never,
        () = telemetry.upkeep(shutdown) => {
            drop(stop);
            Ok(())
        }
    };
    // A tab's connection would otherwise outlive the server in its own task.
    console.hub.close();
    served
}
