//! The test kit: the real parts on free ports and in folders of their own, and waiting without sleeping.
//!
//! [`Broker`] and [`TestStore`] are the parts; a [`Bench`] has both, publishes events straight to a stream, starts services in
//! the test's process with [`Timing::short`](crate::engine::timing::Timing::short), and waits for what they emit:
//!
//! ```no_run
//! # use millstream::engine::timing::Timing;
//! # use millstream::testing::{Bench, fresh_meta};
//! # use millstream::{Event, Service};
//! # async fn example<Placed: Event, Shipped: Event>(shipping: Service, placed: Placed) {
//! let bench = Bench::start().await;
//! bench.declare(&Placed::STREAM).await;
//! let service = bench.run(shipping, Timing::short()).await;
//! bench.publish(&fresh_meta(), &placed).await;
//! assert_eq!(bench.expect::<Shipped>(1).await.len(), 1);
//! assert!(bench.dead_letters("shipping").await.is_empty());
//! service.stop().await;
//! # }
//! ```

mod bench;
mod garble;
#[cfg(feature = "mongodb")]
pub mod mongo;

pub use bench::{Bench, TestService, fresh_meta};
pub use garble::Garble;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use nats_embedded::Member;
use nats_embedded::{Server, Setup};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// A real broker on a free port, with JetStream in a folder of its own. It ends with the test, or with the test's process.
#[derive(Debug)]
pub struct Broker {
    // Before the folder, so that the server has ended when its files are deleted.
    server: Option<Server>,
    setup: Setup,
    member: Option<Member>,
    _folder: TempDir,
}

impl Broker {
    /// Starts a broker.
    ///
    /// # Panics
    /// When there is no nats-server, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(false).await
    }

    /// Starts a broker that has every message on the disk before it acknowledges it.
    ///
    /// # Panics
    /// When there is no nats-server, or it does not start.
    pub async fn start_syncing() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(sync_always: bool) -> Self {
        let folder = temp_folder();
        let setup = Setup { folder: folder.path().join("nats"), port: 0, sync_always };
        let mut broker = Self { server: None, setup, member: None, _folder: folder };
        broker.restart().await;
        broker
    }

    /// Starts a server of a cluster, where clients reach it on this port.
    ///
    /// # Panics
    /// When there is no nats-server, or it does not start.
    pub async fn start_in_cluster(port: u16, member: Member) -> Self {
        let folder = temp_folder();
        let setup = Setup { folder: folder.path().join("nats"), port, sync_always: false };
        let mut broker = Self { server: None, setup, member: Some(member), _folder: folder };
        broker.restart().await;
        broker
    }

    /// The name of a server of a cluster.
    pub fn name(&self) -> Option<&str> {
        self.member.as_ref().map(|member| member.name.as_str())
    }

    /// Stops the server and starts it with another program: the one that is found if none is given.
    ///
    /// # Panics
    /// When it is not a server of a cluster, or does not start.
    pub async fn restart_as(&mut self, program: Option<&Path>) {
        self.member.as_mut().expect("a server of a cluster").program = program.map(Into::into);
        self.restart().await;
    }

    /// Where clients connect; the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.setup.port)
    }

    /// Where it keeps its data: copied while it is stopped, and put back later, that is a restored backup.
    pub fn folder(&self) -> &Path {
        &self.setup.folder
    }

    /// Stops the broker in order, and waits until it has ended.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Kills the broker with SIGKILL, and waits until it has ended.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Whether it was started, and neither stopped nor killed since.
    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// Starts the broker on the same port and folder, after stopping it if it runs.
    ///
    /// # Panics
    /// When there is no nats-server, or it does not start.
    pub async fn restart(&mut self) {
        self.stop().await;
        let server = match &self.member {
            Some(member) => Server::start_in_cluster(&self.setup, member).await,
            None => Server::start(&self.setup).await,
        };
        let server = server.unwrap_or_else(|error| panic!("{error}\n`cargo xtask test` gets a nats-server by itself"));
        self.setup.port = server.port();
        self.server = Some(server);
    }

    /// Holds the broker where it is (SIGSTOP): its connections stay open, and nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused broker go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.server.as_ref().expect("the broker runs").signal(name);
    }
}

/// Stores in a folder, or on a MongoDB server, and a folder for whatever else a test has to put somewhere; it goes when this is
/// dropped.
#[derive(Debug)]
pub struct TestStore {
    folder: TempDir,
    #[cfg(feature = "mongodb")]
    databases: Option<mongo::Databases>,
}

impl TestStore {
    /// SQLite files in an empty folder.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::new_without_default, reason = "making a folder is not a default")]
    pub fn new() -> Self {
        Self {
            folder: temp_folder(),
            #[cfg(feature = "mongodb")]
            databases: None,
        }
    }

    /// Databases of their own on the MongoDB that the tests of this process share; `None` if there is no server, which is then
    /// noted as skipped.
    ///
    /// # Panics
    /// When the server does not start.
    #[cfg(feature = "mongodb")]
    pub fn on_mongo() -> Option<Self> {
        Some(Self { folder: temp_folder(), databases: Some(mongo::Databases::new()?) })
    }

    /// The store URL of a service.
    pub fn url(&self, service: &str) -> String {
        #[cfg(feature = "mongodb")]
        if let Some(databases) = &self.databases {
            return databases.url(service);
        }
        crate::config::StoreUrl::Sqlite(self.path(service)).to_string()
    }

    /// The SQLite file behind that URL.
    pub fn path(&self, service: &str) -> PathBuf {
        self.folder.path().join(format!("{service}.db"))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn temp_folder() -> TempDir {
    tempfile::Builder::new().prefix("millstream-").tempdir().expect("a temporary folder can be made")
}

/// What a condition may say: a `bool`, or an `Option` whose value is wanted.
pub trait Condition {
    /// What there is once it holds.
    type Value;
    /// The value, if it holds.
    fn holds(self) -> Option<Self::Value>;
}

impl Condition for bool {
    type Value = ();
    fn holds(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Condition for Option<T> {
    type Value = T;
    fn holds(self) -> Self {
        self
    }
}

/// Asks until a condition holds.
///
/// # Panics
/// When it does not within the deadline; the message says what was waited for.
pub async fn eventually<C: Condition>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> C,
) -> C::Value {
    let poll = async {
        loop {
            if let Some(value) = condition().await.holds() {
                return value;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(deadline, poll).await.unwrap_or_else(|_| panic!("waited {deadline:?} in vain for this: {what}"))
}

/// Notes that a test, or a part of it, is left out because the machine lacks something. `cargo xtask test` lists these at its end.
///
/// # Panics
/// When the note cannot be written.
pub fn skip(what: &str, why: &str) {
    eprintln!("skipped: {what}: {why}");
    if let Some(path) = std::env::var_os("MILLSTREAM_SKIPPED") {
        let note = format!("{}\t{}\n", what.replace(['\t', '\n'], " "), why.replace(['\t', '\n'], " "));
        // One write of a short line, so that tests in several processes may append at once.
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(note.as_bytes())).expect("the file of skipped tests can be written");
    }
}

/// Kills this process with SIGABRT when it reaches a crash point for the `nth` time from now on, after it has named the point on
/// standard error. A name that the engine does not have is never reached.
///
/// # Panics
/// When crash points are compiled out.
#[cfg(feature = "failpoints")]
pub fn crash_at(point: &str, nth: u64) {
    at_point(point, nth, |point| {
        eprintln!("crash point `{point}` reached");
        std::process::abort();
    });
}

/// Stops this process with SIGSTOP when it reaches a crash point for the `nth` time from now on, after it has named the point on
/// standard error. It goes on from there after a SIGCONT.
///
/// It is stopped outside of transactions: within one it would keep the lock of a SQLite file, and no other process could write
/// before it goes on or is killed.
///
/// # Panics
/// When crash points are compiled out.
#[cfg(feature = "failpoints")]
pub fn stop_at(point: &str, nth: u64) {
    at_point(point, nth, |point| {
        let others = ["before_commit", "before_watermark"].into_iter().filter(|other| *other != point);
        for other in others.clone() {
            fail::cfg(other, "pause").expect("`pause` is an action");
        }
        // A transaction that has begun comes to its end: on a busy machine that takes as long as it takes.
        std::thread::sleep(Duration::from_millis(50));
        while locks_a_file() {
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("stopping at crash point `{point}`");
        nats_embedded::signal(std::process::id(), "STOP");
        // The signal may take effect on another thread a moment before this one.
        std::thread::sleep(Duration::from_millis(50));
        others.for_each(fail::remove);
    });
}

/// Whether this process holds a lock for writing, as SQLite does on its file within a transaction (proc_locks(5)).
#[cfg(feature = "failpoints")]
fn locks_a_file() -> bool {
    let own = std::process::id().to_string();
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|lock| {
        let mut fields = lock.split_whitespace().skip(3);
        fields.next() == Some("WRITE") && fields.next() == Some(own.as_str())
    })
}

#[cfg(feature = "failpoints")]
fn at_point(point: &str, nth: u64, act: impl Fn(&str) + Send + Sync + 'static) {
    use std::sync::atomic::{AtomicU64, Ordering};

    assert!(fail::has_failpoints(), "crash points are compiled out: build with the feature `failpoints`");
    let reached = AtomicU64::new(0);
    let name = point.to_owned();
    let callback = move || {
        if reached.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            act(&name);
        }
    };
    fail::cfg_callback(point, callback).expect("a callback is always accepted");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    async fn answers(url: &str) -> bool {
        async_nats::connect(url).await.is_ok()
    }

    #[tokio::test]
    async fn a_broker_comes_back_on_its_port_with_its_streams() {
        let mut broker = Broker::start().await;
        let url = broker.url();
        let client = async_nats::connect(&url).await.unwrap();
        let js = async_nats::jetstream::new(client);
        let config = async_nats::jetstream::stream::Config {
            name: "KEPT".into(),
            subjects: vec!["kept.>".into()],
            ..Default::default()
        };
        js.create_stream(config).await.unwrap();
        js.publish("kept.a", "1".into()).await.unwrap().await.unwrap();
        broker.kill();
        assert!(!answers(&url).await, "a killed broker does not answer");
        broker.restart().await;
        assert_eq!(broker.url(), url);
        let client = async_nats::connect(&url).await.unwrap();
        let info = async_nats::jetstream::new(client).get_stream("KEPT").await.unwrap().cached_info().clone();
        assert_eq!(info.state.messages, 1);
        broker.stop().await;
        assert!(!answers(&url).await, "a stopped broker does not answer");
    }

    #[tokio::test]
    async fn a_paused_broker_keeps_its_connections_and_answers_again() {
        let broker = Broker::start().await;
        let url = broker.url();
        broker.pause();
        let greeting = timeout(Duration::from_millis(200), answers(&url)).await;
        assert!(greeting.is_err(), "a paused broker greets nobody");
        broker.resume();
        eventually("the broker's greeting", SOON, async || answers(&url).await).await;
    }

    #[tokio::test]
    #[should_panic(expected = "waited 50ms in vain for this: the end of the world")]
    async fn waiting_in_vain_says_for_what() {
        eventually("the end of the world", Duration::from_millis(50), async || false).await;
    }
}
