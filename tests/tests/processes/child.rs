//! Processes that run the ledger: this test binary again, with one test selected.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use millstream::testing::eventually;

use super::ledger::{ERRAND, Errand, LISTENING};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running ledger; killed when dropped.
pub(super) struct Child {
    process: std::process::Child,
    port: u16,
    said: Arc<Mutex<String>>,
    listeners: Vec<JoinHandle<()>>,
}

impl Child {
    /// Starts a process and waits until it has its port, which it has before it reaches its broker and database.
    pub(super) fn start(errand: &Errand) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::ledger::a_ledger_process", "--nocapture"])
            .env(ERRAND, serde_json::to_string(errand).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut out, err) = (BufReader::new(process.stdout.take().unwrap()), process.stderr.take().unwrap());
        let heard = said.clone();
        let errors = std::thread::spawn(move || {
            for line in BufReader::new(err).split(b'\n').map_while(Result::ok) {
                let mut heard = heard.lock().unwrap();
                heard.push_str(&String::from_utf8_lossy(&line));
                heard.push('\n');
            }
        });
        let mut line = String::new();
        let port = loop {
            line.clear();
            let read = out.read_line(&mut line).unwrap();
            assert!(read > 0, "a ledger ended before it had its port: {}", said.lock().unwrap());
            if let Some((_, port)) = line.split_once(LISTENING) {
                break port.trim().parse().unwrap();
            }
        };
        let rest = std::thread::spawn(move || drop(out.read_to_string(&mut String::new())));
        Self { process, port, said, listeners: vec![errors, rest] }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has said on standard error.
    pub(super) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Where one of its routes is.
    pub(super) fn url(&self, route: &str) -> String {
        format!("http://127.0.0.1:{}{route}", self.port)
    }

    /// The sum of a metric over its labels.
    pub(super) async fn metric(&self, name: &str) -> f64 {
        let page = reqwest::get(self.url("/metrics")).await.unwrap().text().await.unwrap();
        let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Whether another replica reads, and this one is there to take over.
    pub(super) async fn stands_by(&self) -> bool {
        let health = reqwest::get(self.url("/health")).await.unwrap().json::<serde_json::Value>().await.unwrap();
        health["consumers"].as_array().unwrap().iter().any(|consumer| consumer["standby"] == true)
    }

    /// Waits until it can do its whole job.
    pub(super) async fn ready(&self) {
        let url = self.url("/readyz");
        let answers = async || match reqwest::get(&url).await {
            Ok(answer) => answer.status().is_success(),
            Err(_) => false,
        };
        eventually("a ledger that is ready", PATIENCE, answers).await;
    }

    /// Waits until it has said this.
    pub(super) async fn says(&self, what: &str) {
        eventually(what, PATIENCE, async || self.said().contains(what)).await;
    }

    /// Arms the stop that waits for this.
    pub(super) fn tell_to_stop(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    }

    /// Sends it a signal by its name.
    pub(super) fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success(), "{script}");
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Waits until it has ended, and everything that it said is heard.
    pub(super) async fn end(&mut self, what: &str) -> ExitStatus {
        let process = &mut self.process;
        let status = eventually(what, PATIENCE, async || process.try_wait().unwrap()).await;
        for listener in self.listeners.drain(..) {
            listener.join().unwrap();
        }
        status
    }

    /// Waits until it has died at a crash point, and of nothing else.
    pub(super) async fn dies_at(&mut self, point: &str) {
        let status = self.end(&format!("a process that dies at `{point}`")).await;
        assert_eq!(status.signal(), Some(6), "{point}: {status}\n{}", self.said());
        assert!(self.said().contains(&format!("crash point `{point}` reached")), "{point}: {}", self.said());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
