//! The service under test. It books each entry that it is asked for once, in one of the ways that an engine knows: at once, by
//! an effect, by a timer, after a retry, or not at all.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use millstream::commands::{Caller, Context};
use millstream::config::{Config, Logs, NatsUrl, StoreUrl};
use millstream::engine::timing::Timing;
use millstream::http::{Body, Problem};
use millstream::retry::Retry;
use millstream::service::Options;
use millstream::telemetry::{LogFormat, init_logs};
use millstream::testing::{crash_at, stop_at};
use millstream::{
    Command, Document, Effect, Event, Fault, Handler, Id, Keys, Kind, Outage, Received, Service, Start, Stream, Timer,
    Unit, Wake,
};
use serde::{Deserialize, Serialize};

use super::accounts::{self, Account};

pub(super) const NAME: &str = "ledger";
pub(super) const ASKED: Stream = Stream::new("ASKED", "asked");
pub(super) const TOLD: Stream = Stream::new("TOLD", "told");

/// Asks for entry `n`.
#[derive(Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) n: u64,
    pub(super) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum How {
    AtOnce,
    /// Through a call to the outside.
    Outside,
    Later,
    /// The first time it asks to be tried again.
    Again,
    Refused,
    /// Refused the first time, and booked when it is redriven.
    Mended,
    /// Refused the first time; when it is redriven the process dies of it.
    RefusedThenDeadly,
    /// The process dies of it.
    Deadly,
    /// First it asks to be tried again, then the process dies of it.
    AgainThenDeadly,
}

impl Event for Asked {
    const TYPE: &'static str = "asked.entry";
    const STREAM: Stream = ASKED;

    fn key(&self) -> &str {
        "ledger"
    }
}

/// Entry `n` is booked.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) n: u64,
}

impl Event for Told {
    const TYPE: &'static str = "told.booked";
    const STREAM: Stream = TOLD;

    fn key(&self) -> &str {
        "ledger"
    }
}

/// An entry: how often it was asked for and booked, which is once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Slip {
    id: String,
    pub(super) asked: u64,
    pub(super) booked: u64,
}

impl Document for Slip {
    const COLLECTION: &'static str = "slips";

    fn id(&self) -> &str {
        &self.id
    }
}

impl Slip {
    fn asked(unit: &mut Unit<'_>, n: u64) -> Result<Self, Fault> {
        let slip = unit.get::<Self>(&n.to_string())?.unwrap_or(Self { id: n.to_string(), asked: 0, booked: 0 });
        Ok(Self { asked: slip.asked + 1, ..slip })
    }

    fn book(&mut self, unit: &mut Unit<'_>) {
        self.booked += 1;
        unit.emit(&Told { n: self.id.parse().expect("a slip's id is its number") });
    }
}

/// How many entries were booked at once: a few documents that everything contends for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tally {
    id: String,
    count: u64,
}

impl Document for Tally {
    const COLLECTION: &'static str = "tallies";

    fn id(&self) -> &str {
        &self.id
    }
}

fn tally(n: u64) -> String {
    format!("tally-{}", n % 4)
}

fn touches(n: u64) -> Keys {
    Keys::one::<Slip>(n.to_string()).and::<Tally>(tally(n))
}

fn book_at_once(unit: &mut Unit<'_>, n: u64) -> Result<(), Fault> {
    let mut slip = Slip::asked(unit, n)?;
    slip.book(unit);
    unit.put(slip);
    let tally = unit.get::<Tally>(&tally(n))?.unwrap_or(Tally { id: tally(n), count: 0 });
    unit.put(Tally { count: tally.count + 1, ..tally });
    Ok(())
}

struct OnAsked {
    folder: PathBuf,
}

impl OnAsked {
    /// Whether this is the first time in all processes: real handlers are pure, this one plays a fault that passes.
    fn first_time(&self, n: u64) -> bool {
        OpenOptions::new().write(true).create_new(true).open(self.folder.join(format!("seen-{n}"))).is_ok()
    }
}

impl Handler<Asked> for OnAsked {
    fn touches(&self, asked: &Received<Asked>) -> Keys {
        touches(asked.n)
    }

    fn handle(&self, asked: &Received<Asked>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let n = asked.n;
        let again = || Fault::Retry(format!("{n} is not possible yet"));
        match asked.how {
            How::Again if self.first_time(n) => Err(again()),
            How::AtOnce | How::Again => book_at_once(unit, n),
            How::Outside => {
                let slip = Slip::asked(unit, n)?;
                unit.put_with_wake(slip, CallOutside::KIND, unit.now());
                Ok(())
            }
            How::Later => {
                let slip = Slip::asked(unit, n)?;
                unit.put_with_wake(slip, Ring::KIND, unit.now() + Duration::from_millis(50));
                Ok(())
            }
            How::Refused => Err(Fault::conflict(format!("{n} is refused"))),
            How::Mended | How::RefusedThenDeadly if self.first_time(n) => {
                Err(Fault::conflict(format!("{n} is refused at first")))
            }
            How::Mended => book_at_once(unit, n),
            How::AgainThenDeadly if self.first_time(n) => Err(again()),
            How::Deadly | How::AgainThenDeadly | How::RefusedThenDeadly => {
                eprintln!("{n} is deadly");
                std::process::abort();
            }
        }
    }
}

/// The outside is a file with a line for each call.
struct CallOutside {
    folder: PathBuf,
}

pub(super) fn calls(folder: &Path) -> PathBuf {
    folder.join("calls")
}

impl Effect for CallOutside {
    type Document = Slip;
    type Outcome = ();
    const KIND: Kind<Slip> = Kind::new("call");

    async fn run(&self, slip: &Slip, _: &Wake) -> Result<(), Outage> {
        let file = OpenOptions::new().create(true).append(true).open(calls(&self.folder));
        let called = file.and_then(|mut file| file.write_all(format!("{}\n", slip.id).as_bytes()));
        called.map_err(|error| Outage::new(error.to_string()))
    }

    fn settle(&self, slip: &mut Slip, (): (), unit: &mut Unit<'_>) {
        slip.book(unit);
    }
}

struct Ring;

impl Timer for Ring {
    type Document = Slip;
    const KIND: Kind<Slip> = Kind::new("ring");

    fn fire(&self, slip: &mut Slip, unit: &mut Unit<'_>) {
        slip.book(unit);
    }
}

#[derive(Serialize, Deserialize)]
struct Ask {
    n: u64,
}

impl Command for Ask {
    type Reply = u64;

    fn touches(&self, _: Id) -> Keys {
        touches(self.n)
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<u64, Fault> {
        book_at_once(unit, self.n)?;
        Ok(self.n)
    }
}

async fn ask(State(cx): State<Context>, caller: Caller, Body(ask): Body<Ask>) -> Result<Json<u64>, Problem> {
    let n = ask.n;
    cx.submit(&caller, ask).await?;
    Ok(Json(n))
}

fn service(folder: &Path, single_writer: bool) -> Service {
    let service = Service::new(NAME)
        .publishes(ASKED)
        .publishes(TOLD)
        .keeps::<Slip>()
        .keeps::<Tally>()
        .reads(ASKED, Start::Beginning)
        .on(OnAsked { folder: folder.into() })
        .effect(CallOutside { folder: folder.into() })
        .timer(Ring)
        .keeps::<Account>()
        .routes(Router::new().route("/entries", post(ask)).merge(accounts::routes()));
    if single_writer { service.single_writer() } else { service }
}

/// What a process is told, in the variable that is named by [`ERRAND`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Errand {
    pub(super) nats: String,
    /// The store's URL.
    pub(super) store: String,
    pub(super) folder: PathBuf,
    /// Where to die, and at which time of being there.
    pub(super) crash: Option<(String, u64)>,
    /// Where to stop until a SIGCONT comes, and at which time of being there.
    pub(super) stop: Option<(String, u64)>,
    /// The same, counted from when it is told so.
    pub(super) stop_when_told: Option<(String, u64)>,
    /// Whether the watermark is written only after something was published, and not also as a sign of life.
    pub(super) silent: bool,
    /// Whether the instance rows of others are swept.
    pub(super) sweeps: bool,
    /// Whether one replica reads and the others stand by; how long it may not pull.
    pub(super) pin_ms: Option<u64>,
    /// For how long after a connect the journal is asked for every delivery.
    pub(super) distrust_ms: u64,
}

pub(super) const ERRAND: &str = "MILLSTREAM_LEDGER";

pub(super) const DEAD_AFTER: Duration = Duration::from_millis(1000);

fn timing(errand: &Errand) -> Timing {
    let ms = Duration::from_millis;
    let long = Duration::from_secs(3600);
    Timing {
        ack_wait: ms(800),
        lease: ms(1000),
        effect_timeout: ms(800),
        message_retry: Retry { first: ms(20), longest: ms(100), jitter: 0.2, attempts: 8 },
        heartbeat: if errand.silent { long } else { ms(200) },
        dead_after: if errand.sweeps { DEAD_AFTER } else { long },
        instance_sweep: ms(100),
        distrust: ms(errand.distrust_ms),
        pin_timeout: ms(errand.pin_ms.unwrap_or(1000)),
        ..Timing::short()
    }
}

/// Not a test: what the processes run that other tests start.
#[test]
fn a_ledger_process() {
    let Ok(errand) = std::env::var(ERRAND) else { return };
    let errand: Errand = serde_json::from_str(&errand).unwrap();
    // The standard input ends with the process of the test, and nothing is left behind by a test that was killed. A byte that
    // comes before arms the stop.
    let when_told = errand.stop_when_told.clone();
    std::thread::spawn(move || {
        if let (Ok(1), Some((point, nth))) = (std::io::stdin().read(&mut [0]), &when_told) {
            stop_at(point, *nth);
            let _ = std::io::stdin().read(&mut [0]);
        }
        std::process::exit(3);
    });
    if let Some((point, nth)) = &errand.crash {
        crash_at(point, *nth);
    }
    if let Some((point, nth)) = &errand.stop {
        stop_at(point, *nth);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(errand));
}

async fn serve(errand: Errand) {
    let logs = Logs { log_format: Some(LogFormat::Json), log: "info".into() };
    init_logs(&logs).unwrap();
    let mut config = Config::new(NatsUrl::read(&errand.nats).unwrap(), StoreUrl::read(&errand.store).unwrap());
    config.journal_retention = Some(Duration::from_secs(3600));
    let listener = tokio::net::TcpListener::bind((config.host, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    println!("{LISTENING}{port}");
    // Keys are kept no longer than the journal.
    let timing = Timing { key_retention: Duration::from_secs(3600), ..timing(&errand) };
    let options = Options { timing, ..Options::default() };
    let shutdown = async move {
        term.recv().await;
    };
    service(&errand.folder, errand.pin_ms.is_some()).run(config, options, listener, shutdown).await.unwrap();
}

/// What a process says before its port.
pub(super) const LISTENING: &str = "the ledger listens on ";
