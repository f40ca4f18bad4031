//! Each service on its own user of the broker, by the very configuration that the containers run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use async_nats::{Client, ConnectOptions, Event, HeaderMap, jetstream};
use futures_util::{StreamExt, TryStreamExt};
use millstream::Service;
use millstream::config::{Config, NatsUrl};
use millstream::declaration::Declaration;
use millstream::operator::dead::{DeadFilter, Letters, Outcome, Redrive};
use millstream::operator::{By, Operator};
use millstream::service::Options;
use millstream::testing::mongo::Mongod;
use millstream::testing::mongo::mongodb::{self, bson::doc};
use millstream::testing::{Broker, TestStore, eventually, skip};
use payments::gateway::QUERY_AFTER;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use shop::whole::Urls;
use shop::{check, gateway, serve};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::harness::{Caller, SERVICES, SOON, line, order_of, timing};

mod cells;
mod declared;

/// The configuration that the broker's image has.
fn configuration() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nats/nats.conf");
    fs::read_to_string(path).unwrap()
}

/// A broker with a configuration and flags of its own. Each user's password is the name; killed when dropped.
struct Guarded {
    server: Child,
    folder: TempDir,
    port: u16,
}

impl Guarded {
    async fn start(configuration: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nats.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = Command::new(nats_embedded::find().unwrap());
        command.arg("--config").arg(&file).args(["--addr", "127.0.0.1", "--port", "-1", "--http_port", "-1"]);
        command.arg("--store_dir").arg(folder.path()).arg("--ports_file_dir").arg(folder.path()).args(flags);
        command.env("NATS_SYNC_INTERVAL", r#""2m""#);
        for user in configuration.split("user: ").skip(1).filter_map(|rest| rest.split_whitespace().next()) {
            command.env(format!("NATS_{}_PASSWORD", user.to_uppercase()), format!("\"{user}\""));
        }
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let server = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let listens = async || {
            let files = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
            let ports = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "ports"))?;
            let ports: serde_json::Value = serde_json::from_slice(&fs::read(ports).ok()?).ok()?;
            ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
        };
        let port = eventually("the guarded broker's port", SOON, listens).await;
        Self { server, folder, port }
    }

    fn url(&self, user: &str) -> String {
        format!("nats://{user}:{user}@127.0.0.1:{}", self.port)
    }

    /// Makes the streams of all services, as the operator.
    async fn declare(&self) {
        let operator = Operator::new(self.client("operator").await.0);
        operator.declare(&declarations()).await.unwrap();
    }

    /// Changes the configuration of the running broker.
    fn reload(&self, configuration: &str) {
        fs::write(self.folder.path().join("nats.conf"), configuration).unwrap();
        let hang_up = format!("kill -HUP {}", self.server.id());
        assert!(Command::new("sh").args(["-c", &hang_up]).status().unwrap().success());
    }

    /// A client, and what the broker refuses it.
    async fn client(&self, user: &str) -> (Client, mpsc::UnboundedReceiver<String>) {
        let (refused_tx, refused) = mpsc::unbounded_channel();
        let note = move |event| {
            if let Event::ServerError(error) = event {
                refused_tx.send(error.to_string()).unwrap();
            }
            async {}
        };
        let url = NatsUrl::read(&self.url(user)).unwrap();
        let options = url.authenticate(ConnectOptions::new()).event_callback(note);
        let options = options.custom_inbox_prefix(millstream::broker::inbox_prefix(user));
        (options.connect(url.servers()).await.unwrap(), refused)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = (self.server.kill(), self.server.wait());
    }
}

/// The shop, ready, each service on its own user.
struct Guests {
    caller: Caller,
    _stores: TestStore,
    /// The services, and who tells them to stop.
    services: JoinSet<anyhow::Result<()>>,
    stop: watch::Sender<bool>,
    _beside: JoinSet<anyhow::Result<()>>,
}

impl Guests {
    /// As in production: what the services declare is there before them.
    async fn start(broker: &Guarded) -> Self {
        broker.declare().await;
        Self::start_undeclared(broker, async |_| ()).await
    }

    /// The services without what they declare; then somebody does something about it.
    async fn start_undeclared(broker: &Guarded, then: impl AsyncFnOnce(&Caller)) -> Self {
        let (stores, mut services, mut beside) = (TestStore::new(), JoinSet::new(), JoinSet::new());
        let stop = watch::Sender::new(false);
        let place = async || {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            (listener, url)
        };
        let (listener, gateway) = place().await;
        beside.spawn(gateway::serve(listener, gateway::Settings::default(), std::future::pending()));
        let mut urls = vec![];
        for name in SERVICES {
            let (listener, url) = place().await;
            urls.push(url);
            let mut config = serve::config(&broker.url(name), &stores.url(name)).unwrap();
            config.await_declared = true;
            let mut stop = stop.subscribe();
            let told = async move { drop(stop.wait_for(|stop| *stop).await) };
            services.spawn(run(service(name, &gateway), config, listener, told));
        }
        let (listener, console) = place().await;
        let config = serve::config(&broker.url("console"), &stores.url("console")).unwrap();
        let settings = millstream_console::Settings::of(&config).await.unwrap();
        beside.spawn(millstream_console::serve(settings, listener, std::future::pending()));
        let [orders, inventory, payments, notifications, analytics] = urls.try_into().unwrap();
        let nats = broker.url("operator");
        let urls = Urls { orders, inventory, payments, notifications, analytics, gateway, console, nats };
        let caller = Caller::new(urls);
        then(&caller).await;
        caller.urls.ready(&caller.http, SOON).await.unwrap();
        Self { caller, _stores: stores, services, stop, _beside: beside }
    }

    /// Stops the services in order.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.services.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

fn service(name: &str, gateway: &str) -> Service {
    match name {
        "orders" => orders::service(orders::Settings::default()),
        "inventory" => inventory::service(),
        "payments" => serve::payments(gateway, QUERY_AFTER).unwrap(),
        "notifications" => serve::notifications(&notifications::Settings::default()).unwrap(),
        "analytics" => analytics::service(),
        other => panic!("there is no service {other}"),
    }
}

/// What the services declare.
fn declarations() -> Vec<Declaration> {
    SERVICES.map(|name| service(name, "http://127.0.0.1:9").declaration()).into()
}

async fn run(
    service: Service,
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let options = Options { timing: timing(), ..Options::default() };
    Ok(service.run(config, options, listener, shutdown).await?)
}

/// What the broker says next about something that it refuses.
async fn refusal(errors: &mut mpsc::UnboundedReceiver<String>, what: &str) -> String {
    let said = tokio::time::timeout(SOON, errors.recv()).await;
    said.unwrap_or_else(|_| panic!("{what} is not refused")).unwrap()
}

/// The configuration with the form of acks that brokers will have by default, if this one knows it.
fn with_the_newer_acks() -> Option<String> {
    if nats_embedded::find_since(nats_embedded::Version(2, 14, 0)).is_err() {
        skip("acks in the newer form", "it needs nats-server 2.14 or newer");
        return None;
    }
    Some(configuration() + "\nfeature_flags { js_ack_fc_v2: true }\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_works_with_each_service_on_its_own_user_and_nothing_is_refused() {
    nothing_is_refused(&configuration()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_is_anything_refused_where_acks_have_the_newer_form() {
    if let Some(configuration) = with_the_newer_acks() {
        nothing_is_refused(&configuration).await;
    }
}

async fn nothing_is_refused(configuration: &str) {
    let broker = Guarded::start(configuration, &[]).await;
    let shop = Guests::start(&broker).await;
    let app = &shop.caller;
    app.stock("mug", 100).await;
    for cents in [1000, 1013, 1017] {
        app.place(order_of("ada", &[line("mug", 1, cents)])).await;
    }
    let cancelled = app.place(order_of("bob", &[line("pot", 1, 1000)])).await;
    assert_eq!(app.ended(&cancelled).await["status"], "CANCELLED");
    app.all_ended(4).await;
    app.check(0).await;

    // What was given up comes back to its service, which may read it, ack it and tell of it.
    let operator = Operator::new(broker.client("operator").await.0);
    let mut headers = HeaderMap::new();
    headers.insert("ce-type", "orders.cancelled.v1");
    let foreign = jetstream::new(operator.client().clone());
    foreign.publish_with_headers("orders.cancelled.0", headers, "{}".into()).await.unwrap().await.unwrap();
    let mut letters = Letters::default();
    let mut dead = async |redrives: u32| {
        eventually("dead letters of all that read it", SOON, async || {
            letters.update(&operator).await.unwrap();
            letters.list(&DeadFilter::default()).iter().filter(|letter| letter.redrives == redrives).count() == 4
        })
        .await;
    };
    dead(0).await;
    let by = By { who: "test".into(), why: "to see it come back".into() };
    let console = Operator::new(broker.client("console").await.0);
    let report = console.redrive(&DeadFilter::default(), &Redrive::default(), &by, |_| ()).await.unwrap();
    assert_eq!(report.counts.get(&Outcome::Done), Some(&4), "{report:?}");
    dead(1).await;
    for service in SERVICES {
        let (status, said) = app.ready(service).await;
        assert_eq!(status, 200, "{service}: {said}");
    }
    // Nor is what a service does last: giving back what it holds, and its place as the only reader.
    shop.stop().await;
    let log = fs::read_to_string(broker.folder.path().join("log")).unwrap();
    assert!(!log.contains("Violation"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_can_neither_publish_nor_read_nor_delete_what_is_not_its_own() {
    let broker = Guarded::start(&configuration(), &[]).await;
    let shop = Guests::start(&broker).await;
    let (client, mut refused) = broker.client("payments").await;
    for subject in [
        "orders.created.0",
        "orders.confirmed.7",
        "inventory.reserved.0",
        "dlq.orders.x.y",
        "$JS.API.STREAM.DELETE.PAYMENTS",
        "$JS.API.STREAM.PURGE.ORDERS",
        "$JS.API.STREAM.UPDATE.ORDERS",
        "$JS.API.STREAM.UPDATE.PAYMENTS",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.MSG.GET.DLQ_ORDERS",
        "$JS.API.STREAM.MSG.GET.REDRIVE",
        "$JS.API.DIRECT.GET.ORDERS",
        "$JS.API.CONSUMER.CREATE.ORDERS.spy",
        "$JS.API.CONSUMER.CREATE.DLQ_ORDERS.payments",
        "$JS.API.CONSUMER.DELETE.ORDERS.inventory",
        "$JS.API.CONSUMER.MSG.NEXT.ORDERS.inventory",
        "$JS.ACK.ORDERS.inventory.1.1.1.1.0",
        "redrive.payments.x.y",
        "redrive.orders.x.y",
        "$JS.API.STREAM.PURGE.REDRIVE",
        "$JS.API.STREAM.DELETE.REDRIVE",
        "$JS.API.CONSUMER.MSG.NEXT.REDRIVE.orders",
        "$JS.ACK.REDRIVE.orders.1.1.1.1.0",
        "_INBOX_orders.x",
    ] {
        client.publish(subject, "{}".into()).await.unwrap();
        client.flush().await.unwrap();
        let said = refusal(&mut refused, subject).await;
        assert!(said.contains("Permissions Violation for Publish") && said.contains(subject), "{subject}: {said}");
    }
    for subject in ["_INBOX.>", "_INBOX_orders.>", "orders.>", "$JS.EVENT.>", "$SRV.PING.orders", ">"] {
        let _subscription = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        let said = refusal(&mut refused, subject).await;
        assert!(said.contains("Permissions Violation for Subscription") && said.contains(subject), "{subject}: {said}");
    }
    let operator = jetstream::new(broker.client("operator").await.0);
    let streams: Vec<_> = operator.stream_names().try_collect().await.unwrap();
    assert_eq!(streams.len(), 3 + 2 + SERVICES.len(), "events, redrives, the audit, dead letters: {streams:?}");
    assert_eq!(operator.get_stream("ORDERS").await.unwrap().cached_info().state.messages, 0);
    drop(shop);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subject_makes_the_service_unready_and_names_user_and_subject_until_it_is_allowed() {
    let cut = configuration().replace("\"payments.>\"", "\"payments.nothing\"");
    let broker = Guarded::start(&cut, &[]).await;
    let shop = Guests::start(&broker).await;
    let app = &shop.caller;
    app.stock("mug", 100).await;
    let order = app.place(order_of("ada", &[line("mug", 1, 1000)])).await;
    let refuses = async || {
        let (status, said) = app.ready("payments").await;
        (status == 503).then(|| said.to_string())
    };
    let said = eventually("payments unready", SOON, refuses).await;
    for part in ["rights at the broker", "user payments", "payments.processed."] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
    assert_eq!(app.ready("orders").await.0, 200, "the others are not concerned");
    broker.reload(&configuration());
    app.urls.ready(&app.http, SOON).await.unwrap();
    assert_eq!(app.ended(&order).await["status"], "CONFIRMED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_the_invariants_may_see_all_that_it_compares_and_tell_what_it_finds() {
    let broker = Guarded::start(&configuration(), &[]).await;
    let shop = Guests::start(&broker).await;
    let (operator, _) = broker.client("operator").await;
    let mut told = operator.subscribe(check::SUBJECT).await.unwrap();
    operator.flush().await.unwrap();
    // Something to be found: what orders cannot read.
    operator.publish("inventory.rejected.0", "{}".into()).await.unwrap();
    let options = shop.caller.check_options();
    let options = check::Options { nats_url: broker.url("check"), looks: 2, ..options };
    let watching = tokio::spawn(check::watch(options, std::future::pending()));
    let mut found = async || {
        let message = tokio::time::timeout(SOON, told.next()).await.expect("an outcome").unwrap();
        String::from_utf8(message.payload.to_vec()).unwrap()
    };
    eventually("the dead letter to be told", SOON, async || found().await.contains("stream DLQ_ORDERS: 1")).await;
    let last = Operator::new(broker.client("console").await.0);
    let asked = async || last.told().await.unwrap().iter().any(|told| told.invariants.iter().any(|one| !one.holds));
    eventually("the console to be given the last result when it asks", SOON, asked).await;
    watching.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_with_the_user_and_without_the_password() {
    let broker = Guarded::start(&configuration(), &[]).await;
    let stores = TestStore::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/readyz", listener.local_addr().unwrap());
    let nats = format!("nats://inventory:hunter2@127.0.0.1:{}", broker.port);
    let config = serve::config(&nats, &stores.url("inventory")).unwrap();
    let running = tokio::spawn(run(inventory::service(), config, listener, std::future::pending()));
    let said = eventually("a refusal of the user", SOON, async || {
        let said = reqwest::get(&url).await.ok()?.text().await.ok()?;
        said.contains("user inventory").then_some(said)
    });
    let said = said.await;
    assert!(said.to_lowercase().contains("authorization violation") && !said.contains("hunter2"), "{said}");
    running.abort();
}

/// A certificate for this host, who vouches for it, and its key: files in a folder.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
        let authority = Issuer::new(authority, key);
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".into(), "127.0.0.1".into()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        fs::write(folder.path().join("server.pem"), certificate.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_spoken_to_by_tls_and_only_if_somebody_trusted_vouches_for_it() {
    let certificates = Certificates::new();
    let [certificate, key] = ["server.pem", "key.pem"].map(|name| certificates.file(name).display().to_string());
    let broker = Guarded::start(&configuration(), &["--tls", "--tlscert", &certificate, "--tlskey", &key]).await;
    let stores = TestStore::new();
    let mut running = JoinSet::new();
    let mut start = async |name: &str, ca: Option<PathBuf>| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let nats = format!("tls://operator:operator@localhost:{}", broker.port);
        let mut config = serve::config(&nats, &stores.url(name)).unwrap();
        config.nats_ca = ca;
        // A service that reads nothing is ready when its streams are there.
        let service = Service::new("orders").publishes(contracts::orders::STREAM);
        running.spawn(run(service, config, listener, std::future::pending()));
        url
    };
    let trusting = start("trusting", Some(certificates.file("ca.pem"))).await;
    let ready = async || reqwest::get(&trusting).await.is_ok_and(|answer| answer.status().is_success());
    eventually("a service that trusts the broker", SOON, ready).await;
    let untrusting = start("untrusting", None).await;
    let refuses = async || {
        let said = reqwest::get(&untrusting).await.ok()?.text().await.ok()?;
        said.contains("certificate").then_some(said)
    };
    eventually("a service that does not trust the broker", SOON, refuses).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_is_spoken_to_by_tls_and_only_if_somebody_trusted_vouches_for_it() {
    let certificates = Certificates::new();
    let pem = ["server.pem", "key.pem"].map(|name| fs::read_to_string(certificates.file(name)).unwrap()).concat();
    let (ca, whole) = (certificates.file("ca.pem"), certificates.file("whole.pem"));
    fs::write(&whole, pem).unwrap();
    let flags = ["--replSet", "rs0", "--tlsMode", "requireTLS", "--tlsCertificateKeyFile", whole.to_str().unwrap()];
    let Some(server) = Mongod::start("MongoDB by TLS", &flags) else { return };
    let address = server.address();
    let direct = format!("mongodb://{address}/?directConnection=true&tls=true&tlsCAFile={}", ca.display());
    let client = mongodb::Client::with_uri_str(direct).await.unwrap();
    let set = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": &address }] };
    client.database("admin").run_command(doc! { "replSetInitiate": set }).await.unwrap();

    let broker = Broker::start().await;
    let mut running = JoinSet::new();
    let mut start = async |database: &str, ca: Option<PathBuf>| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let store = format!("mongodb://{address}/{database}?replicaSet=rs0");
        let mut config = serve::config(&broker.url(), &store).unwrap();
        config.store_ca = ca;
        let service = Service::new("orders").publishes(contracts::orders::STREAM);
        running.spawn(run(service, config, listener, std::future::pending()));
        url
    };
    let (untrusting, trusting) = (start("untrusting", None).await, start("trusting", Some(ca)).await);
    let ready = async || reqwest::get(&trusting).await.is_ok_and(|answer| answer.status().is_success());
    eventually("a service that trusts the server", SOON, ready).await;
    let said = reqwest::get(&untrusting).await.unwrap().text().await.unwrap();
    assert!(said.contains("the store"), "{said}");
}
