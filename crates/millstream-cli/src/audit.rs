//! `millstream audit`: who did what, when and why.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use millstream::Id;
use millstream::operator::Operator;
use millstream::operator::audit::AuditEntry;

use crate::output::{self, Listing};

/// Selects audit entries.
#[derive(Args, Debug)]
pub(crate) struct Audit {
    /// Maximum number, newest first
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: usize,
    /// Only entries about this service
    #[arg(long)]
    service: Option<String>,
    /// Only this action: redrive, edit, discard, reveal, move, fire, cancel
    #[arg(long)]
    action: Option<String>,
    /// Only entries about this dead letter
    #[arg(long)]
    id: Option<Id>,
}

/// Maximum number of entries searched.
const LOOKED_THROUGH: usize = 100_000;

pub(crate) async fn run(operator: &Operator, json: bool, audit: Audit) -> Result<ExitCode> {
    let Audit { limit, service, action, id } = audit;
    let filters = service.is_some() || action.is_some();
    let mut entries = match id {
        Some(id) => {
            let mut about = operator.audited_about(id).await?;
            about.reverse();
            about
        }
        None => operator.audited(if filters { LOOKED_THROUGH } else { limit }).await?,
    };
    let fits = |wanted: &Option<String>, have: &str| wanted.as_ref().is_none_or(|wanted| wanted == have);
    entries.retain(|entry| fits(&service, &entry.service) && fits(&action, &entry.action));
    entries.truncate(limit);
    if json {
        output::json(&entries)?;
    } else if entries.is_empty() {
        output::line("no audit entries")?;
    } else {
        output::line(&table(&entries).to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Entries as a table.
pub(crate) fn table(entries: &[AuditEntry]) -> Listing {
    let mut table = output::table(["AT", "WHO", "ACTION", "SERVICE", "WHAT", "WHY", "DETAILS"]);
    for entry in entries {
        let details = if entry.details.is_null() { String::new() } else { entry.details.to_string() };
        table.add_row([
            entry.at.to_string(),
            entry.who.clone(),
            entry.action.clone(),
            entry.service.clone(),
            entry.what.clone(),
            entry.why.clone(),
            details,
        ]);
    }
    table
}
