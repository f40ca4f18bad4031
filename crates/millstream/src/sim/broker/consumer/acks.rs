//! Acks, and how the floors move over them.

use super::{AFTER_NAK, Ack, AckToken, Consumer, Position, signed};

impl Consumer {
    /// Says whether the server would confirm it.
    pub(in crate::sim::broker) fn ack(&mut self, now: u64, token: &AckToken, ack: Ack) -> bool {
        let seq = token.stream_seq;
        match ack {
            // What was not delivered yet cannot be acked, and nobody is told.
            Ack::Ack | Ack::Term if seq >= self.next.stream => return false,
            // Of which delivery the ack is does not matter.
            Ack::Ack | Ack::Term => self.settle(seq),
            Ack::Nak(delay) => {
                // Unlike an ack, a nak whose delivery never was is ignored.
                let of_a_delivery = (self.floor.consumer + 1..=self.next.consumer).contains(&token.consumer_seq);
                if of_a_delivery && self.pending.contains_key(&seq) {
                    self.nak(now, seq, delay);
                }
            }
            Ack::InProgress => self.wait(seq, signed(now)),
        }
        true
    }

    /// The last nak counts: one without a delay overrides one with, and the other way around.
    fn nak(&mut self, now: u64, seq: u64, delay: Option<u64>) {
        match delay {
            Some(delay_ms) => {
                self.unqueue(seq);
                self.wait(seq, signed(now + delay_ms) - self.ack_wait());
                self.check_at = self.check_at.map(|_| signed(now) + AFTER_NAK);
            }
            None if self.is_queued(seq) => {}
            None => {
                self.stop_timer(seq);
                self.queue.push_back(seq);
            }
        }
    }

    /// Lets the wait of a delivery begin at a time. What is queued for redelivery stays so: to say that it is worked on comes too
    /// late then.
    fn wait(&mut self, seq: u64, since: i64) {
        let queued = self.is_queued(seq);
        self.stop_timer(seq);
        let due = since + self.ack_wait();
        if let Some(unacked) = self.pending.get_mut(&seq) {
            unacked.since = since;
            if !queued {
                self.timers.insert((due, seq));
            }
        }
    }

    /// What is pending either waits or is queued.
    fn is_queued(&self, seq: u64) -> bool {
        let timer = self.pending.get(&seq).map(|unacked| (unacked.since + self.ack_wait(), seq));
        timer.is_some_and(|timer| !self.timers.contains(&timer))
    }

    /// Takes a message out of the queue, and lets it wait.
    fn unqueue(&mut self, seq: u64) {
        if self.is_queued(seq)
            && let Some(unacked) = self.pending.get(&seq)
        {
            self.queue.retain(|queued| *queued != seq);
            self.timers.insert((unacked.since + self.ack_wait(), seq));
        }
    }

    fn stop_timer(&mut self, seq: u64) {
        if let Some(unacked) = self.pending.get(&seq) {
            self.timers.remove(&(unacked.since + self.ack_wait(), seq));
        }
    }

    /// Takes a message out of what is pending, and moves the floors.
    pub(super) fn settle(&mut self, seq: u64) {
        self.unqueue(seq);
        self.stop_timer(seq);
        self.redelivered.remove(&seq);
        let Some(acked) = self.pending.remove(&seq) else { return };
        let at = Position { consumer: acked.consumer_seq, stream: seq };
        self.floor = self.floor_after(self.floor, at, self.next.before());
        self.write_ack(at);
    }

    pub(super) fn write_ack(&mut self, acked: Position) {
        if acked.consumer > self.written_floor.consumer {
            self.written_floor = self.floor_after(self.written_floor, acked, self.written_delivered);
        }
    }

    /// A floor moves over what is acked without a gap; with nothing pending it is at the last delivery.
    fn floor_after(&self, floor: Position, acked: Position, delivered: Position) -> Position {
        if self.pending.is_empty() {
            return delivered;
        }
        if acked.consumer != floor.consumer + 1 {
            return floor;
        }
        match self.pending.range(acked.stream + 1..).next() {
            Some((seq, next)) => Position { consumer: next.consumer_seq - 1, stream: seq - 1 },
            None => acked,
        }
    }
}
