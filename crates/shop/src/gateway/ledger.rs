//! The gateway's ledger: an append-only file with a JSON line for every capture, decline and refund.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, bail};
use millstream::Timestamp;
use serde::{Deserialize, Serialize};

use super::books::{ChargeRequest, RefundRequest};

/// A line of the ledger: everything that must outlive the process, the idempotency keys included.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Entry {
    Captured { at: Timestamp, key: String, request: ChargeRequest },
    Declined { at: Timestamp, key: String, request: ChargeRequest, reason: String },
    Refunded { at: Timestamp, key: String, request: RefundRequest },
}

/// The open file. It is written before a request is answered, so it survives the death of the process; it is not synced to
/// the disk, for a simulator need not survive a power cut.
pub(super) struct Ledger {
    file: File,
    length: u64,
}

impl Ledger {
    /// Opens or creates the file and reads what is in it. A last line without its end was cut by a crash before its request
    /// was answered: it is dropped.
    pub(super) fn open(path: &Path) -> anyhow::Result<(Self, Vec<Entry>)> {
        let name = path.display();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .with_context(|| format!("cannot open the gateway's ledger {name}"))?;
        if file.try_lock().is_err() {
            bail!("the gateway's ledger {name} is in use by another gateway: stop it or give this one its own file");
        }
        let mut text = vec![];
        file.read_to_end(&mut text).with_context(|| format!("cannot read the gateway's ledger {name}"))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            tracing::warn!(ledger = %name, bytes = text.len() - whole, "dropped an incomplete last line");
            text.truncate(whole);
        }
        let length = whole as u64;
        file.set_len(length).with_context(|| format!("cannot remove the incomplete last line of {name}"))?;
        file.seek(SeekFrom::End(0))?;
        let mut entries = vec![];
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            let entry = serde_json::from_slice(line)
                .with_context(|| format!("line {} of the gateway's ledger {name} is damaged", number + 1))?;
            entries.push(entry);
        }
        Ok((Self { file, length }, entries))
    }

    /// Appends a line. If that fails, what was written of it is taken back, so that no later line is glued to it.
    pub(super) fn append(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            self.file.set_len(self.length).context("cannot remove an incomplete line")?;
            return Err(error).context("cannot write the ledger");
        }
        self.length += line.len() as u64;
        Ok(())
    }
}
