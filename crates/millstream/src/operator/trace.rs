//! Everything that one order or one request set off. Nothing is kept for it: an id says its time and its partition, so that
//! seconds of one eighth of a stream are read; a correlation id is searched for. What was handled is asked of the services.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::ids::{Id, Timestamp};
use crate::operator::dead::{DeadFilter, DeadLetter, LetterState, Letters};
use crate::operator::read::ReadFrom;
pub use crate::operator::search::Look;
use crate::operator::search::{MOST, MOST_KEYS};
use crate::operator::status::{ConsumerStatus, SystemStatus};
use crate::operator::tail::Shown;
use crate::operator::wakes::{PendingWake, WakeFilter};
use crate::operator::{Operator, OperatorError};
use crate::protocol::{Asked, JournalAnswer, JournalQuestion, Journalled, MOST_IDS, subject};

/// What one order or request set off.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// What was asked for.
    pub id: String,
    /// Its events in the order of their causes, then of time.
    pub events: Vec<TracedEvent>,
    /// Dead letters of it.
    pub dead: Vec<DeadLetter>,
    /// What services will still do about it.
    pub wakes: Vec<PendingWake>,
    /// What is missing, in words: an event whose cause was not found, one that a consumer has not handled, a service that does not
    /// answer.
    pub gaps: Vec<String>,
}

/// An event, and who has handled it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TracedEvent {
    /// The event.
    #[serde(flatten)]
    pub event: Shown,
    /// How many causes before it were found: 0 for what set it all off.
    pub depth: u32,
    /// What became of it, for each service that is given events of its type.
    pub handled: Vec<Handled>,
}

/// What became of an event at a service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handled {
    /// The service.
    pub service: String,
    /// `done`, `parked`, `open` (it is tried again), `waiting` (not handled yet), `expired` (handled too long ago to tell), `silent`
    /// (the service does not answer).
    pub state: String,
    /// When it was last written of.
    pub at: Option<Timestamp>,
    /// Failed attempts.
    pub attempts: u32,
    /// How often it was redriven.
    pub redrives: u32,
    /// The last error.
    pub error: Option<String>,
    /// The instance that wrote it.
    pub instance: Option<String>,
}

impl Operator {
    /// What an order, an event or a request set off: `id` is a key, an event's id or a correlation id. Personal fields are not
    /// masked yet.
    ///
    /// # Errors
    /// When nothing is found, or the broker does not answer.
    pub async fn trace(&self, id: &str, look: Look) -> Result<Trace, OperatorError> {
        let found = async {
            let mut streams = self.streams().await?;
            streams.retain(|stream| stream.partitions.is_some());
            let story = self.story(&streams, id, look).await?;
            Ok((streams, story))
        };
        let ((streams, story), status) = tokio::try_join!(found, self.status())?;
        if story.events.is_empty() {
            let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
            let names = if names.is_empty() { "any stream".into() } else { names.join(", ") };
            return Err(OperatorError::NotFound(format!(
                "nothing in {names} has `{id}` as its key, its id or its correlation id, as far as was looked \
                 (`since` and `within` say how far)"
            )));
        }
        let mut tracer = Tracer { operator: self, status, silent: BTreeSet::new(), gaps: vec![] };
        if story.more {
            tracer.gaps.push(format!("there are more events than the {MOST} that are shown"));
        }
        let mut events: Vec<Shown> = story.events.iter().map(Shown::of).collect();
        tracer.find_causes(&mut events).await?;
        let handled = tracer.handled(&events).await;
        let dead = tracer.dead(&events, &handled).await;
        tracer.name_unhandled(&events, &handled, &dead);
        let wakes = tracer.wakes(&events).await;
        let silent = tracer.silent.iter().map(|service| {
            format!("`{service}` does not answer: what it has handled, and what of it waits there, is not known")
        });
        let gaps = tracer.gaps.iter().cloned().chain(silent).collect();
        Ok(Trace { id: id.into(), events: sorted(events, handled), dead, wakes, gaps })
    }
}

/// How many causes of causes are looked up.
const DEEPEST: usize = 16;

/// What is asked for the events of a trace.
struct Tracer<'a> {
    operator: &'a Operator,
    status: SystemStatus,
    /// The services that do not answer.
    silent: BTreeSet<String>,
    gaps: Vec<String>,
}

impl Tracer<'_> {
    /// What services have written of these ids.
    async fn journals(&mut self, asked: BTreeMap<String, Vec<Id>>) -> HashMap<(String, Id), Journalled> {
        let operator = self.operator;
        let questions = asked.iter().flat_map(|(service, ids)| ids.chunks(MOST_IDS).map(move |ids| (service, ids)));
        let answers = questions.map(|(service, ids)| async move {
            let question = JournalQuestion { ids: ids.to_vec() };
            let subject = subject(Asked::Journal.name(), service);
            (service, operator.ask::<JournalAnswer>(service, subject, &question).await)
        });
        let mut found = HashMap::new();
        for (service, answer) in futures_util::future::join_all(answers).await {
            match answer {
                Ok(JournalAnswer { entries }) => {
                    found.extend(entries.into_iter().map(|entry| ((service.clone(), entry.id), entry)));
                }
                Err(_) => drop(self.silent.insert(service.clone())),
            }
        }
        found
    }

    /// Adds the causes that are events and were not found: the emitter's journal knows where they are. A cause that is a command
    /// is none.
    async fn find_causes(&mut self, events: &mut Vec<Shown>) -> Result<(), OperatorError> {
        let services = self.status.services();
        let mut sought: HashSet<Id> = HashSet::new();
        for _ in 0..DEEPEST {
            let known: HashSet<Id> = events.iter().filter_map(|event| event.id).collect();
            let mut asked: BTreeMap<String, Vec<Id>> = BTreeMap::new();
            let mut missing = vec![];
            for event in events.iter() {
                let Some(cause) = event.causation.as_deref() else { continue };
                let (what, source) = (place(event), event.source.clone().unwrap_or_default());
                let Ok(cause) = cause.parse::<Id>() else { continue };
                if known.contains(&cause) || !sought.insert(cause) {
                    continue;
                }
                if services.contains(&source) {
                    asked.entry(source.clone()).or_default().push(cause);
                    missing.push((what, source, cause));
                } else {
                    self.gaps
                        .push(format!("the cause of {what}, {cause}, is not found, and `{source}` is no service here"));
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            let journal = self.journals(asked).await;
            for (what, source, cause) in missing {
                let lost = match journal.get(&(source.clone(), cause)) {
                    None if self.silent.contains(&source) => continue,
                    None => format!(
                        "the cause of {what}, {cause}, is not found: the journal of `{source}` has nothing of it"
                    ),
                    Some(entry) if entry.stream.is_empty() => continue,
                    Some(Journalled { stream, seq, .. }) => {
                        let message = self.operator.first(stream, ">", ReadFrom::Sequence(*seq)).await?;
                        let message = message.filter(|message| message.sequence == *seq);
                        match message.as_ref().map(Shown::of).filter(|shown| shown.id == Some(cause)) {
                            Some(shown) => {
                                events.push(shown);
                                continue;
                            }
                            None => format!("the cause of {what} is not there any more: it was {stream} {seq}"),
                        }
                    }
                };
                self.gaps.push(lost);
            }
        }
        Ok(())
    }

    /// What became of each event, at all services that are given events of its type.
    async fn handled(&mut self, events: &[Shown]) -> Vec<Vec<Handled>> {
        let mut asked: BTreeMap<String, Vec<Id>> = BTreeMap::new();
        for event in events {
            let Some(id) = event.id else { continue };
            for consumer in self.given(event) {
                asked.entry(consumer.name.clone()).or_default().push(id);
            }
        }
        let journal = self.journals(asked).await;
        let of_event = |event: &Shown| {
            let Some(id) = event.id else { return vec![] };
            self.given(event)
                .map(|consumer| self.handled_by(consumer, event, journal.get(&(consumer.name.clone(), id))))
                .collect()
        };
        events.iter().map(of_event).collect()
    }

    /// The durable consumers of our services that are given events of its type.
    fn given(&self, event: &Shown) -> impl Iterator<Item = &ConsumerStatus> {
        let (stream, event) = (event.stream.clone(), event.event().unwrap_or_default().to_owned());
        let is_given = move |consumer: &&ConsumerStatus| {
            consumer.stream == stream && (consumer.events.is_empty() || consumer.events.contains(&event))
        };
        self.status.consumers.iter().filter(|consumer| consumer.release.is_some()).filter(is_given)
    }

    fn handled_by(&self, consumer: &ConsumerStatus, event: &Shown, entry: Option<&Journalled>) -> Handled {
        let service = consumer.name.clone();
        match entry {
            Some(entry) => Handled {
                service,
                state: entry.state.clone(),
                at: Some(entry.at),
                attempts: entry.attempts,
                redrives: entry.redrives,
                error: entry.error.clone(),
                instance: Some(entry.instance.to_string()),
            },
            None => {
                let state = match () {
                    () if self.silent.contains(&service) => "silent",
                    () if event.sequence <= consumer.ack_floor => "expired",
                    () => "waiting",
                };
                let state = state.into();
                Handled { service, state, at: None, attempts: 0, redrives: 0, error: None, instance: None }
            }
        }
    }

    /// The dead letters of it, if there are any.
    async fn dead(&mut self, events: &[Shown], handled: &[Vec<Handled>]) -> Vec<DeadLetter> {
        if !handled.iter().flatten().any(|handled| handled.state == PARKED || handled.redrives > 0) {
            return vec![];
        }
        let mut letters = Letters::default();
        if let Err(error) = letters.update(self.operator).await {
            self.gaps.push(format!("its dead letters are not known: {error}"));
            return vec![];
        }
        let correlations: BTreeSet<&String> = events.iter().filter_map(|event| event.correlation.as_ref()).collect();
        let ids: BTreeSet<Id> = events.iter().filter_map(|event| event.id).collect();
        // What comes from elsewhere may have no correlation id.
        let is_of = |letter: &&DeadLetter| {
            ids.contains(&letter.id) || letter.correlation.as_ref().is_some_and(|of| correlations.contains(of))
        };
        let all = letters.list(&DeadFilter { all: true, ..DeadFilter::default() });
        all.into_iter().filter(is_of).cloned().collect()
    }

    /// Says what is not handled.
    fn name_unhandled(&mut self, events: &[Shown], handled: &[Vec<Handled>], dead: &[DeadLetter]) {
        for (event, handled) in events.iter().zip(handled) {
            let what = place(event);
            for Handled { service, state, attempts, error, .. } in handled {
                let error = error.as_deref().unwrap_or("no error is known");
                let dealt_with = |letter: &DeadLetter| {
                    letter.service == *service && Some(letter.id) == event.id && letter.state > LetterState::Redriving
                };
                match state.as_str() {
                    "waiting" => self.gaps.push(format!("`{service}` has not handled {what} yet")),
                    "open" if *attempts > 0 => self.gaps.push(format!(
                        "`{service}` has not handled {what} yet: it has failed {attempts} times and is tried again ({error})"
                    )),
                    "open" => self.gaps.push(format!("`{service}` has not handled {what} to its end yet ({error})")),
                    PARKED if !dead.iter().any(dealt_with) => {
                        self.gaps.push(format!("`{service}` has given up {what} ({error})"));
                    }
                    _ => {}
                }
            }
        }
    }

    /// What services will still do about its keys.
    async fn wakes(&mut self, events: &[Shown]) -> Vec<PendingWake> {
        let keys: BTreeSet<&String> = events.iter().filter_map(|event| event.key.as_ref()).collect();
        let services: Vec<String> = self.status.services().difference(&self.silent).cloned().collect();
        let operator = self.operator;
        let asked = keys.into_iter().take(MOST_KEYS).map(|key| {
            let services = &services;
            async move {
                let filter = WakeFilter { document: Some(key.clone()), ..WakeFilter::default() };
                operator.wakes_of(services, &filter, MOST_IDS).await
            }
        });
        let mut wakes = vec![];
        for (found, silent) in futures_util::future::join_all(asked).await {
            wakes.extend(found);
            self.silent.extend(silent);
        }
        wakes.sort_by_key(|wake| wake.at);
        wakes
    }
}

/// A message that was given up, as the journal says it.
const PARKED: &str = "parked";

/// What an event is called in a sentence.
fn place(event: &Shown) -> String {
    format!("{} ({} {})", event.kind.as_deref().unwrap_or("a message"), event.stream, event.sequence)
}

/// Puts events in the order of their causes, then of time: each is followed by what it has caused.
fn sorted(events: Vec<Shown>, handled: Vec<Vec<Handled>>) -> Vec<TracedEvent> {
    let mut events: Vec<_> = events.into_iter().zip(handled).collect();
    events.sort_by(|(one, _), (other, _)| {
        (one.at, &one.stream, one.sequence).cmp(&(other.at, &other.stream, other.sequence))
    });
    let at: HashMap<String, usize> =
        events.iter().enumerate().filter_map(|(at, (event, _))| Some((event.id?.to_string(), at))).collect();
    let mut caused: Vec<Vec<usize>> = vec![vec![]; events.len()];
    let mut next: Vec<(usize, u32)> = vec![];
    for (index, (event, _)) in events.iter().enumerate() {
        match event.causation.as_ref().and_then(|cause| at.get(cause)).filter(|cause| **cause != index) {
            Some(cause) => caused[*cause].push(index),
            None => next.push((index, 0)),
        }
    }
    next.reverse();
    let mut events: Vec<Option<_>> = events.into_iter().map(Some).collect();
    let mut sorted = Vec::with_capacity(events.len());
    while let Some((index, depth)) = next.pop() {
        if let Some((event, handled)) = events[index].take() {
            sorted.push(TracedEvent { event, depth, handled });
        }
        next.extend(caused[index].drain(..).rev().map(|caused| (caused, depth + 1)));
    }
    // What names itself as its own cause in a circle is shown all the same.
    sorted.extend(events.into_iter().flatten().map(|(event, handled)| TracedEvent { event, depth: 0, handled }));
    sorted
}
