//! The operator's console: one page that shows a running system and lets a person act on it, and the observer of what only the
//! broker knows. It keeps nothing: all it shows is found at the broker or asked of the services through it, by the functions of
//! [`millstream::operator`] that the command line calls too.
//!
//! * `page.rs` serves the page, which is compiled in and takes nothing from elsewhere;
//! * `live.rs` is what passes now, told to every open tab; `tab.rs` bounds what waits for one of them;
//! * `api.rs` answers what the page asks, `act.rs` does what it is told to;
//! * `guard.rs` keeps other pages and other people's hands off both;
//! * `observe.rs` looks at the broker every second or two, for the tabs and for the metrics; `look.rs` makes series of it, of which
//!   [`metrics`] is the table.
//!
//! | route | |
//! | --- | --- |
//! | `/` | the page |
//! | `/api/…` | what it asks and does |
//! | `/metrics` | what was found at the last look; nothing of the broker while that is away |
//! | `/dead-letters?service=&event=&reason=` | the dead letters that fit and nobody has dealt with, as JSON, the oldest first |
//! | `/readyz`, `/health` | whether the broker answers |
//! | `/livez` | whether the process works |
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
use millstream::config::{Config, NatsUrl};
use millstream::http::{MAX_IN_FLIGHT, shell};
use millstream::operator::Operator;
use millstream::operator::dead::Letters;
use millstream::telemetry::{Snapshot, Telemetry};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tracing::Instrument;

use crate::live::Hub;
use crate::observe::Sees;

mod act;
mod api;
mod guard;
mod live;
mod look;
pub mod metrics;
mod observe;
mod page;
mod tab;

/// Name of the console, to the broker and in logs.
const NAME: &str = "console";

/// What a console is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the broker is.
    pub servers: NatsUrl,
    /// How to connect to it, and as whom.
    pub connect: ConnectOptions,
    /// Whether the page may act, or only look.
    pub allow_actions: bool,
    /// Names under which the console is reached, besides `localhost` and addresses: a page from elsewhere that has its own name
    /// lead here is refused by it.
    pub names: Vec<String>,
    /// What the page offers to try out.
    pub demo: Vec<DemoAction>,
}

impl Settings {
    /// A console that looks at the broker of a service's configuration, and does nothing.
    ///
    /// # Errors
    /// When the credentials cannot be read.
    pub async fn of(config: &Config) -> io::Result<Self> {
        let (servers, connect) = (config.nats_url.clone(), config.connect_options().await?);
        Ok(Self { servers, connect, allow_actions: false, names: vec![], demo: vec![] })
    }
}

/// A button of the page that sends one HTTP request, from the console's process. What it is about is for those to know who offer
/// it.
#[derive(Clone, Debug)]
pub struct DemoAction {
    /// What stands on the button.
    pub label: String,
    /// What will be seen, in a sentence.
    pub hint: String,
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The JSON body, if there is one.
    pub body: Option<Value>,
}

/// What all routes know.
struct Console {
    operator: Operator,
    /// The dead letters as of the last look or question.
    letters: Mutex<Letters>,
    hub: Hub,
    allow_actions: bool,
    names: Vec<String>,
    demo: Vec<DemoAction>,
    /// For the demo's actions.
    http: reqwest::Client,
}

/// Serves the console on `listener` until `shutdown`. It starts before the broker, and waits for it unready.
///
/// # Errors
/// When HTTP cannot be served.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let telemetry = Telemetry::only(NAME, metrics::OWN);
    telemetry.show(&Snapshot::new(metrics::OBSERVED));
    let span = telemetry.span();
    let options = settings.connect.name(NAME).retry_on_initial_connect();
    let options = options.custom_inbox_prefix(millstream::broker::inbox_prefix(NAME));
    let client = options.connect(settings.servers.servers()).await?;
    let console = Arc::new(Console {
        operator: Operator::new(client),
        letters: Mutex::default(),
        hub: Hub::default(),
        allow_actions: settings.allow_actions,
        names: settings.names,
        demo: settings.demo,
        http: reqwest::Client::new(),
    });
    let answers = Arc::new(AtomicBool::new(false));
    let observed = Router::new().route("/dead-letters", get(observe::dead_letters));
    let routes = page::routes().merge(api::routes()).merge(act::routes()).merge(live::routes()).merge(observed);
    let routes = guard::around(routes, &console);
    let router = shell(routes, console.clone(), Arc::new(Sees(answers.clone())), telemetry.clone(), MAX_IN_FLIGHT);
    let looking = observe::look_on(console.clone(), telemetry.clone(), answers).instrument(span.clone());
    let living = live::run(console.clone()).instrument(span);
    let (stop, mut stopped) = watch::channel(());
    let stopped = async move { drop(stopped.changed().await) };
    let listener = listener.tap_io(tab::notice_early);
    let served = tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stopped) => Ok(served?),
        never = looking => never,
        never = living => never,
        () = telemetry.upkeep(shutdown) => {
            drop(stop);
            Ok(())
        }
    };
    // A tab's connection would live on in its own task.
    console.hub.close();
    served
}
