//! Events as they come, over all streams.

use std::time::Duration;

use millstream::Timestamp;
use millstream::operator::OperatorError;
use millstream::operator::read::Stored;
use millstream::operator::tail::{Shown, Tail, TailFilter};

use crate::bank::*;
use crate::status::operator;

fn places(found: &[Stored]) -> Vec<(&str, u64)> {
    found.iter().map(|message| (message.stream.as_str(), message.sequence)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_all_streams_come_in_the_order_of_time_and_each_once() {
    let bench = bench().await;
    bench.publish_raw("bank.moved.0", &[], "before").await;
    let before = Timestamp::system() + Duration::from_millis(2);
    until("some time to pass", async || Timestamp::system() > before).await;
    let operator = operator(&bench).await;
    let mut tail = Tail::start(operator, before, TailFilter::default()).await.unwrap();
    assert_eq!(tail.next(100).await.unwrap(), (vec![], 0));

    // The stream of the service is made while it is followed.
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    for at in 0..20 {
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    publish(&bench, "a", "bad", Act::Reject).await;
    bench.expect::<Noted>(20).await;
    bench.expect_dead_letters(SERVICE, 1).await;
    let (found, skipped) = tail.next(100).await.unwrap();
    assert_eq!(skipped, 0);
    let mut sorted = found.clone();
    sorted.sort_by_key(|message| message.at);
    assert_eq!(places(&found), places(&sorted));
    let of = |stream: &str| -> Vec<u64> {
        found.iter().filter(|message| message.stream == stream).map(|message| message.sequence).collect()
    };
    assert_eq!(of("BANK"), (2..=22).collect::<Vec<u64>>());
    assert_eq!(of("LEDGER"), (1..=20).collect::<Vec<u64>>());
    // Dead letters are no events.
    assert_eq!(found.len(), 41);
    assert_eq!(tail.next(100).await.unwrap(), (vec![], 0));
    publish(&bench, "a", "more", Act::Add(1)).await;
    bench.expect::<Noted>(21).await;
    assert_eq!(places(&tail.next(100).await.unwrap().0), [("BANK", 23), ("LEDGER", 21)]);

    let noted = Shown::of(found.iter().find(|message| message.stream == "LEDGER").unwrap());
    assert_eq!(
        (noted.event(), noted.key.as_deref(), noted.source.as_deref()),
        (Some("ledger.noted"), Some("a"), Some(SERVICE))
    );
    assert_eq!((&noted.payload.value()["note"], noted.id.is_some()), (&"m0".into(), true));
    assert!(noted.headers.iter().all(|(name, _)| !name.starts_with("Nats-") || name == "Nats-Msg-Id"), "{noted:?}");
    service.stop().await;
}

#[tokio::test]
async fn of_more_than_is_asked_for_the_newest_are_given_and_the_others_counted() {
    let bench = bench().await;
    bench.declare(&LEDGER).await;
    let operator = operator(&bench).await;
    let mut all = Tail::start(operator.clone(), Timestamp::from_millis(0), TailFilter::default()).await.unwrap();
    let of_b = TailFilter { key: Some("b".into()), ..TailFilter::default() };
    let mut of_b = Tail::start(operator.clone(), Timestamp::from_millis(0), of_b).await.unwrap();
    let backlog: Vec<_> = (0..1300).map(|at| moved(["a", "b"][at % 2], &format!("m{at}"), Act::Add(1))).collect();
    bench.publish_all(backlog.iter().map(|moved| (millstream::testing::fresh_meta(), moved))).await;
    bench.publish_raw("ledger.noted.0", &[], "{}").await;
    // What was trimmed before it was read was not skipped.
    bench.jetstream().get_stream("BANK").await.unwrap().purge().sequence(101).await.unwrap();

    let (found, skipped) = all.next(30).await.unwrap();
    let newest: Vec<(&str, u64)> = (1272..=1300).map(|at| ("BANK", at)).chain([("LEDGER", 1)]).collect();
    assert_eq!((places(&found), skipped), (newest, 1201 - 30));
    assert_eq!(all.next(30).await.unwrap(), (vec![], 0));
    let (found, skipped) = of_b.next(30).await.unwrap();
    assert_eq!((found.len(), found.last().unwrap().sequence, skipped), (30, 1300, 600 - 30));
    assert!(found.iter().all(|message| message.header("ce-subject").as_deref() == Some("b")));
}

#[tokio::test]
async fn what_is_named_is_filtered_by() {
    let bench = bench().await;
    bench.declare(&LEDGER).await;
    let operator = operator(&bench).await;
    let meta = publish(&bench, "a", "one", Act::Add(1)).await;
    publish(&bench, "b", "two", Act::Add(1)).await;
    bench.publish(&meta, &Noted { account: "a".into(), note: "one".into() }).await;
    let found = async |filter: TailFilter| {
        let mut tail = Tail::start(operator.clone(), Timestamp::from_millis(0), filter).await.unwrap();
        let (found, _) = tail.next(10).await.unwrap();
        found.into_iter().map(|message| message.subject).collect::<Vec<_>>().join(" ")
    };
    let (a, b) = (BANK.partition("a"), BANK.partition("b"));
    let (one, two, noted) = (format!("bank.moved.{a}"), format!("bank.moved.{b}"), format!("ledger.noted.{a}"));
    let none = TailFilter::default;
    assert_eq!(found(none()).await, format!("{one} {two} {noted}"));
    assert_eq!(found(TailFilter { key: Some("a".into()), ..none() }).await, format!("{one} {noted}"));
    assert_eq!(found(TailFilter { event: Some("bank.moved".into()), ..none() }).await, format!("{one} {two}"));
    assert_eq!(found(TailFilter { correlation: Some(meta.correlation), ..none() }).await, format!("{one} {noted}"));
    assert_eq!(found(TailFilter { stream: Some("LEDGER".into()), ..none() }).await, noted);
    let missing = TailFilter { stream: Some("NOTHING".into()), ..none() };
    let error = Tail::start(operator.clone(), Timestamp::from_millis(0), missing).await.unwrap_err();
    assert_eq!(error, OperatorError::NotFound("there is no stream NOTHING".into()));
}
