//! The shop's parts by themselves, so that any of them can be stopped and started again, each on its port.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;

use anyhow::Result;
use millstream::Service;
use millstream::config::Config;
use millstream::engine::timing::Timing;
use millstream::service::{Options, Rebuild};
use millstream::testing::mongo::mongodb::Client;
use millstream::testing::mongo::mongodb::bson::{Document, doc};
use millstream::testing::{Broker, TestStore};
use payments::gateway::QUERY_AFTER;
use shop::whole::Urls;
use shop::{gateway, serve};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Caller, SOON, count, read_only, timing};

/// Services that run by themselves, the gateway among them.
pub(crate) struct Apart {
    caller: Caller,
    pub(crate) broker: Broker,
    stores: TestStore,
    pub(crate) orders: orders::Settings,
    /// Changes what each service is told.
    pub(crate) configure: fn(&mut Config),
    pub(crate) timing: Timing,
    /// Whether services that are started are to be rebuilt.
    pub(crate) rebuild: Option<Rebuild>,
    places: HashMap<&'static str, Place>,
    running: HashMap<&'static str, Running>,
}

/// An address that is kept while nobody listens there: a socket that is bound, and does not listen, is in no listener's way, and
/// keeps connections that want any port from this one.
struct Place {
    address: SocketAddr,
    _kept: TcpSocket,
}

impl Place {
    fn take() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self { address: socket.local_addr().unwrap(), _kept: socket }
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

pub(crate) const SERVICES: [&str; 5] = ["orders", "inventory", "payments", "notifications", "analytics"];
/// Their second replicas, each on the same store.
pub(crate) const REPLICAS: [&str; 5] = ["orders-2", "inventory-2", "payments-2", "notifications-2", "analytics-2"];

impl Apart {
    /// A broker, and places for the others, of which none runs yet.
    pub(crate) async fn new() -> Self {
        Self::on(TestStore::new()).await
    }

    /// The same with stores that are there.
    pub(crate) async fn on(stores: TestStore) -> Self {
        let broker = Broker::start().await;
        let mut places = HashMap::new();
        for part in ["gateway", "console"].into_iter().chain(SERVICES).chain(REPLICAS) {
            places.insert(part, Place::take());
        }
        let url = |part| format!("http://{}", places[part].address);
        let urls = Urls {
            orders: url("orders"),
            inventory: url("inventory"),
            payments: url("payments"),
            notifications: url("notifications"),
            analytics: url("analytics"),
            gateway: url("gateway"),
            console: url("console"),
            nats: broker.url(),
        };
        Self {
            caller: Caller::new(urls),
            broker,
            stores,
            orders: orders::Settings::default(),
            configure: |_| (),
            timing: timing(),
            rebuild: None,
            places,
            running: HashMap::new(),
        }
    }

    /// Everything, started and ready.
    pub(crate) async fn start_all(&mut self) {
        self.start("gateway").await;
        for service in SERVICES {
            self.start(service).await;
        }
        self.all_ready().await;
    }

    pub(crate) async fn all_ready(&self) {
        self.urls.ready(&self.http, SOON).await.unwrap();
    }

    /// Starts a part; it may take its time to be ready.
    pub(crate) async fn start(&mut self, part: &'static str) {
        let listener = TcpListener::bind(self.places[part].address).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let task = if part == "gateway" {
            let ledger = Some(self.stores.folder().join("gateway.ledger"));
            let settings = gateway::Settings { ledger, ..gateway::Settings::default() };
            tokio::spawn(gateway::serve(listener, settings, stopped))
        } else if part == "console" {
            let config = serve::config(&self.urls.nats, &self.stores.url(part)).unwrap();
            let settings = millstream_console::Settings::of(&config).await.unwrap();
            tokio::spawn(millstream_console::serve(settings, listener, stopped))
        } else {
            let name = part.trim_end_matches("-2");
            let mut config = serve::config(&self.urls.nats, &self.stores.url(name)).unwrap();
            (self.configure)(&mut config);
            let options = Options { timing: self.timing.clone(), rebuild: self.rebuild, ..Options::default() };
            let service = self.service(name);
            tokio::spawn(async { Ok(service.run(config, options, listener, stopped).await?) })
        };
        self.running.insert(part, Running { stop, task });
    }

    fn service(&self, name: &str) -> Service {
        match name {
            "orders" => orders::service(self.orders),
            "inventory" => inventory::service(),
            "payments" => serve::payments(&self.urls.gateway, QUERY_AFTER).unwrap(),
            "notifications" => serve::notifications(&notifications::Settings::default()).unwrap(),
            "analytics" => analytics::service(),
            other => panic!("there is no service {other}"),
        }
    }

    /// Stops a part in order, and waits for its end.
    pub(crate) async fn stop(&mut self, part: &str) {
        let Running { stop, task } = self.running.remove(part).unwrap();
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
        // A request on a connection of the part that is gone would be lost.
        self.caller = Caller::new(self.caller.urls.clone());
    }

    /// The test's own connection to a service's store, which writes nothing.
    pub(crate) fn sql(&self, service: &str) -> rusqlite::Connection {
        read_only(&self.stores.path(service))
    }

    /// The file of a service's store.
    pub(crate) fn database(&self, service: &str) -> std::path::PathBuf {
        self.stores.path(service)
    }

    /// How many instances of a service have handled something that they read.
    pub(crate) async fn readers(&self, service: &str) -> usize {
        let url = self.stores.url(service);
        if url.starts_with("sqlite") {
            let readers = "SELECT count(DISTINCT instance) FROM journal WHERE stream != ''";
            return count(&self.sql(service), readers).try_into().unwrap();
        }
        let client = Client::with_uri_str(url).await.unwrap();
        let journal = client.default_database().unwrap().collection::<Document>("millstream.journal");
        journal.distinct("instance", doc! { "stream": { "$ne": "" } }).await.unwrap().len()
    }

    /// A caller of the second replicas.
    pub(crate) fn second(&self) -> Caller {
        let url = |part| format!("http://{}", self.places[part].address);
        let [orders, inventory, payments, notifications, analytics] = REPLICAS.map(url);
        Caller::new(Urls { orders, inventory, payments, notifications, analytics, ..self.urls.clone() })
    }

    /// A caller of its own, for use while a part is stopped or started.
    pub(crate) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Sees that everything is as it should be once all orders have ended, and stops.
    pub(crate) async fn close(mut self) {
        self.caller.check(0).await;
        let parts: Vec<_> = self.running.keys().copied().filter(|part| *part != "gateway").collect();
        for part in parts {
            self.stop(part).await;
        }
        self.stop("gateway").await;
    }
}

impl Deref for Apart {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.caller
    }
}
