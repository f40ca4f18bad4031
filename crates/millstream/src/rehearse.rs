//! Dry runs of redrives: the service's handlers run over the documents as they are, and nothing is committed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millstream_core::planner::{Change, Decoder, End, Fate, Incoming, Input, Missed, Planner, Rehearsal, Rehearsed};

use crate::commands::Context;
use crate::dead_letter::Reason;
use crate::event::{Emitted, header, split_type};
use crate::protocol::{DryChange, DryEnd, DryRun, MOST_NAMED, RedriveMessage};
use crate::store::{StoreError, Wanted};

/// Rehearses redrives for one service.
pub(crate) struct Rehearser {
    pub(crate) planner: Planner,
    /// Of the work queue of redrives.
    pub(crate) decoder: Decoder,
}

impl Rehearser {
    /// What would become of these, one after the other.
    pub(crate) async fn dry_run(
        &self,
        context: &Context,
        redrives: Vec<RedriveMessage>,
    ) -> Result<Vec<DryRun>, StoreError> {
        let inputs: Vec<_> = redrives.into_iter().map(|redrive| self.read(context, redrive)).collect();
        let mut rehearsal = Rehearsal::default();
        let known: Vec<&Input> = inputs.iter().filter_map(|input| input.as_ref().ok()).collect();
        let mut wanted = rehearsal.wanted(&self.planner, &known);
        let mut found = Vec::with_capacity(inputs.len());
        for input in &inputs {
            let input = match input {
                Ok(input) => input,
                Err(why) => {
                    found.push(DryRun::unknown(why));
                    continue;
                }
            };
            let rehearsed = loop {
                if !(wanted.docs.is_empty() && wanted.journal.is_empty()) {
                    let asked = std::mem::take(&mut wanted);
                    let docs = asked.docs.clone();
                    rehearsal.learn(docs, context.in_time(context.0.store.load(asked)).await?);
                }
                match rehearsal.rehearse(&self.planner, input, context.0.clock.now()) {
                    Ok(rehearsed) => break rehearsed,
                    Err(Missed(docs)) => wanted = Wanted { docs, ..Wanted::default() },
                }
            };
            found.push(dry_run(rehearsed));
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
        if wire.header("Millstream-Reason").as_deref() == Some(Reason::Crash.name()) {
            return Err("its handler ended the process, so a dry run may do so, too".into());
        }
        let incoming = Incoming {
            seq: 0,
            delivered: 1,
            given_before: false,
            published: context.0.clock.now(),
            payload: wire.payload.clone(),
            wire: Box::new(wire),
        };
        let delivery = self.decoder.decode(incoming).ok_or("it is not a redrive")?;
        Ok(Input::Message(Box::new(delivery)))
    }
}

fn dry_run(rehearsed: Rehearsed) -> DryRun {
    let Rehearsed { end, changes, emitted } = rehearsed;
    let (end, error) = match end {
        End::Ack(Fate::Duplicate) => (DryEnd::Duplicate, None),
        End::Nak { error, .. } => (DryEnd::Retried, Some(error)),
        End::Ahead { error, .. } => (DryEnd::Waits, Some(error)),
        End::Parked { reason, error } => (DryEnd::Parked, Some(format!("{}: {error}", reason.name()))),
        _ => (DryEnd::Handled, None),
    };
    let records = |message: &&Emitted| message.subject.starts_with("dlq.");
    let event = |message: &Emitted| {
        let kind = message.header(header::TYPE).unwrap_or_default();
        split_type(&kind).map_or(kind.clone(), |(name, _)| name.to_owned())
    };
    DryRun {
        end,
        error,
        changed: changes.len(),
        changes: changes.into_iter().take(MOST_NAMED).map(dry_change).collect(),
        events: emitted.iter().filter(|message| !records(message)).take(MOST_NAMED).map(event).collect(),
    }
}

fn dry_change(change: Change) -> DryChange {
    let Change { key, created, mut fields, wake } = change;
    fields.truncate(MOST_NAMED);
    DryChange {
        collection: key.collection.into(),
        document: key.id,
        created,
        fields,
        wake: wake.map(Option::unwrap_or_default),
    }
}
