//! The room that the embedded broker needs on its disk, asked for before anything runs: it would say so late, and without a number.

use std::path::Path;

use anyhow::{Context, Result, bail};
use contracts::{inventory, orders, payments};
use millstream::Stream;
use millstream::operator::audit;

use crate::data::DataFolder;

/// The streams with a reserved size, and what is reserved.
fn streams() -> Vec<(&'static str, u64)> {
    let events =
        [orders::STREAM, inventory::STREAM, payments::STREAM].map(|Stream { name, max_bytes, .. }| (name, max_bytes));
    events.into_iter().chain([(audit::STREAM, audit::MAX_BYTES)]).collect()
}

/// Refuses a disk on which the embedded broker could not create its streams; `remedy` says what to do about it.
///
/// # Errors
/// Says how much is needed, how much there is, and the remedy.
pub(crate) fn check(data: &DataFolder, remedy: &str) -> Result<()> {
    let unknown = || format!("cannot tell how much is free in {}", data.path().display());
    let disk = rustix::fs::statvfs(data.path()).with_context(unknown)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    // What is reserved already is not asked for again. The broker makes a folder of its own in the one that it is given.
    let kept = data.broker().join("jetstream/jetstream/$G/streams");
    let new: Vec<_> = streams().into_iter().filter(|(name, _)| !kept.join(name).exists()).collect();
    enough(data.path(), free, &new, remedy)
}

fn enough(folder: &Path, free: u64, streams: &[(&str, u64)], remedy: &str) -> Result<()> {
    let reserved: u64 = streams.iter().map(|(_, bytes)| bytes).sum();
    // The broker leaves a quarter of what is free to others.
    let needed = reserved.div_ceil(3) * 4;
    if free >= needed {
        return Ok(());
    }
    let names: Vec<_> = streams.iter().map(|(name, _)| *name).collect();
    bail!(
        "the disk of the data folder {} has {} free, and {} are needed: the broker reserves {} for {} and uses three quarters \
         of what is free. {remedy}",
        folder.display(),
        size(free),
        size(needed),
        size(reserved),
        names.join(", "),
    )
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_small_is_refused_with_what_is_needed_what_there_is_and_the_remedy() {
        let check = |free| enough(Path::new("/d"), free, &streams(), "Choose another folder with --data DIR.");
        check(6 << 30).unwrap();
        let refused = check(40 << 20).unwrap_err().to_string();
        for part in ["/d has 40 MiB free", "5.3 GiB are needed", "4.0 GiB for ORDERS", "AUDIT", "--data DIR"] {
            assert!(refused.contains(part), "`{part}` is missing in: {refused}");
        }
        enough(Path::new("/d"), 0, &[], "").unwrap();
    }
}
