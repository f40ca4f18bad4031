//! The database file goes and comes back.

use std::time::{Duration, Instant};

use millstream::commands::CommandError;
use millstream::engine::timing::Timing;

use crate::bank::*;

#[tokio::test]
async fn while_the_store_is_away_messages_are_kept_and_commands_refused_and_then_it_goes_on_by_itself() {
    let bench = bench().await;
    let world = World::default();
    // Longer than the test: whatever is delivered again was asked for.
    let service = bench.run(ledger(&world), Timing { ack_wait: LONG * 2, ..Timing::short() }).await;
    publish(&bench, "a", "before", Act::Add(1)).await;
    publish(&bench, "b", "deadline", Act::Deadline(0)).await;
    bench.until_handled(&BANK, SERVICE).await;

    let (path, elsewhere) = (bench.store.path(SERVICE), bench.store.folder().join("elsewhere"));
    std::fs::rename(&path, &elsewhere).unwrap();
    for at in 0..10 {
        let asked = Instant::now();
        let answer = service.submit_to(&world, moved("a", &format!("c{at}"), Act::Add(1))).await;
        assert!(matches!(answer, Err(CommandError::Unavailable(_))), "{answer:?}");
        assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    }
    service.until_waits_for("the store").await;
    for at in 0..300 {
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    let delivered = async || bench.durable(&BANK, SERVICE).await.is_some_and(|info| info.num_ack_pending > 0);
    until("messages to be delivered meanwhile", delivered).await;
    assert!(service.context().get::<Account>("a").await.is_err());

    std::fs::rename(&elsewhere, &path).unwrap();
    service.until_ready().await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().balance, 301);
    let durable = bench.durable(&BANK, SERVICE).await.unwrap();
    assert_eq!(durable.delivered.consumer_sequence, 302, "nothing was handed back or delivered again");
    let retried = service.metric("millstream_messages_total", &[("event", "bank.moved"), ("outcome", "retried")]);
    assert_eq!(retried, Some(0.0));
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    assert!(service.submit_to(&world, moved("a", "after", Act::Add(1))).await.is_ok());
    assert_eq!(bench.expect::<Noted>(303).await.len(), 303);
    service.stop().await;
}

#[tokio::test]
async fn a_service_can_stop_while_its_store_is_away_and_the_next_one_does_the_rest() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), Timing { ack_wait: LONG * 2, ..short() }).await;
    let (path, elsewhere) = (bench.store.path(SERVICE), bench.store.folder().join("elsewhere"));
    std::fs::rename(&path, &elsewhere).unwrap();
    for at in 0..50 {
        publish(&bench, "a", &format!("m{at}"), Act::Add(1)).await;
    }
    service.until_waits_for("the store").await;
    service.stop().await;
    std::fs::rename(&elsewhere, &path).unwrap();
    let service = bench.run(ledger(&world), Timing { ack_wait: LONG * 2, ..short() }).await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().balance, 50);
    assert_eq!(bench.expect::<Noted>(50).await.len(), 50);
    service.stop().await;
}
