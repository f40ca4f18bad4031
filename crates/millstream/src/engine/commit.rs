//! Commit: the whole batch in one durable transaction, and what to do when that fails.

use std::sync::atomic::Ordering;

use fail::fail_point;

use crate::commands::CommandError;
use crate::engine::Engine;
use crate::engine::input::Input;
use crate::engine::plan::Plan;
use crate::ids::Timestamp;
use crate::running::told;
use crate::store::{Batch, CommitError, Entry, Wanted};

/// Why an attempt has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Nothing of it is kept. Whether it counts towards halving the batch: another writer in the way does not.
    Conflict(bool),
    /// The service stops while the store is away.
    Stopped,
}

impl Engine {
    /// Commits a plan.
    pub(crate) async fn commit(&mut self, batch: &[Input], plan: &mut Plan) -> Result<(), Failed> {
        let docs = plan.view.writes();
        if plan.entries.is_empty() && docs.iter().all(|doc| doc.write.is_none()) {
            return Ok(());
        }
        let commands =
            || batch.iter().filter_map(|input| if let Input::Command(command) = input { Some(command) } else { None });
        if !commands().all(|command| command.ticket.commit()) {
            commands().for_each(|command| command.ticket.requeue());
            return Err(Failed::Conflict(false));
        }
        let number = self.instance.batch + u64::from(!plan.entries.is_empty());
        plan.emitting = (!plan.entries.is_empty())
            .then(|| plan.entries.iter().filter(|entry| !entry.emitted.is_empty()).count() as u64);
        for entry in &mut plan.entries {
            (entry.instance, entry.batch) = (self.instance.id, number);
        }
        let through = self.instance.watermark.get();
        let write = Batch {
            instance: self.instance.id,
            batch: number,
            published_through: through,
            docs,
            journal: std::mem::take(&mut plan.entries),
            keys: std::mem::take(&mut plan.keys),
            now: plan.now,
        };
        let result = self.commit_batch(write).await;
        match result {
            Ok(()) => {
                self.instance.batch = number;
                self.instance.written = self.instance.written.max(through);
            }
            // Whether it happened may be unknown, and then the commands are not taken back.
            Err(Failed::Stopped) => {}
            Err(Failed::Conflict(_)) => commands().for_each(|command| command.ticket.requeue()),
        }
        result
    }

    /// Commits journal entries by themselves: the starts of suspects.
    pub(crate) async fn commit_entries(&mut self, entries: &mut [Entry], now: Timestamp) -> Result<(), Failed> {
        let number = self.instance.batch + 1;
        for entry in &mut *entries {
            (entry.instance, entry.batch) = (self.instance.id, number);
        }
        let write = Batch {
            instance: self.instance.id,
            batch: number,
            published_through: self.instance.watermark.get(),
            docs: vec![],
            journal: entries.to_vec(),
            keys: vec![],
            now,
        };
        self.commit_batch(write).await?;
        self.instance.batch = number;
        self.publish(vec![], 0);
        Ok(())
    }

    async fn commit_batch(&mut self, write: Batch) -> Result<(), Failed> {
        if self.instance.unresolved {
            return Err(Failed::Stopped);
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
            CommitError::Version | CommitError::Duplicate => Err(Failed::Conflict(true)),
            CommitError::Busy => Err(Failed::Conflict(false)),
            CommitError::Fenced => match self.take_new_instance().await {
                Ok(()) => Err(Failed::Conflict(false)),
                Err(error) => self.away(&error.to_string()).await,
            },
            CommitError::Away(error) => self.away(&error).await,
            CommitError::Unknown(mut error) => loop {
                if !self.store_is_away(&error).await {
                    self.instance.unresolved = true;
                    return Err(Failed::Stopped);
                }
                match self.store.load(Wanted { journal: ids.clone(), ..Wanted::default() }).await {
                    Ok(found) => {
                        let ours = |entry: &Entry| (entry.instance, entry.batch) == (instance, number);
                        let committed = found.journal.iter().any(ours);
                        return if committed { Ok(()) } else { Err(Failed::Conflict(false)) };
                    }
                    Err(again) => error = again.to_string(),
                }
            },
        }
    }

    async fn away(&mut self, error: &str) -> Result<(), Failed> {
        if self.store_is_away(error).await { Err(Failed::Conflict(false)) } else { Err(Failed::Stopped) }
    }

    /// Waits until the store answers again, longer each time until something is committed; `false` if the service stops
    /// meanwhile. Messages are kept: no nak, no attempt is counted. Commands are taken back by their callers.
    pub(crate) async fn store_is_away(&mut self, error: &str) -> bool {
        self.store_is_down(error);
        let mut stop = self.stop.clone();
        loop {
            self.store_tries = self.store_tries.saturating_add(1);
            tokio::select! {
                () = told(&mut stop) => return false,
                () = tokio::time::sleep(self.timing.gate_retry.delay(self.store_tries)) => {}
            }
            if self.store.ping().await.is_ok() {
                return true;
            }
        }
    }

    /// Something was committed. Less does not count as up: what is on a full disk can still be read.
    pub(crate) fn store_is_up(&mut self) {
        self.store_tries = 0;
        if !self.status.store_up.swap(true, Ordering::AcqRel) {
            tracing::info!("the store is back");
        }
    }

    pub(crate) fn store_is_down(&self, error: &str) {
        if self.status.store_up.swap(false, Ordering::AcqRel) {
            tracing::warn!(error, "the store is away");
        }
    }

    /// Lets go of a batch without handling it: messages go back to the broker, callers learn that nothing was done, or that
    /// nobody knows.
    pub(crate) fn abandon(&mut self, batch: Vec<Input>) {
        use async_nats::jetstream::AckKind;
        let mut naks = Vec::new();
        for input in batch {
            match input {
                Input::Message(delivery) => {
                    let twins = delivery.twins.into_iter().filter_map(|twin| twin.reply);
                    naks.extend(delivery.reply.into_iter().chain(twins).map(|reply| (reply, AckKind::Nak(None))));
                }
                Input::Command(command) => {
                    let why = if command.ticket.withdraw() {
                        CommandError::Unavailable("the service is shutting down".into())
                    } else {
                        CommandError::OutcomeUnknown
                    };
                    drop(command.answer.send(Err(why)));
                }
                // Its lease runs out, and another instance tries again.
                Input::Outcome(_) => {}
                Input::Due(due) => self.board.dequeue(&due.key),
            }
        }
        self.acker.send(naks);
    }
}
