//! Suspects: deliveries that may have killed a process before. A start is committed before a suspect is handled, the first time
//! with its batch, after that alone; a message whose starts alone come to no end several times is given up.

use crate::hash::HashSet;
use crate::ids::{Id, Timestamp};
use crate::planner::journal::new_entry;
use crate::planner::{Delivery, Facts, Input, Planner, Write};
use crate::record::{Entry, State};

/// What has to be done about the suspects of a batch before it is decided on.
#[derive(Debug, Default)]
pub struct Suspects {
    /// Where in the batch inputs stand that go into batches of their own, in order.
    pub alone: Vec<usize>,
    /// Starts to commit for the suspects among the others; add them to the [`Facts`] then.
    pub starts: Vec<Entry>,
    /// Messages that have killed their process often enough.
    pub doomed: HashSet<Id>,
}

impl Planner {
    /// Finds the suspects of a batch. `begun` are those whose starts were committed for this very handling.
    pub fn suspects(&self, batch: &[&Input], facts: &Facts, begun: &HashSet<Id>, now: Timestamp) -> Suspects {
        let mut suspects = Suspects::default();
        let mut started = HashSet::default();
        for (index, input) in batch.iter().enumerate() {
            let Input::Message(delivery) = input else { continue };
            let entry = facts.entry_for(delivery);
            let entry = entry.as_deref();
            if begun.contains(&delivery.id) || !is_suspect(delivery, entry) {
                continue;
            }
            if batch.len() > 1 && entry.is_some_and(|entry| entry.started > 0) {
                suspects.alone.push(index);
            } else if self.has_crashed_too_often(entry) {
                suspects.doomed.insert(delivery.id);
            } else if started.insert(delivery.id) {
                suspects.starts.push(match entry {
                    None => Entry { started: 1, ..new_entry(delivery.id, Some(delivery), State::Open, now) },
                    Some(entry) => {
                        // What it has emitted is out, or on its way, with the commit that emitted it.
                        let emitted = bytes::Bytes::new();
                        let (version, started) = (entry.version + 1, entry.started + 1);
                        Entry { version, started, emitted, at: now, ..entry.clone() }
                    }
                });
            }
        }
        suspects
    }

    /// The first start was with its batch, which may have died of another message: it does not count.
    fn has_crashed_too_often(&self, entry: Option<&Entry>) -> bool {
        entry.is_some_and(|entry| entry.started > self.timing.crash_starts)
    }
}

fn is_suspect(delivery: &Delivery, entry: Option<&Entry>) -> bool {
    delivery.work.is_ok() && delivery.is_to_be_handled(entry) && (entry.is_some() || delivery.was_given_out())
}

impl Suspects {
    /// The commit of the starts.
    pub fn write(&self, now: Timestamp) -> Write {
        Write { now, entries: self.starts.clone(), ..Write::default() }
    }
}
