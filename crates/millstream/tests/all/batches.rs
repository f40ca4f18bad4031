//! What comes in one batch is handled as if one by one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use millstream::Meta;
use millstream::store::open;
use millstream::testing::{Bench, fresh_meta};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::bank::*;

/// One message of a batch.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message that was handled before the service stopped, again.
    Old,
    /// The message with this number and amount; the second time it is a duplicate.
    Add(usize, i64),
    /// A message that stages something and then fails.
    Fault(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::{Add, Fault, Old};
    let core =
        vec![Old, Add(0, 5), Fault(0, true), Old, Add(1, 7), Add(0, 5), Fault(1, false), Fault(0, true), Add(2, 11)];
    Just(core).prop_shuffle()
}

/// What one message after the other would lead to.
fn model(steps: &[Step]) -> (i64, Vec<String>, usize) {
    let (mut balance, mut log, mut faults, mut seen) = (1, vec!["old".to_owned()], 0, BTreeSet::new());
    for step in steps {
        match *step {
            Step::Old => {}
            Step::Add(number, amount) => {
                if seen.insert((true, number)) {
                    balance += amount;
                    log.push(format!("add {number}"));
                }
            }
            Step::Fault(number, _) => faults += usize::from(seen.insert((false, number))),
        }
    }
    (balance, log, faults)
}

#[test]
#[ignore = "long"]
fn a_batch_with_duplicates_and_faults_on_one_document_ends_as_if_handled_one_by_one() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bench = runtime.block_on(bench());
    let (case, parked) = (AtomicU32::new(0), AtomicU32::new(0));
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let check = |steps: Vec<Step>| {
        let account = format!("case-{}", case.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(check(&bench, &account, &steps, &parked))
    };
    runner.run(&steps(), check).unwrap();
}

async fn check(bench: &Bench, account: &str, steps: &[Step], parked: &AtomicU32) -> Result<(), TestCaseError> {
    let world = World::default();
    let service = bench.run(ledger(&world), short()).await;
    let old = publish(bench, account, "old", Act::Add(1)).await;
    until("the old message to be handled", async || service.get::<Account>(account).await.is_some()).await;
    service.stop().await;

    let metas: Vec<Meta> = (0..6).map(|_| fresh_meta()).collect();
    let messages: Vec<_> = steps
        .iter()
        .map(|step| match *step {
            Step::Old => (old.clone(), moved(account, "old", Act::Add(1))),
            Step::Add(number, amount) => {
                (metas[number].clone(), moved(account, &format!("add {number}"), Act::Add(amount)))
            }
            Step::Fault(number, panics) => {
                let act = if panics { Act::Panic } else { Act::Reject };
                (metas[3 + number].clone(), moved(account, &format!("fault {number}"), act))
            }
        })
        .collect();
    bench.publish_all(messages.iter().map(|(meta, moved)| (meta.clone(), moved))).await;

    let service = bench.run(ledger(&world), short()).await;
    bench.until_handled(&BANK, SERVICE).await;
    let (balance, log, faults) = model(steps);
    let found = service.get::<Account>(account).await.unwrap();
    service.stop().await;
    prop_assert_eq!((found.balance, &found.log), (balance, &log));
    prop_assert_eq!(notes(bench, account).await, log);
    let before = parked.fetch_add(u32::try_from(faults).unwrap(), Ordering::Relaxed) as usize;
    prop_assert_eq!(bench.dead_letters(SERVICE).await.len(), before + faults);
    Ok(())
}

#[tokio::test]
async fn two_hundred_and_fifty_six_committed_messages_that_were_not_acked_cost_at_most_two_commits() {
    let bench = bench().await;
    let world = World::default();
    let messages: Vec<_> = (0..256).map(|at| moved("hot", &at.to_string(), Act::Add(1))).collect();
    bench.publish_all(messages.iter().map(|moved| (fresh_meta(), moved))).await;
    let service = bench.run(ledger(&world), short()).await;
    bench.until_handled(&BANK, SERVICE).await;
    service.stop().await;
    // The broker forgets every ack.
    bench.jetstream().get_stream(BANK.name).await.unwrap().delete_consumer(SERVICE).await.unwrap();

    // Only what is committed raises the version of the instance's row.
    let timing = millstream::engine::timing::Timing { heartbeat: LONG * 10, ..short() };
    let service = bench.run(ledger(&world), timing).await;
    let duplicates =
        || service.metric("millstream_messages_total", &[("event", "bank.moved"), ("outcome", "duplicate")]);
    until("all to be seen as duplicates", async || duplicates() == Some(256.0)).await;
    bench.until_handled(&BANK, SERVICE).await;
    let rows = open(&bench.store.url(SERVICE)).unwrap().instances().await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].version <= 2, "{} commits", rows[0].version);
    assert_eq!(service.get::<Account>("hot").await.unwrap().balance, 256);
    service.stop().await;
}

#[tokio::test]
async fn a_message_of_another_batch_with_the_same_id_is_a_duplicate() {
    let bench = bench().await;
    let service = bench.run(ledger(&World::default()), short()).await;
    let meta = publish(&bench, "a", "first", Act::Add(1)).await;
    bench.until_handled(&BANK, SERVICE).await;
    bench.publish(&meta, &moved("a", "first", Act::Add(1))).await;
    bench.until_handled(&BANK, SERVICE).await;
    let account = service.get::<Account>("a").await.unwrap();
    assert_eq!((account.balance, account.log.len()), (1, 1));
    assert_eq!(notes(&bench, "a").await, ["first"]);
    service.stop().await;
}
