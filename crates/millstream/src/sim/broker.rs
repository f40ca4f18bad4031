//! A model of the part of NATS JetStream (server 2.12 to 2.15, one server, file storage) that services use.
//!
//! Time is an argument: `now`, in milliseconds, of each call, and it never goes back. Nothing is random and nothing waits; what is
//! lost, late, or out of order is the caller's decision. A [`SimBroker`] is cheap to clone, so an earlier copy that is put back is
//! a broker whose tail is lost.
//!
//! A pull is answered at once or not at all: a simulation that waits for messages pulls again when something was published, or
//! when [`SimBroker::next_change`] says so.
//!
//! Not modelled: clusters, the limits `max_age` and `max_msgs`, waiting pulls with their heartbeats and expiries, `max_deliver`,
//! backoff, other ack policies than explicit, push consumers, and the time in which a message is under way. A time to live ends
//! to the millisecond, and an id is forgotten to the millisecond; the server may be later.
//!
//! What a restart, a lost tail and a state put back leave follows the server's source and is not compared with a server; nor are
//! `get`, `next_by_subject` and `first_since`.
//!
//! ```
//! use millstream::sim::broker::{Ack, ConsumerConfig, Pull, SimBroker, StreamConfig};
//!
//! let mut broker = SimBroker::new();
//! broker.create_stream(0, StreamConfig::new("ORDERS", "orders.>")).unwrap();
//! broker.create_consumer(0, "ORDERS", ConsumerConfig::new("shipping", 30_000)).unwrap();
//! broker.publish(1, "orders.placed.0", vec![], "{}".into()).unwrap();
//! let [delivery] = &broker.fetch(2, "ORDERS", "shipping", Pull::of(10)).unwrap()[..] else { panic!() };
//! assert!(broker.ack(3, &delivery.token, Ack::Ack));
//! assert_eq!(broker.consumer_info(3, "ORDERS", "shipping").unwrap().ack_floor.stream, 1);
//! ```

mod config;
mod consumer;
mod delivery;
mod log;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

pub use config::{ApiError, ConsumerConfig, Deliver, Pinned, PublishError, PullError, StreamConfig, matches};
pub use consumer::ConsumerState;
pub use delivery::{Ack, AckToken, ConsumerInfo, Delivery, Position, Pull};
pub use log::{Message, StreamInfo};
pub use stream::PubAck;

use stream::Stream;

/// A broker: its streams, and the consumers on them.
#[derive(Clone, Debug, Default)]
pub struct SimBroker {
    /// Shared with the copies until one of them writes.
    streams: BTreeMap<String, Arc<Stream>>,
    /// When the last stream or consumer was created: no two are created at the same time.
    created: u64,
}

impl SimBroker {
    /// A broker without streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a stream; one that exists with this very configuration is left as it is.
    ///
    /// # Errors
    /// When it exists with another configuration, or another stream has one of its subjects.
    pub fn create_stream(&mut self, now: u64, config: StreamConfig) -> Result<StreamInfo, ApiError> {
        if let Some(have) = self.streams.get(&config.name) {
            let same = have.log.config == config;
            return if same { self.stream_info(now, &config.name) } else { Err(ApiError::StreamExists) };
        }
        self.overlaps(&config)?;
        let created = self.stamp(now);
        let stream = Stream::new(config.clone(), created);
        self.streams.insert(config.name.clone(), Arc::new(stream));
        self.stream_info(now, &config.name)
    }

    /// Changes a stream's configuration.
    ///
    /// # Errors
    /// When there is no such stream, its retention would change, or another stream has one of its subjects.
    pub fn update_stream(&mut self, now: u64, config: StreamConfig) -> Result<StreamInfo, ApiError> {
        self.overlaps(&config)?;
        let name = config.name.clone();
        self.stream(now, &name)?.reconfigure(config)?;
        self.stream_info(now, &name)
    }

    /// Deletes a stream with its consumers.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn delete_stream(&mut self, name: &str) -> Result<(), ApiError> {
        self.streams.remove(name).map(drop).ok_or(ApiError::StreamNotFound)
    }

    /// What a stream holds.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn stream_info(&mut self, now: u64, name: &str) -> Result<StreamInfo, ApiError> {
        Ok(self.stream(now, name)?.log.info())
    }

    /// The names of all streams, in order.
    pub fn stream_names(&self) -> impl Iterator<Item = &str> {
        self.streams.keys().map(String::as_str)
    }

    /// The names of a stream's consumers, in order; none if there is no such stream.
    pub fn consumer_names(&self, stream: &str) -> impl Iterator<Item = &str> {
        self.streams.get(stream).into_iter().flat_map(|stream| stream.consumers.keys().map(String::as_str))
    }

    /// Publishes a message, to the stream that has its subject.
    ///
    /// # Errors
    /// When no stream has it, or the stream refuses the message.
    pub fn publish(
        &mut self,
        now: u64,
        subject: &str,
        headers: Vec<(String, String)>,
        payload: Bytes,
    ) -> Result<PubAck, PublishError> {
        let takes = |stream: &Arc<Stream>| stream.log.config.subjects.iter().any(|filter| matches(filter, subject));
        let stream = self.streams.values_mut().find(|stream| takes(stream)).ok_or(PublishError::NoResponders)?;
        let stream = Arc::make_mut(stream);
        stream.advance(now);
        stream.publish(now, subject, headers, payload)
    }

    /// Removes all messages below a sequence; says how many.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn purge_below(&mut self, now: u64, stream: &str, seq: u64) -> Result<u64, ApiError> {
        Ok(self.stream(now, stream)?.purge_below(seq))
    }

    /// Removes one message.
    ///
    /// # Errors
    /// When there is no such stream or message.
    pub fn delete_message(&mut self, now: u64, stream: &str, seq: u64) -> Result<(), ApiError> {
        self.stream(now, stream)?.remove(seq).map(drop).ok_or(ApiError::MessageNotFound)
    }

    /// The message of a sequence.
    ///
    /// # Errors
    /// When there is no such stream or message.
    pub fn get(&mut self, now: u64, stream: &str, seq: u64) -> Result<Arc<Message>, ApiError> {
        self.stream(now, stream)?.log.get(seq).cloned().ok_or(ApiError::MessageNotFound)
    }

    /// The last message of a subject, which may have wildcards.
    ///
    /// # Errors
    /// When there is no such stream or message.
    pub fn last_by_subject(&mut self, now: u64, stream: &str, subject: &str) -> Result<Arc<Message>, ApiError> {
        self.stream(now, stream)?.log.last_by_subject(subject).cloned().ok_or(ApiError::MessageNotFound)
    }

    /// The first message from a sequence on whose subject matches.
    ///
    /// # Errors
    /// When there is no such stream or message.
    pub fn next_by_subject(
        &mut self,
        now: u64,
        stream: &str,
        from: u64,
        subject: &str,
    ) -> Result<Arc<Message>, ApiError> {
        let log = &self.stream(now, stream)?.log;
        log.next(from, |have| matches(subject, have)).cloned().ok_or(ApiError::MessageNotFound)
    }

    /// The first message that was stored at a time (in milliseconds) or later.
    ///
    /// # Errors
    /// When there is no such stream or message.
    pub fn first_since(&mut self, now: u64, stream: &str, time: u64) -> Result<Arc<Message>, ApiError> {
        self.stream(now, stream)?.log.first_since(time).cloned().ok_or(ApiError::MessageNotFound)
    }

    /// Creates a consumer, strictly: one that exists with this very configuration is left as it is.
    ///
    /// # Errors
    /// When there is no such stream, it exists with another configuration, or the work queue does not take it.
    pub fn create_consumer(
        &mut self,
        now: u64,
        stream: &str,
        config: ConsumerConfig,
    ) -> Result<ConsumerInfo, ApiError> {
        let created = self.stamp(now);
        let durable = config.durable.clone();
        self.stream(now, stream)?.create_consumer(config, created)?;
        self.consumer_info(now, stream, &durable)
    }

    /// Changes a consumer's configuration. Where it stands stays: what a new filter would have let through is gone by.
    ///
    /// # Errors
    /// When there is no such stream or consumer, or where it begins would change.
    pub fn update_consumer(
        &mut self,
        now: u64,
        stream: &str,
        config: ConsumerConfig,
    ) -> Result<ConsumerInfo, ApiError> {
        let durable = config.durable.clone();
        self.stream(now, stream)?.update_consumer(now, config)?;
        self.consumer_info(now, stream, &durable)
    }

    /// Deletes a consumer with its state.
    ///
    /// # Errors
    /// When there is no such stream or consumer.
    pub fn delete_consumer(&mut self, now: u64, stream: &str, durable: &str) -> Result<(), ApiError> {
        self.stream(now, stream)?.consumers.remove(durable).map(drop).ok_or(ApiError::ConsumerNotFound)
    }

    /// Where a consumer stands.
    ///
    /// # Errors
    /// When there is no such stream or consumer.
    pub fn consumer_info(&mut self, now: u64, stream: &str, durable: &str) -> Result<ConsumerInfo, ApiError> {
        let Stream { log, consumers } = self.stream(now, stream)?;
        consumers.get_mut(durable).map(|consumer| consumer.info(log)).ok_or(ApiError::ConsumerNotFound)
    }

    /// Takes the pin from whoever has it.
    ///
    /// # Errors
    /// When there is no such stream or consumer.
    pub fn unpin(&mut self, now: u64, stream: &str, durable: &str) -> Result<(), ApiError> {
        let consumer = self.stream(now, stream)?.consumers.get_mut(durable);
        consumer.map(consumer::Consumer::unpin).ok_or(ApiError::ConsumerNotFound)
    }

    /// Pulls: what is to be delivered again first, then what is new. Nothing if there is nothing, too much is unacked, or somebody
    /// else is pinned.
    ///
    /// # Errors
    /// When there is no such stream or consumer, or the pull names a pin that is not the one.
    pub fn fetch(&mut self, now: u64, stream: &str, durable: &str, pull: Pull<'_>) -> Result<Vec<Delivery>, PullError> {
        let stream = self.stream(now, stream).map_err(|_| PullError::NoResponders)?;
        let Stream { log, consumers } = stream;
        let consumer = consumers.get_mut(durable).ok_or(PullError::NoResponders)?;
        consumer.fetch(now, log, pull)
    }

    /// Acks, naks, terminates or prolongs a delivery. Says whether the server would confirm it to a client that asks for that:
    /// it does not when nobody is there any more, nor the ack of what was not delivered yet.
    ///
    /// A token is names and numbers, as the subject is that an ack is published to. So one from before a consumer or stream was
    /// made anew counts for the new one, if the message of that sequence is pending there.
    pub fn ack(&mut self, now: u64, token: &AckToken, ack: Ack) -> bool {
        self.stream(now, &token.stream).is_ok_and(|stream| stream.ack(now, token, ack))
    }

    /// When something happens by itself next: a redelivery is due, a pin runs out, or a message expires. It may be now or past.
    pub fn next_change(&self) -> Option<u64> {
        self.streams.values().filter_map(|stream| stream.next_change()).min()
    }

    /// A fault: the server ends and starts again, with all that it had written. Pins are gone, and what was queued for
    /// redelivery waits until its ack wait is over.
    pub fn restart(&mut self, now: u64) {
        for stream in self.streams.values_mut() {
            let stream = Arc::make_mut(stream);
            stream.advance(now);
            stream.restart(now);
        }
    }

    /// A fault: a stream has lost all messages above a sequence, and the server starts again. Its consumers stand nowhere above
    /// the stream's end then, and their sequences are given out again.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn forget_after(&mut self, now: u64, stream: &str, seq: u64) -> Result<(), ApiError> {
        let stream = self.stream(now, stream)?;
        stream.log.forget_after(seq);
        stream.restart(now);
        Ok(())
    }

    /// A copy of a consumer's state, to be put back later.
    ///
    /// # Errors
    /// When there is no such stream or consumer.
    pub fn consumer_state(&self, stream: &str, durable: &str) -> Result<ConsumerState, ApiError> {
        let stream = self.streams.get(stream).ok_or(ApiError::StreamNotFound)?;
        stream.consumers.get(durable).map(consumer::Consumer::state).ok_or(ApiError::ConsumerNotFound)
    }

    /// A fault: a consumer has lost what it had written since the copy was made, and the server starts again.
    ///
    /// # Errors
    /// When there is no such stream or consumer.
    pub fn put_back(&mut self, now: u64, stream: &str, durable: &str, state: &ConsumerState) -> Result<(), ApiError> {
        let Stream { log, consumers } = self.stream(now, stream)?;
        let consumer = consumers.get_mut(durable).ok_or(ApiError::ConsumerNotFound)?;
        consumer.put_back(state);
        consumer.restart(now, log);
        Ok(())
    }

    /// Sets a consumer to a sequence, or back to its ack floor: nothing is pending, and delivery goes on from there.
    ///
    /// After a reset to the first sequence the server sometimes goes on reporting what was delivered before; this does not.
    ///
    /// # Errors
    /// When there is no such stream or consumer, or it began above that sequence.
    pub fn reset_consumer(&mut self, now: u64, stream: &str, durable: &str, seq: Option<u64>) -> Result<(), ApiError> {
        let Stream { log, consumers } = self.stream(now, stream)?;
        consumers.get_mut(durable).ok_or(ApiError::ConsumerNotFound)?.reset(log, seq)
    }

    fn stream(&mut self, now: u64, name: &str) -> Result<&mut Stream, ApiError> {
        let stream = Arc::make_mut(self.streams.get_mut(name).ok_or(ApiError::StreamNotFound)?);
        stream.advance(now);
        Ok(stream)
    }

    fn stamp(&mut self, now: u64) -> u64 {
        self.created = now.max(self.created + 1);
        self.created
    }

    fn overlaps(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let others = self.streams.values().map(|stream| &stream.log.config).filter(|other| other.name != config.name);
        let taken = others.flat_map(|other| &other.subjects);
        let collide = |taken: &String| config.subjects.iter().any(|subject| config::overlap(subject, taken));
        if taken.into_iter().any(collide) { Err(ApiError::SubjectsOverlap) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "ORDERS";
    const DURABLE: &str = "shipping";

    /// With so many messages, all delivered at 100 ms.
    fn delivered(messages: usize) -> (SimBroker, Vec<Delivery>) {
        let mut broker = SimBroker::new();
        broker.create_stream(0, StreamConfig::new(STREAM, "orders.>")).unwrap();
        broker.create_consumer(0, STREAM, ConsumerConfig::new(DURABLE, 30_000)).unwrap();
        for number in 0..messages {
            let headers = vec![("Nats-Msg-Id".into(), number.to_string())];
            broker.publish(0, "orders.a", headers, Bytes::new()).unwrap();
        }
        let deliveries = broker.fetch(100, STREAM, DURABLE, Pull::of(messages)).unwrap();
        (broker, deliveries)
    }

    fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
        deliveries.iter().map(|delivery| delivery.message.seq).collect()
    }

    #[test]
    fn a_copy_is_a_broker_of_its_own() {
        let (mut broker, deliveries) = delivered(2);
        let before = broker.clone();
        assert!(broker.ack(200, &deliveries[0].token, Ack::Ack));
        broker.publish(200, "orders.a", vec![], Bytes::new()).unwrap();
        broker = before;
        assert_eq!(broker.consumer_info(300, STREAM, DURABLE).unwrap().num_ack_pending, 2);
        assert_eq!(broker.stream_info(300, STREAM).unwrap().last_seq, 2);
    }

    #[test]
    fn sequences_of_a_lost_tail_are_given_out_again_and_its_ids_are_unknown() {
        let (mut broker, deliveries) = delivered(4);
        assert!(deliveries.iter().all(|delivery| broker.ack(200, &delivery.token, Ack::Ack)));
        broker.forget_after(300, STREAM, 2).unwrap();
        let info = broker.consumer_info(300, STREAM, DURABLE).unwrap();
        assert_eq!((info.delivered.stream, info.ack_floor.stream), (2, 2));
        let ack = broker.publish(400, "orders.a", vec![("Nats-Msg-Id".into(), "3".into())], Bytes::new()).unwrap();
        assert_eq!((ack.seq, ack.duplicate), (3, false));
        assert_eq!(sequences(&broker.fetch(500, STREAM, DURABLE, Pull::of(9)).unwrap()), [3]);
        let known = broker.publish(400, "orders.a", vec![("Nats-Msg-Id".into(), "1".into())], Bytes::new()).unwrap();
        assert!(known.duplicate);
    }

    #[test]
    fn what_a_lost_tail_leaves_pending_comes_again() {
        let (mut broker, deliveries) = delivered(4);
        assert!(broker.ack(200, &deliveries[3].token, Ack::Ack));
        broker.forget_after(300, STREAM, 2).unwrap();
        let info = broker.consumer_info(300, STREAM, DURABLE).unwrap();
        assert_eq!((info.num_ack_pending, info.delivered.stream, info.ack_floor.stream), (2, 2, 0));
        assert_eq!(sequences(&broker.fetch(31_000, STREAM, DURABLE, Pull::of(9)).unwrap()), [1, 2]);
    }

    #[test]
    fn a_restart_keeps_what_is_unacked_and_forgets_what_was_queued() {
        let (mut broker, deliveries) = delivered(3);
        assert!(broker.ack(200, &deliveries[0].token, Ack::Ack));
        assert!(broker.ack(200, &deliveries[2].token, Ack::Nak(None)));
        broker.restart(300);
        assert_eq!(sequences(&broker.fetch(400, STREAM, DURABLE, Pull::of(9)).unwrap()), [0; 0]);
        assert_eq!(broker.consumer_info(400, STREAM, DURABLE).unwrap().ack_floor.stream, 1);
        assert_eq!(sequences(&broker.fetch(31_000, STREAM, DURABLE, Pull::of(9)).unwrap()), [2, 3]);
    }

    #[test]
    fn acks_that_a_consumer_has_lost_are_redeliveries() {
        let (mut broker, deliveries) = delivered(2);
        let before = broker.consumer_state(STREAM, DURABLE).unwrap();
        assert!(deliveries.iter().all(|delivery| broker.ack(200, &delivery.token, Ack::Ack)));
        assert_eq!(broker.next_change(), None);
        broker.put_back(300, STREAM, DURABLE, &before).unwrap();
        assert_eq!(broker.consumer_info(300, STREAM, DURABLE).unwrap().ack_floor.stream, 0);
        let again = broker.fetch(broker.next_change().unwrap(), STREAM, DURABLE, Pull::of(9)).unwrap();
        assert_eq!(sequences(&again), [1, 2]);
        assert_eq!(again[0].delivered, 2);
    }

    #[test]
    fn a_stream_that_is_made_anew_was_created_at_another_time() {
        let (mut broker, _) = delivered(1);
        let before = broker.stream_info(100, STREAM).unwrap().created;
        broker.delete_stream(STREAM).unwrap();
        let info = broker.create_stream(0, StreamConfig::new(STREAM, "orders.>")).unwrap();
        assert_ne!(info.created, before);
        assert_eq!(info.last_seq, 0);
    }
}
