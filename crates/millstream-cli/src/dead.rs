//! `millstream dead …`: what services have given up, and what is done about it.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use millstream::operator::dead::{DeadFilter, DeadLetter, Fate, Letters, Outcome, Progress, Redrive, Report};
use millstream::operator::personal::{MASK, is_personal};
use millstream::operator::{By, Operator, OperatorError};
use millstream::{Id, Timestamp};
use serde_json::Value;

use crate::letters::{list, show};
use crate::output;
use crate::reveal::{Reveal, revealed};
use crate::who::{Actor, text, who};

/// What is done about dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// List what services have given up: a row for each cause
    List {
        #[command(flatten)]
        filter: Filter,
        /// A row for each dead letter instead of each cause
        #[arg(long)]
        each: bool,
        /// Also those that are resolved, edited or discarded
        #[arg(long)]
        all: bool,
    },
    /// Show one: what failed and why, its headers and body, and what was done about it
    Show {
        /// Which, `payments/019ac3f0-…`; the id alone if one service has it
        #[arg(value_name = "[SERVICE/]ID")]
        letter: Name,
        #[command(flatten)]
        reveal: Reveal,
    },
    /// Hand dead letters back to the services that gave them up
    Redrive {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        many: Many,
        /// At most so many a second
        #[arg(long, default_value_t = 500, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Also those that have come back three times
        #[arg(long)]
        force: bool,
    },
    /// Send a changed copy of one to its service, in $EDITOR unless told how
    Edit {
        /// Which, `payments/019ac3f0-…`; the id alone if one service has it
        #[arg(value_name = "[SERVICE/]ID")]
        letter: Name,
        /// Sets a value in the body: `/lines/0/quantity=3`. What is no JSON is a text
        #[arg(long = "set", value_name = "/POINTER=VALUE", value_parser = change, conflicts_with = "payload")]
        changes: Vec<(String, Value)>,
        /// The new body; `-` reads the standard input
        #[arg(long, value_name = "FILE")]
        payload: Option<String>,
        #[command(flatten)]
        actor: Actor,
    },
    /// Give dead letters up for good. Their records stay for 30 days
    Discard {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        many: Many,
    },
}

/// How many are acted on, by whom, and why.
#[derive(Args, Clone, Debug)]
pub(crate) struct Many {
    /// Says what would go and what not, and touches nothing
    #[arg(long)]
    dry_run: bool,
    /// At most so many
    #[arg(long, default_value_t = 10_000, value_name = "COUNT")]
    limit: usize,
    /// Why; it stands in the audit
    #[arg(long, required_unless_present = "dry_run", value_parser = text)]
    why: Option<String>,
    /// Who you are
    #[arg(long, default_value_t = who(), value_parser = text)]
    who: String,
}

/// Which dead letters are meant.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which dead letters")]
pub(crate) struct Filter {
    /// Of this service
    #[arg(long)]
    service: Option<String>,
    /// Of this type of event, `orders.created`
    #[arg(long)]
    event: Option<String>,
    /// Given up for this reason: rejected, exhausted, schema, ahead, panic, misuse, crash, too_large
    #[arg(long)]
    reason: Option<String>,
    /// Of this cause, as `list` shows it
    #[arg(long)]
    fingerprint: Option<String>,
    /// About this key: the order's id
    #[arg(long)]
    key: Option<String>,
    /// With this correlation id
    #[arg(long)]
    correlation: Option<String>,
    /// This one
    #[arg(long)]
    id: Option<Id>,
    /// That last failed longer ago than this: `2h`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// That last failed at most so long ago: `15m`
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

/// A dead letter as a person names it.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    service: Option<String>,
    id: Id,
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, id) = text.rsplit_once('/').map_or((None, text), |(service, id)| (Some(service.to_owned()), id));
        Ok(Self { service, id: id.parse().map_err(|error| format!("`{id}` is no id: {error}"))? })
    }
}

impl Name {
    /// The dead letter of that name.
    fn of<'a>(&self, letters: &'a Letters) -> Result<&'a DeadLetter> {
        let filter =
            DeadFilter { service: self.service.clone(), id: Some(self.id), all: true, ..DeadFilter::default() };
        match letters.list(&filter)[..] {
            [letter] => Ok(letter),
            [] => bail!("there is no dead letter {}", self.id),
            ref several => {
                let names: Vec<_> = several.iter().map(|letter| format!("{}/{}", letter.service, letter.id)).collect();
                bail!("several services have it: {}", names.join(", "))
            }
        }
    }
}

fn change(text: &str) -> Result<(String, Value), String> {
    let (pointer, value) = text.split_once('=').ok_or("it is of the form /json/pointer=value")?;
    if !pointer.starts_with('/') {
        return Err(format!("the pointer `{pointer}` does not begin with /"));
    }
    Ok((pointer.into(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

/// Something was held back, could not be sent, or there was nothing to do.
const NOT_ALL: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;

pub(crate) async fn run(operator: &Operator, json: bool, dead: Dead) -> Result<ExitCode> {
    let now = Timestamp::system();
    match dead {
        Dead::List { filter, each, all } => {
            let filter = DeadFilter { all, ..filter.at(now) };
            list(&letters(operator).await?, &filter, each, json)
        }
        Dead::Show { letter, reveal } => {
            let letters = letters(operator).await?;
            let letter = letter.of(&letters)?;
            reveal.audit(operator, "dead show", &letter.service, &letter.id.to_string()).await?;
            show(operator, letter, reveal.reveal, json).await
        }
        Dead::Redrive { filter, many: Many { dry_run, limit, why, who }, rate, force } => {
            let by = By { who, why: why.unwrap_or_default() };
            let how = Redrive { limit, per_second: rate, force, dry_run };
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
                eprintln!("error: say which dead letters are to be discarded, for example --fingerprint");
                return Ok(ExitCode::from(USAGE));
            }
            let by = By { who, why: why.unwrap_or_default() };
            let bar = bar();
            let report = operator.discard(&filter, limit, dry_run, &by, |far| advance(&bar, far)).await;
            bar.finish_and_clear();
            tell(&report?, "discarded", json)
        }
    }
}

async fn letters(operator: &Operator) -> Result<Letters> {
    let mut letters = Letters::default();
    letters.update(operator).await?;
    Ok(letters)
}

fn read(file: &str) -> Result<Vec<u8>> {
    let mut body = vec![];
    if file == "-" {
        std::io::stdin().read_to_end(&mut body).context("the standard input cannot be read")?;
        return Ok(body);
    }
    std::fs::read(file).with_context(|| format!("{file} cannot be read (--payload)"))
}

fn pretty(payload: &[u8]) -> Vec<u8> {
    let value = serde_json::from_slice::<Value>(payload);
    value.and_then(|value| serde_json::to_vec_pretty(&value)).unwrap_or_else(|_| payload.to_vec())
}

/// The body with values set in it.
fn set(letter: &DeadLetter, changes: Vec<(String, Value)>) -> Result<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(&letter.payload)
        .map_err(|error| anyhow!("the body is no JSON to be set in: {error}"))?;
    for (pointer, value) in changes {
        if let Some(place) = body.pointer_mut(&pointer) {
            *place = value;
            continue;
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        let name = name.replace("~1", "/").replace("~0", "~");
        match body.pointer_mut(parent) {
            Some(Value::Object(fields)) => {
                fields.insert(name, value);
            }
            Some(Value::Array(items)) if name == "-" || name == items.len().to_string() => items.push(value),
            _ => bail!("the body has no place {pointer}"),
        }
    }
    Ok(serde_json::to_vec(&body)?)
}

fn refused(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
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
    println!("{} goes to {} in place of {}", edited.id, letter.service, edited.original);
    let mut table = output::table(["WHERE", "OLD", "NEW"]);
    for (at, old, new) in edited.difference {
        let is_personal = is_personal(&at, &letter.personal);
        let shown = |value: Value| if is_personal { MASK.to_owned() } else { value.to_string() };
        table.add_row([at, shown(old), shown(new)]);
    }
    println!("{table}");
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

/// How many of those that stayed are named.
const NAMED: usize = 50;

fn tell(report: &Report, done: &str, json: bool) -> Result<ExitCode> {
    let stayed: Vec<&Fate> =
        report.fates.iter().filter(|fate| !matches!(fate.outcome, Outcome::Done | Outcome::WouldGo)).collect();
    if json {
        output::json(report)?;
    } else if report.fates.is_empty() {
        println!("nothing fits");
    } else {
        let count = |outcome| report.counts.get(&outcome).copied().unwrap_or_default();
        for (outcome, words) in [
            (Outcome::WouldGo, "would go"),
            (Outcome::Done, done),
            (Outcome::Held, "held back"),
            (Outcome::Taken, "taken by somebody else"),
            (Outcome::Failed, "failed; another run goes on with them"),
        ] {
            if count(outcome) > 0 {
                println!("{} {words}", count(outcome));
            }
        }
        let mut table = output::table(["SERVICE", "ID", "EVENT", "WHY"]);
        for fate in stayed.iter().take(NAMED) {
            let why = fate.why.clone().unwrap_or_default();
            table.add_row([fate.service.clone(), fate.id.to_string(), fate.event.clone(), why]);
        }
        if !stayed.is_empty() {
            println!("{table}");
        }
        if stayed.len() > NAMED {
            println!("and {} more", stayed.len() - NAMED);
        }
    }
    let all = stayed.is_empty() && !report.fates.is_empty();
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) })
}
