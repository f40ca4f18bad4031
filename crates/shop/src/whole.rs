//! The whole shop in one process.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use millstream::Service;
use millstream::service::Options;
use millstream::terminal::note;
use millstream_console::{Actions, DemoAction};
use nats_embedded::{Server, Setup, StartError};
use payments::gateway::QUERY_AFTER;
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::data::DataFolder;
use crate::gateway;
use crate::ports::{self, Ports};
use crate::restart;
use crate::serve;
use crate::tryout;

/// How long services may take to stop, all together.
const STOPPING: Duration = Duration::from_secs(10);

/// What a shop is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The address that everything listens on.
    pub host: IpAddr,
    /// The ports.
    pub ports: Ports,
    /// A broker that runs already; without it one is started.
    pub nats_url: Option<String>,
    /// Whether an embedded broker has every message on the disk before it acknowledges it.
    pub sync_always: bool,
    /// Times and bounds of the engines.
    pub options: Options,
    /// How the orders service is set.
    pub orders: orders::Settings,
    /// How customers are reached.
    pub notifications: notifications::Settings,
    /// Whether there are routes for what the console offers to try.
    pub demo: bool,
    /// How the gateway behaves; its ledger is in the data folder in any case.
    pub gateway: gateway::Settings,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            ports: Ports::default(),
            nats_url: None,
            sync_always: false,
            options: Options::default(),
            orders: orders::Settings::default(),
            notifications: notifications::Settings::default(),
            demo: false,
            gateway: gateway::Settings::default(),
        }
    }
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Urls {
    /// The orders service.
    pub orders: String,
    /// The inventory service.
    pub inventory: String,
    /// The payments service.
    pub payments: String,
    /// The notifications service.
    pub notifications: String,
    /// The analytics service.
    pub analytics: String,
    /// The gateway simulator.
    pub gateway: String,
    /// The console.
    pub console: String,
    /// The broker.
    pub nats: String,
}

impl Urls {
    /// Waits until every service is ready.
    ///
    /// # Errors
    /// When one is not ready in time; the message has its last answer.
    pub async fn ready(&self, client: &Client, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        for url in [&self.orders, &self.inventory, &self.payments, &self.notifications, &self.analytics] {
            loop {
                let said = match client.get(format!("{url}/readyz")).timeout(within).send().await {
                    Ok(answer) if answer.status().is_success() => break,
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => format!("{:#}", Error::from(error.without_url())),
                };
                if Instant::now() > until {
                    return Err(anyhow!("{url}/readyz was not ready within {within:?}; last answer: {said}"));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

/// A running shop. Dropped, its tasks are aborted and its broker is killed.
#[derive(Debug)]
pub struct Shop {
    /// Where everything is.
    pub urls: Urls,
    /// What there is to try; nothing without [`Plan::demo`].
    pub demo_actions: Vec<DemoAction>,
    demo: Part,
    services: Part,
    console: Part,
    gateway: Part,
    broker: Part,
    // Dropped last: no other process may use the folder while a part still works in it.
    data: DataFolder,
}

/// Tasks that are stopped together.
#[derive(Debug, Default)]
struct Part {
    tasks: JoinSet<(&'static str, Result<()>)>,
    stop: CancellationToken,
}

impl Part {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stop.clone().cancelled_owned()
    }

    /// The first task that ends unexpectedly.
    async fn ended(&mut self) -> Error {
        match self.tasks.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow!("{name} ended unexpectedly"),
            Some(Ok((name, Err(error)))) => error.context(format!("{name} failed")),
            Some(Err(panic)) => panic.into(),
            None => std::future::pending().await,
        }
    }

    async fn stop(&mut self, what: &str) -> Result<()> {
        self.stop.cancel();
        let all = async {
            let mut failed = Ok(());
            while let Some(ended) = self.tasks.join_next().await {
                let (name, result) = ended?;
                failed = failed.and(result.with_context(|| format!("{name} did not stop cleanly")));
            }
            failed
        };
        timeout(STOPPING, all).await.unwrap_or_else(|_| Err(anyhow!("{what} did not stop within {STOPPING:?}")))
    }
}

impl Shop {
    /// Takes all ports, then starts everything. Services connect by themselves: [`Urls::ready`] waits for that.
    ///
    /// # Errors
    /// When a port is taken, or the broker does not start.
    pub async fn start(plan: Plan, data: DataFolder) -> Result<Self> {
        let Plan { host, ports, nats_url, sync_always, options, orders: settings, notifications: mail, .. } = plan;
        let mut gateway_settings = plan.gateway;
        // Invalid settings are reported before anything runs.
        let notifier = serve::notifications(&mail)?;
        let remedy = format!("stop what listens there, or move all ports with --port-base (now {ports})");
        let listen = async |what, port| ports::listen(what, host, port, &remedy).await;
        let listeners = [
            listen("orders", ports.orders()).await?,
            listen("inventory", ports.inventory()).await?,
            listen("payments", ports.payments()).await?,
            listen("notifications", ports.notifications()).await?,
            listen("analytics", ports.analytics()).await?,
        ];
        let console_listener = listen("the console", ports.console()).await?;
        let gateway_listener = listen("the gateway", ports.gateway()).await?;
        let [orders, inventory, payments, notifications, analytics] = listeners.each_ref().map(url);
        let (console_url, gateway_url) = (url(&console_listener)?, url(&gateway_listener)?);
        let demo_listener = match plan.demo {
            true => Some(ports::listen("the demo routes", [127, 0, 0, 1].into(), 0, "").await?),
            false => None,
        };
        let [mut services, mut console, mut gateway, mut broker, mut demo] = <[Part; 5]>::default();

        let nats = match nats_url {
            Some(url) => url,
            None => {
                let setup = Setup { folder: data.broker(), port: ports.broker(), sync_always };
                let server = Server::start(&setup).await.map_err(|error| match error {
                    StartError::PortInUse(_) => anyhow!("{error}: {remedy}"),
                    error => error.into(),
                })?;
                let url = server.url();
                let setup = Setup { port: server.port(), ..setup };
                broker.spawn("the broker", keep_up(server, setup, broker.stop.clone()));
                url
            }
        };

        gateway_settings.ledger = Some(data.ledger());
        let stopped = gateway.stopped();
        gateway.spawn("the gateway", gateway::serve(gateway_listener, gateway_settings, stopped));

        let [for_orders, for_inventory, for_payments, for_notifications, for_analytics] = listeners;
        let all = [
            (orders::service(settings), for_orders),
            (serve::payments(&gateway_url, QUERY_AFTER)?, for_payments),
            (notifier, for_notifications),
            (analytics::service(), for_analytics),
        ];
        for (service, listener) in all {
            let config = serve::config(&nats, &data.store_url(service.name()))?;
            let stopped = services.stopped();
            let (name, options) = (Service::name(&service), options.clone());
            services.spawn(name, async { Ok(service.run(config, options, listener, stopped).await?) });
        }
        let (breaks, asked) = restart::breaks();
        let (of_nats, of_store) = (nats.clone(), data.store_url("inventory"));
        let inventory_service = move || Ok((inventory::service(), serve::config(&of_nats, &of_store)?));
        let stop = services.stop.clone();
        services.spawn("inventory", restart::run(inventory_service, options, for_inventory, stop, asked));

        let urls = Urls {
            orders: orders?,
            inventory: inventory?,
            payments: payments?,
            notifications: notifications?,
            analytics: analytics?,
            gateway: gateway_url,
            console: console_url,
            nats,
        };
        let mut demo_actions = vec![];
        if let Some(listener) = demo_listener {
            demo_actions = tryout::demo_actions(&urls, &url(&listener)?);
            demo.spawn("the demo routes", tryout::serve(listener, urls.clone(), breaks, demo.stopped()));
        }
        let config = serve::config(&urls.nats, &data.store_url("console"))?;
        let settings = millstream_console::Settings {
            // Who may reach it from elsewhere may look.
            actions: if plan.demo && host.is_loopback() { Actions::Yes } else { Actions::No },
            demo: demo_actions.clone(),
            runbook: Some(include_str!("../../../docs/runbooks.md").into()),
            ..millstream_console::Settings::of(&config).await?
        };
        console.spawn("the console", millstream_console::serve(settings, console_listener, console.stopped()));
        Ok(Self { urls, demo_actions, demo, services, console, gateway, broker, data })
    }

    /// The folder that it keeps everything in.
    pub fn data(&self) -> &DataFolder {
        &self.data
    }

    /// Waits until a part ends unexpectedly, and returns the cause.
    pub async fn ended(&mut self) -> Error {
        tokio::select! {
            error = self.demo.ended() => error,
            error = self.services.ended() => error,
            error = self.console.ended() => error,
            error = self.gateway.ended() => error,
            error = self.broker.ended() => error,
        }
    }

    /// Stops in order: the services, which still need the broker and the gateway, then the gateway, then the broker.
    ///
    /// # Errors
    /// When a part does not stop cleanly; the others are stopped nevertheless.
    pub async fn stop(mut self) -> Result<()> {
        let demo = self.demo.stop("the demo routes").await;
        let services = self.services.stop("the services").await;
        let console = self.console.stop("the console").await;
        let gateway = self.gateway.stop("the gateway").await;
        let broker = self.broker.stop("the broker").await;
        demo.and(services).and(console).and(gateway).and(broker)
    }
}

/// Restarts the broker when it ends unexpectedly: its port and its folder stay, so services reconnect and continue.
async fn keep_up(mut server: Server, setup: Setup, stop: CancellationToken) -> Result<()> {
    loop {
        let how = tokio::select! {
            () = stop.cancelled() => None,
            how = server.ended() => Some(how),
        };
        let Some(how) = how else {
            server.stop().await;
            return Ok(());
        };
        tracing::warn!(how, "the broker ended unexpectedly; restarting it");
        note(&format!("The broker ended unexpectedly ({how}); restarting it."));
        server = loop {
            match Server::start(&setup).await {
                Ok(server) => break server,
                Err(error) => tracing::error!(%error, "cannot restart the broker"),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(Duration::from_secs(1)) => {}
            }
        };
    }
}

fn url(listener: &TcpListener) -> Result<String> {
    let mut address = listener.local_addr()?;
    // Every address is a thing to listen on and none to call.
    if address.ip().is_unspecified() {
        address = SocketAddr::from(([127, 0, 0, 1], address.port()));
    }
    Ok(format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use millstream::testing::eventually;

    use super::*;

    #[tokio::test]
    async fn a_broker_that_is_killed_comes_back_at_its_url_and_everything_stops_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let shop = Shop::start(Plan { ports: Ports::FREE, ..Plan::default() }, data).await.unwrap();
        let pid_file = shop.data().broker().join("nats-server.pid");
        let killed = std::fs::read_to_string(&pid_file).unwrap();
        let status = std::process::Command::new("sh").args(["-c", "kill -9 $0", killed.trim()]).status().unwrap();
        assert!(status.success());
        let another = async || std::fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n') && pid != killed);
        eventually("another broker process", Duration::from_secs(20), another).await;
        let answers = async || async_nats::connect(&shop.urls.nats).await.is_ok();
        eventually("the broker's answer at its old URL", Duration::from_secs(20), answers).await;
        let nats = shop.urls.nats.clone();
        shop.stop().await.unwrap();
        assert!(async_nats::connect(&nats).await.is_err(), "the broker has ended with the shop");
        DataFolder::open(folder.path()).unwrap();
    }
}
