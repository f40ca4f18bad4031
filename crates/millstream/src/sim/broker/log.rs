//! A stream's messages, and the ids by which it knows a message again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::config::{StreamConfig, matches};

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place in the stream, from 1 on.
    pub seq: u64,
    /// Where it was published.
    pub subject: String,
    /// Header names and values, in sequence.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub payload: Bytes,
    /// When it was stored, in milliseconds.
    pub time: u64,
}

impl Message {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    fn size(&self) -> u64 {
        size(&self.subject, &self.headers, &self.payload)
    }
}

/// What the file store counts for a message, in bytes: a record of 22 and a checksum of 8, and 4 for the length of headers.
fn size(subject: &str, headers: &[(String, String)], payload: &Bytes) -> u64 {
    let lines: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let headers = if headers.is_empty() { 0 } else { 4 + 12 + lines };
    (30 + subject.len() + headers + payload.len()) as u64
}

pub(super) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
}

/// What a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its configuration.
    pub config: StreamConfig,
    /// When it was created, in milliseconds: another for one that is made anew.
    pub created: u64,
    /// How many messages are there.
    pub messages: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// The sequence of the first message; of an empty stream the one after the last, and 0 if there never was one.
    pub first_seq: u64,
    /// The sequence of the last message there was; 0 if there was none.
    pub last_seq: u64,
    /// When the first message was stored, in milliseconds; `None` if there is none.
    pub first_time: Option<u64>,
}

/// The messages in sequence, with holes where some were removed.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) config: StreamConfig,
    pub(super) created: u64,
    /// From `first` to `last`; neither the first nor the last of a log with messages is a hole at the front.
    slots: VecDeque<Option<Arc<Message>>>,
    first: u64,
    last: u64,
    messages: u64,
    bytes: u64,
    /// The sequences of each subject; kept only where their number is limited.
    by_subject: HashMap<String, VecDeque<u64>>,
    /// The ids that are known, and the sequence of each. Removing a message does not make its id unknown.
    ids: HashMap<Arc<str>, u64>,
    ids_by_age: VecDeque<(u64, Arc<str>)>,
    /// When messages expire, and their sequences.
    expiries: BTreeSet<(u64, u64)>,
}

impl Log {
    pub(super) fn new(config: StreamConfig, created: u64) -> Self {
        Self {
            config,
            created,
            slots: VecDeque::new(),
            first: 1,
            last: 0,
            messages: 0,
            bytes: 0,
            by_subject: HashMap::new(),
            ids: HashMap::new(),
            ids_by_age: VecDeque::new(),
            expiries: BTreeSet::new(),
        }
    }

    pub(super) fn info(&self) -> StreamInfo {
        StreamInfo {
            config: self.config.clone(),
            created: self.created,
            messages: self.messages,
            bytes: self.bytes,
            first_seq: self.first_seq(),
            last_seq: self.last,
            first_time: self.get(self.first).map(|message| message.time),
        }
    }

    /// As the server says it: 0 as long as nothing was ever stored or purged.
    pub(super) fn first_seq(&self) -> u64 {
        if self.last == 0 && self.first == 1 { 0 } else { self.first }
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.last
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Arc<Message>> {
        self.slots.get(self.index(seq)?)?.as_ref()
    }

    fn index(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.first)?).ok()
    }

    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &Arc<Message>> {
        let start = self.index(seq.max(self.first)).unwrap_or(0).min(self.slots.len());
        self.slots.range(start..).flatten()
    }

    pub(super) fn next(&self, seq: u64, wanted: impl Fn(&str) -> bool) -> Option<&Arc<Message>> {
        self.from(seq).find(|message| wanted(&message.subject))
    }

    pub(super) fn last_by_subject(&self, subject: &str) -> Option<&Arc<Message>> {
        if let Some(sequences) = self.by_subject.get(subject) {
            return self.get(*sequences.back()?);
        }
        self.slots.iter().rev().flatten().find(|message| matches(subject, &message.subject))
    }

    pub(super) fn first_since(&self, time: u64) -> Option<&Arc<Message>> {
        self.slots.iter().flatten().find(|message| message.time >= time)
    }

    /// Whether what has this id is a duplicate, and of which sequence.
    pub(super) fn known(&self, id: &str) -> Option<u64> {
        self.ids.get(id).copied()
    }

    /// Whether a stream that refuses what is new takes this.
    pub(super) fn has_room(&self, subject: &str, headers: &[(String, String)], payload: &Bytes) -> bool {
        let room = |most| self.bytes + size(subject, headers, payload) <= most;
        !self.config.discard_new || self.config.max_bytes.is_none_or(room)
    }

    pub(super) fn append(
        &mut self,
        now: u64,
        subject: &str,
        headers: Vec<(String, String)>,
        payload: Bytes,
        expires: Option<u64>,
    ) -> u64 {
        let seq = self.last + 1;
        if self.slots.is_empty() {
            self.first = seq;
        }
        let message = Message { seq, subject: subject.into(), headers, payload, time: now };
        self.note_id(&message);
        self.bytes += message.size();
        self.messages += 1;
        if self.config.max_msgs_per_subject.is_some() {
            self.by_subject.entry(subject.into()).or_default().push_back(seq);
        }
        self.expiries.extend(expires.map(|at| (at, seq)));
        self.slots.push_back(Some(Arc::new(message)));
        self.last = seq;
        seq
    }

    fn note_id(&mut self, message: &Message) {
        if let Some(id) = message.header("Nats-Msg-Id").filter(|id| !id.is_empty()) {
            let id: Arc<str> = id.into();
            self.ids.insert(id.clone(), message.seq);
            self.ids_by_age.push_back((message.time, id));
        }
    }

    /// A message that is too much since the last was appended.
    pub(super) fn too_much(&self, subject: &str) -> Option<u64> {
        if let (Some(most), Some(sequences)) = (self.config.max_msgs_per_subject, self.by_subject.get(subject))
            && sequences.len() as u64 > most
        {
            return sequences.front().copied();
        }
        self.config.max_bytes.is_some_and(|most| self.bytes > most).then_some(self.first)
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Arc<Message>> {
        let index = self.index(seq)?;
        let message = self.slots.get_mut(index)?.take()?;
        self.uncount(&message);
        self.trim();
        Some(message)
    }

    fn uncount(&mut self, message: &Message) {
        self.messages -= 1;
        self.bytes -= message.size();
        if let Some(sequences) = self.by_subject.get_mut(&message.subject) {
            sequences.retain(|have| *have != message.seq);
            if sequences.is_empty() {
                self.by_subject.remove(&message.subject);
            }
        }
        if self.config.allow_message_ttl {
            self.expiries.retain(|(_, have)| *have != message.seq);
        }
    }

    fn trim(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Removes what lies below a sequence, and says how many messages that were. A sequence beyond the end becomes the next one:
    /// those in between are never given out.
    pub(super) fn purge_below(&mut self, seq: u64) -> u64 {
        let before = self.messages;
        while self.first < seq.min(self.last + 1) {
            self.remove(self.first);
        }
        if self.slots.is_empty() {
            self.first = self.first.max(seq);
            self.last = self.last.max(self.first - 1);
        }
        before - self.messages
    }

    pub(super) fn forget_after(&mut self, seq: u64) {
        while self.last > seq {
            if let Some(message) = self.slots.pop_back().flatten() {
                self.uncount(&message);
            }
            self.last -= 1;
        }
        self.first = self.first.min(self.last + 1);
        self.learn_ids();
    }

    /// The ids are known by what is stored, as after a start.
    pub(super) fn learn_ids(&mut self) {
        self.ids.clear();
        self.ids_by_age.clear();
        let stored: Vec<_> = self.slots.iter().flatten().cloned().collect();
        stored.iter().for_each(|message| self.note_id(message));
    }

    /// Counts the messages of each subject, if that is limited now and was not.
    pub(super) fn reconfigure(&mut self, config: StreamConfig) {
        self.config = config;
        self.by_subject.clear();
        if self.config.max_msgs_per_subject.is_some() {
            for message in self.slots.iter().flatten() {
                self.by_subject.entry(message.subject.clone()).or_default().push_back(message.seq);
            }
        }
    }

    pub(super) fn subjects(&self) -> Vec<String> {
        self.by_subject.keys().cloned().collect()
    }

    /// Forgets ids whose time is over.
    pub(super) fn forget_ids(&mut self, now: u64) {
        while let Some((time, _)) = self.ids_by_age.front()
            && now >= time + self.config.duplicate_window_ms
        {
            if let Some((_, id)) = self.ids_by_age.pop_front() {
                self.ids.remove(&id);
            }
        }
    }

    /// When the first message expires, and its sequence.
    pub(super) fn expires(&self) -> Option<(u64, u64)> {
        self.expiries.first().copied()
    }
}
