//! Event-driven services on NATS JetStream: at-least-once delivery, effectively-once effects.
#![warn(missing_docs)]

pub mod event;
pub mod ids;

#[cfg(feature = "service")]
pub mod broker;
#[cfg(feature = "service")]
pub mod commands;
#[cfg(feature = "service")]
pub mod config;
#[cfg(feature = "service")]
mod consumer;
#[cfg(feature = "service")]
pub mod dead_letter;
#[cfg(feature = "service")]
mod durable;
#[cfg(feature = "service")]
pub mod embedded;
#[cfg(feature = "service")]
pub mod engine;
#[cfg(feature = "service")]
pub mod handler;
#[cfg(feature = "service")]
pub mod http;
#[cfg(feature = "service")]
mod progress;
#[cfg(feature = "service")]
pub mod retry;
#[cfg(feature = "service")]
mod running;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "service")]
pub mod store;
#[cfg(feature = "service")]
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "service")]
pub mod unit;
#[cfg(feature = "service")]
mod work;
#[cfg(feature = "testing")]
pub mod workbench;

pub use event::{Event, Meta, Received, Stream};
#[cfg(feature = "service")]
pub use handler::{Command, Document, Fault, FieldError, Handler, Keys, Outage, Reject, Timer, Wake, WakeInfo};
pub use ids::{Id, Timestamp};
#[cfg(feature = "service")]
pub use service::{Service, Start};
#[cfg(feature = "service")]
pub use unit::Unit;
