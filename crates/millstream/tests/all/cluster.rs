//! A broker of three servers: streams have three replicas, and one server may be lost at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, PersistenceMode};
use millstream::event::Emitted;
use millstream::testing::{Bench, Broker, Member, TestService, TestStore, eventually, fresh_meta, skip};
use millstream::{Fault, Handler, Keys, Received, Service, Start, Stream, Unit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bank::*;
use crate::lost_tails::{READER, Tell};

/// How long a cluster may take for anything: it elects its leaders after four to nine seconds, and several of them.
const PATIENCE: Duration = Duration::from_secs(120);

/// When the reader was last told something, and the longest time in which it was not.
#[derive(Clone)]
struct Heard(Arc<Mutex<(Instant, Duration, [usize; 2])>>);

impl Heard {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), Duration::ZERO, [0; 2]))))
    }

    /// How much it was told of what came through a stream: what commands have done needs LEDGER only.
    fn count(&self, stream: &Stream) -> usize {
        let [commands, messages] = self.0.lock().unwrap().2;
        if *stream == BANK { messages } else { commands + messages }
    }

    /// The longest silence since this was asked last.
    fn longest(&self) -> Duration {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

impl Handler<Noted> for Heard {
    fn touches(&self, noted: &Received<Noted>) -> Keys {
        Tell.touches(noted)
    }
    fn handle(&self, noted: &Received<Noted>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        Tell.handle(noted, unit)?;
        let mut heard = self.0.lock().unwrap();
        *heard = (Instant::now(), heard.1.max(heard.0.elapsed()), heard.2);
        heard.2[usize::from(noted.note.starts_with("message-"))] += 1;
        Ok(())
    }
}

/// What the servers of a cluster are connected by, which can be cut.
struct Wires(watch::Sender<Option<usize>>);

impl Wires {
    /// Three servers, and what each of them reaches the others through.
    async fn servers(program: Option<&Path>) -> (Self, Vec<Broker>) {
        let mut free = vec![];
        for _ in 0..6 {
            free.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let ports: Vec<u16> = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(free);
        let (cut, _) = watch::channel(None);
        let mut servers = vec![];
        for at in 0..3 {
            let mut routes = vec![];
            for other in (0..3).filter(|other| *other != at) {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                routes.push(listener.local_addr().unwrap().port());
                tokio::spawn(wire(listener, ports[other], [at, other], cut.subscribe()));
            }
            // Nothing listens there: what a server is told of by another would be a way around the wires.
            let advertised = Some(1);
            let (name, program) = (format!("server-{at}"), program.map(Into::into));
            let member = Member { name, port: ports[at], routes, advertised, program };
            servers.push(Broker::start_in_cluster(ports[3 + at], member).await);
        }
        (Self(cut), servers)
    }
}

async fn wire(listener: TcpListener, to: u16, ends: [usize; 2], cut: watch::Receiver<Option<usize>>) {
    while let Ok((from, _)) = listener.accept().await {
        if let Ok(to) = TcpStream::connect(("127.0.0.1", to)).await {
            let ((from_in, from_out), (to_in, to_out)) = (from.into_split(), to.into_split());
            tokio::spawn(pass(from_in, to_out, ends, cut.clone()));
            tokio::spawn(pass(to_in, from_out, ends, cut.clone()));
        }
    }
}

/// What is on its way when the wire is cut arrives when it no longer is.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    ends: [usize; 2],
    mut cut: watch::Receiver<Option<usize>>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let whole = cut.wait_for(|cut| cut.is_none_or(|at| !ends.contains(&at))).await.is_ok();
        if !whole || to.write_all(&bytes[..read]).await.is_err() {
            break;
        }
    }
}

/// Two replicas of the ledger and its reader on a cluster, with messages and commands all the time.
struct Trial {
    bench: Bench,
    wires: Wires,
    replicas: Vec<Arc<TestService>>,
    reader: TestService,
    heard: Heard,
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<BTreeSet<String>>>,
    /// What is known to be told.
    told: Mutex<BTreeSet<String>>,
    load: Vec<JoinHandle<()>>,
    table: Vec<(String, Duration, usize, usize)>,
}

impl Trial {
    async fn start(program: Option<PathBuf>) -> Self {
        let (wires, servers) = Wires::servers(program.as_deref()).await;
        let bench = Bench::start_on(servers, TestStore::new(), None).await;
        until_formed(&bench).await;
        bench.declare(&BANK).await;
        let (world, heard) = (World::default(), Heard::new());
        let mut replicas = vec![];
        for _ in 0..2 {
            replicas.push(Arc::new(bench.launch(ledger(&world), short()).await));
        }
        let reader = Service::new(READER).keeps::<Account>().reads(LEDGER, Start::Beginning).on(heard.clone());
        let reader = bench.launch(reader, short()).await;
        for service in replicas.iter().map(Arc::as_ref).chain([&reader]) {
            service.until_ready().await;
        }
        let (stop, accepted) = <(Arc<AtomicBool>, Arc<Mutex<BTreeSet<String>>>)>::default();
        let mut load: Vec<_> = replicas
            .iter()
            .enumerate()
            .map(|(replica, service)| {
                let (service, world, stop, accepted) = (service.clone(), world.clone(), stop.clone(), accepted.clone());
                tokio::spawn(async move {
                    for at in (0..).take_while(|_| !stop.load(Ordering::Acquire)) {
                        let note = format!("command-{replica}-{at}");
                        if service.submit_to(&world, moved(&account(at), &note, Act::Add(1))).await.is_ok() {
                            accepted.lock().unwrap().insert(note);
                        }
                        // Neither does it take all of the processor nor more than the journal may hold back.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                })
            })
            .collect();
        load.push(tokio::spawn(publish_all(bench.jetstream().clone(), stop.clone(), accepted.clone())));
        let trial =
            Self { bench, wires, replicas, reader, heard, stop, accepted, told: Mutex::default(), load, table: vec![] };
        trial.until_whole().await;
        trial.until_more(&BANK).await;
        trial.heard.longest();
        trial
    }

    /// Waits until something is told that was not begun before.
    async fn until_more(&self, of: &Stream) {
        let begun = self.heard.count(of);
        eventually("more to be told", PATIENCE, async || self.heard.count(of) > begun + 50).await;
    }

    /// Waits until all servers have all that the streams have.
    async fn until_whole(&self) {
        for stream in ["BANK", "LEDGER", "DLQ_LEDGER", "REDRIVE"] {
            eventually(&format!("three servers to have {stream}"), PATIENCE, async || {
                replicas(&self.bench, stream).await == Some(3)
            })
            .await;
        }
    }

    /// Waits until all that was accepted is told, and notes what a fault did.
    async fn note(&mut self, fault: &str) {
        self.until_more(&BANK).await;
        self.until_whole().await;
        let accepted = self.accepted.lock().unwrap().clone();
        let told = async || self.untold(&accepted).await == 0;
        // What is lost is for the table to say.
        let all = tokio::time::timeout(PATIENCE, eventually("all to be told", PATIENCE * 2, told)).await;
        let lost = if all.is_ok() { 0 } else { self.untold(&accepted).await };
        let doubled = self.doubled(&accepted).await;
        self.table.push((fault.into(), self.heard.longest(), lost, doubled));
    }

    async fn untold(&self, accepted: &BTreeSet<String>) -> usize {
        let known = self.told.lock().unwrap().clone();
        let mut untold = 0;
        for note in accepted.difference(&known) {
            match self.reader.get::<Account>(note).await {
                Some(_) => drop(self.told.lock().unwrap().insert(note.clone())),
                None => untold += 1,
            }
        }
        untold
    }

    /// What was told twice, done twice, or published under two ids.
    async fn doubled(&self, accepted: &BTreeSet<String>) -> usize {
        let mut doubled = BTreeSet::new();
        for note in accepted {
            let told = self.reader.get::<Account>(note).await;
            doubled.extend(told.filter(|told| told.balance > 1).map(|told| told.id));
        }
        for at in 0..ACCOUNTS {
            let mut seen = BTreeSet::new();
            let done = self.replicas[0].get::<Account>(&account(at)).await;
            let done = done.into_iter().flat_map(|account| account.log);
            doubled.extend(done.filter(|note| !seen.insert(note.clone())));
        }
        let mut ids = BTreeMap::<String, BTreeSet<_>>::new();
        for noted in self.bench.events::<Noted>().await {
            ids.entry(noted.body.note).or_default().insert(noted.meta.id);
        }
        doubled.extend(ids.into_iter().filter(|(_, ids)| ids.len() > 1).map(|(note, _)| note));
        doubled.len()
    }

    /// Kills the server that leads a stream, and starts it again once the others go on without it.
    async fn kill_the_leader(&mut self, stream: &Stream) {
        self.bench.leader(stream).await.kill();
        self.until_more(stream).await;
        for server in self.servers() {
            if !server.is_running() {
                server.restart().await;
            }
        }
    }

    fn servers(&mut self) -> impl Iterator<Item = &mut Broker> {
        [&mut self.bench.broker].into_iter().chain(&mut self.bench.others)
    }

    /// Ends the load, prints what the faults did, and expects that nothing was lost or doubled.
    async fn end(mut self) {
        self.stop.store(true, Ordering::Release);
        for load in std::mem::take(&mut self.load) {
            load.await.unwrap();
        }
        let accepted = self.accepted.lock().unwrap().clone();
        eventually("all to be told", PATIENCE, async || self.untold(&accepted).await == 0).await;
        println!("{} inputs\n{:<56} | {:>24} | lost | doubled", accepted.len(), "fault", "seconds without progress");
        for (fault, silence, lost, doubled) in &self.table {
            println!("{fault:<56} | {:>24.1} | {lost:>4} | {doubled:>7}", silence.as_secs_f64());
        }
        assert_eq!(self.doubled(&accepted).await, 0);
        assert!(self.table.iter().all(|(_, _, lost, doubled)| (*lost, *doubled) == (0, 0)), "{:?}", self.table);
        assert!(self.bench.dead_letters(SERVICE).await.is_empty() && self.bench.dead_letters(READER).await.is_empty());
        for service in std::mem::take(&mut self.replicas) {
            Arc::into_inner(service).unwrap().stop().await;
        }
        self.reader.stop().await;
    }
}

const ACCOUNTS: usize = 101;

fn account(at: usize) -> String {
    format!("a{}", at % ACCOUNTS)
}

/// Publishes again what was not acknowledged, under the id that it had.
async fn publish_all(
    jetstream: async_nats::jetstream::Context,
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<BTreeSet<String>>>,
) {
    for at in (0..).take_while(|_| !stop.load(Ordering::Acquire)) {
        let note = format!("message-{at}");
        let event = Emitted::event("bench", &fresh_meta(), &moved(&account(at), &note, Act::Add(1))).unwrap();
        let mut headers = HeaderMap::new();
        event.headers.iter().for_each(|(name, value)| headers.append(name.as_str(), value.as_str()));
        loop {
            let sent =
                jetstream.publish_with_headers(event.subject.clone(), headers.clone(), event.payload.clone()).await;
            if let Ok(sent) = sent
                && sent.await.is_ok()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        accepted.lock().unwrap().insert(note);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until three servers take a stream: before they have found each other, one replica is all there can be.
async fn until_formed(bench: &Bench) {
    let js = bench.jetstream();
    let probe =
        || Config { name: "FORMED".into(), subjects: vec!["formed".into()], num_replicas: 3, ..Config::default() };
    eventually("the cluster to form", PATIENCE, async || js.create_stream(probe()).await.is_ok()).await;
    js.delete_stream("FORMED").await.unwrap();
}

/// How many servers have all of a stream.
async fn replicas(bench: &Bench, stream: &str) -> Option<usize> {
    let info = bench.jetstream().get_stream(stream).await.ok()?.cached_info().clone();
    let cluster = info.cluster?;
    cluster.leader.filter(|leader| !leader.is_empty())?;
    Some(1 + cluster.replicas.iter().filter(|peer| peer.current && !peer.offline).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_on_three_servers_goes_on_while_the_leader_of_its_stream_is_killed() {
    let mut trial = Trial::start(None).await;
    let durable = trial.bench.durable(&BANK, SERVICE).await.unwrap();
    assert_eq!(
        durable.cluster.map(|cluster| cluster.replicas.len()),
        Some(2),
        "a durable has as many replicas as its stream"
    );
    trial.kill_the_leader(&LEDGER).await;
    trial.note("the leader is killed").await;
    trial.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_one_replica_is_raised_in_a_cluster_and_declared_again_without_effect() {
    let (_wires, servers) = Wires::servers(None).await;
    let bench = Bench::start_on(servers, TestStore::new(), None).await;
    let js = bench.jetstream();
    until_formed(&bench).await;
    let made = Config { name: "BANK".into(), subjects: vec!["bank.>".into()], num_replicas: 1, ..Config::default() };
    let metadata = [("millstream.partitions".to_owned(), BANK.partitions.to_string())].into();
    js.create_stream(Config { metadata, ..made }).await.unwrap();
    assert_eq!(js.get_stream("BANK").await.unwrap().cached_info().config.num_replicas, 1);
    bench.declare(&BANK).await;
    eventually("three servers to have it", PATIENCE, async || replicas(&bench, "BANK").await == Some(3)).await;
    bench.declare(&BANK).await;
    assert_eq!(js.get_stream("BANK").await.unwrap().cached_info().config.num_replicas, 3);
}

#[tokio::test]
async fn on_a_single_server_three_replicas_and_acks_before_the_write_are_refused() {
    let bench = Bench::start_on(vec![Broker::start().await], TestStore::new(), Some(3)).await;
    let service = bench.launch(ledger(&World::default()), short()).await;
    service.until_waits_for("stream LEDGER cannot have 3 replicas on the broker's servers").await;
    service.stop().await;
    let bench = Bench::start().await;
    let early = Config {
        name: "LEDGER".into(),
        subjects: vec!["ledger.>".into()],
        persist_mode: Some(PersistenceMode::Async),
        metadata: [("millstream.partitions".to_owned(), LEDGER.partitions.to_string())].into(),
        ..Config::default()
    };
    bench.jetstream().create_stream(early).await.unwrap();
    let service = bench.launch(ledger(&World::default()), short()).await;
    service.until_waits_for("stream LEDGER has `persist_mode: async`").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_cluster_whose_servers_are_killed_frozen_cut_off_and_restarted_under_load_loses_and_doubles_nothing() {
    let mut trial = Trial::start(None).await;
    for round in 0..3 {
        for stream in [&LEDGER, &BANK] {
            trial.kill_the_leader(stream).await;
            trial.note(&format!("the leader of {} is killed, {round}", stream.name)).await;
        }
    }
    for stream in [&LEDGER, &BANK] {
        trial.bench.leader(stream).await.pause();
        trial.until_more(stream).await;
        trial.servers().for_each(|server| server.resume());
        trial.note(&format!("the leader of {} stands still and goes on", stream.name)).await;
    }
    for stream in [&LEDGER, &BANK] {
        let name = trial.bench.leader(stream).await.name().unwrap().to_owned();
        trial.wires.0.send_replace(name.strip_prefix("server-").and_then(|at| at.parse().ok()));
        // Clients that are connected to it stay there, and get no further.
        tokio::time::sleep(Duration::from_secs(12)).await;
        trial.wires.0.send_replace(None);
        trial.note(&format!("the leader of {} is cut off from the others for 12 s", stream.name)).await;
    }
    for at in 0..3 {
        trial.servers().nth(at).unwrap().restart().await;
        trial.note(&format!("server {at} is restarted")).await;
    }
    trial.servers().for_each(Broker::kill);
    for at in 0..3 {
        trial.servers().nth(at).unwrap().restart().await;
    }
    trial.note("all servers are killed at once").await;
    trial.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn a_cluster_that_is_upgraded_server_by_server_under_load_loses_and_doubles_nothing() {
    let earlier = nats_embedded::cached().map(|cached| cached.with_file_name("nats-server-2.14.0"));
    let Some(earlier) = earlier.filter(|path| path.is_file()) else {
        return skip("the upgrade of a cluster", "there is no nats-server-2.14.0 beside the cached nats-server");
    };
    let mut trial = Trial::start(Some(earlier)).await;
    let lacking = async || trial.replicas[0].notes().iter().any(|note| note.contains("nats-server 2.14.0"));
    assert!(lacking().await, "what the earlier version lacks is said");
    for at in 0..3 {
        trial.servers().nth(at).unwrap().restart_as(None).await;
        trial.note(&format!("server {at} is upgraded from 2.14.0")).await;
    }
    assert!(!trial.replicas[0].notes().iter().any(|note| note.contains("nats-server 2.14.0")));
    trial.end().await;
}
