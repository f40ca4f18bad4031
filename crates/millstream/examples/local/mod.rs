//! What an example is started with in place of `millstream::run(service)`: without `NATS_URL` it brings a broker of its own, and
//! without `STORE_URL` its data is in a temporary folder.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use millstream::Service;
use millstream::config::{Config, NatsUrl, StoreUrl, listen};
use millstream::service::Options;
use millstream::signals::asked_to_stop;
use millstream::telemetry::init_logs;
use nats_embedded::{Server, Setup};
use tokio::task::JoinSet;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    config: Config,
}

/// Runs a service until Ctrl-C. In `try_it` the word HTTP stands for its address.
#[allow(dead_code, reason = "one example runs several")]
pub(crate) async fn run(service: Service, try_it: &str) -> ExitCode {
    run_all(vec![service], try_it).await
}

/// Runs services, or replicas of one, until Ctrl-C. HTTP stands for the first one's address; the others take any free port.
pub(crate) async fn run_all(services: Vec<Service>, try_it: &str) -> ExitCode {
    match start(services, try_it).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn start(services: Vec<Service>, try_it: &str) -> Result<(), Box<dyn Error>> {
    let mut config = Args::parse().config;
    init_logs(&config.logs)?;
    let folder = tempfile::Builder::new().prefix("millstream-").tempdir()?;
    let elsewhere = env::args().any(|arg| arg.starts_with("--nats-url"))
        || env::var_os("NATS_URL").is_some_and(|url| !url.is_empty());
    let broker = if elsewhere { None } else { Some(broker(&folder.path().join("nats")).await?) };
    if let Some(broker) = &broker {
        config.nats_url = NatsUrl::read(&broker.url())?;
    }
    let mut try_it = try_it.to_owned();
    let mut running = JoinSet::new();
    for service in services {
        let mut config = config.clone();
        let file = folder.path().join(format!("{}.db", service.name()));
        config.store_url.get_or_insert(StoreUrl::Sqlite(file));
        if !running.is_empty() {
            config.port = Some(0);
        }
        let listener = listen(config.address(8080), "--port (HTTP_PORT)").await?;
        let http = format!("http://{}", listener.local_addr()?);
        try_it = if running.is_empty() { try_it.replace("HTTP", &http) } else { format!("{try_it}\n# and {http}") };
        running.spawn(service.run(config, Options::default(), listener, asked_to_stop()));
    }
    println!("{try_it}\n");
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    if let Some(broker) = broker {
        broker.stop().await;
    }
    Ok(())
}

async fn broker(folder: &std::path::Path) -> Result<Server, String> {
    let started = Server::start(&Setup { folder: folder.into(), port: 0, sync_always: false }).await;
    started.map_err(|error| {
        format!(
            "{error}\nPut a nats-server on PATH (https://github.com/nats-io/nats-server/releases, or `brew install \
             nats-server`), or set NATS_URL to a broker with JetStream; within the workspace `cargo xtask up` fetches one."
        )
    })
}
