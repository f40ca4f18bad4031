//! `simulation --seeds N [--from S]`: runs the shop's services under that many seeds. `simulation --orders N`: lets so many orders
//! pass without faults, for a profiler.

use std::process::ExitCode;
use std::time::Instant;

use millstream::sim::Faults;
use simulation::simulate_everywhere;

const USAGE: &str = "simulation --seeds N [--from S] | --orders N";
/// Seeds between two lines of progress.
const STEP: u64 = 1000;

fn main() -> ExitCode {
    let (mut seeds, mut from) = (STEP, 0);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().and_then(|value| value.parse::<u64>().ok());
        match (arg.as_str(), value) {
            ("--seeds", Some(value)) => seeds = value,
            ("--from", Some(value)) => from = value,
            ("--orders", Some(value)) => return cost(value),
            _ => {
                eprintln!("usage: {USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let started = Instant::now();
    let end = from.saturating_add(seeds);
    let mut at = from;
    while at < end {
        let to = end.min(at + STEP);
        if let Err(failure) = simulate_everywhere(at..to, Faults::all()) {
            println!("{failure}");
            return ExitCode::FAILURE;
        }
        at = to;
        println!("{} of {seeds} seeds, {} s, nothing found", at - from, started.elapsed().as_secs());
    }
    ExitCode::SUCCESS
}

fn cost(orders: u64) -> ExitCode {
    match simulation::cost::orders(usize::try_from(orders).unwrap_or(usize::MAX)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
