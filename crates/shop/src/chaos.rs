//! `shop chaos`: a shop of real processes under load, faults from a schedule that a seed decides, then quiet, and then every
//! invariant and the ledger of what was promised.
//!
//! The schedule is a value (`schedule.rs`) and is written down, so that a run can be repeated as far as processes and a clock can
//! be: the same faults at the same times. What it may contain is what the shop promises to survive; see `docs/guarantees.md`.

mod fault;
mod fleet;
mod line;
mod pauses;
mod program;
mod schedule;
mod strike;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use millstream::Timestamp;
use millstream::terminal::line;
use tokio::time::sleep_until;

use self::fault::{Fault, Service};
use self::fleet::Fleet;
use self::pauses::{Pauses, Struck};
use self::schedule::{Schedule, Step};
use crate::data::DataFolder;
use crate::wire::{Api, Order};
use crate::{check, disk};

/// Options of `shop chaos`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long there are load and faults. Until everything is at rest and checked, it takes some minutes more.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
    /// Seed of the schedule and of the orders. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Repeat the schedule that an earlier run has written to this file.
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["minutes", "seed"])]
    replay: Option<PathBuf>,
    /// Orders per second.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0)]
    rate: f64,
}

/// Runs it; whether everything held.
///
/// # Errors
/// When something cannot be run at all.
pub async fn run(args: Args, shutdown: impl Future<Output = ()>) -> Result<bool> {
    let schedule = match &args.replay {
        Some(path) => Schedule::read(path)?,
        None => Schedule::new(args.seed.unwrap_or_else(|| Timestamp::system().millis() % 1_000_000), args.minutes),
    };
    let folder = tempfile::Builder::new().prefix("shop-chaos-").tempdir().context("cannot make a temporary folder")?;
    let data = DataFolder::open(folder.path())?;
    disk::check(&data, "Choose a folder for temporary files on a larger disk with the variable TMPDIR.")?;
    let file = folder.path().join("schedule.json");
    fs::write(&file, schedule.text()?).with_context(|| format!("cannot write {}", file.display()))?;
    let Schedule { seed, minutes, steps } = &schedule;
    ensure!(args.rate > 0.0 && args.rate.is_finite(), "--rate must be above 0");
    say(&format!("Seed {seed}: {} faults in {minutes} minutes, in {}", steps.len(), folder.path().display()))?;
    // What is dropped unfinished kills what it has started.
    let held = tokio::select! {
        held = play(&schedule, args.rate, data) => held,
        () = shutdown => bail!("interrupted"),
    };
    if !matches!(held, Ok(true)) {
        let kept = folder.keep();
        say(&format!("\nSeed {seed} failed with this schedule:\n{}", schedule.text()?))?;
        say(&format!("Data and logs are kept in {}. To repeat it:", kept.display()))?;
        say(&format!("  cargo xtask chaos --rate {} --replay {}", args.rate, kept.join("schedule.json").display()))?;
    }
    held
}

fn say(text: &str) -> Result<()> {
    line(text).context("cannot write the output")
}

async fn play(schedule: &Schedule, rate: f64, data: DataFolder) -> Result<bool> {
    let fleet = Fleet::start(data, schedule.seed).await?;
    let work = async {
        let submitted = (f64::from(schedule.minutes) * 60.0 * rate).ceil() as u64;
        fleet.load(submitted, Some(rate))?;
        let struck = faults(&fleet, &schedule.steps).await?;
        say("Quiet.")?;
        let reports = fleet.loads_end().await?;
        let until = Timestamp::system();
        if let Err(error) = fleet.ready().await {
            fleet.note_trouble(format!("{error:#}"));
        }
        let outcome = check::run(check::Options {
            older_than: Duration::ZERO,
            looks: 60,
            ledger: fleet.ledgers()?,
            ..check::Options::of(&fleet.urls)
        });
        let outcome = outcome.await?;
        let orders: Vec<Order> = Api::new(&fleet.http, &fleet.urls.orders).list("/orders", "orders").await?;
        let expected = poisoned(&struck);
        let letters = fleet.dead_letters(Service::Orders).await?;
        if letters < expected {
            fleet.note_trouble(format!("{expected} events were poisoned, and there are {letters} dead letters"));
        }
        if let Err(error) = fleet.stop().await {
            fleet.note_trouble(format!("{error:#}"));
        }
        for report in reports {
            say(&format!("\n{report}"))?;
        }
        let ended: Vec<_> = orders.iter().filter_map(|order| order.ended_at).collect();
        // Of what is submitted some is refused while something is down, and most is not.
        if (ended.len() as u64) < submitted / 2 {
            fleet.note_trouble(format!("{} orders of {submitted} have ended, so little was checked", ended.len()));
        }
        say(&format!("\n{}\n\n{outcome}", Pauses::of(&struck, ended, until)))?;
        Ok::<_, anyhow::Error>(outcome.exit_code() == 0)
    };
    let held = tokio::select! {
        held = work => held,
        failed = fleet.supervise() => failed.map(|()| false),
    };
    let mut troubles = fleet.troubles();
    troubles.extend(panics(&fleet.data.path().join("logs")).unwrap_or_else(|error| vec![format!("{error:#}")]));
    for trouble in &troubles {
        say(&format!("TROUBLE: {trouble}"))?;
    }
    Ok(held? && troubles.is_empty())
}

/// How many events were poisoned since the broker was last put back, which may have taken those before with it.
fn poisoned(struck: &[Struck]) -> usize {
    let back = struck.iter().filter(|struck| struck.kind == Fault::PutBackBroker { ago_ms: 0 }.kind());
    let since = back.map(|struck| struck.at + struck.lasted).max();
    struck
        .iter()
        .filter(|struck| struck.kind == Fault::Poison.kind() && since.is_none_or(|since| struck.at > since))
        .count()
}

/// Does them at their times, whichever are still going on.
async fn faults(fleet: &Fleet, steps: &[Step]) -> Result<Vec<Struck>> {
    let began = Instant::now();
    let due = stream::iter(steps).then(async |step: &Step| {
        sleep_until((began + step.at()).into()).await;
        step
    });
    let struck = due.map(async |Step { fault, .. }| {
        let (at, now) = (Timestamp::system(), Instant::now());
        let seconds = began.elapsed().as_secs_f64();
        say(&format!("{:02}:{:04.1}  {fault}", (seconds / 60.0) as u32, seconds % 60.0))?;
        fleet.strike(fault).await.with_context(|| fault.to_string())?;
        Ok::<_, anyhow::Error>(Struck { kind: fault.kind(), at, lasted: now.elapsed() })
    });
    let mut struck: Vec<Struck> = struck.buffer_unordered(steps.len().max(1)).try_collect().await?;
    struck.sort_unstable_by_key(|struck| struck.at);
    Ok(struck)
}

/// What panicked, by the logs.
fn panics(logs: &Path) -> Result<Vec<String>> {
    let mut found = vec![];
    for file in fs::read_dir(logs)? {
        let path = file?.path();
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        found.extend(
            text.lines().filter(|line| line.contains("panicked at")).map(|line| format!("{}: {line}", path.display())),
        );
    }
    Ok(found)
}
