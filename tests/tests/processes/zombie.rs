//! A process that was taken for dead and swept, and goes on: it may not commit as the one that it was.

use std::time::{Duration, Instant};

use millstream::testing::eventually;

use super::audit::Place;
use super::child::Child;
use super::ledger::{Errand, How};

const PATIENCE: Duration = Duration::from_secs(60);

/// Stops at `point` with something in its hands, is swept by another replica, and goes on.
async fn stopped_at(point: &str, nth: u64) {
    let mut place = Place::new().await;
    let plain = place.errand();
    let mut zombie = Child::start(&Errand { stop_when_told: Some((point.into(), nth)), ..plain.clone() });
    zombie.ready().await;
    let first = place.instances();
    assert_eq!(first.len(), 1, "the first has its row");
    zombie.tell_to_stop();
    let stopping = format!("stopping at crash point `{point}`");
    let until = Instant::now() + PATIENCE;
    while !zombie.said().contains(&stopping) {
        assert!(Instant::now() < until, "{point}: it was never reached");
        place.publish_all(&MIXED).await;
    }

    let other = Child::start(&plain);
    other.ready().await;
    eventually("the sweep of the one that was stopped", PATIENCE, async || place.instances().is_disjoint(&first)).await;
    place.publish_all(&MIXED).await;
    // The other has everything, also what was in the hands of the one that was stopped.
    place.balances(1, PATIENCE).await;

    zombie.signal("CONT");
    // What it does next under its old id is refused, and only then does it have a new one.
    let until = Instant::now() + PATIENCE;
    while place.instances().len() < 2 {
        assert!(Instant::now() < until, "{point}: the one that was swept goes on under its old id");
        place.publish_all(&MIXED).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(place.instances().is_disjoint(&first), "the old id does not come back");
    zombie.says("this instance was considered dead and fenced").await;
    place.balances(2, PATIENCE).await;
    // It works, as the one that it is now.
    other.signal("TERM");
    eventually("the other's end", PATIENCE, async || place.instances().len() == 1).await;
    place.publish_all(&MIXED).await;
    place.balances(1, PATIENCE).await;
}

const MIXED: [How; 6] = [How::AtOnce, How::Outside, How::AtOnce, How::Later, How::AtOnce, How::Again];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_may_not_commit_under_its_swept_id() {
    stopped_at("before_commit", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_stopped_between_commit_and_publish_doubles_nothing() {
    stopped_at("before_publish", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_stopped_between_commit_and_ack_doubles_nothing() {
    stopped_at("after_commit", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_stopped_before_it_writes_its_watermark_doubles_nothing() {
    stopped_at("before_watermark", 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_stopped_in_an_effect_settles_it_once() {
    stopped_at("after_effect", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_while_its_owner_is_being_swept_is_published() {
    let mut place = Place::new().await;
    let plain = place.errand();
    // It gives no sign of life, lives all the same, and dies before it has published.
    let silent = Errand { silent: true, sweeps: false, crash: Some(("before_publish".into(), 1)), ..plain.clone() };
    let mut owner = Child::start(&silent);
    owner.ready().await;
    let point = "before_row_deleted";
    let sweeper = Child::start(&Errand { stop: Some((point.into(), 1)), ..plain.clone() });
    sweeper.says(&format!("stopping at crash point `{point}`")).await;
    let n = place.number(How::AtOnce);
    let asked = reqwest::Client::new().post(owner.url("/entries")).json(&serde_json::json!({ "n": n })).send();
    drop(asked.await);
    owner.dies_at("before_publish").await;
    sweeper.signal("CONT");
    place.balances(1, PATIENCE).await;
}
