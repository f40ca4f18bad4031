//! `millstream`: the operator's tool for any system built with the toolkit, see `millstream --help`.
//!
//! | exit code | |
//! | --- | --- |
//! | 0 | done |
//! | 1 | looked, and something is not as it should be: something was held back, could not be sent, or is missing |
//! | 2 | the command line is wrong |
//! | 3 | it could not be done: the broker does not answer, what is asked for is not there |

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use millstream::config::{Config, listen};
use millstream::signals::asked_to_stop;
use millstream::telemetry::init_logs;

use crate::connection::Connection;

mod audit;
mod connection;
mod dead;
mod editor;
mod letters;
mod masked;
mod output;
mod reveal;
mod status;
mod tail;
mod times;
mod trace;
mod wakes;
mod who;

/// Operates a system built with Millstream.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// Prints JSON in place of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve metrics of what only the broker knows: streams, consumers, dead letters, instances. One of it is enough
    #[command(
        mut_arg("port", |port| port.default_value("8080")),
        mut_arg("store_url", |arg| arg.hide(true)),
        mut_arg("unpublished_limit", |arg| arg.hide(true)),
        mut_arg("journal_retention", |arg| arg.hide(true)),
    )]
    Observe(#[command(flatten)] Config),
    /// Show streams, consumers and instances, and what is wrong with them
    Status,
    /// Follow events as they come, over all streams
    Tail(#[command(flatten)] tail::Tail),
    /// Show what an order or a request set off: who emitted what, who has handled it and when, what is missing
    Trace(#[command(flatten)] trace::Trace),
    /// What services will do later: list, move, fire, cancel
    #[command(subcommand)]
    Wakes(wakes::Wakes),
    /// What services have given up: list, show, redrive, edit, discard
    #[command(subcommand)]
    Dead(dead::Dead),
    /// Who did what, when and why
    Audit(#[command(flatten)] audit::Audit),
    /// Print a completion script for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) if output::is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { connection, json, command } = cli;
    match command {
        Command::Status => return status::run(&connection.open().await?, json).await,
        Command::Tail(tail) => return tail::run(&connection.open().await?, json, tail).await,
        Command::Trace(trace) => return trace::run(&connection.open().await?, json, trace).await,
        Command::Wakes(wakes) => return wakes::run(&connection.open().await?, json, wakes).await,
        Command::Dead(dead) => return dead::run(&connection.open().await?, json, dead).await,
        Command::Audit(audit) => return audit::run(&connection.open().await?, json, audit).await,
        Command::Observe(config) => {
            init_logs(&config.logs)?;
            let listener = listen(config.address(8080), "--port (HTTP_PORT)").await?;
            console::serve(config, listener, asked_to_stop()).await?;
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "millstream", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_shows_nothing_that_the_observer_does_not_use() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let help = command.find_subcommand_mut("observe").unwrap().render_long_help().to_string();
        assert!(help.contains("[default: 8080]") && help.contains("NATS_URL"), "{help}");
        assert!(!help.contains("STORE_URL"), "{help}");
    }
}
