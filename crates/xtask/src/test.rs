//! All tests in one call of cargo, followed by the list of those that this machine could not run. What takes long is `#[ignore]`d
//! and runs with `--long`.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{cargo, obtain};

/// Tests append a line to the file that this names, `what<TAB>why`, for what they leave out.
const SKIPPED: &str = "MILLSTREAM_SKIPPED";

/// Seeds that the simulator's tests run with `--long`, of each world.
const LONG_SEEDS: (&str, &str) = ("MILLSTREAM_SEEDS", "2000");

pub(crate) fn run(args: Vec<OsString>) -> Result<ExitCode> {
    let (long, args) = with_long(args);
    let server = obtain::behind(&obtain::nats_server()?);
    // If a server is configured for the tests, none is started.
    let named = env::var_os("MONGODB_URI").is_some_and(|uri| !uri.is_empty());
    let mongod = if named { None } else { obtain::mongod() };
    let skipped = env::temp_dir().join(format!("millstream-skipped-{}", std::process::id()));
    let left_out = if long { "" } else { "long tests\tcargo xtask test --long\n" };
    fs::write(&skipped, left_out).with_context(|| format!("cannot write {}", skipped.display()))?;
    // The features are those that clippy and the documentation are built with, so that what can be is built once.
    let status = cargo()
        .args(["test", "--all-features"])
        .args((!names_packages(&args)).then_some("--workspace"))
        .args(args)
        .env(nats_embedded::VARIABLE, server)
        .envs(mongod.map(|program| (nats_embedded::MONGOD_VARIABLE, program)))
        .env(SKIPPED, &skipped)
        .envs((long && env::var_os(LONG_SEEDS.0).is_none()).then_some(LONG_SEEDS))
        .status()
        .context("cannot run cargo")?;
    let notes = fs::read_to_string(&skipped).with_context(|| format!("cannot read {}", skipped.display()))?;
    fs::remove_file(&skipped).ok();
    println!("\n{}", list(&notes));
    // A cargo that a signal ended has no code.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Takes `--long` out, and in its place has the tests' own arguments include what is ignored.
fn with_long(mut args: Vec<OsString>) -> (bool, Vec<OsString>) {
    let of_cargo = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let Some(long) = args[..of_cargo].iter().position(|arg| arg == "--long") else { return (false, args) };
    args.remove(long);
    if !args.iter().any(|arg| arg == "--") {
        args.push("--".into());
    }
    args.push("--include-ignored".into());
    (true, args)
}

/// Whether the arguments select certain packages.
fn names_packages(args: &[OsString]) -> bool {
    let of_cargo = args.iter().take_while(|arg| *arg != "--");
    of_cargo.map(|arg| arg.to_string_lossy()).any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

/// The notes as a table, each of them once.
fn list(notes: &str) -> String {
    let notes: BTreeSet<(&str, &str)> = notes.lines().map(|line| line.split_once('\t').unwrap_or((line, ""))).collect();
    if notes.is_empty() {
        return "Nothing was skipped.".into();
    }
    let width = notes.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    let lines = notes.iter().map(|(what, why)| format!("\n  {what:width$}  {why}"));
    format!("Skipped ({}):{}", notes.len(), lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_packages_are_tested_unless_some_are_named() {
        let names = |args: &[&str]| names_packages(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(names(&["-p", "orders"]) && names(&["-porders"]) && names(&["--package=orders"]));
        assert!(!names(&[]) && !names(&["a_name", "--", "-p"]));
    }

    #[test]
    fn long_tests_run_when_they_are_asked_for_whatever_else_is() {
        let long = |args: &[&str]| {
            let (long, args) = with_long(args.iter().map(OsString::from).collect());
            (long, args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(long(&["-p", "orders"]), (false, "-p orders".into()));
        assert_eq!(long(&["--long"]), (true, "-- --include-ignored".into()));
        assert_eq!(long(&["--long", "name", "--", "--exact"]), (true, "name -- --exact --include-ignored".into()));
        assert_eq!(long(&["--", "--long"]), (false, "-- --long".into()));
    }

    #[test]
    fn what_was_skipped_is_listed_once_and_aligned() {
        assert_eq!(list(""), "Nothing was skipped.");
        let notes = "mongo\tno MONGODB_URL\nbrowser tests\tno chromium\nmongo\tno MONGODB_URL\n";
        assert_eq!(list(notes), "Skipped (2):\n  browser tests  no chromium\n  mongo          no MONGODB_URL");
    }
}
