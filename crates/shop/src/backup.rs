//! `shop backup`: copies of the databases of a shop, which may be running.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use millstream::terminal::line;
use rusqlite::{Connection, OpenFlags};

/// In this order: what a service knows of an order has come from orders, so that its copy must be the latest. What the copies of the
/// others lack, they are given again.
const SERVICES: [&str; 5] = ["analytics", "notifications", "payments", "inventory", "orders"];

/// Options of `shop backup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data folder of the shop, which may be running
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Folder for the copies; it must not exist yet
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Copies each database as it is at one moment. All of them are on the disk when this returns, or the folder is gone.
///
/// # Errors
/// When a database is missing or cannot be read, or the folder exists or cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let Args { data, to } = args;
    fs::create_dir(to).with_context(|| format!("cannot make the folder {}", to.display()))?;
    let copied = SERVICES.iter().try_for_each(|service| {
        let bytes = copy(&data.join(format!("{service}.db")), &to.join(format!("{service}.db")))?;
        line(&format!("{service:<14} {:>8.1} MiB", bytes as f64 / f64::from(1 << 20)))
            .context("cannot write the output")
    });
    let synced = copied.and_then(|()| File::open(to)?.sync_all().context("cannot sync the folder"));
    if synced.is_err() {
        fs::remove_dir_all(to).ok();
    }
    synced
}

/// Copies a database and gives its size.
fn copy(from: &Path, to: &Path) -> Result<u64> {
    let named = || format!("cannot copy {}", from.display());
    ensure!(from.is_file(), "there is no {}: --data names the data folder of `shop up`", from.display());
    let conn = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE).with_context(named)?;
    let path = to.to_str().context("--to is not text")?;
    conn.execute("VACUUM INTO ?", [path]).with_context(named)?;
    let copy = File::open(to).with_context(named)?;
    copy.sync_all().with_context(named)?;
    Ok(copy.metadata().with_context(named)?.len())
}
