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

use crate::connection::Connection;
use crate::console::Console;

mod audit;
mod connection;
mod console;
mod dead;
mod editor;
mod letters;
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
    /// Serve the console: a page to watch and operate the system with, and metrics of what only the broker knows. One of it is enough
    Console(#[command(flatten)] Console),
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
        Command::Console(console) => console.run(&connection).await?,
        Command::Status => return status::run(&connection.open().await?, json).await,
        Command::Tail(tail) => return tail::run(&connection.open().await?, json, tail).await,
        Command::Trace(trace) => return trace::run(&connection.open().await?, json, trace).await,
        Command::Wakes(wakes) => return wakes::run(&connection.open().await?, json, wakes).await,
        Command::Dead(dead) => return dead::run(&connection.open().await?, json, dead).await,
        Command::Audit(audit) => return audit::run(&connection.open().await?, json, audit).await,
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "millstream", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_the_console_has_the_one_set_of_connection_flags() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        let help = command.find_subcommand_mut("console").unwrap().render_long_help().to_string();
        for wanted in ["[default: 8080]", "--server", "NATS_URL", "--allow-actions", "HTTP_PORT"] {
            assert!(help.contains(wanted), "{wanted} is missing in {help}");
        }
        assert_eq!(help.matches("NATS_URL").count(), 1, "{help}");
        assert!(!help.contains("STORE_URL"), "{help}");
    }
}
