//! Suspects: deliveries that may have killed a process before. A start is committed before a suspect is handled, the first
//! time with its batch, after that alone; three starts alone without an end park it.

use std::collections::{HashSet, VecDeque};

use fail::fail_point;

use crate::engine::Engine;
use crate::engine::commit::Failed;
use crate::engine::input::Input;
use crate::engine::journal::new_entry;
use crate::engine::plan::Journal;
use crate::ids::Id;
use crate::store::{Entry, State};

impl Engine {
    /// Sends suspects that were started before to batches of their own, and commits a start for the others. Gives the journal
    /// with the starts in it, and the ids of those that have killed their process often enough.
    pub(crate) async fn suspects(
        &mut self,
        batch: &mut Vec<Input>,
        mut journal: Journal,
        rest: &mut VecDeque<Vec<Input>>,
        begun: &mut HashSet<Id>,
    ) -> Result<(Journal, HashSet<Id>), Failed> {
        let is_suspect = |input: &Input, journal: &Journal| match input {
            Input::Message(delivery) if delivery.work.is_ok() && !begun.contains(&delivery.id) => {
                let entry = journal.get(&delivery.id);
                delivery.is_to_be_handled(entry) && (entry.is_some() || delivery.delivered > 1)
            }
            _ => false,
        };
        let started = |input: &Input, journal: &Journal| journal.get(&input.id()).map_or(0, |entry| entry.started);
        if batch.len() > 1 {
            let alone = |input: &mut Input| is_suspect(input, &journal) && started(input, &journal) > 0;
            let alone: Vec<Input> = batch.extract_if(.., alone).collect();
            rest.extend(alone.into_iter().map(|input| vec![input]));
        }
        let now = self.clock.now();
        let (mut starts, mut doomed) = (Vec::new(), HashSet::new());
        for input in batch.iter().filter(|input| is_suspect(input, &journal)) {
            let Input::Message(delivery) = input else { continue };
            let entry = journal.get(&delivery.id);
            // The first start was with its batch, which may have died of another message.
            if entry.is_some_and(|entry| entry.started > self.timing.crash_starts) {
                doomed.insert(delivery.id);
                continue;
            }
            let fresh = || new_entry(delivery.id, Some(delivery), State::Open, now, self.instance.id);
            let start = match entry {
                None => Entry { started: 1, ..fresh() },
                Some(entry) => {
                    Entry { version: entry.version + 1, started: entry.started + 1, at: now, ..entry.clone() }
                }
            };
            starts.push(start);
        }
        if starts.is_empty() {
            return Ok((journal, doomed));
        }
        self.commit_entries(&mut starts, now).await?;
        fail_point!("started");
        for start in starts {
            begun.insert(start.id);
            journal.insert(start.id, start);
        }
        Ok((journal, doomed))
    }
}
