//! Restores by the commands of the runbook, as they stand there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::shop;

const PATIENCE: Duration = Duration::from_secs(120);
const SERVICES: [&str; 5] = ["orders", "inventory", "payments", "notifications", "analytics"];

/// The first command of a section of the runbook.
fn command(section: &str) -> &'static str {
    let (_, rest) = include_str!("../../../../docs/runbooks.md").split_once(&format!("\n### {section}\n")).unwrap();
    rest.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0
}

/// A shop in one process, and what its start screen says.
pub(crate) struct Running {
    process: Child,
    screen: String,
}

impl Running {
    /// Waits until it is open and every service ready.
    fn new(mut command: Command, folder: &Path) -> Self {
        let output = folder.join("screen");
        let process = command.stdout(fs::File::create(&output).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        let mut this = Self { process, screen: String::new() };
        let until = Instant::now() + PATIENCE;
        while !this.screen.contains("\nLoad:") {
            assert!(this.process.try_wait().unwrap().is_none() && Instant::now() < until, "{}", this.screen);
            std::thread::sleep(Duration::from_millis(20));
            this.screen = fs::read_to_string(&output).unwrap();
        }
        for service in SERVICES {
            let url = format!("{}/readyz", this.url(service));
            while !shop(&["health", &url]).output().unwrap().status.success() {
                assert!(Instant::now() < until, "{service} is not ready");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        this
    }

    pub(crate) fn url(&self, name: &str) -> String {
        let mut lines = self.screen.lines();
        let line = lines.find_map(|line| line.trim_start().strip_prefix(name)?.split_whitespace().next());
        let url = line.unwrap_or_else(|| panic!("no {name}: {}", self.screen));
        // Of some the screen shows what there is to see.
        url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
    }

    /// Submits orders, all of which are accepted, and waits until they have ended.
    fn load(&self, orders: &str, seed: &str, ledger: &Path) {
        let (url, inventory) = (self.url("orders"), self.url("inventory"));
        let flags = ["load", "--url", &url, "--inventory-url", &inventory, "--orders", orders, "--seed", seed];
        let done = shop(&flags).args(["--cancel", "0.05", "--ledger"]).arg(ledger).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }

    /// The table of invariants, and whether all hold.
    pub(crate) fn check(&self, ledgers: &[&Path], looks: &str) -> (String, bool) {
        let mut check = shop(&["check", "--older-than", "0s", "--looks", looks]);
        for service in SERVICES {
            check.args([&format!("--{service}-url"), &self.url(service)]);
        }
        check.args(["--gateway-url", &self.url("gateway"), "--nats-url", &self.url("broker")]);
        for ledger in ledgers {
            check.arg("--ledger").arg(ledger);
        }
        let done = check.output().unwrap();
        (String::from_utf8_lossy(&done.stdout).into_owned(), done.status.success())
    }

    /// What the process has in memory.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// SIGKILL. The broker ends because nobody is left at its pipe.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

pub(crate) struct Drill {
    folder: tempfile::TempDir,
}

impl Drill {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A shell that runs a text with what the runbook says is set.
    fn script(&self, text: &str, service: &str) -> Command {
        let shop = Path::new(env!("CARGO_BIN_EXE_shop")).parent().unwrap();
        let path = std::env::join_paths(
            [shop.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let mut command = Command::new("sh");
        command.args(["-euc", text]).env("PATH", path.unwrap());
        command.env("DATA", self.path("data")).env("BACKUP", self.path("backup")).env("SERVICE", service);
        command
    }

    fn run(&self, section: &str, service: &str) {
        let done = self.script(command(section), service).output().unwrap();
        assert!(done.status.success(), "{section}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn start(&self) -> Running {
        let mut up = shop(&["up", "--no-demo-load", "--port-base", "0", "--data"]);
        up.arg(self.path("data"));
        Running::new(up, self.folder.path())
    }
}

/// The invariants that do not hold.
fn broken(table: &str) -> Vec<&str> {
    let rows = table.lines().filter(|row| row.contains("BROKEN"));
    rows.map(|row| row.trim_start_matches('│').split('┆').next().unwrap().trim()).collect()
}

#[test]
fn what_is_restored_with_the_commands_of_the_runbook_is_right_again() {
    let drill = Drill::new();
    let (before, during, after) = (drill.path("before.jsonl"), drill.path("during.jsonl"), drill.path("after.jsonl"));
    let running = drill.start();
    running.load("60", "1", &before);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| running.load("200", "2", &during));
        drill.run("Back up", "");
        load.join().unwrap();
    });
    running.load("60", "3", &after);
    running.kill();

    let all = [&*before, &during, &after];
    let restored = Instant::now();
    for service in ["inventory", "notifications", "analytics"] {
        drill.run("Put back one database", service);
    }
    let running = drill.start();
    let (table, holds) = running.check(&all, "60");
    assert!(holds, "three databases were put back: {table}");
    println!("three databases put back: right again after {:.1?}, nothing lost", restored.elapsed());
    running.kill();

    let restored = Instant::now();
    drill.run("Go on without the broker's files", "");
    let running = drill.start();
    let (table, holds) = running.check(&all, "60");
    assert!(holds, "without the broker's files: {table}");
    println!("the broker's files lost: right again after {:.1?}, nothing lost", restored.elapsed());
    // It also goes on.
    running.load("40", "4", &after);
    running.kill();

    let restored = Instant::now();
    let everything = command("Put back everything").replace("--no-demo-load", "--no-demo-load --port-base 0");
    let running = Running::new(
        drill.script(&format!("{}exec {}", split(&everything).0, split(&everything).1), ""),
        drill.folder.path(),
    );
    // What had been delivered and not acked when it was copied comes again after `ack_wait`.
    let of_captures = |name: &&str| name.contains("capture");
    let table = loop {
        let (table, _) = running.check(&[&before], "4");
        if broken(&table).iter().all(of_captures) {
            break table;
        }
        assert!(restored.elapsed() < Duration::from_secs(120), "everything was put back: {table}");
    };
    assert!(!broken(&table).is_empty(), "some were captured after the backup: {table}");
    println!(
        "everything put back: at rest after {:.1?}, and only captures are without their orders",
        restored.elapsed()
    );
    running.kill();
}

/// All lines but the last, and the last, which is the shop.
fn split(script: &str) -> (&str, &str) {
    let last = script.trim_end().rfind('\n').unwrap() + 1;
    script.split_at(last)
}
