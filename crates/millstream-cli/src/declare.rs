//! `millstream declare`: has the streams of a release at the broker before its services start.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use millstream::declaration::{self, Declaration};
use millstream::operator::declare::Outcome;
use millstream::rights;

use crate::connection::Connection;
use crate::output;

/// The declarations.
#[derive(Args, Debug)]
pub(crate) struct Declare {
    /// Files with what the services print with --declare, one declaration after the other; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    /// How many servers of a cluster keep each stream, whatever the declarations say; too few servers are an error then
    #[arg(long, env = "STREAM_REPLICAS", value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    /// Print the broker's users with their permissions, for nats.conf, and change nothing; needs no broker
    #[arg(long)]
    users: bool,
}

pub(crate) async fn run(connection: &Connection, json: bool, declare: Declare) -> Result<ExitCode> {
    let mut all = read(&declare.files)?;
    if let Some(replicas) = declare.replicas {
        all.iter_mut().for_each(|one| one.replicas = Some(replicas.into()));
    }
    if declare.users {
        output::raw(rights::configuration(&rights::users(&all)).trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let done = connection.open().await?.declare(&all).await?;
    if json {
        output::json(&done)?;
    } else {
        let mut table = output::table(["STREAM", "DONE"]);
        for each in &done {
            table.add_row([each.stream.clone(), said(&each.outcome)]);
        }
        output::line(&table.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Made => "made".into(),
        Outcome::Changed(fields) => format!("changed: {}", fields.join(", ")),
        Outcome::Unchanged => "as declared".into(),
        Outcome::LeftToNewer => "left as it is: a newer release has declared it".into(),
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<Declaration>> {
    let mut text = String::new();
    for file in files {
        if file == Path::new("-") {
            if io::stdin().is_terminal() {
                bail!(
                    "FILE is missing: name the files with what the services print with --declare, or redirect one to standard input"
                );
            }
            io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        } else {
            let path = file.display();
            text += &fs::read_to_string(file).with_context(|| format!("cannot read the declarations in {path}"))?;
        }
        text.push('\n');
    }
    declaration::read(&text).map_err(|error| anyhow!("{error}: expected what services print with --declare"))
}
