//! `--profile`: where the processor time of an order goes in one process at burst, from samples of its call stacks by `perf`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use crate::figures::System;
use crate::load::Generator;
use crate::machine::Meter;
use crate::shop::client;
use crate::stack::Stack;
use crate::witness::Witness;

/// A prime, so that samples do not keep step with what happens every millisecond.
const SAMPLES_PER_SECOND: &str = "499";

/// How many orders are in the profile.
const ORDERS: u64 = 10_000;

/// A name of the table, and what the functions that belong to it contain.
type Rule = (&'static str, &'static [&'static str]);

/// What is done, by the innermost function that belongs to one of these. What the kernel does counts as what called it.
const KINDS: [Rule; 16] = [
    ("allocation", &["mi_", "__rust_alloc", "__rust_dealloc", "__rust_realloc"]),
    ("hashing", &["hash::sip", "hash_one", "foldhash", "sha2::"]),
    ("BSON check", &["millstream_core::bson"]),
    ("headers", &["async_nats::header", "encode_header", "decode_header", "decode::Attributes"]),
    ("JSON", &["serde_json", "serde_core", "serde::"]),
    ("SQLite: documents", &["sqlite::commit::document"]),
    (
        "SQLite: journal",
        &["sqlite::commit::journal", "sqlite::commit::idempotency_key", "sqlite::commit::raise_instance"],
    ),
    (
        "SQLite: writing and syncing the log",
        &["CommitPhaseOne", "fsync", "fdatasync", "WalCheckpoint", "wal_checkpoint"],
    ),
    ("SQLite: reading", &["sqlite::read"]),
    ("SQLite: the rest", &["sqlite"]),
    ("metrics", &["metrics::", "recorder::", "meters::", "metrics_exporter"]),
    ("logging", &["tracing"]),
    ("NATS", &["async_nats"]),
    ("HTTP", &["hyper", "axum", "tower", "http::", "reqwest"]),
    ("handlers", &["orders::", "inventory::", "payments::", "notifications::", "analytics::", "contracts::"]),
    ("engine", &["millstream"]),
];

/// Where it is done: the first of these that any of the functions belongs to.
const STAGES: [Rule; 11] = [
    ("console, gateway simulator, checks", &["shop::", "millstream_console"]),
    ("engine: decide", &["Planner::decide"]),
    ("engine: after the commit", &["Engine>::after"]),
    ("engine: the rest", &["Engine>::", "engine::intake", "engine::instances", "engine::wakes"]),
    ("store: commit", &["sqlite::session::write", "sqlite::commit"]),
    ("store: read", &["sqlite::"]),
    ("receive and decode", &["Consumer::run"]),
    ("publish", &["publisher::"]),
    ("effects", &["AnyEffect", "hyper::client", "hyper::proto::h1::dispatch::Client"]),
    ("HTTP server", &["axum::serve", "hyper::server", "connections::"]),
    ("NATS connection", &["async_nats"]),
];

const OTHER: &str = "runtime and the rest";

/// Starts the shop in one process, samples it in a burst, and gives the two tables.
pub(crate) async fn profile(shop: &Path, data: &Path) -> Result<String> {
    let folder = tempfile::tempdir_in(data)?;
    let samples = folder.path().join("perf.data");
    let http = client()?;
    let stack = Stack::start(System::One, folder.path(), shop, &http).await?;
    let nats = async_nats::connect(&stack.nats).await?;
    let witness = Witness::start(&nats).await?;
    let generator = Generator::new(http, &stack.orders, witness.clone());
    generator.in_flight(Duration::from_secs(2)).await.context("warm-up")?;

    let (_, pid) = stack.watched.iter().find(|(part, _)| *part == "services").context("there are no services")?;
    let mut perf = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", SAMPLES_PER_SECOND, "-g", "-p", &pid.to_string(), "-o"])
        .arg(&samples)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run perf (Debian's package linux-perf)")?;
    let meter = Meter::start(&stack.watched)?;
    generator.burst(ORDERS).await.context("burst")?;
    let spent = meter.stop()?;
    // On an interrupt it writes down what it has.
    nats_embedded::signal(
        perf.id().context("perf has ended: may it watch processes (kernel.perf_event_paranoid)?")?,
        "INT",
    );
    perf.wait().await?;
    witness.settled()?;
    stack.stop().await?;

    let script = Command::new("perf").args(["script", "-F", "comm,ip,sym", "-i"]).arg(&samples).output().await?;
    ensure!(script.status.success(), "perf script failed: {}", String::from_utf8_lossy(&script.stderr));
    let script = String::from_utf8_lossy(&script.stdout);
    let stacks = stacks(&script);
    if stacks.is_empty() {
        bail!("perf has taken no samples");
    }
    let ms = spent.watched_ms["services"] / ORDERS as f64;
    Ok(format!(
        "One process, a burst of {ORDERS} orders: {ms:.2} ms of processor time an order in the services, {} samples.\n\n{}\n{}",
        stacks.len(),
        table("where", ms, &shares(&stacks, stage)),
        table("what", ms, &shares(&stacks, kind)),
    ))
}

/// The functions of each sample, innermost first, of what `perf script` prints.
fn stacks(script: &str) -> Vec<Vec<&str>> {
    let samples = script.split("\n\n").map(|sample| {
        let frames = sample.lines().filter_map(|line| line.strip_prefix(['\t', ' ']));
        frames.filter_map(|frame| Some(frame.trim_start().split_once(' ')?.1)).collect::<Vec<_>>()
    });
    samples.filter(|frames| !frames.is_empty()).collect()
}

fn belongs(function: &str, (_, parts): &Rule) -> bool {
    parts.iter().any(|part| function.contains(part))
}

fn kind(stack: &[&str]) -> &'static str {
    let rule = stack.iter().find_map(|function| KINDS.iter().find(|rule| belongs(function, rule)));
    rule.map_or(OTHER, |(name, _)| name)
}

fn stage(stack: &[&str]) -> &'static str {
    let rule = STAGES.iter().find(|rule| stack.iter().any(|function| belongs(function, rule)));
    rule.map_or(OTHER, |(name, _)| name)
}

/// The share of each name, largest first.
fn shares(stacks: &[Vec<&str>], name: impl Fn(&[&str]) -> &'static str) -> Vec<(&'static str, f64)> {
    let mut counts = BTreeMap::<_, usize>::new();
    for stack in stacks {
        *counts.entry(name(stack)).or_default() += 1;
    }
    let mut shares: Vec<_> =
        counts.into_iter().map(|(name, count)| (name, count as f64 / stacks.len() as f64)).collect();
    shares.sort_by(|one, other| other.1.total_cmp(&one.1));
    shares
}

fn table(title: &str, ms: f64, shares: &[(&str, f64)]) -> String {
    let width = shares.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("| {title:width$} | share  | µs/order |\n| {} | -----: | -------: |\n", "-".repeat(width));
    for (name, share) in shares {
        text += &format!("| {name:width$} | {:4.1} % | {:8.0} |\n", share * 100.0, share * ms * 1000.0);
    }
    text
}

/// Puts the tables into their place in a page.
pub(crate) fn write(file: &Path, tables: &str) -> Result<()> {
    const MARKS: [&str; 2] = [
        "<!-- Profile: `cargo xtask bench --profile --write` replaces what is between here -->",
        "<!-- and here: profile. -->",
    ];
    let page = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (before, rest) = page.split_once(MARKS[0]).context("the page has no place for a profile")?;
    let (_, after) = rest.split_once(MARKS[1]).context("the place for the profile has no end")?;
    let page = format!("{before}{}\n\n{}\n{}{after}", MARKS[0], tables.trim_end(), MARKS[1]);
    fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "tokio-rt-worker \n\t55d0 mi_malloc\n\t55d1 serde_json::ser::to_vec\n\t\
        55d2 millstream_core::planner::Planner::decide\n\t55d3 millstream::engine::Engine>::process\n\t55d3 tokio::runtime::task::poll\n\n\
        store-writer \n\tffffffff fsync [k]\n\t55d4 sqlite3PagerCommitPhaseOne\n\t55d5 millstream::store::sqlite::session::write\n\n\
        tokio-rt-worker \n\tffffffff schedule [k]\n\t55d6 tokio::runtime::park\n\n";

    #[test]
    fn a_sample_counts_as_what_is_done_and_as_where_it_is_done() {
        let stacks = stacks(SCRIPT);
        let named: Vec<_> = stacks.iter().map(|stack| (kind(stack), stage(stack))).collect();
        let expected = [
            ("allocation", "engine: decide"),
            ("SQLite: writing and syncing the log", "store: commit"),
            (OTHER, OTHER),
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn the_shares_are_of_all_samples_and_add_up() {
        let stacks = stacks(SCRIPT);
        let shares = shares(&stacks, kind);
        assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(table("what", 1.5, &shares).contains("| 33.3 % |      500 |"), "{}", table("what", 1.5, &shares));
    }
}
