//! What a service is made of: documents, and pure functions from an input and documents to changed documents and events.
//!
//! A [`Handler`] reacts to events, a [`Command`] comes in over HTTP, a [`Timer`] fires at a document's due time, and an
//! [`Effect`] does something outside and settles its outcome. All but [`Effect::run`] are plain synchronous functions without I/O,
//! clock or randomness: they may be run again after a conflict, and are tested without a mock.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Received};
use crate::ids::{Id, Timestamp};
use crate::metric::Metric;
use crate::unit::Unit;

/// A service's own record: one of a collection, with an id, kept with a version by the store.
///
/// An added field needs `#[serde(default)]`. A change that an older release must not overwrite raises [`Document::SHAPE`]: a
/// release that meets a higher one leaves the document alone, and the message that is about it waits for a newer release
/// ([`Fault::Ahead`]).
pub trait Document: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The collection's name: lower-case letters, digits and `_`.
    const COLLECTION: &'static str;
    /// The version of the document's JSON shape; raise it when an older release must not overwrite the document.
    const SHAPE: u32 = 1;
    /// JSON fields that queries filter by, as in `maker` or `maker.city`; each is indexed.
    const INDEXED: &'static [&'static str] = &[];

    /// The document's id within its collection.
    fn id(&self) -> &str;
}

/// A document's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The collection.
    pub collection: &'static str,
    /// The id within it.
    pub id: String,
}

/// The documents a handler wants loaded before it runs. It may use others as well: each one missed costs a further load, after which
/// the handler is run again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(pub Vec<Key>);

impl Keys {
    /// No document.
    pub fn none() -> Self {
        Self::default()
    }

    /// One document.
    pub fn one<D: Document>(id: impl Into<String>) -> Self {
        Self::none().and::<D>(id)
    }

    /// Adds one document.
    #[must_use]
    pub fn and<D: Document>(mut self, id: impl Into<String>) -> Self {
        self.0.push(Key { collection: D::COLLECTION, id: id.into() });
        self
    }

    /// Adds documents of one collection.
    #[must_use]
    pub fn and_all<D: Document>(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.extend(ids.into_iter().map(|id| Key { collection: D::COLLECTION, id: id.into() }));
        self
    }
}

/// Reacts to a type of event. A service has one handler for an event type; one handler may serve several.
pub trait Handler<E: Event>: Send + Sync + 'static {
    /// Which documents [`Handler::handle`] reads or writes, as far as the event tells: they are loaded before it runs, with those
    /// of the whole batch in one read. This is an optimisation and no promise. When `handle` uses a document that is not named
    /// here, the handling is dropped, the document loaded, and the event handled again with it.
    fn touches(&self, event: &Received<E>) -> Keys {
        let _ = event;
        Keys::none()
    }

    /// Handles the event: reads and stages documents, emits events. What it staged is dropped when it fails.
    ///
    /// # Errors
    /// [`Fault::Retry`] to be tried again later, [`Fault::Reject`] to be parked as a dead letter.
    fn handle(&self, event: &Received<E>, unit: &mut Unit<'_>) -> Result<(), Fault>;
}

/// Something a caller asks for. It is serialized to compare a repeat under one `Idempotency-Key` with the original, by
/// meaning, so everything that matters is a field of it, path parameters included.
pub trait Command: Serialize + Send + Sync + 'static {
    /// What is answered, once the commit is durable.
    type Reply: Serialize;

    /// Which documents [`Command::handle`] reads or writes, as far as the command tells; an optimisation, as
    /// [`Handler::touches`] is. `id` is this command's own, made of arrival time and randomness.
    fn touches(&self, id: Id) -> Keys {
        let _ = id;
        Keys::none()
    }

    /// Handles the command.
    ///
    /// # Errors
    /// [`Fault::Reject`] is an error of the caller (4xx), [`Fault::Retry`] a temporary failure (503).
    fn handle(&self, id: Id, unit: &mut Unit<'_>) -> Result<Self::Reply, Fault>;
}

/// Handles commands of a type that is only data, with what is not part of them: settings, a clock, a port. A [`Command`] is its
/// own handler; one of these goes in with `Context::submit_to`.
///
/// A repeat under an `Idempotency-Key` is compared by the command alone: it stays one when the handler's settings have changed.
pub trait CommandHandler<C>: Send + Sync + 'static {
    /// What is answered, once the commit is durable.
    type Reply: Serialize;

    /// As [`Command::touches`].
    fn touches(&self, command: &C, id: Id) -> Keys {
        let _ = (command, id);
        Keys::none()
    }

    /// Handles the command.
    ///
    /// # Errors
    /// As [`Command::handle`].
    fn handle(&self, command: &C, id: Id, unit: &mut Unit<'_>) -> Result<Self::Reply, Fault>;
}

impl<C, H: CommandHandler<C>> CommandHandler<C> for Arc<H> {
    type Reply = H::Reply;

    fn touches(&self, command: &C, id: Id) -> Keys {
        (**self).touches(command, id)
    }

    fn handle(&self, command: &C, id: Id, unit: &mut Unit<'_>) -> Result<H::Reply, Fault> {
        (**self).handle(command, id, unit)
    }
}

/// The kind of a wake: its name, unique within the service, and the documents that carry it. It ties what sets a wake to the
/// [`Effect`] or [`Timer`] that it belongs to:
///
/// ```
/// # use millstream_core::{Document, Kind, Timestamp, Unit};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Payment { id: String }
/// # impl Document for Payment {
/// #     const COLLECTION: &'static str = "payments";
/// #     fn id(&self) -> &str { &self.id }
/// # }
/// const CHARGE: Kind<Payment> = Kind::new("charge");
///
/// fn charge(payment: Payment, at: Timestamp, unit: &mut Unit<'_>) {
///     unit.put_with_wake(payment, CHARGE, at);
/// }
/// ```
pub struct Kind<D> {
    name: &'static str,
    document: PhantomData<fn() -> D>,
}

impl<D> Kind<D> {
    /// A kind of this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, document: PhantomData }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl<D> Clone for Kind<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Kind<D> {}

impl<D> fmt::Debug for Kind<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.name).finish()
    }
}

impl<D> fmt::Display for Kind<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A due time on a document at which a plain function runs and no external system is called: an order's deadline.
pub trait Timer: Send + Sync + 'static {
    /// The document that carries the wake.
    type Document: Document;
    /// The wake's kind, unique within the service.
    const KIND: Kind<Self::Document>;

    /// Called when the wake is due. The wake is cleared unless a new one is set; the document is stored as it is left.
    fn fire(&self, document: &mut Self::Document, unit: &mut Unit<'_>);

    /// A gauge without labels, among the service's metrics, for the number of documents whose wake is overdue by more than this
    /// tolerance. All replicas show the same.
    fn overdue(&self) -> Option<(&'static Metric, Duration)> {
        None
    }

    /// An operator has taken it away: the document may say so. The wake is cleared unless a new one is set.
    fn cancelled(&self, document: &mut Self::Document, unit: &mut Unit<'_>) {
        let _ = (document, unit);
    }

    /// Whether an operator may cancel it. Only where the document is in a valid state without it: an order without a deadline
    /// waits for as long as it takes.
    fn cancellable(&self) -> bool {
        false
    }
}

/// A call to an external system: committed as an intent first, run after, settled by its outcome. It runs when its wake is due,
/// which may be immediately.
pub trait Effect: Send + Sync + 'static {
    /// The document that carries the intent.
    type Document: Document;
    /// The definite answer of the external system: a declined card is an outcome.
    type Outcome: Clone + Send + Sync + 'static;
    /// The wake's kind, unique within the service.
    const KIND: Kind<Self::Document>;

    /// Performs the effect, under a key derived from the document so that a repeat has no further effect. An implementation may say
    /// `async fn run`.
    ///
    /// It has ten seconds (`Timing::effect_timeout`); one that takes longer counts as an outage.
    ///
    /// # Errors
    /// [`Outage`]: the outcome is unknown. It is tried again after a delay that grows from half a second to an hour
    /// (`Timing::effect_retry`), for as long as it takes.
    fn run(&self, document: &Self::Document, wake: &Wake)
    -> impl Future<Output = Result<Self::Outcome, Outage>> + Send;

    /// Applies the outcome to the document. It is given the document as it stands now, which others may have changed since
    /// [`Effect::run`] saw it. The wake is cleared unless a new one is set; the document is stored as it is left.
    fn settle(&self, document: &mut Self::Document, outcome: Self::Outcome, unit: &mut Unit<'_>);

    /// An operator has taken it away: the document may say so. The wake is cleared unless a new one is set.
    fn cancelled(&self, document: &mut Self::Document, unit: &mut Unit<'_>) {
        let _ = (document, unit);
    }

    /// Whether an operator may cancel it before its first attempt. Only where the document is in a valid state
    /// without its outcome: never a charge that others wait for.
    fn cancellable(&self) -> bool {
        false
    }
}

/// The outcome of an effect is unknown: a time-out, a broken connection, a 5xx.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Outage {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Outage {
    /// What is known of it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    /// With the error behind it.
    #[must_use]
    pub fn with_source(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }
}

/// Two that say the same are the same.
impl PartialEq for Outage {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Outage {}

/// A document's due time or open intent, as stored with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wake {
    /// Which [`Effect`] or [`Timer`] it belongs to.
    pub kind: String,
    /// When it was first set; claims and backoff leave it.
    pub opened: Timestamp,
    /// When it is due, or, once claimed, when the claim runs out.
    pub at: Timestamp,
    /// How often it was claimed; from 1 on something may have been sent.
    pub attempt: u32,
    /// Until when the instance that claimed it has it to itself; none while no attempt is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Timestamp>,
    /// The document's version as of the commit that set it: no (kind, document, generation) comes twice.
    pub generation: u64,
    /// The input that set it, cause of what its outcome emits.
    pub cause: Id,
    /// Its correlation id.
    pub correlation: String,
    /// Its trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Why an input was not handled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Not now: a message comes back after a growing delay and is parked as `exhausted` in the end; a command is a 503.
    Retry(String),
    /// Not by this release: a newer one has written something that this one does not know. A message comes back every second,
    /// for the newer release to take it, and is parked as `ahead` if none has within ten minutes; a command is a 503. Reading
    /// documents gives it; handlers pass it on.
    Ahead(String),
    /// Never: a message is parked as `rejected`; a command is a 4xx.
    Reject(Reject),
}

impl Fault {
    /// A rejection with HTTP status 409 (Conflict): the state does not allow it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::Reject(Reject { status: 409, detail: detail.into(), errors: vec![] })
    }

    /// A rejection with HTTP status 404 (Not Found).
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::Reject(Reject { status: 404, detail: detail.into(), errors: vec![] })
    }

    /// A rejection with HTTP status 422 (Unprocessable Content): it breaks a rule; [`Fault::at`] says where.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::Reject(Reject { status: 422, detail: detail.into(), errors: vec![] })
    }

    /// Adds a field at fault to a rejection:
    ///
    /// ```
    /// # use millstream_core::Fault;
    /// Fault::unprocessable("this is no review").at("stars", "must be 1 to 5");
    /// ```
    #[must_use]
    pub fn at(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        if let Self::Reject(reject) = &mut self {
            reject.errors.push(FieldError { field: field.into(), message: message.into() });
        }
        self
    }
}

/// Why something is refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The HTTP status of a command's answer, 4xx.
    pub status: u16,
    /// What is wrong and what would be right.
    pub detail: String,
    /// The fields at fault, if it is about fields.
    pub errors: Vec<FieldError>,
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Where: `items[2].quantity`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}
