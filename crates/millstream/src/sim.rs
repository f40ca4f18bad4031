//! A simulator: services as they are, on a broker, a store and a clock in memory, driven by one seed.
//!
//! [`Sim`] runs any number of services with any number of replicas each. It delivers, repeats and reorders messages, loses acks and
//! answers, lets commits fail, conflict, or succeed unseen, kills processes between any two of their actions and starts them again,
//! leaves some alone for so long that others take them for dead, lets clocks differ, puts consumers back, and lets the broker forget
//! the last messages that it had acknowledged. Whatever happens is
//! determined by the seed, so what fails once fails again.
//!
//! A test of a service is one world in which nothing goes wrong: add the service, publish what it reads or call what it offers, let the
//! world settle, and look at documents, replies, counts and dead letters.
//!
//! ```
//! # use millstream::{Event, Service, sim::Sim};
//! # fn example(service: Service, placed: impl Event) {
//! let mut sim = Sim::new(0).with(&service, 1);
//! sim.publish(&placed);
//! sim.settle().unwrap();
//! assert!(sim.dead_letters("shipping").is_empty());
//! # }
//! ```
//!
//! With [`Sim::with_operators`] dead letters are redriven, edited and discarded meanwhile, by what [`crate::operator`] decides and sends.
//!
//! What decides is the planner that services run with in production; around it is a shell of the simulator's own, which does step
//! by step what the engine does.

mod app;
pub mod broker;
mod course;
mod faults;
mod hunt;
mod operators;
mod random;
mod replica;
mod tails;
mod world;

pub use faults::Faults;
pub use hunt::{Failure, hunt};
pub use world::{Call, Sim};
