//! The capacity of a stream that the service publishes to: measured by the trimmer, asked by admission.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::event::Stream;

/// Whether a stream takes more from the edge.
#[derive(Debug)]
pub(crate) struct Capacity {
    pub(crate) stream: Stream,
    /// The services that are to read it, if its owner has named them.
    pub(crate) readers: Option<Vec<&'static str>>,
    full: AtomicBool,
}

impl Capacity {
    pub(crate) fn new(stream: Stream, readers: Option<Vec<&'static str>>) -> Self {
        Self { stream, readers, full: AtomicBool::new(false) }
    }

    /// What was last read; so it stays while the broker is away.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Notes whether it is nearly full; gives back whether it was.
    pub(crate) fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::AcqRel)
    }
}
