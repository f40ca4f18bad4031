//! `millstream wakes …`: lists pending deadlines and effects and acts on them.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use millstream::Timestamp;
use millstream::operator::Operator;
use millstream::operator::wakes::{PendingWake, WakeAct, WakeFilter};
use serde_json::json;

use crate::output::{self, Listing};
use crate::times::{When, from_now};
use crate::who::Actor;

/// Actions on wakes.
#[derive(Debug, Subcommand)]
pub(crate) enum Wakes {
    /// List pending wakes (deadlines, charges, refunds, mails and their retries), earliest first
    List {
        /// Only this service
        #[arg(long)]
        service: Option<String>,
        /// Only this kind, `deadline`
        #[arg(long)]
        kind: Option<String>,
        /// Only this document, an order's id
        #[arg(long, value_name = "ID")]
        document: Option<String>,
        /// Maximum number per service
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: usize,
    },
    /// Reschedule a wake
    Move {
        #[command(flatten)]
        which: Which,
        /// New time, 2026-01-31T12:00:00Z, or a duration from now, +10m
        #[arg(long, value_name = "TIME", value_parser = When::read)]
        to: When,
    },
    /// Run a wake now
    Fire(#[command(flatten)] Which),
    /// Cancel a wake, if its kind allows it: a deadline, never a charge
    Cancel(#[command(flatten)] Which),
}

/// Selects one wake; who acts, and why.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Service
    #[arg(long)]
    service: String,
    /// Document, an order's id
    #[arg(long, value_name = "ID")]
    document: String,
    /// Kind, if the service has several documents with that id
    #[arg(long)]
    kind: Option<String>,
    #[command(flatten)]
    actor: Actor,
}

/// Enough to see that a document id without a kind is ambiguous.
const SOME: usize = 10;

pub(crate) async fn run(operator: &Operator, json: bool, wakes: Wakes) -> Result<ExitCode> {
    let now = Timestamp::system();
    match wakes {
        Wakes::List { service, kind, document, limit } => {
            let (found, silent) = operator.wakes(&WakeFilter { service, kind, document }, limit).await?;
            if json {
                output::json(&json!({ "wakes": found, "silent": silent }))?;
            } else if found.is_empty() {
                output::line("no pending wakes")?;
            } else {
                output::line(&table(&found, Timestamp::system()).to_string())?;
            }
            for service in &silent {
                output::note(&format!("! `{service}` does not answer: its wakes are unknown"));
            }
            Ok(if silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Wakes::Move { which, to } => act(operator, json, which, WakeAct::Move { to: to.from(now) }).await,
        Wakes::Fire(which) => act(operator, json, which, WakeAct::Fire).await,
        Wakes::Cancel(which) => act(operator, json, which, WakeAct::Cancel).await,
    }
}

async fn act(operator: &Operator, json: bool, which: Which, act: WakeAct) -> Result<ExitCode> {
    let Which { service, document, kind, actor } = which;
    let filter = WakeFilter { service: Some(service.clone()), kind, document: Some(document.clone()) };
    let (found, silent) = operator.wakes(&filter, SOME).await?;
    if !silent.is_empty() {
        bail!("`{service}` does not answer: nothing was changed");
    }
    let wake = match &found[..] {
        [wake] => wake,
        [] => bail!("`{document}` has no pending wake at `{service}`"),
        several => {
            let kinds: Vec<&str> = several.iter().map(|wake| wake.kind.as_str()).collect();
            bail!(
                "`{document}` has several pending wakes at `{service}`: choose one with --kind: {}",
                kinds.join(", ")
            );
        }
    };
    let left = operator.act_on(wake, act, &actor.into()).await?;
    if json {
        output::json(&left)?;
    } else {
        let name = format!("the `{}` of {}/{} at `{service}`", left.kind, left.collection, left.document);
        output::line(&match act {
            WakeAct::Move { .. } => format!("{name} is now due at {}; it was due at {}", left.at, wake.at),
            WakeAct::Fire => format!("{name} is due now; it was due at {}", wake.at),
            WakeAct::Cancel => format!("{name} was cancelled; it was due at {}", wake.at),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(wakes: &[PendingWake], now: Timestamp) -> Listing {
    let mut table = output::table(["SERVICE", "KIND", "DOCUMENT", "DUE", "SET", "TRIED", "STATE", "CORRELATION"]);
    for wake in wakes {
        let state = match wake.lease {
            Some(until) if until > now => "running",
            _ if wake.at <= now => "due",
            _ if wake.attempt > 0 => "retrying",
            _ => "waiting",
        };
        table.add_row([
            wake.service.clone(),
            wake.kind.clone(),
            wake.document.clone(),
            from_now(wake.at, now),
            from_now(wake.opened, now),
            wake.attempt.to_string(),
            state.into(),
            wake.correlation.clone(),
        ]);
    }
    table
}
