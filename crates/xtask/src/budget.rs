//! What an order costs each service in instructions, counted by callgrind in the simulator, where a run is always the same: the
//! counts repeat to within a few tenths of a per cent. They stand in a file, and one that rises by more than a bound fails.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, root, target};

/// How much more than its budget an order may cost a service, in per cent.
const BOUND: u64 = 3;

/// Two runs, so that what is done once is not counted.
const ORDERS: [u64; 2] = [50, 150];

/// The functions that services run in.
const WITHIN: &str = "simulation::cost::within::";

const USAGE: &str = "cargo xtask budget [--write]

Counts the instructions that an order costs each service and compares them with crates/simulation/budget.txt; exits with 1 if
one costs more than 3 % above its budget. It needs valgrind (Debian's package of that name).

  --write   make what was counted the budget
";

/// Instructions an order, by service.
type Cost = BTreeMap<String, u64>;

pub(crate) fn run(flags: &[OsString]) -> Result<ExitCode> {
    let write = match flags {
        [] => false,
        [flag] if flag == "--write" => true,
        [flag] if flag == "--help" || flag == "-h" => {
            print!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        _ => bail!("{USAGE}"),
    };
    if !is_installed("valgrind") {
        println!("The budget of instructions was NOT CHECKED: there is no valgrind (Debian's package of that name).");
        return Ok(ExitCode::SUCCESS);
    }
    // As the tests are built, of which it is one: what is there is not built again with other features.
    let build = ["test", "--workspace", "--all-features", "--no-run"];
    // In the same units for everybody, which is what is optimized together.
    let mut build_it = cargo();
    build_it.args(build).env("CARGO_INCREMENTAL", "0");
    ensure!(build_it.status().context("cannot run cargo")?.success(), "building the simulator failed");
    let program = target()?.join("debug/simulation");
    let (path, compiler) = (root().join("crates/simulation/budget.txt"), compiler()?);
    let known = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
    let (budget, counted_with) = match known.and_then(|text| parse(&text)) {
        Ok(known) => known,
        Err(_) if write => (Cost::new(), String::new()),
        Err(error) => return Err(error),
    };
    if !write && counted_with != compiler {
        println!(
            "The budget of instructions was NOT CHECKED: it was counted with {counted_with}, and this is {compiler}."
        );
        return Ok(ExitCode::SUCCESS);
    }
    let [few, many] = [count(&program, ORDERS[0])?, count(&program, ORDERS[1])?];
    let cost = an_order(&few, &many)?;
    if write {
        fs::write(&path, text(&cost, &compiler)).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", table(&cost, &cost));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", table(&cost, &budget));
    let over = over(&cost, &budget);
    if over.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "Over the budget: {}. Find out why, or raise the budget with `cargo xtask budget --write` in the commit that says why.",
        over.join(", ")
    );
    Ok(ExitCode::FAILURE)
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The instructions that each service needs for so many orders.
fn count(program: &Path, orders: u64) -> Result<Cost> {
    let out = env::temp_dir().join(format!("millstream-budget-{}-{orders}", std::process::id()));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(flag("--callgrind-out-file=", &out))
        .arg(program)
        .args(["--orders", &orders.to_string()])
        .status();
    ensure!(run.context("cannot run valgrind")?.success(), "the simulator failed under valgrind");
    let told =
        Command::new("callgrind_annotate").args(["--inclusive=yes", "--threshold=100", "--auto=no"]).arg(&out).output();
    fs::remove_file(&out).ok();
    let told = told.context("cannot run callgrind_annotate")?;
    ensure!(told.status.success(), "callgrind_annotate: {}", String::from_utf8_lossy(&told.stderr).trim());
    Ok(by_service(&String::from_utf8_lossy(&told.stdout)))
}

fn flag(name: &str, path: &Path) -> OsString {
    [OsStr::new(name), path.as_os_str()].into_iter().collect()
}

/// The lines of the services' functions: `1,234 (25.4%)  FILE:simulation::cost::within::orders [PROGRAM]`.
fn by_service(told: &str) -> Cost {
    let line = |line: &str| {
        let (before, after) = line.split_once(WITHIN)?;
        let service = after.split_whitespace().next()?;
        let count = before.split_whitespace().next()?.replace(',', "").parse().ok()?;
        Some((service.to_owned(), count))
    };
    told.lines().filter_map(line).collect()
}

fn an_order(few: &Cost, many: &Cost) -> Result<Cost> {
    ensure!(!few.is_empty() && few.keys().eq(many.keys()), "callgrind tells nothing of the services: {many:?}");
    let each = |(service, many): (&String, &u64)| {
        (service.clone(), many.saturating_sub(few[service]) / (ORDERS[1] - ORDERS[0]))
    };
    Ok(many.iter().map(each).collect())
}

/// The compiler with its version, and what it compiles for.
fn compiler() -> Result<String> {
    let rustc = env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let told = Command::new(rustc).arg("-vV").output().context("cannot run rustc")?;
    let told = String::from_utf8_lossy(&told.stdout);
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or("an unknown host");
    Ok(format!("{} on {host}", told.lines().next().unwrap_or_default()))
}

fn text(cost: &Cost, compiler: &str) -> String {
    let mut text = format!(
        "# Instructions an order in each service, in a test build: written by `cargo xtask budget --write`.\n\
         compiler {compiler}\n"
    );
    for (service, count) in cost {
        // It cannot fail on a string.
        let _ = writeln!(text, "{service} {count}");
    }
    text
}

fn parse(text: &str) -> Result<(Cost, String)> {
    let (mut cost, mut compiler) = (Cost::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(' ') {
            Some(("compiler", told)) => compiler = told.into(),
            Some((service, count)) => drop(cost.insert(service.into(), count.parse().context(line.to_owned())?)),
            None => bail!("a line that is neither `compiler NAME` nor `service instructions`: {line}"),
        }
    }
    Ok((cost, compiler))
}

/// What is above its bound, or has no budget.
fn over(cost: &Cost, budget: &Cost) -> Vec<String> {
    let above = |(service, count): (&String, &u64)| match budget.get(service) {
        Some(budget) if count * 100 <= budget * (100 + BOUND) => None,
        Some(budget) => Some(format!("{service} ({:+.1} %)", excess(*count, *budget) * 100.0)),
        None => Some(format!("{service} (it has none)")),
    };
    let missing =
        budget.keys().filter(|service| !cost.contains_key(*service)).map(|name| format!("{name} (not counted)"));
    cost.iter().filter_map(above).chain(missing).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a ratio is told in per mille")]
fn excess(count: u64, budget: u64) -> f64 {
    count as f64 / budget as f64 - 1.0
}

fn table(cost: &Cost, budget: &Cost) -> String {
    let mut table = format!("{:<15}{:>14}{:>14}", "instructions", "an order", "budget");
    for (service, count) in cost {
        let known = budget.get(service);
        let _ = write!(table, "\n{service:<15}{count:>14}{:>14}", known.map_or("-".into(), ToString::to_string));
        if let Some(known) = known {
            let _ = write!(table, "{:>+9.1} %", excess(*count, *known) * 100.0);
        }
    }
    let sum = |cost: &Cost| cost.values().sum::<u64>();
    let _ = write!(table, "\n{:<15}{:>14}{:>14}", "all", sum(cost), sum(budget));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(pairs: &[(&str, u64)]) -> Cost {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn what_callgrind_tells_is_counted_by_service_and_order() {
        let told = |orders: u64| {
            format!(
                "1,241 (100.0%)  PROGRAM TOTALS\n  {orders},000 (25%)  /a/cost.rs:simulation::cost::within::orders [/a/simulation]\n    \
                 6 ( 0.00%)          .within(\"orders\", within::orders)\n 2,000 ( 1%)  cost.rs:simulation::cost::within::payments [x]\n"
            )
        };
        let (few, many) = (by_service(&told(10)), by_service(&told(310)));
        assert_eq!(few, cost(&[("orders", 10_000), ("payments", 2000)]));
        assert_eq!(an_order(&few, &many).unwrap(), cost(&[("orders", 3000), ("payments", 0)]));
        assert!(an_order(&Cost::new(), &Cost::new()).is_err());
    }

    #[test]
    fn three_per_cent_above_the_budget_are_too_much_and_so_is_no_budget() {
        let budget = cost(&[("orders", 1000), ("payments", 1000)]);
        let counted = cost(&[("analytics", 1), ("orders", 1030), ("payments", 1031)]);
        assert_eq!(over(&counted, &budget), ["analytics (it has none)", "payments (+3.1 %)"]);
        assert!(over(&budget, &budget).is_empty());
        assert_eq!(over(&cost(&[("orders", 1)]), &budget), ["payments (not counted)"]);
        assert!(table(&counted, &budget).contains("payments                 1031          1000     +3.1 %"));
    }

    #[test]
    fn a_budget_that_was_written_is_read_again() {
        let counted = cost(&[("orders", 1000), ("payments", 2)]);
        let (budget, compiler) = parse(&text(&counted, "rustc 1.95.0 (x y)")).unwrap();
        assert_eq!((budget, compiler.as_str()), (counted, "rustc 1.95.0 (x y)"));
        assert!(parse("orders many").is_err() && parse("orders").is_err());
    }
}
