//! Redrives as the service gets them: what an operator has handed back to it.

use crate::dead_letter::{EDITED_FROM, NUMBER, RECORD};
use crate::ids::{Id, Timestamp};

/// What a delivery from the work queue of redrives says of the message that it is of.
#[derive(Clone, Debug)]
pub struct Redriven {
    /// The id by which the journal knows its message.
    pub id: Id,
    /// The redrive's number, from 1 on; 0 for a changed copy, which is handled like a first delivery.
    pub number: u32,
    /// The sequence of the record that says that it is on its way.
    pub record: Option<u64>,
    pub stream: String,
    pub seq: u64,
    pub subject: String,
    /// When it first failed.
    pub first_failure: Option<Timestamp>,
    pub edited_from: Option<Id>,
}

impl Redriven {
    /// Reads it from headers and subject; `None` if it is no redrive.
    pub fn read(header: impl Fn(&str) -> Option<String>, subject: &str) -> Option<Self> {
        let ours = |name: &str| header(&format!("Millstream-{name}"));
        Some(Self {
            id: subject.rsplit('.').next()?.parse().ok()?,
            number: header(NUMBER)?.parse().ok()?,
            record: header(RECORD).and_then(|sequence| sequence.parse().ok()),
            stream: ours("Stream").unwrap_or_default(),
            seq: ours("Sequence").and_then(|seq| seq.parse().ok()).unwrap_or_default(),
            subject: ours("Subject").unwrap_or_default(),
            first_failure: ours("First-Failure").and_then(|at| at.parse().ok()),
            edited_from: header(EDITED_FROM).and_then(|id| id.parse().ok()),
        })
    }
}
