//! The program as it is called, where only a process of its own shows what it does.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod drills;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

fn shop(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.args(args);
    command
}

/// A server that answers everything with 200, and its URL.
fn ready() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/readyz", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nready");
        }
    });
    url
}

#[test]
fn a_proxy_of_the_environment_is_not_asked_for_this_machine() {
    let url = ready();
    let mut command = shop(&["health", &url]);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        // Nobody listens on the port of `discard`.
        command.env(name, "http://127.0.0.1:9");
    }
    let done = command.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_closed_output_is_quiet_and_a_full_one_is_an_error_in_one_sentence() {
    let url = ready();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = shop(&["health", &url]).stdout(writer).output().unwrap();
    assert_eq!((closed.status.code(), &*closed.stderr), (Some(0), &b""[..]));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let full = shop(&["health", &url]).stdout(full).output().unwrap();
    let said = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(3), "{said}");
    assert!(said.starts_with("error: cannot write the output: ") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_service_prints_what_it_needs_of_the_broker_and_touches_neither_broker_nor_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut printed = String::new();
    for service in ["orders", "inventory", "payments", "notifications", "analytics"] {
        let mut command = shop(&["serve", service, "--declare"]);
        let done = command.current_dir(folder.path()).env("NATS_URL", "nats://127.0.0.1:9").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        printed += &String::from_utf8(done.stdout).unwrap();
    }
    let all = millstream::declaration::read(&printed).unwrap();
    let of = |name: &str| all.iter().find(|one| one.service == name).unwrap();
    assert_eq!(of("orders").publishes[0].stream, "ORDERS");
    let reads: Vec<&str> = of("payments").reads.iter().map(|read| read.stream.as_str()).collect();
    assert_eq!((reads.contains(&"ORDERS"), reads.contains(&"INVENTORY")), (true, true), "{reads:?}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "no database is made");
}

/// A service without a broker, which serves HTTP all the same. It has as many descriptors as a shell gives, and nobody reads its
/// output.
struct Orders {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Orders {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let serve = "ulimit -n 1024 && exec \"$0\" serve orders --port \"$1\" --store-url sqlite://orders.db";
        let process = Command::new("sh")
            .args(["-c", serve, env!("CARGO_BIN_EXE_shop"), &address.port().to_string()])
            .current_dir(folder.path())
            .env("NATS_URL", "nats://127.0.0.1:9")
            .env("LOG", "debug")
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let orders = Self { process, address, _folder: folder };
        let until = Instant::now() + SOON;
        while orders.ask("/livez").is_none() {
            assert!(Instant::now() < until, "the service answers in time");
            std::thread::sleep(Duration::from_millis(20));
        }
        orders
    }

    /// The status line of an answer that comes within two seconds.
    fn ask(&self, path: &str) -> Option<String> {
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&self.address, limit).ok()?;
        stream.set_read_timeout(Some(limit)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().next().map(str::to_owned)
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn half_sent_requests_cannot_take_the_descriptors_that_probes_need() {
    let orders = Orders::start();
    let mut half = vec![];
    for number in 0..1100 {
        let mut stream = TcpStream::connect(orders.address).unwrap();
        let _ = stream.write_all(b"GET /orders HTTP/1.1\r\nX-a: ");
        half.push(stream);
        if number % 100 == 99 {
            for (path, status) in [("/livez", "200"), ("/readyz", "503"), ("/metrics", "200")] {
                let answer = orders.ask(path);
                assert!(answer.as_ref().is_some_and(|line| line.contains(status)), "{path} at {number}: {answer:?}");
            }
        }
    }
    // The newest are cut when their time is over.
    let until = Instant::now() + SOON;
    for stream in &mut half {
        stream
            .set_read_timeout(Some(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))))
            .unwrap();
        // An end, or a reset; a time-out would be neither.
        let end = stream.read(&mut [0; 256]);
        let kind = end.as_ref().err().map(std::io::Error::kind);
        assert!(kind != Some(std::io::ErrorKind::WouldBlock), "a connection is still open");
    }
}

/// With this seed, two minutes have every kind of fault.
#[test]
#[ignore = "long"]
fn two_minutes_of_faults_of_every_kind_under_load_lose_and_double_nothing() {
    let done = shop(&["chaos", "--minutes", "2", "--seed", "19"]).output().unwrap();
    let said = [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(done.status.success(), "{}", said.concat());
    for kind in [
        "one process killed",
        "both replicas killed",
        "crash loop",
        "everything killed",
        "one process frozen",
        "both replicas frozen",
        "rolling restart",
        "connection cut",
        "connection half-open",
        "broker killed",
        "broker frozen",
        "broker put back",
        "store put back",
        "gateway killed",
        "gateway forgets its keys",
        "gateway down",
        "gateway slow",
        "gateway fails",
        "gateway loses answers",
        "consumer deleted",
        "consumer paused",
        "poison",
        "surge",
    ] {
        assert!(said[0].contains(&format!("│ {kind} ")), "{kind}: {}", said[0]);
    }
}
