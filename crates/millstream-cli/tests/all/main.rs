//! The command line as it is called, against a real broker.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod dead;
mod looking;
