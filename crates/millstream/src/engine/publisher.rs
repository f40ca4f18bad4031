//! The publisher: a task of its own that sends committed batches in order, pipelined, until the broker has acked each
//! message. What it has published is a watermark, which the loop writes with its next commit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::HeaderValue;
use fail::fail_point;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::broker::{Broker, IN_FLIGHT};
use crate::engine::meters::Meters;
use crate::engine::timing::Timing;
use crate::event::Emitted;
use crate::telemetry::metrics::{DISCONNECTED, REFUSED, TIMEOUT};

/// All batches of one instance id up to this one are published.
#[derive(Debug, Default)]
pub(crate) struct Watermark(AtomicU64);

impl Watermark {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Something to publish.
pub(crate) struct Job {
    pub(crate) messages: Vec<Emitted>,
    /// How many journal entries the messages are of.
    pub(crate) entries: u64,
    pub(crate) done: Done,
}

/// Who is told when all messages of a job are out.
pub(crate) enum Done {
    /// A batch of this engine.
    Batch { watermark: Arc<Watermark>, batch: u64 },
    /// A sweep of a dead instance's entries.
    Swept(oneshot::Sender<()>),
}

/// The loop's end of the publisher.
#[derive(Clone)]
pub(crate) struct Outbox {
    jobs: mpsc::UnboundedSender<Job>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queued_entries: AtomicU64,
    /// When each job was queued that is not done, in order.
    since: Mutex<VecDeque<Instant>>,
    progress: Notify,
}

impl Shared {
    fn since(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    /// An outbox and the publisher that empties it.
    pub(crate) fn new() -> (Self, Publisher) {
        let (jobs, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        (Self { jobs, shared: shared.clone() }, Publisher { queue, shared, waiting: VecDeque::new(), first: 0 })
    }

    /// Queues a job. The journal bounds what may queue, so this does not wait.
    pub(crate) fn send(&self, job: Job) {
        self.shared.queued_entries.fetch_add(job.entries, Ordering::Relaxed);
        let mut since = self.shared.since();
        since.push_back(Instant::now());
        // The publisher ends only after the last sender is gone.
        let _ = self.jobs.send(job);
    }

    /// Entries queued and not yet published.
    pub(crate) fn queued(&self) -> u64 {
        self.shared.queued_entries.load(Ordering::Relaxed)
    }

    /// How long the oldest job has been waiting.
    pub(crate) fn oldest(&self) -> Duration {
        self.shared.since().front().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Resolves the next time that a job is done.
    pub(crate) async fn progress(&self) {
        self.shared.progress.notified().await;
    }
}

/// Replies come to one subscription and are told apart by a number, which costs less than a future for each message and
/// leaves nothing behind when everything is sent again.
pub(crate) struct Publisher {
    queue: mpsc::UnboundedReceiver<Job>,
    shared: Arc<Shared>,
    waiting: VecDeque<Sent>,
    /// The number of the first message waiting.
    first: u64,
}

/// A message that was sent and is to be sent again until it is acked, in order.
struct Sent {
    /// `None` only keeps a job without messages in its place.
    message: Option<Emitted>,
    acked: bool,
    /// Set on the last message of a job.
    ends: Option<(u64, Done)>,
}

#[derive(Deserialize)]
struct PubAck {
    error: Option<PubError>,
}

#[derive(Deserialize)]
struct PubError {
    #[serde(default)]
    description: String,
}

impl Publisher {
    /// Publishes until the outbox is dropped and everything is out.
    pub(crate) async fn run(mut self, broker: Broker, timing: Timing, meters: Arc<Meters>) {
        let mut link = broker.link.clone();
        let inbox = broker.client.new_inbox();
        let mut acks = loop {
            match broker.client.subscribe(format!("{inbox}.*")).await {
                Ok(acks) => break acks,
                Err(error) => tracing::error!(%error, "cannot subscribe to publish acks"),
            }
            tokio::time::sleep(timing.gate_retry.longest).await;
        };
        let mut failures = 0_u32;
        let mut open = true;
        let mut deadline = Instant::now();
        let mut held = false;
        let mut reconnected = false;
        while open || !self.waiting.is_empty() {
            let room = !held && self.waiting.len() < IN_FLIGHT;
            if self.waiting.is_empty() {
                deadline = Instant::now() + timing.publish_timeout;
            }
            tokio::select! {
                biased;
                Some(ack) = acks.next() => {
                    let number = ack.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
                    let Some(index) = number.and_then(|number| number.checked_sub(self.first)) else { continue };
                    let Some(sent) = usize::try_from(index).ok().and_then(|index| self.waiting.get_mut(index)) else {
                        continue;
                    };
                    match verdict(&ack) {
                        Ok(()) => {
                            sent.acked = true;
                            if self.pop(&meters) {
                                deadline = Instant::now() + timing.publish_timeout;
                                if failures > 0 && !held {
                                    tracing::info!("publishing resumed");
                                    failures = 0;
                                }
                            }
                        }
                        Err(error) if !held => {
                            failures += 1;
                            held = true;
                            deadline = Instant::now() + timing.gate_retry.delay(failures);
                            meters.publish_failed(REFUSED);
                            if failures == 1 {
                                tracing::warn!(error, waiting = self.waiting.len(), "publishing failed; retrying");
                            }
                        }
                        Err(_) => {}
                    }
                }
                Ok(()) = link.changed() => {
                    if link.borrow_and_update().up {
                        deadline = Instant::now();
                        reconnected = true;
                    } else if !self.waiting.is_empty() {
                        meters.publish_failed(DISCONNECTED);
                    }
                }
                () = tokio::time::sleep_until(deadline), if !self.waiting.is_empty() => {
                    let timeout = !held && !reconnected;
                    (held, reconnected) = (false, false);
                    if broker.is_up() {
                        if timeout {
                            meters.publish_failed(TIMEOUT);
                        }
                        self.send_again(&broker, &inbox).await;
                    }
                    deadline = Instant::now() + timing.publish_timeout;
                }
                job = self.queue.recv(), if open && room => match job {
                    Some(job) => {
                        let started = Instant::now();
                        self.accept(job, &broker, &inbox).await;
                        meters.stage("publish", started);
                        self.pop(&meters);
                    }
                    None => open = false,
                },
            }
        }
    }

    async fn accept(&mut self, job: Job, broker: &Broker, inbox: &str) {
        let mut ends = Some((job.entries, job.done));
        let last = job.messages.len();
        for (index, message) in job.messages.into_iter().enumerate() {
            fail_point!("before_publish");
            send(broker, inbox, self.first + self.waiting.len() as u64, &message).await;
            let ends = if index + 1 == last { ends.take() } else { None };
            self.waiting.push_back(Sent { message: Some(message), acked: false, ends });
        }
        if ends.is_some() {
            self.waiting.push_back(Sent { message: None, acked: true, ends });
        }
    }

    /// Takes off what is acked at the front; says whether there was anything.
    fn pop(&mut self, meters: &Meters) -> bool {
        let before = self.first;
        while self.waiting.front().is_some_and(|sent| sent.acked) {
            let Some(sent) = self.waiting.pop_front() else { break };
            self.first += 1;
            if let Some(message) = &sent.message {
                fail_point!("after_publish");
                meters.published(&message.subject);
            }
            let Some((entries, done)) = sent.ends else { continue };
            match done {
                Done::Batch { watermark, batch } => watermark.0.store(batch, Ordering::Release),
                Done::Swept(done) => drop(done.send(())),
            }
            self.shared.queued_entries.fetch_sub(entries, Ordering::Relaxed);
            if let (Some(since), true) = (self.shared.since().pop_front(), sent.message.is_some()) {
                meters.exchanged("publish", since);
            }
            self.shared.progress.notify_one();
        }
        self.first > before
    }

    /// Sends all that is unacked again, in order and pipelined: to the broker it is the same message.
    async fn send_again(&mut self, broker: &Broker, inbox: &str) {
        for (number, sent) in (self.first..).zip(&self.waiting) {
            if let (Some(message), false) = (&sent.message, sent.acked) {
                send(broker, inbox, number, message).await;
            }
        }
    }
}

fn verdict(ack: &async_nats::Message) -> Result<(), String> {
    if ack.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
        return Err("no stream takes the subject, or JetStream is down".into());
    }
    match serde_json::from_slice::<PubAck>(&ack.payload) {
        Ok(PubAck { error: None }) => Ok(()),
        Ok(PubAck { error: Some(error) }) => Err(error.description),
        Err(error) => Err(error.to_string()),
    }
}

async fn send(broker: &Broker, inbox: &str, number: u64, message: &Emitted) {
    let mut headers = HeaderMap::new();
    for (name, value) in &message.headers {
        headers.append(name.as_str(), HeaderValue::from(value.as_str()));
    }
    let reply = format!("{inbox}.{number}");
    let (subject, payload) = (message.subject.clone(), message.payload.clone());
    let sent = broker.client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
    if let Err(error) = sent {
        // It stays unacked and is sent again after the time-out.
        tracing::debug!(%error, subject = message.subject, "not sent");
    }
}
