//! What holds for the whole: the saga over its real handlers, and the shop from outside.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod processes;
mod readme;
mod state_space;

mod alertmanager;
mod alerts;
mod bad_days;
mod bad_input;
mod boards;
mod callers;
mod containers;
mod harness;
mod health;
mod killed;
mod northwind;
mod onlookers;
mod order_events;
mod outages;
mod outside;
mod rights;
mod sagas;
mod secured;
mod story;
mod tidy;
mod tryout;
mod verdict;
mod watch;

/// The browser that the console is tested in, too.
#[allow(dead_code, reason = "the story needs not all of it")]
#[path = "../../crates/millstream-console/tests/all/browser.rs"]
mod browser;

/// The mail server that notifications are tested with, too.
#[allow(dead_code, reason = "alerts need not all of it")]
#[path = "../../crates/notifications/src/mail_server.rs"]
mod mail_server;

use crate::harness::SOON;
