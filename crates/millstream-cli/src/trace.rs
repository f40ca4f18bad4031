//! `millstream trace`: the events that an order or a request caused, indented by cause.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use millstream::Timestamp;
use millstream::operator::as_test;
use millstream::operator::trace::{Handled, Look, Trace as Traced};
use millstream::operator::{Operator, OperatorError};
use millstream::signals::asked_to_stop;
use millstream::terminal::visible;

use crate::output;
use crate::reveal::Reveal;
use crate::times::{duration, rough};

/// What to trace.
#[derive(Args, Debug)]
pub(crate) struct Trace {
    /// An order's id or another key, an event's id, or a correlation id
    id: String,
    /// Keep watching and reprint on change, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How far back to search for an id that does not contain a time
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    since: Duration,
    /// How long after the first event to search for further events
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    within: Duration,
    /// Print a test of the service that parked an event of it: it fails until the service handles the event. Letters and digits of
    /// personal fields are replaced
    #[arg(long, conflicts_with_all = ["follow", "reveal"])]
    as_test: bool,
    #[command(flatten)]
    reveal: Reveal,
}

/// Polling interval.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(operator: &Operator, json: bool, trace: Trace) -> Result<ExitCode> {
    let Trace { id, follow, since, within, as_test, reveal } = trace;
    if as_test {
        let traced = operator.trace(&id, Look { since, within }).await?;
        if traced.dead.is_empty() {
            bail!("no service has parked an event of {id}: a test is written of a dead letter");
        }
        let tests: Vec<_> = traced.dead.iter().map(|letter| as_test::as_test(&traced, letter)).collect();
        output::raw(&tests.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    reveal.audit(operator, "trace", "all", &id).await?;
    let mut stop = std::pin::pin!(asked_to_stop());
    let (mut shown, mut whole) = (String::new(), false);
    loop {
        match operator.trace(&id, Look { since, within }).await {
            Ok(mut traced) => {
                if !reveal.reveal {
                    traced.events.iter_mut().for_each(|traced| traced.event.mask());
                }
                whole = traced.gaps.is_empty();
                let now = match (json, follow) {
                    (true, true) => serde_json::to_string(&traced)?,
                    (true, false) => serde_json::to_string_pretty(&traced)?,
                    (false, _) => screen(&traced),
                };
                if now != shown {
                    let again = !shown.is_empty();
                    if json {
                        output::raw(&now)?;
                    } else {
                        output::line(&if again { format!("\n{now}") } else { now.clone() })?;
                    }
                    shown = now;
                }
            }
            Err(OperatorError::NotFound(_) | OperatorError::Away(_)) if follow => {}
            Err(error) => return Err(error.into()),
        }
        if !follow {
            break;
        }
        tokio::select! {
            () = &mut stop => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub(crate) fn screen(traced: &Traced) -> String {
    let begin = traced.events.iter().map(|traced| traced.event.at).min().unwrap_or_default();
    let after = |at: Timestamp| format!("+{}", rough(at.since(begin)));
    let mut events = output::table(["AT", "EVENT", "EMITTED BY", "HANDLED BY", "STATE", "AT", "FAILED", "ERROR"]);
    for one in &traced.events {
        let kind = one.event.kind.as_deref().unwrap_or("-");
        let arrow = if one.depth == 0 { "" } else { "└ " };
        let indented = format!("{}{arrow}{kind}", "  ".repeat(one.depth.saturating_sub(1) as usize));
        let source = one.event.source.clone().unwrap_or_else(|| "-".into());
        let mut left = [after(one.event.at), indented, source];
        let mut rows: Vec<[String; 5]> = one.handled.iter().map(|handled| row(handled, &after)).collect();
        if rows.is_empty() {
            rows.push(["-", "", "", "", ""].map(Into::into));
        }
        for right in rows {
            let left = std::mem::take(&mut left);
            events.add_row(left.into_iter().chain(right));
        }
    }
    let mut parts = vec![format!("{} started at {begin}", visible(&traced.id)), events.to_string()];
    if !traced.dead.is_empty() {
        let mut dead = output::table(["DEAD LETTER", "EVENT", "STATE", "REASON", "FAILED", "REDRIVES", "ERROR"]);
        for letter in &traced.dead {
            dead.add_row([
                format!("{}/{}", letter.service, letter.id),
                letter.event.clone(),
                format!("{:?}", letter.state).to_lowercase(),
                letter.reason.clone(),
                letter.attempts.to_string(),
                letter.redrives.to_string(),
                letter.error.clone(),
            ]);
        }
        parts.push(dead.to_string());
    }
    if !traced.wakes.is_empty() {
        let now = Timestamp::system();
        let wakes = traced.wakes.iter().map(|wake| {
            let tried = if wake.attempt == 0 { String::new() } else { format!(", {} attempts", wake.attempt) };
            let [service, kind, document] = [&wake.service, &wake.kind, &wake.document].map(|text| visible(text));
            // A time of day, so that what is followed changes only when something does.
            let soon = if wake.at > now { "is due at" } else { "has been due since" };
            format!("~ the `{kind}` of {document} at `{service}` {soon} {}{tried}", wake.at)
        });
        parts.push(wakes.collect::<Vec<_>>().join("\n"));
    }
    if !traced.gaps.is_empty() {
        parts.push(traced.gaps.iter().map(|gap| format!("! {}", visible(gap))).collect::<Vec<_>>().join("\n"));
    }
    parts.join("\n\n")
}

fn row(handled: &Handled, after: &impl Fn(Timestamp) -> String) -> [String; 5] {
    let Handled { service, state, at, attempts, error, redrives, .. } = handled;
    let state = if *redrives > 0 { format!("{state}, redriven {redrives}") } else { state.clone() };
    let failed = if *attempts == 0 { String::new() } else { attempts.to_string() };
    [service.clone(), state, at.map(after).unwrap_or_default(), failed, error.clone().unwrap_or_default()]
}
