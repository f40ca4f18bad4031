//! Live updates for every open tab, as server-sent events. Events are followed only while a tab is open; the state of services
//! and dead letters comes from the same poll as the metrics.
//!
//! | event | |
//! | --- | --- |
//! | `hello` | the console's permissions and demo actions, sent first |
//! | `events` | new events: a sample of whole correlations, and exact counts by type |
//! | `lanes` | each service: its instances, the positions of its consumers, its emitted events |
//! | `letters` | new dead letters |
//! | `verdict` | whether all is well, in one sentence, after each poll |
//! | `invariants` | results of an external checker, as published to [`SUBJECT`], and how old they are |
//! | `skipped` | how many events a slow tab missed |
//! | `trouble` | why there are no updates |

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{Stream, StreamExt, stream};
use millstream::Timestamp;
use millstream::event::header;
use millstream::http::Problem;
use millstream::operator::dead::{DeadFilter, LetterState, Letters};
use millstream::operator::invariants::{SUBJECT, Told};
use millstream::operator::read::Stored;
use millstream::operator::status::SystemStatus;
use millstream::operator::tail::{Tail, TailFilter};
use millstream::operator::verdict::Verdict;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::Console;
use crate::tab::{Frame, Tab};

/// Maximum number of open tabs; further ones are refused.
const TABS: usize = 64;
/// Time between two frames of events.
const BEAT: Duration = Duration::from_millis(200);
/// Delay before a retry.
const AGAIN: Duration = Duration::from_secs(1);
/// Number of frames per second.
const BEATS: usize = 5;
/// Events per second that are shown individually; all are counted.
const SHOWN_PER_SECOND: usize = 50;
/// Maximum number of events read per frame; the rest is reported as skipped.
const READ_PER_BEAT: usize = 10_000;
/// Number of past events sent to a new tab.
const RECENT: usize = 60;
/// How far back the first tab sees events.
const BEFORE: Duration = Duration::from_secs(15);
/// Maximum number of distinct sources of invariants.
const TELLERS: usize = 16;
/// Maximum length of an event's texts; events of other systems may have any.
const TEXT: usize = 200;

/// An event, drawn as a dot.
#[derive(Clone, Debug, Serialize)]
struct Dot {
    stream: String,
    sequence: u64,
    #[serde(rename = "type")]
    kind: String,
    source: String,
    key: Option<String>,
    id: Option<String>,
    causation: Option<String>,
    correlation: Option<String>,
    at: Timestamp,
}

/// A service, drawn as a lane.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lane {
    service: String,
    instances: usize,
    /// Instances that are not ready, and why.
    waiting: Vec<String>,
    /// Total number of messages ever stored in its domain's stream.
    emitted: Option<u64>,
    consumers: Vec<Reads>,
    dead: u64,
    /// Sums of its instances' totals.
    totals: BTreeMap<String, f64>,
}

/// Position of a lane's consumer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reads {
    stream: String,
    events: Vec<String>,
    pending: u64,
    ack_pending: u64,
    redelivered: u64,
    ack_floor: u64,
}

/// All open tabs, and the state sent to a new one.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    opened: Notify,
    started: Instant,
}

impl Default for Hub {
    fn default() -> Self {
        Self { inner: Mutex::default(), opened: Notify::default(), started: Instant::now() }
    }
}

#[derive(Default)]
struct Inner {
    tabs: Vec<Tab>,
    closed: bool,
    recent: VecDeque<Dot>,
    counts: BTreeMap<String, u64>,
    /// Number of events in each of the last frames.
    beats: VecDeque<usize>,
    lanes: Option<Frame>,
    told: BTreeMap<String, (Instant, Told)>,
    dead: BTreeMap<String, u64>,
    /// The last verdict.
    judged: Option<(Instant, Verdict)>,
}

impl Inner {
    fn tell(&mut self, frame: &Frame) {
        self.tabs.retain(|tab| tab.tell(frame));
    }

    fn invariants(&self) -> Frame {
        let all = self.told.values().map(|(since, told)| {
            json!({ "ageMillis": since.elapsed().as_millis() as u64, "source": told.source, "at": told.at,
                    "nextWithin": told.next_within, "invariants": told.invariants })
        });
        frame("invariants", &all.collect::<Vec<Value>>())
    }

    fn events(&self, dots: &[Dot], skipped: u64) -> Frame {
        let rate: usize = self.beats.iter().sum();
        let data = json!({ "events": dots, "counts": self.counts, "rate": rate, "skipped": skipped });
        Frame { events: dots.len() as u64, ..frame("events", &data) }
    }
}

fn frame(name: &'static str, data: &impl Serialize) -> Frame {
    Frame { name, data: serde_json::to_string(data).unwrap_or_default().into(), events: 0 }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all tabs' streams.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.tabs.clear();
    }

    pub(crate) fn watched(&self) -> bool {
        let mut inner = self.lock();
        inner.tabs.retain(Tab::is_open);
        !inner.tabs.is_empty()
    }

    /// Waits until a tab is open.
    pub(crate) async fn watcher(&self) {
        loop {
            let opened = self.opened.notified();
            if self.watched() {
                return;
            }
            opened.await;
        }
    }

    /// Opens a tab, unless there are too many: its initial state, and the updates that follow.
    fn open(&self) -> Option<(Vec<Frame>, impl Stream<Item = Frame> + Send + use<>)> {
        let mut inner = self.lock();
        inner.tabs.retain(Tab::is_open);
        if inner.closed || inner.tabs.len() >= TABS {
            return None;
        }
        let (tab, frames) = Tab::open();
        inner.tabs.push(tab);
        let recent: Vec<Dot> = inner.recent.iter().cloned().collect();
        let mut first = vec![inner.events(&recent, 0), inner.invariants()];
        first.extend(inner.lanes.clone());
        first.extend(inner.judged.as_ref().map(|(_, verdict)| frame("verdict", verdict)));
        drop(inner);
        self.opened.notify_waiters();
        Some((first, frames))
    }

    /// Sends the events of the last frame, or those `before` the first tab was opened.
    fn pass(&self, events: &[Stored], skipped: u64, before: bool) {
        let mut inner = self.lock();
        inner.beats.push_back(if before { 0 } else { events.len() });
        while inner.beats.len() > BEATS {
            inner.beats.pop_front();
        }
        if events.is_empty() && skipped == 0 {
            return;
        }
        let rate = inner.beats.iter().sum::<usize>().max(1);
        let mut shown = vec![];
        for stored in events {
            let kind = stored.header(header::TYPE).map_or_else(|| stored.subject.clone(), clip);
            // A closed set, except for events published by other systems.
            if inner.counts.len() < 500 || inner.counts.contains_key(&kind) {
                *inner.counts.entry(kind.clone()).or_default() += 1;
            }
            if is_sampled(stored, rate) {
                shown.push(dot(stored, kind));
            }
        }
        // A sample of whole correlations may exceed the number it is limited to.
        let most = if rate > SHOWN_PER_SECOND { 2 * SHOWN_PER_SECOND / BEATS } else { RECENT };
        shown.drain(..shown.len().saturating_sub(most));
        inner.recent.extend(shown.iter().cloned());
        while inner.recent.len() > RECENT {
            inner.recent.pop_front();
        }
        let frame = inner.events(&shown, skipped);
        inner.tell(&frame);
    }

    /// Sends the state of the services.
    pub(crate) fn look(&self, status: &SystemStatus) {
        let mut inner = self.lock();
        let frame = frame("lanes", &lanes(status, &inner.dead));
        inner.tell(&frame);
        inner.lanes = Some(frame);
    }

    /// Sends the verdict of a poll.
    pub(crate) fn judge(&self, verdict: Verdict) {
        let mut inner = self.lock();
        inner.tell(&frame("verdict", &verdict));
        inner.judged = Some((Instant::now(), verdict));
    }

    /// The last verdict and its age; without one, none is known since the start.
    pub(crate) fn verdict(&self) -> (Instant, Option<Verdict>) {
        match &self.lock().judged {
            Some((judged, verdict)) => (*judged, Some(verdict.clone())),
            None => (self.started, None),
        }
    }

    /// The last result of each checker of invariants that was heard.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.lock().told.values().map(|(_, told)| told.clone()).collect()
    }

    /// Sends what a checker of invariants told so long ago, if that is new.
    pub(crate) fn hear(&self, told: Told, ago: Duration) {
        let mut inner = self.lock();
        let known = inner.told.get(&told.source);
        if known.map_or(inner.told.len() >= TELLERS, |(_, known)| known.at >= told.at) {
            return;
        }
        let Some(heard) = Instant::now().checked_sub(ago) else { return };
        inner.told.insert(told.source.clone(), (heard, told));
        let frame = inner.invariants();
        inner.tell(&frame);
    }

    pub(crate) fn trouble(&self, error: &dyn Display) {
        tracing::debug!(%error, "no updates for the tabs");
        self.lock().tell(&frame("trouble", &json!({ "error": error.to_string() })));
    }
}

/// Whether an event is in the sample at this rate: a correlation is sampled as a whole or not at all.
fn is_sampled(stored: &Stored, rate: usize) -> bool {
    if rate <= SHOWN_PER_SECOND {
        return true;
    }
    let mut hash = DefaultHasher::new();
    match stored.header(header::CORRELATION) {
        Some(correlation) => correlation.hash(&mut hash),
        None => stored.sequence.hash(&mut hash),
    }
    hash.finish() % rate as u64 <= SHOWN_PER_SECOND as u64
}

fn dot(stored: &Stored, kind: String) -> Dot {
    let text = |name| stored.header(name).map(clip);
    Dot {
        stream: stored.stream.clone(),
        sequence: stored.sequence,
        kind,
        source: text(header::SOURCE).unwrap_or_default(),
        key: text(header::SUBJECT),
        id: text(header::ID),
        causation: text(header::CAUSATION),
        correlation: text(header::CORRELATION),
        at: stored.at,
    }
}

fn clip(text: String) -> String {
    if text.len() <= TEXT { text } else { text.chars().take(TEXT / 4).chain(['…']).collect() }
}

pub(crate) fn routes() -> Router<Arc<Console>> {
    Router::new().route("/api/live", get(live))
}

async fn live(State(console): State<Arc<Console>>) -> Response {
    let Some((first, frames)) = console.hub.open() else {
        return Problem::unavailable(format!("the limit of {TABS} open tabs is reached: close one")).into_response();
    };
    let demo: Vec<Value> =
        console.demo.iter().map(|action| json!({ "label": action.label, "hint": action.hint })).collect();
    let hello = json!({
        "allowActions": console.acting.refusal().is_none(),
        "readOnly": console.acting.refusal(),
        "demo": demo,
        "runbook": console.runbook.is_some(),
        "version": crate::page::version(),
        "now": Timestamp::system(),
    });
    let first = std::iter::once(frame("hello", &hello)).chain(first);
    let told = stream::iter(first.collect::<Vec<_>>()).chain(frames);
    let events = told.map(|frame| Ok::<_, Infallible>(Event::default().event(frame.name).data(&*frame.data)));
    // A disconnected tab reconnects after a second.
    let retry = stream::iter([Ok(Event::default().retry(Duration::from_secs(1)))]);
    Sse::new(retry.chain(events)).keep_alive(KeepAlive::new().interval(Duration::from_secs(5))).into_response()
}

/// Feeds the tabs, until the process ends.
pub(crate) async fn run(console: Arc<Console>) -> Result<()> {
    tokio::join!(follow(&console), listen(&console));
    Ok(())
}

/// Events.
async fn follow(console: &Console) {
    let hub = &console.hub;
    loop {
        hub.watcher().await;
        let since = Timestamp::system() - BEFORE;
        let mut tail = match Tail::start(console.operator.clone(), since, TailFilter::default()).await {
            Ok(tail) => tail,
            Err(error) => {
                hub.trouble(&error);
                sleep(AGAIN).await;
                continue;
            }
        };
        let mut before = true;
        while hub.watched() {
            match tail.next(READ_PER_BEAT).await {
                Ok((events, skipped)) => hub.pass(&events, skipped, std::mem::take(&mut before)),
                Err(error) => hub.trouble(&error),
            }
            sleep(BEAT).await;
        }
    }
}

fn lanes(status: &SystemStatus, dead: &BTreeMap<String, u64>) -> Vec<Lane> {
    let instances = status.instances.iter().map(|instance| &instance.service);
    // A durable has the name of its service.
    let names = instances.chain(status.consumers.iter().map(|consumer| &consumer.name)).chain(dead.keys());
    let names: BTreeSet<&String> = names.collect();
    let lane = |service: &String| {
        let mut lane =
            Lane { service: service.clone(), dead: dead.get(service).copied().unwrap_or(0), ..Lane::default() };
        for instance in status.instances.iter().filter(|instance| instance.service == *service) {
            lane.instances += 1;
            let waiting = instance.health["waitingFor"].as_array().into_iter().flatten();
            lane.waiting.extend(waiting.filter_map(Value::as_str).map(str::to_owned));
            for (name, value) in instance.totals.as_object().into_iter().flatten() {
                *lane.totals.entry(name.clone()).or_default() += value.as_f64().unwrap_or(0.0);
            }
        }
        let unanswered = status.silences(service, Timestamp::system());
        lane.waiting.extend(unanswered);
        lane.waiting.sort();
        lane.waiting.dedup();
        let domain = format!("{service}.>");
        let own = status.streams.iter().find(|stream| stream.subjects.contains(&domain));
        lane.emitted = own.map(|stream| stream.last_sequence);
        let consumers = status.consumers.iter().filter(|consumer| consumer.name == *service);
        lane.consumers = consumers
            .map(|consumer| Reads {
                stream: consumer.stream.clone(),
                events: consumer.events.clone(),
                pending: consumer.pending,
                ack_pending: consumer.ack_pending,
                redelivered: consumer.redelivered,
                ack_floor: consumer.ack_floor,
            })
            .collect();
        lane
    };
    names.into_iter().map(lane).collect()
}

/// Which dead letters the tabs have been sent, as the last record sequence of each service.
#[derive(Default)]
pub(crate) struct News {
    seen: Option<HashMap<String, u64>>,
}

impl News {
    /// Sends the dead letters that are new since the last call; the first call sends none. Notes how many each service
    /// has.
    pub(crate) fn tell(&mut self, letters: &Letters, hub: &Hub) {
        let mut counts = BTreeMap::new();
        let mut last: HashMap<String, u64> = HashMap::new();
        let mut new = vec![];
        for letter in letters.list(&DeadFilter::default()) {
            *counts.entry(letter.service.clone()).or_default() += 1;
            let highest = last.entry(letter.service.clone()).or_default();
            *highest = letter.record_sequence.max(*highest);
            let seen = |seen: &HashMap<String, u64>| seen.get(&letter.service).copied().unwrap_or(0);
            let is_new = self.seen.as_ref().is_some_and(|before| letter.record_sequence > seen(before));
            if is_new && letter.state == LetterState::Dead && new.len() < SHOWN_PER_SECOND {
                new.push(json!({
                    "service": letter.service, "event": letter.event, "id": letter.id, "reason": letter.reason,
                    "stream": letter.stream, "sequence": letter.sequence, "key": letter.key.clone().map(clip), "at": letter.at,
                }));
            }
        }
        let seen = self.seen.get_or_insert_default();
        last.into_iter().for_each(|(service, highest)| {
            let known = seen.entry(service).or_default();
            *known = highest.max(*known);
        });
        let mut inner = hub.lock();
        inner.dead = counts;
        if !new.is_empty() {
            inner.tell(&frame("letters", &new));
        }
    }
}

/// Invariants.
async fn listen(console: &Console) {
    loop {
        let mut told = match console.operator.client().subscribe(SUBJECT).await {
            Ok(told) => told,
            Err(error) => {
                tracing::debug!(%error, "cannot subscribe to invariants");
                sleep(AGAIN).await;
                continue;
            }
        };
        while let Some(message) = told.next().await {
            if let Ok(told) = serde_json::from_slice(&message.payload) {
                console.hub.hear(told, Duration::ZERO);
            }
        }
    }
}
