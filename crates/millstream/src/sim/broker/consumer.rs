//! A consumer: what it has delivered, what of it is unacked, and what is to be delivered again.

mod acks;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::config::{ConsumerConfig, Deliver, PullError};
use super::delivery::{Ack, AckToken, ConsumerInfo, Delivery, Position, Pull};
use super::log::{Log, Message};

/// A copy of what a consumer has written.
#[derive(Clone, Debug)]
pub struct ConsumerState {
    delivered: Position,
    floor: Position,
    pending: BTreeMap<u64, Unacked>,
    redelivered: BTreeMap<u64, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Unacked {
    /// The number of the first delivery; a redelivery does not change it.
    consumer_seq: u64,
    /// When the ack wait began, in milliseconds. A nak with a delay sets it so that the wait ends with the delay.
    since: i64,
}

#[derive(Clone, Debug)]
struct Pin {
    id: String,
    until: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) config: ConsumerConfig,
    created: u64,
    /// What is delivered next.
    next: Position,
    /// The floor in memory, which passes over what the filters do not let through; the written one does not.
    floor: Position,
    written_delivered: Position,
    written_floor: Position,
    pending: BTreeMap<u64, Unacked>,
    /// How often each was redelivered.
    redelivered: BTreeMap<u64, u64>,
    /// What is to be delivered again now, in this order.
    queue: VecDeque<u64>,
    /// When the ack wait ends of each that is pending and not queued.
    timers: BTreeSet<(i64, u64)>,
    /// When the server looks next for what is due.
    check_at: Option<i64>,
    num_pending: u64,
    pin: Option<Pin>,
    pins: u64,
}

/// The server's timer runs this much longer than the ack wait, in milliseconds, and takes together what is due by then.
const TIMER_DELAY: i64 = 1;
/// The timer runs this long after a nak with a delay, in milliseconds: a shorter delay takes as long.
const AFTER_NAK: i64 = 10;
/// And this long after the ack wait was changed.
const AFTER_CHANGE: i64 = 100;
/// And after a start this long, or up to a second longer, if the ack wait is not shorter.
const AFTER_START: i64 = 500;

impl Consumer {
    pub(super) fn new(config: ConsumerConfig, created: u64, log: &Log) -> Self {
        let (first, last) = (log.first_seq(), log.last_seq());
        let start = match config.deliver {
            Deliver::All | Deliver::New if first == 0 => 1,
            Deliver::All => first.min(last + 1),
            Deliver::New => last + 1,
            // A sequence that is yet to come is waited for.
            Deliver::ByStartSequence(seq) => seq.max(first).max(1),
        };
        let floor = Position { consumer: 0, stream: start - 1 };
        let mut consumer = Self {
            config,
            created,
            next: Position { consumer: 1, stream: start },
            floor,
            written_delivered: floor,
            written_floor: floor,
            pending: BTreeMap::new(),
            redelivered: BTreeMap::new(),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            check_at: None,
            num_pending: 0,
            pin: None,
            pins: 0,
        };
        consumer.count(log);
        consumer
    }

    pub(super) fn reconfigure(&mut self, now: u64, config: ConsumerConfig, log: &Log) {
        if config.ack_wait_ms != self.config.ack_wait_ms {
            self.check_at = self.check_at.map(|_| signed(now) + AFTER_CHANGE);
        }
        let filters = config.filter_subjects != self.config.filter_subjects;
        self.config = config;
        if filters {
            self.count(log);
        }
        if self.config.pinned.is_none() {
            self.pin = None;
        }
        self.set_timers();
    }

    pub(super) fn info(&mut self, log: &Log) -> ConsumerInfo {
        // Looking corrects the count: of one that begins at a sequence to come also what lies before that is counted.
        self.num_pending = match log.last_seq().checked_sub(self.next.stream) {
            None => 0,
            Some(left) => self.num_pending.min(log.messages()).min(left + 1),
        };
        ConsumerInfo {
            config: self.config.clone(),
            created: self.created,
            delivered: self.written_delivered,
            ack_floor: self.written_floor,
            num_pending: self.num_pending,
            num_ack_pending: self.pending.len(),
            num_redelivered: self.redelivered.len(),
            pin: self.pin.as_ref().map(|pin| pin.id.clone()),
        }
    }

    pub(super) fn next_change(&self) -> Option<u64> {
        let due = self.timers.first().map(|(due, _)| self.check_at.map_or(*due, |check| check.max(*due)));
        let due = due.and_then(|due| u64::try_from(due).ok());
        due.into_iter().chain(self.pin.as_ref().map(|pin| pin.until)).min()
    }

    /// Queues what is due, and lets the pin run out.
    pub(super) fn advance(&mut self, now: u64) {
        self.pin.take_if(|pin| pin.until <= now);
        let now = signed(now);
        while let Some(check) = self.check_at.filter(|check| *check <= now) {
            self.check(check);
        }
    }

    /// What the server's timer does: what is due is queued, by sequence, and its waits begin anew, as far apart as they were.
    fn check(&mut self, at: i64) {
        let mut expired = vec![];
        while let Some(timer) = self.timers.first().copied().filter(|(due, _)| *due <= at) {
            self.timers.remove(&timer);
            expired.push(timer.1);
        }
        expired.sort_unstable();
        let later = expired.first().and_then(|seq| self.pending.get(seq)).map_or(0, |unacked| at - unacked.since);
        for seq in expired {
            if let Some(unacked) = self.pending.get_mut(&seq) {
                unacked.since += later;
            }
            self.queue.push_back(seq);
        }
        let ack_wait = self.ack_wait();
        let longest = at + ack_wait + TIMER_DELAY;
        // Also the wait of what is queued goes on, and the timer goes by it.
        let queued = self.queue.iter().filter_map(|seq| self.pending.get(seq)).map(|unacked| unacked.since + ack_wait);
        let dues = self.timers.first().map(|(due, _)| *due).into_iter().chain(queued.filter(|due| *due > at));
        let next = dues.fold(longest, i64::min);
        self.check_at = Some(next).filter(|_| !self.pending.is_empty());
    }

    pub(super) fn unpin(&mut self) {
        self.pin = None;
    }

    pub(super) fn fetch(&mut self, now: u64, log: &Log, pull: Pull<'_>) -> Result<Vec<Delivery>, PullError> {
        let timeout_ms = self.config.pinned.as_ref().map(|pinned| pinned.timeout_ms);
        if let (Some(timeout_ms), Some(pin), Some(mine)) = (timeout_ms, &mut self.pin, pull.pin) {
            if pin.id != mine {
                return Err(PullError::PinMismatch);
            }
            // Only a pull with the pin prolongs it, not a delivery.
            pin.until = now + timeout_ms;
        }
        let mut mine = pull.pin.map(ToOwned::to_owned);
        let mut deliveries = vec![];
        while deliveries.len() < pull.batch {
            let Some((message, times)) = self.take(log) else { break };
            if let Some(timeout_ms) = timeout_ms {
                match (&self.pin, &mine) {
                    // Nobody is pinned before there is something to deliver.
                    (None, None) => {
                        self.pins += 1;
                        let id = format!("{}-{}-{now}", self.created, self.pins);
                        mine = Some(id.clone());
                        self.pin = Some(Pin { id, until: now + timeout_ms });
                    }
                    // Who was pinned and lost it without another having it hears of that only now.
                    (None, Some(_)) => {
                        self.give_back(message.seq, times);
                        return Err(PullError::PinMismatch);
                    }
                    (Some(_), None) => {
                        self.give_back(message.seq, times);
                        break;
                    }
                    (Some(_), Some(_)) => {}
                }
            }
            deliveries.push(self.deliver(now, log, message, times));
        }
        Ok(deliveries)
    }

    /// The next message, and how often it will have been delivered.
    fn take(&mut self, log: &Log) -> Option<(Arc<Message>, u64)> {
        // What is delivered again counts as pending already, so it goes out however much is.
        while let Some(seq) = self.queue.pop_front() {
            let Some(message) = log.get(seq) else {
                self.settle(seq);
                continue;
            };
            let times = self.redelivered.entry(seq).or_default();
            *times += 1;
            return Some((message.clone(), *times + 1));
        }
        if self.config.max_ack_pending > 0 && self.pending.len() >= self.config.max_ack_pending {
            return None;
        }
        let found = log.next(self.next.stream, |subject| self.config.wants(subject)).cloned();
        let at = found.as_ref().map_or(log.last_seq(), |message| message.seq);
        self.next.stream = self.next.stream.max(at + 1);
        if found.is_some() {
            self.num_pending = self.num_pending.saturating_sub(1);
        } else if self.next.stream > log.last_seq() {
            self.num_pending = 0;
        }
        found.map(|message| (message, 1))
    }

    /// What was taken and is not delivered: a redelivery goes to the end of the queue.
    fn give_back(&mut self, seq: u64, times: u64) {
        if times == 1 {
            self.next.stream = seq;
            self.num_pending += 1;
            return;
        }
        if times == 2 {
            self.redelivered.remove(&seq);
        } else {
            self.redelivered.insert(seq, times - 2);
        }
        self.queue.push_back(seq);
    }

    fn deliver(&mut self, now: u64, log: &Log, message: Arc<Message>, delivered: u64) -> Delivery {
        let (seq, consumer_seq) = (message.seq, self.next.consumer);
        self.next.consumer += 1;
        self.written_delivered.consumer = self.written_delivered.consumer.max(consumer_seq);
        self.written_delivered.stream = self.written_delivered.stream.max(seq);
        let since = signed(now);
        self.pending.entry(seq).or_insert(Unacked { consumer_seq, since }).since = since;
        self.timers.insert((since + self.ack_wait(), seq));
        let check = since + self.ack_wait() + TIMER_DELAY;
        self.check_at = Some(self.check_at.map_or(check, |at| at.min(check)));
        let (stream, durable) = (log.config.name.clone(), self.config.durable.clone());
        Delivery {
            message,
            token: AckToken { stream, durable, stream_seq: seq, consumer_seq, delivered },
            delivered,
            pending: self.num_pending,
            pin: self.pin.as_ref().map(|pin| pin.id.clone()),
        }
    }

    pub(super) fn on_stored(&mut self, subject: &str) {
        if self.config.wants(subject) {
            self.num_pending += 1;
        }
    }

    pub(super) fn on_removed(&mut self, seq: u64, subject: &str) {
        if seq >= self.next.stream && self.config.wants(subject) {
            self.num_pending = self.num_pending.saturating_sub(1);
        }
        self.settle(seq);
    }

    fn count(&mut self, log: &Log) {
        let pending = log.from(self.next.stream).filter(|message| self.config.wants(&message.subject));
        self.num_pending = pending.count() as u64;
    }

    fn set_timers(&mut self) {
        let ack_wait = self.ack_wait();
        let queued: BTreeSet<u64> = self.queue.iter().copied().collect();
        let waiting = self.pending.iter().filter(|(seq, _)| !queued.contains(seq));
        self.timers = waiting.map(|(seq, unacked)| (unacked.since + ack_wait, *seq)).collect();
    }

    fn ack_wait(&self) -> i64 {
        signed(self.config.ack_wait_ms)
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX / 4)
}
