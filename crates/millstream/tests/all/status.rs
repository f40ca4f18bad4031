//! What an operator sees of a system agrees with its broker.

use millstream::Timestamp;
use millstream::operator::Operator;
use millstream::operator::dead::Letters;
use millstream::operator::status::SystemStatus;
use millstream::operator::verdict::{Kind, State};

use crate::bank::*;

pub(crate) async fn operator(bench: &millstream::testing::Bench) -> Operator {
    Operator::new(async_nats::connect(bench.broker.url()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_consumers_and_instances_are_as_the_broker_knows_them() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world).release("1.4.0"), short()).await;
    for at in 0..10 {
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    bench.until_handled(&BANK, SERVICE).await;
    bench.expect::<Noted>(10).await;
    let operator = operator(&bench).await;
    let status = async || {
        let status = operator.status().await.unwrap();
        Some(status).filter(|status| status.instances.len() == 1)
    };
    let status: SystemStatus = millstream::testing::eventually("the instance to be found", LONG, status).await;

    let names: Vec<&str> = status.streams.iter().map(|stream| stream.name.as_str()).collect();
    for name in ["BANK", "DLQ_LEDGER", "LEDGER"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let stream_of = |name: &str| status.streams.iter().find(|stream| stream.name == name).unwrap();
    let stream = bench.jetstream().get_stream("LEDGER").await.unwrap();
    let (known, found) = (stream.cached_info(), stream_of("LEDGER"));
    assert_eq!((found.messages, found.bytes), (known.state.messages, known.state.bytes));
    assert_eq!((found.first_sequence, found.last_sequence), (1, 10));
    assert_eq!((found.partitions, found.max_bytes), (Some(8), Some(1 << 30)));
    assert_eq!((found.release.as_deref(), found.subjects.as_slice()), (Some("1.4.0"), &["ledger.>".to_owned()][..]));
    assert_eq!(stream_of("DLQ_LEDGER").dead_letters_of(), Some(SERVICE));
    assert_eq!(stream_of("DLQ_LEDGER").partitions, None);

    let of_bank = |status: &SystemStatus| status.consumers.iter().find(|found| found.stream == "BANK").unwrap().clone();
    let consumer = of_bank(&status);
    let known = bench.durable(&BANK, SERVICE).await.unwrap();
    assert_eq!((consumer.stream.as_str(), consumer.name.as_str()), ("BANK", SERVICE));
    assert_eq!(consumer.events, ["bank.moved"]);
    assert_eq!((consumer.pending, consumer.ack_pending, consumer.ack_floor), (0, 0, known.ack_floor.stream_sequence));
    assert_eq!(consumer.oldest_age_seconds, 0.0);
    let instance = &status.instances[0];
    assert_eq!((instance.service.as_str(), instance.version.as_str()), (SERVICE, "1.4.0"));
    assert!(instance.started.is_some() && !instance.revision.is_empty(), "{instance:?}");
    assert_eq!((&instance.totals["handled"], &instance.health["status"]), (&10.into(), &"UP".into()));
    let seen = async || operator.examine(&mut Letters::default()).await.unwrap().verdict(Timestamp::system());
    let verdict = seen().await;
    assert_eq!(verdict.state, State::Well, "{verdict:?}");

    service.stop().await;
    let sent = publish(&bench, "a", "late", Act::Add(1)).await;
    until("its end to be seen", async || operator.status().await.unwrap().instances.is_empty()).await;
    let status = operator.status().await.unwrap();
    let consumer = of_bank(&status);
    assert_eq!((consumer.pending, consumer.ack_floor), (1, 10));
    assert!(consumer.oldest_age_seconds > 0.0, "{consumer:?}");
    assert!(consumer.oldest_age_seconds <= millstream::Timestamp::system().since(sent.time).as_secs_f64());
    let verdict = seen().await;
    assert_eq!((verdict.state, verdict.causes[0].kind, verdict.causes.len()), (State::Wrong, Kind::ServiceDown, 1));
    assert!(verdict.sentence.starts_with("ledger: no instance answers; 1 event has waited for it for "), "{verdict:?}");
}
