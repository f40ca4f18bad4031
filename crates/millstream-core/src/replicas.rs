//! Which replicas have gone without a goodbye: one that stops in order deletes its row, one that dies leaves it behind.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{Id, Timestamp};

/// How long a replica that nobody has replaced is missed.
const MISSED_FOR: Duration = Duration::from_secs(24 * 3600);

/// The replicas of a service as one of them sees them. A replica is missed once its row has stood unchanged for too long, until
/// it writes again, another one has come since, or a day has passed. One that was never seen to live is not.
#[derive(Debug)]
pub struct Replicas {
    dead_after: Duration,
    rows: BTreeMap<Id, Row>,
    /// Those that are missed, and when each was last heard of.
    missed: BTreeMap<Id, Timestamp>,
    /// When replicas have come that are in nobody's place yet.
    came: Vec<Timestamp>,
    /// Whether it has looked before.
    begun: bool,
    /// Whether there was a time, until the next look, in which nobody could look.
    blind: bool,
}

#[derive(Debug)]
struct Row {
    version: u64,
    /// When it was last seen to change; also when it was first seen.
    changed: Timestamp,
    lives: bool,
}

impl Replicas {
    /// Nobody is known yet. A row counts as left behind when it has stood unchanged for so long.
    pub fn new(dead_after: Duration) -> Self {
        Self { dead_after, rows: BTreeMap::new(), missed: BTreeMap::new(), came: vec![], begun: false, blind: false }
    }

    /// The rows, by id and version, as they are now.
    pub fn see(&mut self, rows: impl IntoIterator<Item = (Id, u64)>, now: Timestamp) {
        let first = !std::mem::replace(&mut self.begun, true);
        let blind = std::mem::take(&mut self.blind);
        let mut gone = std::mem::take(&mut self.rows);
        for (id, version) in rows {
            let mut row = match gone.remove(&id) {
                Some(row) if row.version == version => Row { changed: if blind { now } else { row.changed }, ..row },
                known => {
                    if known.is_none() && !first {
                        self.came.push(now);
                    }
                    self.missed.remove(&id);
                    Row { version, changed: now, lives: !first || known.is_some() }
                }
            };
            if row.lives && now.since(row.changed) >= self.dead_after {
                self.missed.insert(id, row.changed);
                // Once: who comes in its place has replaced it for good, while its row still stands.
                row.lives = false;
            }
            self.rows.insert(id, row);
        }
        // Another replica may have cleared one away a little before this one would have.
        let left = |row: &Row| !blind && row.lives && now.since(row.changed) >= self.dead_after / 2;
        for (id, row) in gone.into_iter().filter(|(_, row)| left(row)) {
            self.missed.insert(id, row.changed);
        }
        self.missed.retain(|_, since| {
            let replaced = self.came.iter().position(|came| *came >= *since);
            if let Some(at) = replaced {
                self.came.remove(at);
            }
            replaced.is_none() && now.since(*since) < MISSED_FOR
        });
        self.came.retain(|came| now.since(*came) < self.dead_after * 3);
    }

    /// The rows cannot be read: nothing is known of what happens until they can.
    pub fn lose_sight(&mut self) {
        self.blind = true;
    }

    /// How many are missed, and when the first of them was last heard of.
    pub fn missed(&self) -> Option<(usize, Timestamp)> {
        Some((self.missed.len(), *self.missed.values().min()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn id(number: u64) -> Id {
        Id::random(at(number))
    }

    /// Two replicas that live, seen by the first of them for four seconds.
    fn two() -> (Replicas, Id, Id) {
        let (mut replicas, one, other) = (Replicas::new(Duration::from_secs(10)), id(1), id(2));
        (0..=4).for_each(|second| replicas.see([(one, second), (other, second)], at(second)));
        (replicas, one, other)
    }

    #[test]
    fn one_that_is_killed_is_missed_until_another_comes_and_one_that_stops_in_order_is_not() {
        let (mut replicas, one, other) = two();
        (5..14).for_each(|second| replicas.see([(one, second), (other, 4)], at(second)));
        assert_eq!(replicas.missed(), None, "it may be busy");
        replicas.see([(one, 14), (other, 4)], at(14));
        assert_eq!(replicas.missed(), Some((1, at(4))));
        replicas.see([(one, 15)], at(15));
        assert_eq!(replicas.missed(), Some((1, at(4))), "that its row is cleared away brings it not back");
        replicas.see([(one, 16), (id(3), 0)], at(16));
        assert_eq!(replicas.missed(), None);
        // In order, its row goes while it is fresh.
        replicas.see([(one, 17)], at(17));
        (18..40).for_each(|second| replicas.see([(one, second)], at(second)));
        assert_eq!(replicas.missed(), None);
    }

    #[test]
    fn one_that_another_clears_away_first_or_that_is_back_before_it_is_missed_is_counted_right() {
        let (mut replicas, one, other) = two();
        (5..13).for_each(|second| replicas.see([(one, second), (other, 4)], at(second)));
        replicas.see([(one, 13)], at(13));
        assert_eq!(replicas.missed(), Some((1, at(4))));
        let (mut replicas, one, other) = two();
        let again = id(3);
        (6..30).for_each(|second| replicas.see([(one, second), (other, 4), (again, second)], at(second)));
        assert_eq!(replicas.missed(), None, "started again at once, it is in its own place");
    }

    #[test]
    fn one_that_writes_again_or_was_never_seen_alive_is_not_missed_and_none_for_ever() {
        let (mut replicas, one, other) = two();
        (5..=20).for_each(|second| replicas.see([(one, second), (other, 4)], at(second)));
        assert!(replicas.missed().is_some());
        replicas.see([(one, 21), (other, 5)], at(21));
        assert_eq!(replicas.missed(), None);
        let mut started = Replicas::new(Duration::from_secs(10));
        (0..40).for_each(|second| started.see([(one, second), (other, 5)], at(second)));
        assert_eq!(started.missed(), None, "what is left of the process before this one");
        let (mut replicas, one, other) = two();
        replicas.see([(one, 5), (other, 4)], at(20));
        assert!(replicas.missed().is_some());
        replicas.see([(one, 6)], at(30));
        replicas.see([(one, 7)], at(20 + 24 * 3600));
        assert_eq!(replicas.missed(), None);
        let (mut replicas, one, other) = two();
        replicas.lose_sight();
        replicas.see([(one, 9), (other, 4)], at(60));
        replicas.see([(one, 10), (other, 4)], at(69));
        assert_eq!(replicas.missed(), None, "nothing is known of the time in which nobody looked");
        replicas.see([(one, 11), (other, 4)], at(70));
        assert_eq!(replicas.missed(), Some((1, at(60))));
        replicas.lose_sight();
        replicas.see([(one, 12), (id(3), 1)], at(90));
        assert_eq!(replicas.missed(), None, "another has come meanwhile");
    }
}
