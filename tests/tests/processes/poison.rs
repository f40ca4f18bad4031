//! Messages that kill the process that handles them.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use super::audit::Place;
use super::child::Child;
use super::ledger::How;

/// The promise on test times.
const A_MINUTE: Duration = Duration::from_secs(60);

/// A message that is deadly among 300 that are not, and somebody who starts the process again.
async fn among_good_ones(deadly: How) {
    let mut place = Place::new().await;
    let errand = place.errand();
    let mut child = Child::start(&errand);
    child.ready().await;
    let mut all = vec![How::AtOnce; 301];
    all[150] = deadly;
    place.publish_all(&all).await;
    let (begin, mut deaths) = (Instant::now(), 0);
    place
        .balances_while(1, A_MINUTE, async || {
            if let Some(status) = child.ended() {
                assert_eq!(status.signal(), Some(6), "{status}: {}", child.said());
                deaths += 1;
                child = Child::start(&errand);
            }
        })
        .await;
    println!("{deadly:?}: {deaths} deaths, {:?}", begin.elapsed());
    assert!(deaths >= 3, "it is parked only after it has killed the process alone, several times, not after {deaths}");
    assert!(deaths <= 8, "{deaths} deaths are too many for one message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_the_process_is_parked_once_and_the_good_ones_around_it_are_handled_once() {
    among_good_ones(How::Deadly).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_first_asks_to_be_tried_again_and_then_kills_the_process_is_parked_once() {
    among_good_ones(How::AgainThenDeadly).await;
}
