//! The slots of effects, shared by the loop, which alone takes and releases them, and the sweep, which asks what is free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_core::planner::Slots;

/// Locked while a batch is decided, which takes as long as its handlers do, and never across an await.
#[derive(Clone)]
pub(crate) struct SharedSlots(Arc<Mutex<Slots>>);

impl SharedSlots {
    pub(crate) fn new(slots: Slots) -> Self {
        Self(Arc::new(Mutex::new(slots)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Slots> {
        // Its state is whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
