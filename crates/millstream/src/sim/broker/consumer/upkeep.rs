//! What happens to a consumer from outside: a purge, a start of the server, a reset.

use super::{AFTER_START, Consumer, ConsumerState, Position, TIMER_DELAY, Unacked, signed};
use crate::sim::broker::config::{ApiError, Deliver};
use crate::sim::broker::log::Log;

impl Consumer {
    /// What the server does to a consumer whose stream was purged.
    pub(in crate::sim::broker) fn on_purged(&mut self, log: &Log) {
        let first = log.first_seq();
        self.next.stream = self.next.stream.max(first);
        if self.floor.stream < first {
            self.floor.stream = first - 1;
            while let Some(entry) = self.pending.first_entry().filter(|entry| *entry.key() < first) {
                let (seq, gone) = entry.remove_entry();
                self.floor.consumer = self.floor.consumer.max(gone.consumer_seq);
                self.redelivered.remove(&seq);
                self.write_ack(Position { consumer: gone.consumer_seq, stream: seq });
            }
        }
        if self.pending.is_empty() {
            self.redelivered.clear();
            self.floor = self.next.before();
        }
        // What was queued for redelivery is not any more: it comes when its ack wait is over.
        self.queue.clear();
        self.set_timers();
        // The written floor has passed over what was acked above what was purged, and the one in memory has not. It is no matter
        // to the server which is right: what would go back is not written, nor what belongs to it.
        if self.floor.stream >= self.written_floor.stream {
            self.written_delivered = self.next.before();
            self.written_floor = self.floor;
        }
        self.count(log);
    }

    pub(in crate::sim::broker) fn state(&self) -> ConsumerState {
        ConsumerState {
            delivered: self.written_delivered,
            floor: self.written_floor,
            pending: self.pending.clone(),
            redelivered: self.redelivered.clone(),
        }
    }

    pub(in crate::sim::broker) fn put_back(&mut self, state: &ConsumerState) {
        self.written_delivered = state.delivered;
        self.written_floor = state.floor;
        self.pending.clone_from(&state.pending);
        self.redelivered.clone_from(&state.redelivered);
    }

    /// Goes on from what is written. A stream that ends below that is taken for one that lost its tail.
    pub(in crate::sim::broker) fn restart(&mut self, now: u64, log: &Log) {
        let (first, last) = (log.first_seq(), log.last_seq());
        self.queue.clear();
        self.pin = None;
        self.next = self.written_delivered.after();
        self.floor = self.written_floor;
        if self.written_delivered.stream > last {
            if self.floor.stream > last {
                self.floor = Position { consumer: self.written_delivered.consumer, stream: last };
                self.pending.clear();
                self.redelivered.clear();
            }
            self.pending.split_off(&(last + 1));
            self.redelivered.split_off(&(last + 1));
            let highest = self.pending.iter().next_back();
            let at = |(seq, unacked): (&u64, &Unacked)| Position { consumer: unacked.consumer_seq, stream: *seq };
            self.next = highest.map_or(self.floor, at).after();
        }
        self.written_delivered = self.next.before();
        self.written_floor = self.floor;
        // Times are written in whole seconds.
        self.pending.values_mut().for_each(|unacked| unacked.since = unacked.since.div_euclid(1000) * 1000);
        let gone: Vec<u64> = self.pending.range(..first).map(|(seq, _)| *seq).collect();
        gone.into_iter().for_each(|seq| self.settle(seq));
        self.set_timers();
        let check = signed(now) + AFTER_START.min(self.ack_wait() + TIMER_DELAY);
        self.check_at = Some(check).filter(|_| !self.pending.is_empty());
        self.count(log);
    }

    pub(in crate::sim::broker) fn reset(&mut self, log: &Log, seq: Option<u64>) -> Result<(), ApiError> {
        let start = match (seq, self.config.deliver) {
            (None, _) => self.floor.stream + 1,
            (Some(seq), Deliver::All) => seq.max(1),
            (Some(seq), Deliver::ByStartSequence(least)) if seq >= least => seq.max(1),
            (Some(_), _) => return Err(ApiError::Refused("below start seq, or not allowed")),
        };
        self.pending.clear();
        self.redelivered.clear();
        self.queue.clear();
        self.timers.clear();
        self.next = Position { consumer: 1, stream: start };
        self.floor = Position { consumer: 0, stream: start - 1 };
        (self.written_delivered, self.written_floor) = (self.floor, self.floor);
        self.count(log);
        Ok(())
    }
}
