//! [`Service`]: what a service is made of, declared in one place.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use millstream_core::declaration::{Declaration, Published, Read};

use crate::api_keys::ApiKeys;
use crate::commands::Context;
use crate::config::Config;
pub use crate::durable::Start;
use crate::engine::timing::{Clock, Timing};
use crate::event::{Event, Stream, assert_type_in_stream};
use crate::handler::{Document, Effect, Handler, Timer};
use crate::release::Release;
use crate::store::{Collection, Store, StoreError};
pub use crate::supervisor::TaskEnd;
use crate::telemetry::Metric;
use crate::unit::Rules;
use crate::work::{AnyEffect, AnyHandler, AnyTimer, HandlerOf};

/// A service: what it publishes, what it reads and how it reacts, its effects and timers, its routes.
///
/// The name is its identity: its journal, its durables and its database belong to it.
pub struct Service {
    pub(crate) name: &'static str,
    pub(crate) release: Release,
    pub(crate) single_writer: bool,
    pub(crate) publishes: Vec<Stream>,
    /// The readers that were named, by stream.
    pub(crate) readers: HashMap<&'static str, Vec<&'static str>>,
    pub(crate) reads: Vec<Reading>,
    pub(crate) effects: Vec<Arc<dyn AnyEffect>>,
    pub(crate) timers: Vec<Arc<dyn AnyTimer>>,
    pub(crate) collections: Vec<Collection>,
    pub(crate) metrics: Vec<&'static Metric>,
    pub(crate) series: Vec<(&'static Metric, Vec<String>)>,
    pub(crate) routes: Router<Context>,
    pub(crate) callers: Option<ApiKeys>,
}

pub(crate) struct Reading {
    pub(crate) stream: Stream,
    pub(crate) start: Start,
    pub(crate) best_effort: bool,
    pub(crate) handlers: Vec<Arc<dyn AnyHandler>>,
    /// Types that had a handler once.
    pub(crate) ignored: Vec<&'static str>,
}

impl Reading {
    /// The types it is given.
    pub(crate) fn events(&self) -> impl Iterator<Item = &'static str> {
        self.handlers.iter().map(|handler| handler.event_type()).chain(self.ignored.iter().copied())
    }
}

impl Service {
    /// A service that does nothing yet.
    ///
    /// # Panics
    /// When the name is not made of lower-case letters, digits and `-`.
    pub fn new(name: &'static str) -> Self {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(
            !name.is_empty() && name.bytes().all(legal),
            "a service's name is made of a-z, 0-9 and -, not `{name}`"
        );
        Self {
            name,
            release: Release::default(),
            single_writer: false,
            publishes: vec![],
            readers: HashMap::new(),
            reads: vec![],
            effects: vec![],
            timers: vec![],
            collections: vec![],
            metrics: vec![],
            series: vec![],
            routes: Router::new(),
            callers: None,
        }
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The release of the service, a semantic version; by default the toolkit's own. Streams and durables carry the release
    /// that has declared them, and an older one does not change them.
    ///
    /// # Panics
    /// When it is not of the form `1.4.0` or `1.4.0-rc.1`.
    #[must_use]
    pub fn release(mut self, version: &str) -> Self {
        let read = Release::read(version);
        self.release =
            read.unwrap_or_else(|error| panic!("the release `{version}` is not a semantic version: {error}"));
        self
    }

    /// Lets one replica at a time read: the others stand by, and one of them takes over within seconds. For a service whose
    /// messages concern few documents, so that replicas would only conflict with each other. It is not mutual exclusion: two may
    /// read for a moment, and the guard on every document keeps them from harm, as always. Commands go to any replica.
    #[must_use]
    pub fn single_writer(mut self) -> Self {
        self.single_writer = true;
        self
    }

    /// Owns a stream: declares it at start and may emit its events.
    #[must_use]
    pub fn publishes(mut self, stream: Stream) -> Self {
        self.publishes.push(stream);
        self
    }

    /// Names the services that are to read the stream last named by [`Service::publishes`]: nothing of it is trimmed that one of
    /// them has not handled, also before its first start. Without this a stream is kept whole until somebody reads it, and then
    /// for those who do. With an empty list it is trimmed although nobody may ever read it.
    ///
    /// # Panics
    /// When no stream was named.
    #[must_use]
    pub fn read_by<const N: usize>(mut self, readers: [&'static str; N]) -> Self {
        let stream = self.publishes.last().expect("`read_by` is about a stream: name it with `publishes` first");
        self.readers.insert(stream.name, readers.to_vec());
        self
    }

    /// Keeps documents of a collection.
    ///
    /// # Panics
    /// When the collection's name is not made of lower-case letters, digits and `_`.
    #[must_use]
    pub fn keeps<D: Document>(mut self) -> Self {
        let name = D::COLLECTION;
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        assert!(
            !name.is_empty() && name.bytes().all(legal),
            "a collection's name is made of a-z, 0-9 and _, not `{name}`"
        );
        let collection = Collection { name, indexed: D::INDEXED };
        if !self.collections.contains(&collection) {
            self.collections.push(collection);
        }
        self
    }

    /// Reads a stream; the `on` that follow say what of it.
    ///
    /// # Panics
    /// When the stream is read already.
    #[must_use]
    pub fn reads(mut self, stream: Stream, start: Start) -> Self {
        assert!(
            self.reads.iter().all(|reading| reading.stream.name != stream.name),
            "stream {} is read already: say `reads` once",
            stream.name
        );
        self.reads.push(Reading { stream, start, best_effort: false, handlers: vec![], ignored: vec![] });
        self
    }

    /// Reads of the stream last named by [`Service::reads`] whatever is still there: its owner may trim messages that this
    /// service has not read yet.
    ///
    /// # Panics
    /// When no stream was named.
    #[must_use]
    pub fn best_effort(mut self) -> Self {
        self.reading("best_effort").best_effort = true;
        self
    }

    fn reading(&mut self, what: &str) -> &mut Reading {
        self.reads.last_mut().unwrap_or_else(|| panic!("`{what}` is about a stream: name it with `reads` first"))
    }

    /// Reacts to a type of event of a stream that [`Service::reads`] has named. A handler of several events says of which:
    /// `.on::<OrderConfirmed>(Tell).on::<OrderCancelled>(Tell)`. An event whose type does not lie in its stream does not compile.
    ///
    /// # Panics
    /// When the event's stream was not named, or the event has a handler already.
    #[must_use]
    pub fn on<E: Event>(mut self, handler: impl Handler<E>) -> Self {
        self.reading_of(E::TYPE, E::STREAM).handlers.push(Arc::new(HandlerOf::new(handler)));
        self
    }

    /// Takes the place of the handler that an earlier release had for a type of event: what is left of it is acked and counted,
    /// and leaves no trace in the journal. Without it such messages would wait for a newer release and be parked as `ahead`,
    /// because the broker goes on delivering what a durable was once asked to deliver.
    ///
    /// # Panics
    /// When the event's stream was not named, or the event has a handler.
    #[must_use]
    pub fn ignores<E: Event>(mut self) -> Self {
        const { assert_type_in_stream::<E>() };
        self.reading_of(E::TYPE, E::STREAM).ignored.push(E::TYPE);
        self
    }

    fn reading_of(&mut self, event: &str, stream: Stream) -> &mut Reading {
        assert!(
            !self.reads.iter().flat_map(Reading::events).any(|have| have == event),
            "`{event}` has a handler already, or is ignored"
        );
        let reading = self.reads.iter_mut().find(|reading| reading.stream == stream);
        reading.unwrap_or_else(|| panic!("`{event}` is on stream {}: name it with `reads`", stream.name))
    }

    /// Runs effects of a kind, and keeps the documents that carry their intents as [`Service::keeps`] does.
    ///
    /// # Panics
    /// When the kind is taken.
    #[must_use]
    pub fn effect<E: Effect>(mut self, effect: E) -> Self {
        self.claim_kind(E::KIND.name());
        self.effects.push(Arc::new(effect));
        self.keeps::<E::Document>()
    }

    /// Fires timers of a kind, and keeps the documents that carry them as [`Service::keeps`] does.
    ///
    /// # Panics
    /// When the kind is taken.
    #[must_use]
    pub fn timer<T: Timer>(mut self, timer: T) -> Self {
        self.claim_kind(T::KIND.name());
        self.timers.push(Arc::new(timer));
        self.keeps::<T::Document>()
    }

    fn claim_kind(&self, kind: &str) {
        let mut kinds =
            self.effects.iter().map(|effect| effect.kind()).chain(self.timers.iter().map(|timer| timer.kind()));
        assert!(kinds.all(|have| have != kind), "there is an effect or timer of kind `{kind}` already");
    }

    /// Adds metrics of the service's own.
    #[must_use]
    pub fn metrics(mut self, metrics: impl IntoIterator<Item = &'static Metric>) -> Self {
        self.metrics.extend(metrics);
        self
    }

    /// Presets series of a metric at 0 whose label values are known only at run time, so that their first increase is seen as one.
    ///
    /// # Panics
    /// When a series has more or fewer values than the metric has labels.
    #[must_use]
    pub fn preset_series<const N: usize>(
        mut self,
        metric: &'static Metric,
        series: impl IntoIterator<Item = [impl Into<String>; N]>,
    ) -> Self {
        assert_eq!(N, metric.labels.len(), "{} has the labels {:?}", metric.name, metric.labels);
        self.series.extend(series.into_iter().map(|values| (metric, values.map(Into::into).to_vec())));
        self
    }

    /// Serves HTTP routes beside the ones every service has.
    #[must_use]
    pub fn routes(mut self, routes: Router<Context>) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Answers only callers that have one of these keys, with 401 for anybody else; health and metrics are for all. An
    /// `Idempotency-Key` is the caller's own then: another may use the same for something else.
    #[must_use]
    pub fn only_for(mut self, callers: ApiKeys) -> Self {
        self.callers = Some(callers);
        self
    }

    /// What it needs of the broker: for whoever declares streams and rights before it starts.
    pub fn declaration(&self) -> Declaration {
        let read = |of: &Reading| Read { stream: of.stream.name.into(), best_effort: of.best_effort };
        Declaration {
            service: self.name.into(),
            release: self.release.to_string(),
            publishes: self.publishes.iter().map(Published::from).collect(),
            reads: self.reads.iter().map(read).collect(),
            replicas: None,
        }
    }

    /// The same, as it is configured.
    pub fn declaration_with(&self, config: &Config) -> Declaration {
        Declaration { replicas: config.stream_replicas, ..self.declaration() }
    }

    /// What its handlers may stage.
    pub(crate) fn rules(&self, max_message: usize) -> Rules {
        let effects = self.effects.iter().map(|effect| (effect.kind(), effect.collection()));
        let timers = self.timers.iter().map(|timer| (timer.kind(), timer.collection()));
        Rules {
            service: self.name,
            streams: self.publishes.clone(),
            max_message,
            kinds: effects.chain(timers).collect(),
            collections: Some(self.collections.iter().map(|collection| collection.name).collect()),
        }
    }
}

/// Settings of a service besides its configuration, mostly for tests.
#[derive(Clone, Default)]
pub struct Options {
    /// Times and bounds; one that the configuration names as well (`Config::unpublished_limit`, `Config::journal_retention`)
    /// is taken from there.
    pub timing: Timing,
    /// Where `now` comes from.
    pub clock: Clock,
    /// A store that is open already, in place of the configured one.
    pub store: Option<Arc<dyn Store>>,
    /// Discards all data of the service at its start, its durables too, and reads its streams from their beginning. Only for a
    /// service whose data all comes from its streams: one that publishes nothing, has no wakes or timers, and reads from
    /// [`Start::Beginning`]. What came in by commands does not come back.
    ///
    /// If it is killed during the rebuild and started without this option, the service either continues to read from the
    /// beginning, or says that the rebuild must be repeated. Each start with it begins again. No other instance may run.
    pub rebuild: Option<Rebuild>,
}

/// Whether a service may be rebuilt although a stream has lost its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rebuild {
    /// Not at all: what was made of the messages that are gone would not come back.
    Whole,
    /// From what the streams still hold.
    Partial,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("timing", &self.timing)
            .field("clock", &self.clock)
            .field("rebuild", &self.rebuild)
            .finish_non_exhaustive()
    }
}

/// Why a service failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The rebuild was refused; nothing was changed.
    #[error("`{service}` cannot be rebuilt: {why}")]
    Rebuild {
        /// The service.
        service: &'static str,
        /// Why.
        why: String,
    },
    /// Two settings contradict each other; nothing was changed.
    #[error("`{service}` cannot start: {why}")]
    Settings {
        /// The service.
        service: &'static str,
        /// Which two, and what would be right.
        why: String,
    },
    /// The store cannot be opened, or is unsuitable.
    #[error("the store of `{service}` cannot be opened: {error}")]
    Store {
        /// The service.
        service: &'static str,
        /// Why.
        #[source]
        error: StoreError,
    },
    /// A task of the service panicked or ended before it was stopped; a process that lived on would only look healthy.
    #[error("`{service}` stopped because its task `{task}` {end}")]
    Task {
        /// The service.
        service: &'static str,
        /// The task: `publisher`, `consumer of ORDERS`.
        task: String,
        /// How it ended.
        end: TaskEnd,
    },
    /// HTTP cannot be served.
    #[error("`{service}` cannot serve HTTP: {error}")]
    Http {
        /// The service.
        service: &'static str,
        /// Why.
        #[source]
        error: std::io::Error,
    },
}
