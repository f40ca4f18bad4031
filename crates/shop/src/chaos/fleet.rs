//! The shop as it is in production: two processes of each service behind one port, the gateway, and a broker.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::{Mutex as Plain, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nats_embedded::{Server, Setup};
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::fault::{Part, Replica, Service};
use super::line::Line;
use super::program::{Place, Program, command, freeze};
use crate::data::DataFolder;
use crate::forward::forward;
use crate::stock::{CATALOGUE, put};
use crate::whole::Urls;
use crate::wire;

/// How long everything may take to be ready.
const READY: Duration = Duration::from_secs(120);
/// How long until something is looked at again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long an answer or a condition is waited for during a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// From which age on payments asks the gateway what it has done before it repeats it. A gateway that forgets its keys in a fault
/// does so later.
const QUERY_AFTER: &str = "2s";

/// Of each product, so that none runs out: what an order is refused for must not depend on the order of messages.
const PIECES: u64 = 1_000_000_000;
/// The product of which there is none, so that orders are refused as well.
const NONE_OF: &str = "teapot";

/// All of it. Dropped, it is killed.
pub(super) struct Fleet {
    pub(super) http: Client,
    pub(super) urls: Urls,
    pub(super) gateway: Program,
    pub(super) replicas: BTreeMap<Replica, Member>,
    /// Each is held by the fault that uses it.
    pub(super) parts: BTreeMap<Part, Mutex<()>>,
    loads: Plain<Vec<Load>>,
    /// What went wrong beside the faults.
    troubles: Plain<Vec<String>>,
    broker: Mutex<Option<Server>>,
    setup: Setup,
    seed: u64,
    _places: Vec<Place>,
    _fronts: JoinSet<()>,
    // Dropped last: what runs works in it.
    pub(super) data: DataFolder,
}

/// A replica, and how it reaches the broker.
pub(super) struct Member {
    pub(super) program: Program,
    pub(super) line: Line,
    url: String,
}

/// A `shop load` that runs.
struct Load {
    name: String,
    child: Child,
}

impl Fleet {
    /// Starts everything, waits until it is ready, and fills the stock.
    pub(super) async fn start(data: DataFolder, seed: u64) -> Result<Self> {
        let broker_place = Place::take()?;
        let setup = Setup { folder: data.broker(), port: broker_place.address.port(), sync_always: false };
        let broker = Server::start(&setup).await?;
        let gateway_place = Place::take()?;
        let (listen, ledger) = (gateway_place.address.to_string(), data.ledger().display().to_string());
        let logs = data.path().join("logs");
        let gateway =
            Program::new("gateway", &logs, &["gateway", "--listen", &listen, "--ledger", &ledger, "--hang", "12s"]);
        let gateway_url = format!("http://{listen}");
        let (mut places, mut fronts) = (vec![], JoinSet::new());
        let (mut replicas, mut services) = (BTreeMap::new(), vec![]);
        for service in Service::ALL {
            let mut targets = vec![];
            for replica in service.replicas() {
                let (place, line) = (Place::take()?, Line::to(broker_place.address).await?);
                let (port, nats) = (place.address.port().to_string(), format!("nats://{}", line.address));
                let store = data.store_url(service.name());
                let mut args =
                    vec!["serve", service.name(), "--port", &port, "--nats-url", &nats, "--store-url", &store];
                if service == Service::Payments {
                    args.extend(["--gateway-url", &gateway_url, "--gateway-query-after", QUERY_AFTER]);
                }
                let program = Program::new(&replica.to_string(), &logs, &args);
                targets.push(place.address.to_string());
                replicas.insert(replica, Member { program, line, url: format!("http://{}", place.address) });
                places.push(place);
            }
            let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("there is no free port")?;
            services.push(format!("http://{}", front.local_addr()?));
            fronts.spawn(forward(front, targets));
        }
        places.extend([gateway_place, broker_place]);
        let [orders, inventory, payments, notifications, analytics] =
            services.try_into().map_err(|_| anyhow!("there are not five services"))?;
        let nats = broker.url();
        let console = String::new();
        let urls = Urls { orders, inventory, payments, notifications, analytics, gateway: gateway_url, console, nats };
        let fleet = Self {
            http: wire::client()?,
            urls,
            gateway,
            replicas,
            parts: Part::all().into_iter().map(|part| (part, Mutex::default())).collect(),
            loads: Plain::default(),
            troubles: Plain::default(),
            broker: Mutex::new(Some(broker)),
            setup,
            seed,
            _places: places,
            _fronts: fronts,
            data,
        };
        fleet.start_programs().await?;
        fleet.ready().await?;
        for product in CATALOGUE {
            let pieces = if product.id == NONE_OF { 0 } else { PIECES };
            put(&fleet.http, &fleet.urls.inventory, product.id, pieces).await?;
        }
        Ok(fleet)
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        self.replicas.values().map(|member| &member.program).chain([&self.gateway])
    }

    pub(super) fn member(&self, replica: Replica) -> Result<&Member> {
        self.replicas.get(&replica).with_context(|| format!("there is no {replica}"))
    }

    pub(super) async fn start_programs(&self) -> Result<()> {
        for program in self.programs() {
            program.start().await?;
        }
        Ok(())
    }

    /// Starts again, as a supervisor would, what ends by itself, and remembers it.
    pub(super) async fn supervise(&self) -> Result<()> {
        loop {
            for program in self.programs() {
                if let Some(status) = program.ended().await {
                    self.note_trouble(format!("{} ended by itself with {status}", program.name));
                    program.start().await?;
                }
            }
            // Whoever holds it is starting or ending it.
            if let Ok(mut broker) = self.broker.try_lock()
                && let Some(running) = &mut *broker
                && let Ok(status) = timeout(Duration::ZERO, running.ended()).await
            {
                self.note_trouble(format!("the broker ended by itself with {status}"));
                *broker = Some(Server::start(&self.setup).await?);
            }
            sleep(AGAIN).await;
        }
    }

    /// SIGKILL. A process that had already ended by itself is trouble.
    pub(super) async fn kill(&self, program: &Program) -> Result<()> {
        if let Some(status) = program.kill().await? {
            self.note_trouble(format!("{} ended by itself with {status}", program.name));
        }
        Ok(())
    }

    pub(super) fn note_trouble(&self, trouble: String) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).push(trouble);
    }

    pub(super) fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until each replica does its whole job.
    pub(super) async fn ready(&self) -> Result<()> {
        for replica in Replica::all() {
            self.is_ready(replica, READY).await?;
        }
        Ok(())
    }

    pub(super) async fn is_ready(&self, replica: Replica, within: Duration) -> Result<()> {
        let url = format!("{}/readyz", self.member(replica)?.url);
        let ask = async || {
            let answer = self.http.get(&url).send().await?;
            let status = answer.status();
            if status.is_success() { Ok(()) } else { Err(anyhow!("{status}: {}", answer.text().await?)) }
        };
        insist(within, ask).await.with_context(|| format!("{replica} was not ready within {within:?}"))
    }

    /// Starts a load that goes on beside whatever happens; at a rate, or as fast as orders are taken.
    pub(super) fn load(&self, orders: u64, per_second: Option<f64>) -> Result<()> {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if loads.is_empty() { "load".to_owned() } else { format!("surge {}", loads.len()) };
        let ledger = self.data.path().join(format!("{name}.jsonl"));
        let seed = self.seed.wrapping_add(loads.len() as u64);
        let mut args: Vec<String> = vec!["load".into()];
        for (flag, value) in [
            ("--url", self.urls.orders.clone()),
            ("--inventory-url", self.urls.inventory.clone()),
            ("--orders", orders.to_string()),
            ("--seed", seed.to_string()),
            ("--ledger", ledger.display().to_string()),
            ("--cancel", "0.05".into()),
            ("--concurrency", "256".into()),
            ("--give-up-after", "5m".into()),
        ] {
            args.extend([flag.into(), value]);
        }
        if let Some(rate) = per_second {
            args.extend(["--rate".into(), rate.to_string()]);
        }
        let log = self.data.path().join("logs").join(format!("{name}.log"));
        let child =
            command(&args, &log)?.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {name}"))?;
        loads.push(Load { name, child });
        Ok(())
    }

    /// Waits until all loads have seen their orders end. Gives what they report.
    pub(super) async fn loads_end(&self) -> Result<Vec<String>> {
        let loads = std::mem::take(&mut *self.loads.lock().unwrap_or_else(PoisonError::into_inner));
        let mut reports = vec![];
        for Load { name, child } in loads {
            let output = child.wait_with_output().await.with_context(|| format!("cannot wait for {name}"))?;
            reports.push(format!("{name}\n{}", String::from_utf8_lossy(&output.stdout).trim_end()));
            if !output.status.success() {
                self.note_trouble(format!("{name} ended with {}: not every order has ended", output.status));
            }
        }
        Ok(reports)
    }

    /// What loads were promised.
    pub(super) fn ledgers(&self) -> Result<Vec<std::path::PathBuf>> {
        let files = fs::read_dir(self.data.path())?.map(|file| Ok(file?.path()));
        let mut files: Vec<_> = files.collect::<Result<_>>()?;
        // A surge that was given no answer at all has written nothing; the load of the whole run has.
        files.retain(|file| {
            file.extension().is_some_and(|extension| extension == "jsonl")
                && (file.ends_with("load.jsonl") || fs::metadata(file).is_ok_and(|file| file.len() > 0))
        });
        Ok(files)
    }

    pub(super) async fn kill_broker(&self) {
        // It has ended when this returns.
        drop(self.broker.lock().await.take());
    }

    pub(super) async fn start_broker(&self) -> Result<()> {
        let mut broker = self.broker.lock().await;
        if broker.is_none() {
            *broker = Some(Server::start(&self.setup).await?);
        }
        Ok(())
    }

    /// SIGSTOP, until it stands still.
    pub(super) async fn freeze_broker(&self) {
        if let Some(broker) = &*self.broker.lock().await {
            freeze(broker.pid()).await;
        }
    }

    pub(super) async fn signal_broker(&self, name: &str) {
        if let Some(broker) = &*self.broker.lock().await {
            broker.signal(name);
        }
    }

    /// Stops everything in order.
    pub(super) async fn stop(&self) -> Result<()> {
        for program in self.programs() {
            program.stop().await?;
        }
        if let Some(broker) = self.broker.lock().await.take() {
            broker.stop().await;
        }
        Ok(())
    }
}

/// Tries until it succeeds; the error of the last time if it never does.
async fn insist<T>(within: Duration, attempt: impl AsyncFn() -> Result<T>) -> Result<T> {
    let until = Instant::now() + within;
    loop {
        match attempt().await {
            Err(_) if Instant::now() < until => sleep(AGAIN).await,
            done => return done,
        }
    }
}

/// The same for what a fault needs.
pub(super) async fn persist<T>(what: &str, attempt: impl AsyncFn() -> Result<T>) -> Result<T> {
    insist(PATIENCE, attempt).await.with_context(|| format!("{what}: not possible within {PATIENCE:?}"))
}
