//! Assembling a service: what it depends on is waited for, in any order, and then its parts are put together.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use millstream_core::planner::{Decoder, Kinds, Leases, Planner, Slots};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::answers::Answers;
use crate::broker::Broker;
use crate::commands::Context;
use crate::config::Config;
use crate::consumer::Consumer;
use crate::dead_letter;
use crate::discovery::Discovery;
use crate::durable::Declared;
use crate::engine::Engine;
use crate::engine::acker::Acker;
use crate::engine::arrival::{Arrival, Source};
use crate::engine::aside::Aside;
use crate::engine::instances::{Current, Enrolled, InstanceSweep};
use crate::engine::intake::Intake;
use crate::engine::levels::Levels;
use crate::engine::meters::Meters;
use crate::engine::publisher::{Outbox, Publisher};
use crate::engine::slots::SharedSlots;
use crate::engine::status::Status;
use crate::engine::tails::Tail;
use crate::engine::timing::{Clock, Timing};
use crate::engine::wakes::Sweep;
use crate::event::Stream;
use crate::http::Probe;
use crate::owned::Owned;
use crate::progress::Progress;
use crate::raw;
use crate::rebuild;
use crate::rehearse::Rehearser;
use crate::release::Release;
use crate::retry::{forever, once_per_text};
use crate::service::{Reading, Rebuild};
use crate::stopping::Tasks;
use crate::store::{Collection, PrepareError, Published, Store, StoreError};
use crate::supervisor::Supervisor;
use crate::trim::Trimmer;
use crate::unit::Rules;
use crate::unreadable::Unreadable;
use crate::work::AnyHandler;
use millstream_core::hash::{HashMap, HashSet};

/// What a service is put together from.
pub(crate) struct Parts {
    pub(crate) basis: Basis,
    pub(crate) single_writer: bool,
    /// Where it listens.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) config: Config,
    pub(crate) collections: Vec<Collection>,
    pub(crate) publishes: Vec<Stream>,
    pub(crate) reads: Vec<Reading>,
    /// Whether all is forgotten before anything is read.
    pub(crate) rebuild: Option<Rebuild>,
    /// Whether that could be done.
    pub(crate) rebuildable: bool,
    pub(crate) rules: Rules,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) outbox: Outbox,
    pub(crate) publisher: Publisher,
    pub(crate) commands: mpsc::Receiver<Arrival>,
    pub(crate) context: Context,
}

/// What nearly every task of a service works with.
#[derive(Clone)]
pub(crate) struct Basis {
    pub(crate) service: &'static str,
    pub(crate) release: Release,
    pub(crate) timing: Timing,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kinds: Kinds,
    pub(crate) status: Arc<Status>,
    pub(crate) meters: Arc<Meters>,
}

/// An assembled service: the engine, which is to be run, and the tasks around it, which run already.
pub(crate) struct Started {
    pub(crate) engine: Engine,
    pub(crate) broker: Broker,
    pub(crate) tasks: Tasks,
}

impl Parts {
    /// Brings up store, broker, streams and consumers, however long that takes. An error says that the store can never be used.
    pub(crate) async fn start(mut self, supervisor: &Supervisor) -> Result<Started, StoreError> {
        self.basis.prepare(&self.collections).await?;
        let broker = self.connect().await;
        self.rules.max_message = broker.max_message();
        let Basis { store, clock, timing, .. } = &self.basis;
        let instance =
            forever(timing.gate_retry, || Current::insert(&**store, clock.now(), &self.rules), |_, _| ()).await;
        let names = |streams: &mut dyn Iterator<Item = &Stream>| {
            streams.map(|stream| stream.name).collect::<Vec<_>>().join(" ")
        };
        let http = self.address.map(|address| address.to_string());
        let (url, database) = (self.config.nats_url.to_string(), self.config.store(self.basis.service).to_string());
        let reads = names(&mut self.reads.iter().map(|reading| &reading.stream));
        let publishes = names(&mut self.publishes.iter());
        let started = self.assemble(broker, instance, supervisor);
        tracing::info!(http, broker = url, store = database, reads, publishes, "started");
        Ok(started)
    }

    /// Connects, declares what the service publishes, and forgets what it has if it is to be rebuilt.
    async fn connect(&self) -> Broker {
        let Basis { service, timing, status, store, .. } = &self.basis;
        let retry = timing.gate_retry;
        let waits_for = |what: &str| status.set_waits_for(Some(what.into()));
        waits_for("the broker");
        let broker = Broker::connect(service, &self.config, retry, waits_for).await;
        status.connected(broker.refusals());
        let owned = self.owned();
        let declare = || owned.declare(&broker);
        let failed = once_per_text(|error| {
            tracing::warn!(error, "a stream cannot be declared; retrying");
            waits_for(error);
        });
        forever(retry, declare, failed).await;
        if let Some(how) = self.rebuild {
            waits_for("its rebuild");
            let streams: Vec<&str> = self.reads.iter().map(|reading| reading.stream.name).collect();
            let forget = || rebuild::forget(&**store, &broker, service, &streams, how, timing);
            let failed = once_per_text(|error| {
                tracing::warn!(error, "the rebuild cannot begin; retrying");
                waits_for(error);
            });
            forever(retry, forget, failed).await;
        }
        broker
    }

    fn owned(&self) -> Owned {
        let Basis { service, release, .. } = &self.basis;
        Owned { service, release: release.clone(), streams: self.publishes.clone() }
    }

    /// Puts the engine together, and starts the tasks around it.
    fn assemble(self, broker: Broker, instance: Current, supervisor: &Supervisor) -> Started {
        let owned = self.owned();
        let Self { basis, outbox, publisher, .. } = self;
        let Basis { timing, meters, status, .. } = &basis;
        let mut tasks = Tasks::default();
        let (acker, acks) = Acker::new(&broker, meters.clone());
        supervisor.spawn(&mut tasks.acker, "acker", acks);
        let missing = Arc::new(Notify::new());
        let publishing = publisher.run(broker.clone(), timing.clone(), meters.clone(), missing.clone());
        supervisor.spawn(&mut tasks.publisher, "publisher", publishing);
        let keeping = owned.clone().keep(broker.clone(), missing.clone(), status.clone(), timing.gate_retry);
        supervisor.spawn(&mut tasks.helpers, "streams", keeping);

        let (handlers, ignored) = redriven(&self.reads);
        let (stream, consumer) = (dead_letter::REDRIVE, basis.service);
        let rehearser = Rehearser {
            planner: Planner { rules: self.rules.clone(), kinds: basis.kinds.clone(), timing: timing.clone() },
            decoder: Decoder { stream, consumer, handlers, ignored, redrives: true },
            turn: Semaphore::new(1),
        };
        let discovery = Discovery {
            service: basis.service,
            release: basis.release.clone(),
            instance: instance.id,
            broker: broker.clone(),
            probe: self.probe,
            meters: meters.clone(),
            answers: Arc::new(Answers { context: self.context, rehearser }),
            timing: timing.clone(),
        };
        supervisor.spawn(&mut tasks.helpers, "discovery", discovery.run());

        let (messages_in, messages) = mpsc::channel(timing.batch_inputs);
        let (gate, open) = watch::channel(true);
        let reads = Reads {
            broker: &broker,
            single_writer: self.single_writer,
            rebuildable: self.rebuildable,
            inputs: messages_in,
            acker: acker.clone(),
            open,
        };
        let progress = reads.start(&basis, self.reads, &mut tasks, supervisor);
        status.go_online(broker.clone(), progress);

        let slots = SharedSlots::new(Slots::new(timing.effect_slots, timing.effect_gate));
        let (due_in, due) = mpsc::channel(timing.batch_inputs);
        basis.trim(&broker, &missing, &mut tasks, supervisor);
        let (enrolled, of_tails) = watch::channel(instance.enrolled());
        tasks.tails = basis.tails(&broker, &outbox, &owned, &of_tails, &mut tasks.helpers, supervisor);
        basis.sweep(&slots, due_in, outbox.clone(), &mut tasks, supervisor);

        let (ends_in, ends) = mpsc::unbounded_channel();
        let Basis { timing, clock, store, kinds, status, meters, .. } = basis;
        let engine = Engine {
            planner: Planner { rules: self.rules, kinds, timing },
            store,
            clock,
            intake: Intake { commands: self.commands, ends, due, messages },
            ends: ends_in,
            outbox,
            acker,
            slots,
            status,
            meters,
            link: broker.link.clone(),
            gate,
            stop: supervisor.stop().clone(),
            instance,
            enrolled,
            distrust: (0, Instant::now()),
            expire_at: Instant::now(),
            aside: Aside::default(),
            store_tries: 0,
        };
        Started { engine, broker, tasks }
    }
}

impl Basis {
    /// What shows how the service is, from its start on.
    pub(crate) fn levels(&self) -> Levels {
        let Self { status, meters, clock, timing, .. } = self;
        Levels { status: status.clone(), meters: meters.clone(), clock: clock.clone(), timing: timing.clone() }
    }

    /// Waits for the store, and creates what is missing there.
    async fn prepare(&self, collections: &[Collection]) -> Result<(), StoreError> {
        self.status.set_waits_for(Some("the store".into()));
        let prepare = || async {
            match self.store.prepare(collections).await {
                Ok(()) => Ok(Ok(())),
                Err(PrepareError::Unfit(why)) => Ok(Err(StoreError::new(why))),
                Err(PrepareError::Away(error)) => Err(error),
            }
        };
        let failed = once_per_text(|error| tracing::warn!(error, "the store cannot be prepared; retrying"));
        forever(self.timing.gate_retry, prepare, failed).await?;
        self.status.store_up.store(true, Ordering::Release);
        Ok(())
    }

    /// Starts what trims the streams that the service publishes to, and finds those that were deleted.
    fn trim(&self, broker: &Broker, missing: &Arc<Notify>, tasks: &mut Tasks, supervisor: &Supervisor) {
        for capacity in self.status.capacities() {
            let trimmer = Trimmer {
                broker: broker.clone(),
                capacity: capacity.clone(),
                release: self.release.clone(),
                clock: self.clock.clone(),
                timing: self.timing.clone(),
                meters: self.meters.clone(),
                missing: missing.clone(),
            };
            supervisor.spawn(&mut tasks.helpers, format!("trimmer of {}", capacity.stream.name), trimmer.run());
        }
    }

    /// Starts what looks whether the streams that the service publishes to still have what they had.
    fn tails(
        &self,
        broker: &Broker,
        outbox: &Outbox,
        owned: &Owned,
        enrolled: &watch::Receiver<Enrolled>,
        helpers: &mut JoinSet<()>,
        supervisor: &Supervisor,
    ) -> Vec<Arc<Tail>> {
        let letters = (dead_letter::stream_name(self.service), "dlq");
        let streams = owned.streams.iter().map(|stream| (stream.name.to_owned(), stream.domain));
        let tail = |(stream, kind): (String, &'static str)| Tail {
            own: AsyncMutex::new(Published::enrolled(enrolled.borrow().id, &stream, self.clock.now())),
            looked: AtomicBool::new(false),
            born: raw::connects(&broker.client),
            stream,
            kind,
            broker: broker.clone(),
            store: self.store.clone(),
            outbox: outbox.clone(),
            clock: self.clock.clone(),
            timing: self.timing.clone(),
            status: self.status.clone(),
            meters: self.meters.clone(),
            enrolled: enrolled.clone(),
        };
        let tails: Vec<_> = streams.chain([letters]).map(|of| Arc::new(tail(of))).collect();
        for tail in &tails {
            supervisor.spawn(helpers, format!("tail of {}", tail.stream), tail.clone().run());
        }
        tails
    }

    /// Starts what looks after due wakes and dead instances from time to time.
    fn sweep(
        &self,
        slots: &SharedSlots,
        due: mpsc::Sender<Arrival>,
        outbox: Outbox,
        tasks: &mut Tasks,
        supervisor: &Supervisor,
    ) {
        let wakes = Sweep {
            service: self.service,
            store: self.store.clone(),
            kinds: self.kinds.clone(),
            slots: slots.clone(),
            leases: Leases::default(),
            due,
            clock: self.clock.clone(),
            started: Instant::now(),
            timing: self.timing.clone(),
            status: self.status.clone(),
            meters: self.meters.clone(),
        };
        supervisor.spawn(&mut tasks.helpers, "wake sweep", wakes.run(supervisor.stop().clone()));
        let instances = InstanceSweep {
            store: self.store.clone(),
            outbox,
            tails: tasks.tails.clone(),
            clock: self.clock.clone(),
            timing: self.timing.clone(),
            status: self.status.clone(),
        };
        supervisor.spawn(&mut tasks.helpers, "instance sweep", instances.run(supervisor.stop().clone()));
    }
}

/// What the consumers of a service share.
struct Reads<'a> {
    broker: &'a Broker,
    single_writer: bool,
    rebuildable: bool,
    inputs: mpsc::Sender<Arrival>,
    acker: Acker,
    /// Whether the engine takes messages now.
    open: watch::Receiver<bool>,
}

/// The handlers of events by their type, and the types that are only acked.
type Handled = (HashMap<&'static str, Arc<dyn AnyHandler>>, HashSet<&'static str>);

/// What the queue of redrives is read with: a redriven message may be of any stream.
fn redriven(reads: &[Reading]) -> Handled {
    let handlers = reads.iter().flat_map(|reading| &reading.handlers);
    let ignored = reads.iter().flat_map(|reading| &reading.ignored);
    (handlers.map(|handler| (handler.event_type(), handler.clone())).collect(), ignored.copied().collect())
}

/// A durable, the handlers of its events, and the events that are only acked.
type Feed = (Declared, HashMap<&'static str, Arc<dyn AnyHandler>>, HashSet<&'static str>);

impl Reads<'_> {
    /// Starts a consumer for each stream that is read, and one for redrives.
    fn start(
        self,
        basis: &Basis,
        reads: Vec<Reading>,
        tasks: &mut Tasks,
        supervisor: &Supervisor,
    ) -> Vec<(Arc<Source>, Arc<Progress>)> {
        let mut all = Vec::new();
        for (declared, handlers, ignored) in self.feeds(basis, reads) {
            let stream = declared.stream;
            let source = Arc::new(Source::new(stream, basis.service));
            let progress = declared.progress.clone();
            all.push((source.clone(), progress.clone()));
            let declared = Arc::new(declared);
            let durable = declared.clone().watch(self.broker.clone());
            tasks.durables.push(declared.clone());
            supervisor.spawn(&mut tasks.helpers, format!("watch of the durable on {stream}"), durable);
            let redrives = declared.start.is_none();
            let decoder = Arc::new(Decoder { stream, consumer: basis.service, handlers, ignored, redrives });
            // What operators send back was read before, and a service may not read what is sent to others.
            let (looked_in, looked) = watch::channel(redrives);
            if !redrives {
                let unreadable = Unreadable {
                    broker: self.broker.clone(),
                    decoder: decoder.clone(),
                    source: source.clone(),
                    progress: progress.clone(),
                    inputs: self.inputs.clone(),
                    looked: looked_in,
                    timing: basis.timing.clone(),
                };
                supervisor.spawn(
                    &mut tasks.helpers,
                    format!("search of {stream} for the unreadable"),
                    unreadable.run(),
                );
            }
            let consumer = Consumer {
                broker: self.broker.clone(),
                declared,
                decoder,
                source,
                progress,
                inputs: self.inputs.clone(),
                acker: self.acker.clone(),
                looked,
                gate: self.open.clone(),
                stop: supervisor.stop().clone(),
                timing: basis.timing.clone(),
                meters: basis.meters.clone(),
            };
            supervisor.spawn(&mut tasks.consumers, format!("consumer of {stream}"), consumer.run());
        }
        all
    }

    fn feeds(&self, basis: &Basis, reads: Vec<Reading>) -> Vec<Feed> {
        let Basis { service, release, timing, store, .. } = basis;
        let (all_handlers, all_ignored) = redriven(&reads);
        let mut feeds = Vec::new();
        for reading in reads {
            let filters = reading.events().map(|event| format!("{event}.*")).collect();
            let declared = Declared {
                stream: reading.stream.name,
                start: Some(reading.start),
                durable: service,
                rebuildable: self.rebuildable,
                best_effort: reading.best_effort,
                release: release.clone(),
                single_writer: self.single_writer,
                ensured: AtomicBool::new(false),
                held: Mutex::default(),
                last_held: Mutex::default(),
                progress: Arc::default(),
                lost: Notify::new(),
                filters,
                store: store.clone(),
                timing: timing.clone(),
            };
            let handlers: HashMap<_, _> =
                reading.handlers.into_iter().map(|handler| (handler.event_type(), handler)).collect();
            feeds.push((declared, handlers, reading.ignored.into_iter().collect()));
        }
        let redrives = Declared::redrives(service, release.clone(), store.clone(), timing.clone());
        feeds.push((redrives, all_handlers, all_ignored));
        feeds
    }
}
