//! The core of Millstream: events, handlers, and the planner that decides what becomes of a batch of inputs. It does no I/O and
//! has no clock: whoever calls it brings what was loaded, and the time.
//!
//! Services use the crate `millstream`, which re-exports what they need; crates that only describe events need no more than this
//! one.
#![warn(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[doc(hidden)]
pub mod bson;
pub mod clock;
pub mod dead_letter;
pub mod declaration;
pub mod event;
pub mod handler;
#[doc(hidden)]
pub mod hash;
pub mod ids;
mod json;
pub mod metric;
#[doc(hidden)]
pub mod number;
#[doc(hidden)]
pub mod outbox;
#[doc(hidden)]
pub mod planner;
#[doc(hidden)]
pub mod position;
#[doc(hidden)]
pub mod published;
pub mod record;
#[doc(hidden)]
pub mod redriven;
#[doc(hidden)]
pub mod replicas;
pub mod retry;
pub mod rights;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod stored;
pub mod timing;
pub mod unit;
#[doc(hidden)]
pub mod view;
#[doc(hidden)]
pub mod work;

pub use event::{Event, Meta, Received, Stream};
pub use handler::{
    Command, CommandHandler, Document, Effect, Fault, FieldError, Handler, Key, Keys, Kind, Outage, Reject, Timer, Wake,
};
pub use ids::{Id, Timestamp};
pub use unit::Unit;
