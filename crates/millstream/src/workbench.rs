//! A service's handlers on a bench: documents in memory, no broker, no store, no clock. For tables of what a handler does in each
//! state, and for walking the state space of several services together, which needs states that are cheap to copy.
//!
//! A test of a service is one of [`crate::sim::Sim`], which has its retries, dead letters, effects and deadlines as they are in
//! production; the bench has none of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::event::{Emitted, Event, Meta, Received, Stream, assert_type_in_stream, header, split_type};
use crate::handler::{Command, CommandHandler, Document, Effect, Fault, Handler, Key, Keys, Timer, Wake};
use crate::ids::{Id, Timestamp};
use crate::service::Service;
use crate::store::StoredDoc;
use crate::telemetry::Metric;
use crate::unit::{Context, Ran, Rules, Unit, run};
use crate::view::View;
use crate::work::{AnyHandler, Itself};

/// A document as JSON, and the kind of its wake and whether that was claimed.
pub type DocumentState = (Key, Bytes, Option<(String, bool)>);

/// The documents of one service, and the rules that its handlers run under.
#[derive(Clone)]
pub struct Workbench {
    rules: Rules,
    handlers: Vec<Arc<dyn AnyHandler>>,
    counts: BTreeMap<(&'static str, &'static [&'static str]), f64>,
    /// The time that `unit.now()` gives.
    pub now: Timestamp,
    docs: BTreeMap<Key, StoredDoc>,
}

impl fmt::Debug for Workbench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workbench").field("service", &self.rules.service).field("documents", &self.state()).finish()
    }
}

/// What a broker with its default settings takes, less the room for a dead letter.
const MAX_MESSAGE: usize = (1 << 20) - (16 << 10);

impl Workbench {
    /// An empty bench for a service that publishes `streams`, at 2026-01-01T00:00:00Z.
    pub fn new(service: &'static str, streams: impl IntoIterator<Item = Stream>) -> Self {
        let streams = streams.into_iter().collect();
        let rules = Rules { service, streams, max_message: MAX_MESSAGE, kinds: vec![], collections: None };
        let now = Timestamp::from_millis(1_767_225_600_000);
        Self { rules, handlers: vec![], counts: BTreeMap::new(), now, docs: BTreeMap::new() }
    }

    /// An empty bench for a service as it is declared: with its streams, its wakes and timers, and its handlers for
    /// [`Workbench::deliver`].
    pub fn of(service: &Service) -> Self {
        let mut bench = Self::new(service.name, service.publishes.iter().copied());
        bench.rules = service.rules(MAX_MESSAGE);
        bench.handlers = service.reads.iter().flat_map(|reading| reading.handlers.clone()).collect();
        bench
    }

    /// Declares an effect.
    #[must_use]
    pub fn effect<E: Effect>(mut self) -> Self {
        self.rules.kinds.push((E::KIND.name(), E::Document::COLLECTION));
        self
    }

    /// Declares a timer.
    #[must_use]
    pub fn timer<T: Timer>(mut self) -> Self {
        self.rules.kinds.push((T::KIND.name(), T::Document::COLLECTION));
        self
    }

    /// A document as it stands.
    ///
    /// # Panics
    /// When it does not parse.
    pub fn get<D: Document>(&self, id: &str) -> Option<D> {
        let doc = self.docs.get(&Key { collection: D::COLLECTION, id: id.into() })?;
        Some(serde_json::from_slice(&doc.body).expect("a stored document parses"))
    }

    /// The wake that a document carries.
    pub fn wake_of<D: Document>(&self, id: &str) -> Option<&Wake> {
        self.docs.get(&Key { collection: D::COLLECTION, id: id.into() })?.wake.as_ref()
    }

    /// Puts a document there, without a wake.
    pub fn put<D: Document>(&mut self, document: &D) {
        let key = Key { collection: D::COLLECTION, id: document.id().into() };
        let version = self.docs.get(&key).map_or(1, |doc| doc.version + 1);
        let body = serde_json::to_vec(document).expect("a document is written as JSON").into();
        self.docs.insert(key.clone(), StoredDoc { key, version, shape: D::SHAPE, body, wake: None });
    }

    /// All that distinguishes one state from another. Versions and times are left out, so that a walk over states ends.
    pub fn state(&self) -> Vec<DocumentState> {
        let wake = |doc: &StoredDoc| doc.wake.as_ref().map(|wake| (wake.kind.clone(), wake.attempt > 0));
        self.docs.values().map(|doc| (doc.key.clone(), doc.body.clone(), wake(doc))).collect()
    }

    /// An event as it would be received, with an id derived from its type and key.
    pub fn received<E: Event>(&self, event: E) -> Received<E> {
        const { assert_type_in_stream::<E>() };
        let id = Id::derived(self.now, E::TYPE, event.key().as_bytes(), 0);
        Received { meta: self.meta(id), body: event }
    }

    /// Handles an event and gives what was emitted.
    ///
    /// # Errors
    /// As the handler; then nothing has changed.
    ///
    /// # Panics
    /// When the handler panics or stages what it must not.
    pub fn handle<E: Event>(&mut self, handler: &impl Handler<E>, event: &Received<E>) -> Result<Vec<Emitted>, Fault> {
        const { assert_type_in_stream::<E>() };
        let touches = handler.touches(event);
        let done = self.run(&event.meta, touches, None, |unit| handler.handle(event, unit).map(|()| None))?;
        Ok(done.1)
    }

    /// Whether the service declares a handler for a message's type.
    pub fn handles(&self, message: &Emitted) -> bool {
        self.handler_of(message).is_some()
    }

    fn handler_of(&self, message: &Emitted) -> Option<Arc<dyn AnyHandler>> {
        let ce_type = message.header(header::TYPE)?;
        let (event, _) = split_type(&ce_type)?;
        self.handlers.iter().find(|handler| handler.event_type() == event).cloned()
    }

    /// Hands a message to the handler that the service declares for its type, and gives what was emitted; `None` if it
    /// declares none.
    ///
    /// # Errors
    /// As the handler; then nothing has changed.
    ///
    /// # Panics
    /// When the message is not in wire form, or the handler panics or stages what it must not.
    pub fn deliver(&mut self, message: &Emitted) -> Option<Result<Vec<Emitted>, Fault>> {
        let handler = self.handler_of(message)?;
        let event = handler.event_type();
        let text = |name| message.header(name).unwrap_or_else(|| panic!("`{event}` has no `{name}`"));
        let meta = Meta {
            id: text(header::ID).parse().expect("an emitted id parses"),
            time: text(header::TIME).parse().expect("an emitted time parses"),
            correlation: text(header::CORRELATION),
            causation: message.header(header::CAUSATION),
            traceparent: message.header(header::TRACEPARENT),
        };
        let version =
            split_type(&text(header::TYPE)).map(|(_, version)| version).expect("an emitted type has a version");
        let work = handler.decode(version, meta.clone(), &message.payload);
        let work = work.unwrap_or_else(|why| panic!("`{event}`: {why}"));
        Some(self.run(&meta, work.touches(), None, |unit| work.handle(unit)).map(|done| done.1))
    }

    /// What has been counted for a metric, over all series whose label values begin with `labels`.
    pub fn counted(&self, metric: &Metric, labels: &[&str]) -> f64 {
        let of = |(name, values): &(&str, &[&str])| *name == metric.name && values.starts_with(labels);
        self.counts.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
    }

    /// Executes a command with a given id and gives its reply as JSON, and what was emitted.
    ///
    /// # Errors
    /// As the command; then nothing has changed.
    ///
    /// # Panics
    /// When the command panics or stages what it must not.
    pub fn command<C: Command>(&mut self, id: Id, command: &C) -> Result<(Value, Vec<Emitted>), Fault> {
        self.command_to(&Itself, id, command)
    }

    /// Executes a command by a handler of its own; see [`Workbench::command`].
    ///
    /// # Errors
    /// As the handler; then nothing has changed.
    ///
    /// # Panics
    /// When the handler panics or stages what it must not.
    pub fn command_to<C>(
        &mut self,
        handler: &impl CommandHandler<C>,
        id: Id,
        command: &C,
    ) -> Result<(Value, Vec<Emitted>), Fault> {
        let touches = handler.touches(command, id);
        let (reply, emitted) = self.run(&self.meta(id), touches, None, |unit| {
            let reply = handler.handle(command, id, unit)?;
            Ok(Some(serde_json::to_vec(&reply).expect("a reply is written as JSON").into()))
        })?;
        let reply = reply.map(|reply| serde_json::from_slice(&reply).expect("a reply parses"));
        Ok((reply.unwrap_or(Value::Null), emitted))
    }

    /// Claims the wake of a document, as the engine does before it runs the effect; says whether there was one of the kind.
    pub fn claim<E: Effect>(&mut self, id: &str) -> bool {
        let doc = self.docs.get_mut(&Key { collection: E::Document::COLLECTION, id: id.into() });
        let Some(doc) = doc.filter(|doc| doc.wake.as_ref().is_some_and(|wake| wake.kind == E::KIND.name())) else {
            return false;
        };
        doc.version += 1;
        if let Some(wake) = &mut doc.wake {
            wake.attempt += 1;
        }
        true
    }

    /// Settles the wake of a document with an outcome and gives what was emitted; nothing if it has no such wake.
    ///
    /// # Panics
    /// When settling panics or stages what it must not.
    pub fn settle<E: Effect>(&mut self, effect: &E, id: &str, outcome: E::Outcome) -> Vec<Emitted> {
        self.end_wake::<E::Document>(E::KIND.name(), id, |document, unit| {
            effect.settle(document, outcome.clone(), unit)
        })
    }

    /// Fires the timer of a document and gives what was emitted; nothing if it has no such wake.
    ///
    /// # Panics
    /// When the timer panics or stages what it must not.
    pub fn fire<T: Timer>(&mut self, timer: &T, id: &str) -> Vec<Emitted> {
        self.end_wake::<T::Document>(T::KIND.name(), id, |document, unit| timer.fire(document, unit))
    }

    fn end_wake<D: Document>(&mut self, kind: &str, id: &str, end: impl Fn(&mut D, &mut Unit<'_>)) -> Vec<Emitted> {
        let key = Key { collection: D::COLLECTION, id: id.into() };
        let Some(wake) = self.wake_of::<D>(id).filter(|wake| wake.kind == kind).cloned() else { return vec![] };
        let meta = crate::unit::outcome_meta(self.rules.service, &key, &wake);
        let touches = Keys(vec![key.clone()]);
        let done = self.run(&meta, touches, Some(key), |unit| crate::unit::end_wake::<D>(unit, id, &end));
        done.unwrap_or_else(|fault| panic!("{fault:?}")).1
    }

    fn meta(&self, id: Id) -> Meta {
        Meta { id, time: self.now, correlation: id.to_string(), causation: None, traceparent: None }
    }

    fn run(
        &mut self,
        meta: &Meta,
        touches: Keys,
        settles: Option<Key>,
        work: impl Fn(&mut Unit<'_>) -> Result<Option<Bytes>, Fault>,
    ) -> Result<(Option<Bytes>, Vec<Emitted>), Fault> {
        let mut touches: Vec<Key> = touches.0.into_iter().filter(|key| self.rules.keeps(key)).collect();
        let cx = Context { rules: &self.rules, now: self.now, cause: meta.clone(), settles };
        let (ran, mut view) = loop {
            let found = touches.iter().filter_map(|key| self.docs.get(key).cloned()).collect();
            let view = View::new(touches.iter().cloned(), found);
            match run(&view, &cx, &work) {
                Ran::Missed(key) => touches.push(key),
                ran => break (ran, view),
            }
        };
        match ran {
            Ran::Handled { reply, mut staged } => {
                view.apply(&mut staged, &cx);
                for count in staged.counts.drain(..) {
                    *self.counts.entry((count.metric.name, count.labels)).or_default() += count.value;
                }
                for doc in view.writes() {
                    if let Some(new) = doc.write {
                        let version = doc.expected.unwrap_or(0) + 1;
                        let key = doc.key;
                        let stored =
                            StoredDoc { key: key.clone(), version, shape: new.shape, body: new.body, wake: new.wake };
                        self.docs.insert(key, stored);
                    }
                }
                Ok((reply, staged.emitted))
            }
            Ran::Retry(why) => Err(Fault::Retry(why)),
            Ran::Ahead(why) => Err(Fault::Ahead(why)),
            Ran::Rejected(reject) => Err(Fault::Reject(reject)),
            Ran::TooLarge(why) | Ran::Panicked(why) | Ran::Misused(why) => panic!("{why}"),
            Ran::Missed(_) => unreachable!("it was loaded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Serialize, Deserialize)]
    struct Thing {}

    impl Document for Thing {
        const COLLECTION: &'static str = "things";
        fn id(&self) -> &str {
            "one"
        }
    }

    #[derive(Serialize)]
    struct Make;

    impl Command for Make {
        type Reply = ();
        fn touches(&self, _: Id) -> Keys {
            Keys::one::<Thing>("one")
        }
        fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
            unit.put(Thing {});
            Ok(())
        }
    }

    #[test]
    #[should_panic(expected = "does not keep the collection `things`")]
    fn a_collection_that_the_service_does_not_keep_is_found_on_the_bench() {
        let _ = Workbench::of(&Service::new("forgetful")).command(Id::random(Timestamp::from_millis(0)), &Make);
    }
}
