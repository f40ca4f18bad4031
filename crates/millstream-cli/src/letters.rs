//! Prints dead letters.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use millstream::operator::dead::{DeadFilter, DeadLetter, LetterState, Letters};
use millstream::operator::personal::{MASK, mask};
use millstream::operator::trace::{Look, Trace};
use millstream::operator::{Operator, OperatorError};
use millstream::{Id, Timestamp};
use serde_json::{Value, json};

use crate::output;

pub(crate) fn list(letters: &Letters, filter: &DeadFilter, each: bool, json: bool) -> Result<ExitCode> {
    if each {
        let found = letters.list(filter);
        if json {
            output::json(&found)?;
        } else if found.is_empty() {
            println!("no dead letters");
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
            println!("{table}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let groups = letters.groups(filter);
    if json {
        output::json(&groups)?;
    } else if groups.is_empty() {
        println!("no dead letters");
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
        println!("{table}");
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

pub(crate) async fn show(operator: &Operator, letter: &DeadLetter, reveal: bool, as_json: bool) -> Result<ExitCode> {
    let audit = operator.audited_about(letter.id).await?;
    let payload = match serde_json::from_slice::<Value>(&letter.payload) {
        Ok(mut value) => {
            if !reveal {
                mask(&mut value, &letter.personal);
            }
            value
        }
        // An unreadable body may contain personal data anywhere.
        Err(_) if !reveal && !letter.personal.is_empty() => MASK.into(),
        Err(_) => String::from_utf8_lossy(&letter.payload).into_owned().into(),
    };
    let around = around(operator, letter, reveal).await;
    if as_json {
        let headers: BTreeMap<_, _> = letter.headers.iter().cloned().collect();
        let trace = around.ok();
        output::json(
            &json!({ "letter": letter, "headers": headers, "payload": payload, "audit": audit, "trace": trace }),
        )?;
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
    println!("{facts}\n");
    let mut headers = output::table(["HEADER", "VALUE"]);
    let own = letter.headers.iter().filter(|(name, _)| !name.starts_with("Millstream-") && !name.starts_with("Nats-"));
    own.for_each(|(name, value)| {
        headers.add_row([name, value]);
    });
    println!("{headers}\n");
    match payload {
        Value::String(text) => println!("{text}"),
        value => println!("{}", serde_json::to_string_pretty(&value)?),
    }
    if let Some(whole) = letter.cut {
        println!("(cut: {} of {whole} bytes)", letter.payload.len());
    }
    if !audit.is_empty() {
        println!("\n{}", crate::audit::table(&audit));
    }
    match around {
        Ok(traced) => println!("\n{}", crate::trace::screen(&traced)),
        Err(error) => println!("\nthe trace cannot be shown: {error}"),
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
