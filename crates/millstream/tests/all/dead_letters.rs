//! What cannot be handled is parked, whole, once, and the rest goes on.

use async_nats::jetstream::consumer::pull;
use futures_util::StreamExt;
use millstream::engine::timing::Timing;
use millstream::event::Emitted;
use millstream::testing::{Bench, fresh_meta};

use crate::bank::*;

fn said(letter: &Emitted, name: &str) -> String {
    letter.header(&format!("Millstream-{name}")).unwrap()
}

async fn only_letter(bench: &Bench) -> Emitted {
    let mut letters = bench.expect_dead_letters(SERVICE, 1).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(letters.len(), 1);
    letters.remove(0)
}

#[tokio::test]
async fn a_rejected_message_is_parked_with_its_body_its_headers_and_what_is_known() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let mut meta = fresh_meta();
    meta.correlation = "a \"question\" of 100 %".into();
    let event = moved("a", "bad", Act::Reject);
    bench.publish(&meta, &event).await;
    let letter = only_letter(&bench).await;
    assert_eq!(letter.subject, format!("dlq.ledger.bank-moved.{}", meta.id));
    assert_eq!(letter.payload, serde_json::to_vec(&event).unwrap());
    for (name, value) in [
        ("ce-id", meta.id.to_string()),
        ("ce-type", "bank.moved.v2".into()),
        ("ce-source", "bench".into()),
        ("ce-subject", "a".into()),
        ("ce-correlationid", meta.correlation.clone()),
        ("Nats-Msg-Id", format!("{}:0", meta.id)),
        ("Millstream-Id", meta.id.to_string()),
        ("Millstream-Service", "ledger".into()),
        ("Millstream-Reason", "rejected".into()),
        ("Millstream-Error", "the bank refuses bad".into()),
        ("Millstream-Stream", "BANK".into()),
        ("Millstream-Sequence", "1".into()),
        ("Millstream-Subject", format!("bank.moved.{}", BANK.partition("a"))),
        ("Millstream-Consumer", "ledger".into()),
        ("Millstream-Attempts", "1".into()),
        ("Millstream-Redrives", "0".into()),
    ] {
        assert_eq!(letter.header(name).as_ref(), Some(&value), "{name}");
    }
    assert_eq!(said(&letter, "First-Failure"), said(&letter, "Last-Failure"));
    assert_eq!(said(&letter, "Fingerprint").len(), 12);
    assert!(service.get::<Account>("a").await.is_none(), "what it staged is dropped");
    service.stop().await;
}

#[tokio::test]
async fn a_panic_parks_its_message_and_the_others_of_the_batch_go_on() {
    let bench = bench().await;
    let messages =
        [moved("a", "before", Act::Add(1)), moved("a", "boom", Act::Panic), moved("a", "after", Act::Add(1))];
    bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let letter = only_letter(&bench).await;
    assert_eq!(said(&letter, "Reason"), "panic");
    assert_eq!(said(&letter, "Error"), "the bank panics at boom");
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["before", "after"]);
    assert_eq!(notes(&bench, "a").await, ["before", "after"]);
    service.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_parked_as_schema_and_says_what_is_wrong() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let good = serde_json::to_vec(&moved("a", "n", Act::Add(1))).unwrap();
    for (headers, payload, part) in [
        (&[("ce-type", "bank.moved.v2")][..], &b"not json"[..], "expected"),
        (&[("ce-type", "bank.moved.v2")], b"{\"account\":\"a\",\"note\":7,\"act\":\"Charge\"}", "note: invalid type"),
        (&[("ce-type", "bank.moved.v2")], b"{\"account\":\"a\",\"note\":\"n\",\"act\":\"Dance\"}", "Dance"),
        (&[("ce-type", "bank.moved.v2")], b"", "EOF"),
        (&[], &good, "ce-type is missing"),
        (&[("ce-type", "bank.moved.v1")], &good, "knows version 2 of `bank.moved`, not 1"),
        (&[("ce-type", "moved")], &good, "`moved` is not of the form"),
    ] {
        let seen = bench.dead_letters(SERVICE).await.len();
        let seq = bench.publish_raw("bank.moved.0", headers, payload).await;
        let letter = bench.expect_dead_letters(SERVICE, seen + 1).await.pop().unwrap();
        assert_eq!(said(&letter, "Reason"), "schema");
        assert!(said(&letter, "Error").contains(part), "{part}: {}", said(&letter, "Error"));
        assert_eq!((said(&letter, "Sequence"), &letter.payload[..]), (seq.to_string(), payload));
    }
    bench.until_handled(&BANK, SERVICE).await;
    publish(&bench, "a", "goes on", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["goes on"]);
    service.stop().await;
}

#[tokio::test]
async fn a_message_that_would_emit_too_much_is_parked_and_a_letter_of_the_largest_message_is_whole() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    publish(&bench, "a", "big", Act::Large(2 << 20)).await;
    let letter = only_letter(&bench).await;
    assert_eq!(said(&letter, "Reason"), "too_large");
    assert!(said(&letter, "Error").contains("over the broker's limit"), "{}", said(&letter, "Error"));

    // What a service may emit at most also fits into a dead letter.
    let most = (1 << 20) - (16 << 10) - 600;
    publish(&bench, "a", &"x".repeat(most), Act::Reject).await;
    let letter = bench.expect_dead_letters(SERVICE, 2).await.pop().unwrap();
    assert!(letter.header("Millstream-Cut").is_none() && letter.payload.len() > most);
    // Others may send more than that.
    let body = "x".repeat((1 << 20) - 200);
    bench.publish_raw("bank.moved.0", &[("ce-type", "bank.moved.v2")], body.clone()).await;
    let letter = bench.expect_dead_letters(SERVICE, 3).await.pop().unwrap();
    assert_eq!(said(&letter, "Cut"), body.len().to_string());
    service.stop().await;
}

#[tokio::test]
async fn a_message_whose_document_would_be_too_large_for_a_store_is_parked_and_the_others_go_on() {
    outgrow(bench().await).await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
#[ignore = "long"]
async fn a_message_whose_document_would_be_too_large_for_mongo_is_parked_and_the_others_go_on() {
    let Some(stores) = millstream::testing::TestStore::on_mongo() else { return };
    let bench = Bench::start_with(stores).await;
    bench.declare(&BANK).await;
    outgrow(bench).await;
}

async fn outgrow(bench: Bench) {
    let service = bench.run(ledger(&World::default()), short()).await;
    for at in 0..10 {
        publish(&bench, "fat", &format!("{at}{}", "x".repeat(900 << 10)), Act::Mark).await;
    }
    publish(&bench, "thin", "a word", Act::Mark).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("fat").await.unwrap().log.len(), 7);
    assert_eq!(service.get::<Account>("thin").await.unwrap().log, ["a word"]);
    for letter in bench.expect_dead_letters(SERVICE, 3).await {
        assert_eq!(said(&letter, "Reason"), "too_large");
        assert!(said(&letter, "Error").contains("over the limit"), "{}", said(&letter, "Error"));
    }
    service.stop().await;
}

#[tokio::test]
async fn a_broker_restart_does_not_deliver_finished_failures_again_and_looking_does_not_take_letters_away() {
    let mut bench = bench().await;
    // Longer than the test: what is delivered twice is what the broker has forgotten.
    let timing = Timing { ack_wait: LONG * 2, ..short() };
    let service = bench.run(ledger(&World::default()), timing).await;
    for at in 0..20 {
        publish(&bench, "a", &format!("bad {at}"), Act::Reject).await;
    }
    bench.expect_dead_letters(SERVICE, 20).await;
    bench.until_handled(&BANK, SERVICE).await;
    bench.broker.restart().await;
    service.until_ready().await;
    publish(&bench, "a", "after", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    let durable = bench.durable(&BANK, SERVICE).await.unwrap();
    assert_eq!((durable.ack_floor.stream_sequence, durable.delivered.consumer_sequence), (21, 21));

    for _ in 0..2 {
        let stream = bench.jetstream().get_stream("DLQ_LEDGER").await.unwrap();
        let consumer = stream.create_consumer(pull::Config::default()).await.unwrap();
        let mut read = consumer.fetch().max_messages(20).messages().await.unwrap();
        let mut count = 0;
        while let Some(message) = read.next().await {
            message.unwrap().ack().await.unwrap();
            count += 1;
        }
        assert_eq!(count, 20);
    }
    assert_eq!(bench.dead_letters(SERVICE).await.len(), 20);
    service.stop().await;
}

#[tokio::test]
async fn an_event_from_elsewhere_without_an_id_of_ours_is_handled_once_however_often_it_is_delivered() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let body = serde_json::to_vec(&moved("a", "foreign", Act::Add(1))).unwrap();
    let time = ("ce-time", "2026-01-31T12:00:00Z");
    let typed = ("ce-type", "bank.moved.v2");
    // What others number from 1 on is only unique together with who they are.
    for headers in [
        &[typed][..],
        &[typed],
        &[typed, time, ("ce-id", "1"), ("ce-source", "one")],
        &[typed, time, ("ce-id", "1"), ("ce-source", "other")],
        &[typed, time, ("ce-id", "1"), ("ce-source", "one")],
    ] {
        bench.publish_raw("bank.moved.0", headers, body.clone()).await;
    }
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().balance, 4);
    service.stop().await;
    bench.jetstream().get_stream(BANK.name).await.unwrap().delete_consumer(SERVICE).await.unwrap();
    let service = bench.run(ledger(&World::default()), short()).await;
    let of_outcome =
        |outcome| service.metric("millstream_messages_total", &[("event", "bank.moved"), ("outcome", outcome)]);
    until("all to be seen as duplicates", async || of_outcome("duplicate") == Some(5.0)).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().balance, 4);
    service.stop().await;
}
