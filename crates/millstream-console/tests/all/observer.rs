//! The observer against a real broker.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use millstream::testing::{Broker, eventually};

use crate::{Console, SOON};

async fn get(url: &str, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("{url}{path}")).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The value of a series, if it is shown.
async fn value(url: &str, series: &str) -> Option<f64> {
    let (_, text) = get(url, "/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

async fn until(url: &str, series: &str, wanted: Option<f64>) {
    eventually(&format!("{series} to be {wanted:?}"), SOON, async || value(url, series).await == wanted).await;
}

async fn stream(js: &jetstream::Context, name: &str, subjects: &str, per_subject: i64) {
    let config = stream::Config {
        name: name.into(),
        subjects: vec![subjects.into()],
        max_messages_per_subject: per_subject,
        max_bytes: 1 << 20,
        allow_direct: true,
        ..Default::default()
    };
    js.create_stream(config).await.unwrap();
}

async fn letter(js: &jetstream::Context, id: u32, kind: &str, reason: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("ce-type", kind);
    headers.insert("Millstream-Reason", reason);
    headers.insert("Millstream-Error", "no%20such%20thing");
    let subject = format!("dlq.shipping.bank-moved.{id}");
    js.publish_with_headers(subject, headers, "{}".into()).await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_dead_letters_and_instances_are_shown_and_disappear_with_what_they_are_of() {
    let broker = Broker::start().await;
    let console = Console::start(&broker.url(), false).await;
    let url = console.url();
    let client = async_nats::connect(broker.url()).await.unwrap();
    let js = jetstream::new(client.clone());
    stream(&js, "BANK", "bank.>", -1).await;
    stream(&js, "DLQ_SHIPPING", "dlq.shipping.>", 1).await;
    let config = pull::Config {
        durable_name: Some("shipping".into()),
        filter_subjects: vec!["bank.moved.*".into(), "bank.closed.*".into()],
        ..Default::default()
    };
    let durable = js.get_stream("BANK").await.unwrap().create_consumer(config).await.unwrap();
    let dead = |event: &str, reason: &str| {
        format!(r#"millstream_dead_letters{{service_name="shipping",event="{event}",reason="{reason}"}}"#)
    };
    let of_durable = |name: &str| format!(r#"{name}{{stream_name="BANK",consumer_name="shipping"}}"#);

    // There from the start, at 0; who does not answer is no instance.
    for reason in millstream::telemetry::metrics::REASONS {
        until(&url, &dead("bank.moved", reason), Some(0.0)).await;
    }
    until(&url, r#"millstream_dead_letter_oldest_age_seconds{service_name="shipping"}"#, Some(0.0)).await;
    until(&url, r#"millstream_service_instances{service_name="shipping",version=""}"#, Some(0.0)).await;
    until(&url, &of_durable("jetstream_consumer_num_pending"), Some(0.0)).await;

    // Lag: what the consumer is not for does not count.
    js.publish("bank.other.0", "{}".into()).await.unwrap().await.unwrap();
    until(&url, r#"jetstream_stream_last_seq{stream_name="BANK"}"#, Some(1.0)).await;
    assert_eq!(value(&url, &of_durable("millstream_consumer_oldest_unacked_age_seconds")).await, Some(0.0));
    js.publish("bank.closed.0", "{}".into()).await.unwrap().await.unwrap();
    until(&url, &of_durable("jetstream_consumer_num_pending"), Some(1.0)).await;
    let age = async || value(&url, &of_durable("millstream_consumer_oldest_unacked_age_seconds")).await.unwrap() > 1.0;
    eventually("the event to be a second old", SOON, age).await;
    let mut messages = durable.messages().await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    until(&url, &of_durable("jetstream_consumer_num_ack_pending"), Some(1.0)).await;
    assert!(age().await, "an event in somebody's hands is not dealt with yet");
    message.ack().await.unwrap();
    until(&url, &of_durable("millstream_consumer_oldest_unacked_age_seconds"), Some(0.0)).await;

    // Dead letters: of an event that is not handled they are of an unknown one.
    for id in 0..3 {
        letter(&js, id, "bank.moved.v1", "schema").await;
    }
    letter(&js, 3, "bank.closed.v1", "panic").await;
    letter(&js, 4, "anything.at-all.v1", "schema").await;
    until(&url, &dead("bank.moved", "schema"), Some(3.0)).await;
    until(&url, &dead("bank.closed", "panic"), Some(1.0)).await;
    until(&url, &dead("unknown", "schema"), Some(1.0)).await;
    let (_, listed) = get(&url, "/dead-letters?service=shipping&event=bank.closed&reason=panic").await;
    assert_eq!(listed.matches("\"subject\"").count(), 1, "{listed}");
    assert!(listed.contains("no such thing") && listed.contains("dlq.shipping.bank-moved.3"), "{listed}");
    js.get_stream("DLQ_SHIPPING").await.unwrap().delete_message(1).await.unwrap();
    until(&url, &dead("bank.moved", "schema"), Some(2.0)).await;
    // A letter that takes the place of another is one letter.
    letter(&js, 3, "bank.closed.v1", "panic").await;
    letter(&js, 5, "bank.closed.v1", "panic").await;
    until(&url, &dead("bank.closed", "panic"), Some(2.0)).await;

    // What becomes of a letter is told by its record, and one that is dealt with is none any more.
    let redrives =
        |outcome: &str| format!(r#"millstream_redrives_total{{service_name="shipping",outcome="{outcome}"}}"#);
    for outcome in millstream_console::metrics::REDRIVE_OUTCOMES {
        assert_eq!(value(&url, &redrives(outcome)).await, Some(0.0), "{outcome}");
    }
    let says = async |id: u32, state: &str, number: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("ce-type", "bank.closed.v1");
        headers.insert("Millstream-Reason", "panic");
        headers.insert("Millstream-Redrives", number);
        if !state.is_empty() {
            headers.insert("Millstream-State", state);
        }
        let subject = format!("dlq.shipping.bank-moved.{id}");
        js.publish_with_headers(subject, headers, "{}".into()).await.unwrap().await.unwrap();
    };
    says(3, "redriving", "1").await;
    until(&url, &redrives("sent"), Some(1.0)).await;
    assert_eq!(value(&url, &dead("bank.closed", "panic")).await, Some(2.0), "it is not dealt with yet");
    says(3, "", "1").await;
    until(&url, &redrives("failed_again"), Some(1.0)).await;
    says(3, "resolved", "2").await;
    says(5, "discarded", "0").await;
    until(&url, &dead("bank.closed", "panic"), Some(0.0)).await;
    for (outcome, count) in [("sent", 2.0), ("handled", 1.0), ("failed_again", 1.0), ("discarded", 1.0)] {
        until(&url, &redrives(outcome), Some(count)).await;
    }

    // Instances answer by the services protocol.
    let mut pings = client.subscribe("$SRV.PING").await.unwrap();
    let answering = client.clone();
    let instance = tokio::spawn(async move {
        while let Some(ping) = pings.next().await {
            let pong = r#"{"name":"shipping","id":"a","version":"1.2.3","type":"io.nats.micro.v1.ping_response"}"#;
            answering.publish(ping.reply.unwrap(), pong.into()).await.unwrap();
        }
    });
    let series = r#"millstream_service_instances{service_name="shipping",version="1.2.3"}"#;
    until(&url, series, Some(1.0)).await;
    instance.abort();
    until(&url, series, None).await;

    // What is gone has no last value.
    js.delete_stream("DLQ_SHIPPING").await.unwrap();
    js.delete_stream("BANK").await.unwrap();
    until(&url, &dead("bank.closed", "panic"), None).await;
    until(&url, &of_durable("jetstream_consumer_num_pending"), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_the_observer_is_unready_alive_and_shows_nothing_of_it_until_it_is_back() {
    let mut broker = Broker::start().await;
    broker.stop().await;
    let console = Console::start(&broker.url(), false).await;
    let url = console.url();
    let ready = async |wanted: u16| {
        eventually(&format!("/readyz to be {wanted}"), SOON, async || get(&url, "/readyz").await.0 == wanted).await;
    };
    ready(503).await;
    assert_eq!((get(&url, "/livez").await.0, get(&url, "/metrics").await.0), (200, 200));
    assert_eq!(value(&url, "millstream_broker_connected").await, Some(0.0));
    for _ in 0..2 {
        broker.restart().await;
        ready(200).await;
        let js = jetstream::new(async_nats::connect(broker.url()).await.unwrap());
        stream(&js, "BANK", "bank.>", -1).await;
        until(&url, r#"jetstream_stream_total_messages{stream_name="BANK"}"#, Some(0.0)).await;
        assert_eq!(value(&url, "millstream_broker_connected").await, Some(1.0));
        broker.stop().await;
        ready(503).await;
        until(&url, r#"jetstream_stream_total_messages{stream_name="BANK"}"#, None).await;
        assert_eq!(get(&url, "/metrics").await.0, 200);
    }
}
