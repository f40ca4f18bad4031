//! Handlers, commands, effects and timers of any type, made into work of one type for the engine.

use std::any::Any;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::event::{Event, Meta, Received, Stream, assert_type_in_stream};
use crate::handler::{Command, CommandHandler, Document, Effect, Fault, Handler, Keys, Outage, Timer, Wake};
use crate::ids::Id;
use crate::metric::Metric;
use crate::unit::{Unit, Unread, Work, end_wake, parse};

/// A handler, for messages whose type it names.
pub trait AnyHandler: Send + Sync {
    fn event_type(&self) -> &'static str;
    fn stream(&self) -> Stream;
    /// Reads a body of a version; why not, otherwise.
    fn decode(self: Arc<Self>, version: u32, meta: Meta, payload: &[u8]) -> Result<Box<dyn Work>, Unread>;
}

/// A handler, as far as it is one of this event.
pub struct HandlerOf<E, H> {
    handler: H,
    event: PhantomData<fn() -> E>,
}

impl<E: Event, H: Handler<E>> HandlerOf<E, H> {
    pub fn new(handler: H) -> Self {
        const { assert_type_in_stream::<E>() };
        Self { handler, event: PhantomData }
    }
}

struct HandlerWork<E, H> {
    handler: Arc<HandlerOf<E, H>>,
    event: Received<E>,
}

impl<E: Event, H: Handler<E>> AnyHandler for HandlerOf<E, H> {
    fn event_type(&self) -> &'static str {
        E::TYPE
    }

    fn stream(&self) -> Stream {
        E::STREAM
    }

    fn decode(self: Arc<Self>, version: u32, meta: Meta, payload: &[u8]) -> Result<Box<dyn Work>, Unread> {
        let event = read::<E>(version, payload)?;
        Ok(Box::new(HandlerWork { handler: self, event: Received { meta, body: event } }))
    }
}

/// Reads a body of a version: the current one, or an older one that is raised to it.
fn read<E: Event>(version: u32, payload: &[u8]) -> Result<E, Unread> {
    let unknown = || format!("this release knows version {} of `{}`, not {version}", E::VERSION, E::TYPE);
    if version > E::VERSION {
        return Err(Unread::Ahead(unknown()));
    }
    if version < E::VERSION {
        let older = E::OLDER.iter().find(|older| older.version == version);
        let older = older.ok_or_else(|| Unread::Schema(unknown()))?;
        return (older.read)(payload).map_err(|error| Unread::Schema(error.to_string()));
    }
    serde_json::from_slice(payload).map_err(|error| {
        // Only what is wrong is read again for the place where it is: keeping track of that costs as much as reading.
        let mut json = serde_json::Deserializer::from_slice(payload);
        let again: Result<E, _> = serde_path_to_error::deserialize(&mut json);
        Unread::Schema(again.err().map_or_else(|| error.to_string(), |error| error.to_string()))
    })
}

impl<E: Event, H: Handler<E>> Work for HandlerWork<E, H> {
    fn touches(&self) -> Keys {
        self.handler.handler.touches(&self.event)
    }

    fn handle(&self, unit: &mut Unit<'_>) -> Result<Option<Bytes>, Fault> {
        self.handler.handler.handle(&self.event, unit).map(|()| None)
    }
}

/// Changes nothing.
pub struct Nothing;

impl Work for Nothing {
    fn touches(&self) -> Keys {
        Keys::none()
    }

    fn handle(&self, _: &mut Unit<'_>) -> Result<Option<Bytes>, Fault> {
        Ok(None)
    }
}

/// Handles commands that are their own handlers.
#[derive(Clone)]
pub struct Itself;

impl<C: Command> CommandHandler<C> for Itself {
    type Reply = C::Reply;

    fn touches(&self, command: &C, id: Id) -> Keys {
        command.touches(id)
    }

    fn handle(&self, command: &C, id: Id, unit: &mut Unit<'_>) -> Result<C::Reply, Fault> {
        command.handle(id, unit)
    }
}

pub struct CommandWork<H, C> {
    pub id: Id,
    pub handler: H,
    pub command: C,
}

impl<H: CommandHandler<C>, C: Send + Sync> Work for CommandWork<H, C> {
    fn touches(&self) -> Keys {
        self.handler.touches(&self.command, self.id)
    }

    fn handle(&self, unit: &mut Unit<'_>) -> Result<Option<Bytes>, Fault> {
        let reply = self.handler.handle(&self.command, self.id, unit)?;
        let reply = serde_json::to_vec(&reply).unwrap_or_else(|error| panic!("a reply cannot be written: {error}"));
        Ok(Some(reply.into()))
    }
}

pub type Outcome = Arc<dyn Any + Send + Sync>;
pub type Running = Pin<Box<dyn Future<Output = Result<Outcome, Outage>> + Send>>;

/// An effect of any type.
pub trait AnyEffect: Send + Sync {
    fn kind(&self) -> &'static str;
    fn collection(&self) -> &'static str;
    fn run(self: Arc<Self>, document: &[u8], shape: u32, wake: Wake) -> Running;
    fn settle(self: Arc<Self>, id: String, outcome: Outcome) -> Box<dyn Work>;
    fn cancellable(&self) -> bool;
    /// Takes the wake of a document away.
    fn cancel(&self, id: &str, unit: &mut Unit<'_>) -> Result<(), Fault>;
}

impl<E: Effect> AnyEffect for E {
    fn kind(&self) -> &'static str {
        E::KIND.name()
    }

    fn collection(&self) -> &'static str {
        E::Document::COLLECTION
    }

    fn run(self: Arc<Self>, document: &[u8], shape: u32, wake: Wake) -> Running {
        let document = parse::<E::Document>(document, shape);
        Box::pin(async move {
            let document = document.map_err(|fault| Outage::new(format!("{fault:?}")))?;
            let outcome = Effect::run(&*self, &document, &wake).await?;
            Ok(Arc::new(outcome) as Outcome)
        })
    }

    fn settle(self: Arc<Self>, id: String, outcome: Outcome) -> Box<dyn Work> {
        Box::new(SettleWork { effect: self, id, outcome })
    }

    fn cancellable(&self) -> bool {
        Effect::cancellable(self)
    }

    fn cancel(&self, id: &str, unit: &mut Unit<'_>) -> Result<(), Fault> {
        end_wake::<E::Document>(unit, id, |document, unit| self.cancelled(document, unit)).map(drop)
    }
}

struct SettleWork<E> {
    effect: Arc<E>,
    id: String,
    outcome: Outcome,
}

impl<E: Effect> Work for SettleWork<E> {
    fn touches(&self) -> Keys {
        Keys::one::<E::Document>(self.id.clone())
    }

    fn handle(&self, unit: &mut Unit<'_>) -> Result<Option<Bytes>, Fault> {
        let Some(outcome) = self.outcome.downcast_ref::<E::Outcome>() else { panic!("an outcome of another effect") };
        end_wake::<E::Document>(unit, &self.id, |document, unit| {
            Effect::settle(&*self.effect, document, outcome.clone(), unit)
        })
    }
}

/// A timer of any type.
pub trait AnyTimer: Send + Sync {
    fn kind(&self) -> &'static str;
    fn collection(&self) -> &'static str;
    fn fire(self: Arc<Self>, id: String) -> Box<dyn Work>;
    fn overdue(&self) -> Option<(&'static Metric, Duration)>;
    fn cancellable(&self) -> bool;
    /// Takes the wake of a document away.
    fn cancel(&self, id: &str, unit: &mut Unit<'_>) -> Result<(), Fault>;
}

impl<T: Timer> AnyTimer for T {
    fn kind(&self) -> &'static str {
        T::KIND.name()
    }

    fn collection(&self) -> &'static str {
        T::Document::COLLECTION
    }

    fn fire(self: Arc<Self>, id: String) -> Box<dyn Work> {
        Box::new(FireWork { timer: self, id })
    }

    fn overdue(&self) -> Option<(&'static Metric, Duration)> {
        Timer::overdue(self)
    }

    fn cancellable(&self) -> bool {
        Timer::cancellable(self)
    }

    fn cancel(&self, id: &str, unit: &mut Unit<'_>) -> Result<(), Fault> {
        end_wake::<T::Document>(unit, id, |document, unit| self.cancelled(document, unit)).map(drop)
    }
}

struct FireWork<T> {
    timer: Arc<T>,
    id: String,
}

impl<T: Timer> Work for FireWork<T> {
    fn touches(&self) -> Keys {
        Keys::one::<T::Document>(self.id.clone())
    }

    fn handle(&self, unit: &mut Unit<'_>) -> Result<Option<Bytes>, Fault> {
        end_wake::<T::Document>(unit, &self.id, |document, unit| Timer::fire(&*self.timer, document, unit))
    }
}
