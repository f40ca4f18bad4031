//! `shop up`: the whole shop in one process, to look at.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use clap::ValueEnum;
use millstream::config::Logs;
use millstream::telemetry::init_logs_to;
use millstream::terminal::{line, note};

use crate::check;
use crate::data::DataFolder;
use crate::demo_load;
use crate::disk;
use crate::ports::Ports;
use crate::serve::Mail;
use crate::stock;
use crate::whole::{Plan, Shop, Urls};
use crate::wire;

/// How long everything may take to be ready.
pub(crate) const READY: Duration = Duration::from_secs(60);

/// Options of `shop up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data folder; a restart with the same folder continues where it left off.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Base of the port numbers: console + 0, orders + 1, inventory + 2, payments + 3, notifications + 4, analytics + 5,
    /// gateway + 10, broker + 42 (4222 if the base is 8080). 0 chooses free ports.
    #[arg(long, value_name = "PORT", default_value_t = Ports::default(), value_parser = Ports::parse)]
    port_base: Ports,
    /// Address to listen on (the embedded broker listens on 127.0.0.1 only).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// URL of a running broker; without it an embedded one is started.
    #[arg(long, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// When the embedded broker syncs messages to disk: some time after it acknowledges them, or always before.
    #[arg(long, value_enum, default_value_t)]
    broker_sync: BrokerSync,
    /// Rate of the demo load, in orders per second.
    #[arg(long, value_name = "RATE", default_value = "2", value_parser = rate)]
    demo_load: f64,
    /// Disable the demo load.
    #[arg(long, conflicts_with = "demo_load")]
    no_demo_load: bool,
    #[command(flatten)]
    mail: Mail,
    #[command(flatten)]
    logs: Logs,
}

/// When the embedded broker syncs.
#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
enum BrokerSync {
    #[default]
    Default,
    Always,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=1000.0).contains(rate));
    rate.ok_or_else(|| "expected a number of orders per second from 0.01 to 1000; use --no-demo-load for none".into())
}

/// Runs the shop until `shutdown`.
///
/// # Errors
/// When it cannot start, or a part of it ends by itself.
pub async fn run(args: Args, shutdown: impl Future<Output = ()>) -> Result<()> {
    let began = Instant::now();
    let data = DataFolder::open(&args.data)?;
    log_into(&data, &args.logs)?;
    let nats_url = args.nats_url.clone().filter(|url| !url.is_empty());
    let embedded = nats_url.is_none();
    if embedded {
        disk::check(
            &data,
            "Choose a folder on a larger disk with --data DIR, or a running broker with --nats-url URL.",
        )?;
    }
    let sync_always = args.broker_sync == BrokerSync::Always;
    let notifications = args.mail.clone().settings();
    let plan = Plan {
        host: args.host,
        ports: args.port_base,
        nats_url,
        sync_always,
        notifications,
        demo: true,
        ..Plan::default()
    };
    let mut shop = Shop::start(plan, data).await?;
    let urls = shop.urls.clone();
    let screen = screen(&urls, shop.data(), &args, embedded);
    let session = async || -> Result<Infallible> {
        let client = wire::client()?;
        urls.ready(&client, READY).await?;
        stock::seed(&client, &urls.inventory).await.context("cannot stock the catalogue")?;
        // Whoever reads only the first line, or has no room for it, still wants the shop.
        drop(line(&format!(
            "The shop is open after {:.1?}. Ctrl-C stops it; a restart continues where it left off.\n{screen}",
            began.elapsed()
        )));
        let load = async {
            if !args.no_demo_load {
                demo_load::run(client, urls.orders.clone(), args.demo_load).await;
            }
        };
        let ((), watched) = tokio::join!(load, check::watch(watched(&urls), std::future::pending()));
        watched?;
        std::future::pending().await
    };
    let ended = tokio::select! {
        () = shutdown => None,
        error = shop.ended() => Some(error),
        Err(error) = session() => Some(error),
    };
    stop(shop, ended).await
}

/// How long an order or its refund may be unfinished before the console shows a violation:
/// a little longer than the deadline of orders, since orders that wait for the payment gateway are no violation.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// The check whose outcome the console shows.
fn watched(urls: &Urls) -> check::Options {
    check::Options { patience: PATIENCE, ..check::Options::of(urls) }
}

/// Stops the shop, and gives the first thing that went wrong.
pub(crate) async fn stop(shop: Shop, ended: Option<Error>) -> Result<()> {
    note("Stopping: the services, the gateway, the broker.");
    let stopped = shop.stop().await;
    match ended {
        Some(error) => Err(error),
        None => stopped,
    }
}

/// Logs go into the data folder, so that the screen stays readable.
pub(crate) fn log_into(data: &DataFolder, logs: &Logs) -> Result<()> {
    let path = data.log();
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(init_logs_to(file, logs)?)
}

/// The start screen: addresses, durability, limits, and a first request.
fn screen(urls: &Urls, data: &DataFolder, args: &Args, embedded: bool) -> String {
    let nats = without_secrets(&urls.nats);
    let (broker, broker_log, durable) = if embedded {
        let durable = match args.broker_sync {
            BrokerSync::Always => "The broker syncs every event to disk before it acknowledges it.",
            BrokerSync::Default => {
                "The broker syncs after it acknowledges: a power failure, unlike a crash, may lose its last events;\n         \
                 the orders are still stored. --broker-sync always syncs first, and is slower."
            }
        };
        let log = data.broker().join("nats-server.log");
        ("a nats-server, child of this process", format!("\n                 {}", log.display()), durable)
    } else {
        ("external", String::new(), "The durability of the external broker depends on its configuration.")
    };
    let load = if args.no_demo_load {
        "no demo load (--no-demo-load).".into()
    } else {
        format!("{} demo orders/s (--demo-load RATE, --no-demo-load).", args.demo_load)
    };
    format!(
        "
  orders         {orders}
  inventory      {inventory}/stock
  payments       {payments}
  notifications  {notifications}/notifications  {mail}
  analytics      {analytics}/analytics/summary
  gateway        {gateway}  payment gateway simulator
  console        {console}  live events, dead letters, and buttons to inject faults
  broker         {nats}  {broker}
                 every service serves /health, /readyz and /metrics
  data           {folder}
  logs           {log}{broker_log}

Place an order and look it up:

  curl -i {orders}/orders -H 'content-type: application/json' \\
    -d '{{\"userId\":\"ada\",\"items\":[{{\"productId\":\"mug\",\"quantity\":2,\"price\":12.00}}],\"totalAmount\":24.00}}'
  curl '{orders}/orders?userId=ada'

Durable: everything a service has acknowledged is in its database and survives a power failure (SQLite, synchronous=FULL).
         {durable}
Limits:  a stream holds 1 GiB; messages that all readers have handled are removed after a week, or sooner at 80 % full.
         If a reader stalls until it is 90 % full, new orders get 503; accepted orders are not lost.
Load:    {load}
",
        orders = urls.orders,
        inventory = urls.inventory,
        payments = urls.payments,
        notifications = urls.notifications,
        mail = if args.mail.is_sent() { "mails are sent over SMTP" } else { "logged, not mailed (--smtp-url)" },
        analytics = urls.analytics,
        gateway = urls.gateway,
        console = urls.console,
        folder = data.path().display(),
        log = data.log().display(),
    )
}

/// A URL without its user and password.
fn without_secrets(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)),
        None => url.rsplit_once('@').map_or(url, |(_, host)| host).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_on_the_screen() {
        assert_eq!(without_secrets("nats://me:p@ss@host:4222"), "nats://host:4222");
        assert_eq!(without_secrets("token@host"), "host");
        assert_eq!(without_secrets("nats://host:4222"), "nats://host:4222");
    }

    #[test]
    fn a_rate_out_of_bounds_is_refused_with_the_bounds() {
        assert_eq!(rate("2"), Ok(2.0));
        for text in ["0", "-1", "NaN", "inf", "many"] {
            assert!(rate(text).unwrap_err().contains("0.01 to 1000"), "{text}");
        }
    }
}
