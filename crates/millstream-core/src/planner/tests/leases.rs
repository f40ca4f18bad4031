//! When a claim of another replica may be taken over.

use std::time::Duration;

use crate::handler::{Key, Wake};
use crate::ids::{Id, Timestamp};
use crate::planner::Leases;

const PATIENCE: Duration = Duration::from_secs(20);

fn key() -> Key {
    Key { collection: "accounts", id: "ada".into() }
}

fn claimed(generation: u64, attempt: u32) -> Wake {
    let at = Timestamp::from_millis(1_800_000_000_000);
    Wake {
        kind: "pay".into(),
        opened: at,
        at,
        attempt,
        lease: Some(at),
        generation,
        cause: Id::derived(at, "test", b"", 0),
        correlation: String::new(),
        traceparent: None,
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn what_nobody_has_claimed_may_be_claimed_at_once() {
    let wake = Wake { lease: None, ..claimed(1, 0) };
    assert!(Leases::default().has_run_out(&key(), &wake, secs(0), PATIENCE));
}

#[test]
fn a_claim_that_stays_as_it_is_runs_out_by_the_time_of_who_looks() {
    let mut leases = Leases::default();
    for elapsed in 5..25 {
        assert!(!leases.has_run_out(&key(), &claimed(1, 1), secs(elapsed), PATIENCE), "after {elapsed} s");
    }
    assert!(leases.has_run_out(&key(), &claimed(1, 1), secs(25), PATIENCE));
}

#[test]
fn each_further_attempt_of_its_owner_is_watched_anew() {
    let mut leases = Leases::default();
    for (attempt, elapsed) in [(1, 0), (2, 19), (3, 38)] {
        assert!(!leases.has_run_out(&key(), &claimed(1, attempt), secs(elapsed), PATIENCE));
    }
    assert!(!leases.has_run_out(&key(), &claimed(2, 3), secs(57), PATIENCE));
    assert!(!leases.has_run_out(&key(), &claimed(2, 3), secs(76), PATIENCE));
    assert!(leases.has_run_out(&key(), &claimed(2, 3), secs(77), PATIENCE));
}

#[test]
fn claims_that_have_come_to_an_end_are_forgotten() {
    let mut leases = Leases::default();
    leases.has_run_out(&key(), &claimed(1, 1), secs(0), PATIENCE);
    leases.forget(secs(39), PATIENCE);
    assert_eq!(leases.watched(), 1);
    leases.forget(secs(40), PATIENCE);
    assert_eq!(leases.watched(), 0);
}
