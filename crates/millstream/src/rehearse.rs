//! Dry runs of redrives: the service's handlers run over the documents as they are, and nothing is committed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millstream_core::planner::{Change, Decoder, End, Fate, Incoming, Input, Missed, Planner, Rehearsal, Rehearsed};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::Dispatch;

use crate::commands::Context;
use crate::dead_letter::{Reason, STATE, clip};
use crate::event::{Emitted, header, split_type};
use crate::protocol::{DryChange, DryEnd, DryRun, MOST_NAMED, RedriveMessage};
use crate::store::{State, StoreError, Wanted};

/// The header of a dead letter that says why it was given up.
const REASON: &str = "Millstream-Reason";
/// How long a question is answered: whoever asks waits for five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// The longest error, name and id in an answer, in bytes: all of it has to fit into a message.
const ERROR: usize = 1024;
const NAME: usize = 64;
const ID: usize = 128;

/// Rehearses redrives for one service.
pub(crate) struct Rehearser {
    pub(crate) planner: Planner,
    /// Of the work queue of redrives.
    pub(crate) decoder: Decoder,
    /// One question is answered at a time: the others that an operator may have are not to wait.
    pub(crate) turn: Semaphore,
}

impl Rehearser {
    /// What would become of these, one after the other, in the order in which a batch of them would be handled.
    pub(crate) async fn dry_run(
        &self,
        context: &Context,
        redrives: Vec<RedriveMessage>,
    ) -> Result<Vec<DryRun>, StoreError> {
        let Ok(_turn) = self.turn.try_acquire() else {
            return Err(StoreError::new("another dry run is under way: try again"));
        };
        let until = Instant::now() + PATIENCE;
        let inputs: Vec<_> = redrives.into_iter().map(|redrive| self.read(context, redrive)).collect();
        let mut found: Vec<DryRun> = inputs
            .iter()
            .map(|input| DryRun::unknown(input.as_ref().err().map_or("there was no time for it", String::as_str)))
            .collect();
        let mut readable: Vec<(usize, &Input)> =
            inputs.iter().enumerate().filter_map(|(at, input)| Some((at, input.as_ref().ok()?))).collect();
        readable.sort_by_key(|(_, input)| input.rank());
        let mut rehearsal = Rehearsal::default();
        let mut wanted = rehearsal.wanted(&self.planner, &readable.iter().map(|(_, input)| *input).collect::<Vec<_>>());
        for (at, input) in readable {
            let rehearsed = loop {
                if !(wanted.docs.is_empty() && wanted.journal.is_empty()) {
                    let asked = std::mem::take(&mut wanted);
                    let docs = asked.docs.clone();
                    rehearsal.learn(docs, context.in_time(context.0.store.load(asked)).await?);
                }
                if Instant::now() > until {
                    return Ok(found);
                }
                if rehearsal.is_started(input.id()) {
                    break Err("it is being handled, or its handler has ended the process".to_owned());
                }
                match quietly(|| rehearsal.rehearse(&self.planner, input, context.0.clock.now())) {
                    Ok(rehearsed) => break Ok(rehearsed),
                    Err(Missed(docs)) => wanted = Wanted { docs, ..Wanted::default() },
                }
            };
            found[at] = rehearsed.map_or_else(DryRun::unknown, dry_run);
            // Handlers take the thread for themselves.
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    /// A redrive as an input, or why it is not rehearsed.
    fn read(&self, context: &Context, redrive: RedriveMessage) -> Result<Input, String> {
        let RedriveMessage { subject, headers, payload } = redrive;
        let payload = STANDARD.decode(payload).map_err(|error| format!("its body is not base64: {error}"))?;
        let wire = Emitted { subject, headers, payload: payload.into() };
        if wire.header(REASON).as_deref() == Some(Reason::Crash.name()) {
            return Err("its handler ended the process, so a dry run might as well".into());
        }
        let incoming = Incoming {
            seq: 0,
            delivered: 1,
            given_before: false,
            published: context.0.clock.now(),
            payload: wire.payload.clone(),
            wire: Box::new(wire),
        };
        let delivery = quietly(|| self.decoder.decode(incoming)).ok_or("it is not a redrive")?;
        Ok(Input::Message(Box::new(delivery)))
    }
}

/// Without logs: what a handler has to say is of something that has not happened.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(&Dispatch::none(), run)
}

fn dry_run(rehearsed: Rehearsed) -> DryRun {
    let Rehearsed { end, known, changes, emitted } = rehearsed;
    let (records, events): (Vec<&Emitted>, Vec<&Emitted>) =
        emitted.iter().partition(|message| message.subject.starts_with("dlq."));
    let (end, error) = match end {
        End::Ack(Fate::Duplicate) if known == Some(State::Done) => (DryEnd::Duplicate, None),
        // Its record says that it was given up, and stays or is written again.
        End::Ack(Fate::Duplicate) => match records.iter().find_map(|record| parked(record)) {
            Some(why) => (DryEnd::Parked, Some(why)),
            None => (DryEnd::Unknown, Some("a later redrive of it is on its way".into())),
        },
        End::Nak { error, .. } => (DryEnd::Retried, Some(error)),
        End::Ahead { error, .. } => (DryEnd::Waits, Some(error)),
        End::Parked { reason, error } => (DryEnd::Parked, Some(format!("{}: {error}", reason.name()))),
        _ => (DryEnd::Handled, None),
    };
    let event = |message: &&Emitted| {
        let kind = message.header(header::TYPE).unwrap_or_default();
        split_type(&kind).map_or(kind.clone(), |(name, _)| name.to_owned())
    };
    DryRun {
        end,
        error: error.map(|error| clip(&error, ERROR).to_owned()),
        changed: changes.len(),
        changes: changes.into_iter().take(MOST_NAMED).map(dry_change).collect(),
        events: some(events.iter().map(event)),
    }
}

/// Why a record says that a message was given up.
fn parked(record: &Emitted) -> Option<String> {
    let (reason, error) = (record.header(REASON)?, record.header("Millstream-Error").unwrap_or_default());
    record.header(STATE).is_none().then(|| format!("{reason}: {error}"))
}

/// The first names, and that there are more.
fn some(names: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = (names.len() > MOST_NAMED).then(|| "…".to_owned());
    names.take(MOST_NAMED).map(|name| clip(&name, NAME).to_owned()).chain(more).collect()
}

fn dry_change(change: Change) -> DryChange {
    let Change { key, created, fields, wake } = change;
    DryChange {
        collection: key.collection.into(),
        document: clip(&key.id, ID).into(),
        created,
        fields: some(fields.into_iter()),
        wake: wake.map(Option::unwrap_or_default),
    }
}
