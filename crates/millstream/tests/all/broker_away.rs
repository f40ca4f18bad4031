//! The broker goes and comes back.

use std::time::Duration;

use millstream::Meta;
use millstream::commands::CommandError;
use millstream::engine::timing::Timing;
use millstream::testing::{Bench, TestService, fresh_meta};

use crate::bank::*;

const MESSAGES: usize = 2000;

/// Small batches, so that there is a middle to be interrupted in.
fn small_batches() -> Timing {
    Timing { batch_inputs: 16, ack_wait: Duration::from_millis(700), ..short() }
}

fn account(at: usize) -> String {
    format!("a{}", at % 5)
}

async fn load(bench: &Bench) {
    let messages: Vec<(Meta, Moved)> =
        (0..MESSAGES).map(|at| (fresh_meta(), moved(&account(at), &format!("m{at}"), Act::Add(1)))).collect();
    bench.publish_all(messages.iter().map(|(meta, moved)| (meta.clone(), moved))).await;
}

async fn handled(service: &TestService) -> usize {
    let mut handled = 0;
    for at in 0..5 {
        handled += service.get::<Account>(&account(at)).await.map_or(0, |account| account.log.len());
    }
    handled
}

async fn until_some_are_handled(service: &TestService, count: usize) {
    until(&format!("{count} to be handled"), async || handled(service).await >= count).await;
}

/// Everything was done once, and told once.
async fn assert_each_once(bench: &Bench, service: &TestService, commands: usize) {
    bench.until_handled(&BANK, SERVICE).await;
    until("all to be handled", async || handled(service).await >= MESSAGES + commands).await;
    let (mut log, mut told) = (vec![], vec![]);
    for at in 0..5 {
        let account = service.get::<Account>(&account(at)).await.unwrap();
        assert_eq!(account.balance, i64::try_from(account.log.len()).unwrap());
        log.extend(account.log);
    }
    let events = bench.expect::<Noted>(MESSAGES + commands).await;
    told.extend(events.into_iter().map(|noted| noted.body.note));
    log.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, log, "every change is told once");
    log.dedup();
    assert_eq!(log.len(), MESSAGES + commands, "each once");
    assert!(bench.dead_letters(SERVICE).await.is_empty());
}

#[tokio::test]
async fn a_broker_stopped_under_load_for_longer_than_ack_wait_costs_nothing_but_time() {
    let mut bench = bench().await;
    load(&bench).await;
    let world = World::default();
    let service = bench.run(ledger(&world), small_batches()).await;
    until_some_are_handled(&service, 100).await;
    bench.broker.stop().await;
    let mut commands = 0;
    let stopped = tokio::time::Instant::now();
    while stopped.elapsed() < 2 * small_batches().ack_wait {
        let command = moved(&account(commands), &format!("c{commands}"), Act::Add(1));
        service.submit_to(&world, command).await.unwrap();
        commands += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.broker.restart().await;
    assert_each_once(&bench, &service, commands).await;
    service.until_ready().await;
    service.stop().await;
}

#[tokio::test]
async fn a_broker_killed_twice_under_load_costs_nothing_but_time() {
    let mut bench = bench().await;
    load(&bench).await;
    let service = bench.run(ledger(&World::default()), small_batches()).await;
    for count in [100, 600] {
        until_some_are_handled(&service, count).await;
        bench.broker.kill();
        bench.broker.restart().await;
    }
    assert_each_once(&bench, &service, 0).await;
    service.until_ready().await;
    service.stop().await;
}

#[tokio::test]
async fn a_broker_that_hangs_under_load_for_longer_than_ack_wait_costs_nothing_but_time() {
    let bench = bench().await;
    load(&bench).await;
    let service = bench.run(ledger(&World::default()), small_batches()).await;
    until_some_are_handled(&service, 100).await;
    bench.broker.pause();
    tokio::time::sleep(2 * small_batches().ack_wait).await;
    bench.broker.resume();
    assert_each_once(&bench, &service, 0).await;
    service.stop().await;
}

#[tokio::test]
async fn a_consumer_deleted_under_load_is_made_again_and_nothing_is_skipped_or_doubled() {
    let bench = bench().await;
    load(&bench).await;
    let service = bench.run(ledger(&World::default()), small_batches()).await;
    for count in [100, 600, 1100] {
        until_some_are_handled(&service, count).await;
        let stream = bench.jetstream().get_stream(BANK.name).await.unwrap();
        // It may be on its way to be made again.
        drop(stream.delete_consumer(SERVICE).await);
    }
    assert_each_once(&bench, &service, 0).await;
    service.stop().await;
}

#[tokio::test]
async fn a_service_started_before_its_broker_and_the_owner_of_its_stream_says_so_and_waits_for_both() {
    let mut bench = Bench::start().await;
    bench.broker.stop().await;
    let world = World::default();
    let service = bench.launch(ledger(&world), short()).await;
    service.until_waits_for("the broker").await;
    let refused = service.submit_to(&world, moved("a", "early", Act::Add(1))).await.unwrap_err();
    assert!(matches!(refused, CommandError::Unavailable(_)), "{refused:?}");
    bench.broker.restart().await;
    service.until_waits_for("stream BANK, whose owner has not started yet").await;
    // It can do all that does not need the stream.
    until("a command to be taken", async || {
        service.submit_to(&world, moved("a", "command", Act::Add(1))).await.is_ok()
    })
    .await;
    bench.declare(&BANK).await;
    publish(&bench, "a", "message", Act::Add(1)).await;
    service.until_ready().await;
    bench.until_handled(&BANK, SERVICE).await;
    assert_eq!(service.get::<Account>("a").await.unwrap().log, ["command", "message"]);
    service.stop().await;
}

#[tokio::test]
async fn without_the_broker_commands_are_taken_up_to_the_bound_and_all_is_published_when_it_is_back() {
    let mut bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), Timing { unpublished_limit: 50, ..short() }).await;
    bench.broker.stop().await;
    service.until_waits_for("the broker").await;
    let submit = async |at: usize| service.submit_to(&world, moved("a", &format!("c{at}"), Act::Add(1))).await;
    let mut accepted = 0;
    let refused = loop {
        match submit(accepted).await {
            Ok(_) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((accepted, refused), (50, CommandError::Unavailable("too many events wait for the broker".into())));
    let waiting = async || service.metric("millstream_journal_unpublished", &[]) == Some(50.0);
    until("the gauge to show what waits", waiting).await;
    // The bound is the service's, not the process's.
    service.stop().await;
    bench.broker.restart().await;
    let service = bench.run(ledger(&world), Timing { unpublished_limit: 50, ..short() }).await;
    assert_eq!(bench.expect::<Noted>(50).await.len(), 50);
    until("commands to be taken again", async || {
        service.submit_to(&world, moved("a", "after", Act::Add(1))).await.is_ok()
    })
    .await;
    assert_eq!(bench.expect::<Noted>(51).await.len(), 51);
    service.stop().await;
}
