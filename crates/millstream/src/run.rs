//! Running a service: HTTP is served from the first moment, unready; the engine starts when what it depends on is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::assemble::{Basis, Parts, Started};
use crate::capacity::Capacity;
use crate::commands::{Context, Shared};
use crate::config::Config;
use crate::engine::meters::Meters;
use crate::engine::publisher::Outbox;
use crate::engine::status::Status;
use crate::engine::timing::Timing;
use crate::event::Stream;
use crate::http::{EngineProbe, MAX_IN_FLIGHT, Probe, only_for, serve, shell};
use crate::rebuild;
use crate::service::{Options, Reading, RunError, Service};
use crate::stopping::stop;
use crate::store::StoreError;
use crate::supervisor::Supervisor;
use crate::telemetry::Telemetry;
use crate::watchers::Watchers;
use millstream_core::planner::Kinds;

/// How long requests may take to end once the engine has stopped.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

impl Service {
    /// Runs the service on `listener` until `shutdown`, then stops it in order: work in progress is finished, prefetched
    /// messages are handed back, committed events are published, within ten seconds.
    ///
    /// It starts before its broker and other services, and waits for them unready.
    ///
    /// # Errors
    /// When the store cannot be opened, HTTP cannot be served, or a task of the service panics or ends before `shutdown`; the
    /// others are stopped in order then.
    pub async fn run(
        self,
        config: Config,
        options: Options,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), RunError> {
        Running::start(self, config, options, listener)?.until(shutdown).await
    }
}

/// A service before its engine has started: HTTP is served already, unready.
pub(crate) struct Running {
    parts: Parts,
    router: Router,
    listener: TcpListener,
    telemetry: Telemetry,
    watchers: Watchers,
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
            // Watches stay open: half of the connections are for everybody else, probes among them.
            watch_limit: options.timing.watch_limit.min(crate::http::places() / 2),
            ..options.timing
        };
        check(&timing).map_err(|why| RunError::Settings { service: name, why })?;
        let obstacle = rebuild::obstacle(&service);
        let rebuildable = obstacle.is_none();
        if let Some(why) = obstacle.filter(|_| options.rebuild.is_some()) {
            return Err(RunError::Rebuild { service: name, why });
        }
        let store = options.store.map_or_else(|| crate::store::open_for(&config.store(name), name), Ok);
        let store = store.map_err(|error| RunError::Store { service: name, error })?;
        let kinds = Kinds {
            effects: service.effects.iter().map(|effect| (effect.kind(), effect.clone())).collect(),
            timers: service.timers.iter().map(|timer| (timer.kind(), timer.clone())).collect(),
        };
        let (telemetry, meters) = measures(&service, &kinds);
        let (outbox, publisher) = Outbox::new();
        let capacities = service
            .publishes
            .iter()
            .map(|stream| Arc::new(Capacity::new(*stream, service.readers.get(stream.name).cloned())))
            .collect();
        let status = Arc::new(Status::new(outbox.clone(), capacities));
        let (commands_in, commands) = mpsc::channel(timing.command_queue);
        let watchers = Watchers::new(store.clone(), timing.clone());
        let context = Context(Arc::new(Shared {
            service: name,
            store: store.clone(),
            commands: commands_in,
            status: status.clone(),
            timing: timing.clone(),
            clock: options.clock.clone(),
            watchers: watchers.clone(),
        }));
        let probe: Arc<dyn Probe> = Arc::new(EngineProbe::new(status.clone(), timing.clone()));
        // What the broker takes is known with the first connection, and before that no command is.
        let rules = service.rules(0);
        let routes = match service.callers {
            Some(callers) => only_for(callers, service.routes),
            None => service.routes,
        };
        let router = shell(routes, context.clone(), probe.clone(), telemetry.clone(), MAX_IN_FLIGHT);
        let (release, clock) = (service.release, options.clock);
        let parts = Parts {
            basis: Basis { service: name, release, timing, clock, store, kinds, status, meters },
            single_writer: service.single_writer,
            address: listener.local_addr().ok(),
            config,
            collections: service.collections,
            publishes: service.publishes,
            reads: service.reads,
            rebuild: options.rebuild,
            rebuildable,
            rules,
            probe,
            outbox,
            publisher,
            commands,
            context,
        };
        Ok(Self { parts, router, listener, telemetry, watchers })
    }

    /// What a test in the same process looks at.
    #[cfg(feature = "testing")]
    pub(crate) fn inside(&self) -> (Context, Arc<dyn Probe>, Telemetry) {
        (self.parts.context.clone(), self.parts.probe.clone(), self.telemetry.clone())
    }

    /// Runs until `shutdown`, or until a task fails; then stops.
    pub(crate) async fn until(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), RunError> {
        let Self { parts, router, listener, telemetry, watchers } = self;
        let (service, status) = (parts.basis.service, parts.basis.status.clone());
        let levels = parts.basis.levels();
        let supervisor = Supervisor::new(service);
        let serving = CancellationToken::new();
        // A service that nobody waits for any more stops too.
        let _dropped = (supervisor.stop().clone().drop_guard(), serving.clone().drop_guard());
        let span = telemetry.span();
        async {
            for warning in parts.config.demo_warnings(service) {
                tracing::warn!("{warning}");
            }
            let http = serve(listener, router, serving.clone().cancelled_owned());
            let http = supervisor.clone().watch("http", http);
            let http = tokio::spawn(http.in_current_span());
            let mut helpers = JoinSet::new();
            let upkeep = telemetry.clone();
            let upkeep = async move { upkeep.upkeep(std::future::pending()).await };
            supervisor.spawn(&mut helpers, "telemetry", upkeep);
            supervisor.spawn(&mut helpers, "watchers", watchers.clone().run());
            supervisor.spawn(&mut helpers, "levels", levels.run(serving.clone()));
            let lifecycle = supervisor.clone().watch("lifecycle", parts.run(supervisor.clone()));
            let lifecycle = tokio::spawn(lifecycle.in_current_span());
            tokio::select! {
                () = shutdown => {}
                () = supervisor.stop().cancelled() => {}
            }
            tracing::info!("stopping");
            status.draining.store(true, Ordering::Release);
            supervisor.stop().cancel();
            // Answers that go on for as long as somebody listens would hold up the end; their clients find another replica.
            watchers.close();
            let ended = lifecycle.await;
            serving.cancel();
            let served = tokio::time::timeout(LAST_REQUESTS, http).await;
            helpers.shutdown().await;
            tracing::info!("stopped");
            if let Ok(Some(Err(error))) = ended {
                return Err(RunError::Store { service, error });
            }
            // Idle connections that their clients keep open do not hold up the end.
            if let Ok(Ok(Some(Err(error)))) = served {
                return Err(RunError::Http { service, error });
            }
            supervisor.failed().map_or(Ok(()), |(task, end)| Err(RunError::Task { service, task, end }))
        }
        .instrument(span)
        .await
    }
}

/// Refuses bounds that do not fit together.
fn check(timing: &Timing) -> Result<(), String> {
    let Timing { journal_retention, key_retention, .. } = timing;
    if journal_retention < key_retention {
        return Err(format!(
            "the journal is kept for {} (--journal-retention, JOURNAL_RETENTION), and a repeat under an Idempotency-Key is \
             answered from it for {}: keep it at least as long",
            humantime::format_duration(*journal_retention),
            humantime::format_duration(*key_retention),
        ));
    }
    Ok(())
}

/// The metrics of a service; every series whose labels are known begins at 0.
fn measures(service: &Service, kinds: &Kinds) -> (Telemetry, Arc<Meters>) {
    let telemetry = Telemetry::new(service.name, &service.metrics);
    for (metric, labels) in &service.series {
        telemetry.declare(metric, &[&labels.iter().map(String::as_str).collect::<Vec<_>>()]);
    }
    let reads: Vec<Stream> = service.reads.iter().map(|reading| reading.stream).collect();
    let events: Vec<&'static str> = service.reads.iter().flat_map(Reading::events).collect();
    let effects: Vec<&'static str> = kinds.effects.keys().copied().collect();
    let timers: Vec<&'static str> = kinds.timers.keys().copied().collect();
    let meters = Meters::new(telemetry.clone(), &service.publishes, &reads, &events, &effects, &timers);
    (telemetry, Arc::new(meters))
}

impl Parts {
    /// Runs until told to stop; errors are permanent: the store cannot be used.
    async fn run(self, supervisor: Supervisor) -> Result<(), StoreError> {
        let (limit, outbox) = (self.basis.timing.shutdown, self.outbox.clone());
        let started = tokio::select! {
            biased;
            () = supervisor.stop().cancelled() => return Ok(()),
            started = self.start(&supervisor) => started?,
        };
        let Started { engine, broker, tasks } = started;
        let work = async {
            let engine = supervisor.clone().watch("engine", engine.run()).await;
            stop(engine, outbox, &broker, tasks).await;
        };
        // The batch in hand counts too: a store that is locked or hangs must not hold up the end.
        let late = async {
            supervisor.stop().cancelled().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            () = work => {}
            () = late => tracing::warn!("stopping took too long; the next instance sweeps what is left"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_forgets_before_the_keys_do_is_refused_with_both_times() {
        let timing = |hours: u64| Timing { journal_retention: Duration::from_secs(hours * 3600), ..Timing::default() };
        assert_eq!(check(&timing(24)), Ok(()));
        let refused = check(&timing(2)).unwrap_err();
        for part in ["kept for 2h", "JOURNAL_RETENTION", "Idempotency-Key", "for 1day"] {
            assert!(refused.contains(part), "`{part}` is missing in: {refused}");
        }
    }
}
