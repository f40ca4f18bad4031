//! A service that runs: its parts put together, started in any order with what it depends on, and stopped in order.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::answers::Answers;
use crate::broker::{Broker, DeclareError};
use crate::commands::{Context, Shared};
use crate::config::Config;
use crate::consumer::{Acker, Consumer};
use crate::discovery::Discovery;
use crate::durable::Declared;
use crate::engine::Engine;
use crate::engine::board::Board;
use crate::engine::input::{Input, Source};
use crate::engine::instances::{Current, InstanceSweep};
use crate::engine::intake::Intake;
use crate::engine::meters::Meters;
use crate::engine::publisher::{Outbox, Publisher};
use crate::engine::status::Status;
use crate::engine::timing::{Clock, Timing};
use crate::engine::wakes::{Kinds, Sweep};
use crate::event::Stream;
use crate::http::{ConsumerHealth, Health, MAX_IN_FLIGHT, Probe, shell};
use crate::progress::Progress;
use crate::rebuild;
use crate::release::Release;
use crate::retry::forever;
use crate::service::{Options, Reading, RunError, Service};
use crate::stopping::stop_engine;
use crate::store::{Collection, PrepareError, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::trim::{Room, Trimmer};
use crate::watch::Watchers;

/// A service before its engine has started: HTTP is served already, unready.
pub(crate) struct Running {
    parts: Parts,
    router: Router,
    listener: TcpListener,
    telemetry: Telemetry,
    watchers: Watchers,
    #[cfg(feature = "testing")]
    context: Context,
    #[cfg(feature = "testing")]
    probe: Arc<dyn Probe>,
}

/// What the engine is put together from.
struct Parts {
    service: &'static str,
    release: Release,
    single_writer: bool,
    address: Option<SocketAddr>,
    config: Config,
    timing: Timing,
    clock: Clock,
    store: Arc<dyn Store>,
    collections: Vec<Collection>,
    publishes: Vec<Stream>,
    reads: Vec<Reading>,
    /// Whether all is forgotten before anything is read.
    rebuild: bool,
    /// Whether that could be done.
    rebuildable: bool,
    kinds: Kinds,
    rules: crate::unit::Rules,
    probe: Arc<dyn Probe>,
    status: Arc<Status>,
    meters: Arc<Meters>,
    outbox: Outbox,
    publisher: Publisher,
    commands: mpsc::Receiver<Input>,
    context: Context,
}

impl Running {
    pub(crate) fn start(
        service: Service,
        config: Config,
        options: Options,
        listener: TcpListener,
    ) -> Result<Self, RunError> {
        let name = service.name;
        let timing = Timing {
            unpublished_limit: config.unpublished_limit.unwrap_or(options.timing.unpublished_limit),
            journal_retention: config.journal_retention.unwrap_or(options.timing.journal_retention),
            ..options.timing
        };
        let obstacle = rebuild::obstacle(&service);
        let rebuildable = obstacle.is_none();
        if let Some(why) = obstacle.filter(|_| options.rebuild) {
            return Err(RunError::Rebuild { service: name, why });
        }
        let store = options.store.map_or_else(|| crate::store::open_for(&config.store(name), name), Ok);
        let store = store.map_err(|error| RunError::Store { service: name, error })?;
        let telemetry = Telemetry::new(name, &service.metrics);
        for (metric, labels) in &service.series {
            telemetry.declare(metric, &[&labels.iter().map(String::as_str).collect::<Vec<_>>()]);
        }
        let kinds = Kinds {
            wakes: service.effects.iter().map(|effect| (effect.kind(), effect.clone())).collect(),
            timers: service.timers.iter().map(|timer| (timer.kind(), timer.clone())).collect(),
        };
        let reads: Vec<Stream> = service.reads.iter().map(|reading| reading.stream).collect();
        let events: Vec<&'static str> = service.reads.iter().flat_map(Reading::events).collect();
        let effects: Vec<&'static str> = kinds.wakes.keys().copied().collect();
        let timers: Vec<&'static str> = kinds.timers.keys().copied().collect();
        let meters = Arc::new(Meters::new(telemetry.clone(), &service.publishes, &reads, &events, &effects, &timers));
        let (outbox, publisher) = Outbox::new();
        let rooms = service.publishes.iter().map(|stream| Arc::new(Room::new(*stream))).collect();
        let status = Arc::new(Status::new(outbox.clone(), rooms));
        let (commands_tx, commands) = mpsc::channel(timing.command_queue);
        let watchers = Watchers::new(store.clone(), timing.clone());
        let context = Context(Arc::new(Shared {
            service: name,
            store: store.clone(),
            commands: commands_tx,
            status: status.clone(),
            timing: timing.clone(),
            clock: options.clock.clone(),
            watchers: watchers.clone(),
        }));
        let probe: Arc<dyn Probe> = Arc::new(EngineProbe { status: status.clone(), timing: timing.clone() });
        // What the broker takes is known with the first connection, and before that no command is.
        let rules = service.rules(0);
        let router = shell(service.routes, context.clone(), probe.clone(), telemetry.clone(), MAX_IN_FLIGHT);
        let parts = Parts {
            service: name,
            release: service.release,
            single_writer: service.single_writer,
            address: listener.local_addr().ok(),
            config,
            timing,
            clock: options.clock,
            store,
            collections: service.collections,
            publishes: service.publishes,
            reads: service.reads,
            rebuild: options.rebuild,
            rebuildable,
            kinds,
            rules,
            probe: probe.clone(),
            status,
            meters,
            outbox,
            publisher,
            commands,
            context: context.clone(),
        };
        Ok(Self {
            parts,
            router,
            listener,
            telemetry,
            watchers,
            #[cfg(feature = "testing")]
            context,
            #[cfg(feature = "testing")]
            probe,
        })
    }

    /// What a test in the same process looks at.
    #[cfg(feature = "testing")]
    pub(crate) fn inside(&self) -> (Context, Arc<dyn Probe>, Telemetry) {
        (self.context.clone(), self.probe.clone(), self.telemetry.clone())
    }

    /// Runs until `shutdown`, then stops.
    pub(crate) async fn until(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), RunError> {
        let Self { parts, router, listener, telemetry, watchers, .. } = self;
        let (name, span) = (parts.service, telemetry.span());
        let (stop, stopped) = watch::channel(false);
        let mut served = stopped;
        let served = async move { told(&mut served).await };
        let status = parts.status.clone();
        let http = tokio::spawn(
            async move { axum::serve(listener, router).with_graceful_shutdown(served).await }.instrument(span.clone()),
        );
        let upkeep = telemetry.clone();
        let upkeep = tokio::spawn(async move { upkeep.upkeep(std::future::pending()).await });
        let (engine_stop, engine_stopped) = watch::channel(false);
        let mut engine = tokio::spawn(parts.run(engine_stopped).instrument(span.clone()));
        let died = tokio::select! {
            () = shutdown => None,
            ended = &mut engine => Some(ended),
        };
        async {
            tracing::info!("stopping");
            status.draining.store(true, Ordering::Release);
            // Answers that go on for as long as somebody listens would hold up the end; their clients find another replica.
            watchers.close();
            engine_stop.send_replace(true);
            let by_itself = died.is_some();
            let ended = match died {
                Some(ended) => ended,
                None => engine.await,
            };
            let unfit = match ended {
                Ok(ended) => ended.err(),
                Err(error) => {
                    tracing::error!(%error, "the engine has not stopped in order");
                    None
                }
            };
            stop.send_replace(true);
            let served = tokio::time::timeout(Duration::from_secs(1), http).await;
            upkeep.abort();
            tracing::info!("stopped");
            if let Some(error) = unfit {
                return Err(RunError::Store { service: name, error });
            }
            match served {
                Ok(Ok(Err(error))) => Err(RunError::Http { service: name, error }),
                _ if by_itself => Err(RunError::Engine { service: name }),
                // Idle connections that their clients keep open do not hold up the end.
                _ => Ok(()),
            }
        }
        .instrument(span)
        .await
    }
}

/// Resolves when the flag is raised, or nobody is left to raise it.
pub(crate) async fn told(flag: &mut watch::Receiver<bool>) {
    // The value is a guard, which must not live across another await.
    drop(flag.wait_for(|raised| *raised).await);
}

/// What the parts of a started engine are stopped by.
struct Started {
    engine: Engine,
    broker: Broker,
    consumers: JoinSet<()>,
    helpers: JoinSet<()>,
    publisher: tokio::task::JoinHandle<()>,
    acker: tokio::task::JoinHandle<()>,
}

impl Parts {
    /// Runs until told to stop; an error says that the store will never do.
    async fn run(self, stop: watch::Receiver<bool>) -> Result<(), StoreError> {
        let mut early = stop.clone();
        let started = tokio::select! {
            biased;
            () = told(&mut early) => return Ok(()),
            started = self.start(stop) => started?,
        };
        let Started { engine, broker, consumers, helpers, publisher, acker } = started;
        let (mut stop, limit) = (engine.stop.clone(), engine.timing.shutdown);
        let work = async {
            let engine = engine.run().await;
            stop_engine(engine, &broker, consumers, helpers, publisher, acker).await;
        };
        // The batch in hand counts too: a store that is locked or hangs must not hold up the end.
        let late = async {
            told(&mut stop).await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            () = work => {}
            () = late => tracing::warn!("stopping took too long; what is left is swept by the next instance"),
        }
        Ok(())
    }

    /// Brings up store, broker, streams and consumers, however long that takes.
    async fn start(self, stop: watch::Receiver<bool>) -> Result<Started, StoreError> {
        let Self {
            service,
            release,
            single_writer,
            config,
            timing,
            clock,
            store,
            collections,
            publishes,
            reads,
            kinds,
            mut rules,
            ..
        } = self;
        let (status, meters, outbox) = (self.status, self.meters, self.outbox);
        let http = self.address.map(|address| address.to_string());
        let (broker_url, store_url) = (config.nats_url.to_string(), config.store(service).to_string());
        let read = reads.iter().map(|reading| reading.stream.name).collect::<Vec<_>>().join(" ");
        let published = publishes.iter().map(|stream| stream.name).collect::<Vec<_>>().join(" ");
        let retry = timing.gate_retry;
        status.set_waits_for(Some("the store".into()));
        let mut told = false;
        let prepare = || async {
            match store.prepare(&collections).await {
                Ok(()) => Ok(Ok(())),
                Err(PrepareError::Unfit(why)) => Ok(Err(StoreError::new(why))),
                Err(PrepareError::Away(error)) => Err(error),
            }
        };
        forever(retry, prepare, |error, _| {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(%error, "the store cannot be prepared; trying on");
            }
        })
        .await?;
        status.store_up.store(true, Ordering::Release);
        status.set_waits_for(Some("the broker".into()));
        let broker = Broker::connect(service, &config, retry, |why| status.set_waits_for(Some(why))).await;
        status.connected(broker.refusals());
        rules.max_message = broker.max_message();
        let mut told = None;
        let declare = || declare(&broker, service, &release, &publishes);
        forever(retry, declare, |error: DeclareError, _| {
            let error = error.to_string();
            if told.as_ref() != Some(&error) {
                tracing::warn!(error, "a stream cannot be declared; trying on");
                status.set_waits_for(Some(error.clone()));
                told = Some(error);
            }
        })
        .await;
        if self.rebuild {
            status.set_waits_for(Some("its rebuild".into()));
            let streams: Vec<&str> = reads.iter().map(|reading| reading.stream.name).collect();
            let mut told = None;
            let forget = || rebuild::forget(&*store, &broker, service, &streams, &timing);
            forever(retry, forget, |error: String, _| {
                if told.as_ref() != Some(&error) {
                    tracing::warn!(error, "the rebuild cannot begin; trying on");
                    status.set_waits_for(Some(error.clone()));
                    told = Some(error);
                }
            })
            .await;
        }
        let instance = forever(retry, || Current::insert(&*store, clock.now()), |_, _| ()).await;
        let (mut consumers, mut helpers) = (JoinSet::new(), JoinSet::new());
        let discovery = Discovery {
            service,
            release: release.clone(),
            instance: instance.id,
            broker: broker.clone(),
            probe: self.probe,
            meters: meters.clone(),
            answers: Arc::new(Answers { context: self.context, kinds: kinds.clone() }),
            timing: timing.clone(),
        };
        helpers.spawn(discovery.run().in_current_span());

        let (acker, acker_task) = Acker::new(&broker, meters.clone());
        let acker_task = tokio::spawn(acker_task.in_current_span());
        let publisher = self.publisher.run(broker.clone(), timing.clone(), meters.clone());
        let publisher = tokio::spawn(publisher.in_current_span());
        let (message_tx, messages) = mpsc::channel(timing.batch_inputs);
        let (end_tx, ends) = mpsc::unbounded_channel();
        let (due_tx, due) = mpsc::channel(timing.batch_inputs);
        let (gate, gate_rx) = watch::channel(true);
        let mut progress = Vec::new();
        let mut readings = Vec::new();
        let (mut all_handlers, mut all_ignored) = (HashMap::new(), HashSet::new());
        for reading in reads {
            let filters = reading.events().map(|event| format!("{event}.*")).collect();
            let declared = Declared {
                stream: reading.stream.name,
                start: Some(reading.start),
                durable: service,
                rebuildable: self.rebuildable,
                best_effort: reading.best_effort,
                release: release.clone(),
                single_writer,
                ensured: AtomicBool::new(false),
                lost: Notify::new(),
                filters,
                store: store.clone(),
                timing: timing.clone(),
            };
            let handlers: HashMap<_, _> =
                reading.handlers.into_iter().map(|handler| (handler.event_type(), handler)).collect();
            let ignored: HashSet<_> = reading.ignored.into_iter().collect();
            all_handlers.extend(handlers.iter().map(|(event, handler)| (*event, handler.clone())));
            all_ignored.extend(ignored.iter().copied());
            readings.push((declared, handlers, ignored));
        }
        // What is handed back may be of any stream.
        let redrives = Declared::redrives(service, release.clone(), store.clone(), timing.clone());
        readings.push((redrives, all_handlers, all_ignored));
        for (declared, handlers, ignored) in readings {
            let source = Arc::new(Source::new(declared.stream, service));
            let of_stream = Arc::new(Progress::default());
            progress.push((source.clone(), of_stream.clone()));
            let declared = Arc::new(declared);
            helpers.spawn(declared.clone().watch(broker.clone(), of_stream.clone()).in_current_span());
            let consumer = Consumer {
                broker: broker.clone(),
                declared,
                handlers,
                ignored,
                source,
                progress: of_stream,
                inputs: message_tx.clone(),
                acker: acker.clone(),
                gate: gate_rx.clone(),
                stop: stop.clone(),
                timing: timing.clone(),
                meters: meters.clone(),
            };
            consumers.spawn(consumer.run().in_current_span());
        }
        for room in status.rooms() {
            let trimmer = Trimmer {
                broker: broker.clone(),
                room: room.clone(),
                release: release.clone(),
                clock: clock.clone(),
                timing: timing.clone(),
                meters: meters.clone(),
            };
            helpers.spawn(trimmer.run().in_current_span());
        }
        status.go_online(broker.clone(), progress);

        let board = Board::new(timing.effect_slots, timing.effect_gate);
        let sweep = Sweep {
            service,
            store: store.clone(),
            kinds: kinds.clone(),
            board: board.clone(),
            due: due_tx,
            clock: clock.clone(),
            timing: timing.clone(),
            status: status.clone(),
            meters: meters.clone(),
        };
        helpers.spawn(sweep.run(stop.clone()).in_current_span());
        let instances = InstanceSweep { store: store.clone(), outbox: outbox.clone(), timing: timing.clone() };
        helpers.spawn(instances.run(stop.clone()).in_current_span());
        tracing::info!(http, broker = broker_url, store = store_url, reads = read, publishes = published, "started");
        let engine = Engine {
            store,
            rules,
            kinds,
            clock,
            intake: Intake { commands: self.commands, ends, due, messages },
            ends: end_tx,
            outbox,
            acker,
            board,
            status,
            meters,
            link: broker.link.clone(),
            gate,
            stop,
            instance,
            distrust: (0, Instant::now()),
            expire_at: Instant::now(),
            store_tries: 0,
            timing,
        };
        Ok(Started { engine, broker, consumers, helpers, publisher, acker: acker_task })
    }
}

async fn declare(broker: &Broker, service: &str, release: &Release, streams: &[Stream]) -> Result<(), DeclareError> {
    for stream in streams {
        broker.declare(stream, release).await?;
    }
    broker.declare_dead_letters(service, release).await
}

/// Tells the health routes how the engine is.
struct EngineProbe {
    status: Arc<Status>,
    timing: Timing,
}

impl Probe for EngineProbe {
    fn health(&self) -> Health {
        let consumer = |(source, progress): (Arc<Source>, Arc<Progress>)| ConsumerHealth {
            stream: source.stream.into(),
            durable: source.consumer.into(),
            pulling: progress.pulling.load(Ordering::Acquire),
            standby: progress.stands_by(),
            pending: progress.pending.load(Ordering::Acquire),
            ack_pending: progress.ack_pending.load(Ordering::Acquire),
        };
        let refuses = self.status.refuses(&self.timing).is_some();
        Health {
            database: self.status.store_up.load(Ordering::Acquire),
            broker: self.status.broker_up(),
            waiting_for: self.status.waits(&self.timing),
            consumers: self.status.consumers().into_iter().map(consumer).collect(),
            commands_free: if refuses { 0 } else { self.status.room(&self.timing) },
            draining: self.draining(),
        }
    }

    fn draining(&self) -> bool {
        self.status.draining.load(Ordering::Acquire)
    }
}
