//! [`View`]: the documents of a batch, shared by its units in order.

use bytes::Bytes;

use crate::handler::{Key, Wake};
use crate::hash::HashMap;
use crate::ids::Timestamp;
use crate::record::{DocWrite, NewDoc, StoredDoc};
use crate::unit::{Body, Context, Staged, WakeChange};

/// The documents of a batch: as loaded, overlaid by what its units have staged so far.
#[derive(Default)]
pub struct View {
    pub slots: HashMap<Key, Slot>,
}

#[derive(Default)]
pub struct Slot {
    pub version: Option<u64>,
    pub body: Option<Body>,
    pub wake: Option<Wake>,
    guarded: bool,
    changed: bool,
}

impl View {
    /// A view of the wanted documents, of which the store had `found`.
    pub fn new(wanted: impl IntoIterator<Item = Key>, found: Vec<StoredDoc>) -> Self {
        let mut slots: HashMap<Key, Slot> = wanted.into_iter().map(|key| (key, Slot::default())).collect();
        for doc in found {
            let body = Body { json: doc.body, shape: doc.shape, decoded: None };
            slots.insert(
                doc.key,
                Slot { version: Some(doc.version), body: Some(body), wake: doc.wake, ..Slot::default() },
            );
        }
        Self { slots }
    }

    /// Lays what a unit has staged over the documents.
    pub fn apply(&mut self, staged: &mut Staged, cx: &Context<'_>) {
        for key in staged.reads.drain(..) {
            if let Some(slot) = self.slots.get_mut(&key)
                && slot.version.is_some()
            {
                slot.guarded = true;
            }
        }
        for (key, change) in staged.docs.drain(..) {
            let slot = self.slots.entry(key).or_default();
            slot.body = Some(change.body);
            slot.changed = true;
            match change.wake {
                WakeChange::Keep => {}
                WakeChange::Clear => slot.wake = None,
                WakeChange::Move(at) => slot.wake.iter_mut().for_each(|wake| wake.at = at),
                WakeChange::Set { kind, at } => slot.wake = Some(new_wake(kind, at, slot.version, cx)),
            }
        }
    }

    /// The wake of a document as it now stands.
    pub fn wake(&self, key: &Key) -> Option<&Wake> {
        self.slots.get(key)?.wake.as_ref()
    }

    /// Changes only the wake of a document: a claim, a backoff.
    pub fn set_wake(&mut self, key: &Key, change: impl FnOnce(&mut Wake)) {
        if let Some(slot) = self.slots.get_mut(key)
            && let Some(wake) = &mut slot.wake
        {
            change(wake);
            slot.changed = true;
        }
    }

    /// Takes the wake of a document away and leaves the document as it is.
    pub fn clear_wake(&mut self, key: &Key) {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.wake.take().is_some()
        {
            slot.changed = true;
        }
    }

    /// The document as JSON, with its shape and the version it will have once committed.
    pub fn document(&self, key: &Key) -> Option<(Bytes, u32)> {
        let slot = self.slots.get(key)?;
        let body = slot.body.as_ref()?;
        Some((body.json.clone(), body.shape))
    }

    /// The documents with wakes that this batch has set or changed.
    pub fn changed_wakes(&self) -> impl Iterator<Item = (&Key, &Wake)> {
        self.slots.iter().filter(|(_, slot)| slot.changed).filter_map(|(key, slot)| Some((key, slot.wake.as_ref()?)))
    }

    /// What the commit has to guard and write, sorted, so that of two competing batches one gets through.
    pub fn writes(&self) -> Vec<DocWrite> {
        let mut writes: Vec<DocWrite> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.changed || slot.guarded)
            .map(|(key, slot)| DocWrite {
                key: key.clone(),
                expected: slot.version,
                write: slot.body.as_ref().filter(|_| slot.changed).map(|body| NewDoc {
                    shape: body.shape,
                    body: body.json.clone(),
                    wake: slot.wake.clone(),
                }),
            })
            .collect();
        writes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        writes
    }
}

pub fn new_wake(kind: &str, at: Timestamp, version: Option<u64>, cx: &Context<'_>) -> Wake {
    Wake {
        kind: kind.into(),
        opened: cx.now,
        at,
        attempt: 0,
        lease: None,
        generation: version.unwrap_or(0) + 1,
        cause: cx.origin(),
        correlation: cx.cause.correlation.clone(),
        traceparent: cx.cause.traceparent.clone(),
    }
}
