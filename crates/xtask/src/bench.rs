//! Builds the shop as it is shipped, and the program that measures it, and becomes the latter.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::{cargo, has, obtain, target};

/// Call stacks that can be walked, and a file whose symbols perf can place: of what lld links, perf 6.1 takes the wrong addresses.
const PROFILED: [(&str, &str); 2] =
    [("RUSTFLAGS", "-Cforce-frame-pointers=yes -Clinker-features=-lld"), ("CFLAGS", "-fno-omit-frame-pointer")];

pub(crate) fn run(mut flags: Vec<OsString>) -> Result<ExitCode> {
    let measures = !["--from", "--help", "-h"].iter().any(|flag| has(&flags, flag));
    let builds_shop = measures && !has(&flags, "--shop");
    let mut build = cargo();
    build.args(["build", "--profile", "dist", "--package", "bench"]);
    let profiles = has(&flags, "--profile");
    if builds_shop && !profiles {
        // As the image has it.
        build.args(["--package", "shop", "--features", "shop/mongodb,shop/smtp"]);
    }
    if !build.status().context("cannot run cargo")?.success() {
        bail!("building the program that measures failed");
    }
    let programs = target()?.join("dist");
    if builds_shop && profiles {
        let mut build = cargo();
        build.args(["build", "--profile", "profiling", "--package", "shop"]).envs(PROFILED);
        if !build.status().context("cannot run cargo")?.success() {
            bail!("building the shop for the profile failed");
        }
        flags.extend(["--shop".into(), target()?.join("profiling/shop").into()]);
    } else if builds_shop {
        flags.extend(["--shop".into(), programs.join("shop").into()]);
    }
    let mut bench = Command::new(programs.join("bench"));
    if measures {
        bench.env(nats_embedded::VARIABLE, obtain::nats_server()?);
        bench.envs(obtain::mongod().map(|program| (nats_embedded::MONGOD_VARIABLE, program)));
    }
    Err(bench.args(flags).exec()).context("cannot run the program that measures")
}
