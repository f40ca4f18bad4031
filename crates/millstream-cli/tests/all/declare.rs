//! Declaring the streams of a release, before its services start.

use std::fs;
use std::process::{Command, Stdio};

use async_nats::jetstream::consumer::pull;
use millstream::testing::Bench;
use millstream::{Service, Start, Stream};

use crate::call;

const ORDERS: Stream = Stream::new("ORDERS", "orders");

fn shop(version: &str, orders: Stream) -> String {
    let takes = Service::new("takes").release(version).publishes(orders);
    let packs = Service::new("packs").release(version).reads(orders, Start::Beginning);
    let looks = Service::new("looks").release(version).reads(orders, Start::Now).best_effort();
    [takes, packs, looks].map(|service| format!("{}\n", service.declaration())).concat()
}

/// Declares what is in a file: the exit code, and what was said.
fn declare(bench: &Bench, text: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.json");
    fs::write(&file, text).unwrap();
    call(&bench.broker.url(), &["declare", file.to_str().unwrap()], &[])
}

async fn readers(bench: &Bench) -> Option<String> {
    let stream = bench.jetstream().get_stream("ORDERS").await.unwrap();
    stream.cached_info().config.metadata.get("millstream.readers").cloned()
}

#[tokio::test]
async fn a_release_is_declared_once_repeated_without_effect_and_left_to_newer_ones() {
    let bench = Bench::start().await;
    let declare = |text: String| declare(&bench, &text);
    let of = |said: &str, stream: &str| {
        let line = said.lines().find(|line| line.trim().starts_with(stream)).unwrap_or_default();
        line.trim().trim_start_matches(stream).trim().to_owned()
    };
    let (code, said) = declare(shop("1.0.0", ORDERS));
    assert_eq!(code, 0, "{said}");
    for stream in ["ORDERS", "DLQ_TAKES", "DLQ_PACKS", "DLQ_LOOKS", "REDRIVE", "AUDIT"] {
        assert_eq!(of(&said, stream), "made", "{said}");
    }
    let who = "who is to come holds the stream, as far as it is not best effort";
    assert_eq!(readers(&bench).await.as_deref(), Some("packs"), "{who}");

    let (code, said) = declare(shop("1.0.0", ORDERS));
    assert_eq!((code, of(&said, "ORDERS"), of(&said, "REDRIVE")), (0, "as declared".into(), "as declared".into()));
    let more = Stream { max_bytes: 2 << 30, ..ORDERS };
    let (code, said) = declare(shop("1.1.0", more));
    assert_eq!((code, of(&said, "ORDERS")), (0, "changed: max_bytes, metadata".into()), "{said}");
    let (code, said) = declare(shop("1.0.0", ORDERS));
    assert_eq!((code, of(&said, "ORDERS").contains("a newer release")), (0, true), "{said}");
    assert_eq!(bench.jetstream().get_stream("ORDERS").await.unwrap().cached_info().config.max_bytes, 2 << 30);
}

#[tokio::test]
async fn who_reads_a_stream_of_others_is_noted_on_it_and_a_stream_that_nobody_publishes_is_a_mistake() {
    let bench = Bench::start().await;
    let reads = |service, version, stream| {
        let service: Service = Service::new(service).release(version).reads(stream, Start::Beginning);
        service.declaration().to_string()
    };
    let (code, said) = declare(&bench, &reads("packs", "1.0.0", ORDERS));
    assert!(code == 3 && said.contains("stream ORDERS is to be read, is not there"), "{said}");
    assert!(bench.jetstream().get_stream("DLQ_PACKS").await.is_err(), "nothing was done");
    assert_eq!(declare(&bench, &shop("1.1.0", ORDERS)).0, 0);
    assert_eq!(declare(&bench, &reads("sends", "1.0.0", ORDERS)).0, 0);
    assert_eq!(readers(&bench).await.as_deref(), Some("packs,sends"));
    // Also where the stream itself is left to a newer release.
    let older = shop("1.0.0", ORDERS) + &reads("bills", "1.0.0", ORDERS);
    assert_eq!(declare(&bench, &older).0, 0);
    assert_eq!(readers(&bench).await.as_deref(), Some("bills,packs,sends"));
}

/// As the runbook has it: a durable of its name that nobody need wait for, one more declaration, and the durable may go.
#[tokio::test]
async fn the_last_reader_of_a_stream_can_be_retired() {
    let bench = Bench::start().await;
    assert_eq!(declare(&bench, &shop("1.0.0", ORDERS)).0, 0);
    let takes = Service::new("takes").release("1.0.0").publishes(ORDERS).declaration().to_string();
    assert_eq!(declare(&bench, &takes).0, 0);
    assert_eq!(readers(&bench).await.as_deref(), Some("packs"), "a declaration that does not name it is not enough");
    let stream = bench.jetstream().get_stream("ORDERS").await.unwrap();
    let retired = pull::Config {
        durable_name: Some("packs".into()),
        metadata: [("millstream.best_effort".to_owned(), "true".to_owned())].into(),
        ..pull::Config::default()
    };
    stream.create_consumer(retired).await.unwrap();
    assert_eq!(declare(&bench, &takes).0, 0);
    stream.delete_consumer("packs").await.unwrap();
    assert_eq!(declare(&bench, &takes).0, 0);
    assert_eq!(readers(&bench).await.as_deref(), Some(""), "nobody is waited for, and the stream was read");
}

#[tokio::test]
async fn what_would_lose_something_is_refused_before_anything_is_changed() {
    let bench = Bench::start().await;
    let declare = |text: String| declare(&bench, &text);
    assert_eq!(declare(shop("1.0.0", ORDERS)).0, 0);
    bench.publish_raw("orders.taken.0", &[], "x".repeat(2000)).await;
    let before = shop("1.1.0", ORDERS);
    for (text, part) in [
        (shop("1.1.0", Stream { partitions: 4, ..ORDERS }), "exists with another `partitions`"),
        (shop("1.1.0", Stream { max_bytes: 1000, ..ORDERS }), "and release 1.1.0 declares 1000 at most"),
        (shop("1.1.0", ORDERS).replace("\"takes\"", "\"console\""), "`console` is another user"),
        (before.clone() + &before, "is declared twice"),
        ("{}".into(), "declaration 1: missing field"),
        (String::new(), "no declaration"),
    ] {
        let (code, said) = declare(text);
        assert!(code == 3 && said.contains(part) && said.lines().count() == 1, "{part} is missing in: {said}");
    }
    let stream = bench.jetstream().get_stream("DLQ_TAKES").await.unwrap();
    assert_eq!(stream.cached_info().config.metadata["millstream.release"], "1.0.0", "nothing was changed");
}

#[test]
fn the_users_of_a_configuration_are_printed_without_a_broker_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.json");
    fs::write(&path, shop("1.0.0", ORDERS)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(["declare", "--users"]).env("NATS_URL", "nats://127.0.0.1:1");
    let printed = command.stdin(fs::File::open(&path).unwrap()).stderr(Stdio::inherit()).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    for part in
        ["user: takes\n", "password: $NATS_PACKS_PASSWORD\n", "\"orders.>\"", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.looks"]
    {
        assert!(printed.contains(part), "{part} is missing in: {printed}");
    }
}
