//! Instances are found by a plain NATS client, with the protocol that stock tools speak.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::Value;

use crate::bank::*;

/// All answers to a question, from however many there are.
async fn answers(client: &Client, subject: &str) -> Vec<Value> {
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply(subject.to_owned(), inbox, "".into()).await.unwrap();
    let mut all = vec![];
    while let Ok(Some(reply)) = tokio::time::timeout(Duration::from_millis(500), replies.next()).await {
        if reply.status != Some(async_nats::StatusCode::NO_RESPONDERS) {
            all.push(serde_json::from_slice(&reply.payload).unwrap());
        }
    }
    all
}

/// What an instance tells of itself with its statistics.
fn data_of(stats: &Value) -> &Value {
    let endpoints = stats["endpoints"].as_array().unwrap();
    &endpoints.iter().find(|endpoint| endpoint["name"] == "status").unwrap()["data"]
}

async fn until_found(client: &Client, count: usize) {
    until(&format!("{count} instances to be found"), async || answers(client, "$SRV.PING").await.len() == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instance_answers_under_its_services_name_with_its_release_its_counters_and_its_health() {
    let bench = bench().await;
    let world = World::default();
    let service = || ledger(&world).release("1.4.0");
    let (one, two) = (bench.run(service(), short()).await, bench.run(service(), short()).await);
    let client = async_nats::connect(bench.broker.url()).await.unwrap();
    until_found(&client, 2).await;
    for at in 0..10 {
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    publish(&bench, "a", "bad", Act::Reject).await;
    bench.until_handled(&BANK, SERVICE).await;
    one.submit_to(&world, moved("a", "command", Act::Add(1))).await.unwrap();

    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    for subject in ["$SRV.PING", "$SRV.INFO.ledger", "$SRV.STATS.ledger"] {
        let found = answers(&client, subject).await;
        assert_eq!(found.len(), 2, "{subject}");
        assert!(found.iter().all(|found| found["name"] == "ledger" && found["version"] == "1.4.0"), "{found:?}");
    }
    let infos = answers(&client, "$SRV.INFO.ledger").await;
    let instances: BTreeSet<String> = infos.iter().map(|info| text(&info["metadata"], "instance")).collect();
    assert_eq!(instances.len(), 2);
    for info in &infos {
        text(&info["metadata"], "started").parse::<millstream::Timestamp>().unwrap();
        assert!(!text(&info["metadata"], "revision").is_empty());
        let one = answers(&client, &format!("$SRV.PING.ledger.{}", text(info, "id"))).await;
        assert_eq!(one.len(), 1);
    }
    let stats = answers(&client, "$SRV.STATS.ledger").await;
    let data: Vec<&Value> = stats.iter().map(data_of).collect();
    let sum = |name: &str| -> u64 { data.iter().map(|data| data["totals"][name].as_u64().unwrap()).sum() };
    assert_eq!((sum("handled"), sum("deadLettered"), sum("retried"), sum("errors")), (10, 1, 0, 1), "{data:?}");
    assert_eq!(sum("commands"), 1);
    assert!(sum("processingNanos") > 0);
    assert!(data.iter().all(|data| data["health"]["status"] == "UP"), "{data:?}");
    let health = client.request("millstream.status.ledger", "".into()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&health.payload).unwrap()["status"], "UP");

    two.stop().await;
    until_found(&client, 1).await;
    one.stop().await;
    until_found(&client, 0).await;
}

#[tokio::test]
async fn an_instance_is_found_again_after_the_broker_was_away() {
    let mut bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    bench.broker.kill();
    bench.broker.restart().await;
    let client = async_nats::connect(bench.broker.url()).await.unwrap();
    until_found(&client, 1).await;
    service.stop().await;
}
