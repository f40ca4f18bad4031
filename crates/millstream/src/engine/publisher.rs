//! The publisher: a task of its own that sends committed batches in order, pipelined, until the broker has acked each
//! message. What it has published is a watermark, which the loop writes with its next commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue, IntoHeaderName};
use fail::fail_point;
use futures_util::StreamExt;
use millstream_core::outbox::{self as core, Again, Answered, Held, Limits, News};
use millstream_core::published::Acked;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::broker::{Broker, IN_FLIGHT};
use crate::dead_letter::EXPECTED;
use crate::engine::meters::Meters;
use crate::engine::timing::Timing;
use crate::event::{Emitted, header};
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
    /// A sweep of a dead instance's entries: whatever this engine's own wait for, they are done with when they are out.
    Swept(oneshot::Sender<()>),
    /// What a stream lacks although it was published: told is how much of it was stored.
    Again { told: oneshot::Sender<u64>, stored: Arc<AtomicU64>, own: bool },
}

/// The loop's end of the publisher.
#[derive(Clone)]
pub(crate) struct Outbox {
    jobs: mpsc::UnboundedSender<(u64, Job)>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queued_entries: AtomicU64,
    /// When each job was queued that is not done, by numbers that rise.
    since: Mutex<BTreeMap<u64, Instant>>,
    numbers: AtomicU64,
    /// What the broker goes on refusing.
    held: Mutex<Vec<Held>>,
    /// What the broker has acknowledged, for each stream.
    acked: Mutex<BTreeMap<String, Acked>>,
    progress: Notify,
    /// Messages that are out.
    out: AtomicU64,
}

impl Shared {
    fn since(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acked<T>(&self, stream: &str, act: impl FnOnce(&mut Acked) -> T) -> T {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_stream) = acked.get_mut(stream) {
            return act(of_stream);
        }
        act(acked.entry(stream.into()).or_default())
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
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        since.insert(number, Instant::now());
        // The publisher ends only after the last sender is gone.
        let _ = self.jobs.send((number, job));
    }

    /// Entries queued and not yet published.
    pub(crate) fn queued(&self) -> u64 {
        self.shared.queued_entries.load(Ordering::Relaxed)
    }

    /// How long the oldest job has been waiting.
    pub(crate) fn oldest(&self) -> Duration {
        self.shared.since().first_key_value().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// What the broker goes on refusing, a sentence for each kind of subject.
    pub(crate) fn held(&self) -> Vec<String> {
        let held = self.shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        let say = |Held { subject, messages, error }: &Held| {
            let others = if *messages > 1 { format!(" and {} more", messages - 1) } else { String::new() };
            format!("the broker refuses {subject}{others}, which is tried again: {error}")
        };
        held.iter().map(say).collect()
    }

    /// What the broker has acknowledged of a stream.
    pub(crate) fn acked<T>(&self, stream: &str, act: impl FnOnce(&mut Acked) -> T) -> T {
        self.shared.acked(stream, act)
    }

    /// How many messages this process has published.
    pub(crate) fn published(&self) -> u64 {
        self.shared.out.load(Ordering::Relaxed)
    }

    /// Resolves the next time that a job is done.
    pub(crate) async fn progress(&self) {
        self.shared.progress.notified().await;
    }
}

/// Replies come to one subscription and are told apart by a number, which costs less than a future for each message and
/// leaves nothing behind when everything is sent again. What is sent when is decided by the outbox of `millstream-core`.
pub(crate) struct Publisher {
    queue: mpsc::UnboundedReceiver<(u64, Job)>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct PubAck {
    #[serde(default)]
    stream: String,
    /// Of a duplicate that of the first.
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<PubError>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct PubError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What the broker answers to a message.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stored(PubAck),
    /// The record that it replaces was replaced by an operator, or by this very message: it is out.
    Superseded,
    /// The record that it replaces is gone.
    Gone,
    Refused(String),
}

/// A job's number, its entries, whether it has messages, and who is told of its end.
type Waiting = (u64, u64, bool, Done);

impl Publisher {
    /// Publishes until the outbox is dropped and everything is out. `missing` is told when a message is refused, for its stream may
    /// have been deleted.
    pub(crate) async fn run(mut self, broker: Broker, timing: Timing, meters: Arc<Meters>, missing: Arc<Notify>) {
        let mut link = broker.link.clone();
        let inbox = broker.client.new_inbox();
        let mut acks = loop {
            match broker.client.subscribe(format!("{inbox}.*")).await {
                Ok(acks) => break acks,
                Err(error) => tracing::error!(%error, "cannot subscribe to publish acks"),
            }
            tokio::time::sleep(timing.gate_retry.longest).await;
        };
        let limits = Limits { in_flight: IN_FLIGHT, timeout: timing.publish_timeout, retry: timing.gate_retry };
        let mut waiting = core::Outbox::<Waiting>::new(limits);
        let begun = Instant::now();
        let now = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Outcomes whose record is gone, which are stored without one.
        let mut forgotten = HashSet::new();
        // Messages that were published before, with the counts of those that are stored again.
        let mut again: HashMap<u64, Arc<AtomicU64>> = HashMap::new();
        let mut open = true;
        while open || !waiting.is_empty() {
            if broker.is_up() {
                let numbers = waiting.send(now());
                send(&broker, &inbox, &waiting, &forgotten, numbers).await;
            }
            let deadline = waiting.deadline().map(|at| begun + Duration::from_millis(at));
            tokio::select! {
                biased;
                Some(ack) = acks.next() => {
                    let number = ack.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
                    let Some(number) = number else { continue };
                    let mut stored = None;
                    let answer = match verdict(&ack) {
                        Verdict::Stored(ack) => {
                            stored = Some(ack);
                            Ok(())
                        }
                        Verdict::Superseded => Ok(()),
                        Verdict::Gone if forgotten.insert(number) => {
                            send(&broker, &inbox, &waiting, &forgotten, [number]).await;
                            continue;
                        }
                        Verdict::Gone => Err("another message is stored at the same time".into()),
                        Verdict::Refused(error) => Err(error),
                    };
                    let Answered { out, done, news } = waiting.answered(now(), number, answer);
                    if let Some(message) = &out {
                        fail_point!("after_publish");
                        meters.published(&message.subject);
                        self.shared.out.fetch_add(1, Ordering::Relaxed);
                        forgotten.remove(&number);
                        let again = again.remove(&number);
                        if let Some(ack) = &stored {
                            self.note(ack, message, again.as_deref(), &meters);
                        }
                    }
                    self.done(done, &meters);
                    if let Some(news) = news {
                        // Each dead letter has a subject of its own: what all of them come to is looked at with each deadline.
                        if news != News::RefusedAgain {
                            self.show(waiting.held());
                        }
                        self.tell(news, &meters, &missing);
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
                    let why = waiting.again(now());
                    if why == Some(Again::Timeout) && broker.is_up() {
                        meters.publish_failed(TIMEOUT);
                    }
                    self.show(waiting.held());
                }
                job = self.queue.recv(), if open && waiting.has_room() => match job {
                    Some((number, Job { mut messages, entries, done })) => {
                        let started = Instant::now();
                        let emits = !messages.is_empty();
                        match done {
                            Done::Swept(_) => waiting.accept_apart(messages, (number, entries, emits, done)),
                            Done::Again { ref stored, own, .. } => {
                                // What waits here is published in its turn. Under an id of before it goes with this process.
                                if own {
                                    let ids: HashSet<_> = waiting.ordered().map(|message| message.header(header::MSG_ID)).collect();
                                    messages.retain(|message| !ids.contains(&message.header(header::MSG_ID)));
                                }
                                again.extend((waiting.next()..).zip(messages.iter().map(|_| stored.clone())));
                                waiting.accept_apart(messages, (number, entries, emits, done));
                            }
                            Done::Batch { .. } => waiting.accept(messages, (number, entries, emits, done)),
                        }
                        if broker.is_up() {
                            let numbers = waiting.send(now());
                            send(&broker, &inbox, &waiting, &forgotten, numbers).await;
                        }
                        meters.stage("publish", started);
                        let done = waiting.done();
                        self.done(done, &meters);
                    }
                    None => open = false,
                },
            }
        }
    }

    /// Jobs whose messages are all out.
    fn done(&self, jobs: Vec<Waiting>, meters: &Meters) {
        for (number, entries, emits, done) in jobs {
            match done {
                Done::Batch { watermark, batch } => watermark.0.store(batch, Ordering::Release),
                Done::Swept(done) => drop(done.send(())),
                Done::Again { told, stored, .. } => drop(told.send(stored.load(Ordering::Relaxed))),
            }
            self.shared.queued_entries.fetch_sub(entries, Ordering::Relaxed);
            if let (Some(since), true) = (self.shared.since().remove(&number), emits) {
                meters.exchanged("publish", since);
            }
            self.shared.progress.notify_one();
        }
    }

    /// A message is out, of which it may have been thought before that it was.
    fn note(&self, ack: &PubAck, message: &Emitted, again: Option<&AtomicU64>, meters: &Meters) {
        let id = message.header(header::MSG_ID).unwrap_or_default();
        let went_back = self.shared.acked(&ack.stream, |acked| acked.note(ack.seq, &id, ack.duplicate));
        if went_back {
            tracing::warn!(
                stream = ack.stream,
                sequence = ack.seq,
                "the stream assigned a sequence number a second time"
            );
        }
        if let Some(stored) = again.filter(|_| !ack.duplicate) {
            stored.fetch_add(1, Ordering::Relaxed);
            meters.republished(&ack.stream);
        }
    }

    fn tell(&self, news: News, meters: &Meters, missing: &Notify) {
        match news {
            News::Refused { subject, error } => {
                meters.publish_failed(REFUSED);
                tracing::warn!(subject, error, "the broker refuses a message; its subject is held and tried again");
                missing.notify_one();
            }
            News::RefusedAgain => {
                meters.publish_failed(REFUSED);
                missing.notify_one();
            }
            News::Resumed { subject } => tracing::info!(subject, "publishing resumed"),
        }
    }

    fn show(&self, held: Vec<Held>) {
        *self.shared.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

/// Resolves at a time; never, if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The broker's code for "wrong last sequence: 7".
const WRONG_LAST_SEQUENCE: u64 = 10071;

fn verdict(ack: &async_nats::Message) -> Verdict {
    if ack.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
        return Verdict::Refused("no stream takes the subject, or JetStream is down".into());
    }
    match serde_json::from_slice::<PubAck>(&ack.payload) {
        Ok(ack @ PubAck { error: None, .. }) => Verdict::Stored(ack),
        Ok(PubAck { error: Some(error), .. }) if error.err_code == WRONG_LAST_SEQUENCE => {
            if error.description.ends_with(": 0") { Verdict::Gone } else { Verdict::Superseded }
        }
        Ok(PubAck { error: Some(error), .. }) => Verdict::Refused(error.description),
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

/// The names of an event's headers, which need neither be checked nor copied.
static NAMES: [HeaderName; 12] = [
    HeaderName::from_static(header::MSG_ID),
    HeaderName::from_static(header::SPEC),
    HeaderName::from_static(header::ID),
    HeaderName::from_static(header::TYPE),
    HeaderName::from_static(header::SOURCE),
    HeaderName::from_static(header::TIME),
    HeaderName::from_static(header::SUBJECT),
    HeaderName::from_static(header::CONTENT_TYPE),
    HeaderName::from_static(header::CORRELATION),
    HeaderName::from_static(header::CAUSATION),
    HeaderName::from_static(header::PERSONAL),
    HeaderName::from_static(header::TRACEPARENT),
];

fn header_name(name: &str) -> HeaderName {
    NAMES.iter().find(|known| AsRef::<str>::as_ref(*known) == name).cloned().unwrap_or_else(|| name.into_header_name())
}

/// Sends messages in order, pipelined.
async fn send(
    broker: &Broker,
    inbox: &str,
    waiting: &core::Outbox<Waiting>,
    forgotten: &HashSet<u64>,
    numbers: impl IntoIterator<Item = u64>,
) {
    for number in numbers {
        let Some(message) = waiting.message(number) else { continue };
        fail_point!("before_publish");
        let mut headers = HeaderMap::new();
        let kept = |name: &str| name != EXPECTED || !forgotten.contains(&number);
        for (name, value) in message.headers.iter().filter(|(name, _)| kept(name)) {
            headers.append(header_name(name), HeaderValue::from(value.as_str()));
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
