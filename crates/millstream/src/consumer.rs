//! Consumers: one durable pull consumer for each stream that a service reads, shared by its replicas.
//!
//! The task pulls itself instead of using `messages()`, because on shutdown it must stop pulling, receive what is still under
//! way, and hand it back, which needs the subscription.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::{AckKind, Message as JetMessage};
use async_nats::{StatusCode, Subject};
use futures_util::StreamExt;
use millstream_core::planner::{Decoder, Incoming};
use millstream_core::position::Note;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::durable::{Declared, Ensured, GROUP};
use crate::engine::acker::Acker;
use crate::engine::arrival::{Arrival, MessageReceipt, NatsWire, Source};
use crate::engine::meters::Meters;
use crate::engine::timing::Timing;
use crate::event::{decode_header, header};
use crate::ids::Timestamp;
use crate::progress::{InEngine, Progress};

/// A consumer's task.
pub(crate) struct Consumer {
    pub(crate) broker: Broker,
    pub(crate) declared: Arc<Declared>,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) source: Arc<Source>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) inputs: mpsc::Sender<Arrival>,
    pub(crate) acker: Acker,
    /// Set when it may begin.
    pub(crate) looked: watch::Receiver<bool>,
    /// Whether the engine takes messages now.
    pub(crate) gate: watch::Receiver<bool>,
    pub(crate) stop: CancellationToken,
    pub(crate) timing: Timing,
    pub(crate) meters: Arc<Meters>,
}

impl Consumer {
    /// Pulls until told to stop, then hands back what the engine has not taken.
    pub(crate) async fn run(self) {
        let mut link = self.broker.link.clone();
        let stop = &self.stop;
        let mut looked = self.looked.clone();
        let mut gate = self.gate.clone();
        let mut placed = self.progress.placed();
        let (mut inbox, mut subscription) = self.subscribe().await;
        let mut failures = 0_u32;
        let mut pull = Pull::new();
        'declare: loop {
            // The floor may be that of a stream that is gone; by it entries of the one in its place would expire.
            self.progress.ack_floor.store(0, Ordering::Release);
            let declared = tokio::select! {
                () = stop.cancelled() => break,
                declared = self.declared.ensure(&self.broker) => declared,
            };
            match declared {
                Ok(Ensured { mark, notes }) => {
                    mark.into_iter().for_each(|mark| self.source.declare(mark));
                    notes.iter().for_each(|note| self.say(note));
                    // What an earlier durable has delivered and nobody has taken yet comes again.
                    if std::mem::replace(&mut placed, self.progress.placed()) != placed {
                        (inbox, subscription) = self.subscribe().await;
                        pull.back.clear();
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.progress.set_waits_for(Some(error));
                    let delay = self.timing.gate_retry.delay(failures);
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(delay) => continue,
                    }
                }
            }
            // What a process before could not read stands in the way of pulling.
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looked.wait_for(|looked| *looked) => {}
            }
            pull = Pull { back: pull.back, ..Pull::new() };
            link.borrow_and_update();
            loop {
                if stop.is_cancelled() {
                    break 'declare;
                }
                let open = *gate.borrow_and_update();
                if open && pull.outstanding <= self.timing.batch_inputs / 2 && link.borrow().up {
                    self.pull(&inbox, &mut pull).await;
                }
                let silence = pull.heard + self.timing.pull_heartbeat * 2;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break 'declare,
                    message = subscription.next() => {
                        let Some(message) = message else { break 'declare };
                        pull.heard = Instant::now();
                        match self.receive(message, &mut pull).await {
                            Received::Message => failures = 0,
                            Received::Status => {}
                            Received::Declare(why) => {
                                tracing::warn!(why, stream = self.source.stream, "redeclaring the consumer");
                                failures += 1;
                                self.progress.pulling.store(false, Ordering::Release);
                                tokio::select! {
                                    () = stop.cancelled() => break 'declare,
                                    () = tokio::time::sleep(self.timing.gate_retry.delay(failures)) => continue 'declare,
                                }
                            }
                        }
                    }
                    Ok(()) = gate.changed() => {}
                    () = self.declared.lost.notified() => continue 'declare,
                    Ok(()) = link.changed() => {
                        let up = link.borrow_and_update().up;
                        self.progress.pulling.store(false, Ordering::Release);
                        if up {
                            continue 'declare;
                        }
                    }
                    () = tokio::time::sleep_until(silence), if pull.outstanding > 0 => {
                        pull.outstanding = 0;
                        pull.heard = Instant::now();
                        pull.failures += 1;
                        self.progress.pulling.store(false, Ordering::Release);
                        if pull.failures == 1 && link.borrow().up {
                            tracing::warn!(stream = self.source.stream, "no heartbeat for the pull request; sending a new one");
                        }
                    }
                }
            }
        }
        self.progress.pulling.store(false, Ordering::Release);
        self.hand_back(subscription, pull).await;
    }

    /// A subscription of its own for what one durable delivers.
    async fn subscribe(&self) -> (String, async_nats::Subscriber) {
        loop {
            let inbox = self.broker.client.new_inbox();
            match self.broker.client.subscribe(inbox.clone()).await {
                Ok(subscription) => return (inbox, subscription),
                Err(error) => tracing::error!(%error, "cannot subscribe"),
            }
            tokio::time::sleep(self.timing.gate_retry.longest).await;
        }
    }

    /// Says what is to be known of the place where the durable goes on.
    fn say(&self, note: &Note) {
        let stream = self.source.stream;
        match note {
            Note::Grown => tracing::info!(stream, "{note}"),
            _ => tracing::warn!(stream, "{note}"),
        }
        if let Note::Ahead { acked, .. } = note {
            self.progress.reread_to.store(*acked, Ordering::Release);
        }
        // That a durable was a little ahead is nothing to know of, unless something was missing.
        if !matches!(note, Note::Grown | Note::Ahead { .. }) {
            self.progress.add_note(format!("{stream}: {note}"));
        }
        self.meters.gone(stream, note.gone());
    }

    async fn pull(&self, inbox: &str, pull: &mut Pull) {
        let Timing { batch_inputs: batch, mut pull_expires, mut pull_heartbeat, pin_timeout, .. } = self.timing;
        if self.declared.single_writer {
            // Whoever is pinned stays so by pulling in time, also while there is nothing to pull.
            pull_expires = pull_expires.min(pin_timeout / 2);
            pull_heartbeat = pull_heartbeat.min(pull_expires / 2);
        }
        let mut request = serde_json::json!({
            "batch": batch,
            "expires": nanos(pull_expires),
            "idle_heartbeat": nanos(pull_heartbeat),
        });
        if self.declared.single_writer {
            request["group"] = GROUP.into();
            if let Some(pin) = self.progress.pin() {
                request["id"] = pin.into();
            }
        }
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.source.stream, self.source.consumer);
        let sent = self.broker.client.publish_with_reply(subject, inbox.to_owned(), request.to_string().into()).await;
        match sent {
            Ok(()) => {
                if pull.outstanding == 0 {
                    pull.heard = Instant::now();
                }
                pull.asked.get_or_insert_with(Instant::now);
                pull.outstanding += batch;
                self.progress.pulling.store(true, Ordering::Release);
                self.progress.set_waits_for(None);
            }
            Err(error) => tracing::debug!(%error, "pull request not sent"),
        }
    }

    async fn receive(&self, message: async_nats::Message, pull: &mut Pull) -> Received {
        match status(&message) {
            None | Some(StatusCode::OK) => {
                pull.outstanding = pull.outstanding.saturating_sub(1);
                pull.failures = 0;
                if self.declared.single_writer {
                    // The last one is the broker's; one that was published with the message may stand before it.
                    let pin = message.headers.as_ref().and_then(|headers| headers.get_last("Nats-Pin-Id"));
                    self.progress.set_pin(pin.map(|pin| pin.as_str()));
                }
                if let Some(event) = self.ignores(&message) {
                    self.meters.ignored(event);
                    self.acker.send(message.reply.into_iter().map(|reply| (reply, AckKind::Ack)).collect());
                    return Received::Message;
                }
                let reply = message.reply.clone();
                let again = reply.clone();
                let Some(arrival) = self.decode(message) else {
                    let reply = reply.filter(|_| self.decoder.redrives);
                    self.acker.send(reply.into_iter().map(|reply| (reply, AckKind::Term)).collect());
                    return Received::Status;
                };
                self.meters.received(self.source.stream);
                if let Some(asked) = pull.asked.take() {
                    self.meters.exchanged("fetch", asked);
                }
                let permit = tokio::select! {
                    biased;
                    permit = self.inputs.reserve() => permit.ok(),
                    () = self.stop.cancelled() => None,
                };
                match permit {
                    Some(permit) => permit.send(arrival),
                    None => pull.back.extend(again),
                }
                pull.heard = Instant::now();
                Received::Message
            }
            Some(StatusCode::IDLE_HEARTBEAT) => {
                pull.failures = 0;
                self.progress.pulling.store(true, Ordering::Release);
                Received::Status
            }
            // Another replica was pinned meanwhile: from now on this one stands by.
            Some(StatusCode::PIN_ID_MISMATCH) => {
                self.progress.set_pin(None);
                pull.outstanding = pull.outstanding.saturating_sub(self.timing.batch_inputs);
                Received::Status
            }
            Some(StatusCode::NO_RESPONDERS) => Received::Declare("JetStream does not know the consumer".into()),
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                let left = message.headers.as_ref().and_then(|headers| headers.get("Nats-Pending-Messages"));
                let left = left.and_then(|left| left.as_str().parse().ok()).unwrap_or(self.timing.batch_inputs);
                pull.outstanding = pull.outstanding.saturating_sub(left);
                Received::Status
            }
            // The consumer was deleted, the server goes down, too many pulls wait: pulling on at once would be a hot loop.
            Some(status) => Received::Declare(message.description.unwrap_or_else(|| status.to_string())),
        }
    }

    /// The type of a message, if it is one that is ignored.
    fn ignores(&self, message: &async_nats::Message) -> Option<&'static str> {
        self.decoder.ignores(&decode_header(message.headers.as_ref()?.get(header::TYPE)?.as_str()))
    }

    /// Reads a delivery; `None` if it is no JetStream message, or among the redrives and none.
    fn decode(&self, message: async_nats::Message) -> Option<Arrival> {
        let message = JetMessage { message, context: self.broker.jetstream.clone() };
        let (seq, delivered, published) = match message.info() {
            Ok(info) => {
                let millis = info.published.unix_timestamp_nanos() / 1_000_000;
                (
                    info.stream_sequence,
                    info.delivered,
                    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default()),
                )
            }
            Err(error) => {
                tracing::error!(%error, "ignored: not a JetStream message (no ack subject)");
                return None;
            }
        };
        // What a durable before has given out may have killed the process that got it.
        let given_before = seq <= self.progress.given_to.load(Ordering::Acquire);
        let async_nats::Message { subject, headers, payload, reply, .. } = message.message;
        let wire = Box::new(NatsWire { subject: subject.clone(), headers });
        let Some(delivery) = self.decoder.decode(Incoming { seq, delivered, given_before, published, wire, payload })
        else {
            tracing::error!(%subject, "terminated: message on REDRIVE is not a redrive");
            return None;
        };
        let receipt = MessageReceipt {
            source: self.source.clone(),
            reply,
            received: Instant::now(),
            in_engine: InEngine::enter(&self.progress, self.progress.placed()),
        };
        Some(Arrival::message(delivery, receipt))
    }

    /// Lets the flow come to its end and gives back what came, which counts as nothing and lets the next instance start at
    /// once.
    ///
    /// The broker sends a message some time after it has looked whether somebody waits for it: one that is sent while the
    /// subscription ends is lost until `ack_wait` is over. So what has been asked for is waited for first, unless nothing comes,
    /// and nothing is given back, to be sent again, before the subscription has ended.
    async fn hand_back(&self, mut subscription: async_nats::Subscriber, pull: Pull) {
        if !self.broker.is_up() {
            return;
        }
        let Pull { mut outstanding, mut back, .. } = pull;
        let deadline = Instant::now() + FLOW_ENDS;
        while outstanding > 0 {
            let quiet = (Instant::now() + QUIET).min(deadline);
            let Ok(Some(message)) = tokio::time::timeout_at(quiet, subscription.next()).await else { break };
            if let None | Some(StatusCode::OK) = status(&message) {
                outstanding -= 1;
                back.extend(message.reply);
            }
        }
        if subscription.drain().await.is_ok() {
            let deadline = Instant::now() + FLOW_ENDS;
            while let Ok(Some(message)) = tokio::time::timeout_at(deadline, subscription.next()).await {
                if let None | Some(StatusCode::OK) = status(&message) {
                    back.extend(message.reply);
                }
            }
        }
        // Another replica takes over at once, and not only when this one has not pulled for a while.
        if self.progress.pin().is_some()
            && let Ok(stream) = self.broker.jetstream.get_stream_no_info(self.source.stream).await
        {
            let unpinned = tokio::time::timeout(FLOW_ENDS, stream.unpin_consumer(self.source.consumer, GROUP)).await;
            if !matches!(unpinned, Ok(Ok(()))) {
                tracing::debug!(stream = self.source.stream, "not unpinned; the pin expires by itself");
            }
        }
        tracing::debug!(given = back.len(), stream = self.source.stream, "handed back");
        self.acker.send(back.into_iter().map(|reply| (reply, AckKind::Nak(None))).collect());
    }
}

/// How long nothing comes of what was asked for before a stopping consumer takes it that nothing will.
const QUIET: Duration = Duration::from_millis(100);
/// How long a stopping consumer waits for messages at most.
const FLOW_ENDS: Duration = Duration::from_secs(1);

struct Pull {
    /// Messages asked for and not yet received.
    outstanding: usize,
    /// When anything was last heard on the subscription.
    heard: Instant,
    /// When the pull was sent that the next message answers.
    asked: Option<Instant>,
    failures: u32,
    /// Deliveries that came when the engine took no more.
    back: Vec<Subject>,
}

impl Pull {
    fn new() -> Self {
        Self { outstanding: 0, heard: Instant::now(), asked: None, failures: 0, back: vec![] }
    }
}

enum Received {
    Message,
    Status,
    Declare(String),
}

/// What the broker says of a pull. A message that was published with a status of its own is a message all the same.
fn status(message: &async_nats::Message) -> Option<StatusCode> {
    let delivered = message.reply.as_ref().is_some_and(|reply| reply.starts_with("$JS.ACK."));
    message.status.filter(|_| !delivered)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
