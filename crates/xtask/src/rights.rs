//! The users of services in the broker's configuration, written from what the services declare.

use std::fs;
use std::io::Write;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{cargo, root};

const SERVICES: [&str; 5] = ["orders", "inventory", "payments", "notifications", "analytics"];
const FILE: &str = "deploy/nats/nats.conf";
/// The first words of the lines before and after what is written.
const BEGIN: &str = "# Written by cargo xtask rights";
const END: &str = "# End mark.";

pub(crate) fn run() -> Result<ExitCode> {
    let mut declarations = vec![];
    for service in SERVICES {
        let printed =
            cargo().args(["run", "--quiet", "--package", "shop", "--", "serve", service, "--declare"]).output();
        let printed = printed.context("cannot run cargo")?;
        ensure!(printed.status.success(), "{service}: {}", String::from_utf8_lossy(&printed.stderr));
        declarations.extend(printed.stdout);
    }
    let mut users = cargo();
    users.args(["run", "--quiet", "--package", "millstream-cli", "--", "declare", "--users"]);
    let mut users = users.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    users.stdin.take().context("no standard input")?.write_all(&declarations).context("cannot write declarations")?;
    let users = users.wait_with_output().context("cannot read the users")?;
    ensure!(users.status.success(), "millstream declare --users failed");
    let path = root().join(FILE);
    let have = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let wanted = between_marks(&have, &String::from_utf8_lossy(&users.stdout)).with_context(|| format!("in {FILE}"))?;
    fs::write(&path, wanted).with_context(|| format!("cannot write {FILE}"))?;
    Ok(ExitCode::SUCCESS)
}

/// The configuration with other users between its marks.
fn between_marks(have: &str, users: &str) -> Result<String> {
    let begin =
        have.find(BEGIN).and_then(|at| Some(at + have[at..].find('\n')? + 1)).context("the first mark is missing")?;
    let end = have[begin..].find(END).context("the end mark is missing")? + begin;
    let end = have[..end].rfind('\n').map_or(begin, |at| at + 1);
    Ok([&have[..begin], users, &have[end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_marks_is_replaced_and_nothing_else() {
        let file = |users: &str| format!("a\n  {BEGIN}, of this.\n{users}  {END}\nz\n");
        assert_eq!(between_marks(&file("old\n"), "new\nones\n").unwrap(), file("new\nones\n"));
        assert_eq!(between_marks(&file(""), "new\n").unwrap(), file("new\n"));
        assert!(between_marks("a\nz\n", "new\n").is_err());
    }
}
