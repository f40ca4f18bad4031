//! `cargo xtask bench`: what the shop carries, beside what this machine carries with nothing in the way. All systems are measured in
//! turn, round after round, so that what drifts drifts for all of them.

mod figures;
mod floor;
mod growth;
mod load;
mod machine;
mod profile;
mod report;
mod search;
mod shop;
mod stack;
mod statistics;
mod tally;
mod witness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::figures::{Sheet, System};
use crate::report::{Run, written_into};

// As in the shop, so that the floor is no higher than it must be.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure the shop beside the floor: the same messages and states with nothing in the way.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version)]
struct Args {
    /// Measure in two minutes instead of ten: fewer and shorter rounds, without saturation and latency.
    #[arg(long)]
    quick: bool,
    /// Measure only these.
    #[arg(long, value_enum, value_name = "SYSTEM", value_delimiter = ',')]
    only: Vec<System>,
    /// Measure no rates, but where the processor time of an order goes, with `perf` (Debian's package linux-perf).
    #[arg(long, conflicts_with_all = ["quick", "only", "json"])]
    profile: bool,
    /// Measure what stored orders cost, and a backlog: this many are submitted.
    #[arg(long, value_name = "ORDERS", conflicts_with_all = ["quick", "only", "json", "profile", "write"])]
    growth: Option<u64>,
    /// Write everything that was measured to this file.
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
    /// Write the table into its place in this page.
    #[arg(long, value_name = "FILE.md")]
    write: Option<PathBuf>,
    /// Measure nothing, and print or write what an earlier run has written with --json.
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["quick", "only", "shop", "json", "profile", "growth"])]
    from: Option<PathBuf>,
    /// Measure this program instead of the one that is built.
    #[arg(long, value_name = "PROGRAM", required_unless_present = "from")]
    shop: Option<PathBuf>,
    /// Folder on the disk that is to be measured.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    data: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let run = async {
        match (&args.from, &args.shop) {
            (Some(file), _) => show(&args, &read(file)?),
            (None, Some(shop)) if args.profile => {
                let tables = profile::profile(shop, &args.data).await?;
                println!("{tables}");
                args.write.as_ref().map_or(Ok(true), |page| profile::write(page, &tables).map(|()| true))
            }
            (None, Some(shop)) if let Some(orders) = args.growth => {
                println!("{}", growth::growth(orders, shop, &args.data).await?);
                Ok(true)
            }
            (None, Some(shop)) => show(&args, &measure(&args, shop).await?),
            (None, None) => bail!("there is nothing to measure"),
        }
    };
    // What is dropped unfinished kills what it has started.
    let run = tokio::select! {
        run = run => run,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match run {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

fn read(file: &Path) -> Result<Run> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what --json writes", file.display()))
}

/// Prints and writes a run; false when a part of it failed.
fn show(args: &Args, run: &Run) -> Result<bool> {
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(run)?;
        fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.write {
        let page = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let page = written_into(&page, run).with_context(|| file.display().to_string())?;
        fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{}\n{}", run.preface(), run.table());
    Ok(!run.failed)
}

async fn measure(args: &Args, shop: &Path) -> Result<Run> {
    let seconds = Duration::from_secs_f64;
    let (rounds, of_floor, of_shop) = if args.quick {
        let of_floor = floor::Lengths { raw: seconds(0.5), saga: seconds(1.0) };
        let of_shop = shop::Lengths {
            idle: seconds(3.0),
            warm_up: seconds(1.0),
            in_flight: seconds(1.5),
            probes: 0,
            probe: Duration::ZERO,
            latency: Duration::ZERO,
        };
        (2, of_floor, of_shop)
    } else {
        let of_floor = floor::Lengths { raw: seconds(1.0), saga: seconds(1.5) };
        let of_shop = shop::Lengths {
            idle: seconds(10.0),
            warm_up: seconds(2.0),
            in_flight: seconds(3.0),
            probes: 5,
            probe: seconds(2.0),
            latency: seconds(3.0),
        };
        (3, of_floor, of_shop)
    };
    let began = (SystemTime::now(), Instant::now());
    let shop = shop.canonicalize().with_context(|| format!("there is no {}", shop.display()))?;
    let folder = tempfile::tempdir_in(&args.data).with_context(|| format!("cannot use {}", args.data.display()))?;
    let broker = nats_embedded::find()?;
    let mongod = nats_embedded::find_mongod();
    let (mut left_out, mut failed) = (vec![], false);
    let mut systems = System::ALL.to_vec();
    systems.retain(|system| args.only.is_empty() || args.only.contains(system));
    if mongod.is_none() && systems.contains(&System::Mongo) {
        left_out.push(format!("{}: there is no mongod", System::Mongo.title()));
        systems.retain(|system| *system != System::Mongo);
    }
    let mut sheet = Sheet::default();
    for round in 1..=rounds {
        sheet.round = round;
        for system in systems.clone() {
            eprintln!("round {round} of {rounds}: {} ({:.0?})", system.title(), began.1.elapsed());
            let so_far = sheet.samples.len();
            let measured = match system {
                System::Floor => floor::measure(folder.path(), &of_floor, &mut sheet).await,
                System::FloorSynced => floor::measure_synced(folder.path(), &of_floor, &mut sheet).await,
                _ => shop::measure(system, folder.path(), &shop, &of_shop, &mut sheet).await,
            };
            if let Err(error) = measured {
                // What a failed check has invalidated is not shown.
                sheet.samples.truncate(so_far);
                let failure = format!("{}, round {round}: {error:#}", system.title());
                eprintln!("{failure}");
                left_out.push(failure);
                failed = true;
            }
        }
        // What runs late in one round runs early in the next.
        systems.reverse();
    }
    let programs = [Some(shop), Some(broker), mongod.filter(|_| systems.contains(&System::Mongo))];
    Ok(Run {
        began: humantime::format_rfc3339_seconds(began.0).to_string(),
        minutes: began.1.elapsed().as_secs_f64() / 60.0,
        rounds,
        quick: args.quick,
        machine: machine::describe(folder.path()),
        programs: programs.iter().flatten().map(|program| machine::version(program)).collect(),
        left_out,
        failed,
        samples: sheet.samples,
    })
}
