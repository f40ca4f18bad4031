//! A stream: its log and its consumers, each of which hears of what happens to the other.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::config::{ApiError, ConsumerConfig, Deliver, PublishError, StreamConfig, overlap};
use super::consumer::Consumer;
use super::delivery::{Ack, AckToken};
use super::log::{Log, header};

/// What the broker answers to a message that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PubAck {
    /// The stream.
    pub stream: String,
    /// The message's sequence; of a duplicate that of the first.
    pub seq: u64,
    /// Whether it was there already.
    pub duplicate: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) log: Log,
    pub(super) consumers: BTreeMap<String, Consumer>,
}

impl Stream {
    pub(super) fn new(config: StreamConfig, created: u64) -> Self {
        Self { log: Log::new(config, created), consumers: BTreeMap::new() }
    }

    /// Lets happen what happens by itself until now.
    pub(super) fn advance(&mut self, now: u64) {
        self.log.forget_ids(now);
        while let Some((at, seq)) = self.log.expires()
            && at <= now
        {
            self.remove(seq);
        }
        for consumer in self.consumers.values_mut() {
            consumer.advance(now);
        }
    }

    pub(super) fn next_change(&self) -> Option<u64> {
        let consumers = self.consumers.values().filter_map(Consumer::next_change);
        consumers.chain(self.log.expires().map(|(at, _)| at)).min()
    }

    pub(super) fn reconfigure(&mut self, config: StreamConfig) -> Result<(), ApiError> {
        if config.work_queue != self.log.config.work_queue {
            return Err(ApiError::Refused("stream configuration update can not change retention policy"));
        }
        self.log.reconfigure(config);
        for subject in self.log.subjects() {
            self.enforce(&subject);
        }
        self.enforce("");
        Ok(())
    }

    pub(super) fn publish(
        &mut self,
        now: u64,
        subject: &str,
        headers: Vec<(String, String)>,
        payload: Bytes,
    ) -> Result<PubAck, PublishError> {
        let ack = |log: &Log, seq, duplicate| PubAck { stream: log.config.name.clone(), seq, duplicate };
        let expires = match header(&headers, "Nats-TTL") {
            None => None,
            Some(_) if !self.log.config.allow_message_ttl => return Err(PublishError::TtlDisabled),
            Some(ttl) => Some(now + seconds(ttl).ok_or(PublishError::TtlInvalid)? * 1000),
        };
        // A duplicate is one whatever else it says: it is looked at before what it expects.
        if let Some(seq) = header(&headers, "Nats-Msg-Id").and_then(|id| self.log.known(id)) {
            return Ok(ack(&self.log, seq, true));
        }
        let expected = header(&headers, "Nats-Expected-Last-Subject-Sequence").and_then(|seq| seq.parse::<u64>().ok());
        if let Some(expected) = expected {
            let last = self.log.last_by_subject(subject).map_or(0, |message| message.seq);
            if last != expected {
                return Err(PublishError::WrongLastSequence(last));
            }
        }
        if !self.log.has_room(subject, &headers, &payload) {
            return Err(PublishError::MaxBytes);
        }
        let seq = self.log.append(now, subject, headers, payload, expires);
        for consumer in self.consumers.values_mut() {
            consumer.on_stored(subject);
        }
        self.enforce(subject);
        Ok(ack(&self.log, seq, false))
    }

    fn enforce(&mut self, subject: &str) {
        while let Some(seq) = self.log.too_much(subject) {
            if self.remove(seq).is_none() {
                break;
            }
        }
    }

    /// Removes a message: for whom it is pending it counts as acked.
    pub(super) fn remove(&mut self, seq: u64) -> Option<()> {
        let message = self.log.remove(seq)?;
        for consumer in self.consumers.values_mut() {
            consumer.on_removed(seq, &message.subject);
        }
        Some(())
    }

    pub(super) fn purge_below(&mut self, seq: u64) -> u64 {
        let purged = self.log.purge_below(seq);
        // Also when there was nothing to purge.
        for consumer in self.consumers.values_mut() {
            consumer.on_purged(&self.log);
        }
        purged
    }

    pub(super) fn create_consumer(&mut self, config: ConsumerConfig, created: u64) -> Result<(), ApiError> {
        if let Some(have) = self.consumers.get(&config.durable) {
            return if have.config == config { Ok(()) } else { Err(ApiError::ConsumerExists) };
        }
        self.suits(&config)?;
        let consumer = Consumer::new(config.clone(), created, &self.log);
        self.consumers.insert(config.durable, consumer);
        Ok(())
    }

    pub(super) fn update_consumer(&mut self, now: u64, config: ConsumerConfig) -> Result<(), ApiError> {
        let have = self.consumers.get(&config.durable).ok_or(ApiError::ConsumerNotFound)?;
        if have.config.deliver != config.deliver {
            return Err(ApiError::Refused("deliver policy can not be updated"));
        }
        self.suits(&config)?;
        if let Some(consumer) = self.consumers.get_mut(&config.durable) {
            consumer.reconfigure(now, config, &self.log);
        }
        Ok(())
    }

    /// What a work queue asks of its consumers: each message has one.
    fn suits(&self, config: &ConsumerConfig) -> Result<(), ApiError> {
        if !self.log.config.work_queue {
            return Ok(());
        }
        if config.deliver != Deliver::All {
            return Err(ApiError::Refused("consumer must be deliver all on workqueue stream"));
        }
        let everything = [">".to_owned()];
        let filters = |config: &ConsumerConfig| match &config.filter_subjects[..] {
            [] => everything.to_vec(),
            filters => filters.to_vec(),
        };
        let others = self.consumers.values().filter(|other| other.config.durable != config.durable);
        let taken: Vec<String> = others.flat_map(|other| filters(&other.config)).collect();
        let collide = |filter: &String| taken.iter().any(|taken| overlap(filter, taken));
        if filters(config).iter().any(collide) {
            return Err(ApiError::Refused("filtered consumer not unique on workqueue stream"));
        }
        Ok(())
    }

    pub(super) fn ack(&mut self, now: u64, token: &AckToken, ack: Ack) -> bool {
        let Some(consumer) = self.consumers.get_mut(&token.durable) else { return false };
        let confirmed = consumer.ack(now, token, ack);
        // Whether it was pending does not matter: also the second ack of a message takes it out of the queue.
        if confirmed && self.log.config.work_queue && matches!(ack, Ack::Ack | Ack::Term) {
            self.remove(token.stream_seq);
        }
        confirmed
    }

    pub(super) fn restart(&mut self, now: u64) {
        self.log.learn_ids();
        self.log.forget_ids(now);
        for consumer in self.consumers.values_mut() {
            consumer.restart(now, &self.log);
        }
    }
}

/// Reads `90`, `90s`, `5m` or `2h`; at least a second.
fn seconds(ttl: &str) -> Option<u64> {
    let (number, unit) = match ttl.char_indices().last()? {
        (at, 's') => (&ttl[..at], 1),
        (at, 'm') => (&ttl[..at], 60),
        (at, 'h') => (&ttl[..at], 3600),
        _ => (ttl, 1),
    };
    number.parse::<u64>().ok().map(|number| number * unit).filter(|seconds| *seconds > 0)
}
