//! What open tabs are told.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use millstream::testing::{Broker, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::{Console, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_tab_is_told_what_it_skipped_and_another_tab_misses_nothing() {
    let broker = Broker::start().await;
    let console = Console::start(&broker.url(), false).await;
    let js = jetstream::new(async_nats::connect(broker.url()).await.unwrap());
    let config = stream::Config {
        name: "BANK".into(),
        subjects: vec!["bank.>".into()],
        allow_direct: true,
        metadata: [("millstream.partitions".into(), "8".into())].into(),
        ..Default::default()
    };
    js.create_stream(config).await.unwrap();

    // It takes little in, and reads nothing.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(console.address).await.unwrap();
    let ask = format!("GET /api/live HTTP/1.1\r\nHost: {}\r\n\r\n", console.address);
    slow.write_all(ask.as_bytes()).await.unwrap();
    let mut quick = reqwest::get(format!("{}/api/live", console.url())).await.unwrap();

    let publisher = tokio::spawn(async move {
        let mut headers = HeaderMap::new();
        headers.insert("ce-type", "bank.moved.v1");
        for name in ["ce-subject", "ce-id", "ce-correlationid", "ce-causationid", "ce-source"] {
            headers.insert(name, "x".repeat(200));
        }
        loop {
            js.publish_with_headers("bank.moved.0", headers.clone(), "{}".into()).await.unwrap().await.unwrap();
            tokio::time::sleep(Duration::from_millis(21)).await;
        }
    });
    let mut told = String::new();
    let enough = async {
        // As much as would have stood in the way of the slow one, three times over.
        while told.len() < 1_200_000 {
            told.push_str(&String::from_utf8_lossy(&quick.chunk().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(Duration::from_secs(90), enough).await.unwrap();
    assert!(!told.contains("event: skipped"));

    let mut read = vec![];
    let mut piece = vec![0; 65536];
    eventually("the slow tab to be told what it skipped", SOON, async || {
        let length = slow.read(&mut piece).await.unwrap();
        read.extend_from_slice(&piece[..length]);
        String::from_utf8_lossy(&read).contains("event: skipped\ndata: {\"events\":")
    })
    .await;
    publisher.abort();
}
