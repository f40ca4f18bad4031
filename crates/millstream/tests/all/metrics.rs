//! Every series is there from the start, and counts what was committed.

use millstream::telemetry::metrics as table;
use millstream::testing::fresh_meta;

use crate::bank::*;

#[tokio::test]
async fn every_series_is_there_from_the_start_at_zero() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let zero = |name: &str, labels: &[(&str, &str)]| {
        assert_eq!(service.metric(name, labels), Some(0.0), "{name} {labels:?}\n{}", service.metrics());
    };
    for event in ["bank.moved", table::UNKNOWN_EVENT] {
        for outcome in table::OUTCOMES {
            zero(table::MESSAGES.name, &[("event", event), ("outcome", outcome)]);
        }
        for reason in table::REASONS {
            zero(table::DEAD_LETTERED.name, &[("event", event), ("reason", reason)]);
        }
        for cause in table::CAUSES {
            zero(table::REDELIVERIES.name, &[("event", event), ("cause", cause)]);
        }
    }
    zero("millstream_event_age_seconds_count", &[("event", "bank.moved")]);
    zero("messaging_process_duration_seconds_count", &[("messaging_destination_template", "bank.moved.{partition}")]);
    for outcome in table::EFFECT_OUTCOMES {
        zero(table::EFFECTS.name, &[("kind", "charge"), ("outcome", outcome)]);
        zero("millstream_effect_duration_seconds_count", &[("kind", "charge"), ("outcome", outcome)]);
    }
    for kind in ["charge", "deadline"] {
        zero(table::WAKES_DUE.name, &[("kind", kind)]);
        zero(table::WAKE_OVERDUE.name, &[("kind", kind)]);
    }
    for kind in ["version", "duplicate", "transient"] {
        zero(table::CONFLICTS.name, &[("kind", kind)]);
    }
    for source in ["event", "command", "wake"] {
        zero("millstream_engine_batch_size_count", &[("source", source)]);
    }
    zero(table::SENT.name, &[("messaging_destination_name", "LEDGER"), ("error_type", "")]);
    zero(table::CONSUMED.name, &[("messaging_destination_name", "BANK")]);
    for name in [table::UNPUBLISHED.name, table::UNPUBLISHED_AGE.name, NOTED.name] {
        zero(name, &[]);
    }
    for reason in ["overload", "unavailable", "draining"] {
        zero(table::HTTP_SHED.name, &[("reason", reason)]);
    }
    until("both dependencies to be shown as there", async || {
        [table::BROKER_CONNECTED.name, table::STORE_UP.name].iter().all(|up| service.metric(up, &[]) == Some(1.0))
    })
    .await;
    for stage in ["drain", "load", "handle", "commit", "publish", "ack", "wake"] {
        assert!(service.metric("millstream_engine_stage_seconds_count", &[("stage", stage)]).is_some(), "{stage}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handled_again_after_a_conflict_is_counted_once() {
    let bench = bench().await;
    let world = World::default();
    let services = [bench.run(ledger(&world), short()).await, bench.run(ledger(&world), short()).await];
    let sum = |name: &str, labels: &[(&str, &str)]| -> f64 {
        services.iter().map(|service| service.metric(name, labels).unwrap()).sum()
    };
    let mut published = 0;
    while sum(table::CONFLICTS.name, &[]) == 0.0 {
        let messages: Vec<_> = (0..100).map(|_| moved("hot", "m", Act::Add(1))).collect();
        bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
        let commands = (0..20).map(|at| services[at % 2].submit_to(&world, moved("hot", "c", Act::Add(1))));
        let done = futures_util::future::join_all(commands).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        published += 100;
        bench.until_handled(&BANK, SERVICE).await;
        assert!(published < 10_000, "two engines on one document never met");
    }
    let commands = f64::from(published / 5);
    let published = f64::from(published);
    assert_eq!(sum(NOTED.name, &[]), published + commands);
    assert_eq!(sum(table::MESSAGES.name, &[("event", "bank.moved"), ("outcome", "handled")]), published);
    assert_eq!(sum("millstream_event_age_seconds_count", &[("event", "bank.moved")]), published);
    until("all to be published", async || sum(table::SENT.name, &[("error_type", "")]) == published + commands).await;
    for service in services {
        service.stop().await;
    }
}

#[tokio::test]
async fn dead_letters_and_unknown_messages_are_counted_by_reason() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    publish(&bench, "a", "bad", Act::Reject).await;
    publish(&bench, "a", "boom", Act::Panic).await;
    bench.publish_raw("bank.moved.0", &[], "{}").await;
    bench.publish_raw("bank.moved.0", &[("ce-type", "bank.moved.v2")], "{}").await;
    bench.expect_dead_letters(SERVICE, 4).await;
    bench.until_handled(&BANK, SERVICE).await;
    let letters = |event: &str, reason: &str| {
        service.metric(table::DEAD_LETTERED.name, &[("event", event), ("reason", reason)]).unwrap()
    };
    assert_eq!(letters("bank.moved", "rejected"), 1.0);
    assert_eq!(letters("bank.moved", "panic"), 1.0);
    assert_eq!(letters("bank.moved", "schema"), 1.0);
    assert_eq!(letters(table::UNKNOWN_EVENT, "schema"), 1.0);
    assert_eq!(service.metric(table::DEAD_LETTERED.name, &[]), Some(4.0));
    assert_eq!(service.metric(table::MESSAGES.name, &[("outcome", "dead_lettered")]), Some(4.0));
    service.stop().await;
}
