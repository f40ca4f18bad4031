//! Doing to a shop what a fault says.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use futures_util::future::try_join_all;
use millstream::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::fault::{Ailment, Fault, Service};
use super::fleet::{Fleet, persist};
use super::line::State;
use super::program::Program;
use crate::{tryout, wire};

/// How long a gateway that forgets remembers a key: longer than payments repeats without asking, see `fleet.rs`.
const KEYS_KEPT: Duration = Duration::from_secs(5);
/// How long it charges again before it is itself again.
const KEYS_MISSED: Duration = Duration::from_secs(2);

impl Fleet {
    /// Does it once nothing else uses what it needs, and returns when it is over.
    pub(super) async fn strike(&self, fault: &Fault) -> Result<()> {
        // All take them in the same order, so none waits for another that waits for it.
        let mut used = vec![];
        for part in fault.needs() {
            used.push(self.parts[&part].lock().await);
        }
        let wait = async |ms: u64| sleep(Duration::from_millis(ms)).await;
        match fault {
            Fault::Kill { replicas, down_ms } => {
                let programs = replicas.iter().map(|replica| Ok(&self.member(*replica)?.program));
                let programs: Vec<&Program> = programs.collect::<Result<_>>()?;
                try_join_all(programs.iter().map(|program| self.kill(program))).await?;
                wait(*down_ms).await;
                try_join_all(programs.iter().map(|program| program.start())).await?;
            }
            Fault::CrashLoop { replica, times, life_ms } => {
                let program = &self.member(*replica)?.program;
                for _ in 0..*times {
                    self.kill(program).await?;
                    program.start().await?;
                    wait(*life_ms).await;
                }
            }
            Fault::KillAll { down_ms } => {
                let programs = try_join_all(self.programs().map(|program| self.kill(program)));
                tokio::join!(programs, self.kill_broker()).0?;
                wait(*down_ms).await;
                self.start_programs().await?;
                self.start_broker().await?;
            }
            Fault::Freeze { replicas, for_ms } => {
                for (pause, signal) in [(*for_ms, "STOP"), (0, "CONT")] {
                    for replica in replicas {
                        self.member(*replica)?.program.signal(signal).await;
                    }
                    wait(pause).await;
                }
            }
            Fault::Roll { service } => self.roll(*service).await?,
            Fault::Cut { replica, for_ms } | Fault::HalfOpen { replica, for_ms } => {
                let line = &self.member(*replica)?.line;
                line.turn(if matches!(fault, Fault::Cut { .. }) { State::Cut } else { State::HalfOpen });
                wait(*for_ms).await;
                line.turn(State::Open);
            }
            Fault::KillBroker { down_ms } => {
                self.kill_broker().await;
                wait(*down_ms).await;
                self.start_broker().await?;
            }
            Fault::FreezeBroker { for_ms } => {
                self.signal_broker("STOP").await;
                wait(*for_ms).await;
                self.signal_broker("CONT").await;
            }
            Fault::PutBackBroker { ago_ms } => self.put_back_broker(*ago_ms).await?,
            Fault::PutBackStore { service, ago_ms } => self.put_back_store(*service, *ago_ms).await?,
            Fault::KillGateway { down_ms } => {
                self.kill(&self.gateway).await?;
                wait(*down_ms).await;
                self.gateway.start().await?;
            }
            Fault::ForgetKeys { for_ms } => {
                let keys_kept = format!("{}s", KEYS_KEPT.as_secs());
                self.kill(&self.gateway).await?;
                self.gateway.start_with(&["--remember-keys", &keys_kept]).await?;
                self.ail(&json!({ "captureThenFail": 1.0 })).await?;
                let down = KEYS_KEPT + Duration::from_secs(1);
                sleep(Duration::from_millis(*for_ms).saturating_sub(down + KEYS_MISSED)).await;
                self.ail(&json!({ "down": true })).await?;
                sleep(down).await;
                self.ail(&json!({})).await?;
                sleep(KEYS_MISSED).await;
                self.kill(&self.gateway).await?;
                self.gateway.start().await?;
            }
            Fault::AilGateway { how, for_ms } => {
                self.ail(&match how {
                    Ailment::Down => json!({ "down": true }),
                    Ailment::Slow => json!({ "latencyMs": 7_000 }),
                    Ailment::Failing => json!({ "error": 0.5 }),
                    Ailment::LosingAnswers => json!({ "captureThenFail": 0.5 }),
                })
                .await?;
                wait(*for_ms).await;
                self.ail(&json!({})).await?;
            }
            Fault::DeleteConsumer { service, stream } => {
                persist("deleting a consumer", async || {
                    let broker = jetstream::new(wire::broker(&self.urls.nats).await?);
                    broker.delete_consumer_from_stream(service.name(), stream).await?;
                    Ok(())
                })
                .await?;
            }
            Fault::PauseConsumer { service, stream, for_ms } => {
                persist("pausing a consumer", async || self.pause(*service, stream, *for_ms).await).await?;
                wait(*for_ms).await;
            }
            Fault::Poison => {
                persist("publishing a poisoned event", async || tryout::poison::publish(&self.http, &self.urls).await)
                    .await?;
            }
            Fault::Surge { orders } => self.load(u64::from(*orders), None)?,
        }
        Ok(())
    }

    async fn roll(&self, service: Service) -> Result<()> {
        for replica in service.replicas() {
            let program = &self.member(replica)?.program;
            if let Err(error) = program.stop().await {
                self.note_trouble(format!("{error:#}"));
            }
            program.start().await?;
            // What is away meanwhile may keep it from being ready; whoever rolls out a release waits, but not for ever.
            self.is_ready(replica, Duration::from_secs(10)).await.ok();
        }
        Ok(())
    }

    async fn put_back_broker(&self, ago_ms: u64) -> Result<()> {
        let files = self.data.broker().join("jetstream");
        let copy = self.data.path().join("jetstream-copy");
        self.freeze_broker().await;
        let copied = copy_folder(&files, &copy);
        self.signal_broker("CONT").await;
        copied?;
        sleep(Duration::from_millis(ago_ms)).await;
        self.kill_broker().await;
        fs::remove_dir_all(&files).and_then(|()| fs::rename(&copy, &files)).context("cannot put the broker back")?;
        self.start_broker().await
    }

    async fn put_back_store(&self, service: Service, ago_ms: u64) -> Result<()> {
        let programs = service.replicas().map(|replica| Ok(&self.member(replica)?.program));
        let programs: Vec<&Program> = programs.into_iter().collect::<Result<_>>()?;
        let copy = self.data.path().join(format!("{service}-copy"));
        fs::create_dir_all(&copy)?;
        for program in &programs {
            program.freeze().await;
        }
        let copied = database(self.data.path(), service)?.iter().try_for_each(|file| copy_into(file, &copy));
        for program in &programs {
            program.signal("CONT").await;
        }
        copied?;
        sleep(Duration::from_millis(ago_ms)).await;
        try_join_all(programs.iter().map(|program| self.kill(program))).await?;
        for file in database(self.data.path(), service)? {
            fs::remove_file(file)?;
        }
        for file in database(&copy, service)? {
            // It belongs to processes that map it, and is made again from the log beside it.
            if !file.to_string_lossy().ends_with("-shm") {
                copy_into(&file, self.data.path())?;
            }
        }
        fs::remove_dir_all(&copy)?;
        try_join_all(programs.iter().map(|program| program.start())).await?;
        Ok(())
    }

    /// How many a service has.
    pub(super) async fn dead_letters(&self, service: Service) -> Result<usize> {
        let broker = jetstream::new(wire::broker(&self.urls.nats).await?);
        let stream = format!("DLQ_{}", service.name().to_uppercase());
        let stream = broker.get_stream(&stream).await.with_context(|| format!("cannot look at {stream}"))?;
        Ok(usize::try_from(stream.cached_info().state.messages)?)
    }

    async fn ail(&self, faults: &Value) -> Result<()> {
        let url = format!("{}/faults", self.urls.gateway);
        let put = async || {
            self.http.put(&url).json(faults).send().await?.error_for_status()?;
            Ok(())
        };
        persist("switching the gateway's faults", put).await
    }

    /// By the broker's own API: the client's needs a type of time that is none of ours.
    async fn pause(&self, service: Service, stream: &str, for_ms: u64) -> Result<()> {
        let until = Timestamp::system() + Duration::from_millis(for_ms);
        let subject = format!("$JS.API.CONSUMER.PAUSE.{stream}.{service}");
        let client = wire::broker(&self.urls.nats).await?;
        let answer = client.request(subject, json!({ "pause_until": until }).to_string().into()).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(answer["paused"] == true, "the broker answered {answer}");
        Ok(())
    }
}

/// The files of a service's database that are in a folder.
fn database(folder: &Path, service: Service) -> Result<Vec<PathBuf>> {
    let files = fs::read_dir(folder)?.map(|file| Ok(file?.path()));
    let mut files: Vec<PathBuf> = files.collect::<Result<_>>()?;
    let name = format!("{service}.db");
    files.retain(|file| file.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)));
    Ok(files)
}

fn copy_into(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a file has a name")?;
    fs::copy(file, folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            copy_folder(&path, &to.join(path.file_name().context("a folder has a name")?))?;
        } else {
            copy_into(&path, to)?;
        }
    }
    Ok(())
}
