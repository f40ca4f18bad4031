//! A process that can be killed, frozen and started again at its place, with everything that it has ever said in one file.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

/// How long a process may take to stop in order; its own limit is ten seconds.
const STOPPING: Duration = Duration::from_secs(30);

/// This program with other arguments, in an environment without anybody's settings.
pub(super) fn command(args: &[String], log: &Path) -> Result<Command> {
    let output = OpenOptions::new().create(true).append(true).open(log);
    let output = output.with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find the path of this program")?);
    command
        .args(args)
        .env_clear()
        .envs(["PATH", "HOME", "TMPDIR"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        // A Ctrl-C at the terminal is for this program, which stops the others.
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// A process, or its place while there is none.
pub(super) struct Program {
    pub(super) name: String,
    args: Vec<String>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Program {
    pub(super) fn new(name: &str, folder: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { name: name.into(), args, log: folder.join(format!("{name}.log")), child: Mutex::default() }
    }

    pub(super) async fn start(&self) -> Result<()> {
        self.start_with(&[]).await
    }

    /// Starts it with further arguments, unless it runs.
    pub(super) async fn start_with(&self, more: &[&str]) -> Result<()> {
        let mut child = self.child.lock().await;
        if child.is_none() {
            let args = self.args.iter().cloned().chain(more.iter().map(|arg| (*arg).to_owned()));
            let started = command(&args.collect::<Vec<_>>(), &self.log)?.spawn();
            *child = Some(started.with_context(|| format!("cannot start {}", self.name))?);
        }
        Ok(())
    }

    /// SIGKILL, whatever it is doing; how it had ended, if it had already, by itself.
    pub(super) async fn kill(&self) -> Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.lock().await.take() else { return Ok(None) };
        let ended = child.try_wait()?;
        child.kill().await.with_context(|| format!("cannot kill {}", self.name))?;
        Ok(ended)
    }

    /// SIGSTOP, until it stands still.
    pub(super) async fn freeze(&self) {
        if let Some(pid) = self.child.lock().await.as_ref().and_then(Child::id) {
            freeze(pid).await;
        }
    }

    pub(super) async fn signal(&self, name: &str) {
        if let Some(pid) = self.child.lock().await.as_ref().and_then(Child::id) {
            nats_embedded::signal(pid, name);
        }
    }

    /// Stops it in order.
    pub(super) async fn stop(&self) -> Result<()> {
        let mut child = self.child.lock().await;
        let Some(mut running) = child.take() else { return Ok(()) };
        nats_embedded::signal(running.id().unwrap_or_default(), "TERM");
        let status = timeout(STOPPING, running.wait()).await;
        let status = status.with_context(|| format!("{} did not stop within {STOPPING:?}", self.name))??;
        if !status.success() {
            bail!("{} was told to stop and ended with {status}", self.name);
        }
        Ok(())
    }

    /// How it has ended, if it has by itself.
    pub(super) async fn ended(&self) -> Option<ExitStatus> {
        // Whoever holds it is starting or ending it.
        let mut child = self.child.try_lock().ok()?;
        let status = child.as_mut()?.try_wait().ok()??;
        *child = None;
        Some(status)
    }
}

/// Stops a process, and waits until none of its threads runs any more: they do until they are interrupted.
pub(super) async fn freeze(pid: u32) {
    nats_embedded::signal(pid, "STOP");
    while threads(pid).is_ok_and(|mut states| states.any(|state| !matches!(state, Some('T' | 'Z' | 'X')))) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// The state of each thread of a process, as `/proc` has it.
fn threads(pid: u32) -> std::io::Result<impl Iterator<Item = Option<char>>> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.flatten().map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        // The name before it may hold anything.
        stat.rsplit_once(") ")?.1.chars().next()
    }))
}

/// An address that is kept while nobody listens there: a bound socket that does not listen is in no listener's way, and keeps
/// others, and connections that want any port, from this one.
pub(super) struct Place {
    pub(super) address: SocketAddr,
    _kept: TcpSocket,
}

impl Place {
    pub(super) fn take() -> Result<Self> {
        let take = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            Ok::<_, std::io::Error>(Self { address: socket.local_addr()?, _kept: socket })
        };
        take().context("there is no free port")
    }
}
