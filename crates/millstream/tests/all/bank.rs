//! A small service to try the engine with: accounts that messages and commands change, charges outside, deadlines.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use millstream::engine::timing::Timing;
use millstream::event::Emitted;
use millstream::store::{Batch, Entry, State, Store};
use millstream::telemetry::Metric;
use millstream::testing::{Bench, eventually};
use millstream::{
    Command, CommandHandler, Document, Effect, Event, Fault, Handler, Id, Keys, Kind, Meta, Outage, Received, Service,
    Start, Stream, Timer, Timestamp, Unit, Wake,
};
use serde::{Deserialize, Serialize};

/// What comes in; the tests own it.
pub(crate) const BANK: Stream = Stream::new("BANK", "bank");
/// What the service publishes.
pub(crate) const LEDGER: Stream = Stream::new("LEDGER", "ledger");
/// The service.
pub(crate) const SERVICE: &str = "ledger";
/// A long time: waiting for something that takes it is a failure.
pub(crate) const LONG: Duration = Duration::from_secs(40);

pub(crate) static NOTED: Metric = Metric::counter("bank_noted_total", "Acts that were done.", &[]);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) balance: i64,
    /// What has happened to it, in order.
    pub(crate) log: Vec<String>,
}

impl Document for Account {
    const COLLECTION: &'static str = "accounts";
    fn id(&self) -> &str {
        &self.id
    }
}

/// What is to happen to an account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Act {
    Add(i64),
    /// Moves this much to another account.
    Send(String, i64),
    Reject,
    /// Is asked again until the bank is open.
    WhenOpen,
    Panic,
    /// Emits an event with so many bytes.
    Large(usize),
    /// Sets a charge that is due now.
    Charge,
    /// Writes the account and leaves its wake.
    Mark,
    /// Takes the wake away.
    Cancel,
    /// Sets a deadline so many milliseconds from now.
    Deadline(u64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) account: String,
    pub(crate) note: String,
    pub(crate) act: Act,
}

impl Event for Moved {
    const TYPE: &'static str = "bank.moved";
    const VERSION: u32 = 2;
    const STREAM: Stream = BANK;
    fn key(&self) -> &str {
        &self.account
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) account: String,
    pub(crate) note: String,
}

impl Event for Noted {
    const TYPE: &'static str = "ledger.noted";
    const STREAM: Stream = LEDGER;
    fn key(&self) -> &str {
        &self.account
    }
}

/// What became of a charge or a deadline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) account: String,
    pub(crate) how: String,
}

impl Event for Ended {
    const TYPE: &'static str = "ledger.ended";
    const STREAM: Stream = LEDGER;
    fn key(&self) -> &str {
        &self.account
    }
}

pub(crate) fn moved(account: &str, note: &str, act: Act) -> Moved {
    Moved { account: account.into(), note: note.into(), act }
}

fn act(moved: &Moved, world: &World, unit: &mut Unit<'_>) -> Result<Account, Fault> {
    let Moved { account: id, note, act } = moved;
    let account = unit.get::<Account>(id)?;
    let mut account = account.unwrap_or_else(|| Account { id: id.clone(), ..Account::default() });
    account.log.push(note.clone());
    let staged = account.clone();
    match act {
        Act::Add(amount) => {
            account.balance += amount;
            unit.put(account.clone());
        }
        Act::Send(to, amount) => {
            let mut other =
                unit.get::<Account>(to)?.unwrap_or_else(|| Account { id: to.clone(), ..Account::default() });
            account.balance -= amount;
            other.balance += amount;
            unit.put(account.clone());
            unit.put(other);
        }
        Act::Mark => unit.put(account.clone()),
        Act::Cancel => unit.put_without_wake(account.clone()),
        Act::Charge => unit.put_with_wake(account.clone(), Charge::KIND, unit.now()),
        Act::Deadline(ms) => {
            unit.put_with_wake(account.clone(), Deadline::KIND, unit.now() + Duration::from_millis(*ms))
        }
        Act::Large(bytes) => unit.emit(&Noted { account: id.clone(), note: "x".repeat(*bytes) }),
        // What these stage before they fail must not be seen by anybody.
        Act::Reject => {
            unit.put(staged);
            return Err(Fault::conflict(format!("the bank refuses {note}")));
        }
        Act::WhenOpen => {
            unit.put(staged);
            world.attempts().entry(note.clone()).or_default().push(Instant::now());
            if !world.open.load(Ordering::Acquire) {
                return Err(Fault::Retry("the bank is closed".into()));
            }
        }
        Act::Panic => {
            unit.put(staged);
            panic!("the bank panics at {note}");
        }
    }
    unit.count(&NOTED, &[]);
    unit.emit(&Noted { account: id.clone(), note: note.clone() });
    Ok(account)
}

fn touched(moved: &Moved) -> Keys {
    let keys = Keys::one::<Account>(&moved.account);
    if let Act::Send(to, _) = &moved.act { keys.and::<Account>(to) } else { keys }
}

struct OnMoved(World);

impl Handler<Moved> for OnMoved {
    fn touches(&self, event: &Received<Moved>) -> Keys {
        touched(event)
    }
    fn handle(&self, event: &Received<Moved>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        act(event, &self.0, unit).map(drop)
    }
}

/// The same acts as commands; the reply is the account.
impl CommandHandler<Moved> for World {
    type Reply = Account;
    fn touches(&self, moved: &Moved, _: Id) -> Keys {
        touched(moved)
    }
    fn handle(&self, moved: &Moved, _: Id, unit: &mut Unit<'_>) -> Result<Account, Fault> {
        act(moved, self, unit)
    }
}

/// Takes from one account as long as two together have enough: both are read, one is written.
#[derive(Serialize)]
pub(crate) struct Take {
    pub(crate) from: String,
    pub(crate) other: String,
    pub(crate) amount: i64,
}

impl Command for Take {
    type Reply = Account;
    fn touches(&self, _: Id) -> Keys {
        Keys::one::<Account>(&self.from).and::<Account>(&self.other)
    }
    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<Account, Fault> {
        let get = |unit: &mut Unit<'_>, id: &str| unit.get::<Account>(id)?.ok_or_else(|| Fault::not_found(id));
        let (mut from, other) = (get(unit, &self.from)?, get(unit, &self.other)?);
        if from.balance + other.balance < self.amount {
            return Err(Fault::conflict("not enough"));
        }
        from.balance -= self.amount;
        unit.put(from.clone());
        Ok(from)
    }
}

/// How the outside answers a charge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    Paid,
    Down,
    Hang,
    /// Hangs until the others are answered otherwise, and then is answered like them.
    Hold,
    Panic,
    /// An answer that cannot be settled.
    Absurd,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) account: String,
    pub(crate) attempt: u32,
    pub(crate) at: Instant,
}

/// What the service meets beside broker and store, and what it did there.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Inner>);

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) open: AtomicBool,
    attempts: Mutex<BTreeMap<String, Vec<Instant>>>,
    outside: Mutex<Outside>,
}

#[derive(Default)]
pub(crate) struct Outside {
    /// The next answers for an account; the last one stays.
    pub(crate) answers: BTreeMap<String, VecDeque<Answer>>,
    /// Answers for those that have none of their own; `Paid` without.
    pub(crate) otherwise: Option<Answer>,
    pub(crate) calls: Vec<Call>,
    running: Vec<String>,
    /// The most charges at once so far.
    pub(crate) most_running: usize,
    /// Accounts with two charges at once.
    pub(crate) overlaps: Vec<String>,
}

impl std::ops::Deref for World {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl World {
    /// When each message or command with [`Act::WhenOpen`] was handled, by its note.
    pub(crate) fn attempts(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Instant>>> {
        self.attempts.lock().unwrap()
    }

    pub(crate) fn outside(&self) -> MutexGuard<'_, Outside> {
        self.outside.lock().unwrap()
    }

    pub(crate) fn answer(&self, account: &str, answers: impl IntoIterator<Item = Answer>) {
        self.outside().answers.insert(account.into(), answers.into_iter().collect());
    }

    pub(crate) fn calls_of(&self, account: &str) -> Vec<Call> {
        self.outside().calls.iter().filter(|call| call.account == account).cloned().collect()
    }
}

/// Counts a charge as running until it has ended or was given up.
struct Running(World, String);

impl Drop for Running {
    fn drop(&mut self) {
        let mut outside = self.0.outside();
        let at = outside.running.iter().position(|account| *account == self.1).unwrap();
        outside.running.swap_remove(at);
    }
}

struct Charge(World);

impl Effect for Charge {
    type Document = Account;
    type Outcome = Answer;
    const KIND: Kind<Account> = Kind::new("charge");

    async fn run(&self, account: &Account, wake: &Wake) -> Result<Answer, Outage> {
        let id = account.id.clone();
        let (_running, mut answer) = {
            let mut outside = self.0.outside();
            if outside.running.contains(&id) {
                outside.overlaps.push(id.clone());
            }
            outside.running.push(id.clone());
            outside.most_running = outside.most_running.max(outside.running.len());
            outside.calls.push(Call { account: id.clone(), attempt: wake.attempt, at: Instant::now() });
            let otherwise = outside.otherwise.unwrap_or(Answer::Paid);
            let answers = outside.answers.entry(id.clone()).or_default();
            let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() };
            (Running(self.0.clone(), id), next.unwrap_or(otherwise))
        };
        while answer == Answer::Hold {
            tokio::time::sleep(Duration::from_millis(5)).await;
            answer = self.0.outside().otherwise.unwrap_or(Answer::Paid);
        }
        match answer {
            Answer::Paid | Answer::Absurd => Ok(answer),
            Answer::Down => Err(Outage::new("the outside is down")),
            Answer::Hang | Answer::Hold => std::future::pending().await,
            Answer::Panic => panic!("the outside panics"),
        }
    }

    fn settle(&self, account: &mut Account, outcome: Answer, unit: &mut Unit<'_>) {
        assert!(outcome != Answer::Absurd, "an absurd answer");
        account.log.push("paid".into());
        unit.emit(&Ended { account: account.id.clone(), how: "paid".into() });
    }
}

struct Deadline;

impl Timer for Deadline {
    type Document = Account;
    const KIND: Kind<Account> = Kind::new("deadline");

    fn fire(&self, account: &mut Account, unit: &mut Unit<'_>) {
        account.log.push("expired".into());
        unit.emit(&Ended { account: account.id.clone(), how: "expired".into() });
    }

    fn cancelled(&self, account: &mut Account, unit: &mut Unit<'_>) {
        account.log.push("cancelled".into());
        unit.emit(&Ended { account: account.id.clone(), how: "cancelled".into() });
    }

    fn cancellable(&self) -> bool {
        true
    }
}

/// The service.
pub(crate) fn ledger(world: &World) -> Service {
    ledger_named(SERVICE, world)
}

/// The service under another name, for a test with several of them.
pub(crate) fn ledger_named(name: &'static str, world: &World) -> Service {
    Service::new(name)
        .publishes(LEDGER)
        .keeps::<Account>()
        .reads(BANK, Start::Beginning)
        .on(OnMoved(world.clone()))
        .effect(Charge(world.clone()))
        .timer(Deadline)
        .metrics([&NOTED])
}

/// A bench whose stream BANK is there.
pub(crate) async fn bench() -> Bench {
    let bench = Bench::start().await;
    bench.declare(&BANK).await;
    bench
}

/// Short times, but for commands: that a busy machine lets one wait is no failure.
pub(crate) fn short() -> Timing {
    Timing { command_timeout: LONG, ..Timing::short() }
}

/// Publishes an act with fresh meta, which it gives.
pub(crate) async fn publish(bench: &Bench, account: &str, note: &str, act: Act) -> Meta {
    let meta = millstream::testing::fresh_meta();
    bench.publish(&meta, &moved(account, note, act)).await;
    meta
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually(what, LONG, async || condition().await).await;
}

/// The notes of all events `ledger.noted` of an account, in the order of the stream.
pub(crate) async fn notes(bench: &Bench, account: &str) -> Vec<String> {
    let all = bench.events::<Noted>().await;
    all.into_iter().filter(|noted| noted.account == account).map(|noted| noted.body.note).collect()
}

/// Leaves in the database what a process does that died after its first batch, published or not.
pub(crate) async fn dead_instance(
    store: &dyn Store,
    at: Timestamp,
    published_through: u64,
    messages: &[Emitted],
) -> Id {
    let (instance, id) = (Id::random(at), Id::random(at));
    store.insert_instance(instance).await.unwrap();
    let entry = Entry {
        id,
        version: 1,
        state: State::Done,
        attempts: 0,
        started: 0,
        redrives: 0,
        error: None,
        first_failure: None,
        last_failure: None,
        emitted: Emitted::pack(messages).into(),
        reply: None,
        instance,
        batch: 1,
        stream: String::new(),
        seq: 0,
        at,
    };
    let journal = vec![entry];
    store
        .commit(Batch { instance, batch: 1, published_through, docs: vec![], journal, keys: vec![], now: at })
        .await
        .unwrap();
    instance
}
