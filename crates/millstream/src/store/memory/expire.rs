//! Old entries go in small chunks, and a bounded number is looked at by each call, which goes on where the one before stopped:
//! the same walk as over a file, so that a simulation sees the same entries go at the same call.

use super::Memory;
use crate::ids::{Id, Timestamp};
use crate::store::{Entry, Expiry, Floor, Settled, State};

/// How many entries a call looks at.
const LOOKED_AT: usize = 4_096;

impl Memory {
    /// Deletes old journal entries, at most `limit` of them, and expired idempotency keys; see [`Expiry`]. Raises each stream's
    /// mark to the highest sequence that it deletes. Returns how many entries went.
    pub fn expire(&mut self, expiry: &Expiry) -> usize {
        let (first, last) = (Id::default(), first_id_of(expiry.before));
        let mut walk = Walk { memory: self, expiry, gone: vec![], looked_at: 0 };
        let mut next = walk.between(walk.memory.expired_to.unwrap_or(first), last);
        if let (None, Some(from)) = (next, walk.memory.expired_to) {
            next = walk.between(first, from.min(last));
        }
        let gone = walk.gone;
        self.expired_to = next;
        for id in &gone {
            self.forget(*id, expiry);
        }
        let expired = self.keys.indexed((Timestamp::default(), [0; 32])).take_while(|(end, _)| *end < expiry.now);
        let expired: Vec<_> = expired.take(expiry.limit).map(|(_, hash)| *hash).collect();
        for hash in expired {
            self.keys.put(hash, None);
        }
        gone.len()
    }

    /// Deletes an entry, and raises the mark of its stream to its sequence.
    fn forget(&mut self, id: Id, expiry: &Expiry) {
        if let Some(entry) = self.journal.put(id, None)
            && let Some(mark) = self.settled.get_mut(&entry.stream).filter(|_| !entry.stream.is_empty())
            && let Some(floor) = floor(expiry, mark)
        {
            mark.through = mark.through.max(entry.seq);
            mark.seen = mark.seen.map(|seen| seen.max(entry.seq));
            mark.until = mark.until.max(Some(floor.until));
        }
    }
}

/// What holds for the stream of a mark.
fn floor<'a>(expiry: &'a Expiry, mark: &Settled) -> Option<&'a Floor> {
    expiry.floors.iter().rev().find(|floor| (&floor.stream, &floor.created) == (&mark.stream, &mark.created))
}

/// The lowest id of a time.
fn first_id_of(at: Timestamp) -> Id {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&at.millis().to_be_bytes()[2..]);
    Id::from(uuid::Uuid::from_bytes(bytes))
}

struct Walk<'a> {
    memory: &'a Memory,
    expiry: &'a Expiry,
    gone: Vec<Id>,
    looked_at: usize,
}

impl Walk<'_> {
    /// Collects what may go of the ids from `from` to before `to`; says where it stopped if it did not get to the end.
    fn between(&mut self, from: Id, to: Id) -> Option<Id> {
        if from >= to {
            return None;
        }
        for entry in self.memory.journal.range(&from..&to) {
            if self.gone.len() >= self.expiry.limit || self.looked_at >= LOOKED_AT {
                return Some(entry.id);
            }
            self.looked_at += 1;
            let mark = self.memory.settled.get(&entry.stream);
            let floor = mark.and_then(|mark| floor(self.expiry, mark));
            let passed = |floor: &Floor| entry.seq <= floor.through && entry.at < floor.before;
            let acked = entry.stream.is_empty() || floor.is_some_and(passed);
            if acked && self.is_over(entry) {
                self.gone.push(entry.id);
            }
        }
        None
    }

    /// Whether an entry is done, old and published. Without a row of its instance it is published.
    fn is_over(&self, entry: &Entry) -> bool {
        let row = self.memory.instances.get(&entry.instance);
        entry.state == State::Done
            && entry.at < self.expiry.before
            && row.is_none_or(|row| row.published_through >= entry.batch)
    }
}
