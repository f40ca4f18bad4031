//! What the broker has acknowledged, held against what it still has.
//!
//! A broker that loses power, or is put back from a backup, comes back without the last messages that it had acknowledged. Each
//! instance keeps marks: when a stream's last message was this one, the instance's batches up to that one were published. A mark
//! holds if the stream still has that message at that place; then it has all before it. What was emitted after the last mark that
//! holds, and is not in the stream, is published again from the journal. Nothing here does I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::event::{Emitted, header};
use crate::ids::{Id, Timestamp};
use crate::record::Instance;

/// How far an instance had published when a stream ended with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// All batches up to this one were published.
    pub batch: u64,
    /// The sequence of the message.
    pub seq: u64,
    /// Its `Nats-Msg-Id`; empty if it has none, or it was no longer there when the mark was made.
    pub id: String,
    /// When the broker stored it: a message that is published again may come to the place that it had before.
    #[serde(default)]
    pub stored: Option<Timestamp>,
    /// When the mark was made.
    pub at: Timestamp,
}

/// The marks of one instance for one stream. They outlive the instance, for as long as its journal entries do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The instance.
    pub instance: Id,
    /// The stream.
    pub stream: String,
    /// Oldest first: many of late, few of long ago.
    pub marks: Vec<Mark>,
}

impl Published {
    /// The mark of an instance that has published nothing yet: it is written before the instance has its row, so that no entry is
    /// without one.
    pub fn enrolled(instance: Id, stream: &str, at: Timestamp) -> Self {
        let mark = Mark { batch: 0, seq: 0, id: String::new(), stored: None, at };
        Self { instance, stream: stream.into(), marks: vec![mark] }
    }
}

/// How a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The sequence of its first message; without one, that of the next.
    pub first: u64,
    /// The sequence of its last message so far.
    pub last: u64,
}

/// A message as it is in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its `Nats-Msg-Id`; empty if it has none.
    pub id: String,
    /// When the broker stored it.
    pub at: Timestamp,
}

/// What a mark says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing before it is lost, as far as anybody can tell.
    Holds,
    /// The stream ends before it.
    Lost,
    /// It depends on which message is at its place: see [`Mark::is_met_by`].
    Ask,
}

impl Mark {
    /// A mark of the message that a stream ends with.
    pub fn at_end(batch: u64, seq: u64, there: Option<Stored>, at: Timestamp) -> Self {
        let stored = there.as_ref().map(|there| there.at);
        Self { batch, seq, id: there.map(|there| there.id).unwrap_or_default(), stored, at }
    }

    /// Whether it is of the same message.
    fn is_of(&self, other: &Self) -> bool {
        (self.seq, &self.id, self.stored) == (other.seq, &other.id, other.stored)
    }

    /// Holds the mark against a stream.
    pub fn look(&self, stream: Extent) -> Look {
        if self.seq > stream.last {
            return Look::Lost;
        }
        // What was trimmed was handled by all readers.
        let nameless = self.id.is_empty() && self.stored.is_none();
        if self.seq < stream.first || self.seq == 0 || nameless { Look::Holds } else { Look::Ask }
    }

    /// Whether the message at its place is the one that it names. One that is not there was deleted, or replaced by a later one of
    /// its subject. The same one stored at another time was published again, and what was before it may still be missing.
    pub fn is_met_by(&self, there: Option<&Stored>) -> bool {
        there.is_none_or(|there| there.id == self.id && self.stored.is_none_or(|stored| stored == there.at))
    }

    /// The mark with the time of the message at its place; `None` if another message is there, so that the stream has gone back.
    pub fn seen(self, there: Option<&Stored>) -> Option<Self> {
        self.is_met_by(there).then(|| Self { stored: there.map(|there| there.at), ..self })
    }
}

/// From where an instance's events are looked for in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Batches after this one.
    pub batch: u64,
    /// Messages after this one.
    pub seq: u64,
    /// What was emitted later was written to the journal after this time.
    pub at: Timestamp,
}

impl Published {
    /// The process goes on under another id: its marks begin anew before the stream is looked at, and those of the id before belong to
    /// whoever has swept it.
    pub fn renew(&mut self, instance: Id, at: Timestamp) {
        if self.instance != instance {
            *self = Self::enrolled(instance, &self.stream, at);
        }
    }

    /// An instance that has no marks yet.
    pub fn new(instance: Id, stream: &str) -> Self {
        Self { instance, stream: stream.into(), marks: vec![] }
    }

    /// The latest mark.
    pub fn newest(&self) -> Option<&Mark> {
        self.marks.last()
    }

    /// The mark with the time that the latest one has; `None` if that is of another message.
    pub fn recall(&self, mark: &Mark) -> Option<Mark> {
        let same = |last: &&Mark| (last.seq, &last.id) == (mark.seq, &mark.id);
        self.newest().filter(same).map(|last| Mark { stored: last.stored, ..mark.clone() })
    }

    /// Adds a mark and lets go of older ones; says whether there is anything new to be written.
    pub fn push(&mut self, mark: Mark) -> bool {
        match self.marks.last_mut() {
            // Of another one that has swept the instance, and had read less of its journal: where it holds it would hide that the
            // latest does not.
            Some(last) if last.batch > mark.batch => return false,
            Some(last) if last.is_of(&mark) && last.batch == mark.batch => return false,
            // Nothing of it went to this stream.
            Some(last) if last.is_of(&mark) && last.batch <= mark.batch => *last = mark,
            _ => self.marks.push(mark),
        }
        thin(&mut self.marks);
        true
    }

    /// Where to begin when only so many of the oldest marks hold. Without one it is the instance's beginning.
    pub fn base(&self, holding: usize) -> Base {
        match holding.checked_sub(1).and_then(|at| self.marks.get(at)) {
            Some(Mark { batch, seq, at, .. }) => Base { batch: *batch, seq: *seq, at: *at },
            None => Base { batch: 0, seq: 0, at: self.instance.time().unwrap_or_default() },
        }
    }
}

/// Keeps the two latest marks, the first one, and of those between one for each doubling of the distance from the latest: however
/// far a stream is put back, what is looked through is a few times what is lost.
fn thin(marks: &mut Vec<Mark>) {
    let Some(newest) = marks.last().map(|mark| mark.batch) else { return };
    let distance = |mark: &Mark| newest.abs_diff(mark.batch).checked_ilog2();
    let (count, mut before) = (marks.len(), None);
    let mut at = 0;
    marks.retain(|mark| {
        let bucket = distance(mark);
        let keep = at == 0 || at + 2 >= count || before != Some(bucket);
        at += 1;
        if keep {
            before = Some(bucket);
        }
        keep
    });
}

/// The messages of a kind (the first word of their subjects) that a stream lacks.
pub fn missing(emitted: Vec<Emitted>, kind: &str, present: &BTreeSet<String>) -> Vec<Emitted> {
    let of_kind = |message: &Emitted| message.subject.split('.').next() == Some(kind);
    let lacks = |message: &Emitted| message.header(header::MSG_ID).is_none_or(|id| !present.contains(&id));
    emitted.into_iter().filter(|message| of_kind(message) && lacks(message)).collect()
}

/// Whether the journal still has everything that was emitted after a base.
pub fn is_complete(base: Base, kept_since: Timestamp) -> bool {
    base.at >= kept_since
}

/// Of the marks of instances that are gone those that are no longer needed: their entries have expired. The furthest of a stream
/// stay, so that a loss is noticed even when nothing is left to fill it.
pub fn outdated(records: &[Published], rows: &[Instance], kept_since: Timestamp) -> Vec<Published> {
    let mut furthest: BTreeMap<&str, (u64, Id)> = BTreeMap::new();
    for record in records {
        let reach = (record.newest().map_or(0, |mark| mark.seq), record.instance);
        let most = furthest.entry(&record.stream).or_insert(reach);
        *most = reach.max(*most);
    }
    let old = |record: &&Published| {
        let gone = rows.iter().all(|row| row.id != record.instance);
        let furthest = furthest.get(&*record.stream).is_some_and(|(_, instance)| *instance == record.instance);
        gone && !furthest && record.newest().is_none_or(|mark| mark.at < kept_since)
    };
    records.iter().filter(old).cloned().collect()
}

/// What this process knows of the end of a stream, and in which of its connections that was held against the broker. After each
/// new connection the stream may be an earlier one, and no mark is made before that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    seq: u64,
    id: String,
    /// The sequence of the last message that this process has published itself.
    own: u64,
    checked: Option<u64>,
}

impl Acked {
    /// The broker has acknowledged a message. Says whether the stream has gone back: sequences rise, but for duplicates.
    pub fn note(&mut self, seq: u64, id: &str, duplicate: bool) -> bool {
        let went_back = !duplicate && seq <= self.own;
        if went_back {
            self.checked = None;
        }
        if !duplicate {
            self.own = seq;
        }
        self.see(seq, id);
        went_back
    }

    fn see(&mut self, seq: u64, id: &str) {
        if seq > self.seq {
            (self.seq, self.id) = (seq, id.into());
        }
    }

    /// The stream is looked at: what was known of it may be of an earlier state.
    pub fn begin(&mut self) {
        *self = Self::default();
    }

    /// It was looked at in this connection, and ended with this message.
    pub fn end(&mut self, connection: u64, seq: u64, id: &str) {
        self.see(seq, id);
        self.checked = Some(connection);
    }

    /// Whether it was looked at in this connection.
    pub fn is_checked(&self, connection: u64) -> bool {
        self.checked == Some(connection)
    }

    /// A mark of a watermark that was read before this is called; none before the stream was looked at in this connection.
    pub fn mark(&self, connection: u64, batch: u64, at: Timestamp) -> Option<Mark> {
        self.is_checked(connection).then(|| Mark { batch, seq: self.seq, id: self.id.clone(), stored: None, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(43_200_000);

    fn mark(batch: u64, seq: u64) -> Mark {
        Mark { batch, seq, id: format!("m{seq}"), stored: Some(NOON), at: NOON }
    }

    fn stored(id: &str, at: Timestamp) -> Stored {
        Stored { id: id.into(), at }
    }

    fn later(ms: u64) -> Timestamp {
        Timestamp::from_millis(NOON.millis() + ms)
    }

    fn instance(n: u8) -> Id {
        Id::from(uuid::Uuid::from_bytes([n; 16]))
    }

    fn published(n: u8, marks: Vec<Mark>) -> Published {
        Published { marks, ..Published::new(instance(n), "S") }
    }

    #[test]
    fn a_mark_holds_where_the_stream_has_its_message_or_has_trimmed_it() {
        for (first, last, look) in [
            (1, 9, Look::Lost),
            (0, 0, Look::Lost),
            (1, 10, Look::Ask),
            (10, 30, Look::Ask),
            (11, 30, Look::Holds),
            (11, 10, Look::Holds),
        ] {
            assert_eq!(mark(3, 10).look(Extent { first, last }), look, "{first} to {last}");
        }
        assert!(mark(3, 10).is_met_by(Some(&stored("m10", NOON))) && mark(3, 10).is_met_by(None));
        assert!(!mark(3, 10).is_met_by(Some(&stored("another", NOON))));
        let nameless = Mark { id: String::new(), stored: None, ..mark(3, 10) };
        assert_eq!(nameless.look(Extent { first: 1, last: 10 }), Look::Holds);
        assert_eq!(mark(0, 0).look(Extent { first: 1, last: 0 }), Look::Holds);
    }

    /// The stream ended with 10 and lost 9 and 10. Another instance has published something new, and then its 10 again: it is
    /// where it was, and this instance's 9 is not.
    #[test]
    fn a_message_that_was_published_again_at_its_old_place_does_not_meet_a_mark() {
        let again = stored("m10", later(1));
        assert!(!mark(3, 10).is_met_by(Some(&again)));
        let timeless = Mark { stored: None, ..mark(3, 10) };
        assert!(timeless.is_met_by(Some(&again)), "a mark of an earlier release has only the id");
        // The mark of its new place is another one.
        let mut record = published(1, vec![mark(2, 5), mark(3, 10)]);
        let anew = Mark { stored: Some(later(1)), ..mark(3, 10) };
        assert!(record.push(anew.clone()));
        assert_eq!(record.newest(), Some(&anew));
    }

    #[test]
    fn a_mark_takes_the_time_of_its_message_and_none_is_made_where_another_one_is() {
        let timeless = || Mark { stored: None, ..mark(3, 10) };
        assert_eq!(timeless().seen(Some(&stored("m10", NOON))), Some(mark(3, 10)));
        assert_eq!(timeless().seen(None), Some(timeless()));
        assert_eq!(timeless().seen(Some(&stored("another", NOON))), None);
        // One without an id is known by its time.
        let nameless = Mark { id: String::new(), ..timeless() }.seen(Some(&stored("", NOON))).unwrap();
        assert_eq!(nameless.look(Extent { first: 1, last: 10 }), Look::Ask);
        assert!(!nameless.is_met_by(Some(&stored("", later(1)))));
    }

    #[test]
    fn the_time_of_a_message_is_asked_for_once() {
        let record = published(1, vec![mark(3, 10)]);
        let timeless = Mark { stored: None, at: later(1), ..mark(4, 10) };
        assert_eq!(record.recall(&timeless), Some(Mark { at: later(1), ..mark(4, 10) }));
        assert_eq!(record.recall(&mark(4, 11)), None);
    }

    #[test]
    fn under_another_id_everything_from_its_beginning_on_is_looked_for() {
        let mut record = published(1, vec![mark(2, 5), mark(7, 9)]);
        record.renew(instance(1), later(1));
        assert_eq!(record.base(2).batch, 7);
        record.renew(instance(2), later(1));
        assert_eq!(record, Published::enrolled(instance(2), "S", later(1)));
        assert_eq!((record.base(1).batch, record.base(1).seq), (0, 0));
    }

    #[test]
    fn a_mark_of_the_same_message_takes_the_place_of_the_one_before() {
        let mut record = published(1, vec![]);
        assert!(record.push(mark(1, 10)));
        assert!(!record.push(mark(1, 10)));
        assert!(record.push(mark(4, 10)));
        assert_eq!(record.marks, [mark(4, 10)]);
        assert!(record.push(mark(5, 12)));
        assert_eq!(record.marks, [mark(4, 10), mark(5, 12)]);
        // A stream that was put back gives sequences again.
        let again = Mark { id: "another".into(), ..mark(6, 12) };
        assert!(record.push(again.clone()));
        assert_eq!(record.newest(), Some(&again));
    }

    /// Two have swept an instance at once, and one of them had looked at its journal before the last commit.
    #[test]
    fn a_mark_of_fewer_batches_does_not_hide_the_latest() {
        let mut record = published(1, vec![mark(0, 0), mark(7, 9)]);
        assert!(!record.push(mark(3, 5)) && !record.push(mark(0, 0)));
        assert_eq!(record.marks, [mark(0, 0), mark(7, 9)]);
    }

    #[test]
    fn of_many_marks_few_are_kept_and_one_near_each_distance() {
        let mut record = published(1, vec![]);
        for batch in 1..=5000 {
            record.push(mark(batch, batch * 2));
            assert!(record.marks.len() <= 16, "{:?}", record.marks.len());
            assert!(record.marks.is_sorted_by_key(|mark| mark.batch));
            assert_eq!(record.marks[0].batch, 1);
            for lost in [1, 3, 10, 100, 1000] {
                let reach = |mark: &&Mark| batch - mark.batch >= lost;
                let base = record.marks.iter().rev().find(reach).map_or(0, |mark| mark.batch);
                assert!(batch - base <= lost * 4 + 2 || base <= 1, "{lost} lost at {batch} leads back to {base}");
            }
        }
    }

    #[test]
    fn what_is_looked_for_begins_with_the_last_mark_that_holds() {
        let record = published(1, vec![mark(2, 5), mark(7, 9)]);
        assert_eq!(record.base(2), Base { batch: 7, seq: 9, at: NOON });
        assert_eq!(record.base(1), Base { batch: 2, seq: 5, at: NOON });
        assert_eq!((record.base(0).batch, record.base(0).seq), (0, 0));
        let at = Timestamp::from_millis(1_800_000_000_000);
        assert_eq!(Published::new(Id::random(at), "S").base(0).at, at);
    }

    #[test]
    fn only_messages_of_the_stream_that_it_lacks_are_missing() {
        let message = |subject: &str, id: &str| Emitted {
            subject: subject.into(),
            headers: vec![(header::MSG_ID.into(), id.into())],
            payload: bytes::Bytes::new(),
        };
        let emitted = vec![message("a.x", "1"), message("b.x", "2"), message("a.y.0", "3"), message("ab.x", "4")];
        let left = missing(emitted.clone(), "a", &BTreeSet::from(["1".into()]));
        assert_eq!(left, [emitted[2].clone()]);
        assert_eq!(missing(emitted, "a", &BTreeSet::new()).len(), 2);
    }

    #[test]
    fn a_journal_that_was_kept_for_a_shorter_time_is_not_complete() {
        let base = |at| Base { batch: 1, seq: 1, at };
        assert!(is_complete(base(NOON), NOON));
        assert!(!is_complete(base(NOON), Timestamp::from_millis(NOON.millis() + 1)));
    }

    #[test]
    fn marks_of_the_dead_go_with_their_entries_and_the_furthest_stay() {
        let later = Timestamp::from_millis(NOON.millis() + 1);
        let young = published(4, vec![Mark { at: later, ..mark(1, 3) }]);
        let records =
            [published(1, vec![mark(9, 20)]), published(2, vec![mark(3, 10)]), published(3, vec![mark(3, 11)]), young];
        let alive = [Instance { id: instance(3), version: 1, published_through: 3 }];
        assert_eq!(outdated(&records, &alive, later), [records[1].clone()]);
        assert_eq!(outdated(&records, &alive, NOON), []);
    }

    #[test]
    fn no_mark_is_made_before_the_stream_was_looked_at_in_this_connection() {
        let mut acked = Acked::default();
        acked.note(5, "e", false);
        assert_eq!(acked.mark(1, 3, NOON), None);
        acked.begin();
        // Acknowledged while it is looked at.
        acked.note(8, "h", false);
        acked.end(1, 7, "g");
        assert_eq!(acked.mark(1, 3, NOON), Some(Mark { batch: 3, seq: 8, id: "h".into(), stored: None, at: NOON }));
        assert_eq!(acked.mark(2, 3, NOON), None, "another connection, perhaps to another state");
        assert!(!acked.note(6, "f", true), "of a duplicate it is the sequence of the first");
        assert_eq!(acked.mark(1, 4, NOON).unwrap().seq, 8);
    }

    #[test]
    fn a_stream_that_goes_back_within_a_connection_is_looked_at_again() {
        let mut acked = Acked::default();
        acked.end(1, 9, "i");
        assert!(!acked.note(7, "g", false), "sent before the stream was seen to end with 9");
        assert!(!acked.note(10, "j", false));
        assert!(acked.note(3, "c", false));
        assert!(!acked.is_checked(1));
    }
}
