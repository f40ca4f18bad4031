//! Operators in the simulation: what they do about dead letters, a step at a time, so that several are at it at once and each may stop
//! between any two steps. The records and messages that they write are those of [`crate::operator`]; in which order, how many at a time and
//! how often is theirs here.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::header::HeaderMap;
use bytes::Bytes;

use crate::dead_letter::stream_name;
use crate::ids::{Id, Timestamp};
use crate::operator::By;
use crate::operator::dead::{DeadLetter, LetterState};
use crate::operator::edit::{changed, copy_id, edited};
use crate::operator::letters::letter;
use crate::operator::read::Stored;
use crate::operator::redrive::{Outgoing, dealt_with, discarded, expecting, mark, number, redrive_of, under_way};
use crate::sim::broker::{PubAck, PublishError};
use crate::sim::world::Sim;

/// For how long the broker takes a message of the same id for a repeat, in milliseconds.
const REMEMBERED: u64 = 120_000;

/// What operators are at, and what they have come to.
#[derive(Default)]
pub(super) struct Operators {
    /// What each has in hand.
    tasks: Vec<Option<Task>>,
    /// How they change a body.
    edit: Option<fn(&Bytes) -> Bytes>,
    /// How often each dead letter was claimed for a redrive.
    claims: BTreeMap<Id, u32>,
    /// The redrives that the broker has taken, by the dead letter and the number.
    sent: BTreeSet<(Id, u32)>,
    discarded: BTreeSet<Id>,
    /// How often one stopped in the middle.
    interruptions: u32,
}

/// A dead letter as an operator has read it, however long ago, and what is to be done about it.
struct Task {
    letter: DeadLetter,
    deed: Deed,
    /// The sequence of the record that says so, once it does.
    claimed: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Redrive,
    Edit(fn(&Bytes) -> Bytes),
    Discard,
}

impl Operators {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl Sim {
    /// Adds so many operators, who redrive, edit and discard the dead letters of all services, and stop where the seed wants it.
    #[must_use]
    pub fn with_operators(mut self, count: usize, edit: fn(&Bytes) -> Bytes) -> Self {
        self.operators.tasks.resize_with(count, || None);
        self.operators.edit = Some(edit);
        self
    }

    /// The dead letters of a service, whatever has become of them.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn letters(&mut self, service: &str) -> Vec<DeadLetter> {
        let service = self.apps[self.app(service)].name;
        let stream = stream_name(service);
        let last = self.broker.stream_info(self.now, &stream).map_or(0, |info| info.last_seq);
        let records = (1..=last).filter_map(|seq| self.broker.get(self.now, &stream, seq).ok()).collect::<Vec<_>>();
        let stored = records.into_iter().map(|record| Stored {
            stream: stream.clone(),
            sequence: record.seq,
            subject: record.subject.clone(),
            at: Timestamp::from_millis(record.time),
            headers: header_map(&record.headers),
            payload: record.payload.clone(),
        });
        stored.map(|stored| letter(service, stored, true)).collect()
    }

    /// How often operators have claimed a dead letter for a redrive.
    pub fn redrives(&self, id: Id) -> u32 {
        self.operators.claims.get(&id).copied().unwrap_or_default()
    }

    /// Whether this redrive of a dead letter has reached the broker, and no earlier one has taken its place in the queue since.
    pub fn was_sent(&self, id: Id, redrive: u32) -> bool {
        self.operators.sent.contains(&(id, redrive))
    }

    /// The dead letters that operators have given up for good.
    pub fn discarded(&self) -> &BTreeSet<Id> {
        &self.operators.discarded
    }

    /// How often an operator stopped before or after a step that had begun.
    pub fn interruptions(&self) -> u32 {
        self.operators.interruptions
    }

    /// Lets an operator whom nothing interrupts redrive, two minutes later, all dead letters of a service, and go on with every redrive and edit that
    /// was interrupted. Says whether there was any redrive to be done.
    ///
    /// # Panics
    /// When there is no such service.
    pub fn redrive_all(&mut self, service: &str) -> bool {
        // By then the broker has forgotten what was sent before.
        self.now += REMEMBERED;
        let mut any = false;
        for letter in self.letters(service) {
            let deed = match (letter.state, self.operators.edit) {
                (LetterState::Dead | LetterState::Redriving, _) => Deed::Redrive,
                (LetterState::Edited, Some(edit)) => Deed::Edit(edit),
                _ => continue,
            };
            any |= matches!(deed, Deed::Redrive);
            let mut task = Task { letter, deed, claimed: None };
            if let Some(claimed) = self.claim(&task) {
                task.claimed = Some(claimed);
                self.send_back(&task);
            }
        }
        any
    }

    /// A step of one operator.
    pub(super) fn operate(&mut self) {
        let who = self.random.below(self.operators.tasks.len());
        let Some(mut task) = self.operators.tasks[who].take() else {
            self.operators.tasks[who] = self.look();
            return;
        };
        let what =
            format!("operator {who}: {:?} of {} as of {}", task.deed, task.letter.id, task.letter.record_sequence);
        let ends = self.random.per_mille(150);
        self.operators.interruptions += u32::from(ends);
        // The process ends before the step, or after it before the broker has answered.
        if ends && self.random.below(2) == 0 {
            return self.tell(&format!("{what} is interrupted"));
        }
        if task.claimed.is_none() {
            self.tell(&what);
            task.claimed = self.claim(&task);
            if task.claimed.is_some() && !ends && !matches!(task.deed, Deed::Discard) {
                self.operators.tasks[who] = Some(task);
            }
        } else {
            self.tell(&format!("{what} is sent"));
            self.send_back(&task);
        }
    }

    fn tell(&mut self, what: &str) {
        self.log.push(format!("{} {what}", Timestamp::from_millis(self.now)));
    }

    /// An operator looks at what there is, and chooses.
    fn look(&mut self) -> Option<Task> {
        let app = self.random.below(self.apps.len());
        let now = self.now();
        let mut letters = self.letters(self.apps[app].name);
        letters.retain(|letter| dealt_with(letter).is_none());
        if letters.is_empty() {
            return None;
        }
        let index = self.random.below(letters.len());
        let letter = letters.swap_remove(index);
        let deed = match (self.random.below(20), self.operators.edit) {
            (0, _) if under_way(&letter, now).is_none() => Deed::Discard,
            (1, Some(edit)) if letter.state == LetterState::Dead => Deed::Edit(edit),
            _ => Deed::Redrive,
        };
        Some(Task { letter, deed, claimed: None })
    }

    /// Says in the record what is about to be done, and gives the sequence of the record that does; `None` if the record is no longer
    /// what was read.
    fn claim(&mut self, task: &Task) -> Option<u64> {
        let Task { letter, deed, .. } = task;
        let by = By { who: "sim".into(), why: "to see".into() };
        let now = self.now();
        let headers = match deed {
            Deed::Redrive if letter.state == LetterState::Redriving => return Some(letter.record_sequence),
            Deed::Edit(_) if letter.state == LetterState::Edited => return Some(letter.record_sequence),
            Deed::Redrive => mark(letter, "redriving", number(letter), &by, now),
            Deed::Edit(edit) => edited(letter, copy_id(letter.id, &edit(&letter.payload)), &by, now),
            Deed::Discard => discarded(letter, &by, now),
        };
        let record = (letter.record.clone(), expecting(headers, letter), letter.payload.clone());
        let stored = self.store(record).ok()?.seq;
        match deed {
            Deed::Redrive => *self.operators.claims.entry(letter.id).or_default() += 1,
            Deed::Discard => drop(self.operators.discarded.insert(letter.id)),
            Deed::Edit(_) => {}
        }
        Some(stored)
    }

    /// Sends what is claimed back to its service. What was sent before is there already.
    fn send_back(&mut self, task: &Task) {
        let Task { letter, deed, claimed } = task;
        let message = match deed {
            Deed::Redrive => claimed.map(|record| redrive_of(letter, number(letter), record)),
            Deed::Edit(edit) => {
                let payload = edit(&letter.payload);
                changed(letter, copy_id(letter.id, &payload), payload)
            }
            Deed::Discard => None,
        };
        if let Some(message) = message
            && let Ok(ack) = self.store(message)
            && matches!(deed, Deed::Redrive)
            && !ack.duplicate
        {
            // The queue has one message a dead letter: of an earlier redrive that is sent late the later one has to be sent again.
            self.operators.sent.retain(|(id, redrive)| *id != letter.id || *redrive < number(letter));
            self.operators.sent.insert((letter.id, number(letter)));
        }
    }

    fn store(&mut self, (subject, headers, payload): Outgoing) -> Result<PubAck, PublishError> {
        let of = |name: &async_nats::header::HeaderName, value: &async_nats::header::HeaderValue| {
            (name.to_string(), value.to_string())
        };
        let headers = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| of(name, value)));
        self.broker.publish(self.now, &subject, headers.collect(), payload)
    }
}

fn header_map(headers: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    headers.iter().for_each(|(name, value)| map.append(name.as_str(), value.as_str()));
    map
}
