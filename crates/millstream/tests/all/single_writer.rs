//! One replica reads, the others stand by.

use std::time::{Duration, Instant};

use millstream::engine::timing::Timing;
use millstream::testing::{Bench, TestService, fresh_meta};

use crate::bank::*;

fn consumed(service: &TestService) -> f64 {
    service.metric("messaging_client_consumed_messages_total", &[]).unwrap()
}

async fn load(bench: &Bench, count: usize) {
    let messages: Vec<_> = (0..count).map(|at| moved("hot", &format!("m{at}"), Act::Add(1))).collect();
    bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
    bench.until_handled(&BANK, SERVICE).await;
}

/// The one that reads, and the one that stands by.
async fn apart(mut services: [TestService; 2]) -> (TestService, TestService) {
    let standing = async || services.iter().position(TestService::stands_by);
    let standby = millstream::testing::eventually("one to stand by", LONG, standing).await;
    if standby == 0 {
        services.reverse();
    }
    let [active, standby] = services;
    assert!(!active.stands_by(), "one reads");
    (active, standby)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_reads_and_goes_on_doing_so_while_the_other_is_ready_and_stands_by() {
    let bench = bench().await;
    let world = World::default();
    let service = || ledger(&world).single_writer();
    let services = [bench.run(service(), short()).await, bench.run(service(), short()).await];
    load(&bench, 200).await;
    let (active, standby) = apart(services).await;
    assert_eq!((consumed(&active), consumed(&standby)), (200.0, 0.0));
    standby.until_ready().await;
    // With nothing to read it stays what it is, longer than it would without pulling.
    for _ in 0..3 {
        tokio::time::sleep(short().pin_timeout).await;
        load(&bench, 20).await;
    }
    assert_eq!((consumed(&active), consumed(&standby)), (260.0, 0.0));
    // Commands go to either.
    standby.submit_to(&world, moved("hot", "command", Act::Add(1))).await.unwrap();
    assert_eq!(active.get::<Account>("hot").await.unwrap().balance, 261);
    active.stop().await;
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_in_order_hands_over_at_once() {
    let bench = bench().await;
    let world = World::default();
    let service = || ledger(&world).single_writer();
    // Long enough to be told from at once.
    let timing = Timing { pin_timeout: LONG, ack_wait: LONG, ..short() };
    let services = [bench.run(service(), timing.clone()).await, bench.run(service(), timing).await];
    load(&bench, 100).await;
    let (active, standby) = apart(services).await;
    let messages: Vec<_> = (0..2000).map(|at| moved("hot", &format!("n{at}"), Act::Add(1))).collect();
    bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
    let stopping = Instant::now();
    active.stop().await;
    publish(&bench, "hot", "last", Act::Add(1)).await;
    until("the rest to be handled", async || standby.get::<Account>("hot").await.unwrap().balance == 2101).await;
    assert!(stopping.elapsed() < LONG / 2, "{:?}", stopping.elapsed());
    assert!(!standby.stands_by());
    bench.until_handled(&BANK, SERVICE).await;
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_is_taken_away_or_forgotten_by_the_broker_costs_nothing_but_a_moment() {
    let mut bench = bench().await;
    let world = World::default();
    let service = || ledger(&world).single_writer();
    let services = [bench.run(service(), short()).await, bench.run(service(), short()).await];
    load(&bench, 100).await;
    let stream = bench.jetstream().get_stream(BANK.name).await.unwrap();
    for round in 0..5 {
        stream.unpin_consumer(SERVICE, "writer").await.unwrap();
        load(&bench, 100).await;
        tokio::time::sleep(Duration::from_millis(100 * round)).await;
    }
    bench.broker.kill();
    bench.broker.restart().await;
    until("the broker to be back", async || bench.durable(&BANK, SERVICE).await.is_some()).await;
    load(&bench, 100).await;
    assert_eq!(services[0].get::<Account>("hot").await.unwrap().balance, 700);
    let (active, standby) = apart(services).await;
    active.until_ready().await;
    standby.until_ready().await;
    active.stop().await;
    standby.stop().await;
}

#[tokio::test]
async fn a_service_becomes_a_single_writer_on_the_durable_that_it_has_and_back() {
    let bench = bench().await;
    let world = World::default();
    for (round, single) in [false, true, false].into_iter().enumerate() {
        let service = if single { ledger(&world).single_writer() } else { ledger(&world) };
        let service = bench.run(service, short()).await;
        load(&bench, 50).await;
        let balance = service.get::<Account>("hot").await.unwrap().balance;
        assert_eq!(balance, 50 * (i64::try_from(round).unwrap() + 1));
        service.stop().await;
    }
    assert_eq!(bench.durable(&BANK, SERVICE).await.unwrap().delivered.consumer_sequence, 150, "nothing came twice");
}
