//! Documents are watched, whoever changes them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use millstream::engine::timing::Timing;
use millstream::testing::TestService;
use millstream::watch::{Watch, WatchError, Watched};

use crate::bank::*;
use crate::unknown_commits::{Lossy, run};

async fn watch(service: &TestService, account: &str) -> Watch<Account> {
    service.context().watch::<Account>(account).await.unwrap()
}

/// What the watcher is told next.
async fn told(watch: &mut Watch<Account>) -> Option<Watched<Account>> {
    let next = tokio::time::timeout(LONG, watch.next()).await;
    next.expect("the watcher is told something, or that it is over")
}

async fn balance(watch: &mut Watch<Account>) -> i64 {
    told(watch).await.unwrap().document.balance
}

#[tokio::test]
async fn a_watcher_is_told_how_a_document_stands_and_what_this_replica_and_another_make_of_it() {
    let bench = bench().await;
    let world = World::default();
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(ledger(&world), short()).await);
    let mut early = watch(&one, "a").await;
    assert!(!early.exists());
    let mut last = 0;
    for (at, replica) in [&one, &two, &one, &two].into_iter().enumerate() {
        replica.submit_to(&world, moved("a", &format!("{at}"), Act::Add(1))).await.unwrap();
        let Watched { version, document } = told(&mut early).await.unwrap();
        assert!(version > last, "{version} after {last}");
        assert_eq!(document.balance, at as i64 + 1);
        last = version;
    }
    let mut late = watch(&two, "a").await;
    assert!(late.exists());
    assert_eq!(told(&mut late).await.unwrap(), Watched { version: last, document: one.get("a").await.unwrap() });
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_watcher_that_looks_away_is_told_the_latest_state_once() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let (mut slow, mut other) = (watch(&service, "a").await, watch(&service, "a").await);
    for at in 0..20 {
        service.submit_to(&world, moved("a", &format!("{at}"), Act::Add(1))).await.unwrap();
    }
    while balance(&mut other).await < 20 {}
    assert_eq!(balance(&mut slow).await, 20);
    let nothing = tokio::time::timeout(Duration::from_millis(600), slow.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    service.stop().await;
}

#[tokio::test]
async fn all_who_watch_cost_one_query_a_look_and_nobody_none() {
    let bench = bench().await;
    let world = World::default();
    let store = Lossy::new(&bench, true, false);
    let service = run(&bench, &world, &store).await;
    let loads = || store.loads.load(Ordering::Acquire);
    let watches = join_all((0..300).map(|at| {
        let (service, account) = (&service, format!("account-{}", at % 100));
        async move { watch(service, &account).await }
    }));
    let mut watches = watches.await;
    let before = loads();
    until("ten looks", async || loads() >= before + 10).await;
    let began = std::time::Instant::now();
    let before = loads();
    until("ten looks more", async || loads() >= before + 10).await;
    // One every 200 ms, however many watch.
    assert!(began.elapsed() >= Duration::from_millis(1500), "ten looks within {:?}", began.elapsed());

    watches.truncate(1);
    service.submit_to(&world, moved("account-0", "one", Act::Add(1))).await.unwrap();
    assert_eq!(balance(&mut watches[0]).await, 1);
    watches.clear();
    until("no look within a second", async || {
        let before = loads();
        tokio::time::sleep(Duration::from_secs(1)).await;
        loads() == before
    })
    .await;
    // And it begins again.
    let mut again = watch(&service, "account-0").await;
    assert_eq!(balance(&mut again).await, 1);
    service.submit_to(&world, moved("account-0", "two", Act::Add(1))).await.unwrap();
    assert_eq!(balance(&mut again).await, 2);
    service.stop().await;
}

#[tokio::test]
async fn watchers_outlive_an_outage_of_the_store_and_are_told_what_has_changed() {
    let bench = bench().await;
    let world = World::default();
    let (store, other) = (Lossy::new(&bench, true, false), bench.run(ledger(&world), short()).await);
    let service = run(&bench, &world, &store).await;
    let mut watcher = watch(&service, "a").await;
    store.away.store(true, Ordering::Release);
    let before = store.loads.load(Ordering::Acquire);
    other.submit_to(&world, moved("a", "meanwhile", Act::Add(1))).await.unwrap();
    until("looks at a store that is away", async || store.loads.load(Ordering::Acquire) >= before + 3).await;
    let refused = service.context().watch::<Account>("a").await.err();
    assert!(matches!(refused, Some(WatchError::Store(_))), "{refused:?}");
    store.away.store(false, Ordering::Release);
    assert_eq!(balance(&mut watcher).await, 1);
    service.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn beyond_the_limit_a_watch_is_refused_until_another_has_ended() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), Timing { watch_limit: 2, ..short() }).await;
    let one = watch(&service, "a").await;
    let _two = watch(&service, "a").await;
    let refused = service.context().watch::<Account>("b").await.err();
    assert_eq!(refused, Some(WatchError::TooMany(2)));
    drop(one);
    watch(&service, "b").await;
    service.stop().await;
}

#[tokio::test]
async fn watches_end_when_the_service_stops_and_none_begins_after_that() {
    let bench = bench().await;
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let mut watcher = watch(&service, "a").await;
    let context = service.context().clone();
    service.stop().await;
    assert_eq!(told(&mut watcher).await, None);
    assert_eq!(context.watch::<Account>("a").await.err(), Some(WatchError::Stopping));
}
