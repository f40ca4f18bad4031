//! What `/proc` says: the processor time and memory of processes, what everything else took meanwhile, and which machine it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

/// A process, and what its processor time is counted as.
pub(crate) type Watched = (&'static str, u32);

/// `/proc` counts in hundredths of a second on every Linux of today.
const MS_PER_TICK: f64 = 10.0;

/// Time and processor time since it was started.
pub(crate) struct Meter<'a> {
    watched: &'a [Watched],
    began: Instant,
    before: Reading,
}

/// What a phase took.
#[derive(Debug)]
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    /// Milliseconds, user and system, by what they are counted as.
    pub(crate) watched_ms: BTreeMap<&'static str, f64>,
    /// This process.
    pub(crate) own_ms: f64,
    /// What everything else took of the machine, in percent of all its cores. It may be below zero by a tick.
    pub(crate) foreign: f64,
}

struct Reading {
    watched: BTreeMap<&'static str, f64>,
    own: f64,
    machine: f64,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(watched: &'a [Watched]) -> Result<Self> {
        Ok(Self { watched, before: Reading::take(watched)?, began: Instant::now() })
    }

    pub(crate) fn stop(self) -> Result<Spent> {
        let seconds = self.began.elapsed().as_secs_f64();
        let after = Reading::take(self.watched)?;
        let watched_ms: BTreeMap<_, _> =
            after.watched.iter().map(|(part, ms)| (*part, ms - self.before.watched[part])).collect();
        let own_ms = after.own - self.before.own;
        let foreign_ms = after.machine - self.before.machine - own_ms - watched_ms.values().sum::<f64>();
        let foreign = foreign_ms / (seconds * 1000.0 * cores() as f64) * 100.0;
        Ok(Spent { seconds, watched_ms, own_ms, foreign })
    }
}

impl Reading {
    fn take(watched: &[Watched]) -> Result<Self> {
        let mut sums = BTreeMap::new();
        for (part, pid) in watched {
            *sums.entry(*part).or_default() += process_ms(*pid).with_context(|| format!("{part} has ended"))?;
        }
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let machine = machine_ms(&stat).context("/proc/stat is not as expected")?;
        Ok(Self { watched: sums, own: process_ms(std::process::id())?, machine })
    }
}

fn process_ms(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ticks(&stat).map(|ticks| ticks * MS_PER_TICK).context("/proc/PID/stat is not as expected")
}

/// User and system time; the name before them may hold anything.
fn ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

/// Everything but idling and waiting for disks; what the hypervisor gave to others is included.
fn machine_ms(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<f64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let busy = fields.get(..3)?.iter().chain(fields.get(5..8)?).sum::<f64>();
    Some(busy * MS_PER_TICK)
}

/// The memory that a process has in RAM, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = field(&status, "VmRSS").and_then(|value| value.strip_suffix(" kB")?.trim().parse::<f64>().ok());
    Ok(kib.context("/proc/PID/status has no VmRSS")? / 1024.0)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The value of `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// One line about what was measured on; `folder` is where all data is.
pub(crate) fn describe(folder: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (processor, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let gib = field(&memory, "MemTotal").and_then(|kib| kib.strip_suffix(" kB")?.parse::<f64>().ok());
    format!(
        "{} cores ({}), {:.0} GiB of memory, {} on Linux {}",
        cores(),
        field(&processor, "model name").unwrap_or("unknown"),
        gib.unwrap_or(0.0) / (1024.0 * 1024.0),
        file_system(&read("/proc/mounts"), folder).unwrap_or("unknown file system"),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

/// The type of the mount with the longest path above the folder; of two on one path, the later hides the earlier.
fn file_system<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    mounts.filter(|(at, _)| folder.starts_with(at)).max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind)
}

/// The first line that a program prints when it is asked for its version.
pub(crate) fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown version").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_read_whatever_its_name() {
        assert_eq!(ticks("7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 120 34 0 0 20"), Some(154.0));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn a_machine_is_busy_when_it_neither_idles_nor_waits() {
        let stat = "cpu  1 2 4 1000 1000 8 16 32 64 64\ncpu0 1 2\n";
        assert_eq!(machine_ms(stat), Some(630.0));
        assert_eq!(machine_ms("cpu0 1"), None);
    }

    #[test]
    fn a_folder_is_on_the_closest_mount() {
        let mounts = "a / ext4 rw 0 0\nb /data xfs rw 0 0\nc /data/fast tmpfs rw 0 0\nd /data xfs2 rw 0 0\n";
        let on = |folder| file_system(mounts, Path::new(folder));
        assert_eq!([on("/data/fast/x"), on("/data/faster"), on("/var")], [Some("tmpfs"), Some("xfs2"), Some("ext4")]);
    }

    #[test]
    fn what_a_process_of_ones_own_takes_is_not_foreign() {
        let mine = [("mine", std::process::id())];
        let meter = Meter::start(&mine).unwrap();
        let spent = meter.stop().unwrap();
        assert_eq!(spent.watched_ms.keys().collect::<Vec<_>>(), [&"mine"]);
        assert!(spent.seconds >= 0.0 && spent.own_ms >= 0.0 && resident_mib(std::process::id()).unwrap() > 0.1);
    }
}
