//! The examples are run as a reader would run them: on a port of their own, spoken to by HTTP, ended by SIGTERM.

use std::path::PathBuf;
use std::process::Stdio;

use millstream::testing::{eventually, skip};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::bank::LONG;

/// `cargo test` builds the examples beside the tests, unless it is told which targets to build.
fn example(name: &str) -> Option<Command> {
    let here = std::env::current_exe().unwrap();
    let program: PathBuf = here.ancestors().nth(2).unwrap().join("examples").join(name);
    if !program.exists() {
        skip("the examples", "they are not built when `cargo test` is told which targets to test");
        return None;
    }
    let mut command = Command::new(program);
    command.env_remove("NATS_URL").env_remove("STORE_URL").kill_on_drop(true);
    Some(command)
}

struct Running {
    process: Child,
    address: String,
}

impl Running {
    async fn start(name: &str) -> Option<Self> {
        let mut process = example(name)?.args(["--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("it says where it listens");
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.split_once('/').unwrap().0.to_owned();
            }
        };
        // A pipe that nobody reads fills up.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { process, address })
    }

    /// The answer, once it contains `expected`: a service is unready at first, and what follows a command takes a moment.
    async fn answers(&self, request: &str, body: &str, expected: &str) {
        eventually(&format!("{request} answers {expected}"), LONG, async || {
            self.ask(request, body).await.contains(expected)
        })
        .await;
    }

    async fn ask(&self, request: &str, body: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).await.unwrap();
        let (host, length) = (&self.address, body.len());
        let head = format!("{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json");
        connection.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn stop(mut self) {
        nats_embedded::signal(self.process.id().unwrap(), "TERM");
        let ended = tokio::time::timeout(LONG, self.process.wait()).await.expect("it stops").unwrap();
        assert!(ended.success(), "{ended}");
    }
}

#[tokio::test]
async fn the_quickstart_greets_counts_and_stops_in_order() {
    let Some(example) = Running::start("quickstart").await else { return };
    example.answers("POST /greetings", r#"{"name":"Ada"}"#, "Hello, Ada!").await;
    example.answers("GET /greetings/Ada", "", r#""greetings":1"#).await;
    example.answers("GET /greetings/Bob", "", "404").await;
    example.stop().await;
}

#[tokio::test]
async fn the_effect_of_the_example_is_done_after_two_outages() {
    let Some(example) = Running::start("effect").await else { return };
    example.answers("POST /mails", r#"{"to":"ada@example.com"}"#, "200 OK").await;
    example.answers("GET /mails", "", r#""sent":true"#).await;
    example.stop().await;
}

#[tokio::test]
async fn the_table_of_the_example_is_free_again_after_its_deadline() {
    let Some(example) = Running::start("deadline_saga").await else { return };
    example.answers("PUT /tables/7/held", "", "200 OK").await;
    example.answers("GET /tables/7", "", r#""free""#).await;
    example.stop().await;
}

#[tokio::test]
async fn the_impossible_reading_of_the_example_is_parked_and_the_next_one_kept() {
    let Some(example) = Running::start("dead_letters").await else { return };
    example.answers("POST /readings", r#"{"sensor":"roof","celsius":-300}"#, "200 OK").await;
    example.answers("POST /readings", r#"{"sensor":"roof","celsius":20}"#, "200 OK").await;
    example.answers("GET /readings/roof", "", r#""celsius":20"#).await;
    example.answers("GET /metrics", "", r#"reason="rejected""#).await;
    example.stop().await;
}

#[tokio::test]
async fn the_counters_of_the_examples_count() {
    for (name, first, second) in [("replicas", "\r\n\r\n1", "\r\n\r\n2"), ("axum_state", "\r\n\r\n5", "\r\n\r\n10")] {
        let Some(example) = Running::start(name).await else { return };
        example.answers("PUT /counters/c/next", "", first).await;
        example.answers("PUT /counters/c/next", "", second).await;
        example.stop().await;
    }
}

#[tokio::test]
async fn the_example_of_the_simulator_finds_nothing() {
    let Some(mut example) = example("test_with_sim") else { return };
    let ended = example.status().await.unwrap();
    assert!(ended.success(), "{ended}");
}
