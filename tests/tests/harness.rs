//! The whole shop for a test: every part real, in this process, on free ports, with short times.

use std::ops::Deref;
use std::time::Duration;

use async_nats::jetstream;
use millstream::engine::timing::Timing;
use millstream::service::Options;
use millstream::testing::Broker;
use millstream_console::DemoAction;
use shop::data::DataFolder;
use shop::ports::Ports;
use shop::whole::{Plan, Shop};
use tempfile::TempDir;

mod apart;
mod caller;
mod wire;

pub(crate) use apart::{Apart, REPLICAS, SERVICES};
pub(crate) use caller::{Answer, Caller, at_rest, line, order_of};
pub(crate) use wire::{Wire, WireEvent};

/// How long a test waits for what should happen at once; the machine may be busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A shop in one process. The broker is the test's own, so that it can be stopped.
pub(crate) struct TestApp {
    caller: Caller,
    shop: Shop,
    pub(crate) broker: Broker,
    _folder: TempDir,
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Starts a shop after a change of how it is set.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Plan)) -> Self {
        let broker = Broker::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut plan = Plan { nats_url: Some(broker.url()), ..plan() };
        change(&mut plan);
        let shop = Shop::start(plan, DataFolder::open(folder.path()).unwrap()).await.unwrap();
        let caller = Caller::new(shop.urls.clone());
        caller.urls.ready(&caller.http, SOON).await.unwrap();
        Self { caller, shop, broker, _folder: folder }
    }

    /// The file of a service's store.
    pub(crate) fn database(&self, service: &str) -> std::path::PathBuf {
        self.shop.data().path().join(format!("{service}.db"))
    }

    /// The test's own connection to a service's store, which writes nothing.
    pub(crate) fn sql(&self, service: &str) -> rusqlite::Connection {
        read_only(&self.database(service))
    }

    /// What there is to try.
    pub(crate) fn actions(&self) -> &[DemoAction] {
        &self.shop.demo_actions
    }

    /// What there is to try under this label.
    pub(crate) fn action(&self, label: &str) -> DemoAction {
        let action = self.actions().iter().find(|action| action.label == label);
        action.unwrap_or_else(|| panic!("there is no {label} in {:?}", self.actions())).clone()
    }

    /// Sees that everything is as it should be once all orders have ended, and stops.
    pub(crate) async fn close(self) {
        self.caller.check(0).await;
        self.stop().await;
    }

    pub(crate) async fn stop(self) {
        self.shop.stop().await.unwrap();
    }
}

impl Deref for TestApp {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// Short times; but a busy machine is no reason for a 503.
pub(crate) fn timing() -> Timing {
    Timing { command_timeout: Duration::from_secs(20), ..Timing::short() }
}

/// Free ports and short times.
pub(crate) fn plan() -> Plan {
    let options = Options { timing: timing(), ..Options::default() };
    Plan { ports: Ports::FREE, options, ..Plan::default() }
}

pub(crate) fn read_only(path: &std::path::Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    conn
}

/// A number that a query gives.
pub(crate) fn count(conn: &rusqlite::Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// JetStream for the test's own client.
pub(crate) async fn jetstream(url: &str) -> jetstream::Context {
    let mut context = jetstream::new(async_nats::connect(url).await.unwrap());
    context.set_timeout(Duration::from_secs(20));
    context
}
