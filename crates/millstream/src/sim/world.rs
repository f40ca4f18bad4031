//! [`Sim`]: the world that a seed drives.

use std::fmt;
use std::time::Duration;

use millstream_core::planner::{CommandFailure, Reply};
use millstream_core::timing::Timing;
use sha2::{Digest, Sha256};

use crate::dead_letter::{REDRIVE, STATE, stream_name, subjects};
use crate::event::{Emitted, Event, Meta};
use crate::handler::{Command, CommandHandler, Document, Key, Wake};
use crate::ids::{Id, Timestamp};
use crate::service::Service;
use crate::sim::app::App;
use crate::sim::broker::{SimBroker, StreamConfig};
use crate::sim::faults::Faults;
use crate::sim::operators::Operators;
use crate::sim::random::Random;
use crate::telemetry::Metric;
use crate::unit::Work;
use crate::work::{CommandWork, Itself};

/// 2026-01-01T00:00:00Z, in milliseconds.
const EPOCH: u64 = 1_767_225_600_000;

/// What a caller asks for, again and again until it has an answer.
pub(super) struct Asked {
    pub(super) service: usize,
    pub(super) key: Option<String>,
    pub(super) work: Box<dyn Fn(Id) -> Box<dyn Work> + Send>,
    pub(super) fingerprint: [u8; 32],
    pub(super) tries: u32,
    /// When the last try was sent.
    pub(super) since: Option<u64>,
    pub(super) answer: Option<Result<Reply, CommandFailure>>,
}

/// Something that is done in the course of a run.
pub(super) type Act = Box<dyn FnOnce(&mut Sim) + Send>;

/// A call to a service, by which its answer is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(usize);

/// Services on a broker, a store and a clock in memory.
pub struct Sim {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) timing: Timing,
    pub(super) now: u64,
    pub(super) broker: SimBroker,
    pub(super) apps: Vec<App>,
    pub(super) calls: Vec<Asked>,
    /// How often the broker has come back, from 1 on.
    pub(super) connection: u64,
    pub(super) frozen: Vec<(usize, usize, u64)>,
    /// What is done after so many actions.
    pub(super) acts: Vec<(usize, Act)>,
    pub(super) log: Vec<String>,
    pub(super) operators: Operators,
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed)
            .field("now", &Timestamp::from_millis(self.now))
            .finish_non_exhaustive()
    }
}

impl Sim {
    /// A world without services, in which nothing goes wrong.
    pub fn new(seed: u64) -> Self {
        let mut timing = Timing::default();
        timing.message_retry.jitter = 0.0;
        timing.effect_retry.jitter = 0.0;
        // Processes are killed here whatever they have in hand: that says nothing about a message.
        timing.crash_starts = u32::MAX - 1;
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
            connection: 1,
            frozen: vec![],
            acts: vec![],
            log: vec![],
            operators: Operators::default(),
        }
    }

    /// Lets things go wrong.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Adds a service with so many replicas, and the streams that it publishes to and reads.
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
        for stream in app.publishes.iter().copied().chain(service.reads.iter().map(|reading| reading.stream)) {
            self.create(StreamConfig::new(stream.name, format!("{}.>", stream.domain)));
        }
        self.apps.push(app);
        self
    }

    /// Lets a service take its turns within a function of its own in [`Sim::settle`], so that a profiler can tell services apart.
    ///
    /// # Panics
    /// When there is no such service.
    #[must_use]
    pub fn within(mut self, service: &str, within: fn(&mut dyn FnMut())) -> Self {
        let app = self.app(service);
        self.apps[app].within = within;
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

    pub(super) fn app(&self, service: &str) -> usize {
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
    /// When no service has its stream.
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

    /// The last things that went wrong.
    pub(super) fn last_actions(&mut self, count: usize) -> Vec<String> {
        self.log.split_off(self.log.len().saturating_sub(count))
    }

    pub(super) fn id(&mut self, what: &str) -> Id {
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
    /// Their services publish theirs again; what [`Sim::publish`] has published is lost.
    pub fn lose_tail(&mut self, stream: &str, messages: u64) {
        let last = self.broker.stream_info(self.now, stream).map_or(0, |info| info.last_seq);
        // A stream that is not there has no tail.
        let _ = self.broker.forget_after(self.now, stream, last.saturating_sub(messages));
        self.connection += 1;
        // A broker takes longer to come back.
        self.now += 1;
    }
}
