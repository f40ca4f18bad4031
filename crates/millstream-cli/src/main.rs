//! `millstream`: the operator's tool for any system built with the toolkit, see `millstream --help`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use millstream::config::{Config, listen};
use millstream::signals::asked_to_stop;
use millstream::telemetry::init_logs;

/// Operates a system built with Millstream.
#[derive(Debug, Parser)]
#[command(name = "millstream", version)]
struct Cli {
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Observe(config) = Cli::parse().command;
    match observe(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

async fn observe(config: Config) -> Result<()> {
    init_logs(&config.logs)?;
    let listener = listen(config.address(8080), "--port (HTTP_PORT)").await?;
    console::serve(config, listener, asked_to_stop()).await
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
