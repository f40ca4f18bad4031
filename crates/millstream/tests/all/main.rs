//! The toolkit from outside: over real stores and brokers.
#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod bank;
mod batches;
mod broker_away;
mod cluster;
mod commands;
mod dead_letters;
mod declared;
mod discovery;
mod dry_runs;
mod effects;
mod examples;
mod expiry;
mod garbled;
mod incidents;
mod intents;
mod lost_tails;
mod memory;
mod metrics;
#[cfg(feature = "mongodb")]
mod mongo;
#[cfg(feature = "mongodb")]
mod mongo_faults;
mod positions;
mod provenance;
mod rebuild;
mod redrives;
mod replicas;
mod retries;
mod shutdown;
mod sim_broker;
mod single_writer;
mod spins;
mod sqlite;
mod status;
mod store_away;
mod stores_agree;
mod streams_gone;
#[cfg(feature = "failpoints")]
mod supervised;
mod tail;
mod timers;
mod traces;
mod trimming;
mod two_readers;
mod unknown_commits;
mod unreadable;
mod versions;
mod wakes;
mod watching;
