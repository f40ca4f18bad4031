//! A `nats-server` as a child of this process: for a demonstration, for development, for tests.
//!
//! [`find`] says which program is used, and [`find_mongod`] does so for the database of tests. With the feature `launch`, which is a
//! default, a [`Server`] runs it, and ends with this process however that ends. Without that feature only the standard library is needed.
//!
//! ```no_run
//! # #[cfg(feature = "launch")]
//! # async fn example() -> Result<(), nats_embedded::StartError> {
//! use nats_embedded::{Server, Setup};
//!
//! let server = Server::start(&Setup { folder: "data/nats".into(), port: 0, sync_always: false }).await?;
//! println!("clients connect to {}", server.url());
//! server.stop().await;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod find;
#[cfg(feature = "launch")]
mod server;

pub use find::{
    MINIMUM, MONGOD_VARIABLE, NotFound, SYNCED, VARIABLE, Version, cached, cached_mongod, find, find_mongod, find_since,
};
#[cfg(feature = "launch")]
pub use server::{Member, Server, Setup, StartError, signal};
