//! The shop's programs as somebody runs them: started, watched, stopped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mongodb::bson::doc;
use nats_embedded::{Server, Setup};
use reqwest::Client;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::figures::System;
use crate::load::PRODUCTS;
use crate::machine::Watched;

/// How long everything may take to be ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

const SERVICES: [&str; 5] = ["orders", "inventory", "payments", "notifications", "analytics"];

/// A system that is ready. Dropped, it is killed.
pub(crate) struct Stack {
    pub(crate) orders: String,
    pub(crate) nats: String,
    /// Whose processor time is counted as what.
    pub(crate) watched: Vec<Watched>,
    /// In the order in which they are stopped.
    programs: Vec<Program>,
    broker: Option<Server>,
    folder: TempDir,
}

/// A child, whose output is in a file.
struct Program {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    child: Child,
    pid: u32,
}

/// A service that was stopped in order, and may be started again.
pub(crate) struct Halted(Program);

impl Program {
    /// Starts a program with a small environment, in which nobody's settings change what is measured.
    fn start(name: &str, folder: &Path, program: &Path, args: &[String]) -> Result<Self> {
        let output = File::create(folder.join(format!("{name}.out")))?;
        let kept = |name: &str| ["PATH", "HOME"].contains(&name) || name.starts_with("MILLSTREAM_");
        let environment = std::env::vars_os().filter(|(name, _)| kept(&name.to_string_lossy()));
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .current_dir(folder)
            // A Ctrl-C at the terminal is for this program, which stops the others.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let pid = child.id().with_context(|| format!("{name} has ended"))?;
        Ok(Self { name: name.into(), program: program.into(), args: args.to_vec(), child, pid })
    }

    /// The end of what it has printed.
    fn last_words(&self, folder: &Path) -> String {
        let said = fs::read_to_string(folder.join(format!("{}.out", self.name))).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Waits for a condition; a program that ends instead is quoted.
    async fn until<T>(&mut self, what: &str, folder: &Path, condition: impl AsyncFn() -> Option<T>) -> Result<T> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition().await {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.last_words(folder));
            }
            ensure!(
                Instant::now() < until,
                "{} was not {what} within {PATIENCE:?}: {}",
                self.name,
                self.last_words(folder)
            );
            sleep(POLL).await;
        }
    }

    async fn stop(&mut self) -> Result<()> {
        nats_embedded::signal(self.pid, "TERM");
        let status = timeout(PATIENCE, self.child.wait()).await;
        let status = status.with_context(|| format!("{} did not stop within {PATIENCE:?}", self.name))??;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl Stack {
    /// Starts a system in a new folder below `data` and waits until it is ready.
    pub(crate) async fn start(system: System, data: &Path, shop: &Path, http: &Client) -> Result<Self> {
        let folder = tempfile::tempdir_in(data)?;
        match system {
            System::One => Self::one(folder, shop, http, &[]).await,
            System::OneSynced => Self::one(folder, shop, http, &["--broker-sync", "always"]).await,
            System::Five | System::Mongo => Self::five(folder, shop, http, system == System::Mongo).await,
            System::Floor | System::FloorSynced => bail!("a floor is measured without the shop"),
        }
    }

    async fn one(folder: TempDir, shop: &Path, http: &Client, more: &[&str]) -> Result<Self> {
        let at = folder.path();
        let data = at.join("data");
        let flags = ["up", "--no-demo-load", "--port-base", "0", "--data", path(&data)?];
        let mut program = Program::start("shop", at, shop, &strings(&[&flags, more].concat()))?;
        let output = at.join("shop.out");
        let open = async || {
            let said = fs::read_to_string(&output).ok()?;
            said.starts_with("The shop is open").then_some(said).filter(|said| said.contains("\nLoad:"))
        };
        let screen = program.until("open", at, open).await?;
        let url = |name: &str| {
            let line = screen.lines().find_map(|line| line.trim_start().strip_prefix(name)?.split_whitespace().next());
            line.map(str::to_owned).with_context(|| format!("the start screen names no {name}"))
        };
        let (orders, nats) = (url("orders ")?, url("broker ")?);
        let ports = ["orders ", "payments "].map(url);
        for url in ports {
            ready(&mut program, at, http, &url?).await?;
        }
        let broker = fs::read_to_string(data.join("nats/nats-server.pid")).context("the broker has no process id")?;
        let broker = broker.trim().parse().context("the broker's process id is no number")?;
        let watched = vec![("services", program.pid), ("broker", broker)];
        Ok(Self { orders, nats, watched, programs: vec![program], broker: None, folder })
    }

    async fn five(folder: TempDir, shop: &Path, http: &Client, mongo: bool) -> Result<Self> {
        let at = folder.path();
        let broker = Server::start(&Setup { folder: at.join("nats"), port: 0, sync_always: false }).await?;
        let nats = broker.url();
        let mut watched = vec![("broker", broker.pid())];
        let (mut services, mut others) = (vec![], vec![]);
        let mongod = if mongo { Some(mongod(at).await?) } else { None };
        let store = mongod.as_ref().map(|(_, url)| url.clone());
        let gateway = format!("127.0.0.1:{}", free_port()?);
        let flags = ["gateway", "--listen", &gateway, "--ledger", "gateway.ledger"];
        let gateway_program = Program::start("gateway", at, shop, &strings(&flags))?;
        watched.push(("gateway", gateway_program.pid));
        others.push(gateway_program);
        if let Some((program, _)) = mongod {
            watched.push(("store", program.pid));
            others.push(program);
        }
        let mut urls = vec![];
        for service in SERVICES {
            let port = free_port()?;
            let store = match &store {
                Some(url) => url.replace("/?", &format!("/{service}?")),
                None => format!("sqlite://{}", path(&at.join(format!("{service}.db")))?),
            };
            let port_text = port.to_string();
            let mut flags =
                strings(&["serve", service, "--port", &port_text, "--nats-url", &nats, "--store-url", &store]);
            if service == "payments" {
                flags.extend(["--gateway-url".into(), format!("http://{gateway}")]);
            }
            let program = Program::start(service, at, shop, &flags)?;
            watched.push(("services", program.pid));
            services.push(program);
            urls.push(format!("http://127.0.0.1:{port}"));
        }
        for (program, url) in services.iter_mut().zip(&urls) {
            ready(program, at, http, url).await?;
        }
        for product in PRODUCTS {
            let url = format!("{}/stock/{product}", urls[1]);
            let answer = http.put(&url).json(&json!({ "initial": 10_000_000 })).send().await?;
            ensure!(answer.status().is_success(), "PUT {url} was answered {}", answer.status());
        }
        services.extend(others);
        let orders = urls.swap_remove(0);
        Ok(Self { orders, nats, watched, programs: services, broker: Some(broker), folder })
    }

    /// Stops one service.
    pub(crate) async fn halt(&mut self, name: &str) -> Result<Halted> {
        let at = self.programs.iter().position(|program| program.name == name);
        let mut program = self.programs.remove(at.with_context(|| format!("there is no {name}"))?);
        self.watched.retain(|(_, pid)| *pid != program.pid);
        program.stop().await?;
        Ok(Halted(program))
    }

    /// Starts a service that was stopped.
    pub(crate) fn resume(&mut self, Halted(halted): Halted) -> Result<()> {
        let program = Program::start(&halted.name, self.folder.path(), &halted.program, &halted.args)?;
        self.watched.push(("services", program.pid));
        self.programs.insert(0, program);
        Ok(())
    }

    /// Where everything has its files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops everything in order.
    pub(crate) async fn stop(self) -> Result<()> {
        for mut program in self.programs {
            program.stop().await?;
        }
        if let Some(broker) = self.broker {
            broker.stop().await;
        }
        Ok(())
    }
}

async fn ready(program: &mut Program, folder: &Path, http: &Client, url: &str) -> Result<()> {
    let answers = async || {
        let answer = http.get(format!("{url}/readyz")).send().await.ok()?;
        answer.status().is_success().then_some(())
    };
    program.until("ready", folder, answers).await
}

/// A replica set of one, which the stores need, and its URL without a database.
async fn mongod(folder: &Path) -> Result<(Program, String)> {
    let program = nats_embedded::find_mongod().context("there is no mongod")?;
    let data = folder.join("mongod");
    fs::create_dir(&data)?;
    let port = free_port()?;
    let flags = ["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--dbpath", path(&data)?, "--replSet", "rs0"];
    let flags = [&flags[..], &["--nounixsocket"]].concat();
    let mut program = Program::start("mongod", folder, &program, &strings(&flags))?;
    let host = format!("127.0.0.1:{port}");
    let client = mongodb::Client::with_uri_str(format!("mongodb://{host}/?directConnection=true")).await?;
    let admin = client.database("admin");
    let config = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": &host }] };
    let initiated = async || {
        // A second attempt at what was done says so, and the first may come before the server listens.
        admin.run_command(doc! { "replSetInitiate": &config }).await.ok();
        let hello = admin.run_command(doc! { "hello": 1 }).await.ok()?;
        hello.get_bool("isWritablePrimary").is_ok_and(|is| is).then_some(())
    };
    program.until("a primary", folder, initiated).await?;
    Ok((program, format!("mongodb://{host}/?replicaSet=rs0")))
}

/// Between being found free and being taken, a port may go to somebody else; then the program says so.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}
