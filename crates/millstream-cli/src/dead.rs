//! `millstream dead …`: lists dead letters and acts on them.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use millstream::operator::dead::{
    DeadFilter, DeadLetter, DryEnd, DryRun, Fate, Letters, MOST_TRIED, Outcome, Progress, Redrive, Report,
};
use millstream::operator::exact::Exact;
use millstream::operator::personal::{MASK, is_personal};
use millstream::operator::{By, Operator, OperatorError};
use millstream::{Id, Timestamp};
use serde_json::Value;

use crate::letters::{list, show};
use crate::output;
use crate::reveal::{Reveal, revealed};
use crate::who::{Actor, text, who};

/// Actions on dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// List dead letters, one row per cause
    List {
        #[command(flatten)]
        filter: Filter,
        /// One row per dead letter instead of one per cause
        #[arg(long)]
        each: bool,
        /// Include resolved, edited and discarded ones
        #[arg(long)]
        all: bool,
    },
    /// Show one dead letter: the failure, headers and body, and its audit entries
    Show {
        /// The dead letter, `payments/019ac3f0-…`; the id is enough if only one service has it
        #[arg(value_name = "[SERVICE/]ID")]
        letter: Name,
        #[command(flatten)]
        reveal: Reveal,
    },
    /// Send dead letters back to the services that parked them
    Redrive {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        many: Many,
        /// Maximum rate per second
        #[arg(long, default_value_t = 500, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Include those that have failed again three times
        #[arg(long)]
        force: bool,
        /// Redrive 1, then 2, 5, 20, 100, …, each step once the services have handled the last one; stop at the first that fails again
        #[arg(long)]
        canary: bool,
    },
    /// Send an edited copy of a dead letter to its service. Opens $EDITOR unless --set or --payload is given
    Edit {
        /// The dead letter, `payments/019ac3f0-…`; the id is enough if only one service has it
        #[arg(value_name = "[SERVICE/]ID")]
        letter: Name,
        /// Set a JSON value in the body, `/lines/0/quantity=3`; anything that is not JSON is taken as a string
        #[arg(long = "set", value_name = "/POINTER=VALUE", value_parser = change, conflicts_with = "payload")]
        changes: Vec<(String, Exact)>,
        /// File with the new body; `-` reads standard input
        #[arg(long, value_name = "FILE")]
        payload: Option<String>,
        #[command(flatten)]
        actor: Actor,
    },
    /// Discard dead letters for good. Their records are kept for 30 days
    Discard {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        many: Many,
    },
}

/// How many to act on, who acts, and why.
#[derive(Args, Clone, Debug)]
pub(crate) struct Many {
    /// Show what would be done, and change nothing. For redrive, the services run their handlers and commit nothing
    #[arg(long)]
    dry_run: bool,
    /// Maximum number
    #[arg(long, default_value_t = 10_000, value_name = "COUNT")]
    limit: usize,
    /// Reason, recorded in the audit log
    #[arg(long, required_unless_present = "dry_run", value_parser = text)]
    why: Option<String>,
    /// Name recorded in the audit log
    #[arg(long, default_value_t = who(), value_parser = text)]
    who: String,
}

/// Selects dead letters.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filter")]
pub(crate) struct Filter {
    /// Parked by this service
    #[arg(long)]
    service: Option<String>,
    /// Event type, `orders.created`
    #[arg(long)]
    event: Option<String>,
    /// Reason of the failure: rejected, exhausted, schema, ahead, panic, misuse, crash, too_large, unknown
    #[arg(long)]
    reason: Option<String>,
    /// Fingerprint of the cause, as shown by `list`
    #[arg(long)]
    fingerprint: Option<String>,
    /// Event key: the order's id
    #[arg(long)]
    key: Option<String>,
    /// Correlation id
    #[arg(long)]
    correlation: Option<String>,
    /// Id of one dead letter
    #[arg(long)]
    id: Option<Id>,
    /// Last failed before this long ago, `2h`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Last failed within this time, `15m`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
}

impl Filter {
    fn at(self, now: Timestamp) -> DeadFilter {
        let Self { service, event, reason, fingerprint, key, correlation, id, older_than, newer_than } = self;
        let before = older_than.map(|age| now - age);
        let since = newer_than.map(|age| now - age);
        DeadFilter { service, event, reason, fingerprint, key, correlation, id, before, since, all: false }
    }
}

/// The name of a dead letter on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    service: Option<String>,
    id: Id,
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, id) = text.rsplit_once('/').map_or((None, text), |(service, id)| (Some(service.to_owned()), id));
        Ok(Self { service, id: id.parse().map_err(|error| format!("`{id}` is not a valid id: {error}"))? })
    }
}

impl Name {
    /// The dead letter of that name.
    fn of<'a>(&self, letters: &'a Letters) -> Result<&'a DeadLetter> {
        let filter =
            DeadFilter { service: self.service.clone(), id: Some(self.id), all: true, ..DeadFilter::default() };
        match letters.list(&filter)[..] {
            [letter] => Ok(letter),
            [] => bail!("no dead letter {}", self.id),
            ref several => {
                let names: Vec<_> = several.iter().map(|letter| format!("{}/{}", letter.service, letter.id)).collect();
                bail!("several services have this dead letter: {}", names.join(", "))
            }
        }
    }
}

fn change(text: &str) -> Result<(String, Exact), String> {
    let (pointer, value) = text.split_once('=').ok_or("expected /json/pointer=value")?;
    if !pointer.starts_with('/') {
        return Err(format!("the pointer `{pointer}` must begin with /"));
    }
    Ok((pointer.into(), Exact::read(value.as_bytes()).unwrap_or_else(|_| Exact::text(value))))
}

/// Something was held back, could not be sent, or there was nothing to do.
const NOT_ALL: u8 = 1;
/// Invalid command line.
const USAGE: u8 = 2;

pub(crate) async fn run(operator: &Operator, json: bool, dead: Dead) -> Result<ExitCode> {
    let now = Timestamp::system();
    match dead {
        Dead::List { filter, each, all } => {
            let filter = DeadFilter { all, ..filter.at(now) };
            known(operator, filter.service.as_deref()).await?;
            list(&letters(operator).await?, &filter, each, json)
        }
        Dead::Show { letter, reveal } => {
            let letters = letters(operator).await?;
            let letter = letter.of(&letters)?;
            reveal.audit(operator, "dead show", &letter.service, &letter.id.to_string()).await?;
            show(operator, letter, reveal.reveal, json).await
        }
        Dead::Redrive { filter, many: Many { dry_run, limit, why, who }, rate, force, canary } => {
            known(operator, filter.service.as_deref()).await?;
            let by = By { who, why: why.unwrap_or_default() };
            let how = Redrive { limit, per_second: rate, force, canary, dry_run };
            let bar = bar();
            let report = operator.redrive(&filter.at(now), &how, &by, |far| advance(&bar, far)).await;
            bar.finish_and_clear();
            tell(&report?, "redriven", json)
        }
        Dead::Edit { letter, changes, payload, actor } => {
            let by = actor.into();
            let letters = letters(operator).await?;
            let letter = letter.of(&letters)?;
            let body = match payload {
                Some(file) => read(&file)?,
                None if !changes.is_empty() => match set(letter, changes) {
                    Ok(body) => body,
                    Err(error) => return Ok(refused(&error)),
                },
                None => {
                    if !letter.personal.is_empty() {
                        revealed(operator, "dead edit", &letter.service, &letter.id.to_string(), &by).await?;
                    }
                    crate::editor::edit(letter.id, &pretty(&letter.payload))?
                }
            };
            edit(operator, letter, body, &by, json).await
        }
        Dead::Discard { filter, many: Many { dry_run, limit, why, who } } => {
            let filter = filter.at(now);
            if filter == DeadFilter::default() && !dry_run {
                output::note("error: discard needs a filter, for example --fingerprint");
                return Ok(ExitCode::from(USAGE));
            }
            known(operator, filter.service.as_deref()).await?;
            let by = By { who, why: why.unwrap_or_default() };
            let bar = bar();
            let report = operator.discard(&filter, limit, dry_run, &by, |far| advance(&bar, far)).await;
            bar.finish_and_clear();
            tell(&report?, "discarded", json)
        }
    }
}

/// Refuses a service that there is not: having no dead letters would be a good sign.
async fn known(operator: &Operator, service: Option<&str>) -> Result<()> {
    let Some(service) = service else { return Ok(()) };
    let services = operator.status().await?.services();
    if !services.contains(service) {
        let names: Vec<_> = services.into_iter().collect();
        bail!("there is no service `{service}` (--service); there are: {}", names.join(", "));
    }
    Ok(())
}

async fn letters(operator: &Operator) -> Result<Letters> {
    let mut letters = Letters::default();
    letters.update(operator).await?;
    Ok(letters)
}

fn read(file: &str) -> Result<Vec<u8>> {
    let mut body = vec![];
    if file == "-" {
        std::io::stdin().read_to_end(&mut body).context("cannot read standard input")?;
        return Ok(body);
    }
    std::fs::read(file).with_context(|| format!("cannot read {file} (--payload)"))
}

fn pretty(payload: &[u8]) -> Vec<u8> {
    Exact::read(payload).map_or_else(|_| payload.to_vec(), |body| body.pretty().into())
}

/// The body after setting the values; everything else stays as it was written.
fn set(letter: &DeadLetter, changes: Vec<(String, Exact)>) -> Result<Vec<u8>> {
    let mut body =
        Exact::read(&letter.payload).map_err(|error| anyhow!("cannot use --set: the body is not JSON: {error}"))?;
    for (pointer, value) in changes {
        if !body.set(&pointer, value) {
            bail!("the body has no field {pointer}");
        }
    }
    Ok(body.to_string().into())
}

fn refused(error: &anyhow::Error) -> ExitCode {
    output::note(&format!("error: {error:#}"));
    ExitCode::from(NOT_ALL)
}

async fn edit(operator: &Operator, letter: &DeadLetter, body: Vec<u8>, by: &By, json: bool) -> Result<ExitCode> {
    let edited = match operator.edit(&letter.service, letter.id, body.into(), by).await {
        Ok(edited) => edited,
        Err(error @ OperatorError::Refused(_)) => return Ok(refused(&error.into())),
        Err(error) => return Err(error.into()),
    };
    if json {
        output::json(&edited)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("{} sent to {} in place of {}", edited.id, letter.service, edited.original))?;
    let mut table = output::table(["WHERE", "OLD", "NEW"]);
    for (at, old, new) in edited.difference {
        let is_personal = is_personal(&at, &letter.personal);
        let shown = |value: Value| if is_personal { MASK.to_owned() } else { value.to_string() };
        table.add_row([at, shown(old), shown(new)]);
    }
    output::line(&table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn advance(bar: &ProgressBar, far: Progress) {
    bar.set_length(far.total as u64);
    bar.set_position(far.dealt_with as u64);
}

/// Maximum number of remaining dead letters listed by name.
const NAMED: usize = 50;

fn tell(report: &Report, done: &str, json: bool) -> Result<ExitCode> {
    let stayed: Vec<&Fate> =
        report.fates.iter().filter(|fate| !matches!(fate.outcome, Outcome::Done | Outcome::WouldGo)).collect();
    if json {
        output::json(report)?;
    } else if report.fates.is_empty() {
        output::line("no dead letter matches")?;
    } else {
        let would = format!("would be {done}");
        let count = |outcome| report.counts.get(&outcome).copied().unwrap_or_default();
        for (outcome, words) in [
            (Outcome::WouldGo, would.as_str()),
            (Outcome::Done, done),
            (Outcome::Held, "held back"),
            (Outcome::Taken, "changed by another operator"),
            (Outcome::Failed, "failed; run again to continue"),
        ] {
            if count(outcome) > 0 {
                output::line(&format!("{} {words}", count(outcome)))?;
            }
        }
        list_fates("WHY", stayed.iter().map(|fate| (*fate, fate.why.clone().unwrap_or_default())))?;
        tell_dry_runs(report)?;
    }
    let handled = report.dry_ends().keys().all(|end| matches!(end, DryEnd::Handled | DryEnd::Duplicate));
    let all = stayed.is_empty() && handled && !report.fates.is_empty();
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) })
}

fn list_fates<'a>(last: &str, fates: impl ExactSizeIterator<Item = (&'a Fate, String)>) -> Result<()> {
    let number = fates.len();
    let mut table = output::table(["SERVICE", "ID", "EVENT", last]);
    for (fate, words) in fates.take(NAMED) {
        table.add_row([fate.service.clone(), fate.id.to_string(), fate.event.clone(), words]);
    }
    if number > 0 {
        output::line(&table.to_string())?;
    }
    if number > NAMED {
        output::line(&format!("and {} more", number - NAMED))?;
    }
    Ok(())
}

/// What the services' handlers have done in a dry run, the failures first.
fn tell_dry_runs(report: &Report) -> Result<()> {
    for (end, number) in report.dry_ends() {
        output::line(&format!("  {number} {}", would(end)))?;
    }
    if report.fates.len() > MOST_TRIED {
        output::line(&format!("  (the first {MOST_TRIED} were tried)"))?;
    }
    let mut dry: Vec<(&Fate, &DryRun)> =
        report.fates.iter().filter_map(|fate| Some((fate, fate.dry_run.as_ref()?))).collect();
    dry.sort_by_key(|(_, dry_run)| std::cmp::Reverse(dry_run.end));
    list_fates("DRY RUN", dry.into_iter().map(|(fate, dry_run)| (fate, words(dry_run))))
}

fn would(end: DryEnd) -> &'static str {
    match end {
        DryEnd::Handled => "would be handled",
        DryEnd::Duplicate => "would be skipped: handled already",
        DryEnd::Retried => "would fail and be retried",
        DryEnd::Waits => "would wait for a newer release",
        DryEnd::Parked => "would be parked again",
        DryEnd::Unknown => "could not be tried",
    }
}

/// What would become of one, and what would change.
fn words(dry_run: &DryRun) -> String {
    let mut words = would(dry_run.end).to_owned();
    if let Some(error) = &dry_run.error {
        words += &format!(": {error}");
    }
    for change in &dry_run.changes {
        let wake = match change.wake.as_deref() {
            None => String::new(),
            Some("") => ", removes its wake".into(),
            Some(kind) => format!(", sets its wake `{kind}`"),
        };
        let (verb, fields) = (if change.created { "creates" } else { "changes" }, change.fields.join(", "));
        words += &format!("; {verb} {}/{}: {fields}{wake}", change.collection, change.document);
    }
    if dry_run.changed > dry_run.changes.len() {
        words += &format!("; and {} more", dry_run.changed - dry_run.changes.len());
    }
    if !dry_run.events.is_empty() {
        words += &format!("; publishes {}", dry_run.events.join(", "));
    }
    words
}

#[cfg(test)]
mod tests {
    use millstream::operator::dead::DryChange;

    use super::*;

    #[test]
    fn a_dry_run_is_told_in_one_line() {
        let change = |created, wake: Option<&str>| DryChange {
            collection: "orders".into(),
            document: "o-1".into(),
            created,
            fields: vec!["status".into(), "total".into()],
            wake: wake.map(str::to_owned),
        };
        let changes = vec![change(true, Some("charge")), change(false, Some("")), change(false, None)];
        let events = vec!["orders.confirmed".into()];
        let dry_run = DryRun { end: DryEnd::Handled, error: None, changes, changed: 4, events };
        assert_eq!(
            words(&dry_run),
            "would be handled; creates orders/o-1: status, total, sets its wake `charge`; changes orders/o-1: status, total, \
             removes its wake; changes orders/o-1: status, total; and 1 more; publishes orders.confirmed"
        );
        let parked = DryRun {
            end: DryEnd::Parked,
            error: Some("schema: no".into()),
            changes: vec![],
            changed: 0,
            events: vec![],
        };
        assert_eq!(words(&parked), "would be parked again: schema: no");
    }
}
