//! The dead letters of all services, read from the records that their streams hold, one a subject.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use async_nats::header::HeaderMap;
use futures_util::TryStreamExt;

use crate::dead_letter::{EDITED_FROM, REDRIVES, STATE};
use crate::event::header;
use crate::ids::{Id, Timestamp};
use crate::operator::dead::{DeadFilter, DeadGroup, DeadLetter, LetterState};
use crate::operator::personal;
use crate::operator::read::{ReadFrom, Stored};
use crate::operator::status::StreamStatus;
use crate::operator::{Operator, OperatorError};

/// The dead letters of all services as last read: knows what it has read, and reads only what has come since.
#[derive(Debug, Default)]
pub struct Letters {
    /// By the name of the stream.
    streams: BTreeMap<String, OfService>,
    /// Whether the headers are kept as they are on the wire, for sending.
    whole: bool,
    changes: u64,
}

/// The dead letters of one service.
#[derive(Debug, Default)]
struct OfService {
    service: String,
    /// When the stream was made, and up to which sequence it was read.
    read: Option<(Timestamp, u64)>,
    /// By subject.
    letters: HashMap<String, DeadLetter>,
    moves: Moves,
}

/// What has become of one service's dead letters since [`Letters`] first read them, by what its records said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Handed back to the service.
    pub sent: u64,
    /// Handled then.
    pub handled: u64,
    /// Given up once more.
    pub failed_again: u64,
    /// Given up for good.
    pub discarded: u64,
}

impl Letters {
    /// Letters that can be sent.
    pub(crate) fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// Reads what is new, and forgets what is gone.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn update(&mut self, operator: &Operator) -> Result<(), OperatorError> {
        let streams = operator.streams().await?;
        let found: Vec<_> = streams.iter().filter_map(|stream| Some((stream.dead_letters_of()?, stream))).collect();
        let known = self.streams.len();
        self.streams.retain(|name, _| found.iter().any(|(_, stream)| stream.name == *name));
        self.changes += u64::from(self.streams.len() != known);
        for (service, stream) in found {
            let of_service = self.streams.entry(stream.name.clone()).or_default();
            of_service.service = service.into();
            self.changes += u64::from(of_service.update(operator, stream, self.whole).await?);
        }
        Ok(())
    }

    /// Another number after each change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Those that fit, the oldest first.
    pub fn list(&self, filter: &DeadFilter) -> Vec<&DeadLetter> {
        let mut all: Vec<_> = self.all().filter(|letter| filter.fits(letter)).collect();
        all.sort_unstable_by_key(|letter| (letter.failed(), &letter.service, letter.record_sequence));
        all
    }

    /// A row for each cause, the largest first.
    pub fn groups(&self, filter: &DeadFilter) -> Vec<DeadGroup> {
        let mut groups: BTreeMap<_, DeadGroup> = BTreeMap::new();
        for letter in self.list(filter) {
            let DeadLetter { service, event, reason, fingerprint, .. } = letter;
            let group = groups.entry((service, event, reason, fingerprint)).or_insert_with(|| DeadGroup {
                service: service.clone(),
                event: event.clone(),
                reason: reason.clone(),
                fingerprint: fingerprint.clone(),
                count: 0,
                redriving: 0,
                first: None,
                last: None,
                error: String::new(),
            });
            group.count += 1;
            group.redriving += u64::from(letter.state == LetterState::Redriving);
            let first = letter.first_failure.unwrap_or(letter.failed());
            group.first = Some(group.first.map_or(first, |other| other.min(first)));
            group.last = Some(group.last.map_or(letter.failed(), |other| other.max(letter.failed())));
            group.error.clone_from(&letter.error);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }

    /// One of them.
    pub fn get(&self, service: &str, id: Id) -> Option<&DeadLetter> {
        self.all().find(|letter| letter.id == id && letter.service == service)
    }

    /// The services that have a stream of dead letters, and what has become of those.
    pub fn services(&self) -> impl Iterator<Item = (&str, Moves)> {
        self.streams.values().map(|of_service| (of_service.service.as_str(), of_service.moves))
    }

    /// How many letters each service has that nobody has dealt with, and since when the oldest.
    pub fn unresolved(&self) -> BTreeMap<String, (usize, Timestamp)> {
        let mut unresolved: BTreeMap<String, (usize, Timestamp)> = BTreeMap::new();
        for letter in self.all().filter(|letter| !letter.is_dealt_with()) {
            let (count, oldest) = unresolved.entry(letter.service.clone()).or_insert((0, letter.failed()));
            (*count, *oldest) = (*count + 1, letter.failed().min(*oldest));
        }
        unresolved
    }

    fn all(&self) -> impl Iterator<Item = &DeadLetter> {
        self.streams.values().flat_map(|of_service| of_service.letters.values())
    }
}

impl OfService {
    async fn update(&mut self, operator: &Operator, status: &StreamStatus, whole: bool) -> Result<bool, OperatorError> {
        let stream = status.name.as_str();
        let (created, last) = (status.created, status.last_sequence);
        // What is there at the first look has happened before.
        let begins = self.read.is_none();
        let seen = match self.read {
            Some((same, seen)) if same == created && seen <= last => seen,
            _ => {
                self.letters.clear();
                0
            }
        };
        let mut next = last + 1;
        let mut changed = begins;
        if last > seen && status.messages > 0 {
            let take = |stored| {
                self.take(stored, begins, whole);
                ControlFlow::Continue(())
            };
            next = operator.read(stream, ">", ReadFrom::Sequence(seen + 1), take).await?.max(next);
            changed = true;
        } else if self.letters.len() as u64 != status.messages {
            let away = |error: &dyn std::fmt::Display| OperatorError::Away(format!("stream {stream}: {error}"));
            let handle = operator.jetstream.get_stream_no_info(stream).await.map_err(|error| away(&error))?;
            let subjects = handle.info_with_subjects(">").await.map_err(|error| away(&error))?;
            let subjects: HashSet<String> =
                subjects.map_ok(|(subject, _)| subject).try_collect().await.map_err(|error| away(&error))?;
            self.letters.retain(|subject, _| subjects.contains(subject));
            changed = true;
        }
        self.read = Some((created, next - 1));
        Ok(changed)
    }

    fn take(&mut self, stored: Stored, begins: bool, whole: bool) {
        let letter = letter(&self.service, stored, whole);
        if !begins {
            self.moves.count(self.letters.get(&letter.record), &letter);
        }
        self.letters.insert(letter.record.clone(), letter);
    }
}

impl Moves {
    /// Counts what has happened between two states of a record. Those in between may not have been seen, but each redrive has
    /// raised its number.
    fn count(&mut self, old: Option<&DeadLetter>, new: &DeadLetter) {
        let redrives = old.map_or(0, |old| old.redrives);
        let was = old.map(|old| (old.state, old.redrives));
        let is = (new.state, new.redrives);
        if was == Some(is) {
            return;
        }
        self.sent += u64::from(new.redrives.saturating_sub(redrives));
        match new.state {
            LetterState::Dead => self.failed_again += u64::from(new.redrives > 0),
            LetterState::Resolved => self.handled += 1,
            LetterState::Discarded => self.discarded += 1,
            LetterState::Redriving | LetterState::Edited => {}
        }
    }
}

/// A record as it stands in the service's stream; `whole` keeps its headers as they are on the wire.
pub(crate) fn letter(service: &str, stored: Stored, whole: bool) -> DeadLetter {
    let get = |name: &str| stored.header(name);
    let ours = |name: &str| get(&format!("Millstream-{name}"));
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or_default();
    let time = |name: &str| ours(name).and_then(|at| at.parse::<Timestamp>().ok());
    // Somebody else's letter may have any subject: it is shown, and cannot be redriven.
    let id = stored.subject.rsplit('.').next().and_then(|id| id.parse().ok());
    let id = id.unwrap_or_else(|| Id::derived(stored.at, "record", stored.subject.as_bytes(), 0));
    let state = match get(STATE).as_deref() {
        Some("redriving") => LetterState::Redriving,
        Some("resolved") => LetterState::Resolved,
        Some("edited") => LetterState::Edited,
        Some("discarded") => LetterState::Discarded,
        _ => LetterState::Dead,
    };
    DeadLetter {
        service: service.into(),
        event: stored.event().unwrap_or_else(|| "unknown".into()),
        id,
        state,
        reason: ours("Reason").unwrap_or_else(|| "unknown".into()),
        error: ours("Error").unwrap_or_default(),
        fingerprint: ours("Fingerprint").unwrap_or_default(),
        stream: ours("Stream").unwrap_or_default(),
        sequence: ours("Sequence").and_then(|text| text.parse().ok()).unwrap_or_default(),
        subject: ours("Subject").unwrap_or_default(),
        consumer: ours("Consumer").unwrap_or_default(),
        attempts: number(ours("Attempts")),
        redrives: number(get(REDRIVES)),
        first_failure: time("First-Failure"),
        last_failure: time("Last-Failure"),
        key: get(header::SUBJECT),
        correlation: get(header::CORRELATION),
        causation: get(header::CAUSATION),
        at: stored.at,
        cut: ours("Cut").and_then(|bytes| bytes.parse().ok()),
        who: ours("Who"),
        why: ours("Why"),
        edited_from: get(EDITED_FROM).and_then(|id| id.parse().ok()),
        edited_to: ours("Edited-To").and_then(|id| id.parse().ok()),
        personal: personal::names(get(header::PERSONAL)),
        headers: stored.all_headers(),
        wire: if whole { stored.headers } else { HeaderMap::new() },
        record: stored.subject,
        record_sequence: stored.sequence,
        payload: stored.payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str, redrives: u32) -> DeadLetter {
        let mut headers = HeaderMap::new();
        if !state.is_empty() {
            headers.insert(STATE, state);
        }
        headers.insert(REDRIVES, redrives.to_string());
        let id = Id::derived(Timestamp::from_millis(1), "x", b"y", 0);
        let stored = Stored {
            stream: "DLQ_BANK".into(),
            sequence: 1,
            subject: format!("dlq.bank.bank-moved.{id}"),
            at: Timestamp::from_millis(5),
            headers,
            payload: bytes::Bytes::new(),
        };
        letter("bank", stored, false)
    }

    #[test]
    fn what_becomes_of_a_letter_is_counted_once_also_if_not_every_state_was_seen() {
        let mut moves = Moves::default();
        let seen = [record("", 0), record("redriving", 1), record("", 1), record("resolved", 2), record("resolved", 2)];
        let mut old = None;
        for new in &seen {
            moves.count(old, new);
            old = Some(new);
        }
        assert_eq!(moves, Moves { sent: 2, handled: 1, failed_again: 1, discarded: 0 });
        moves.count(None, &record("discarded", 0));
        assert_eq!(moves.discarded, 1);
    }
}
