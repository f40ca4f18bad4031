//! Journal entries: what a handled, failed or parked input leaves behind.

use std::borrow::Cow;

use bytes::Bytes;

use crate::dead_letter::{self, Parked, Reason};
use crate::event::{Emitted, Meta};
use crate::ids::{Id, Timestamp};
use crate::planner::{Delivery, Facts, Plan};
use crate::record::{Entry, State};
use crate::unit::Staged;

/// Why a message is given up.
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) error: String,
    pub(super) attempts: u32,
}

impl Facts {
    /// The entry of a message as this delivery finds it.
    pub(super) fn entry_for(&self, delivery: &Delivery) -> Option<Cow<'_, Entry>> {
        self.journal.get(&delivery.id).map(|entry| reopened(entry, delivery))
    }
}

/// A message that is not done is open again for a redrive that is later than what its entry knows, and begins anew. What it has
/// emitted, its dead letter, must not go out again with the start that is committed of it.
fn reopened<'a>(entry: &'a Entry, delivery: &Delivery) -> Cow<'a, Entry> {
    match delivery.redrive() {
        Some(number) if entry.state != State::Done && number > entry.redrives => Cow::Owned(Entry {
            state: State::Open,
            attempts: 0,
            started: 0,
            redrives: number,
            error: None,
            first_failure: None,
            last_failure: None,
            emitted: Bytes::new(),
            ..entry.clone()
        }),
        _ => Cow::Borrowed(entry),
    }
}

impl Plan<'_> {
    /// The entry of an input: as this batch has written it, or as it was loaded.
    pub(super) fn entry(&self, id: Id) -> Option<&Entry> {
        self.written.get(&id).and_then(|index| self.entries.get(*index)).or_else(|| self.facts.journal.get(&id))
    }

    /// The entry of a message as this delivery finds it.
    pub(super) fn entry_for(&self, delivery: &Delivery) -> Option<Entry> {
        self.entry(delivery.id).map(|entry| reopened(entry, delivery).into_owned())
    }

    /// Writes an entry, in place of one that this batch has written of the same input: the commit raises the version once, and
    /// everything that was emitted goes out.
    pub(super) fn write(&mut self, entry: Entry) {
        let written = self.written.get(&entry.id).and_then(|index| self.entries.get_mut(*index));
        match written {
            Some(earlier) => {
                let emitted = [&earlier.emitted[..], &entry.emitted[..]].concat().into();
                *earlier = Entry { version: earlier.version, emitted, ..entry };
            }
            None => {
                self.written.insert(entry.id, self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    /// Stages a dead letter: an entry like any other, whose emitted event is the letter.
    pub(super) fn park(&mut self, delivery: &Delivery, entry: Option<&Entry>, failure: &Failure) {
        let parked =
            Entry { attempts: failure.attempts, ..self.failed(delivery, entry, State::Parked, &failure.error) };
        let letter = self.letter(delivery, parked.redrives, parked.first_failure, failure);
        self.write(Entry { emitted: Emitted::pack(std::slice::from_ref(&letter)).into(), ..parked });
        self.emitted.push(letter);
    }

    fn letter(
        &self,
        delivery: &Delivery,
        redrives: u32,
        first_failure: Option<Timestamp>,
        failure: &Failure,
    ) -> Emitted {
        let Failure { reason, error, attempts } = failure;
        let rules = &self.planner.rules;
        let (stream, seq, subject) = delivery.origin();
        let redriven = delivery.redriven.as_ref();
        let letter = Parked {
            service: rules.service,
            record: delivery.record(rules.service),
            id: delivery.id,
            redrives,
            replaces: delivery.replaces(redrives),
            reason: *reason,
            error,
            stream,
            seq,
            subject,
            consumer: delivery.consumer,
            attempts: *attempts,
            first_failure: redriven.and_then(|redriven| redriven.first_failure).or(first_failure).unwrap_or(self.now),
            last_failure: self.now,
            edited_from: redriven.and_then(|redriven| redriven.edited_from),
            headers: &delivery.wire.headers(),
            payload: delivery.payload.clone(),
        };
        letter.letter(rules.max_message + dead_letter::ROOM)
    }

    /// Stages the end of an input that was handled.
    pub(super) fn done(
        &mut self,
        delivery: Option<&Delivery>,
        meta: &Meta,
        entry: Option<&Entry>,
        staged: Staged,
        reply: Option<Bytes>,
    ) {
        let mut emits = staged.emitted;
        // The record says that a redrive is on its way.
        if let (Some(delivery), Some(redrives)) =
            (delivery, entry.map(|entry| entry.redrives).filter(|count| *count > 0))
        {
            emits.push(self.resolved(delivery, redrives));
        }
        let emitted = Emitted::pack(&emits).into();
        let fresh = new_entry(meta.id, delivery, State::Done, self.now);
        self.write(match entry {
            None => Entry { emitted, reply, ..fresh },
            Some(old) => Entry {
                emitted,
                reply,
                version: old.version + 1,
                state: State::Done,
                started: 0,
                ..stamped(old, &fresh)
            },
        });
        self.emitted.extend(emits);
        self.counts.extend(staged.counts);
    }

    /// Publishes again what has become of a redrive that is over: a repeat of it, or one that the journal does not know. There is
    /// nothing to publish while a later one is on its way.
    pub(super) fn repeat_outcome(&mut self, delivery: &Delivery, entry: Option<&Entry>) {
        let Some(number) = delivery.redrive().filter(|number| *number > 0) else {
            // If the broker has lost the record with the redrive, nobody else would ever come back to it. Where there is a record
            // the letter is refused.
            let open = entry.filter(|entry| entry.state == State::Open && entry.redrives > 0);
            let letter = open.map(|entry| self.letter(delivery, entry.redrives, entry.first_failure, &lost(entry)));
            self.emitted.extend(letter.clone());
            return self.again.extend(letter);
        };
        let outcome = match entry.map(|entry| (entry.state, entry)) {
            None => vec![self.letter(delivery, number, None, &unknown())],
            Some((State::Done, entry)) => vec![self.resolved(delivery, entry.redrives.max(number))],
            Some((State::Parked, entry)) => Emitted::unpack(&entry.emitted).unwrap_or_default(),
            Some((State::Open, _)) => vec![],
        };
        self.emitted.extend(outcome.iter().cloned());
        self.again.extend(outcome);
    }

    fn resolved(&self, delivery: &Delivery, number: u32) -> Emitted {
        let record = delivery.record(self.planner.rules.service);
        dead_letter::resolved(record, delivery.replaces(number), delivery.id, number, &delivery.wire.headers())
    }

    /// The entry of a message that has failed once more.
    pub(super) fn failed(&self, delivery: &Delivery, entry: Option<&Entry>, state: State, error: &str) -> Entry {
        let fresh = new_entry(delivery.id, Some(delivery), state, self.now);
        let base = match entry {
            None => fresh,
            Some(old) => Entry { version: old.version + 1, state, started: 0, ..stamped(old, &fresh) },
        };
        let first_failure = base.first_failure.or(Some(self.now));
        Entry { error: Some(error.chars().take(300).collect()), first_failure, last_failure: Some(self.now), ..base }
    }
}

/// What became of a message that the journal does not know nobody can tell: it stays a dead letter, with its body.
fn unknown() -> Failure {
    let error = "the service's journal does not know this message: its database is older than the dead letter, or the entry \
                 has expired. If it was never handled, edit it, which sends it as a new message; otherwise discard it";
    Failure { reason: Reason::Unknown, error: error.into(), attempts: 0 }
}

/// A message that was being redriven, of which the broker has neither the redrive nor the record.
fn lost(entry: &Entry) -> Failure {
    let error = "the broker lost the redrive of this message, which was not over: redrive it again";
    Failure { reason: Reason::Unknown, error: error.into(), attempts: entry.attempts }
}

/// A fresh entry. Instance and batch are those of the commit.
pub(super) fn new_entry(id: Id, delivery: Option<&Delivery>, state: State, now: Timestamp) -> Entry {
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
        instance: Id::default(),
        batch: 0,
        stream: delivery.map_or(String::new(), |delivery| delivery.origin().0.into()),
        seq: delivery.map_or(0, |delivery| delivery.origin().1),
        at: now,
    }
}

/// An old entry as written again at this time, at the place where its message was last seen.
fn stamped(old: &Entry, fresh: &Entry) -> Entry {
    let Entry { stream, seq, at, .. } = fresh.clone();
    Entry { stream, seq, at, emitted: Bytes::new(), ..old.clone() }
}
