//! Commit: the whole batch in one durable transaction, and what to do when that fails.

use std::sync::atomic::Ordering;

use async_nats::jetstream::AckKind;
use fail::fail_point;
use millstream_core::planner::{Input, Write};

use crate::accepted::{CommandError, stopping};
use crate::engine::Engine;
use crate::engine::arrival::{Arrival, Receipt, Ticket};
use crate::engine::wakes::horizon;
use crate::store::{Batch, CommitError, Entry, Wanted};

/// Why an attempt has to be made anew; nothing of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aborted {
    /// What was read or written has changed meanwhile. If that goes on, the batch is halved.
    Contended,
    /// Another writer was in the way, a caller took a command back, or the store was away: the same again.
    Busy,
    /// Its inputs go on missing documents that others of the batch have made: it is halved at once.
    Large,
    /// The service stops while the store is away.
    Stopped,
}

impl Engine {
    /// Commits what was decided, or only the starts of suspects.
    pub(crate) async fn commit(&mut self, batch: &[Arrival], write: Write) -> Result<(), Aborted> {
        if write.is_empty() {
            return Ok(());
        }
        if !tickets(batch).all(Ticket::enter_commit) {
            tickets(batch).for_each(Ticket::requeue);
            return Err(Aborted::Busy);
        }
        let through = self.instance.watermark.get();
        let wakes_at = write.earliest_wake();
        let write = write.into_batch(self.instance.id, self.instance.batch, through);
        let number = write.batch;
        let result = self.commit_batch(write).await;
        match result {
            Ok(()) => {
                self.instance.batch = number;
                self.instance.written = self.instance.written.max(through);
                if wakes_at.is_some_and(|at| at < self.clock.now() + horizon(&self.planner.timing)) {
                    self.status.wakes_soon.notify_one();
                }
            }
            // Whether it happened may be unknown, and then the commands are not taken back.
            Err(Aborted::Stopped) => {}
            Err(Aborted::Contended | Aborted::Busy | Aborted::Large) => tickets(batch).for_each(Ticket::requeue),
        }
        result
    }

    async fn commit_batch(&mut self, write: Batch) -> Result<(), Aborted> {
        if self.instance.unresolved {
            return Err(Aborted::Stopped);
        }
        fail_point!("before_commit");
        let ids: Vec<_> = write.journal.iter().map(|entry| entry.id).collect();
        let (instance, number) = (write.instance, write.batch);
        let error = match self.store.commit(write).await {
            Ok(()) => {
                fail_point!("after_commit");
                self.store_is_up();
                return Ok(());
            }
            Err(error) => error,
        };
        self.meters.conflict(&error);
        match error {
            CommitError::Version | CommitError::Duplicate => Err(Aborted::Contended),
            CommitError::Busy => Err(Aborted::Busy),
            CommitError::Fenced => match self.take_new_instance().await {
                Ok(()) => Err(Aborted::Busy),
                Err(error) => Err(self.store_is_away(&error.to_string()).await),
            },
            CommitError::Away(error) => Err(self.store_is_away(&error).await),
            CommitError::Unknown(mut error) => loop {
                if self.store_is_away(&error).await == Aborted::Stopped {
                    self.instance.unresolved = true;
                    return Err(Aborted::Stopped);
                }
                match self.store.load(Wanted { journal: ids.clone(), ..Wanted::default() }).await {
                    Ok(found) => {
                        let ours = |entry: &Entry| (entry.instance, entry.batch) == (instance, number);
                        let committed = found.journal.iter().any(ours);
                        return if committed { Ok(()) } else { Err(Aborted::Busy) };
                    }
                    Err(again) => error = again.to_string(),
                }
            },
        }
    }

    /// Waits until the store answers again, longer each time until something is committed, or until the service stops. Messages
    /// are kept: no nak, no attempt is counted. Commands are taken back by their callers.
    pub(crate) async fn store_is_away(&mut self, error: &str) -> Aborted {
        self.store_is_down(error);
        loop {
            self.store_tries = self.store_tries.saturating_add(1);
            tokio::select! {
                () = self.stop.cancelled() => return Aborted::Stopped,
                () = tokio::time::sleep(self.planner.timing.gate_retry.delay(self.store_tries)) => {}
            }
            if self.store.ping().await.is_ok() {
                return Aborted::Busy;
            }
        }
    }

    /// Something was committed. Less does not count as up: what is on a full disk can still be read.
    pub(crate) fn store_is_up(&mut self) {
        self.store_tries = 0;
        if !self.status.store_up.swap(true, Ordering::AcqRel) {
            tracing::info!("store available again");
        }
    }

    pub(crate) fn store_is_down(&self, error: &str) {
        if self.status.store_up.swap(false, Ordering::AcqRel) {
            tracing::warn!(error, "store unavailable");
        }
    }

    /// Lets go of a batch without handling it: messages go back to the broker, callers learn that nothing was done, or that the
    /// outcome is unknown.
    pub(crate) fn abandon(&mut self, batch: Vec<Arrival>) {
        let mut naks = Vec::new();
        for Arrival { input, receipt } in batch {
            match receipt {
                Receipt::Message(message) => naks.extend(message.ack(AckKind::Nak(None))),
                Receipt::Command { ticket, answer } => {
                    let why = if ticket.withdraw() { stopping() } else { CommandError::OutcomeUnknown };
                    drop(answer.send(Err(why)));
                }
                // Its lease runs out, and another instance tries again.
                Receipt::Effect(_) => {}
                Receipt::Due => {
                    if let Input::Due(due) = input {
                        self.slots.lock().dequeue(&due.key);
                    }
                }
            }
        }
        self.acker.send(naks);
    }
}

/// The tickets of the commands in a batch.
fn tickets(batch: &[Arrival]) -> impl Iterator<Item = &Ticket> {
    batch.iter().filter_map(|arrival| match &arrival.receipt {
        Receipt::Command { ticket, .. } => Some(ticket),
        _ => None,
    })
}
