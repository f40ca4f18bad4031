//! "Publish these, expect those": services on a broker of their own, with stores in a folder.

use std::net::Ipv4Addr;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, Info, pull};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Broker, TestStore, eventually};
use crate::broker::Broker as Link;
use crate::commands::{Accepted, Caller, CommandError, Context};
use crate::config::{Config, NatsUrl, StoreUrl};
use crate::dead_letter;
use crate::declare::events;
use crate::engine::timing::Timing;
use crate::event::{Emitted, Event, Meta, Received, Stream, assert_type_in_stream, header};
use crate::handler::{Command, CommandHandler, Document};
use crate::http::Probe;
use crate::ids::{Id, Timestamp};
use crate::release::Release;
use crate::run::Running;
use crate::service::{Options, RunError, Service};
use crate::telemetry::Telemetry;

/// How long anything is waited for before a test fails; long, because a machine that runs tests is busy.
const PATIENCE: Duration = Duration::from_secs(40);

/// A broker, stores, and a connection to publish and look with.
pub struct Bench {
    /// The broker, to be stopped, killed, paused and restarted.
    pub broker: Broker,
    /// The other servers of its cluster, if it is in one.
    pub others: Vec<Broker>,
    /// The stores.
    pub store: TestStore,
    link: Link,
    settings: Settings,
}

/// What travels beside a fresh event of a test: a random id, the time it is now, its own correlation id.
pub fn fresh_meta() -> Meta {
    let time = Timestamp::system();
    let id = Id::random(time);
    Meta { id, time, correlation: id.to_string(), causation: None, traceparent: None }
}

impl Bench {
    /// Starts a broker.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::start_with(TestStore::new()).await
    }

    /// Starts a broker beside stores that are there.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(store: TestStore) -> Self {
        Self::start_on(vec![Broker::start().await], store, None).await
    }

    /// Starts beside brokers that are there, the servers of one cluster. Every service is given the addresses of all of them, and
    /// the number of replicas that its streams are to have.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start_on(brokers: Vec<Broker>, store: TestStore, stream_replicas: Option<usize>) -> Self {
        let url = brokers.iter().map(Broker::url).collect::<Vec<_>>().join(",");
        let settings = Settings { url, stream_replicas };
        let link = Link::connect("bench", &settings.config(&store, "bench"), Timing::short().gate_retry, |_| ()).await;
        let mut brokers = brokers.into_iter();
        Self { broker: brokers.next().expect("a broker"), others: brokers.collect(), store, link, settings }
    }

    /// The server that leads a stream of a cluster, once there is one.
    ///
    /// # Panics
    /// When there is none for long.
    pub async fn leader(&mut self, stream: &Stream) -> &mut Broker {
        let led = async || {
            let info = self.jetstream().get_stream(stream.name).await.ok()?.cached_info().clone();
            info.cluster?.leader.filter(|leader| !leader.is_empty())
        };
        let leader = eventually(&format!("a leader of {}", stream.name), PATIENCE, led).await;
        let mut servers = [&mut self.broker].into_iter().chain(&mut self.others);
        servers.find(|server| server.name() == Some(&leader)).expect("the leader is one of them")
    }

    /// The JetStream context of the bench's own connection.
    pub fn jetstream(&self) -> &async_nats::jetstream::Context {
        &self.link.jetstream
    }

    /// Declares a stream as the service that owns it would.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub async fn declare(&self, stream: &Stream) {
        self.link.ensure(events(&stream.into()), &Release::default()).await.expect("the stream can be declared");
    }

    /// Publishes an event straight to its stream, and waits for the broker's ack. There is no `Nats-Msg-Id`, so an id that is
    /// published twice reaches the service twice.
    ///
    /// # Panics
    /// When the broker does not take it.
    pub async fn publish<E: Event>(&self, meta: &Meta, event: &E) {
        self.publish_all([(meta.clone(), event)]).await;
    }

    /// Publishes events in order without waiting between them; see [`Bench::publish`].
    ///
    /// # Panics
    /// When the broker does not take one.
    pub async fn publish_all<'a, E: Event>(&self, events: impl IntoIterator<Item = (Meta, &'a E)>) {
        const { assert_type_in_stream::<E>() };
        let mut acks = Vec::new();
        for (meta, event) in events {
            let event = Emitted::event("bench", &meta, event).expect("an event can be written");
            let headers = event.headers.iter().filter(|(name, _)| name != header::MSG_ID);
            let headers = header_map(headers.map(|(name, value)| (name.as_str(), value.as_str())));
            let sent = self.jetstream().publish_with_headers(event.subject, headers, event.payload).await;
            acks.push(sent.expect("the broker is there"));
        }
        for ack in acks {
            ack.await.expect("the broker takes the event");
        }
    }

    /// Publishes anything, with header values as they are on the wire; gives its sequence in the stream.
    ///
    /// # Panics
    /// When the broker does not take it.
    pub async fn publish_raw(&self, subject: &str, headers: &[(&str, &str)], payload: impl Into<Vec<u8>>) -> u64 {
        let headers = header_map(headers.iter().copied());
        let payload = payload.into().into();
        let sent = self.jetstream().publish_with_headers(subject.to_owned(), headers, payload).await;
        sent.expect("the broker is there").await.expect("the broker takes the message").sequence
    }

    /// All events of a type that are in its stream.
    ///
    /// # Panics
    /// When one cannot be read.
    pub async fn events<E: Event>(&self) -> Vec<Received<E>> {
        const { assert_type_in_stream::<E>() };
        let found = self.messages(E::STREAM.name, &format!("{}.*", E::TYPE)).await;
        found.into_iter().flatten().map(|message| received(&message)).collect()
    }

    /// Waits until there are as many events of a type, and gives all there are.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn expect<E: Event>(&self, count: usize) -> Vec<Received<E>> {
        let what = format!("{count} of `{}`", E::TYPE);
        eventually(&what, PATIENCE, async || Some(self.events::<E>().await).filter(|found| found.len() >= count)).await
    }

    /// The dead letters of a service.
    pub async fn dead_letters(&self, service: &str) -> Vec<Emitted> {
        self.messages(&dead_letter::stream_name(service), ">").await.unwrap_or_default()
    }

    /// Waits until there are as many dead letters, and gives all there are.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn expect_dead_letters(&self, service: &str, count: usize) -> Vec<Emitted> {
        let found = async || Some(self.dead_letters(service).await).filter(|found| found.len() >= count);
        eventually(&format!("{count} dead letters of `{service}`"), PATIENCE, found).await
    }

    /// What the broker knows of a service's durable on a stream; `None` if there is none, or the broker does not answer.
    pub async fn durable(&self, stream: &Stream, service: &str) -> Option<Info> {
        self.jetstream().get_stream_no_info(stream.name).await.ok()?.consumer_info(service).await.ok()
    }

    /// Waits until a service has nothing more to handle of a stream, and has acked all it was given.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn until_handled(&self, stream: &Stream, service: &str) {
        let done = async || {
            let info = self.durable(stream, service).await;
            info.is_some_and(|info| info.num_pending == 0 && info.num_ack_pending == 0)
        };
        eventually(&format!("`{service}` to have handled all of {}", stream.name), PATIENCE, done).await;
    }

    /// Starts a service on a free port, with its store in the bench's folder; does not wait until it is ready.
    ///
    /// # Panics
    /// When it cannot start.
    pub async fn launch(&self, service: Service, timing: Timing) -> TestService {
        self.launch_with(service, Options { timing, ..Options::default() }).await
    }

    /// Starts a service with a clock or a store of the test's own; does not wait until it is ready.
    ///
    /// # Panics
    /// When it cannot start.
    pub async fn launch_with(&self, service: Service, options: Options) -> TestService {
        let config = self.settings.config(&self.store, service.name());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("the port").port();
        let running = Running::start(service, config, options, listener).expect("the service can start");
        let (context, probe, telemetry) = running.inside();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = tokio::spawn(running.until(async { drop(stopped.await) }));
        TestService { context, probe, telemetry, port, stop, run }
    }

    /// Starts a service and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become so.
    pub async fn run(&self, service: Service, timing: Timing) -> TestService {
        let service = self.launch(service, timing).await;
        service.until_ready().await;
        service
    }

    /// The messages of a stream; `None` if there is no such stream or the broker does not answer.
    async fn messages(&self, stream: &str, filter: &str) -> Option<Vec<Emitted>> {
        let stream = self.jetstream().get_stream_no_info(stream).await.ok()?;
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            filter_subject: filter.into(),
            memory_storage: true,
            inactive_threshold: Duration::from_secs(10),
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.ok()?;
        let count = usize::try_from(consumer.cached_info().num_pending).ok()?;
        let mut found = Vec::with_capacity(count);
        if count > 0 {
            let mut messages = consumer.fetch().max_messages(count).messages().await.ok()?;
            while let Some(Ok(message)) = messages.next().await {
                found.push(emitted(&message));
            }
        }
        let _ = stream.delete_consumer(&consumer.cached_info().name).await;
        (found.len() == count).then_some(found)
    }
}

/// What every service on the bench is told.
struct Settings {
    url: String,
    stream_replicas: Option<usize>,
}

impl Settings {
    fn config(&self, store: &TestStore, service: &str) -> Config {
        let nats_url = NatsUrl::read(&self.url).expect("a broker's URL");
        let mut config = Config::new(nats_url, StoreUrl::read(&store.url(service)).expect("a store's URL"));
        config.stream_replicas = self.stream_replicas;
        config
    }
}

fn header_map<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let mut map = HeaderMap::new();
    headers.for_each(|(name, value)| map.append(name, value));
    map
}

fn emitted(message: &async_nats::jetstream::Message) -> Emitted {
    let headers = message.headers.iter().flat_map(HeaderMap::iter);
    let headers = headers.flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    Emitted {
        subject: message.subject.to_string(),
        headers: headers.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        payload: message.payload.clone(),
    }
}

fn received<E: Event>(message: &Emitted) -> Received<E> {
    let get = |name: &str| message.header(name);
    let id = get(header::ID).and_then(|id| id.parse().ok()).expect("an event has an id");
    let meta = Meta {
        id,
        time: get(header::TIME).and_then(|time| time.parse().ok()).expect("an event has a time"),
        correlation: get(header::CORRELATION).expect("an event has a correlation id"),
        causation: get(header::CAUSATION),
        traceparent: get(header::TRACEPARENT),
    };
    Received { meta, body: serde_json::from_slice(&message.payload).expect("an event of its type") }
}

fn somebody() -> Caller {
    Caller { correlation: "test".into(), ..Caller::default() }
}

/// A service that runs in the test's process.
pub struct TestService {
    context: Context,
    probe: std::sync::Arc<dyn Probe>,
    telemetry: Telemetry,
    port: u16,
    stop: oneshot::Sender<()>,
    run: JoinHandle<Result<(), RunError>>,
}

impl TestService {
    /// Where it serves HTTP.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Executes a command, as one of its routes would.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn submit<C: Command>(&self, command: C) -> Result<Accepted<C::Reply>, CommandError> {
        self.submit_as(&somebody(), command).await
    }

    /// Executes a command by a handler of its own.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn submit_to<C, H>(&self, handler: &H, command: C) -> Result<Accepted<H::Reply>, CommandError>
    where
        C: Serialize + Send + Sync + 'static,
        H: CommandHandler<C> + Clone,
    {
        self.context.submit_to(&somebody(), handler, command).await
    }

    /// Executes a command for a caller.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn submit_as<C: Command>(&self, caller: &Caller, command: C) -> Result<Accepted<C::Reply>, CommandError> {
        self.context.submit(caller, command).await
    }

    /// Reads a document.
    ///
    /// # Panics
    /// When the store is away.
    pub async fn get<D: Document>(&self, id: &str) -> Option<D> {
        self.context.get(id).await.expect("the store answers")
    }

    /// The service as its routes see it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What it waits for, a sentence each; empty when it is ready.
    pub fn waits_for(&self) -> Vec<String> {
        self.probe.health().waiting()
    }

    /// What an operator should know of it although it works, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        self.probe.health().notes
    }

    /// Whether another replica reads one of its streams, and this one is there to take over.
    pub fn stands_by(&self) -> bool {
        self.probe.health().consumers.iter().any(|consumer| consumer.standby)
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it does not become so.
    pub async fn until_ready(&self) {
        eventually("the service to be ready", PATIENCE, async || self.waits_for().is_empty()).await;
    }

    /// Waits until one of what it waits for contains `text`.
    ///
    /// # Panics
    /// When it does not.
    pub async fn until_waits_for(&self, text: &str) {
        let waits = async || self.waits_for().iter().any(|what| what.contains(text));
        eventually(&format!("the service to say that it waits for `{text}`"), PATIENCE, waits).await;
    }

    /// Its metrics, as `/metrics` shows them.
    pub fn metrics(&self) -> String {
        self.telemetry.render()
    }

    /// The sum of a metric's series that carry all these labels; `None` if there is no such series.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let text = self.metrics();
        let of_metric = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let series = text.lines().filter(of_metric).filter(|line| labels.iter().all(|label| line.contains(label)));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).reduce(|sum, value| sum + value)
    }

    /// Waits until it has ended by itself, and says how.
    ///
    /// # Errors
    /// Why it could not go on.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ended(self) -> Result<(), RunError> {
        let Self { stop, run, .. } = self;
        let ended = tokio::time::timeout(PATIENCE, run).await.expect("the service to have ended");
        drop(stop);
        ended.expect("the service not to panic")
    }

    /// Stops it in order, and waits until it has ended.
    ///
    /// # Panics
    /// When it ends with an error, or not at all.
    pub async fn stop(self) {
        let Self { stop, run, .. } = self;
        drop(stop);
        let ended = tokio::time::timeout(PATIENCE, run).await.expect("the service to have stopped");
        ended.expect("the service not to panic").expect("the service to end well");
    }
}
