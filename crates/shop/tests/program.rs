//! The program as it is called, where only a process of its own shows what it does.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod drills;
mod garbled;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
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

/// A server that answers everything with 404 and keeps what it was asked, and its URL.
fn listening() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut bytes) = (stream.unwrap(), [0; 4096]);
            let read = stream.read(&mut bytes).unwrap_or(0);
            hears.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (url, heard)
}

#[test]
fn the_key_of_orders_is_sent_to_no_other_service() {
    let ((orders, by_orders), (others, by_others)) = (listening(), listening());
    let mut check = shop(&["check", "--looks", "1", "--nats-url", "nats://127.0.0.1:9", "--orders-url", &orders]);
    for service in ["inventory", "payments", "notifications", "analytics", "gateway"] {
        check.args([&format!("--{service}-url"), &others]);
    }
    let load = ["load", "--give-up-after", "1s", "--wait", "1s", "--url", &orders];
    let from_stock = shop(&[&load[..], &["--orders", "1", "--inventory-url", &others]].concat());
    let from_file = {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("orders.jsonl");
        std::fs::write(&file, "{}\n").unwrap();
        let mut command = shop(&load);
        command.arg("--file").arg(&file);
        (folder, command)
    };
    let every = &["/stock", "/reservations", "/payments", "/notifications", "/analytics/summary", "/charges"][..];
    for (mut command, key_is_sent, routes) in
        [(check, true, every), (from_stock, false, &["/stock"]), (from_file.1, true, &[])]
    {
        by_orders.lock().unwrap().clear();
        by_others.lock().unwrap().clear();
        command.env("ORDERS_API_KEY", "the-secret-key").output().unwrap();
        let (orders, others) = (by_orders.lock().unwrap(), by_others.lock().unwrap());
        assert_eq!(orders.contains("Bearer the-secret-key"), key_is_sent, "{command:?}: {orders}");
        for route in routes {
            assert!(others.contains(&format!("GET {route}")), "{command:?}: {route} was not asked for: {others}");
        }
        assert!(!others.contains("the-secret-key"), "{command:?}: {others}");
    }
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
    fn start(env: &[(&str, &str)]) -> Self {
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
            .envs(env.iter().copied())
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
    let orders = Orders::start(&[]);
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

#[test]
fn orders_asks_for_keys_if_it_is_given_a_file_of_them_and_a_bad_file_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    std::fs::write(&file, "web:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed\n").unwrap();
    let path = file.to_str().unwrap();
    let orders = Orders::start(&[("API_KEYS_FILE", path)]);
    for (path, status) in [("/orders", "401"), ("/orders/1/events", "401"), ("/metrics", "200"), ("/readyz", "503")] {
        let answer = orders.ask(path);
        assert!(answer.as_ref().is_some_and(|line| line.contains(status)), "{path}: {answer:?}");
    }
    std::fs::write(&file, "web:one\n").unwrap();
    let done = shop(&["serve", "orders", "--api-keys-file", path]).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("API_KEYS_FILE") && said.contains("line 1: expected the SHA-256"), "{said}");
}

#[test]
fn a_service_that_is_given_the_demos_password_warns_of_it_once_and_of_no_other() {
    let warnings = |password: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = shop(&["serve", "orders", "--port", "0", "--store-url", "sqlite://orders.db"]);
        command.current_dir(folder.path()).env("NATS_URL", format!("nats://orders:{password}@127.0.0.1:9"));
        let mut service = command.env("LOG", "debug").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(service.stderr.take().unwrap()), Box::new(service.stdout.take().unwrap())];
        let (said_tx, said) = std::sync::mpsc::channel();
        for pipe in pipes {
            let said = said_tx.clone();
            std::thread::spawn(move || {
                BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| said.send(line))
            });
        }
        drop(said_tx);
        // Its warnings come before its first attempt to reach the broker.
        let mut lines = vec![];
        while !lines.last().is_some_and(|line: &String| line.contains("broker") && !line.contains("demo password")) {
            lines.push(said.recv_timeout(SOON).unwrap_or_else(|_| panic!("it says nothing of the broker: {lines:#?}")));
        }
        service.kill().unwrap();
        service.wait().unwrap();
        lines.extend(said);
        assert!(!lines.iter().any(|line| line.contains(password)), "{lines:#?}");
        lines.into_iter().filter(|line| line.contains("demo password")).collect::<Vec<_>>()
    };
    let said = warnings("demo-password");
    let [one] = &said[..] else { panic!("{said:?}") };
    for part in ["WARN", "user orders of the broker", "deploy/secrets.sh"] {
        assert!(one.contains(part), "`{part}` is missing in: {one}");
    }
    assert_eq!(warnings("8c1f0a"), Vec::<String>::new());
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
