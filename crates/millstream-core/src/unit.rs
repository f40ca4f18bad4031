//! [`Unit`]: what one handling may read, and what it stages.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use bytes::Bytes;

use crate::bson::{self, Unstorable};
use crate::event::{Emitted, Event, Meta, Stream, assert_type_in_stream};
use crate::handler::{Document, Fault, Key, Keys, Kind, Reject, Wake};
use crate::ids::{Id, Timestamp};
use crate::metric::Metric;
use crate::view::{Slot, View, new_wake};

/// What a handler works with: documents to read, and a place to stage changes, events, wakes and counts.
///
/// Everything staged becomes durable with one commit, or not at all.
pub struct Unit<'a> {
    view: &'a View,
    cx: &'a Context<'a>,
    staged: Staged,
    /// The document that ended this run, because it is not loaded.
    missed: Cell<Option<Key>>,
}

#[doc(hidden)]
/// What the engine knows about the input being handled.
pub struct Context<'a> {
    pub rules: &'a Rules,
    pub now: Timestamp,
    /// The input's own id, time, correlation; cause of all it emits.
    pub cause: Meta,
    /// The document whose wake this input is the outcome of: only that wake may be moved while its intent is open.
    pub settles: Option<Key>,
}

impl Context<'_> {
    /// The event or command behind this input: itself, or what set the wake, for an outcome is neither.
    pub fn origin(&self) -> Id {
        let set_by = self.settles.as_ref().and(self.cause.causation.as_ref());
        set_by.and_then(|id| id.parse().ok()).unwrap_or(self.cause.id)
    }
}

/// How large a document may be as JSON, and all that one input emits: what every store takes. A record of MongoDB's has at most
/// 16 MiB.
const LARGEST: usize = 7 << 20;

#[doc(hidden)]
/// What a service may stage.
#[derive(Clone, Debug)]
pub struct Rules {
    pub service: &'static str,
    pub streams: Vec<Stream>,
    /// The largest message in bytes that may be emitted: headers and body.
    pub max_message: usize,
    pub kinds: Vec<(&'static str, &'static str)>,
    /// The collections that are declared; `None` where nobody checks.
    pub collections: Option<Vec<&'static str>>,
}

impl Rules {
    /// Whether the store has the document's collection; asked for another it would fail each time, as if it were away.
    pub fn keeps(&self, key: &Key) -> bool {
        self.collections.as_ref().is_none_or(|collections| collections.contains(&key.collection))
    }
}

#[doc(hidden)]
#[derive(Default)]
pub struct Staged {
    pub docs: Vec<(Key, Change)>,
    pub reads: Vec<Key>,
    pub emitted: Vec<Emitted>,
    pub counts: Vec<Count>,
    /// The next wake of the document whose wake is being ended.
    next: Option<(&'static str, Timestamp)>,
    refused: Option<Refusal>,
}

/// Something was staged that is not allowed: the handling fails as a whole.
enum Refusal {
    TooLarge(String),
    Ahead(String),
    Wrong(String),
}

#[doc(hidden)]
/// A number for a metric, applied after the commit.
#[derive(Clone, Copy)]
pub struct Count {
    pub metric: &'static Metric,
    pub labels: &'static [&'static str],
    pub value: f64,
}

#[doc(hidden)]
#[derive(Clone)]
pub struct Change {
    pub body: Body,
    pub wake: WakeChange,
}

#[doc(hidden)]
#[derive(Clone)]
pub enum WakeChange {
    Keep,
    Clear,
    /// The same wake at another time.
    Move(Timestamp),
    Set {
        kind: &'static str,
        at: Timestamp,
    },
}

#[doc(hidden)]
pub type Decoded = Arc<dyn Any + Send + Sync>;

#[doc(hidden)]
#[derive(Clone)]
pub struct Body {
    pub json: Bytes,
    pub shape: u32,
    pub decoded: Option<Decoded>,
}

impl<'a> Unit<'a> {
    /// The time of this batch attempt: the same for all that it handles.
    pub fn now(&self) -> Timestamp {
        self.cx.now
    }

    /// The input's correlation id.
    pub fn correlation(&self) -> &str {
        &self.cx.cause.correlation
    }

    /// Reads a document and guards it: the commit fails, and everything is handled again, if it has changed meanwhile.
    ///
    /// # Errors
    /// [`Fault::Ahead`] when a newer release has written it in a form that this one does not know; [`Fault::Retry`] when it does
    /// not parse.
    ///
    /// # Panics
    /// When the service does not keep the collection.
    pub fn get<D: Document>(&mut self, id: &str) -> Result<Option<D>, Fault> {
        let key = Key { collection: D::COLLECTION, id: id.into() };
        let found = self.read::<D>(&key)?;
        if !self.staged.reads.contains(&key) {
            self.staged.reads.push(key);
        }
        Ok(found)
    }

    /// Reads a document without a guard: it may have changed by the time of the commit.
    ///
    /// # Errors
    /// As [`Unit::get`].
    ///
    /// # Panics
    /// When the service does not keep the collection.
    pub fn peek<D: Document>(&self, id: &str) -> Result<Option<D>, Fault> {
        self.read::<D>(&Key { collection: D::COLLECTION, id: id.into() })
    }

    fn read<D: Document>(&self, key: &Key) -> Result<Option<D>, Fault> {
        let body = match self.staged.docs.iter().find(|(staged, _)| staged == key) {
            Some((_, change)) => Some(&change.body),
            None => self.slot(key).body.as_ref(),
        };
        body.map(decode::<D>).transpose()
    }

    /// A document that was loaded. What `touches` did not name ends the run: the document is loaded, and the input handled again.
    fn slot(&self, key: &Key) -> &'a Slot {
        if let Some(slot) = self.view.slots.get(key) {
            return slot;
        }
        let (rules, collection) = (self.cx.rules, key.collection);
        assert!(
            rules.keeps(key),
            "`{}` does not keep the collection `{collection}`: declare it with `keeps`",
            rules.service
        );
        self.missed.set(Some(key.clone()));
        // Unlike a panic it is not reported.
        resume_unwind(Box::new(Missing));
    }

    /// The wake that a document carries, with what this unit has staged of it.
    ///
    /// # Panics
    /// When the service does not keep the collection.
    pub fn wake_of<D: Document>(&self, id: &str) -> Option<Wake> {
        let key = Key { collection: D::COLLECTION, id: id.into() };
        let slot = self.slot(&key);
        match self.staged.docs.iter().find(|(staged, _)| *staged == key).map(|(_, change)| &change.wake) {
            Some(WakeChange::Clear) => None,
            Some(WakeChange::Set { kind, at }) => Some(new_wake(kind, *at, slot.version, self.cx)),
            Some(WakeChange::Move(at)) => slot.wake.clone().map(|wake| Wake { at: *at, ..wake }),
            Some(WakeChange::Keep) | None => slot.wake.clone(),
        }
    }

    /// Stages a new or changed document; its wake stays as it is.
    pub fn put<D: Document>(&mut self, document: D) {
        self.stage(document, WakeChange::Keep);
    }

    /// Stages a document with a wake of `kind`, due at `at`, in place of any it has.
    ///
    /// Refused while an intent is open on it (attempt 1 or more) by all but the intent's own outcome.
    pub fn put_with_wake<D: Document>(&mut self, document: D, kind: Kind<D>, at: Timestamp) {
        self.stage(document, WakeChange::Set { kind: kind.name(), at });
    }

    /// Stages a document without a wake; refused as [`Unit::put_with_wake`] is.
    pub fn put_without_wake<D: Document>(&mut self, document: D) {
        self.stage(document, WakeChange::Clear);
    }

    /// Within [`Effect::settle`](crate::Effect::settle) and [`Timer::fire`](crate::Timer::fire): gives the document its next wake.
    pub fn set_next_wake<D: Document>(&mut self, kind: Kind<D>, at: Timestamp) {
        self.staged.next = Some((kind.name(), at));
    }

    #[doc(hidden)]
    /// The wake of a document of whatever type, as loaded.
    pub fn standing_wake(&self, key: &Key) -> Option<&'a Wake> {
        self.slot(key).wake.as_ref()
    }

    #[doc(hidden)]
    /// Stages another wake for a document of whatever type, which stays as it is. The caller has seen that no attempt is under
    /// way.
    pub fn change_wake(&mut self, key: &Key, wake: WakeChange) {
        if let Some(body) = self.slot(key).body.clone() {
            self.staged.docs.push((key.clone(), Change { body, wake }));
        }
    }

    fn stage<D: Document>(&mut self, document: D, wake: WakeChange) {
        let key = Key { collection: D::COLLECTION, id: document.id().into() };
        let slot = self.slot(&key);
        if !matches!(wake, WakeChange::Keep)
            && self.cx.settles.as_ref() != Some(&key)
            && let Some(open) = slot.wake.as_ref().filter(|wake| wake.attempt > 0)
        {
            let kind = &open.kind;
            self.refuse(Refusal::Wrong(format!("{key:?} has an open `{kind}`: only its outcome may move or clear it")));
            return;
        }
        if let WakeChange::Set { kind, .. } = wake
            && !self.cx.rules.kinds.contains(&(kind, D::COLLECTION))
        {
            self.refuse(Refusal::Wrong(format!(
                "no effect or timer of kind `{kind}` is declared for `{}`",
                D::COLLECTION
            )));
            return;
        }
        if let Some(body) = &slot.body
            && body.shape > D::SHAPE
        {
            self.refuse(Refusal::Ahead(ahead::<D>(body.shape)));
            return;
        }
        let json = match serde_json::to_vec(&document) {
            Ok(json) => Bytes::from(json),
            Err(error) => {
                self.refuse(Refusal::Wrong(format!("{key:?} cannot be written as JSON: {error}")));
                return;
            }
        };
        if json.len() > LARGEST {
            let size = json.len();
            self.refuse(Refusal::TooLarge(format!("{key:?} would be {size} bytes, over the limit of {LARGEST}")));
            return;
        }
        if let Err(why) = bson::check(&json) {
            let text = format!("{key:?} cannot be stored: {why}");
            self.refuse(match why {
                Unstorable::TooLarge(_) => Refusal::TooLarge(text),
                Unstorable::Wrong(_) => Refusal::Wrong(text),
            });
            return;
        }
        let body = Body { json, shape: D::SHAPE, decoded: Some(Arc::new(document)) };
        match self.staged.docs.iter_mut().find(|(staged, _)| *staged == key) {
            Some((_, change)) => {
                change.body = body;
                if !matches!(wake, WakeChange::Keep) {
                    change.wake = wake;
                }
            }
            None => self.staged.docs.push((key, Change { body, wake })),
        }
    }

    /// Stages an event. Its id is derived from the input's, so handling the input again gives the same one.
    ///
    /// Refused when it is larger than the broker takes, or its stream is not one that the service publishes.
    /// An event whose type does not lie in its stream does not compile.
    pub fn emit<E: Event>(&mut self, event: &E) {
        const { assert_type_in_stream::<E>() };
        let rules = self.cx.rules;
        if !rules.streams.contains(&E::STREAM) {
            self.refuse(Refusal::Wrong(format!("`{}` does not publish `{}`", rules.service, E::STREAM.name)));
            return;
        }
        let cause = &self.cx.cause;
        let ordinal = u32::try_from(self.staged.emitted.len()).unwrap_or(u32::MAX);
        let meta = Meta {
            id: Id::derived(cause.time, rules.service, cause.id.bytes(), ordinal),
            time: self.cx.now,
            correlation: cause.correlation.clone(),
            causation: Some(self.cx.origin().to_string()),
            traceparent: cause.traceparent.clone(),
        };
        match Emitted::event(rules.service, &meta, event) {
            Ok(emitted) if emitted.wire_size() > rules.max_message => self.refuse(Refusal::TooLarge(format!(
                "`{}` would be {} bytes, over the broker's limit of {}",
                E::TYPE,
                emitted.wire_size(),
                rules.max_message
            ))),
            Ok(emitted) => self.staged.emitted.push(emitted),
            Err(error) => self.refuse(Refusal::Wrong(format!("`{}` cannot be written as JSON: {error}", E::TYPE))),
        }
    }

    /// Stages one more of `metric` with these label values: counted after the commit, so a conflict does not count twice.
    pub fn count(&mut self, metric: &'static Metric, labels: &'static [&'static str]) {
        self.count_by(metric, labels, 1.0);
    }

    /// Stages `value` for `metric`: added to a counter (whole numbers), recorded by a histogram, set on a gauge.
    pub fn count_by(&mut self, metric: &'static Metric, labels: &'static [&'static str], value: f64) {
        self.staged.counts.push(Count { metric, labels, value });
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.staged.refused.get_or_insert(refusal);
    }
}

fn decode<D: Document>(body: &Body) -> Result<D, Fault> {
    if let Some(document) = body.decoded.as_ref().and_then(|decoded| decoded.downcast_ref::<D>()) {
        return Ok(document.clone());
    }
    parse::<D>(&body.json, body.shape)
}

#[doc(hidden)]
/// Reads a stored document.
///
/// # Errors
/// [`Fault::Ahead`] when it has a newer shape, [`Fault::Retry`] when it does not parse.
pub fn parse<D: Document>(json: &[u8], shape: u32) -> Result<D, Fault> {
    let collection = D::COLLECTION;
    if shape > D::SHAPE {
        return Err(Fault::Ahead(ahead::<D>(shape)));
    }
    serde_json::from_slice(json)
        .map_err(|error| Fault::Retry(format!("a document of `{collection}` cannot be read: {error}")))
}

fn ahead<D: Document>(shape: u32) -> String {
    format!("a document of `{}` has shape {shape}; this release knows {}", D::COLLECTION, D::SHAPE)
}

#[doc(hidden)]
/// Why a message cannot be handled as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// No release can.
    #[error("{0}")]
    Schema(String),
    /// A newer release may.
    #[error("{0}")]
    Ahead(String),
}

#[doc(hidden)]
/// One input, ready to be handled, of whatever kind.
pub trait Work: Send + Sync {
    fn touches(&self) -> Keys;
    fn handle(&self, unit: &mut Unit<'_>) -> Result<Option<Bytes>, Fault>;
}

#[doc(hidden)]
/// How a handling ended.
pub enum Ran {
    Handled {
        reply: Option<Bytes>,
        staged: Staged,
    },
    Retry(String),
    Ahead(String),
    Rejected(Reject),
    TooLarge(String),
    Panicked(String),
    Misused(String),
    /// It has read a document that is not loaded.
    Missed(Key),
}

/// What ends a run that has missed a document.
struct Missing;

#[doc(hidden)]
impl Ran {
    /// What went wrong.
    pub fn error(self) -> String {
        match self {
            Self::Handled { .. } | Self::Missed(_) => String::new(),
            Self::Retry(error)
            | Self::Ahead(error)
            | Self::TooLarge(error)
            | Self::Panicked(error)
            | Self::Misused(error) => error,
            Self::Rejected(reject) => reject.detail,
        }
    }
}

/// Runs one input over the view. Nothing is laid over the view yet; a panic is caught.
pub fn run(view: &View, cx: &Context<'_>, work: impl FnOnce(&mut Unit<'_>) -> Result<Option<Bytes>, Fault>) -> Ran {
    let mut unit = Unit { view, cx, staged: Staged::default(), missed: Cell::new(None) };
    let result = catch_unwind(AssertUnwindSafe(|| work(&mut unit)));
    if let Some(key) = unit.missed.take() {
        return Ran::Missed(key);
    }
    match (result, unit.staged.refused.take()) {
        (Err(panic), _) => Ran::Panicked(panic_text(&*panic)),
        (Ok(Err(Fault::Retry(why))), _) => Ran::Retry(why),
        (Ok(Err(Fault::Ahead(why))), _) | (Ok(Ok(_)), Some(Refusal::Ahead(why))) => Ran::Ahead(why),
        (Ok(Err(Fault::Reject(reject))), _) => Ran::Rejected(reject),
        (Ok(Ok(_)), Some(Refusal::TooLarge(why))) => Ran::TooLarge(why),
        (Ok(Ok(_)), Some(Refusal::Wrong(why))) => Ran::Misused(why),
        (Ok(Ok(reply)), None) => match unit.staged.emitted.iter().map(Emitted::wire_size).sum::<usize>() {
            size if size > LARGEST => {
                Ran::TooLarge(format!("it would emit {size} bytes at once, over the limit of {LARGEST}"))
            }
            _ => Ran::Handled { reply, staged: unit.staged },
        },
    }
}

#[doc(hidden)]
/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".into())
}

#[doc(hidden)]
/// What the outcome of a wake is known by: an id of (service, kind, document, generation), and the correlation that the wake
/// has carried.
pub fn outcome_meta(service: &str, key: &Key, wake: &Wake) -> Meta {
    let cause = format!("{}\n{}\n{}\n{}", wake.kind, key.collection, key.id, wake.generation);
    Meta {
        id: Id::derived(wake.opened, service, cause.as_bytes(), 0),
        time: wake.opened,
        correlation: wake.correlation.clone(),
        causation: Some(wake.cause.to_string()),
        traceparent: wake.traceparent.clone(),
    }
}

#[doc(hidden)]
/// Ends a document's wake: `end` changes the document, which is stored without the wake unless a new one was set.
pub fn end_wake<D: Document>(
    unit: &mut Unit<'_>,
    id: &str,
    end: impl FnOnce(&mut D, &mut Unit<'_>),
) -> Result<Option<Bytes>, Fault> {
    let mut document = unit.get::<D>(id)?.ok_or_else(|| Fault::Retry(format!("{} {id} is gone", D::COLLECTION)))?;
    end(&mut document, unit);
    let next = unit.staged.next.take();
    unit.stage(document, next.map_or(WakeChange::Clear, |(kind, at)| WakeChange::Set { kind, at }));
    Ok(None)
}
