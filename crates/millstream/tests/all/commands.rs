//! Commands under an idempotency key are done once.

use futures_util::future::join_all;
use millstream::commands::{Accepted, Caller, CommandError};
use millstream::testing::TestService;

use crate::bank::*;

fn caller(key: &str) -> Caller {
    Caller {
        name: None,
        correlation: "test".into(),
        traceparent: None,
        idempotency_key: Some(key.into()),
        method: "POST".into(),
        route: "/accounts".into(),
    }
}

async fn add(service: &TestService, world: &World, key: &str, amount: i64) -> Result<Accepted<Account>, CommandError> {
    service.context().submit_to(&caller(key), world, moved("a", "add", Act::Add(amount))).await
}

#[tokio::test]
async fn fifty_parallel_repeats_under_one_key_are_one_command_with_one_answer() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let answers = join_all((0..50).map(|_| add(&service, &world, "k", 5))).await;
    let answers: Vec<Accepted<Account>> = answers.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| (answer.id, answer.json()) == (answers[0].id, answers[0].json())));
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    assert_eq!(service.get::<Account>("a").await.unwrap().balance, 5);
    assert_eq!(bench.expect::<Noted>(1).await.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_at_two_instances_are_one_command_with_one_answer() {
    let bench = bench().await;
    let world = World::default();
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(ledger(&world), short()).await);
    for round in 0..10 {
        let key = format!("k{round}");
        let both = (0..20).map(|at| add(if at % 2 == 0 { &one } else { &two }, &world, &key, 1));
        let answers: Vec<Accepted<Account>> = join_all(both).await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| (answer.id, answer.json()) == (answers[0].id, answers[0].json())));
    }
    assert_eq!(one.get::<Account>("a").await.unwrap().balance, 10);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn another_command_under_a_used_key_is_refused_also_at_the_same_moment() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let at_once = join_all((0..10).map(|at| add(&service, &world, "k", at % 2))).await;
    let reused = at_once.iter().filter(|answer| matches!(answer, Err(CommandError::KeyReused))).count();
    let accepted = at_once.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((accepted, reused), (5, 5), "{at_once:?}");
    assert_eq!(add(&service, &world, "k", 7).await.unwrap_err(), CommandError::KeyReused);
    assert!(!add(&service, &world, "other", 7).await.unwrap().repeated);
    // The same key on another route is another key.
    let elsewhere = Caller { route: "/elsewhere".into(), ..caller("k") };
    assert!(service.context().submit_to(&elsewhere, &world, moved("a", "add", Act::Add(9))).await.is_ok());
    service.stop().await;
}

#[tokio::test]
async fn a_key_still_stands_for_its_command_after_a_restart() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let first = add(&service, &world, "k", 5).await.unwrap();
    service.stop().await;
    let service = bench.run(ledger(&world), short()).await;
    let again = add(&service, &world, "k", 5).await.unwrap();
    assert_eq!((again.id, again.json(), again.repeated), (first.id, first.json(), true));
    assert_eq!(add(&service, &world, "k", 6).await.unwrap_err(), CommandError::KeyReused);
    assert_eq!(service.get::<Account>("a").await.unwrap().balance, 5);
    service.stop().await;
}

#[tokio::test]
async fn a_command_that_is_refused_leaves_nothing_behind_and_its_key_free() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let submit = async |act| service.context().submit_to(&caller("k"), &world, moved("a", "x", act)).await;
    let rejected = submit(Act::Reject).await.unwrap_err();
    assert!(matches!(&rejected, CommandError::Rejected(reject) if reject.status == 409), "{rejected:?}");
    let retried = submit(Act::WhenOpen).await.unwrap_err();
    assert_eq!(retried, CommandError::Unavailable("the bank is closed".into()));
    assert_eq!(submit(Act::Panic).await.unwrap_err(), CommandError::Panicked);
    let large = submit(Act::Large(2 << 20)).await.unwrap_err();
    assert!(matches!(&large, CommandError::TooLarge(why) if why.contains("ledger.noted")), "{large:?}");
    assert!(service.get::<Account>("a").await.is_none());
    assert!(submit(Act::Add(1)).await.is_ok());
    assert_eq!(bench.expect::<Noted>(1).await.len(), 1);
    service.stop().await;
}
