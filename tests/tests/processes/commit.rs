//! What may only happen after a commit does not happen before it, and what was committed is published whatever comes.

use std::time::{Duration, Instant};

use millstream::testing::eventually;
use serde_json::json;

use super::audit::Place;
use super::child::Child;
use super::ledger::{Errand, How};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acked_answered_published_or_done_outside_before_its_commit() {
    let mut place = Place::new().await;
    let child = Child::start(&Errand { sweeps: false, ..place.errand() });
    child.ready().await;
    let conflicts = async || child.metric("millstream_engine_conflicts_total").await;

    let before = conflicts().await;
    let lock = place.lock();
    place.publish(How::Outside).await;
    // By then the engine has tried to commit the message, and the claim of its effect with it.
    eventually("a commit that another writer is in the way of", PATIENCE, async || conflicts().await > before).await;
    assert_eq!(place.ack_pending().await, 1, "the message is not acked");
    assert_eq!(place.calls(), [0; 0], "nothing is done outside");
    drop(lock);
    place.balances(1, PATIENCE).await;

    let (before, events) = (conflicts().await, place.events().await);
    let lock = place.lock();
    let n = place.number(How::AtOnce);
    place.unanswered(n);
    let answered = tokio::spawn(ask(child.url("/entries"), n));
    eventually("a commit that another writer is in the way of", PATIENCE, async || conflicts().await > before).await;
    assert_eq!(place.events().await, events, "nothing is published");
    let freed = Instant::now();
    drop(lock);
    let (done, at) = tokio::time::timeout(PATIENCE, answered).await.expect("an answer").unwrap();
    assert!(!done || at >= freed, "the command is not answered as done");
    // The books are read in several looks, so the command must have come to its end before the first, also if nobody knows to
    // which: as it has once the next one is done.
    let until = Instant::now() + PATIENCE;
    loop {
        let next = place.number(How::AtOnce);
        place.unanswered(next);
        if tokio::time::timeout(PATIENCE, ask(child.url("/entries"), next)).await.expect("an answer").0 {
            break;
        }
        assert!(Instant::now() < until, "no later command is done");
    }
    place.balances(1, PATIENCE).await;
}

/// Asks for entry `n` until the service comes to it in time. Whether it is known to be done, and when the answer came.
async fn ask(entries: String, n: u64) -> (bool, Instant) {
    loop {
        let asked = reqwest::Client::new().post(&entries).json(&json!({ "n": n })).send().await.unwrap();
        let (done, at) = (asked.status().is_success(), Instant::now());
        if done || !asked.text().await.unwrap().contains("nothing was done") {
            return (done, at);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_broker_has_not_acked_is_published_after_a_kill() {
    let mut place = Place::new().await;
    let mut child = Child::start(&place.errand());
    child.ready().await;
    place.broker.kill();
    let n = place.number(How::AtOnce);
    let asked = reqwest::Client::new().post(child.url("/entries")).json(&json!({ "n": n })).send().await.unwrap();
    assert!(asked.status().is_success(), "while only the broker is away commands go on: {}", asked.status());
    // The watermark is written with each sign of life, and these come after the commit.
    let begun = place.instance_versions();
    let twice = async || place.instance_versions() >= begun + 2;
    eventually("two signs of life", PATIENCE, twice).await;
    child.signal("KILL");
    child.end("a process that was killed").await;
    place.broker.restart().await;
    let next = Child::start(&place.errand());
    next.ready().await;
    place.balances(1, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_asks_to_be_tried_again_is_handled_in_the_end() {
    let mut place = Place::new().await;
    let child = Child::start(&place.errand());
    child.ready().await;
    place.publish_all(&[How::Again, How::AtOnce, How::Again]).await;
    place.balances(1, PATIENCE).await;
}
