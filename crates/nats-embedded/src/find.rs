//! Where the `nats-server` program is, and for tests `mongod`.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Names the program outright; then nothing else is looked at.
pub const VARIABLE: &str = "MILLSTREAM_NATS_SERVER";

/// The oldest version that has what the engine uses.
pub const MINIMUM: Version = Version(2, 12, 0);

/// The oldest version that keeps what `sync_interval: always` promises: before it, a message could be acknowledged that was not on the
/// disk (nats-server#8456).
pub const SYNCED: Version = Version(2, 14, 6);

/// The version of a nats-server; what follows the third number (`-RC.1`) is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads what `nats-server --version` prints: `nats-server: v2.15.1`.
    pub fn parse(printed: &str) -> Option<Self> {
        let (_, number) = printed.trim().rsplit_once([' ', ':'])?;
        let mut parts = number.trim_start_matches('v').splitn(3, '.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().ok()
        });
        Some(Self(parts.next()??, parts.next()??, parts.next()??))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// No usable nats-server, and what was looked at instead.
#[derive(Debug)]
pub struct NotFound {
    /// The oldest version that would do.
    pub minimum: Version,
    /// One sentence for each program that is there and does not do.
    pub unfit: Vec<String>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no nats-server {} or newer", self.minimum)?;
        if self.minimum == SYNCED {
            f.write_str(", which syncing before each ack needs")?;
        }
        write!(f, ": looked at ${VARIABLE}, on PATH")?;
        match cached() {
            Some(path) => write!(f, " and at {}", path.display())?,
            None => write!(f, "; there is no cache folder, because HOME is not set")?,
        }
        self.unfit.iter().try_for_each(|why| write!(f, "; {why}"))
    }
}

impl std::error::Error for NotFound {}

/// The nats-server to use: the one that the variable names, else the first on PATH that is new enough, else the cached one.
///
/// # Errors
/// When there is none that is new enough.
pub fn find() -> Result<PathBuf, NotFound> {
    find_since(MINIMUM)
}

/// As [`find`], of a version of one's own choice.
///
/// # Errors
/// When there is none that is new enough.
pub fn find_since(minimum: Version) -> Result<PathBuf, NotFound> {
    let named = env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let candidates: Vec<PathBuf> = match named {
        Some(path) => vec![path.into()],
        None => env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join("nats-server"))
            .filter(|path| path.is_file())
            .chain(cached().filter(|path| path.is_file()))
            .collect(),
    };
    first_fit(&candidates, minimum)
}

fn first_fit(candidates: &[PathBuf], minimum: Version) -> Result<PathBuf, NotFound> {
    let mut unfit = vec![];
    for path in candidates {
        match version_of(path) {
            Ok(version) if version >= minimum => return Ok(path.clone()),
            Ok(version) => unfit.push(format!("{} is {version}, which is too old", path.display())),
            Err(why) => unfit.push(format!("{} {why}", path.display())),
        }
    }
    Err(NotFound { minimum, unfit })
}

/// The programs that have said their versions to this process.
static KNOWN: Mutex<BTreeMap<PathBuf, Version>> = Mutex::new(BTreeMap::new());

fn version_of(program: &Path) -> Result<Version, String> {
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(version) = known().get(program) {
        return Ok(*version);
    }
    let version = asked(program)?;
    known().insert(program.into(), version);
    Ok(version)
}

fn asked(program: &Path) -> Result<Version, String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    Version::parse(&printed).ok_or_else(|| "does not say its version when asked with --version".into())
}

/// The program in the cache, whether or not it is there.
pub fn cached() -> Option<PathBuf> {
    Some(cache_folder()?.join("nats-server"))
}

/// Names the `mongod` for tests outright.
pub const MONGOD_VARIABLE: &str = "MILLSTREAM_MONGOD";

/// The `mongod` for tests: the one that the variable names, else the first on PATH, else the cached one.
pub fn find_mongod() -> Option<PathBuf> {
    if let Some(named) = env::var_os(MONGOD_VARIABLE).filter(|path| !path.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("mongod"));
    on_path.chain(cached_mongod()).find(|path| path.is_file())
}

/// The `mongod` in the cache, whether or not it is there.
pub fn cached_mongod() -> Option<PathBuf> {
    Some(cache_folder()?.join("mongod"))
}

fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    folder("MILLSTREAM_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("millstream")))
        .or_else(|| Some(folder("HOME")?.join(".cache/millstream")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_the_server_prints() {
        for (printed, version) in [
            ("nats-server: v2.15.1\n", Some(Version(2, 15, 1))),
            ("nats-server: v2.12.0-RC.3", Some(Version(2, 12, 0))),
            ("nats-server: v2.9.25", Some(Version(2, 9, 25))),
            ("nats-server: 10.0.12", Some(Version(10, 0, 12))),
            ("nats-server: v2.15", None),
            ("nats-server: latest", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(printed), version, "{printed:?}");
        }
        assert!(Version(2, 9, 25) < MINIMUM, "versions compare as numbers, not as text");
    }

    #[test]
    fn a_server_that_is_too_old_is_not_used_but_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, version: &str| {
            let path = folder.path().join(name);
            // A shell writes the program: a file that this process has open for writing could not be run at the same time.
            let script = r#"printf '#!/bin/sh\necho nats-server: v%s\n' "$1" >"$2" && chmod +x "$2""#;
            let status = Command::new("sh").args(["-c", script, "sh", version]).arg(&path).status().unwrap();
            assert!(status.success());
            path
        };
        let (old, new) = (program("old", "2.10.4"), program("new", "2.12.1"));
        let gone = folder.path().join("gone");
        assert_eq!(first_fit(&[gone.clone(), old.clone(), new.clone()], MINIMUM).unwrap(), new);
        let message = first_fit(std::slice::from_ref(&new), SYNCED).unwrap_err().to_string();
        assert!(message.contains("2.14.6 or newer, which syncing before each ack needs"), "{message}");
        let message = first_fit(&[gone, old.clone()], MINIMUM).unwrap_err().to_string();
        assert!(message.contains(&format!("{} is 2.10.4, which is too old", old.display())), "{message}");
        assert!(message.contains("gone cannot be run"), "{message}");
    }
}
