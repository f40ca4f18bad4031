//! Messages that the client cannot read: the broker stores any bytes as headers, and the client closes its connection on some.

use millstream::Timestamp;
use millstream::engine::timing::Timing;
use millstream::operator::Operator;
use millstream::operator::tail::{Tail, TailFilter};
use millstream::testing::{Bench, TestService, fresh_meta};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bank::*;

const GOOD: usize = 300;
const BODY: &[u8] = b"{\"account\":\"a\",\"note\":\"odd\",\"act\":\"Mark\"}";

/// Publishes bytes as they are, as a client in any language can, and returns when the broker has stored them.
async fn publish_bytes(bench: &Bench, subject: &[u8], headers: &[u8]) {
    let url = bench.broker.url();
    let mut broker = TcpStream::connect(url.trim_start_matches("nats://")).await.unwrap();
    let connect = b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB _I.x 1\r\n";
    let sizes = format!(" _I.x {} {}\r\n", headers.len(), headers.len() + BODY.len());
    let message = [&connect[..], b"HPUB ", subject, sizes.as_bytes(), headers, BODY, b"\r\n"].concat();
    broker.write_all(&message).await.unwrap();
    let mut said = vec![];
    while !said.windows(6).any(|found| found == b"\"seq\":") {
        assert!(broker.read_buf(&mut said).await.unwrap() > 0, "{}", String::from_utf8_lossy(&said));
    }
}

async fn publish_good(bench: &Bench, count: usize) {
    let acts: Vec<_> = (0..count).map(|at| (fresh_meta(), moved("a", &format!("m{at}"), Act::Add(1)))).collect();
    bench.publish_all(acts.iter().map(|(meta, moved)| (meta.clone(), moved))).await;
}

async fn until_good_are_handled(bench: &Bench, service: &TestService, count: usize) {
    until(&format!("{count} good ones to be handled"), async || {
        service.get::<Account>("a").await.is_some_and(|account| account.log.len() == count)
    })
    .await;
    bench.until_handled(&BANK, SERVICE).await;
    let state = bench.jetstream().get_stream(BANK.name).await.unwrap().cached_info().state.clone();
    let durable = bench.durable(&BANK, SERVICE).await.unwrap();
    assert_eq!(durable.ack_floor.stream_sequence, state.last_sequence, "nothing holds the stream");
}

/// Short times, but for the outbox: a connection that breaks under load may take a while.
fn times() -> Timing {
    Timing { batch_inputs: 64, ..short() }
}

const KINDS: [(&str, &[u8], &[u8], &str); 5] = [
    (
        "value",
        b"bank.moved.0",
        b"NATS/1.0\r\nce-type: bank.moved.v2\r\nX-Name: Zo\xEB\r\n\r\n",
        "headers are not UTF-8",
    ),
    (
        "name",
        b"bank.moved.0",
        b"NATS/1.0\r\nce-type: bank.moved.v2\r\nMy Header: x\r\n\r\n",
        "`My Header` is not the name",
    ),
    ("line", b"bank.moved.0", b"NATS/1.0\r\nce-type: bank.moved.v2\r\nno colon\r\n\r\n", "has no colon"),
    ("version", b"bank.moved.0", b"garbage\r\n\r\n", "do not begin with"),
    ("subject", b"bank.moved.\xFF", b"NATS/1.0\r\nce-type: bank.moved.v2\r\n\r\n", "subject is not UTF-8"),
];

#[tokio::test]
async fn a_message_that_the_client_cannot_read_is_parked_with_its_bytes_and_the_good_ones_behind_it_are_handled() {
    for (kind, subject, headers, why) in KINDS {
        println!("{kind}");
        let bench = bench().await;
        let service = bench.run(ledger(&World::default()), times()).await;
        publish_bytes(&bench, subject, headers).await;
        publish_good(&bench, GOOD).await;
        until_good_are_handled(&bench, &service, GOOD).await;
        let letters = bench.expect_dead_letters(SERVICE, 1).await;
        let said = |name: &str| letters[0].header(&format!("Millstream-{name}")).unwrap();
        assert_eq!((letters.len(), said("Reason"), said("Sequence")), (1, "schema".into(), "1".into()), "{kind}");
        assert!(said("Error").contains(why), "{kind}: {}", said("Error"));
        assert_eq!(&letters[0].payload[..], BODY);
        service.until_ready().await;
        service.stop().await;
    }
}

#[tokio::test]
async fn what_two_replicas_cannot_read_is_parked_once_each_and_all_good_ones_are_handled_once() {
    let bench = bench().await;
    let mut replicas = vec![];
    for _ in 0..2 {
        replicas.push(bench.run(ledger(&World::default()), times()).await);
    }
    for (_, subject, headers, _) in KINDS {
        publish_good(&bench, GOOD / 5).await;
        publish_bytes(&bench, subject, headers).await;
    }
    until_good_are_handled(&bench, &replicas[0], GOOD).await;
    assert_eq!(bench.expect_dead_letters(SERVICE, 5).await.len(), 5);
    assert_eq!(bench.expect::<Noted>(GOOD).await.len(), GOOD);
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn what_the_client_cannot_read_was_there_before_the_service_and_does_not_keep_it_from_starting() {
    let bench = bench().await;
    for (_, subject, headers, _) in KINDS {
        publish_bytes(&bench, subject, headers).await;
    }
    publish_good(&bench, GOOD).await;
    let service = bench.run(ledger(&World::default()), times()).await;
    until_good_are_handled(&bench, &service, GOOD).await;
    assert_eq!(bench.expect_dead_letters(SERVICE, 5).await.len(), 5);
    service.stop().await;
}

/// The client itself ends on this one, and so does the service: its next process finds it before it pulls.
#[tokio::test]
async fn a_message_that_ends_the_client_is_parked_by_the_next_process() {
    let bench = bench().await;
    publish_bytes(&bench, b"bank.moved.0", b"NATS/1.0\r\nce-type: bank.moved.v2\r\na: b\rc\r\n\r\n").await;
    publish_good(&bench, GOOD).await;
    let service = bench.launch(ledger(&World::default()), times()).await;
    assert!(service.ended().await.is_err());
    let service = bench.run(ledger(&World::default()), times()).await;
    until_good_are_handled(&bench, &service, GOOD).await;
    let letters = bench.expect_dead_letters(SERVICE, 1).await;
    assert!(letters[0].header("Millstream-Error").unwrap().contains("carriage return"), "{letters:?}");
    service.stop().await;
}

#[tokio::test]
async fn an_operator_sees_all_of_a_stream_with_messages_that_the_client_cannot_read() {
    let bench = bench().await;
    let since = Timestamp::from_millis(1_000_000);
    let mut count = 0;
    for (_, subject, headers, _) in KINDS {
        publish_bytes(&bench, subject, headers).await;
        publish_good(&bench, 30).await;
        count += 31;
    }
    let operator = Operator::new(async_nats::connect(bench.broker.url()).await.unwrap());
    let mut tail = Tail::start(operator.clone(), since, TailFilter::default()).await.unwrap();
    let (found, skipped) = tail.next(1000).await.unwrap();
    let sequences: Vec<u64> = found.iter().map(|stored| stored.sequence).collect();
    assert_eq!((sequences, skipped), ((1..=count).collect(), 0));
    assert_eq!(found[0].header("X-Name").as_deref(), Some("Zo\u{fffd}"));
    assert_eq!(&found[0].payload[..], BODY);
}
