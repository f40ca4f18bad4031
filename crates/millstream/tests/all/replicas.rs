//! Two engines on one SQLite file and one durable.

use futures_util::future::join_all;
use millstream::testing::fresh_meta;

use crate::bank::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_of_one_hot_document_from_two_engines_are_neither_lost_nor_doubled() {
    let bench = bench().await;
    let world = World::default();
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(ledger(&world), short()).await);
    let messages: Vec<_> = (0..300).map(|at| moved("hot", &format!("m{at}"), Act::Add(1))).collect();
    bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
    let commands = (0..200).map(|at| {
        let service = if at % 2 == 0 { &one } else { &two };
        service.submit_to(&world, moved("hot", &format!("c{at}"), Act::Add(1)))
    });
    let accepted = join_all(commands).await;
    assert!(accepted.iter().all(Result::is_ok), "{accepted:?}");
    bench.until_handled(&BANK, SERVICE).await;
    let account = one.get::<Account>("hot").await.unwrap();
    assert_eq!(account.balance, 500);
    let mut log = account.log.clone();
    log.sort();
    log.dedup();
    assert_eq!(log.len(), 500, "each once");
    assert_eq!(bench.expect::<Noted>(500).await.len(), 500);
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_that_read_both_accounts_and_write_one_each_cannot_overdraw_them_together() {
    let bench = bench().await;
    let world = World::default();
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(ledger(&world), short()).await);
    for round in 0..40 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        for id in [&a, &b] {
            one.submit_to(&world, moved(id, "start", Act::Add(50))).await.unwrap();
        }
        let take = |from: &str, other: &str| Take { from: from.into(), other: other.into(), amount: 100 };
        let (first, second) = tokio::join!(one.submit(take(&a, &b)), two.submit(take(&b, &a)));
        assert!(first.is_ok() != second.is_ok(), "round {round}: {first:?}, {second:?}");
        let total = one.get::<Account>(&a).await.unwrap().balance + one.get::<Account>(&b).await.unwrap().balance;
        assert_eq!(total, 0, "round {round}");
    }
    one.stop().await;
    two.stop().await;
}
