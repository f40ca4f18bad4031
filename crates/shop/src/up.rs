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
use reqwest::Client;

use crate::check;
use crate::data::DataFolder;
use crate::demo_load;
use crate::ports::Ports;
use crate::serve::Mail;
use crate::stock;
use crate::whole::{Plan, Shop, Urls};

/// How long everything may take to be ready.
pub(crate) const READY: Duration = Duration::from_secs(60);

/// What `shop up` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that keeps everything; start again with it and everything goes on.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Moves all ports: the console is on it, orders 1 above it, inventory 2, payments 3, notifications 4, analytics 5, the
    /// gateway 10, and the broker 42 unless this is 8080, where it is 4222. With 0 every port is a free one.
    #[arg(long, value_name = "PORT", default_value_t = Ports::default(), value_parser = Ports::parse)]
    port_base: Ports,
    /// The address to listen on (the embedded broker listens on 127.0.0.1 only).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// A broker that runs already; without it one is started as a child.
    #[arg(long, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// When the embedded broker syncs what it stores to the disk: some time after its acknowledgement, or always before it.
    #[arg(long, value_enum, default_value_t)]
    broker_sync: BrokerSync,
    /// Orders a second of a load that is there to be watched.
    #[arg(long, value_name = "RATE", default_value = "2", value_parser = rate)]
    demo_load: f64,
    /// Leaves that load out.
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
    rate.ok_or_else(|| "a rate is a number of orders a second from 0.01 to 1000; --no-demo-load is for none".into())
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
        let client = Client::new();
        urls.ready(&client, READY).await?;
        stock::seed(&client, &urls.inventory).await.context("the catalogue cannot be put into stock")?;
        println!(
            "The shop is open after {:.1?}. Ctrl-C closes it; started again, it goes on where it was.",
            began.elapsed()
        );
        println!("{screen}");
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

/// How long an order, or what is to be done about its money, may be under way before the console is told that something is wrong:
/// a little longer than the deadline of orders, since a shop in which they wait for the card company is sound.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// The check whose outcome the console shows.
fn watched(urls: &Urls) -> check::Options {
    check::Options { patience: PATIENCE, ..check::Options::of(urls) }
}

/// Stops the shop, and gives the first thing that went wrong.
pub(crate) async fn stop(shop: Shop, ended: Option<Error>) -> Result<()> {
    eprintln!("Stopping: the services, the gateway, the broker.");
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

/// What runs where, what it promises, and what to try.
fn screen(urls: &Urls, data: &DataFolder, args: &Args, embedded: bool) -> String {
    let nats = without_secrets(&urls.nats);
    let (broker, broker_log, durable) = if embedded {
        let durable = match args.broker_sync {
            BrokerSync::Always => "The broker has every event on the disk before it acknowledges it.",
            BrokerSync::Default => {
                "The broker syncs after it acknowledges: a power cut (a crash not) may take its last events, and the \
                 orders\n         are still there. --broker-sync always syncs first, and is slower."
            }
        };
        let log = data.broker().join("nats-server.log");
        ("a nats-server, child of this process", format!("\n                 {}", log.display()), durable)
    } else {
        ("which was here before", String::new(), "How durable the broker is, is up to whoever runs it.")
    };
    let load = if args.no_demo_load {
        "none comes by itself (--no-demo-load).".into()
    } else {
        format!("{} orders/s come by themselves (--demo-load RATE, --no-demo-load).", args.demo_load)
    };
    format!(
        "
  orders         {orders}
  inventory      {inventory}/stock
  payments       {payments}
  notifications  {notifications}/notifications  {mail}
  analytics      {analytics}/analytics/summary
  gateway        {gateway}  the card company, simulated
  console        {console}  what happens now, what failed, and buttons to break something
  broker         {nats}  {broker}
                 every service answers /health, /readyz and /metrics, too
  data           {folder}
  logs           {log}{broker_log}

Order something, and see what became of it:

  curl -i {orders}/orders -H 'content-type: application/json' \\
    -d '{{\"userId\":\"ada\",\"items\":[{{\"productId\":\"mug\",\"quantity\":2,\"price\":12.00}}],\"totalAmount\":24.00}}'
  curl '{orders}/orders?userId=ada'

Durable: what a service has answered is in its database and safe from a power cut (SQLite, synchronous=FULL).
         {durable}
Room:    a stream holds 1 GiB; what all its readers have handled goes after a week, or sooner when it is 80 % full. If a
         reader stands still until it is 90 % full, new orders are answered 503, and none that was taken is lost.
Load:    {load}
",
        orders = urls.orders,
        inventory = urls.inventory,
        payments = urls.payments,
        notifications = urls.notifications,
        mail = if args.mail.is_sent() { "mails go out over SMTP" } else { "logged, not mailed (--smtp-url)" },
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
