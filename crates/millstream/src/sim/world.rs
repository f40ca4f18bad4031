//! [`Sim`]: the world that a seed drives.

use std::fmt::{self, Write as _};
use std::time::Duration;

use millstream_core::planner::{
    CommandFailure, CommandInput, Decoder, Delivery, End, Idempotency, Incoming, Input, Reply,
};
use millstream_core::timing::Timing;
use sha2::{Digest, Sha256};

use crate::dead_letter::{REDRIVE, STATE, stream_name, subjects};
use crate::event::{Emitted, Event, Meta};
use crate::handler::{Command, CommandHandler, Document, Key, Wake};
use crate::ids::{Id, Timestamp};
use crate::service::{Service, Start};
use crate::sim::app::App;
use crate::sim::broker::{Ack, ConsumerConfig, Deliver, Pull, SimBroker, StreamConfig};
use crate::sim::random::Random;
use crate::sim::replica::{Arrival, Done, Fortune, Receipt, Replica, millis};
use crate::store::{Expiry, Settled};
use crate::telemetry::Metric;
use crate::unit::Work;
use crate::work::{CommandWork, Itself};

/// 2026-01-01T00:00:00Z, in milliseconds.
const EPOCH: u64 = 1_767_225_600_000;
/// Steps after which a world that is left alone counts as one that does not come to rest.
const RESTLESS: usize = 200_000;

/// What may go wrong, each in so many of 1000 cases where it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// A process is killed; another one starts in its place.
    pub kill: u32,
    /// A process is left alone for up to 40 seconds.
    pub freeze: u32,
    /// An ack does not arrive.
    pub lost_ack: u32,
    /// The ack of a publish does not arrive, and the message is sent again.
    pub lost_publish_ack: u32,
    /// A commit fails in one of four ways.
    pub commit: u32,
    /// The answer of an effect does not arrive, although it has happened.
    pub lost_outcome: u32,
    /// A durable is deleted, and made anew from where the service first began.
    pub consumer: u32,
    /// How far clocks of processes differ from the broker's at most, in milliseconds.
    pub skew_ms: u64,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            kill: 0,
            freeze: 0,
            lost_ack: 0,
            lost_publish_ack: 0,
            commit: 0,
            lost_outcome: 0,
            consumer: 0,
            skew_ms: 0,
        }
    }

    /// Everything goes wrong that may.
    pub fn all() -> Self {
        Self {
            kill: 12,
            freeze: 8,
            lost_ack: 60,
            lost_publish_ack: 60,
            commit: 120,
            lost_outcome: 100,
            consumer: 3,
            skew_ms: 2000,
        }
    }
}

/// What a caller asks for, again and again until it has an answer.
struct Asked {
    service: usize,
    key: Option<String>,
    work: Box<dyn Fn(Id) -> Box<dyn Work> + Send>,
    fingerprint: [u8; 32],
    tries: u32,
    /// When the last try was sent.
    since: Option<u64>,
    answer: Option<Result<Reply, CommandFailure>>,
}

/// A call to a service, by which its answer is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(usize);

/// Services on a broker, a store and a clock in memory.
pub struct Sim {
    seed: u64,
    random: Random,
    faults: Faults,
    timing: Timing,
    now: u64,
    broker: SimBroker,
    apps: Vec<App>,
    calls: Vec<Asked>,
    frozen: Vec<(usize, usize, u64)>,
    /// What is done after so many actions.
    acts: Vec<(usize, Box<dyn FnOnce(&mut Self) + Send>)>,
    log: Vec<String>,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed)
            .field("now", &Timestamp::from_millis(self.now))
            .finish_non_exhaustive()
    }
}

/// What a seed has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// After how many actions the faults ended in the shortest run that still fails.
    pub actions: usize,
    /// What is wrong.
    pub what: String,
    /// The last actions before.
    pub log: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, after {} actions: {}", self.seed, self.actions, self.what)?;
        self.log.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Runs a world for each seed: `actions` of them with faults, then until it is at rest, then `check`. Ends at the first that
/// fails, with the shortest prefix of its actions that still does.
///
/// # Errors
/// What was found.
pub fn hunt(
    seeds: impl IntoIterator<Item = u64>,
    actions: usize,
    world: impl Fn(u64) -> Sim,
    check: impl Fn(&mut Sim) -> Result<(), String>,
) -> Result<u64, Box<Failure>> {
    let mut count = 0;
    for seed in seeds {
        count += 1;
        let run = |actions: usize| {
            let mut sim = world(seed);
            let done = sim.run(actions).and_then(|()| sim.settle()).and_then(|()| check(&mut sim));
            done.map_err(|what| (what, sim.log.split_off(sim.log.len().saturating_sub(40))))
        };
        let Err(mut found) = run(actions) else { continue };
        let mut shortest = actions;
        // A shorter prefix need not fail because a longer one does, so all lengths of a doubling are tried.
        let mut length = 1;
        while length < shortest {
            if let Err(shorter) = run(length) {
                (found, shortest) = (shorter, length);
                break;
            }
            length += 1 + length / 8;
        }
        let (what, log) = found;
        return Err(Box::new(Failure { seed, actions: shortest, what, log }));
    }
    Ok(count)
}

impl Sim {
    /// A world without services, in which nothing goes wrong.
    pub fn new(seed: u64) -> Self {
        let mut timing = Timing::default();
        timing.message_retry.jitter = 0.0;
        timing.effect_retry.jitter = 0.0;
        timing.journal_retention = Duration::from_secs(900);
        // Callers ask again for as long as it takes, and the key must be known for as long.
        timing.key_retention = Duration::from_secs(900);
        Self {
            seed,
            random: Random::new(seed),
            faults: Faults::none(),
            timing,
            now: EPOCH,
            broker: SimBroker::new(),
            apps: vec![],
            calls: vec![],
            frozen: vec![],
            acts: vec![],
            log: vec![],
        }
    }

    /// Lets things go wrong.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Adds a service with so many replicas.
    ///
    /// # Panics
    /// When two services own the same stream.
    #[must_use]
    pub fn with(mut self, service: &Service, replicas: usize) -> Self {
        let app = App::new(service, self.timing.clone(), replicas);
        let mut redrives = StreamConfig::new(REDRIVE, "redrive.>");
        (redrives.work_queue, redrives.max_msgs_per_subject, redrives.discard_new) = (true, Some(1), false);
        self.create(redrives);
        let mut dead = StreamConfig::new(stream_name(app.name), subjects(app.name));
        (dead.max_msgs_per_subject, dead.allow_message_ttl) = (Some(1), true);
        self.create(dead);
        for stream in app.publishes.clone() {
            self.create(StreamConfig::new(stream.name, format!("{}.>", stream.domain)));
        }
        self.apps.push(app);
        self
    }

    fn create(&mut self, config: StreamConfig) {
        let name = config.name.clone();
        self.broker.create_stream(self.now, config).unwrap_or_else(|error| panic!("stream {name}: {error}"));
    }

    /// The time of the world.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// Lets a caller ask for a command until it has an answer, under an idempotency key if there is one.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn call<C: Command + Clone>(&mut self, service: &str, key: Option<&str>, command: C) -> Call {
        self.call_to(service, key, Itself, command)
    }

    /// As [`Sim::call`], for a command with a handler of its own.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn call_to<H, C>(&mut self, service: &str, key: Option<&str>, handler: H, command: C) -> Call
    where
        H: CommandHandler<C> + Clone,
        C: serde::Serialize + Clone + Send + Sync + 'static,
    {
        let meaning =
            serde_json::to_vec(&command).unwrap_or_else(|error| panic!("a command cannot be written: {error}"));
        self.calls.push(Asked {
            service: self.app(service),
            key: key.map(Into::into),
            work: Box::new(move |id| Box::new(CommandWork { id, handler: handler.clone(), command: command.clone() })),
            fingerprint: Sha256::digest(meaning).into(),
            tries: 0,
            since: None,
            answer: None,
        });
        Call(self.calls.len() - 1)
    }

    fn app(&self, service: &str) -> usize {
        let found = self.apps.iter().position(|app| app.name == service);
        found.unwrap_or_else(|| panic!("there is no service `{service}` in the simulation"))
    }

    /// The reply to a call, or why it was refused; `None` before it has an answer.
    ///
    /// # Panics
    /// When the reply is of another type.
    pub fn reply<R: serde::de::DeserializeOwned>(&self, call: Call) -> Option<Result<R, &CommandFailure>> {
        let read = |reply: &Reply| serde_json::from_slice(&reply.reply);
        let read = |reply| read(reply).unwrap_or_else(|error| panic!("the reply is of another type: {error}"));
        self.calls[call.0].answer.as_ref().map(|answer| answer.as_ref().map(read))
    }

    /// Does something after so many actions.
    pub fn at(&mut self, action: usize, act: impl FnOnce(&mut Self) + Send + 'static) {
        self.acts.push((action, Box::new(act)));
    }

    /// Publishes an event as another system would.
    ///
    /// # Panics
    /// When no service owns its stream.
    pub fn publish<E: Event>(&mut self, event: &E) -> Id {
        let id = self.id("event");
        let meta = Meta { id, time: self.now(), correlation: id.to_string(), causation: None, traceparent: None };
        let emitted = Emitted::event("sim", &meta, event).unwrap_or_else(|error| panic!("{}: {error}", E::TYPE));
        self.send(emitted);
        id
    }

    fn send(&mut self, message: Emitted) {
        let Emitted { subject, headers, payload } = message;
        self.broker.publish(self.now, &subject, headers, payload).unwrap_or_else(|error| panic!("{subject}: {error}"));
    }

    /// Publishes a message as it is, readable or not.
    pub fn publish_raw(&mut self, subject: &str, headers: Vec<(String, String)>, payload: impl Into<bytes::Bytes>) {
        self.send(Emitted { subject: subject.into(), headers, payload: payload.into() });
    }

    fn id(&mut self, what: &str) -> Id {
        Id::derived(self.now(), what, &self.random.next().to_be_bytes(), 0)
    }

    /// A document of a service.
    ///
    /// # Panics
    /// When there is no such service, or the document does not parse.
    pub fn get<D: Document>(&self, service: &str, id: &str) -> Option<D> {
        let doc = self.apps[self.app(service)].store.get(&Key { collection: D::COLLECTION, id: id.into() })?;
        Some(serde_json::from_slice(&doc.body).unwrap_or_else(|error| panic!("{}: {error}", D::COLLECTION)))
    }

    /// All documents of a collection, by id.
    ///
    /// # Panics
    /// When there is no such service, or a document does not parse.
    pub fn all<D: Document>(&self, service: &str) -> Vec<D> {
        let selection = crate::store::Selection {
            collection: D::COLLECTION,
            filters: vec![],
            after: None,
            descending: false,
            limit: usize::MAX,
        };
        let docs = self.apps[self.app(service)].store.find(&selection);
        docs.iter()
            .map(|doc| serde_json::from_slice(&doc.body).unwrap_or_else(|error| panic!("{}: {error}", D::COLLECTION)))
            .collect()
    }

    /// The wake that a document carries.
    pub fn wake_of<D: Document>(&self, service: &str, id: &str) -> Option<Wake> {
        self.apps[self.app(service)].store.get(&Key { collection: D::COLLECTION, id: id.into() })?.wake
    }

    /// What replicas have counted for a metric, over all series whose label values begin with `labels`. What a process has counted
    /// and was killed before it was scraped counts all the same.
    pub fn counted(&self, service: &str, metric: &Metric, labels: &[&str]) -> f64 {
        let of = |(name, values): &(&str, &[&str])| *name == metric.name && values.starts_with(labels);
        self.apps[self.app(service)].counts.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
    }

    /// The dead letters of a service that nobody has dealt with: the reason and the error of each.
    pub fn dead_letters(&mut self, service: &str) -> Vec<(String, String)> {
        let stream = stream_name(service);
        let last = self.broker.stream_info(self.now, &stream).map_or(0, |info| info.last_seq);
        let mut letters = Vec::new();
        for seq in 1..=last {
            let Ok(message) = self.broker.get(self.now, &stream, seq) else { continue };
            if message.header(STATE).is_none() {
                let of = |name: &str| crate::event::decode_header(message.header(name).unwrap_or_default());
                letters.push((of("Millstream-Reason"), of("Millstream-Error")));
            }
        }
        letters
    }

    /// Kills a process: what it had in hand and in memory is gone. Another one starts in its place when the world goes on.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn kill(&mut self, service: &str, replica: usize) {
        let app = self.app(service);
        if let Some(state) = self.apps[app].replicas.get_mut(replica) {
            *state = None;
        }
    }

    /// Takes the last messages of a stream away, as a broker does that has acknowledged them and lost power before they were on disk.
    pub fn lose_tail(&mut self, stream: &str, messages: u64) {
        let last = self.broker.stream_info(self.now, stream).map_or(0, |info| info.last_seq);
        // A stream that is not there has no tail.
        let _ = self.broker.forget_after(self.now, stream, last.saturating_sub(messages));
    }

    /// Lets so many actions happen, with what may go wrong.
    ///
    /// # Errors
    /// When a handler is found to be broken.
    pub fn run(&mut self, actions: usize) -> Result<(), String> {
        self.start_all();
        for action in 0..actions {
            let due = self.acts.extract_if(.., |(at, _)| *at == action).collect::<Vec<_>>();
            due.into_iter().for_each(|(_, act)| act(self));
            self.action();
        }
        Ok(())
    }

    /// Lets the world come to rest, without further faults: every message is handled, every call answered, every effect run, and
    /// every due time has come.
    ///
    /// # Errors
    /// When it does not.
    pub fn settle(&mut self) -> Result<(), String> {
        self.faults = Faults { skew_ms: self.faults.skew_ms, ..Faults::none() };
        self.frozen.clear();
        self.start_all();
        let mut steps = 0;
        while steps < RESTLESS {
            let before = steps;
            for app in 0..self.apps.len() {
                for replica in 0..self.apps[app].replicas.len() {
                    steps += self.work_off(app, replica);
                }
            }
            for call in 0..self.calls.len() {
                steps += usize::from(self.ask(call));
            }
            if steps > before {
                self.now += 1;
                continue;
            }
            match self.next_moment() {
                Some(moment) => self.now = moment.max(self.now + 1),
                None => return Ok(()),
            }
            steps += 1;
        }
        let mut what = String::from("it does not come to rest:");
        for app in &self.apps {
            for replica in app.replicas.iter().flatten() {
                let _ = write!(what, " {} idle={} outbox={};", app.name, replica.is_idle(), replica.outbox.len());
            }
        }
        Err(what)
    }

    /// When something happens next by itself, if there is anything that is not over.
    fn next_moment(&mut self) -> Option<u64> {
        let mut next: Option<u64> = None;
        let mut consider = |at: u64| next = Some(next.map_or(at, |next| next.min(at)));
        let waits = |broker: &mut SimBroker, now: u64, stream: &str, durable: &str| {
            broker
                .consumer_info(now, stream, durable)
                .is_ok_and(|info| info.num_pending > 0 || info.num_ack_pending > 0)
        };
        for app in &self.apps {
            for feed in &app.feeds {
                if waits(&mut self.broker, self.now, feed.decoder.stream, app.name) {
                    consider(self.broker.next_change().unwrap_or(self.now + 1000).max(self.now + 100));
                }
            }
            let mut wakes = app.planner.kinds.names().collect::<Vec<_>>();
            wakes.dedup();
            let skew = app.replicas.iter().flatten().map(|replica| replica.skew_ms).max().unwrap_or_default();
            if let Some(doc) = app.store.due_wakes(&wakes, Timestamp::from_millis(u64::MAX / 2), 1).first()
                && let Some(wake) = &doc.wake
            {
                consider(wake.at.millis().saturating_add_signed(-skew).max(self.now + 250));
            }
            let own = |id| app.replicas.iter().flatten().any(|replica| replica.instance == id);
            if app.store.instances().iter().any(|row| !own(row.id)) {
                consider(self.now + 1000);
            }
            if app.replicas.iter().flatten().any(|replica| !replica.is_idle()) {
                consider(self.now + 1);
            }
        }
        if self.calls.iter().any(|call| call.answer.is_none()) {
            consider(self.now + 500);
        }
        next
    }

    /// Everything that a replica can do now; says how much it was.
    fn work_off(&mut self, app: usize, replica: usize) -> usize {
        let mut steps = self.fetch(app, replica, usize::MAX);
        self.sweep(app, replica);
        self.heartbeat(app, replica);
        while let Some(state) = &self.apps[app].replicas[replica]
            && !state.is_idle()
            && steps < RESTLESS
        {
            self.step(app, replica, usize::MAX);
            self.publish_step(app, replica);
            self.run_effect(app, replica);
            steps += 1;
        }
        steps
    }

    fn start_all(&mut self) {
        for app in 0..self.apps.len() {
            for replica in 0..self.apps[app].replicas.len() {
                self.start(app, replica);
            }
        }
    }

    fn start(&mut self, index: usize, replica: usize) {
        if self.apps[index].replicas[replica].is_some() {
            return;
        }
        let id = self.id("instance");
        let skew = i64::try_from(self.random.below(usize::try_from(self.faults.skew_ms).unwrap_or(0) * 2 + 1));
        let skew = skew.unwrap_or_default() - i64::try_from(self.faults.skew_ms).unwrap_or_default();
        let app = &mut self.apps[index];
        let mut state = Replica::start(app, self.now, id, skew);
        declare(app, &mut self.broker, self.now, &mut state);
        app.replicas[replica] = Some(state);
    }

    /// One action, chosen by the seed.
    fn action(&mut self) {
        let app = self.random.below(self.apps.len());
        let replica = self.random.below(self.apps[app].replicas.len());
        let kind = self.random.below(100);
        if self.frozen.iter().any(|frozen| (frozen.0, frozen.1) == (app, replica) && frozen.2 > self.now) {
            self.now += 1;
            return;
        }
        if self.random.per_mille(self.faults.kill) && self.apps[app].replicas[replica].is_some() {
            self.note(app, replica, "killed");
            self.apps[app].replicas[replica] = None;
            return;
        }
        if self.random.per_mille(self.faults.freeze) {
            let until = self.now + 1 + self.random.next() % 40_000;
            self.note(app, replica, "left alone");
            self.frozen.retain(|frozen| (frozen.0, frozen.1) != (app, replica));
            self.frozen.push((app, replica, until));
        }
        if self.random.per_mille(self.faults.consumer) {
            self.disturb(app);
        }
        if self.apps[app].replicas[replica].is_none() {
            return self.start(app, replica);
        }
        match kind {
            0..30 => {
                let take = 1 + self.random.below(8);
                self.step(app, replica, take);
            }
            30..48 => {
                let batch = 1 + self.random.below(6);
                self.fetch(app, replica, batch);
            }
            48..68 => self.publish_step(app, replica),
            68..76 => self.run_effect(app, replica),
            76..82 => self.sweep(app, replica),
            82..86 => self.heartbeat(app, replica),
            86..92 => {
                if !self.calls.is_empty() {
                    let call = self.random.below(self.calls.len());
                    self.ask(call);
                }
            }
            92..99 => self.now += self.random.next() % 700,
            _ => {
                self.now += self.random.next() % 15_000;
                self.expire(app);
            }
        }
    }

    fn note(&mut self, app: usize, replica: usize, what: &str) {
        let line = format!("{} {} {replica}: {what}", Timestamp::from_millis(self.now), self.apps[app].name);
        self.log.push(line);
    }

    fn step(&mut self, app: usize, replica: usize, take: usize) {
        let fortune = match self.random.below(4) {
            _ if !self.random.per_mille(self.faults.commit) => Fortune::Fine,
            0 => Fortune::Busy,
            1 => Fortune::Away,
            2 => Fortune::Unseen,
            _ => Fortune::Unsaid,
        };
        let lost = self.random.per_mille(self.faults.lost_ack);
        let Some(mut state) = self.apps[app].replicas[replica].take() else { return };
        let done = state.step(&mut self.apps[app], self.now, take, fortune);
        self.apps[app].replicas[replica] = Some(state);
        if fortune != Fortune::Fine {
            self.note(app, replica, &format!("step, the store is {fortune:?}"));
        }
        match done {
            Done::Nothing => {}
            Done::Acked(token, ack) => {
                if lost {
                    self.note(app, replica, "an ack is lost");
                } else {
                    self.broker.ack(self.now, &token, ack);
                }
            }
            Done::Answered(call, end) => {
                if let (End::Answer(answer), false) = (end, lost) {
                    self.answered(call, answer);
                }
            }
        }
    }

    fn answered(&mut self, call: usize, answer: Result<Reply, CommandFailure>) {
        let call = &mut self.calls[call];
        call.since = None;
        match answer {
            // A caller without a key cannot ask again.
            Err(CommandFailure::Unavailable(_) | CommandFailure::OutcomeUnknown) if call.key.is_some() => {}
            answer => drop(call.answer.get_or_insert(answer)),
        }
    }

    /// Lets a caller ask; says whether it did.
    fn ask(&mut self, call: usize) -> bool {
        let asked = &self.calls[call];
        let waits = asked.since.is_some_and(|since| self.now < since + 2000);
        if asked.answer.is_some() || waits || (asked.since.is_some() && asked.key.is_none()) {
            return false;
        }
        let app = asked.service;
        let replicas = self.apps[app].replicas.len();
        let replica = self.random.below(replicas);
        let id = self.id("command");
        let Some(state) = &mut self.apps[app].replicas[replica] else { return false };
        let asked = &mut self.calls[call];
        let idempotency = asked
            .key
            .as_ref()
            .map(|key| Idempotency { hash: Sha256::digest(key).into(), fingerprint: asked.fingerprint });
        asked.tries += 1;
        asked.since = Some(self.now);
        let meta = Meta {
            id,
            time: Timestamp::from_millis(self.now),
            correlation: id.to_string(),
            causation: None,
            traceparent: None,
        };
        let input = CommandInput { id, meta, work: (asked.work)(id), idempotency };
        state.inbox.push_back(Arrival { input: Input::Command(Box::new(input)), receipt: Receipt::Call(call) });
        true
    }

    /// Fetches from each stream; says how many messages came.
    fn fetch(&mut self, index: usize, replica: usize, batch: usize) -> usize {
        let app = &mut self.apps[index];
        let Some(mut state) = app.replicas[replica].take() else { return 0 };
        let mut came = 0;
        let mut lost = false;
        for feed in &app.feeds {
            let pull = Pull::of(batch.min(64));
            let Ok(deliveries) = self.broker.fetch(self.now, feed.decoder.stream, app.name, pull) else {
                lost = true;
                continue;
            };
            for delivery in deliveries {
                let Some(decoded) = decode(&feed.decoder, &delivery) else {
                    self.broker.ack(self.now, &delivery.token, Ack::Term);
                    continue;
                };
                came += 1;
                let input = Input::Message(Box::new(decoded));
                state.inbox.push_back(Arrival { input, receipt: Receipt::Message(delivery.token) });
            }
        }
        if lost {
            declare(app, &mut self.broker, self.now, &mut state);
        }
        app.replicas[replica] = Some(state);
        came
    }

    fn publish_step(&mut self, app: usize, replica: usize) {
        let lost = self.random.per_mille(self.faults.lost_publish_ack);
        let Some(mut state) = self.apps[app].replicas[replica].take() else { return };
        state.publish(&mut self.apps[app], &mut self.broker, self.now, lost);
        self.apps[app].replicas[replica] = Some(state);
    }

    fn run_effect(&mut self, app: usize, replica: usize) {
        let lost = self.random.per_mille(self.faults.lost_outcome);
        let Some(mut state) = self.apps[app].replicas[replica].take() else { return };
        if !state.running.is_empty() {
            let index = self.random.below(state.running.len());
            state.run_effect(&self.apps[app], index, lost);
        }
        self.apps[app].replicas[replica] = Some(state);
    }

    fn heartbeat(&mut self, app: usize, replica: usize) {
        let Some(mut state) = self.apps[app].replicas[replica].take() else { return };
        if !state.is_busy() {
            state.heartbeat(&mut self.apps[app], self.now);
        }
        self.apps[app].replicas[replica] = Some(state);
    }

    fn sweep(&mut self, index: usize, replica: usize) {
        let patience = millis(self.timing.deadline_patience);
        let app = &mut self.apps[index];
        let Some(mut state) = app.replicas[replica].take() else { return };
        let mut drained = !state.holds_messages();
        for feed in &app.feeds {
            let info = self.broker.consumer_info(self.now, feed.decoder.stream, app.name);
            drained &= info.is_ok_and(|info| info.num_pending == 0 && info.num_ack_pending == 0);
        }
        let may_fire = drained || self.now >= state.started + patience;
        state.sweep_wakes(app, self.now, may_fire);
        state.sweep_instances(app, self.now);
        app.replicas[replica] = Some(state);
    }

    /// Deletes old journal entries.
    fn expire(&mut self, index: usize) {
        let app = &mut self.apps[index];
        let mut floors = Vec::new();
        for feed in app.feeds.iter().filter(|feed| feed.start.is_some()) {
            let Ok(info) = self.broker.consumer_info(self.now, feed.decoder.stream, app.name) else { continue };
            let created = self.broker.stream_info(self.now, feed.decoder.stream).map_or(0, |info| info.created);
            floors.push(Settled {
                stream: feed.decoder.stream.into(),
                through: info.ack_floor.stream,
                created: created.to_string(),
            });
        }
        let now = Timestamp::from_millis(self.now);
        let expiry = Expiry { before: now - self.timing.journal_retention, floors, now, limit: 1000 };
        app.store.expire(&expiry);
        for state in app.replicas.iter_mut().flatten() {
            for mark in state.marks.values_mut() {
                if let Some(later) = app.store.settled(&mark.stream) {
                    *mark = later;
                }
            }
        }
    }

    /// Deletes a durable: made anew, it begins after the mark again.
    fn disturb(&mut self, index: usize) {
        let app = &self.apps[index];
        let feed = &app.feeds[self.random.below(app.feeds.len())];
        let (stream, name) = (feed.decoder.stream, app.name);
        if self.broker.delete_consumer(self.now, stream, name).is_ok() {
            self.note(index, 0, &format!("the durable on {stream} is deleted"));
        }
    }
}

/// Makes the durables of a service, each from the message after its mark, which is in the database first.
fn declare(app: &mut App, broker: &mut SimBroker, now: u64, state: &mut Replica) {
    let App { name, planner, feeds, store, .. } = app;
    for feed in feeds {
        let stream = feed.decoder.stream;
        let Ok(info) = broker.stream_info(now, stream) else { continue };
        let mut config = ConsumerConfig::new(*name, millis(planner.timing.ack_wait));
        config.filter_subjects = feed.filters.clone();
        if let Some(start) = feed.start {
            let through = if start == Start::Beginning { 0 } else { info.last_seq };
            let first = Settled { stream: stream.into(), through, created: info.created.to_string() };
            let mark = store.init_settled(first);
            config.deliver = Deliver::ByStartSequence(mark.through + 1);
            state.marks.insert(stream, mark);
        }
        if broker.consumer_info(now, stream, name).is_err() {
            // It was just seen not to be there.
            let _ = broker.create_consumer(now, stream, config);
        }
    }
}

fn decode(decoder: &Decoder, delivery: &crate::sim::broker::Delivery) -> Option<Delivery> {
    let message = &delivery.message;
    let wire = Emitted {
        subject: message.subject.clone(),
        headers: message.headers.clone(),
        payload: message.payload.clone(),
    };
    decoder.decode(Incoming {
        seq: message.seq,
        delivered: i64::try_from(delivery.delivered).unwrap_or(i64::MAX),
        published: Timestamp::from_millis(message.time),
        payload: message.payload.clone(),
        wire: Box::new(wire),
    })
}
