//! The folder that holds everything a shop in one process keeps. One process owns it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use millstream::store::StoreUrl;

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if need be, and takes it.
    ///
    /// # Errors
    /// When another process has it, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self> {
        let unusable = || format!("cannot use the data folder {}", path.display());
        fs::create_dir_all(path.join("logs")).with_context(unusable)?;
        let path = path.canonicalize().with_context(unusable)?;
        let name = path.join("lock");
        let mut lock = OpenOptions::new().create(true).append(true).open(&name).with_context(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = fs::read_to_string(&name).unwrap_or_default();
                bail!(
                    "the data folder {} is in use by process {}: stop that one, or take another folder with --data DIR",
                    path.display(),
                    owner.trim()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(unusable),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).with_context(unusable)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store of a service.
    pub fn store_url(&self, service: &str) -> String {
        StoreUrl::Sqlite(self.path.join(format!("{service}.db"))).to_string()
    }

    /// The embedded broker's folder.
    pub fn broker(&self) -> PathBuf {
        self.path.join("nats")
    }

    /// What the gateway simulator remembers.
    pub fn ledger(&self) -> PathBuf {
        self.path.join("gateway.ledger")
    }

    /// The log of everything in this process.
    pub fn log(&self) -> PathBuf {
        self.path.join("logs/shop.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_of_a_data_folder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataFolder::open(&path).unwrap();
        let refusal = DataFolder::open(&path).unwrap_err().to_string();
        let owner = format!("is in use by process {}", std::process::id());
        assert!(refusal.contains(&owner) && refusal.contains("--data DIR"), "{refusal}");
        drop(first);
        DataFolder::open(&path).unwrap();
    }
}
