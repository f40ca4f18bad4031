//! Whose claims have run out. Clocks of replicas differ, so that a lease is over by the clock of whoever looks says little: a claim
//! may be taken over once it has also been seen unchanged, with its lease over, for as long as an attempt can take.

use std::time::Duration;

use crate::handler::{Key, Wake};
use crate::hash::HashMap;

/// The claims of others whose leases look as if they were over, and since when.
#[derive(Debug, Default)]
pub struct Leases {
    seen: HashMap<Key, Seen>,
}

#[derive(Debug)]
struct Seen {
    generation: u64,
    attempt: u32,
    /// By a clock that never steps.
    since: Duration,
    looked: Duration,
}

impl Leases {
    /// Whether a due wake may be claimed. `elapsed` is the time of a clock that never steps, `patience` how long a claim has to be
    /// seen unchanged.
    pub fn has_run_out(&mut self, key: &Key, wake: &Wake, elapsed: Duration, patience: Duration) -> bool {
        if wake.lease.is_none() {
            return true;
        }
        let (generation, attempt) = (wake.generation, wake.attempt);
        let fresh = || Seen { generation, attempt, since: elapsed, looked: elapsed };
        let seen = self.seen.entry(key.clone()).or_insert_with(fresh);
        if (seen.generation, seen.attempt) != (generation, attempt) {
            *seen = fresh();
        }
        seen.looked = elapsed;
        elapsed.saturating_sub(seen.since) >= patience
    }

    /// Forgets what was not looked at for twice the patience: it has come to an end.
    pub fn forget(&mut self, elapsed: Duration, patience: Duration) {
        self.seen.retain(|_, seen| elapsed.saturating_sub(seen.looked) < patience * 2);
    }

    /// How many claims are watched.
    pub fn watched(&self) -> usize {
        self.seen.len()
    }
}
