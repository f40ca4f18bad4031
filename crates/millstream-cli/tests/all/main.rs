//! The command line as it is called, against a real broker.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::process::{Command, Output};

mod connection;
mod console;
mod dead;
mod declare;
mod looking;
mod output;

/// The command's exit code and what it has printed, both ways.
fn call(broker: &str, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    for name in ["NATS_CONTEXT", "NATS_CREDS", "NATS_CA", "VISUAL", "EDITOR"] {
        command.env_remove(name);
    }
    command.args(args).env("NATS_URL", broker).env("USER", "ada").envs(env.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (status.code().unwrap(), said)
}
