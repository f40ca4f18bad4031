//! `millstream wakes …`: what services will do later, and what is done about it.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use millstream::Timestamp;
use millstream::operator::Operator;
use millstream::operator::wakes::{PendingWake, WakeAct, WakeFilter};
use serde_json::json;

use crate::output;
use crate::times::{When, from_now};
use crate::who::Actor;

/// What is done about wakes.
#[derive(Debug, Subcommand)]
pub(crate) enum Wakes {
    /// List what waits: deadlines, charges, refunds, mails, and their retries, the earliest first
    List {
        /// Only of this service
        #[arg(long)]
        service: Option<String>,
        /// Only of this kind, `deadline`
        #[arg(long)]
        kind: Option<String>,
        /// Only of this document, an order's id
        #[arg(long, value_name = "ID")]
        document: Option<String>,
        /// At most so many of each service
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: usize,
    },
    /// Let one be due at another time
    Move {
        #[command(flatten)]
        which: Which,
        /// When: a time such as 2026-01-31T12:00:00Z, or so long from now, +10m
        #[arg(long, value_name = "TIME", value_parser = When::read)]
        to: When,
    },
    /// Let one be due now
    Fire(#[command(flatten)] Which),
    /// Take one away, if its kind allows it: a deadline, never a charge
    Cancel(#[command(flatten)] Which),
}

/// Which one, who, and why.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Its service
    #[arg(long)]
    service: String,
    /// Its document, an order's id
    #[arg(long, value_name = "ID")]
    document: String,
    /// Its kind, if the service has several documents of that id
    #[arg(long)]
    kind: Option<String>,
    #[command(flatten)]
    actor: Actor,
}

/// More than one document of an id and no kind is ambiguous, whatever their number.
const SOME: usize = 10;

pub(crate) async fn run(operator: &Operator, json: bool, wakes: Wakes) -> Result<ExitCode> {
    let now = Timestamp::system();
    match wakes {
        Wakes::List { service, kind, document, limit } => {
            let (found, silent) = operator.wakes(&WakeFilter { service, kind, document }, limit).await?;
            if json {
                output::json(&json!({ "wakes": found, "silent": silent }))?;
            } else if found.is_empty() {
                output::line("nothing waits")?;
            } else {
                output::line(&table(&found, Timestamp::system()).to_string())?;
            }
            for service in &silent {
                eprintln!("! `{service}` does not answer: what waits there is not known");
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
        bail!("`{service}` does not answer: nothing was done");
    }
    let wake = match &found[..] {
        [wake] => wake,
        [] => bail!("nothing of `{document}` waits at `{service}`"),
        several => {
            let kinds: Vec<&str> = several.iter().map(|wake| wake.kind.as_str()).collect();
            bail!("several of `{document}` wait at `{service}`: say which with --kind, one of {}", kinds.join(", "));
        }
    };
    let left = operator.act_on(wake, act, &actor.into()).await?;
    if json {
        output::json(&left)?;
    } else {
        let name = format!("the `{}` of {}/{} at `{service}`", left.kind, left.collection, left.document);
        output::line(&match act {
            WakeAct::Move { .. } => format!("{name} is due at {} now; it was at {}", left.at, wake.at),
            WakeAct::Fire => format!("{name} is due now; it was at {}", wake.at),
            WakeAct::Cancel => format!("{name} is cancelled; it was due at {}", wake.at),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(wakes: &[PendingWake], now: Timestamp) -> Table {
    let mut table = output::table(["SERVICE", "KIND", "DOCUMENT", "DUE", "SET", "TRIED", "STATE", "CORRELATION"]);
    for wake in wakes {
        let state = match wake.lease {
            Some(until) if until > now => "runs",
            _ if wake.at <= now => "due",
            _ if wake.attempt > 0 => "tries again",
            _ => "waits",
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
