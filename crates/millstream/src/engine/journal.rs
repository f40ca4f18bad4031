//! Journal entries: what a handled, failed or parked input leaves behind.

use bytes::Bytes;

use crate::dead_letter::{self, Parked, Reason};
use crate::engine::Engine;
use crate::engine::input::Delivery;
use crate::engine::plan::{Journal, Plan};
use crate::event::{Emitted, Meta};
use crate::ids::{Id, Timestamp};
use crate::store::{Entry, State};
use crate::unit::Staged;

impl Engine {
    /// Stages a dead letter: a commit like any other, whose emitted event is the letter.
    pub(crate) fn park(&self, plan: &mut Plan, delivery: &Delivery, entry: Option<&Entry>, failure: &Failure) {
        let Failure { reason, error, attempts } = failure;
        let parked = Entry { attempts: *attempts, ..self.failed(plan, delivery, entry, State::Parked, error) };
        let (stream, seq, subject) = delivery.origin();
        let redriven = delivery.redriven.as_ref();
        let letter = Parked {
            service: self.rules.service,
            record: delivery.record(self.rules.service),
            id: delivery.id,
            redrives: parked.redrives,
            reason: *reason,
            error,
            stream,
            seq,
            subject,
            consumer: delivery.source.consumer,
            attempts: *attempts,
            first_failure: redriven
                .and_then(|redriven| redriven.first_failure)
                .or(parked.first_failure)
                .unwrap_or(plan.now),
            last_failure: plan.now,
            edited_from: redriven.and_then(|redriven| redriven.edited_from),
            headers: &delivery.wire_headers(),
            payload: delivery.payload.clone(),
        };
        let letter = letter.letter(self.rules.max_message + dead_letter::ROOM);
        plan.entries.push(Entry { emitted: Emitted::pack(std::slice::from_ref(&letter)).into(), ..parked });
        plan.emitted.push(letter);
    }

    pub(crate) fn done(
        &self,
        plan: &mut Plan,
        delivery: Option<&Delivery>,
        meta: &Meta,
        entry: Option<&Entry>,
        staged: Staged,
        reply: Option<Bytes>,
    ) {
        let mut emits = staged.emitted;
        // Whichever delivery it was, the record says that a redrive is on its way.
        if let (Some(delivery), Some(redrives)) =
            (delivery, entry.map(|entry| entry.redrives).filter(|count| *count > 0))
        {
            emits.push(self.resolved(delivery, redrives));
        }
        let emitted = Emitted::pack(&emits).into();
        let fresh = self.entry(plan, meta.id, delivery, State::Done);
        let entry = match entry {
            None => Entry { emitted, reply, ..fresh },
            Some(old) => Entry {
                emitted,
                reply,
                version: old.version + 1,
                state: State::Done,
                started: 0,
                ..stamped(old, &fresh)
            },
        };
        plan.entries.push(entry);
        plan.emitted.extend(emits);
        plan.counts.extend(staged.counts);
    }

    /// Tells again what has become of a redrive that is over: a repeat of it, or one that the journal does not know. There is
    /// nothing to tell while a later one is on its way.
    pub(crate) fn tell_again(&self, plan: &mut Plan, delivery: &Delivery, entry: Option<&Entry>) {
        let Some(number) = delivery.redrive().filter(|number| *number > 0) else { return };
        match entry.map(|entry| (entry.state, entry)) {
            None => plan.again.push(self.resolved(delivery, number)),
            Some((State::Done, entry)) => plan.again.push(self.resolved(delivery, entry.redrives.max(number))),
            Some((State::Parked, entry)) => plan.again.extend(Emitted::unpack(&entry.emitted).unwrap_or_default()),
            Some((State::Open, _)) => {}
        }
    }

    fn resolved(&self, delivery: &Delivery, number: u32) -> Emitted {
        dead_letter::resolved(delivery.record(self.rules.service), delivery.id, number, &delivery.wire_headers())
    }

    /// The entry of a message that has failed once more.
    pub(crate) fn failed(
        &self,
        plan: &Plan,
        delivery: &Delivery,
        entry: Option<&Entry>,
        state: State,
        error: &str,
    ) -> Entry {
        let fresh = self.entry(plan, delivery.id, Some(delivery), state);
        let base = match entry {
            None => fresh,
            Some(old) => Entry { version: old.version + 1, state, started: 0, ..stamped(old, &fresh) },
        };
        let first_failure = base.first_failure.or(Some(plan.now));
        Entry { error: Some(error.chars().take(300).collect()), first_failure, last_failure: Some(plan.now), ..base }
    }

    /// A fresh entry. Instance and batch are filled in by the commit.
    fn entry(&self, plan: &Plan, id: Id, delivery: Option<&Delivery>, state: State) -> Entry {
        new_entry(id, delivery, state, plan.now, self.instance.id)
    }
}

pub(crate) fn new_entry(id: Id, delivery: Option<&Delivery>, state: State, now: Timestamp, instance: Id) -> Entry {
    Entry {
        id,
        version: 1,
        state,
        attempts: 0,
        started: 0,
        redrives: 0,
        error: None,
        first_failure: None,
        last_failure: None,
        emitted: Bytes::new(),
        reply: None,
        instance,
        batch: 0,
        stream: delivery.map_or(String::new(), |delivery| delivery.origin().0.into()),
        seq: delivery.map_or(0, |delivery| delivery.origin().1),
        at: now,
    }
}

/// An old entry as written again by this instance at this time, at the place where its message was last seen.
fn stamped(old: &Entry, fresh: &Entry) -> Entry {
    let Entry { stream, seq, at, instance, batch, .. } = fresh.clone();
    Entry { stream, seq, at, instance, batch, emitted: Bytes::new(), ..old.clone() }
}

/// A parked message is open again for a redrive that is later than what its entry knows, and begins anew. What it has emitted, its
/// dead letter, must not go out again with the start that is committed of it.
pub(crate) fn reopen(journal: &mut Journal, delivery: &Delivery) {
    let Some(number) = delivery.redrive() else { return };
    if let Some(entry) = journal.get_mut(&delivery.id)
        && entry.state != State::Done
        && number > entry.redrives
    {
        *entry = Entry {
            state: State::Open,
            attempts: 0,
            started: 0,
            redrives: number,
            error: None,
            first_failure: None,
            last_failure: None,
            emitted: Bytes::new(),
            ..entry.clone()
        };
    }
}

/// Why a message is given up.
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) error: String,
    pub(crate) attempts: u32,
}
