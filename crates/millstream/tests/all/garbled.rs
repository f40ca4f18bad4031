//! Random bytes where others may send any. `MILLSTREAM_GARBLED` says how many, `MILLSTREAM_SEED` which.

use async_nats::header::{HeaderMap, HeaderValue};
use futures_util::StreamExt;
use millstream::event::Emitted;
use millstream::operator::exact::Exact;
use millstream::testing::{Garble, fresh_meta};
use millstream_core::stored::{lenient, unreadable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bank::*;

/// Blocks of headers as clients of several languages write them, and as the broker does.
const BLOCKS: [&[u8]; 5] = [
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0\r\nce-id: 01932f6e-7a00-7b3e-8f4a-5b6c7d8e9f01\r\nce-type: bank.moved.v2\r\nce-time: 2026-01-31T12:00:00Z\r\n\r\n",
    b"NATS/1.0 503 No Responders\r\nX-Name: Zo\xC3\xAB\r\nX-Name: b\r\n\r\n",
    b"NATS/1.0\r\nX-Folded: one\r\n two\r\n\tthree\r\nNone:\r\n\r\n",
    b"NATS/1.0 100\t\r\nce-correlationid: a%20b\r\nce-subject: \"k\"\r\n\r\n",
];

const INFO: &[u8] = b"INFO {\"server_id\":\"A\",\"server_name\":\"a\",\"version\":\"2.12.0\",\"proto\":1,\"go\":\"\",\"host\":\"127.0.0.1\",\"port\":4222,\"headers\":true,\"max_payload\":1048576}\r\n";

/// Whether the client, at its end of a connection, reads a message with this block of headers, and what it reads.
async fn client_reads(block: &[u8]) -> Option<HeaderMap> {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", broker.local_addr().unwrap());
    let connecting = async_nats::ConnectOptions::new().max_reconnects(1).connect(url);
    let (client, stream) = tokio::join!(connecting, async {
        let (mut stream, _) = broker.accept().await.unwrap();
        // A client that gives its connection up keeps it until it has another, or none is to be had.
        drop(broker);
        stream.write_all(INFO).await.unwrap();
        said(&mut stream, b"PING\r\n").await;
        stream.write_all(b"PONG\r\n").await.unwrap();
        stream
    });
    let (client, mut stream) = (client.unwrap(), stream);
    let mut messages = client.subscribe("a").await.unwrap();
    let asked = said(&mut stream, b"SUB a").await;
    let sid = asked.split_whitespace().last().unwrap().to_owned();
    let sizes = format!("HMSG a {sid} {} {}\r\n", block.len(), block.len() + 2);
    stream.write_all(&[sizes.as_bytes(), block, b"{}\r\n"].concat()).await.unwrap();
    let closed = async { while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} };
    tokio::select! {
        message = messages.next() => message.map(|message| message.headers.unwrap_or_default()),
        () = closed => None,
    }
}

/// Waits until a line with this comes, and gives it.
async fn said(stream: &mut TcpStream, what: &[u8]) -> String {
    let mut all = vec![];
    loop {
        let lines = all.split_inclusive(|byte| *byte == b'\n').filter(|line: &&[u8]| line.ends_with(b"\n"));
        if let Some(line) = lines.into_iter().find(|line| line.starts_with(what)) {
            return String::from_utf8(line.to_vec()).unwrap();
        }
        assert!(stream.read_buf(&mut all).await.unwrap() > 0, "the client has gone");
    }
}

#[tokio::test]
async fn of_random_headers_those_are_unreadable_that_the_client_cannot_read_and_no_others() {
    let mut garble = Garble::from_env();
    let mut read = 0;
    let count = Garble::count(500);
    for _ in 0..count {
        let block = garble.pick(&BLOCKS);
        let block: Vec<u8> = garble.bytes(block).into_iter().take(4000).collect();
        if block.is_empty() {
            continue;
        }
        let named = format!("{:?}", block.escape_ascii().to_string());
        let by_client = client_reads(&block).await;
        assert_eq!(unreadable(&block).is_none(), by_client.is_some(), "{named}: {:?}", unreadable(&block));
        // What is made of it instead is what a client can take, and the same if it could.
        let mut kept = HeaderMap::new();
        for (name, value) in lenient(&block) {
            kept.append(name.as_str(), HeaderValue::from(value));
        }
        let Some(by_client) = by_client else { continue };
        read += 1;
        for (name, values) in by_client.iter() {
            let here: Vec<_> = kept.get_all(name.clone()).map(|value| value.as_str().trim()).collect();
            let there: Vec<_> = values.iter().map(|value| value.as_str().trim()).collect();
            assert_eq!(here, there, "{named}: {name}");
        }
    }
    assert!(read > 0 && read < count, "{read} of {count} were readable");
}

#[test]
fn random_bytes_in_the_place_of_kept_messages_are_none_and_what_is_kept_comes_back() {
    let mut garble = Garble::from_env();
    let message = |garble: &mut Garble| {
        let header = |value: &[u8]| millstream::event::encode_header(&String::from_utf8_lossy(value));
        let value = garble.bytes(b"a value");
        let body = garble.bytes(b"{\"a\":\"\\n\"}");
        Emitted {
            subject: "bank.moved.3".into(),
            headers: vec![("ce-id".into(), header(&value)), ("traceparent".into(), "00-a-b-01".into())],
            payload: body.into(),
        }
    };
    for _ in 0..Garble::count(2000) {
        let messages: Vec<Emitted> = (0..garble.below(4)).map(|_| message(&mut garble)).collect();
        let packed = Emitted::pack(&messages);
        assert_eq!(Emitted::unpack(&packed).as_ref(), Some(&messages));
        let bytes = garble.bytes(&packed);
        // A length of four GiB takes no more memory than there are bytes.
        for message in Emitted::unpack(&bytes).into_iter().flatten() {
            assert!(message.payload.len() + message.subject.len() <= bytes.len());
        }
    }
}

const BODY: &[u8] =
    br#"{"account":"a","lines":[{"price":1.50,"n":18446744073709551617},[],{}],"t":"x\u00e4","a/b":{"~":null}}"#;
const POINTERS: [&str; 7] = ["/account", "/lines/0/price", "/lines/1/0", "/lines/-", "/a~1b/~0", "/new", ""];

#[test]
fn a_random_pointer_changes_its_place_or_nothing_and_what_comes_out_is_json() {
    let mut garble = Garble::from_env();
    let mut set = 0;
    let count = Garble::count(3000);
    for _ in 0..count {
        let (body, pointer) =
            (if garble.below(2) == 0 { garble.bytes(BODY) } else { BODY.into() }, garble.pick(&POINTERS));
        let pointer = garble.bytes(pointer.as_bytes());
        let pointer =
            if garble.below(2) == 0 { garble.pick(&POINTERS).into() } else { String::from_utf8_lossy(&pointer) };
        let Ok(mut exact) = Exact::read(&body) else { continue };
        let before = exact.clone();
        let value = Exact::read(b"[0.10]").unwrap();
        if exact.set(&pointer, value.clone()) {
            set += 1;
            let place = pointer.strip_suffix("/-").is_none().then(|| exact.clone().at(&pointer).cloned()).flatten();
            assert!(place.is_none_or(|place| place == value), "{pointer}: {exact}");
        } else {
            assert_eq!(exact.to_string(), before.to_string(), "{pointer}");
        }
        let read = Exact::read(exact.to_string().as_bytes());
        assert!(read.is_ok_and(|read| read.to_string() == exact.to_string()), "{pointer}: {exact}");
    }
    assert!(set > 0 && set < count);
}

/// Puts bytes into the stream as they are; whether the broker has taken them.
async fn publish_bytes(broker: &mut TcpStream, headers: &[u8], body: &[u8]) -> bool {
    let sizes = format!("HPUB bank.moved.0 _I.x {} {}\r\n", headers.len(), headers.len() + body.len());
    broker.write_all(&[sizes.as_bytes(), headers, body, b"\r\n"].concat()).await.unwrap();
    let mut said = vec![];
    loop {
        let has = |what: &[u8]| said.windows(what.len()).any(|found| found == what);
        if has(b"\"seq\":") || has(b"\"error\":") {
            return has(b"\"seq\":");
        }
        assert!(broker.read_buf(&mut said).await.unwrap() > 0, "{}", String::from_utf8_lossy(&said));
    }
}

#[tokio::test]
async fn whatever_envelopes_and_bodies_come_the_stream_is_handled_to_its_end_and_the_good_ones_among_them_once() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let mut broker = TcpStream::connect(bench.broker.url().trim_start_matches("nats://")).await.unwrap();
    broker
        .write_all(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB _I.x 1\r\n")
        .await
        .unwrap();
    let mut garble = Garble::from_env();
    let mut good = 0;
    for number in 0..Garble::count(60) {
        let block = garble.pick(&BLOCKS);
        let block = if garble.below(4) == 0 { garble.bytes(block) } else { block.into() };
        let body = garble.bytes(br#"{"account":"garbled","note":"odd","act":"Mark"}"#);
        // A carriage return ends the client itself, and with it the process: there is a test of its own for that.
        let ends = unreadable(&block).is_some_and(|why| why.contains("carriage return"));
        if !ends && block.len() < 10_000 && body.len() < 100_000 {
            publish_bytes(&mut broker, &block, &body).await;
        }
        if number % 10 == 0 {
            good += 1;
            bench.publish(&fresh_meta(), &moved("good", &format!("m{number}"), Act::Add(1))).await;
        }
    }
    until("the good ones to be handled", async || {
        service.get::<Account>("good").await.is_some_and(|account| account.balance == good)
    })
    .await;
    bench.until_handled(&BANK, SERVICE).await;
    service.until_ready().await;
    let account = service.get::<Account>("good").await.unwrap();
    assert_eq!((account.balance, account.log.len() as i64), (good, good));
    service.stop().await;
}
