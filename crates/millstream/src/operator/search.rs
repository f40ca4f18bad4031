//! Finds the events of one story in the streams: by key, by id, by correlation id. An id that holds a time says where to begin,
//! a key says in which partition.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::time::Duration;

use crate::event::{encode_header, header, partition};
use crate::ids::{Id, Timestamp};
use crate::operator::read::{ReadFrom, Stored};
use crate::operator::status::StreamStatus;
use crate::operator::{Operator, OperatorError};

/// The most events of a story; a correlation id that thousands of requests share is none.
pub(crate) const MOST: usize = 1000;
/// The most keys of a story that are looked at from their beginnings.
pub(crate) const MOST_KEYS: usize = 16;
/// How far the clocks of services and broker may be apart.
const SKEW: Duration = Duration::from_secs(5);

/// How far a trace looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// How long before now a correlation id is searched for.
    pub since: Duration,
    /// How long after an order's beginning its events are looked for.
    pub within: Duration,
}

impl Default for Look {
    fn default() -> Self {
        Self { since: Duration::from_secs(3600), within: Duration::from_secs(3600) }
    }
}

/// What was found.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) events: Vec<Stored>,
    /// Whether there is more than was taken.
    pub(crate) more: bool,
}

/// What is looked at: all that was stored in a time.
#[derive(Clone, Copy)]
struct Window {
    from: Timestamp,
    to: Timestamp,
}

/// What one look at a stream found.
#[derive(Default)]
struct Seen {
    found: Vec<Stored>,
    /// Of those passed over, what their correlation ids hash to, and their sequences.
    passed: Vec<(u64, u64)>,
    more: bool,
}

impl Operator {
    /// The events that have `id` as their key, id or correlation id, and those that belong to them.
    pub(crate) async fn story(&self, streams: &[StreamStatus], id: &str, look: Look) -> Result<Story, OperatorError> {
        let mut story = Story::default();
        match begin(id) {
            Some(begin) => {
                let window = Window::after(begin, look.within);
                self.look(&mut story, streams, id, Some(id), window).await?;
                let is_key = |event: &Stored| event.header(header::SUBJECT).as_deref() == Some(id);
                if !story.events.iter().any(is_key) {
                    self.look(&mut story, streams, id, None, window).await?;
                }
            }
            None => {
                let now = Timestamp::system();
                let window = Window { from: now - look.since, to: now + SKEW };
                self.look(&mut story, streams, id, None, window).await?;
            }
        }
        // What was found by an event's id or a correlation id may be the end of what has begun long before it.
        let keys: HashSet<String> = story.events.iter().filter_map(|event| event.header(header::SUBJECT)).collect();
        for key in keys.into_iter().filter(|key| key != id).take(MOST_KEYS) {
            if let Some(begin) = begin(&key) {
                self.look(&mut story, streams, &key, Some(&key), Window::after(begin, look.within)).await?;
            }
        }
        story.settle();
        Ok(story)
    }

    /// Looks for `wanted` in one partition of each stream, or in all.
    async fn look(
        &self,
        story: &mut Story,
        streams: &[StreamStatus],
        wanted: &str,
        key: Option<&str>,
        window: Window,
    ) -> Result<(), OperatorError> {
        let seen = streams.iter().map(|stream| self.look_at(stream, wanted, key, window));
        let seen = futures_util::future::try_join_all(seen).await?;
        let correlation = |event: &Stored| Some(hash(event.headers.get(header::CORRELATION)?.as_str()));
        let related: HashSet<u64> = seen.iter().flat_map(|seen| &seen.found).filter_map(correlation).collect();
        for (stream, Seen { found, passed, more }) in streams.iter().zip(seen) {
            story.more |= more;
            story.events.extend(found);
            for (_, sequence) in passed.into_iter().filter(|(correlation, _)| related.contains(correlation)) {
                if story.events.len() >= MOST {
                    story.more = true;
                    break;
                }
                let message = self.first(&stream.name, ">", ReadFrom::Sequence(sequence)).await?;
                story.events.extend(message.filter(|message| message.sequence == sequence));
            }
        }
        Ok(())
    }

    async fn look_at(
        &self,
        stream: &StreamStatus,
        wanted: &str,
        key: Option<&str>,
        window: Window,
    ) -> Result<Seen, OperatorError> {
        let partition = key.zip(stream.partitions).map(|(key, partitions)| partition(key, partitions));
        let subjects = partition.map_or_else(|| ">".into(), |partition| format!("*.*.{partition}"));
        let encoded = encode_header(wanted);
        let mut seen = Seen::default();
        let each = |message: Stored| {
            if message.at > window.to {
                return ControlFlow::Break(());
            }
            let get = |name: &str| message.headers.get(name).map(|value| value.as_str());
            let fits = |name: &&str| get(name).is_some_and(|value| value == encoded || value == wanted);
            if [header::SUBJECT, header::ID, header::CORRELATION].iter().any(fits) {
                if seen.found.len() >= MOST {
                    seen.more = true;
                    return ControlFlow::Break(());
                }
                seen.found.push(message);
            } else if let Some(correlation) = get(header::CORRELATION) {
                seen.passed.push((hash(correlation), message.sequence));
            }
            ControlFlow::Continue(())
        };
        self.read(&stream.name, &subjects, ReadFrom::Time(window.from), each).await?;
        Ok(seen)
    }
}

impl Window {
    fn after(begin: Timestamp, within: Duration) -> Self {
        Self { from: begin - SKEW, to: begin + within + SKEW }
    }
}

impl Story {
    /// Puts it in the order of time, each event once: one that was published again is the same.
    fn settle(&mut self) {
        self.events
            .sort_by(|one, other| (one.at, &one.stream, one.sequence).cmp(&(other.at, &other.stream, other.sequence)));
        let (mut places, mut ids) = (HashSet::new(), HashSet::new());
        self.events.retain(|event| {
            places.insert((event.stream.clone(), event.sequence)) && event.id().is_none_or(|id| ids.insert(id))
        });
        self.more |= self.events.len() > MOST;
        self.events.truncate(MOST);
    }
}

/// The time that an id holds, if it is of a kind that does.
fn begin(id: &str) -> Option<Timestamp> {
    id.parse::<Id>().ok()?.time()
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
