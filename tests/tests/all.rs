//! What holds for the whole: the saga over its real handlers, and the shop from outside.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod readme;
mod processes;
mod state_space;
