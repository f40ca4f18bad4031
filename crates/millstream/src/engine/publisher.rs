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
use millstream_core::outbox::{self as core, Acked, Again, News};
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
        (Self { jobs, shared: shared.clone() }, Publisher { queue, shared })
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
/// leaves nothing behind when everything is sent again. What is sent when is decided by the outbox of `millstream-core`.
pub(crate) struct Publisher {
    queue: mpsc::UnboundedReceiver<Job>,
    shared: Arc<Shared>,
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

/// The entries of a job, and who is told of its end.
type Waiting = (u64, Done);

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
        let mut waiting = core::Outbox::<Waiting>::new(timing.publish_timeout, timing.gate_retry);
        let begun = Instant::now();
        let now = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut open = true;
        while open || !waiting.is_empty() {
            let deadline = waiting.deadline().map(|at| begun + Duration::from_millis(at));
            tokio::select! {
                biased;
                Some(ack) = acks.next() => {
                    let number = ack.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
                    let Some(number) = number else { continue };
                    let Acked { out, news } = waiting.answered(now(), number, verdict(&ack));
                    self.out(out, &meters);
                    match news {
                        Some(News::Refused { subject, error }) => {
                            meters.publish_failed(REFUSED);
                            tracing::warn!(subject, error, waiting = waiting.len(), "publishing failed; retrying");
                        }
                        Some(News::RefusedAgain) => meters.publish_failed(REFUSED),
                        Some(News::Resumed) => tracing::info!("publishing resumed"),
                        None => {}
                    }
                }
                Ok(()) = link.changed() => {
                    if link.borrow_and_update().up {
                        waiting.reconnected(now());
                    } else if !waiting.is_empty() {
                        meters.publish_failed(DISCONNECTED);
                    }
                }
                () = at(deadline) => {
                    let (why, numbers) = waiting.due(now());
                    if broker.is_up() {
                        if why == Again::Timeout {
                            meters.publish_failed(TIMEOUT);
                        }
                        send(&broker, &inbox, &waiting, numbers).await;
                    }
                }
                job = self.queue.recv(), if open && waiting.has_room(IN_FLIGHT) => match job {
                    Some(Job { messages, entries, done }) => {
                        let started = Instant::now();
                        let numbers = waiting.accept(now(), messages, (entries, done));
                        send(&broker, &inbox, &waiting, numbers).await;
                        meters.stage("publish", started);
                        let out = waiting.take_out();
                        self.out(out, &meters);
                    }
                    None => open = false,
                },
            }
        }
    }

    /// Messages that are out, and the jobs that ended with them.
    fn out(&self, out: Vec<(Option<Emitted>, Option<Waiting>)>, meters: &Meters) {
        for (message, ends) in out {
            if let Some(message) = &message {
                fail_point!("after_publish");
                meters.published(&message.subject);
            }
            let Some((entries, done)) = ends else { continue };
            match done {
                Done::Batch { watermark, batch } => watermark.0.store(batch, Ordering::Release),
                Done::Swept(done) => drop(done.send(())),
            }
            self.shared.queued_entries.fetch_sub(entries, Ordering::Relaxed);
            if let (Some(since), true) = (self.shared.since().pop_front(), message.is_some()) {
                meters.exchanged("publish", since);
            }
            self.shared.progress.notify_one();
        }
    }
}

/// Resolves at a time; never, if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
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

/// Sends messages in order, pipelined.
async fn send(broker: &Broker, inbox: &str, waiting: &core::Outbox<Waiting>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let Some(message) = waiting.message(number) else { continue };
        fail_point!("before_publish");
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
}
