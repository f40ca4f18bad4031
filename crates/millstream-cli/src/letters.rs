//! Prints dead letters.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use millstream::operator::audit::AuditEntry;
use millstream::operator::dead::{DeadFilter, DeadLetter, LetterState, Letters};
use millstream::operator::exact::Exact;
use millstream::operator::personal::MASK;
use millstream::operator::trace::{Look, Trace};
use millstream::operator::{Operator, OperatorError};
use millstream::{Id, Timestamp};
use serde::Serialize;

use crate::output;

pub(crate) fn list(letters: &Letters, filter: &DeadFilter, each: bool, json: bool) -> Result<ExitCode> {
    if each {
        let found = letters.list(filter);
        if json {
            output::json(&found)?;
        } else if found.is_empty() {
            output::line("no dead letters")?;
        } else {
            let mut table =
                output::table(["SERVICE", "ID", "EVENT", "STATE", "REASON", "REDRIVES", "FAILED", "KEY", "ERROR"]);
            for letter in found {
                table.add_row([
                    letter.service.clone(),
                    letter.id.to_string(),
                    letter.event.clone(),
                    state(letter.state).into(),
                    letter.reason.clone(),
                    letter.redrives.to_string(),
                    letter.last_failure.unwrap_or(letter.at).to_string(),
                    letter.key.clone().unwrap_or_default(),
                    letter.error.clone(),
                ]);
            }
            output::line(&table.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let groups = letters.groups(filter);
    if json {
        output::json(&groups)?;
    } else if groups.is_empty() {
        output::line("no dead letters")?;
    } else {
        let columns = ["SERVICE", "EVENT", "REASON", "COUNT", "REDRIVING", "FIRST", "LAST", "FINGERPRINT", "ERROR"];
        let mut table = output::table(columns);
        for group in groups {
            let time = |at: Option<Timestamp>| at.map_or(String::new(), |at| at.to_string());
            table.add_row([
                group.service,
                group.event,
                group.reason,
                group.count.to_string(),
                group.redriving.to_string(),
                time(group.first),
                time(group.last),
                group.fingerprint,
                group.error,
            ]);
        }
        output::line(&table.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn state(state: LetterState) -> &'static str {
    match state {
        LetterState::Dead => "dead",
        LetterState::Redriving => "redriving",
        LetterState::Resolved => "resolved",
        LetterState::Edited => "edited",
        LetterState::Discarded => "discarded",
    }
}

/// All of a dead letter, for programs.
#[derive(Serialize)]
struct Whole<'a> {
    audit: Vec<AuditEntry>,
    headers: BTreeMap<String, String>,
    letter: &'a DeadLetter,
    payload: Exact,
    trace: Option<Trace>,
}

pub(crate) async fn show(operator: &Operator, letter: &DeadLetter, reveal: bool, as_json: bool) -> Result<ExitCode> {
    let audit = operator.audited_about(letter.id).await?;
    let payload = match Exact::read(&letter.payload) {
        Ok(mut body) => {
            if !reveal {
                body.mask(&letter.personal);
            }
            body
        }
        // An unreadable body may contain personal data anywhere.
        Err(_) if !reveal && !letter.personal.is_empty() => Exact::text(MASK),
        Err(_) => Exact::text(&String::from_utf8_lossy(&letter.payload)),
    };
    let around = around(operator, letter, reveal).await;
    if as_json {
        let headers = letter.headers.iter().cloned().collect();
        output::json(&Whole { audit, headers, letter, payload, trace: around.ok() })?;
        return Ok(ExitCode::SUCCESS);
    }
    let time = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| at.to_string());
    let mut facts = output::table(["", ""]);
    for (name, value) in [
        ("service", letter.service.clone()),
        ("id", letter.id.to_string()),
        ("event", letter.event.clone()),
        ("state", state(letter.state).into()),
        ("reason", letter.reason.clone()),
        ("error", letter.error.clone()),
        ("fingerprint", letter.fingerprint.clone()),
        ("from", format!("{} {} {}", letter.stream, letter.sequence, letter.subject)),
        ("attempts", letter.attempts.to_string()),
        ("redrives", letter.redrives.to_string()),
        ("first failure", time(letter.first_failure)),
        ("last failure", time(letter.last_failure)),
        ("record", format!("{} {}", letter.record, letter.record_sequence)),
    ] {
        facts.add_row([name.to_owned(), value]);
    }
    for (name, other) in [("edited from", letter.edited_from), ("edited to", letter.edited_to)] {
        if let Some(id) = other {
            facts.add_row([name.to_owned(), id.to_string()]);
        }
    }
    output::line(&format!("{facts}\n"))?;
    let mut headers = output::table(["HEADER", "VALUE"]);
    let own = letter.headers.iter().filter(|(name, _)| !name.starts_with("Millstream-") && !name.starts_with("Nats-"));
    own.for_each(|(name, value)| {
        headers.add_row([name, value]);
    });
    output::line(&format!("{headers}\n"))?;
    output::line(&payload.as_text().unwrap_or_else(|| payload.pretty()))?;
    if let Some(whole) = letter.cut {
        output::line(&format!("(cut: {} of {whole} bytes)", letter.payload.len()))?;
    }
    if !audit.is_empty() {
        output::line(&format!("\n{}", crate::audit::table(&audit)))?;
    }
    match around {
        Ok(traced) => output::line(&format!("\n{}", crate::trace::screen(&traced)))?,
        Err(error) => output::line(&format!("\nthe trace cannot be shown: {error}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The trace of its order or request.
async fn around(operator: &Operator, letter: &DeadLetter, reveal: bool) -> Result<Trace, OperatorError> {
    // A key that holds a time is found by reading little.
    let key = letter.key.as_ref().filter(|key| key.parse::<Id>().is_ok());
    let id = key.or(letter.correlation.as_ref()).cloned().unwrap_or_else(|| letter.id.to_string());
    let age = letter.first_failure.map_or(Duration::ZERO, |first| Timestamp::system().since(first));
    let look = Look::default();
    let mut traced = operator.trace(&id, Look { since: look.since + age, ..look }).await?;
    if !reveal {
        traced.events.iter_mut().for_each(|traced| traced.event.mask());
    }
    Ok(traced)
}
