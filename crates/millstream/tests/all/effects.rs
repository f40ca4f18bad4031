//! Effects: run after the commit, tried again for as long as it takes, never two at once.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream::Timestamp;
use millstream::engine::timing::{Clock, Timing};
use millstream::operator::Operator;
use millstream::retry::Retry;
use millstream::service::Options;
use millstream::testing::TestService;

use crate::bank::*;

async fn log(service: &TestService, account: &str) -> Vec<String> {
    service.get::<Account>(account).await.map_or(vec![], |account| account.log)
}

async fn until_paid(service: &TestService, account: &str) {
    until(&format!("{account} to be paid"), async || log(service, account).await.contains(&"paid".into())).await;
}

fn effects(service: &TestService, outcome: &str) -> Option<f64> {
    service.metric("millstream_effects_total", &[("kind", "charge"), ("outcome", outcome)])
}

#[tokio::test]
async fn a_slow_effect_does_not_hold_up_the_others() {
    let bench = bench().await;
    let world = World::default();
    world.answer("slow", [Answer::Hang, Answer::Paid]);
    let service = bench.run(ledger(&world), Timing { effect_timeout: LONG, lease: LONG * 2, ..short() }).await;
    publish(&bench, "slow", "charge", Act::Charge).await;
    until("the slow charge to run", async || !world.calls_of("slow").is_empty()).await;
    for at in 0..20 {
        publish(&bench, &format!("fast{at}"), "charge", Act::Charge).await;
    }
    for at in 0..20 {
        until_paid(&service, &format!("fast{at}")).await;
    }
    assert_eq!(log(&service, "slow").await, ["charge"], "the slow one still runs");
    service.stop().await;
}

#[tokio::test]
async fn an_effect_that_hangs_or_panics_is_an_outage_and_is_tried_again_until_it_is_settled_once() {
    let bench = bench().await;
    let world = World::default();
    world.answer("a", [Answer::Down, Answer::Hang, Answer::Panic, Answer::Down, Answer::Paid]);
    let retry = Retry { first: Duration::from_millis(100), longest: LONG, jitter: 0.2, attempts: u32::MAX };
    let timing = Timing { effect_retry: retry, effect_timeout: Duration::from_millis(300), ..short() };
    let service = bench.run(ledger(&world), timing).await;
    publish(&bench, "a", "charge", Act::Charge).await;
    until_paid(&service, "a").await;
    let calls = world.calls_of("a");
    assert_eq!(calls.iter().map(|call| call.attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for (attempt, pair) in (1..).zip(calls.windows(2)) {
        let least = (retry.first * 2_u32.pow(attempt - 1)).mul_f64(0.8);
        assert!(
            pair[1].at - pair[0].at + Duration::from_millis(2) >= least,
            "{attempt}: {:?}",
            pair[1].at - pair[0].at
        );
    }
    assert_eq!(log(&service, "a").await, ["charge", "paid"]);
    assert_eq!(bench.expect::<Ended>(1).await.len(), 1);
    assert_eq!((effects(&service, "settled"), effects(&service, "outage")), (Some(1.0), Some(4.0)));
    assert!(world.outside().overlaps.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn an_outcome_that_cannot_be_settled_is_an_outage_and_the_document_keeps_its_state() {
    let bench = bench().await;
    let world = World::default();
    world.answer("a", [Answer::Absurd, Answer::Absurd, Answer::Paid]);
    let service = bench.run(ledger(&world), short()).await;
    publish(&bench, "a", "charge", Act::Charge).await;
    until("a second attempt", async || world.calls_of("a").len() >= 2).await;
    assert!(!log(&service, "a").await.contains(&"absurd".into()));
    until_paid(&service, "a").await;
    assert_eq!(log(&service, "a").await, ["charge", "paid"]);
    assert_eq!(bench.expect::<Ended>(1).await.len(), 1);
    assert_eq!((effects(&service, "settled"), effects(&service, "outage")), (Some(1.0), Some(2.0)));
    assert!(bench.dead_letters(SERVICE).await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn after_five_outages_on_different_documents_only_probes_go_out_until_one_is_answered() {
    let bench = bench().await;
    let world = World::default();
    let answers = |answer| world.outside().otherwise = Some(answer);
    answers(Answer::Down);
    // Nothing is tried twice within the test, so that five outages are of five documents.
    let retry = Retry { first: LONG * 10, longest: LONG * 10, jitter: 0.0, attempts: u32::MAX };
    let timing = Timing { effect_retry: retry, effect_timeout: LONG * 10, lease: LONG * 10, ..short() };
    let service = bench.run(ledger(&world), timing).await;
    for at in 0..5 {
        publish(&bench, &format!("down{at}"), "charge", Act::Charge).await;
    }
    until("five outages", async || effects(&service, "outage") == Some(5.0)).await;

    answers(Answer::Hold);
    world.outside().most_running = 0;
    let accounts: Vec<String> = (0..60).map(|at| format!("a{at}")).collect();
    for account in &accounts {
        publish(&bench, account, "charge", Act::Charge).await;
    }
    bench.until_handled(&BANK, SERVICE).await;
    let due = async || service.metric("millstream_wakes_due", &[("kind", "charge")]) == Some(59.0);
    until("all but the probe to wait", due).await;
    assert_eq!(world.outside().calls.len(), 6, "one probe");
    answers(Answer::Down);
    until("three more probes", async || world.outside().calls.len() >= 9).await;
    answers(Answer::Hold);
    let probes: Vec<String> = world.outside().calls[5..].iter().map(|call| call.account.clone()).collect();
    let probed: BTreeSet<&String> = probes.iter().collect();
    assert_eq!(probed.len(), probes.len(), "each probe goes to another document");
    assert_eq!(world.outside().most_running, 1, "one at a time");
    // Any answer opens it for all.
    answers(Answer::Paid);
    for account in accounts.iter().filter(|account| !probed.contains(account)) {
        until_paid(&service, account).await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_run_each_charge_once_and_never_two_of_one_document_at_once() {
    let bench = bench().await;
    let world = World::default();
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(ledger(&world), short()).await);
    let accounts: Vec<String> = (0..100).map(|at| format!("a{at}")).collect();
    for account in &accounts {
        publish(&bench, account, "charge", Act::Charge).await;
    }
    for account in &accounts {
        until_paid(&one, account).await;
        assert_eq!(log(&one, account).await, ["charge", "paid"]);
    }
    assert_eq!(bench.expect::<Ended>(100).await.len(), 100);
    {
        let outside = world.outside();
        assert!(outside.overlaps.is_empty(), "{:?}", outside.overlaps);
        assert_eq!(outside.calls.len(), 100);
    }
    one.stop().await;
    two.stop().await;
}

/// By the clock of the one that is ahead each claim of the other has run out at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_whose_clocks_are_a_minute_apart_run_each_charge_once() {
    const CHARGES: usize = 4;
    let bench = bench().await;
    let world = World::default();
    world.outside().otherwise = Some(Answer::Hold);
    let timing = Timing { effect_timeout: LONG, ..short() };
    let one = bench.run(ledger(&world), timing.clone()).await;
    for at in 0..CHARGES {
        publish(&bench, &format!("a{at}"), "charge", Act::Charge).await;
    }
    until("the charges to run", async || world.outside().calls.len() == CHARGES).await;
    let ahead = Clock::new(|| Timestamp::system() + Duration::from_secs(60));
    let two = bench.launch_with(ledger(&world), Options { timing, clock: ahead, ..Options::default() }).await;
    two.until_ready().await;
    let due = || two.metric("millstream_wakes_due", &[("kind", "charge")]);
    until("the one ahead to see them due", async || due() == Some(CHARGES as f64)).await;
    for at in CHARGES..3 * CHARGES {
        publish(&bench, &format!("a{at}"), "charge", Act::Charge).await;
    }
    until("the others to be claimed", async || world.outside().calls.len() >= 2 * CHARGES).await;
    world.outside().otherwise = Some(Answer::Paid);
    for at in 0..3 * CHARGES {
        let account = format!("a{at}");
        until_paid(&one, &account).await;
        assert_eq!((log(&one, &account).await.len(), world.calls_of(&account).len()), (2, 1), "{account}");
    }
    assert_eq!(world.outside().overlaps, Vec::<String>::new());
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn an_outside_that_does_not_answer_is_said_with_since_when_and_how_much_waits_until_it_answers() {
    let bench = bench().await;
    let world = World::default();
    world.outside().otherwise = Some(Answer::Down);
    let service = bench.run(ledger(&world), short()).await;
    let operator = Operator::new(async_nats::connect(bench.broker.url()).await.unwrap());
    let health = async || {
        let instances = operator.status().await.unwrap().instances;
        (instances[0].health["status"].clone(), instances[0].health["unanswered"].clone())
    };
    let silent = || service.metric("millstream_effects_unanswered_seconds", &[("kind", "charge")]);
    assert_eq!(silent(), Some(0.0));
    for at in 0..7 {
        publish(&bench, &format!("a{at}"), "charge", Act::Charge).await;
    }
    until("the gauge to rise", async || silent() > Some(0.5)).await;
    let (status, unanswered) = health().await;
    assert_eq!((status, &unanswered[0]["effect"]), ("DEGRADED".into(), &"charge".into()));
    assert!(unanswered[0]["waiting"].as_u64().is_some_and(|waiting| waiting <= 7), "{unanswered}");
    assert!(service.waits_for().is_empty(), "it does all else");
    world.outside().otherwise = Some(Answer::Paid);
    for at in 0..7 {
        until_paid(&service, &format!("a{at}")).await;
    }
    until("the gauge to fall", async || silent() == Some(0.0)).await;
    assert_eq!(health().await, ("UP".into(), serde_json::json!([])));
    service.stop().await;
}

/// One has the outage, and the other may get the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_one_replica_ends_the_silence_of_all() {
    let bench = bench().await;
    let world = World::default();
    let (one, two) = (bench.run(ledger(&world), short()).await, bench.run(ledger(&world), short()).await);
    let silences = || [&one, &two].map(|of| of.metric("millstream_effects_unanswered_seconds", &[("kind", "charge")]));
    for round in 0..3 {
        world.outside().otherwise = Some(Answer::Down);
        let account = format!("a{round}");
        publish(&bench, &account, "charge", Act::Charge).await;
        until("an outage to be seen", async || silences().iter().any(|of| *of > Some(0.0))).await;
        world.outside().otherwise = Some(Answer::Paid);
        until_paid(&one, &account).await;
        until("both to be well", async || silences() == [Some(0.0); 2]).await;
    }
    one.stop().await;
    two.stop().await;
}
