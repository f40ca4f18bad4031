//! Event-driven services on NATS JetStream: at-least-once delivery, effectively-once effects.
//!
//! A service is documents and plain functions from an event and documents to changed documents and events. Its program is
//! [`run`]; `--help` lists its flags, of which `--nats-url` and `--store-url` are the most important:
//!
//! ```no_run
//! # #[cfg(feature = "service")] mod program {
//! # fn service() -> millstream::Service { millstream::Service::new("weather") }
//! #[tokio::main]
//! async fn main() -> std::process::ExitCode {
//!     millstream::run(service()).await
//! }
//! # }
//! ```
//!
//! The service itself, and a test of it:
//!
//! ```
//! use millstream::{Document, Event, Fault, Handler, Keys, Received, Service, Start, Stream, Unit};
//! use serde::{Deserialize, Serialize};
//!
//! const TEMPERATURES: Stream = Stream::new("TEMPERATURES", "temperatures");
//!
//! #[derive(Serialize, Deserialize)]
//! struct Measured { sensor: String, celsius: i32 }
//!
//! impl Event for Measured {
//!     const TYPE: &'static str = "temperatures.measured";
//!     const STREAM: Stream = TEMPERATURES;
//!     fn key(&self) -> &str { &self.sensor }
//! }
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Highest { sensor: String, celsius: i32 }
//!
//! impl Document for Highest {
//!     const COLLECTION: &'static str = "highest";
//!     fn id(&self) -> &str { &self.sensor }
//! }
//!
//! struct Note;
//!
//! impl Handler<Measured> for Note {
//!     fn touches(&self, event: &Received<Measured>) -> Keys { Keys::one::<Highest>(&event.sensor) }
//!     fn handle(&self, event: &Received<Measured>, unit: &mut Unit<'_>) -> Result<(), Fault> {
//!         let Measured { sensor, celsius } = &event.body;
//!         if unit.get::<Highest>(sensor)?.is_none_or(|highest| highest.celsius < *celsius) {
//!             unit.put(Highest { sensor: sensor.clone(), celsius: *celsius });
//!         }
//!         Ok(())
//!     }
//! }
//!
//! fn service() -> Service {
//!     Service::new("weather").keeps::<Highest>().reads(TEMPERATURES, Start::Beginning).on(Note)
//! }
//!
//! # #[cfg(feature = "testing")] {
//! let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);
//! sim.publish(&Measured { sensor: "roof".into(), celsius: 31 });
//! sim.settle().unwrap();
//! assert_eq!(sim.get::<Highest>("weather", "roof").unwrap().celsius, 31);
//! # }
//! ```
//!
//! Everything that changes a service's data goes through one loop, the engine, which commits what an input changed together with a
//! journal entry, and only then acks, answers, publishes and runs effects. What is still to do after a crash is found by one of two
//! indexes: journal entries above a watermark, and documents with a due wake.
//!
//! | module | what is there |
//! | --- | --- |
//! | [`event`] | events, streams, and how they look on the wire |
//! | [`handler`] | what a service is made of: documents, handlers, commands, effects, timers, wakes |
//! | [`mod@unit`] | what one handling may read, and what it stages |
//! | [`service`] | declaring a service, and running it |
//! | [`commands`] | how HTTP routes submit commands and read documents |
//! | [`engine`] | the loop; [`engine::timing::Timing`] has every time and bound |
//! | [`store`] | the port to the database, and SQLite |
//! | [`dead_letter`] | what becomes of messages that cannot be handled |
//! | [`declaration`], [`rights`] | what a service needs of the broker, and what its user may do there |
//! | [`operator`] | operating a running system: status, traces, dead letters, wakes |
//! | [`http`], [`telemetry`], [`config`] | HTTP, logs and metrics, and configuration |
//! | `sim`, `workbench`, `testing` | for tests, with the feature `testing` |
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `service` | yes | the engine and everything around it; without it only events and their ids |
//! | `sqlite` | yes | the store at `sqlite://` URLs |
//! | `mongodb` | no | the store at `mongodb://` URLs |
//! | `testing` | no | for tests: the simulator, the workbench for handlers, a broker on a free port, the conformance suite for stores |
//! | `failpoints` | no | named crash points, for tests that kill a process between two steps |
//!
//! It needs `panic = "unwind"`, Cargo's default: a handler that panics parks its message and does not end the process.
#![warn(missing_docs)]

#[cfg(all(feature = "service", panic = "abort"))]
compile_error!("millstream needs `panic = \"unwind\"` in the profile: a handler that panics must not end the process");

#[cfg(feature = "testing")]
pub(crate) use millstream_core::view;
#[cfg(feature = "service")]
pub(crate) use millstream_core::work;
pub mod handler;
pub use millstream_core::{dead_letter, declaration, event, ids, rights, unit};

#[cfg(feature = "service")]
mod accepted;
#[cfg(feature = "service")]
mod answers;
#[cfg(feature = "service")]
pub mod api_keys;
#[cfg(feature = "service")]
mod assemble;
#[cfg(feature = "service")]
pub mod broker;
#[cfg(feature = "service")]
mod capacity;
#[cfg(feature = "service")]
pub mod commands;
#[cfg(feature = "service")]
pub mod config;
#[cfg(feature = "service")]
mod consumer;
#[cfg(feature = "service")]
mod declare;
#[cfg(feature = "service")]
mod discovery;
#[cfg(feature = "service")]
mod durable;
#[cfg(feature = "service")]
pub mod engine;
#[cfg(feature = "service")]
mod flag;
#[cfg(feature = "service")]
pub mod http;
#[cfg(feature = "service")]
pub mod operator;
#[cfg(feature = "service")]
mod owned;
#[cfg(feature = "service")]
mod program;
#[cfg(feature = "service")]
mod progress;
#[cfg(feature = "service")]
mod protocol;
#[cfg(feature = "service")]
mod raw;
#[cfg(feature = "service")]
mod rebuild;
#[cfg(feature = "service")]
mod refusals;
#[cfg(feature = "service")]
mod rehearse;
#[cfg(feature = "service")]
mod release;
#[cfg(feature = "service")]
pub mod retry;
#[cfg(feature = "service")]
mod run;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "service")]
pub mod signals;
#[cfg(feature = "testing")]
pub mod sim;
#[cfg(feature = "service")]
mod stopping;
#[cfg(feature = "service")]
pub mod store;
#[cfg(feature = "service")]
mod supervisor;
#[cfg(feature = "service")]
pub mod telemetry;
#[cfg(feature = "service")]
pub mod terminal;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "service")]
mod trim;
#[cfg(feature = "service")]
mod unreadable;
#[cfg(feature = "service")]
pub mod watch;
#[cfg(feature = "service")]
mod watchers;
#[cfg(feature = "testing")]
pub mod workbench;

pub use event::{Event, Meta, Received, Stream};
pub use handler::{
    Command, CommandHandler, Document, Effect, Fault, FieldError, Handler, Keys, Kind, Outage, Reject, Timer, Wake,
};
pub use ids::{Id, Timestamp};
#[cfg(feature = "service")]
pub use program::{run, run_with};
#[cfg(feature = "service")]
pub use service::{Service, Start};
pub use unit::Unit;
