//! `shop check`: the invariants of the order saga at rest, seen from outside: over HTTP, at the payment gateway and at the
//! broker.
//!
//! It may run on a live system: the consequences of a recently finished order may still be in flight, so only orders older than
//! `--older-than` are checked, and a failing invariant is checked again a few times, with fresh data, before it is reported. Lists
//! are read page by page, never one order at a time.

mod figures;
mod invariants;
mod notified;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{Table, presets};
use secrecy::SecretString;
use serde::Serialize;

use self::invariants::{Finding, Terms, invariants};
use self::snapshot::{Clients, Snapshot, Unseen};
pub use self::watch::{SUBJECT, watch};
use crate::ledger;
use crate::whole::Urls;
use crate::wire;

/// `shop check`: checks that no order, payment, stock or event was lost.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Host of the services.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub base_host: String,
    /// Base of the port numbers: orders + 1, inventory + 2, payments + 3, notifications + 4, analytics + 5, gateway + 10.
    #[arg(long, value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..=65_500))]
    pub port_base: u16,
    /// URL of the orders service, if not on the default host and port.
    #[arg(long, value_name = "URL")]
    pub orders_url: Option<String>,
    /// Key for the HTTP API of orders, if it asks for one. Prefer the variable: command lines can be read by others.
    #[arg(long, env = "ORDERS_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub orders_api_key: Option<SecretString>,
    /// URL of the inventory service, if not on the default host and port.
    #[arg(long, value_name = "URL")]
    pub inventory_url: Option<String>,
    /// URL of the payments service, if not on the default host and port.
    #[arg(long, value_name = "URL")]
    pub payments_url: Option<String>,
    /// URL of the notifications service, if not on the default host and port.
    #[arg(long, value_name = "URL")]
    pub notifications_url: Option<String>,
    /// URL of the analytics service, if not on the default host and port.
    #[arg(long, value_name = "URL")]
    pub analytics_url: Option<String>,
    /// URL of the payment gateway, if not on the default host and port.
    #[arg(long, value_name = "URL")]
    pub gateway_url: Option<String>,
    /// URL of the broker.
    #[arg(long, env = "NATS_URL", value_name = "URL", default_value = "nats://127.0.0.1:4222", hide_env_values = true)]
    pub nats_url: String,
    /// Check only orders that were finished or created at least this long ago.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub older_than: Duration,
    /// How often a failing invariant is checked before it is reported.
    #[arg(long, value_name = "TIMES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub looks: u32,
    /// Delay between two checks.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub pause: Duration,
    /// Expected number of dead letters, if some were provoked.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub dead_letters: u64,
    /// How much longer than --older-than an order, or its refund, may be unfinished: while the gateway is
    /// down, orders wait, and none is lost.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// Also compare the shop with the accepted orders in this file; `shop load --ledger` writes it. May be given several times.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "watch")]
    pub ledger: Vec<PathBuf>,
    /// Check continuously and publish the results on the subject `millstream.invariants`, for the console. Pauses for
    /// twenty times as long as a check took, and at least 5 s, to keep the load low. With more than
    /// 200,000 orders it only logs that there are too many.
    #[arg(long)]
    pub watch: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            base_host: "127.0.0.1".into(),
            port_base: 8080,
            orders_url: None,
            orders_api_key: None,
            inventory_url: None,
            payments_url: None,
            notifications_url: None,
            analytics_url: None,
            gateway_url: None,
            nats_url: "nats://127.0.0.1:4222".into(),
            older_than: Duration::from_secs(5),
            looks: 5,
            pause: Duration::from_secs(1),
            dead_letters: 0,
            patience: Duration::ZERO,
            ledger: vec![],
            watch: false,
            json: false,
        }
    }
}

impl Options {
    /// Looks at the shop that is there.
    pub fn of(urls: &Urls) -> Self {
        Self {
            orders_url: Some(urls.orders.clone()),
            inventory_url: Some(urls.inventory.clone()),
            payments_url: Some(urls.payments.clone()),
            notifications_url: Some(urls.notifications.clone()),
            analytics_url: Some(urls.analytics.clone()),
            gateway_url: Some(urls.gateway.clone()),
            nats_url: urls.nats.clone(),
            ..Self::default()
        }
    }

    fn service(&self, url: Option<&String>, offset: u16) -> String {
        url.cloned().unwrap_or_else(|| format!("http://{}:{}", self.base_host, self.port_base.saturating_add(offset)))
    }
}

/// What the check found. It displays as a table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// A row for each invariant; empty if nothing could be seen.
    pub rows: Vec<Row>,
    /// The parts that could not be read, and why.
    pub unseen: Vec<Unseen>,
    /// How often it looked.
    pub looks: u32,
}

/// An invariant and whether it holds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The invariant.
    pub invariant: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// What contradicts it: which order, and what was seen where.
    pub evidence: Vec<String>,
    /// What was compared.
    pub looked_at: String,
}

impl Outcome {
    /// 0: everything holds; 1: an invariant is broken; 2: it could not look.
    pub fn exit_code(&self) -> u8 {
        if !self.unseen.is_empty() { 2 } else { u8::from(self.rows.iter().any(|row| !row.holds)) }
    }
}

impl From<Finding> for Row {
    fn from(finding: Finding) -> Self {
        let evidence = finding.broken.into_iter().map(|(subject, seen)| format!("{subject}: {seen}"));
        let evidence: Vec<_> = evidence.collect();
        Self { invariant: finding.invariant, holds: evidence.is_empty(), evidence, looked_at: finding.looked_at }
    }
}

/// How many contradictions of one invariant a table shows.
const SHOWN: usize = 5;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["invariant", "result", "evidence"]);
        for row in &self.rows {
            let mut evidence: Vec<_> = row.evidence.iter().take(SHOWN).cloned().collect();
            if row.evidence.len() > SHOWN {
                evidence.push(format!("and {} more (--json shows all)", row.evidence.len() - SHOWN));
            }
            if row.holds {
                evidence.push(row.looked_at.clone());
            }
            table.add_row([row.invariant, if row.holds { "holds" } else { "BROKEN" }, &evidence.join("\n")]);
        }
        for (part, error) in &self.unseen {
            table.add_row([part, "unavailable", error.as_str()]);
        }
        write!(f, "{table}")
    }
}

/// Checks until everything holds, or as often as the options allow.
///
/// # Errors
/// Only for errors of this process; unreachable services are part of the [`Outcome`].
pub async fn run(options: Options) -> anyhow::Result<Outcome> {
    let clients = Clients { orders: wire::orders_client(options.orders_api_key.as_ref())?, others: wire::client()? };
    let ledger = ledger::read(&options.ledger)?;
    let mut terms = Terms { dead_letters: options.dead_letters, patience: options.patience, ..Terms::default() };
    let mut findings: Option<Vec<Finding>> = None;
    let mut look = 1;
    loop {
        let seen = Snapshot::take(&options, &clients).await;
        let unseen = match seen {
            Ok(snapshot) => {
                let mut again = invariants(&snapshot, &terms);
                if !ledger.is_empty() {
                    again.push(promises_are_kept(&ledger, &snapshot));
                }
                if terms.first_sequences.is_empty() {
                    let streams = snapshot.streams.into_iter();
                    terms.first_sequences = streams.map(|stream| (stream.name, stream.last_sequence)).collect();
                }
                findings = Some(match findings {
                    None => again,
                    Some(before) => still_broken(&before, again),
                });
                vec![]
            }
            Err(unseen) => unseen,
        };
        let holds = findings.as_ref().is_some_and(|findings| findings.iter().all(|finding| finding.broken.is_empty()));
        if (holds && unseen.is_empty()) || look >= options.looks {
            let rows = findings.unwrap_or_default().into_iter().map(Row::from).collect();
            return Ok(Outcome { rows, unseen, looks: look });
        }
        look += 1;
        tokio::time::sleep(options.pause).await;
    }
}

/// What was accepted is there: the one invariant whose source is not the shop itself.
fn promises_are_kept(ledger: &[ledger::Line], snapshot: &Snapshot) -> Finding {
    let accepted = ledger.iter().filter(|line| line.id.is_some()).count();
    Finding {
        invariant: "what was promised in the ledger is there",
        looked_at: format!("{accepted} orders accepted, of {} submitted", ledger.len()),
        broken: ledger::compare(ledger, &snapshot.orders),
    }
}

/// Keeps the findings that were also broken before: anything else was a transient state.
fn still_broken(before: &[Finding], mut again: Vec<Finding>) -> Vec<Finding> {
    for (finding, before) in again.iter_mut().zip(before) {
        finding.broken.retain(|subject, _| before.broken.contains_key(subject));
    }
    again
}
