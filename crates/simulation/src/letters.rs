//! What the shop has no need of while all is well: messages that are given up, and operators who redrive, edit and discard them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millstream::operator::dead::LetterState;
use millstream::sim::{Failure, Faults, Sim, hunt};
use millstream::{Command, Document, Event, Fault, Handler, Id, Keys, Received, Service, Start, Stream, Unit};
use serde::{Deserialize, Serialize};

const ACTIONS: usize = 1200;
const JOBS: usize = 3;
const OPERATORS: usize = 2;
const SERVICE: &str = "workshop";
const STREAM: Stream = Stream::new("JOBS", "jobs");

/// A job, and each message by which it was done.
#[derive(Clone, Serialize, Deserialize)]
struct Job {
    id: String,
    done: Vec<Id>,
}

impl Document for Job {
    const COLLECTION: &'static str = "jobs";

    fn id(&self) -> &str {
        &self.id
    }
}

/// Without it no job is done.
#[derive(Clone, Serialize, Deserialize)]
struct Tool {}

impl Document for Tool {
    const COLLECTION: &'static str = "tools";

    fn id(&self) -> &'static str {
        "tool"
    }
}

#[derive(Clone, Serialize)]
struct Bring;

impl Command for Bring {
    type Reply = ();

    fn touches(&self, _: Id) -> Keys {
        Keys::one::<Tool>("tool")
    }

    fn handle(&self, _: Id, unit: &mut Unit<'_>) -> Result<(), Fault> {
        unit.put(Tool {});
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Asked {
    job: String,
}

impl Event for Asked {
    const TYPE: &'static str = "jobs.asked";
    const STREAM: Stream = STREAM;

    fn key(&self) -> &str {
        &self.job
    }
}

struct Work;

impl Handler<Asked> for Work {
    fn touches(&self, event: &Received<Asked>) -> Keys {
        Keys::one::<Job>(&event.job).and_all::<Tool>(["tool"])
    }

    fn handle(&self, event: &Received<Asked>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        if unit.get::<Tool>("tool")?.is_none() {
            return Err(Fault::conflict("there is no tool"));
        }
        let fresh = Job { id: event.job.clone(), done: vec![] };
        let mut job = unit.get::<Job>(&event.job)?.unwrap_or(fresh);
        job.done.push(event.meta.id);
        unit.put(job);
        Ok(())
    }
}

/// What an operator makes of a body.
fn edit(body: &Bytes) -> Bytes {
    let job = serde_json::from_slice::<Asked>(body).map_or_else(|_| "unreadable".into(), |asked| asked.job);
    serde_json::to_vec(&Asked { job: format!("{job}, edited") }).unwrap_or_default().into()
}

fn world(seed: u64, faults: Faults) -> Sim {
    let service = Service::new(SERVICE)
        .keeps::<Job>()
        .keeps::<Tool>()
        .publishes(STREAM)
        .reads(STREAM, Start::Beginning)
        .on::<Asked>(Work);
    let mut sim = Sim::new(seed).with_faults(faults).with(&service, 2).with_operators(OPERATORS, edit);
    for job in 0..JOBS {
        sim.publish(&Asked { job: job.to_string() });
    }
    sim.at(ACTIONS / 2, |sim| {
        sim.call(SERVICE, Some("bring"), Bring);
    });
    sim
}

/// What was sent back was taken by its service, and is at rest.
fn every_redrive_has_an_outcome(sim: &mut Sim) -> Result<(), String> {
    for letter in sim.letters(SERVICE) {
        let (id, redrive) = (letter.id, letter.redrives);
        if letter.state == LetterState::Redriving && sim.was_sent(id, redrive) {
            return Err(format!("redrive {redrive} of {id} was sent and has no outcome"));
        }
    }
    Ok(())
}

/// When all that operators have left is redriven: what was discarded or edited was not done, everything else once, and each record
/// counts its redrives.
fn check(sim: &mut Sim) -> Result<(), String> {
    if sim.get::<Tool>(SERVICE, "tool").is_none() {
        sim.call(SERVICE, Some("bring"), Bring);
        sim.settle()?;
    }
    every_redrive_has_an_outcome(sim)?;
    // What was done before the tool was there fails once more.
    for _ in 0..2 {
        sim.redrive_all(SERVICE);
        sim.settle()?;
        every_redrive_has_an_outcome(sim)?;
    }
    let mut done: BTreeMap<Id, usize> = BTreeMap::new();
    for id in sim.all::<Job>(SERVICE).into_iter().flat_map(|job| job.done) {
        *done.entry(id).or_default() += 1;
    }
    if let Some((id, times)) = done.iter().find(|(_, times)| **times > 1) {
        return Err(format!("{id} was done {times} times"));
    }
    let letters = sim.letters(SERVICE);
    let mut known: BTreeSet<Id> = done.keys().copied().collect();
    let copies: BTreeSet<Id> = letters.iter().filter_map(|letter| letter.edited_to).collect();
    for letter in &letters {
        known.insert(letter.id);
        let (id, state) = (letter.id, letter.state);
        let ends = if done.contains_key(&id) { LetterState::Resolved } else { LetterState::Discarded };
        if state != ends && (state != LetterState::Edited || done.contains_key(&id)) {
            return Err(format!("the record of {id} says {state:?} and not {ends:?}"));
        }
        if letter.redrives != sim.redrives(id) {
            return Err(format!(
                "{id} was redriven {} times, and its record says {}",
                sim.redrives(id),
                letter.redrives
            ));
        }
    }
    if let Some(id) = sim.discarded().iter().find(|id| done.contains_key(id)) {
        return Err(format!("{id} was discarded, and has come back"));
    }
    if let Some(id) = copies.iter().find(|id| !known.contains(id)) {
        return Err(format!("the changed copy {id} is lost"));
    }
    let originals = known.len() - copies.len();
    if originals != JOBS {
        return Err(format!("of {JOBS} messages {originals} are known"));
    }
    Ok(())
}

pub(crate) fn simulate(seeds: impl IntoIterator<Item = u64>, faults: Faults) -> Result<u64, Box<Failure>> {
    hunt(seeds, ACTIONS, |seed| world(seed, faults), check)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn in_fifty_worlds_operators_redrive_again_and_again_discard_edit_and_are_interrupted() {
        let seen = Mutex::new([0; 4]);
        let counted = hunt(
            0..50,
            ACTIONS,
            |seed| world(seed, Faults::all()),
            |sim| {
                let letters = sim.letters(SERVICE);
                let again = letters.iter().filter(|letter| sim.redrives(letter.id) > 1).count();
                let edited = letters.iter().filter(|letter| letter.edited_to.is_some()).count();
                let found = [again, edited, sim.discarded().len(), sim.interruptions() as usize];
                let mut seen = seen.lock().map_err(|_| "poisoned")?;
                seen.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
                Ok(())
            },
        );
        assert_eq!(counted.unwrap(), 50);
        let seen = seen.into_inner().unwrap();
        assert!(seen.iter().all(|count| *count >= 5), "redriven again, edited, discarded, interrupted: {seen:?}");
    }
}
