//! Messages that ask to be tried again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use millstream::ids::Timestamp;
use millstream::testing::fresh_meta;

use crate::bank::*;

#[tokio::test]
async fn a_message_that_asks_for_it_comes_back_after_growing_delays_and_is_handled_when_it_can_be() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    publish(&bench, "a", "waits", Act::WhenOpen).await;
    until("five attempts", async || world.attempts().get("waits").is_some_and(|tried| tried.len() >= 5)).await;
    assert!(service.get::<Account>("a").await.is_none(), "nothing of a failed attempt is kept");
    world.open.store(true, Ordering::Release);
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["waits"]);
    assert_eq!(bench.expect::<Noted>(1).await.len(), 1);
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    let tried = world.attempts()["waits"].clone();
    let retry = short().message_retry;
    for (attempt, pair) in (1..).zip(tried.windows(2)) {
        let least = (retry.first * 2_u32.pow(attempt - 1)).min(retry.longest).mul_f64(1.0 - retry.jitter);
        // The broker's clock may be a moment off.
        assert!(pair[1] - pair[0] + Duration::from_millis(5) >= least, "attempt {attempt}: {:?}", pair[1] - pair[0]);
    }
    let retried = service.metric("millstream_messages_total", &[("event", "bank.moved"), ("outcome", "retried")]);
    assert_eq!(retried, Some(tried.len() as f64 - 1.0));
    service.stop().await;
}

#[tokio::test]
async fn after_its_last_attempt_a_message_is_parked_as_exhausted_with_its_history() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let meta = publish(&bench, "a", "waits", Act::WhenOpen).await;
    publish(&bench, "a", "passes it", Act::Add(1)).await;
    let letter = bench.expect_dead_letters(SERVICE, 1).await.remove(0);
    let get = |name: &str| letter.header(&format!("Millstream-{name}")).unwrap();
    assert_eq!((get("Reason").as_str(), get("Attempts").as_str()), ("exhausted", "8"));
    assert_eq!((get("Id"), get("Error").as_str()), (meta.id.to_string(), "the bank is closed"));
    let (first, last): (Timestamp, Timestamp) =
        (get("First-Failure").parse().unwrap(), get("Last-Failure").parse().unwrap());
    // 20, 40, 80, 160, 320 and three times 500 ms, less a fifth.
    assert!(last.since(first) >= Duration::from_millis(1296), "{first} to {last}");
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(world.attempts()["waits"].len(), 8);
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["passes it"]);
    service.stop().await;
}

#[tokio::test]
async fn attempts_are_counted_across_a_restart() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    bench.publish(&fresh_meta(), &moved("a", "waits", Act::WhenOpen)).await;
    until("three attempts", async || world.attempts().get("waits").is_some_and(|tried| tried.len() >= 3)).await;
    service.stop().await;
    let service = bench.run(ledger(&world), short()).await;
    let letter = bench.expect_dead_letters(SERVICE, 1).await.remove(0);
    assert_eq!(letter.header("Millstream-Attempts").unwrap(), "8");
    assert_eq!(world.attempts()["waits"].len(), 8);
    service.stop().await;
}
