//! `shop`: see `shop --help`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use millstream::config::NatsUrl;
use millstream::signals::asked_to_stop;
use millstream::terminal;
use shop::{backup, chaos, check, demo, forward, gateway, health, load, serve, trickle, up};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 completed, but an order is unfinished, an invariant is violated, or a component is not ready;
2 invalid command line or environment; 3 could not start or continue.";

/// Order, inventory and payment services on NATS JetStream, with tools to load, watch and check them.
#[derive(Debug, Parser)]
#[command(name = "shop", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole shop in one process, with an embedded broker
    Up(up::Args),
    /// Run one service, or print what it needs of the broker (--declare)
    #[command(subcommand)]
    Serve(serve::Which),
    /// Run the payment gateway simulator
    Gateway(gateway::Options),
    /// Submit orders and wait until each is finished
    Load(load::Options),
    /// Check the invariants of a running shop
    Check(check::Options),
    /// Run the shop in a fresh folder, submit sample orders, and check the invariants
    Demo(demo::Args),
    /// Submit a few demo orders per second to a running shop
    Trickle(trickle::Options),
    /// Copy the databases of a shop that was started with `shop up`
    Backup(backup::Args),
    /// Run a shop of many processes under load with faults of every kind, and check it at the end
    Chaos(chaos::Args),
    /// Check a health endpoint: exit code 0 if ready
    Health(health::Options),
    /// Forward TCP connections, so that several replicas share one port
    Forward(forward::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    // Tests name the points at which this process is to die.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();

    let command = Cli::parse().command;
    let done = match command {
        Command::Up(args) => up::run(args, asked_to_stop()).await.map(|()| 0),
        Command::Serve(which) => serve::run(which, asked_to_stop()).await.map(|()| 0),
        Command::Gateway(options) => gateway::run(options, asked_to_stop()).await.map(|()| 0),
        Command::Load(options) => submit(options).await,
        Command::Check(options) => look(options).await,
        Command::Trickle(options) => trickle::run(options, asked_to_stop()).await.map(|()| 0),
        Command::Chaos(args) => chaos::run(args, asked_to_stop()).await.map(|good| u8::from(!good)),
        Command::Backup(args) => backup::run(&args).map(|()| 0),
        Command::Health(options) => health::run(options).await.map(|good| u8::from(!good)),
        Command::Forward(options) => forward::run(options, asked_to_stop()).await.map(|()| 0),
        Command::Demo(args) => demo::run(args, asked_to_stop()).await.map(|good| u8::from(!good)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // An invalid value that is found late is reported as clap would.
            if let Some(error) = error.downcast_ref::<clap::Error>() {
                error.exit();
            }
            if error.chain().any(terminal::is_unread) {
                return ExitCode::SUCCESS;
            }
            terminal::note(&format!("error: {}", terminal::visible_lines(&format!("{error:#}"))));
            ExitCode::from(3)
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    terminal::line(text).context("cannot write the output")
}

async fn submit(options: load::Options) -> anyhow::Result<u8> {
    let json = options.json;
    let report = load::run(options).await?;
    print(&if json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
    Ok(u8::from(!report.complete()))
}

async fn look(options: check::Options) -> anyhow::Result<u8> {
    if let Some(warning) = NatsUrl::read(&options.nats_url).ok().and_then(|url| url.demo_warning()) {
        terminal::note(&format!("warning: {warning}"));
    }
    if options.watch {
        check::watch(options, asked_to_stop()).await?;
        return Ok(0);
    }
    let json = options.json;
    let outcome = check::run(options).await?;
    print(&if json { serde_json::to_string_pretty(&outcome)? } else { outcome.to_string() })?;
    Ok(outcome.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_says_what_exit_codes_mean() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        assert!(command.render_help().to_string().contains("Exit codes: 0 success"));
    }

    #[test]
    fn each_service_has_its_own_port_by_default() {
        for (service, port) in
            [("orders", 8081), ("inventory", 8082), ("payments", 8083), ("notifications", 8084), ("analytics", 8085)]
        {
            let help = Cli::command()
                .find_subcommand_mut("serve")
                .and_then(|serve| Some(serve.find_subcommand_mut(service)?.render_long_help().to_string()));
            assert!(help.unwrap().contains(&format!("[default: {port}]")), "{service}");
        }
    }
}
