//! The ends of streams in the simulation: the marks of a replica, and what it does when the broker has lost something.

use std::collections::{BTreeMap, BTreeSet};

use millstream_core::published::{Acked, Extent, Look, Mark, Stored, missing, outdated};

use crate::dead_letter::stream_name;
use crate::event::{Emitted, header};
use crate::ids::{Id, Timestamp};
use crate::sim::app::App;
use crate::sim::broker::{PubAck, SimBroker};
use crate::store::Published;
use crate::telemetry::metrics::REPUBLISHED;

/// What a replica knows of the streams that its service publishes to.
#[derive(Default)]
pub(super) struct Tails {
    own: BTreeMap<String, Published>,
    acked: BTreeMap<String, Acked>,
}

/// Where a replica looks.
pub(super) struct Place<'a> {
    pub(super) app: &'a mut App,
    pub(super) broker: &'a mut SimBroker,
    pub(super) now: u64,
    /// The replica's own time.
    pub(super) at: Timestamp,
    /// How often the broker has come back.
    pub(super) connection: u64,
}

/// The streams that a service publishes to, with the word that their subjects begin with.
pub(super) fn streams(app: &App) -> Vec<(String, &'static str)> {
    let own = app.publishes.iter().map(|stream| (stream.name.to_owned(), stream.domain));
    own.chain([(stream_name(app.name), "dlq")]).collect()
}

impl Tails {
    /// A message of this replica is out.
    pub(super) fn note(&mut self, ack: &PubAck, id: &str) {
        self.acked.entry(ack.stream.clone()).or_default().note(ack.seq, id, ack.duplicate);
    }

    /// Looks at what was not looked at in this connection, and records how far it is. `waiting` are the ids of what is still to be
    /// published.
    pub(super) fn tick(&mut self, place: &mut Place<'_>, instance: Id, watermark: u64, waiting: &BTreeSet<String>) {
        for (stream, kind) in streams(place.app) {
            let acked = self.acked.entry(stream.clone()).or_default();
            let own =
                self.own.entry(stream.clone()).or_insert_with(|| Published::enrolled(instance, &stream, place.at));
            own.renew(instance, place.at);
            if !acked.is_checked(place.connection) {
                acked.begin();
                place.look(own, acked, kind, waiting);
                let (seq, there) = place.end(&stream);
                acked.end(place.connection, seq, &there.map(|there| there.id).unwrap_or_default());
            }
            let Some(mark) = acked.mark(place.connection, watermark, place.at) else { continue };
            match place.seen(mark, own) {
                Some(mark) if own.push(mark.clone()) => place.app.store.put_published(own.clone()),
                Some(_) => {}
                None => acked.begin(),
            }
        }
    }

    /// Looks for what a dead instance had published; `false` if it cannot be said yet.
    pub(super) fn settle(&mut self, place: &mut Place<'_>, instance: Id, through: u64) -> bool {
        for (stream, kind) in streams(place.app) {
            let known = place.app.store.published(&stream).into_iter().find(|record| record.instance == instance);
            let mut record = known.unwrap_or_else(|| Published::new(instance, &stream));
            let acked = self.acked.entry(stream).or_default();
            if !record.marks.is_empty() {
                let holding = place.holding(&record);
                place.fill(&record, acked, kind, holding, &BTreeSet::new());
                record.marks.truncate(holding);
            }
            let Some(mark) = acked.mark(place.connection, through, place.at) else { return false };
            let Some(mark) = place.seen(mark, &record) else {
                acked.begin();
                return false;
            };
            record.push(mark);
            place.app.store.put_published(record);
        }
        true
    }
}

impl Place<'_> {
    fn look(&mut self, own: &mut Published, acked: &mut Acked, kind: &str, waiting: &BTreeSet<String>) {
        let rows = self.app.store.instances();
        let mut gone = self.app.store.published(&own.stream);
        gone.retain(|record| record.instance != own.instance && rows.iter().all(|row| row.id != record.instance));
        if !own.marks.is_empty() {
            let holding = self.holding(own);
            self.fill(own, acked, kind, holding, waiting);
            own.marks.truncate(holding);
        }
        for record in &mut gone {
            let holding = self.holding(record);
            let known = record.newest().map_or(0, |mark| mark.batch);
            // What waits here under an id of before goes with this process.
            let batch = self.fill(record, acked, kind, holding, &BTreeSet::new());
            if holding < record.marks.len() || batch > known {
                let (seq, there) = self.end(&record.stream);
                record.marks.truncate(holding);
                record.push(Mark::at_end(batch, seq, there, self.at));
                self.app.store.put_published(record.clone());
            }
        }
        for old in outdated(&gone, &rows, self.at - self.app.planner.timing.journal_retention) {
            self.app.store.forget_published(old.instance, &old.stream);
        }
    }

    /// How many of the oldest marks hold.
    fn holding(&mut self, record: &Published) -> usize {
        let Ok(info) = self.broker.stream_info(self.now, &record.stream) else { return 0 };
        let extent = Extent { first: info.first_seq, last: info.last_seq };
        for (at, mark) in record.marks.iter().enumerate().rev() {
            let holds = match mark.look(extent) {
                Look::Holds => true,
                Look::Lost => false,
                Look::Ask => mark.is_met_by(self.stored(&record.stream, mark.seq).as_ref()),
            };
            if holds {
                return at + 1;
            }
        }
        0
    }

    /// Publishes again what a stream lacks of what an instance has emitted since the last of its marks that holds.
    fn fill(
        &mut self,
        record: &Published,
        acked: &mut Acked,
        kind: &str,
        holding: usize,
        waiting: &BTreeSet<String>,
    ) -> u64 {
        let base = record.base(holding);
        let entries = self.app.store.unpublished(record.instance, base.batch, usize::MAX);
        let last = self.end(&record.stream).0;
        let mut present = waiting.clone();
        present.extend((base.seq + 1..=last).filter_map(|seq| self.stored(&record.stream, seq)).map(|there| there.id));
        let emitted = entries.iter().flat_map(|entry| Emitted::unpack(&entry.emitted).unwrap_or_default()).collect();
        for message in missing(emitted, kind, &present) {
            let id = message.header(header::MSG_ID).unwrap_or_default();
            let Emitted { subject, headers, payload } = message;
            // A record in whose place there is another one stays as it is.
            let Ok(ack) = self.broker.publish(self.now, &subject, headers, payload) else { continue };
            acked.note(ack.seq, &id, ack.duplicate);
            if !ack.duplicate {
                *self.app.counts.entry((REPUBLISHED.name, &[])).or_default() += 1.0;
            }
        }
        entries.last().map_or(0, |entry| entry.batch).max(record.newest().map_or(0, |mark| mark.batch))
    }

    /// A mark with the time of its message; `None` if another message is at its place.
    fn seen(&mut self, mark: Mark, known: &Published) -> Option<Mark> {
        known.recall(&mark).or_else(|| {
            let there = self.stored(&known.stream, mark.seq);
            mark.seen(there.as_ref())
        })
    }

    /// The stream's last message: its sequence, and what is there, if it still is.
    fn end(&mut self, stream: &str) -> (u64, Option<Stored>) {
        let last = self.broker.stream_info(self.now, stream).map_or(0, |info| info.last_seq);
        (last, self.stored(stream, last))
    }

    fn stored(&mut self, stream: &str, seq: u64) -> Option<Stored> {
        let message = self.broker.get(self.now, stream, seq).ok()?;
        let id = message.header(header::MSG_ID).unwrap_or_default().to_owned();
        Some(Stored { id, at: Timestamp::from_millis(message.time) })
    }
}
