//! `millstream`: the operator's tool for any system built with the toolkit, see `millstream --help`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::connection::Connection;
use crate::console::Console;

mod audit;
mod connection;
mod console;
mod dead;
mod declare;
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

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 done, but there is a problem: something was held back, could not be sent, or is missing;
2 invalid command line; 3 failed: the broker does not answer, or the requested item does not exist.";

/// Operates a system built with Millstream.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, max_term_width = 120, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the console: a web page to watch and operate the system, and metrics that only the broker can provide. Run one per system
    Console(#[command(flatten)] Console),
    /// Say whether all is well, in one sentence, and what is wrong; show streams, consumers and instances
    #[command(after_help = status::EXIT_CODES)]
    Status,
    /// Follow events from all streams as they arrive
    Tail(#[command(flatten)] tail::Tail),
    /// Show everything that an order or a request caused: emitters, handlers and times, and what is missing
    Trace(#[command(flatten)] trace::Trace),
    /// Pending deadlines and effects: list, reschedule, run now, cancel
    #[command(subcommand)]
    Wakes(wakes::Wakes),
    /// Dead letters: list, show, redrive, edit, discard
    #[command(subcommand)]
    Dead(dead::Dead),
    /// Show the audit log: who did what, when and why
    Audit(#[command(flatten)] audit::Audit),
    /// Make and change the streams of a release from what its services print with --declare, before they start
    Declare(#[command(flatten)] declare::Declare),
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
            output::note(&format!("error: {error:#}"));
            ExitCode::from(3)
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { connection, json, command } = cli;
    match command {
        Command::Console(console) => console.run(&connection).await?,
        Command::Status => return status::run(&connection, json).await,
        Command::Tail(tail) => return tail::run(&connection.open().await?, json, tail).await,
        Command::Trace(trace) => return trace::run(&connection.open().await?, json, trace).await,
        Command::Wakes(wakes) => return wakes::run(&connection.open().await?, json, wakes).await,
        Command::Dead(dead) => return dead::run(&connection.open().await?, json, dead).await,
        Command::Audit(audit) => return audit::run(&connection.open().await?, json, audit).await,
        Command::Declare(declare) => return declare::run(&connection, json, declare).await,
        Command::Completions { shell } => {
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "millstream", &mut script);
            output::raw(String::from_utf8_lossy(&script).trim_end())?;
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
        assert!(command.render_help().to_string().contains("Exit codes: 0 done"));
        command.build();
        let help = command.find_subcommand_mut("console").unwrap().render_long_help().to_string();
        for wanted in ["[default: 8080]", "--server", "NATS_URL", "--allow-actions", "HTTP_PORT"] {
            assert!(help.contains(wanted), "{wanted} is missing in {help}");
        }
        assert_eq!(help.matches("NATS_URL").count(), 1, "{help}");
        assert!(!help.contains("STORE_URL"), "{help}");
    }
}
