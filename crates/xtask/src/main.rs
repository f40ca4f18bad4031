//! `cargo xtask`: the tasks of this workspace, without a tool to install first.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

mod bench;
mod budget;
mod new_service;
mod obtain;
mod rights;
mod sabotage;
mod test;

const USAGE: &str = "\
cargo xtask <task>

  up [flags]                  build the shop and run it in one process, with an embedded broker
                              (the flags are those of `shop up`, see `cargo xtask up --help`)
  demo [--orders FILE.jsonl] [--stock FILE.csv]
                              run the shop in a fresh folder, submit orders, check every invariant
  test [--long] [cargo test's args]
                              run all tests that this machine supports, and list those skipped; with --long those that
                              take long, too
  simulate [--seeds N] [--from S]
                              run the shop's services in the simulator, one world a seed, until one fails
  chaos [--minutes N] [--seed S] [--replay FILE]
                              run the shop as many processes under load, with faults of every kind, and check every
                              invariant at the end
  bench [--quick | --profile | --growth N] [--json FILE] [--write PAGE.md]
                              compare the shop with the least that its saga can cost on this machine, in ten minutes
                              (--quick: two) after an optimized build; or profile an order, or measure what stored
                              orders cost (`--help` lists all flags)
  budget [--write]            count the instructions that an order costs each service, and compare them with the budget
  new-service NAME [--path DIR]
                              write a package with a service of your own into DIR/NAME
  dashboards                  regenerate grafana/dashboards and deploy/prometheus/rules.yml
  rights                      rewrite the services' users in deploy/nats/nats.conf from what the services declare
  sabotage [name]             break the code in known ways and check that a test fails (slow)
";

#[derive(Debug, PartialEq)]
enum Task {
    Up(Vec<OsString>),
    Demo(Vec<OsString>),
    Chaos(Vec<OsString>),
    Test(Vec<OsString>),
    Simulate(Vec<OsString>),
    Bench(Vec<OsString>),
    Budget(Vec<OsString>),
    NewService(String, PathBuf),
    Dashboards,
    Rights,
    Sabotage(Option<String>),
    Help,
}

impl Task {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut args = args.into_iter();
        let Some(name) = args.next() else { bail!("no task given\n\n{USAGE}") };
        let mut rest: Vec<OsString> = args.collect();
        Ok(match name.to_str() {
            Some("up") => Self::Up(rest),
            Some("demo") => Self::Demo(rest),
            Some("chaos") => Self::Chaos(rest),
            Some("test") => Self::Test(rest),
            Some("simulate") => Self::Simulate(rest),
            Some("bench") => Self::Bench(rest),
            Some("budget") => Self::Budget(rest),
            Some("new-service") => {
                let (name, folder) = new_service::parse(&rest)?;
                Self::NewService(name, folder)
            }
            Some("dashboards") if rest.is_empty() => Self::Dashboards,
            Some("rights") if rest.is_empty() => Self::Rights,
            Some("sabotage") if rest.len() <= 1 => {
                Self::Sabotage(rest.pop().map(|name| name.to_string_lossy().into_owned()))
            }
            Some("sabotage") => bail!("sabotage takes the name of one patch, or none for all of them"),
            Some("help" | "--help" | "-h") => Self::Help,
            _ => bail!("unknown task `{}`\n\n{USAGE}", name.display()),
        })
    }
}

fn main() -> ExitCode {
    let done = Task::parse(env::args_os().skip(1)).and_then(run);
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::from(2)
    })
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Up(flags) => {
            let elsewhere = env::var_os("NATS_URL").is_some_and(|url| !url.is_empty())
                || has(&flags, "--nats-url")
                || flags.iter().any(|flag| flag == "--help" || flag == "-h");
            shop("up", flags, !elsewhere)
        }
        Task::Demo(flags) => shop("demo", with_samples(flags), true),
        Task::Chaos(flags) => shop("chaos", flags, true),
        Task::Test(args) => test::run(args),
        Task::Simulate(flags) => {
            let run = ["run", "--release", "--quiet", "--package", "simulation", "--"];
            Err(cargo().args(run).args(flags).exec()).context("cannot run cargo")
        }
        Task::Bench(flags) => bench::run(flags),
        Task::Budget(flags) => budget::run(&flags),
        Task::NewService(name, folder) => new_service::run(&name, &folder),
        Task::Dashboards => {
            Err(cargo().args(["run", "--quiet", "--package", "boards"]).exec()).context("cannot run cargo")
        }
        Task::Rights => rights::run(),
        Task::Sabotage(name) => sabotage::run(name.as_deref()),
        Task::Help => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Builds the shop, and the operator's tool beside it, and becomes the shop, so that signals and the exit code are the shop's own.
fn shop(command: &str, flags: Vec<OsString>, needs_broker: bool) -> Result<ExitCode> {
    let broker = if needs_broker { Some(obtain::nats_server()?) } else { None };
    // Both at once, so that they share what they are built of.
    let built = cargo().args(["build", "--release", "--package", "shop", "--package", "millstream-cli"]).status();
    if !built.context("cannot run cargo")?.success() {
        bail!("building the shop failed");
    }
    let mut shop = Command::new(target()?.join("release").join("shop"));
    if let Some(broker) = broker {
        shop.env(nats_embedded::VARIABLE, broker);
    }
    Err(shop.arg(command).args(flags).exec()).context("cannot run the shop")
}

/// The project's own sample orders, where no others are named.
fn with_samples(mut flags: Vec<OsString>) -> Vec<OsString> {
    for (flag, sample) in [("--orders", "demo/orders.jsonl"), ("--stock", "demo/stock.csv")] {
        if !has(&flags, flag) {
            flags.extend([flag.into(), root().join(sample).into()]);
        }
    }
    flags
}

fn has(flags: &[OsString], flag: &str) -> bool {
    let with_value = format!("{flag}=");
    flags.iter().any(|have| have == flag || have.to_string_lossy().starts_with(&with_value))
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The folder that everything is built in: this program is in its `debug`.
fn target() -> Result<PathBuf> {
    let here = env::current_exe().context("cannot find the path of this program")?;
    Ok(here.ancestors().nth(2).context("this program is not in a target folder")?.to_owned())
}

/// The workspace's folder.
fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(package).join("../..").canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn flags_after_the_task_are_passed_on_as_they_are() {
        let args = ["--data", "a b", "--no-demo-load"];
        let task = Task::parse(os(&[&["up"][..], &args].concat())).unwrap();
        assert_eq!(task, Task::Up(os(&args)));
        assert_eq!(Task::parse(os(&["bench", "--quick"])).unwrap(), Task::Bench(os(&["--quick"])));
        assert_eq!(Task::parse(os(&["sabotage", "no-fence"])).unwrap(), Task::Sabotage(Some("no-fence".into())));
    }

    #[test]
    fn an_unknown_task_is_answered_with_those_that_exist() {
        let error = Task::parse(os(&["uo"])).unwrap_err().to_string();
        assert!(error.contains("unknown task `uo`") && error.contains("demo"), "{error}");
        assert!(Task::parse(os(&[])).unwrap_err().to_string().contains("no task given"));
        assert!(Task::parse(os(&["sabotage", "a", "b"])).is_err());
    }

    #[test]
    fn sample_files_stand_in_only_for_those_that_are_not_named() {
        let flags = with_samples(os(&["--orders=mine.jsonl"]));
        assert_eq!(flags.len(), 3);
        assert_eq!(flags[1], "--stock");
        assert!(PathBuf::from(&flags[2]).ends_with("demo/stock.csv"));
        assert_eq!(with_samples(vec![]).len(), 4);
    }
}
