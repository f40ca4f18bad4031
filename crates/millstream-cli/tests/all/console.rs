//! The console as it is called.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millstream::testing::Broker;

use crate::call;

const SOON: Duration = Duration::from_secs(30);
const KEY: &str = "7f3a09c2b1d84e6f7f3a09c2b1d84e6f";
const WRONG: &str = "0b52e71f90aa43d80b52e71f90aa43d8";

/// The answer to a login.
fn log_in(port: u16, key: &str) -> Option<String> {
    let body = format!("{{\"key\":\"{key}\"}}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = "POST /api/login HTTP/1.1\r\nhost: localhost\r\nx-millstream: 1\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[tokio::test]
async fn neither_the_key_nor_what_stands_for_it_nor_a_wrong_one_is_in_the_log() {
    let broker = Broker::start().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(["console", "--allow-actions", "--host", "0.0.0.0", "--port", &port.to_string()]);
    command.env("CONSOLE_KEY", KEY).env("NATS_URL", broker.url()).env("LOG", "trace");
    let mut console = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let pipes: [Box<dyn Read + Send>; 2] =
        [Box::new(console.0.stdout.take().unwrap()), Box::new(console.0.stderr.take().unwrap())];
    let readers = pipes.map(|pipe| {
        std::thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"))
    });
    let until = Instant::now() + SOON;
    let wrong = loop {
        if let Some(answer) = log_in(port, WRONG) {
            break answer;
        }
        assert!(Instant::now() < until, "the console answers in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let right = log_in(port, KEY).unwrap();
    drop(console);
    let said = readers.map(|reader| reader.join().unwrap()).concat();
    assert!(wrong.starts_with("HTTP/1.1 403") && !wrong.contains(WRONG), "{wrong}");
    assert!(right.starts_with("HTTP/1.1 200"), "{right}");
    let cookie = right.split_once("millstream-console=").unwrap().1.split(';').next().unwrap();
    assert!(cookie.len() == 64 && said.contains("wrong key"), "{said}");
    for secret in [KEY, WRONG, cookie] {
        assert!(!said.contains(secret), "{secret} is in the log:\n{said}");
    }
}

#[test]
fn a_short_key_is_refused_and_not_printed_and_an_empty_one_is_none() {
    for port in ["--port", "--host"] {
        let (code, said) = call("nats://127.0.0.1:1", &["console", port, "x"], &[("CONSOLE_KEY", "hunter2")]);
        assert!(code == 2 && !said.contains("hunter2"), "{said}");
    }
    let (code, said) = call("nats://127.0.0.1:1", &["console"], &[("CONSOLE_KEY", "hunter2")]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("CONSOLE_KEY") && said.contains("16 characters") && !said.contains("hunter2"), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = call("nats://127.0.0.1:1", &["console", "--port", &port], &[("CONSOLE_KEY", "")]);
    assert!(code == 3 && said.contains("is in use"), "it gets as far as to listen: {said}");
}
