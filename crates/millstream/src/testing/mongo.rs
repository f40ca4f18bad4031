//! A real MongoDB for tests: one that the machine has, or any that `MONGODB_URI` names.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use mongodb;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use nats_embedded::{MONGOD_VARIABLE, find_mongod, signal};
use tempfile::TempDir;

use super::{eventually, skip, temp_folder};
use crate::ids::Timestamp;

/// Names a replica set to test on, in place of one that is started; its user must be allowed to make and drop databases.
pub const URI: &str = "MONGODB_URI";

/// The name of every replica set that is started here.
const SET: &str = "rs0";

/// How long a server may take to start, and a set to have a primary.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the server, says its process id, and kills it as soon as standard input ends: with its parent, however that ends.
const SUPERVISOR: &str = r#"
"$@" </dev/null >/dev/null 2>&1 &
echo "$!"
exec >&-
read -r _
kill -9 "$!" 2>/dev/null
wait
"#;

/// A `mongod` with its data in a folder of its own. Dropped, it is killed.
#[derive(Debug)]
pub struct Mongod {
    program: PathBuf,
    supervisor: Option<Child>,
    pid: u32,
    port: u16,
    options: Vec<String>,
    folder: TempDir,
}

impl Mongod {
    /// Starts a server that is no member of a set, with further options; `None` if there is no program, which is noted as the
    /// reason why `what` is skipped.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(what: &str, options: &[&str]) -> Option<Self> {
        let Some(program) = find_mongod() else {
            skip(what, &format!("no mongod: looked at ${MONGOD_VARIABLE}, on PATH and in the cache"));
            return None;
        };
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { program, supervisor: None, pid: 0, port: 0, options, folder: temp_folder() };
        server.restart();
        Some(server)
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it with SIGKILL, and waits until it has ended.
    pub fn kill(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            supervisor.wait().expect("the server ends");
        }
    }

    /// Starts it on the same port and folder, after killing it if it runs.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.kill();
        // Between being found free and being taken, a port may go to somebody else.
        for _ in 0..3 {
            let port = if self.port == 0 { free_port() } else { self.port };
            if self.try_start(port) {
                self.port = port;
                return;
            }
        }
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        panic!("mongod does not start; the end of its log:\n{}", lines[lines.len().saturating_sub(5)..].join("\n"));
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("mongod.log")
    }

    fn try_start(&mut self, port: u16) -> bool {
        let data = self.folder.path().join("data");
        fs::create_dir_all(&data).expect("a folder can be made");
        File::create(self.log()).expect("the log can be written");
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "mongod"])
            .arg(&self.program)
            .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--wiredTigerCacheSizeGB", "0.25"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false", "--nounixsocket"])
            .arg("--dbpath")
            .arg(&data)
            .arg("--logpath")
            .arg(self.log())
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell can be run");
        let mut said = String::new();
        let output = supervisor.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut said).expect("it says the process id");
        self.pid = said.trim().parse().expect("a process id");
        self.supervisor = Some(supervisor);
        let until = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < until {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            if log.contains("Waiting for connections") {
                return true;
            }
            if log.contains("\"msg\":\"mongod shutdown complete\"") || log.contains("Failed to set up listener") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }

    /// Holds it where it is (SIGSTOP): its connections stay open, and nothing is answered.
    pub fn pause(&self) {
        signal(self.pid, "STOP");
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        signal(self.pid, "CONT");
    }

    /// A client of this very server, whatever it is a member of.
    ///
    /// # Panics
    /// When the URL is none.
    pub async fn client(&self) -> Client {
        let url = format!("mongodb://{}/?directConnection=true", self.address());
        Client::with_uri_str(url).await.expect("a client")
    }

    /// What it answers to a command on the database `admin`.
    ///
    /// # Errors
    /// What the server or the driver says.
    pub async fn admin(&self, command: Document) -> mongodb::error::Result<Document> {
        self.client().await.database("admin").run_command(command).await
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("the port").port()
}

/// A replica set.
#[derive(Debug)]
pub struct ReplicaSet {
    /// Its members.
    pub members: Vec<Mongod>,
}

impl ReplicaSet {
    /// Starts a set of so many members and waits for its primary; see [`Mongod::start`].
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(what: &str, members: usize) -> Option<Self> {
        Self::start_with(what, members, &[]).await
    }

    /// Starts a set whose members have further options.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_with(what: &str, members: usize, more: &[&str]) -> Option<Self> {
        let options = [&["--replSet", SET, "--oplogSize", "64"], more].concat();
        let members: Option<Vec<_>> = (0..members).map(|_| Mongod::start(what, &options)).collect();
        let set = Self { members: members? };
        let hosts = set.members.iter().enumerate();
        let hosts: Vec<_> = hosts.map(|(n, member)| doc! { "_id": n as i32, "host": member.address() }).collect();
        // The default of ten seconds without a primary would be most of what a test waits for.
        let settings = doc! { "electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 500 };
        let config = doc! { "_id": SET, "members": hosts, "settings": settings };
        let initiate = doc! { "replSetInitiate": config };
        set.members[0].admin(initiate).await.expect("the set can be initiated");
        set.primary().await;
        Some(set)
    }

    /// Waits for a primary that can be written to, and says which member it is.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn primary(&self) -> usize {
        let primary = async || {
            for (n, member) in self.members.iter().enumerate().filter(|(_, member)| member.supervisor.is_some()) {
                if let Ok(hello) = member.admin(doc! { "hello": 1 }).await
                    && hello.get_bool("isWritablePrimary").is_ok_and(|is| is)
                {
                    return Some(n);
                }
            }
            None
        };
        eventually("the set to have a primary", PATIENCE, primary).await
    }

    /// The URL of a database in it.
    pub fn url(&self, database: &str) -> String {
        let hosts: Vec<_> = self.members.iter().map(Mongod::address).collect();
        format!("mongodb://{}/{database}?replicaSet={SET}", hosts.join(","))
    }
}

/// The server that the tests of a process share.
enum Shared {
    Own(ReplicaSet),
    Foreign(String),
}

fn shared() -> Option<&'static Shared> {
    static SHARED: OnceLock<Option<Shared>> = OnceLock::new();
    let start = || {
        if let Some(uri) = std::env::var(URI).ok().filter(|uri| !uri.is_empty()) {
            return Some(Shared::Foreign(uri));
        }
        // On a thread of its own, because a test may have called from within a runtime.
        let start = || runtime().block_on(ReplicaSet::start("MongoDB", 1));
        std::thread::spawn(start).join().expect("the server starts").map(Shared::Own)
    };
    SHARED.get_or_init(start).as_ref()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Databases on the shared server whose names begin alike and like no others.
#[derive(Debug)]
pub(super) struct Databases {
    prefix: String,
}

impl Databases {
    /// `None` if there is no server; that is noted.
    pub(super) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        shared()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self { prefix: format!("test-{:x}-{}-{count}", Timestamp::system().millis(), std::process::id()) })
    }

    pub(super) fn url(&self, service: &str) -> String {
        let database = format!("{}-{service}", self.prefix);
        match shared().expect("it was there before") {
            Shared::Own(set) => set.url(&database),
            Shared::Foreign(uri) => in_database(uri, &database),
        }
    }
}

/// A URI with another database. Who comes is still who comes by the URI as it was.
fn in_database(uri: &str, database: &str) -> String {
    let (base, options) = uri.split_once('?').unwrap_or((uri, ""));
    let start = base.find("://").map_or(0, |at| at + 3);
    let (hosts, home) = base[start..].split_once('/').unwrap_or((&base[start..], ""));
    let home = if home.is_empty() { "admin" } else { home };
    let login = hosts.contains('@') && !options.to_lowercase().contains("authsource=");
    let source = if login { format!("authSource={home}") } else { String::new() };
    let options: Vec<&str> = [options, &source].into_iter().filter(|part| !part.is_empty()).collect();
    format!("{}{hosts}/{database}?{}", &base[..start], options.join("&"))
}

impl Drop for Databases {
    /// A server of our own goes with its databases.
    fn drop(&mut self) {
        if let Some(Shared::Foreign(uri)) = shared() {
            let prefix = self.prefix.clone();
            let sweep = async move {
                let client = Client::with_uri_str(uri).await?;
                for name in client.list_database_names().await? {
                    if name.starts_with(&prefix) {
                        client.database(&name).drop().await?;
                    }
                }
                Ok::<_, mongodb::error::Error>(())
            };
            // What a server of somebody else's keeps of a test is a pity, and no failure.
            std::thread::spawn(|| runtime().block_on(sweep)).join().map(drop).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_takes_its_place_in_a_uri_and_leaves_who_comes_as_it_was() {
        for (uri, expected) in [
            ("mongodb://h:1", "mongodb://h:1/db?"),
            ("mongodb://a,b/?replicaSet=rs0", "mongodb://a,b/db?replicaSet=rs0"),
            ("mongodb://u:p@h/home", "mongodb://u:p@h/db?authSource=home"),
            ("mongodb://u:p@h?tls=true", "mongodb://u:p@h/db?tls=true&authSource=admin"),
            ("mongodb://u:p@h/?authSource=x", "mongodb://u:p@h/db?authSource=x"),
        ] {
            assert_eq!(in_database(uri, "db"), expected, "{uri}");
        }
    }
}
