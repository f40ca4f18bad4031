//! What is wrong with a system, as far as can be told from what was looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use crate::ids::Timestamp;
use crate::operator::status::{ConsumerStatus, InstanceStatus, SystemStatus};
use crate::operator::verdict::{Cause, Kind, Seen, many, rough};

/// A single attempt may fail at any time; this long is an outage.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// A service that starts, or whose connection is replaced, is not ready for a moment.
const UNREADY_FOR: Duration = Duration::from_secs(2);
/// How old what waits must be before it is called late.
const LATE: Duration = Duration::from_secs(60);
/// How long an upgrade may take.
const MIXED_FOR: Duration = Duration::from_secs(600);
/// How long it is told that a consumer was made anew, and how much younger than its service it then is.
const REMADE_FOR: Duration = Duration::from_secs(15);
const REMADE_AFTER: Duration = Duration::from_secs(5);
/// The share of a stream's limit from which on its owner takes away all that was read.
const FULL: f64 = 0.8;

/// What an instance's health says. A release that does not say something leaves it open.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Said {
    services: Parts,
    waiting_for: Vec<String>,
    waiting_since: Option<Timestamp>,
    unanswered: Vec<Unanswered>,
    due: Vec<Due>,
    missed: Option<Missed>,
    consumers: Vec<Reads>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parts {
    database: String,
}

#[derive(Debug, Deserialize)]
struct Unanswered {
    effect: String,
    since: Timestamp,
    waiting: u64,
}

#[derive(Debug, Deserialize)]
struct Due {
    kind: String,
    since: Timestamp,
    waiting: u64,
}

#[derive(Debug, Deserialize)]
struct Missed {
    replicas: usize,
    since: Timestamp,
}

#[derive(Debug, Deserialize)]
struct Reads {
    stream: String,
    durable: String,
    pulling: bool,
}

/// A service with what its instances say.
struct Service<'a> {
    name: &'a str,
    instances: Vec<(&'a InstanceStatus, Said)>,
    consumers: Vec<&'a ConsumerStatus>,
}

/// What outside of the system does not answer a service: since when, and a sentence for each kind of effect.
pub(crate) fn silences(status: &SystemStatus, service: &str, now: Timestamp) -> Vec<(Timestamp, String)> {
    let mut silences: BTreeMap<String, (Timestamp, u64)> = BTreeMap::new();
    for instance in status.instances.iter().filter(|instance| instance.service == service) {
        for Unanswered { effect, since, waiting } in said(instance).unwrap_or_default().unanswered {
            let longest = silences.entry(effect).or_insert((since, 0));
            *longest = (longest.0.min(since), longest.1.max(waiting));
        }
    }
    let lasting = silences.into_iter().filter(|(_, (since, _))| now.since(*since) >= SILENT_FOR);
    lasting
        .map(|(effect, (since, waiting))| {
            let wait = if waiting == 1 { "1 waits" } else { &format!("{waiting} wait") };
            let said = format!("no answer to `{effect}` for {}; {wait}, and none is lost", age(now, since));
            (since, said)
        })
        .collect()
}

/// What an instance says; none if it is not one of ours, or what it says cannot be read.
fn said(instance: &InstanceStatus) -> Option<Said> {
    Said::deserialize(&instance.health).ok()
}

fn age(now: Timestamp, since: Timestamp) -> String {
    rough(now.since(since))
}

/// Everything that is wrong, in any order.
pub(super) fn of(seen: &Seen, now: Timestamp) -> Vec<Cause> {
    let Seen { status, letters, told } = seen;
    let mut causes = Causes { now, found: vec![] };
    let names = status.services();
    if names.is_empty() {
        causes.add(
            Kind::Unknown,
            None,
            "services: none was found: none has started yet, or they are in another account of the broker".into(),
        );
    }
    for name in &names {
        let instances = status.instances.iter().filter(|instance| instance.service == *name);
        let instances = instances.filter(|instance| !instance.health.is_null());
        let consumers = status.consumers.iter().filter(|consumer| consumer.name == *name).collect();
        let (mut read, mut unread) = (vec![], 0);
        for instance in instances {
            match said(instance) {
                Some(said) => read.push((instance, said)),
                None => unread += 1,
            }
        }
        if unread > 0 {
            causes.add(Kind::Unknown, None, format!("{name}: what {} of its health cannot be read", says(unread)));
        }
        if read.is_empty() && unread > 0 {
            continue;
        }
        causes.service(&Service { name, instances: read, consumers }, status);
    }
    causes.streams(status);
    for ConsumerStatus { stream, name, waiting, .. } in &status.consumers {
        if *waiting == 0 && !names.contains(name) {
            causes.add(Kind::ConsumerNotPulled, None, format!("{stream}: nobody pulls its consumer `{name}`"));
        }
    }
    match letters {
        Ok(letters) => {
            for (service, (count, oldest)) in letters {
                let (letters, age) = (many(*count, "dead letter"), age(now, *oldest));
                let sentence = format!(
                    "{service}: {letters}, the oldest for {age}; each is kept until it is redriven, edited or discarded"
                );
                causes.add(Kind::DeadLetters, Some(*oldest), sentence);
            }
        }
        Err(why) => causes.add(Kind::Unknown, None, format!("dead letters: not known: {why}")),
    }
    match told {
        Ok(told) => {
            for told in told {
                let checked = age(now, told.at);
                if told.is_outdated(now) {
                    let source = &told.source;
                    causes.add(Kind::Unknown, Some(told.at), format!("{source}: its last check was {checked} ago"));
                }
                for broken in told.invariants.iter().filter(|invariant| !invariant.holds) {
                    let (source, name, detail) = (&told.source, &broken.name, &broken.detail);
                    let sentence = format!("{source}: \"{name}\" does not hold, checked {checked} ago: {detail}");
                    causes.add(Kind::InvariantBroken, Some(told.at), sentence);
                }
            }
        }
        Err(why) => causes.add(Kind::Unknown, None, format!("invariants: not known: {why}")),
    }
    causes.found
}

fn says(instances: usize) -> String {
    if instances == 1 { "1 instance says".into() } else { format!("{instances} instances say") }
}

struct Causes {
    now: Timestamp,
    found: Vec<Cause>,
}

impl Causes {
    fn add(&mut self, kind: Kind, since: Option<Timestamp>, sentence: String) {
        self.found.push(Cause { kind, sentence, since, runbook: kind.runbook().into() });
    }

    /// What is wrong with one service.
    fn service(&mut self, service: &Service<'_>, status: &SystemStatus) {
        let Service { name, instances, consumers } = service;
        let waiting = self.waiting(consumers);
        if instances.is_empty() {
            let sentence = format!("{name}: no instance answers; {waiting}");
            self.add(Kind::ServiceDown, None, sentence);
            return;
        }
        let ready = self.readiness(service, &waiting);
        let gone = self.consumers(service, status);
        for (since, said) in silences(status, name, self.now) {
            self.add(Kind::OutsideUnanswered, Some(since), format!("{name}: {said}"));
        }
        if let Some(missed) =
            instances.iter().filter_map(|(_, said)| said.missed.as_ref()).max_by_key(|missed| missed.replicas)
        {
            let (replicas, ago) = (many(missed.replicas, "replica"), age(self.now, missed.since));
            let sentence = format!(
                "{name}: {replicas} ended without a clean stop, last seen {ago} ago, and no other has replaced it; the others do the work"
            );
            self.add(Kind::ReplicaMissing, Some(missed.since), sentence);
        }
        self.releases(service);
        if !ready {
            return;
        }
        self.overdue(service);
        for consumer in consumers.iter().filter(|consumer| !gone.contains(consumer.stream.as_str())) {
            self.lag(name, consumer);
        }
    }

    /// What waits for a service, said as what its outage does.
    fn waiting(&self, consumers: &[&ConsumerStatus]) -> String {
        let events: u64 = consumers.iter().map(|consumer| consumer.pending + consumer.ack_pending).sum();
        let oldest = consumers.iter().map(|consumer| consumer.oldest_age_seconds).fold(0.0, f64::max);
        match events {
            0 => "no event waits for it yet".into(),
            1 => format!("1 event has waited for it for {}, and is not lost", seconds(oldest)),
            _ => format!("{events} events wait for it, the oldest for {}, and none is lost", seconds(oldest)),
        }
    }

    /// Whether all instances can do their whole job; each reason once.
    fn readiness(&mut self, service: &Service<'_>, waiting: &str) -> bool {
        let Service { name, instances, .. } = service;
        let lasts = |said: &Said| said.waiting_since.is_none_or(|since| self.now.since(since) >= UNREADY_FOR);
        let mut reasons: BTreeMap<&str, Option<Timestamp>> = BTreeMap::new();
        let mut down: Option<Option<Timestamp>> = None;
        // One that stops in order takes nothing more, and says so in several ways.
        let stops = |said: &Said| said.waiting_for.iter().any(|why| why == "shutting down");
        for (_, said) in
            instances.iter().filter(|(_, said)| !said.waiting_for.is_empty() && lasts(said) && !stops(said))
        {
            if said.services.database == "DOWN" {
                down = Some(down.flatten().into_iter().chain(said.waiting_since).min());
            }
            for why in said.waiting_for.iter().map(String::as_str) {
                // That is told of as its store.
                if why != "the store" {
                    let since = reasons.entry(why).or_insert(said.waiting_since);
                    *since = (*since).into_iter().chain(said.waiting_since).min();
                }
            }
        }
        let lasted =
            |since: Option<Timestamp>| since.map_or(String::new(), |since| format!(" for {}", age(self.now, since)));
        let mut found = vec![];
        if let Some(since) = down {
            let sentence =
                format!("{name}: its store has not answered{}; its commands are refused, and {waiting}", lasted(since));
            found.push((Kind::StoreDown, since, sentence));
        }
        // A service without its store can do nothing else, which says nothing more.
        for (why, since) in reasons.into_iter().filter(|_| down.is_none()) {
            let kind = match why {
                _ if is_full(why) => Kind::DiskFull,
                _ if why.starts_with(REFUSES) => Kind::EventsHeld,
                _ => Kind::NotReady,
            };
            let and = if kind == Kind::NotReady { "" } else { "; what is refused is kept in its store" };
            found.push((kind, since, format!("{name}: {why}{}{and}", lasted(since).replacen(" for ", ", for ", 1))));
        }
        let ready = found.is_empty();
        found.into_iter().for_each(|(kind, since, sentence)| self.add(kind, since, sentence));
        ready
    }

    /// Consumers that are paused, missing or new; gives the streams that this explains a lag on.
    fn consumers<'a>(&mut self, service: &Service<'a>, status: &SystemStatus) -> BTreeSet<&'a str> {
        let Service { name, instances, consumers } = service;
        let mut gone = BTreeSet::new();
        for consumer in consumers {
            let stream = consumer.stream.as_str();
            if let Some(until) = consumer.paused_until {
                gone.insert(stream);
                let waiting = self.waiting(&[consumer]);
                let until = if self.now >= until {
                    String::new()
                } else {
                    format!(", for {} to come", rough(until.since(self.now)))
                };
                let sentence = format!("{name}: its consumer on {stream} is paused{until}; {waiting}");
                self.add(Kind::ConsumerPaused, None, sentence);
            } else if self.is_remade(service, consumer, status) {
                let ago = age(self.now, consumer.created);
                let sentence = format!(
                    "{name}: its consumer on {stream} was recreated {ago} ago, because it was missing or had to start elsewhere; \
                     nothing is lost or handled twice"
                );
                self.add(Kind::ConsumerRemade, Some(consumer.created), sentence);
            }
        }
        let reads =
            instances.iter().flat_map(|(_, said)| said.consumers.iter().map(move |reads| (reads, said.waiting_since)));
        let mut missing: BTreeMap<&str, Option<Timestamp>> = BTreeMap::new();
        for (Reads { stream, durable, pulling }, since) in reads {
            let there = status.consumers.iter().any(|found| found.stream == *stream && found.name == *durable);
            if !there && !pulling && since.is_some_and(|since| self.now.since(since) >= UNREADY_FOR) {
                missing.insert(stream, since);
            }
        }
        for (stream, since) in missing {
            let lasted = since.map_or(String::new(), |since| format!(" for {}", age(self.now, since)));
            let sentence = format!(
                "{name}: its consumer on {stream} has been missing{lasted}; the service tries to make it again, and until then gets no event of the stream"
            );
            self.add(Kind::ConsumerMissing, since, sentence);
        }
        gone
    }

    /// Whether a consumer was made anew while its stream and all instances of its service were there.
    fn is_remade(&self, service: &Service<'_>, consumer: &ConsumerStatus, status: &SystemStatus) -> bool {
        let made = consumer.created;
        let later = |than: Timestamp| made.since(than) >= REMADE_AFTER;
        let stream = status.streams.iter().find(|stream| stream.name == consumer.stream);
        self.now.since(made) < REMADE_FOR
            && stream.is_some_and(|stream| later(stream.created))
            && service.instances.iter().all(|(instance, _)| instance.started.is_some_and(later))
    }

    fn releases(&mut self, service: &Service<'_>) {
        let mut releases: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for (instance, _) in &service.instances {
            let started = instance.started.unwrap_or(self.now);
            let first = releases.entry(&instance.version).or_insert(started);
            *first = started.min(*first);
        }
        // Since the newest of them came.
        let Some(since) = releases.values().max().copied().filter(|_| releases.len() > 1) else { return };
        if self.now.since(since) >= MIXED_FOR {
            let name = service.name;
            let releases: Vec<&str> = releases.into_keys().collect();
            let (releases, time) = (releases.join(" and "), age(self.now, since));
            let sentence = format!(
                "{name}: releases {releases} have run side by side for {time}; what only one of them knows waits for it"
            );
            self.add(Kind::ReleasesMixed, Some(since), sentence);
        }
    }

    fn overdue(&mut self, service: &Service<'_>) {
        let mut kinds: BTreeMap<&str, (Timestamp, u64)> = BTreeMap::new();
        for (_, said) in &service.instances {
            // That its outside does not answer says it already, once that is said.
            let silent = |kind: &str| {
                let lasting = |since| self.now.since(since) >= SILENT_FOR;
                said.unanswered.iter().any(|unanswered| unanswered.effect == kind && lasting(unanswered.since))
            };
            for due in said.due.iter().filter(|due| self.now.since(due.since) >= LATE && !silent(&due.kind)) {
                let longest = kinds.entry(&due.kind).or_insert((due.since, due.waiting));
                *longest = (longest.0.min(due.since), longest.1.max(due.waiting));
            }
        }
        for (kind, (since, waiting)) in kinds {
            let (name, age) = (service.name, age(self.now, since));
            let are = if waiting == 1 { "1 is".into() } else { format!("{waiting} are") };
            let sentence = format!("{name}: {are} due of `{kind}`, the first for {age}; none is lost");
            self.add(Kind::WakesOverdue, Some(since), sentence);
        }
    }

    fn lag(&mut self, service: &str, consumer: &ConsumerStatus) {
        let ConsumerStatus { stream, pending, ack_pending, oldest_age_seconds: oldest, .. } = consumer;
        if *oldest < LATE.as_secs_f64() {
            return;
        }
        let (age, since) = (seconds(*oldest), self.now - Duration::from_secs_f64(*oldest));
        if *pending > 0 {
            let sentence = format!(
                "{service}: {} of {stream} wait, the oldest for {age}; none is lost",
                many_of(pending + ack_pending)
            );
            self.add(Kind::ConsumerLags, Some(since), sentence);
        } else {
            let sentence = format!(
                "{service}: {} of {stream} not acknowledged for {age}, though later ones are: being tried again, or waiting for a newer release",
                many_of(*ack_pending)
            );
            self.add(Kind::FloorStands, Some(since), sentence);
        }
    }

    fn streams(&mut self, status: &SystemStatus) {
        for stream in &status.streams {
            let Some(max) = stream.max_bytes else { continue };
            let share = stream.bytes as f64 / max as f64;
            if share < FULL || stream.dead_letters_of().is_some() {
                continue;
            }
            let readers = status.consumers.iter().filter(|consumer| consumer.stream == stream.name);
            let last = readers.min_by_key(|consumer| consumer.ack_floor);
            let last =
                last.map_or(String::new(), |last| format!("; `{}` is the furthest behind of its readers", last.name));
            let (name, percent) = (&stream.name, 100.0 * share);
            let sentence =
                format!("{name}: the stream is {percent:.0} % full, and from 90 % on commands are refused{last}");
            self.add(Kind::StreamFull, None, sentence);
        }
    }
}

/// What a service says of a subject that the broker does not take begins so.
const REFUSES: &str = "the broker refuses ";

/// Whether a refusal is for lack of space at the broker, and not in the stream.
fn is_full(why: &str) -> bool {
    let why = why.to_lowercase();
    why.starts_with(REFUSES)
        && ["insufficient storage", "insufficient resources", "no space left", "jetstream not enabled", "not available"]
            .iter()
            .any(|full| why.contains(full))
}

fn many_of(events: u64) -> String {
    many(usize::try_from(events).unwrap_or(usize::MAX), "event")
}

fn seconds(seconds: f64) -> String {
    rough(Duration::from_secs_f64(seconds.max(0.0)))
}
