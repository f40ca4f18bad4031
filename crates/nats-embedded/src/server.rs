//! The child ends with its parent, however the parent ends. Its standard input is a pipe that this process holds: when the
//! process dies, by `kill -9` too, the pipe closes, and a few lines of shell between the two stop the server. A lock on the
//! server's folder is inherited by the server, so whoever starts next on that folder waits until the last one is really gone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::find::{MINIMUM, NotFound, SYNCED, find_since};

/// How long the server may take to start, to stop, or to give up the folder.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Starts the server, says its process id, and stops it as soon as standard input ends. The server gets no descriptor of the
/// pipe; it keeps standard output, which carries the lock. A server that was held by SIGSTOP must go on to be able to end.
const SUPERVISOR: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
echo "$server"
(read -r _ <&3; kill "$server"; kill -CONT "$server") >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Everything of the server's is here: its configuration, its log, its streams.
    pub folder: PathBuf,
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Whether every message is on the disk before it is acknowledged (`sync_interval: always`); needs a server of [`SYNCED`].
    pub sync_always: bool,
}

impl Setup {
    /// Where the server writes its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("nats-server.log")
    }

    fn config(&self, member: Option<&Member>) -> String {
        // JSON is a subset of the configuration's grammar, and quotes a path as it must be quoted.
        let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string());
        let port = if self.port == 0 { -1 } else { i32::from(self.port) };
        let sync = if self.sync_always { "    sync_interval: always\n" } else { "" };
        let cluster = member.map(Member::config).unwrap_or_default();
        format!(
            "host: 127.0.0.1\nport: {port}\nports_file_dir: {folder}\nlog_file: {log}\nlogfile_size_limit: 16MB\n\
             jetstream {{\n    store_dir: {store}\n{sync}}}\n{cluster}",
            folder = quoted(self.folder.clone()),
            log = quoted(self.log()),
            store = quoted(self.folder.join("jetstream")),
        )
    }
}

/// A server's place in a cluster on this machine.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name, which no other of the cluster has.
    pub name: String,
    /// The port on 127.0.0.1 that the others reach it on.
    pub port: u16,
    /// The ports on which it reaches the others.
    pub routes: Vec<u16>,
    /// The port that the others tell each other of, if it is not the same.
    pub advertised: Option<u16>,
    /// The program to run, instead of the one that is found.
    pub program: Option<PathBuf>,
}

impl Member {
    fn config(&self) -> String {
        let routes: Vec<_> = self.routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        format!(
            "server_name: {}\ncluster {{\n    name: embedded\n    listen: \"127.0.0.1:{}\"\n    routes: [{}]\n    advertise: \"127.0.0.1:{}\"\n}}\n",
            self.name,
            self.port,
            routes.join(", "),
            self.advertised.unwrap_or(self.port),
        )
    }
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no program.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// Another server is at work in the folder.
    #[error("another nats-server (process {pid}) still uses {}: stop it, or take another folder", .folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// The process that has it.
        pid: String,
    },
    /// Something else listens on the port.
    #[error("port {0}, which the broker needs, is in use")]
    PortInUse(u16),
    /// The server ended at once.
    #[error("nats-server ended with {status} instead of starting; {log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The server did not open its port.
    #[error("nats-server did not open a port within {PATIENCE:?}; {log}")]
    Silent {
        /// The last lines of its log.
        log: String,
    },
    /// The folder cannot be used, or the program not be run.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    supervisor: Child,
    pid: u32,
    port: u16,
}

impl Server {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// When there is no program, the folder is in use, or the server does not come up.
    pub async fn start(setup: &Setup) -> Result<Self, StartError> {
        Self::start_as(setup, None).await
    }

    /// Starts a server of a cluster, and waits until it listens; it has streams once most of the servers are there.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_in_cluster(setup: &Setup, member: &Member) -> Result<Self, StartError> {
        Self::start_as(setup, Some(member)).await
    }

    async fn start_as(setup: &Setup, member: Option<&Member>) -> Result<Self, StartError> {
        let program = match member.and_then(|member| member.program.clone()) {
            Some(program) => program,
            None => find_since(if setup.sync_always { SYNCED } else { MINIMUM })?,
        };
        let io = |what: String| move |source| StartError::Io { what, source };
        let folder = fs::create_dir_all(&setup.folder).and_then(|()| setup.folder.canonicalize());
        let folder = folder.map_err(io(format!("use the folder {}", setup.folder.display())))?;
        let setup = Setup { folder, ..setup.clone() };
        let lock = lock(&setup.folder).await?;
        // Only now, when a server of an earlier start has given back the port with the lock.
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, setup.port))
            && error.kind() == io::ErrorKind::AddrInUse
        {
            return Err(StartError::PortInUse(setup.port));
        }
        let config = setup.folder.join("nats-server.conf");
        fs::write(&config, setup.config(member)).map_err(io(format!("write {}", config.display())))?;
        let log = OpenOptions::new().create(true).append(true).open(setup.log());
        let log = log.map_err(io(format!("write {}", setup.log().display())))?;
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "nats-server"])
            .arg(&program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(lock))
            .stderr(Stdio::from(log))
            // A Ctrl-C at the terminal is for the parent, which stops the server last.
            .process_group(0)
            .spawn()
            .map_err(io(format!("run {}", program.display())))?;
        let mut server = Self { supervisor, pid: 0, port: 0 };
        let until = Instant::now() + PATIENCE;
        loop {
            if server.pid == 0 {
                server.pid = owner(&setup.folder).parse().unwrap_or(0);
            } else if let Some(port) = port_of(&setup.folder, server.pid) {
                server.port = port;
                return Ok(server);
            }
            if let Ok(Some(status)) = server.supervisor.try_wait() {
                return Err(StartError::Ended { status, log: tail(&setup.log()) });
            }
            if Instant::now() > until {
                return Err(StartError::Silent { log: tail(&setup.log()) });
            }
            sleep(POLL).await;
        }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the server has ended by itself.
    pub async fn ended(&mut self) -> String {
        loop {
            match self.supervisor.try_wait() {
                Ok(None) => sleep(POLL * 10).await,
                Ok(Some(status)) => return status.to_string(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Stops the server in order, and waits until it has ended.
    pub async fn stop(mut self) {
        drop(self.supervisor.stdin.take());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && matches!(self.supervisor.try_wait(), Ok(None)) {
            sleep(POLL).await;
        }
    }

    /// Sends the server a signal by its name, such as `STOP` and `CONT`.
    pub fn signal(&self, name: &str) {
        signal(self.pid, name);
    }
}

impl Drop for Server {
    /// What is in the folder may be deleted next, so the server has ended when this returns.
    fn drop(&mut self) {
        if matches!(self.supervisor.try_wait(), Ok(None)) {
            signal(self.pid, "KILL");
            drop(self.supervisor.stdin.take());
            // Its end is all that matters here, not how it ended.
            self.supervisor.wait().ok();
        }
    }
}

/// Sends a process a signal by its name.
pub fn signal(pid: u32, name: &str) {
    if pid != 0 {
        // The shell's own `kill`, since a bare machine has no program of that name. A process that has ended is no fault.
        let script = format!("kill -{name} {pid} 2>/dev/null");
        Command::new("sh").args(["-c", &script]).status().ok();
    }
}

/// Locks the folder. A server whose parent was killed a moment ago is given the time to end.
async fn lock(folder: &Path) -> Result<File, StartError> {
    let path = folder.join("nats-server.pid");
    let io = |source| StartError::Io { what: format!("lock {}", path.display()), source };
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(POLL).await,
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::Occupied { folder: folder.into(), pid: owner(folder) });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    file.set_len(0).map_err(io)?;
    for stale in ports_files(folder) {
        fs::remove_file(&stale).map_err(io)?;
    }
    Ok(file)
}

/// The process id in the lock file, once its line is whole.
fn owner(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("nats-server.pid")).unwrap_or_default();
    text.split_once('\n').map(|(pid, _)| pid.to_owned()).unwrap_or_default()
}

fn ports_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "ports")).collect()
}

/// The port in the file that the server writes when it listens.
fn port_of(folder: &Path, pid: u32) -> Option<u16> {
    let ends = format!("_{pid}.ports");
    let path = ports_files(folder).into_iter().find(|path| path.to_string_lossy().ends_with(&ends))?;
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("the end of {}:\n{}", log.display(), lines[lines.len().saturating_sub(5)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_broker_ends_when_its_pipe_closes_and_the_next_one_waits_for_that() {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { folder: folder.path().join("nats"), port: 0, sync_always: true };
        let mut first = Server::start(&setup).await.unwrap();
        // What a killed parent leaves behind: a closed pipe, and nobody who waits for the server.
        let again = Setup { port: first.port(), ..setup };
        drop(first.supervisor.stdin.take());
        let second = Server::start(&again).await.unwrap();
        assert_ne!(second.pid(), first.pid());
        let mut greeting = [0; 4];
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, second.port())).await.unwrap();
        connection.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"INFO", "the second broker greets");
    }

    #[tokio::test]
    async fn a_port_in_use_is_said_before_the_broker_starts() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { folder: folder.path().into(), port, sync_always: false };
        let error = Server::start(&setup).await.unwrap_err().to_string();
        assert_eq!(error, format!("port {port}, which the broker needs, is in use"));
    }
}
