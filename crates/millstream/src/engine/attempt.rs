//! One batch: load, decide, commit, and again after a conflict, of which nothing is kept.

use std::collections::VecDeque;

use fail::fail_point;
use millstream_core::planner::{Aftermath, Decision, Facts, Input, Missed, Suspects};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::engine::arrival::Arrival;
use crate::engine::aside::CONFLICTS;
use crate::engine::commit::Aborted;
use crate::ids::{Id, Timestamp};
use crate::store::{Loaded, Wanted};
use millstream_core::hash::HashSet;

/// Conflicts in a row after which a batch is halved.
const HALVE_AFTER: u32 = 2;

impl Engine {
    /// Handles inputs to their end: in one batch, or after conflicts in smaller ones.
    pub(crate) async fn process(&mut self, arrivals: Vec<Arrival>) {
        for arrival in &arrivals {
            // The effect has ended: its slot is free for those that this very batch claims, the next of its document too.
            if let Input::Outcome(outcome) = &arrival.input {
                self.slots.lock().release(&outcome.key);
            }
        }
        let mut begun = HashSet::default();
        let mut batches = VecDeque::from([arrivals]);
        while let Some(batch) = batches.pop_front() {
            self.attempt(batch, &mut batches, &mut begun).await;
        }
    }

    async fn attempt(&mut self, mut batch: Vec<Arrival>, rest: &mut VecDeque<Vec<Arrival>>, begun: &mut HashSet<Id>) {
        let mut conflicts = 0_u32;
        let mut recheck = self.distrusts();
        loop {
            batch.retain(|arrival| !arrival.is_withdrawn());
            if batch.is_empty() {
                return;
            }
            match self.once(&mut batch, recheck, rest, begun).await {
                Ok(Some(after)) => return self.after(batch, after),
                Ok(None) => return,
                Err(Aborted::Stopped) => return self.abandon(batch),
                Err(Aborted::Contended) => conflicts += 1,
                Err(Aborted::Large) => conflicts = HALVE_AFTER,
                Err(Aborted::Busy) => {}
            }
            if conflicts >= CONFLICTS && batch.len() == 1 {
                return batch.into_iter().for_each(|arrival| self.put_aside(arrival));
            }
            // What was committed may be ours after all.
            recheck = true;
            if conflicts >= HALVE_AFTER && batch.len() > 1 {
                rest.push_front(batch.split_off(batch.len().div_ceil(2)));
                conflicts = 0;
            }
        }
    }

    /// From the inputs to a durable commit and what follows it; nothing if all inputs went into batches of their own.
    async fn once(
        &mut self,
        batch: &mut Vec<Arrival>,
        recheck: bool,
        rest: &mut VecDeque<Vec<Arrival>>,
        begun: &mut HashSet<Id>,
    ) -> Result<Option<Aftermath>, Aborted> {
        let started = Instant::now();
        let most = self.planner.timing.max_ack_pending;
        let mut surplus = 0;
        for arrival in batch.iter_mut() {
            surplus += i64::from(arrival.see_source(most, surplus));
        }
        let mut facts = self.load(&inputs(batch), recheck).await?;
        self.meters.stage("load", started);
        fail_point!("loaded");
        let now = self.clock.now();
        let suspects = self.planner.suspects(&inputs(batch), &facts, begun, now);
        let alone = suspects.alone.iter().rev().map(|index| vec![batch.remove(*index)]);
        let alone: Vec<Vec<Arrival>> = alone.collect();
        rest.extend(alone.into_iter().rev());
        if batch.is_empty() {
            return Ok(None);
        }
        self.commit_starts(&suspects, &mut facts, begun, now).await?;
        let started = Instant::now();
        let Decision { write, after } = self.decide(&inputs(batch), &mut facts, &suspects.doomed).await?;
        self.meters.stage("handle", started);
        fail_point!("handled");
        let started = Instant::now();
        let committed = self.commit(batch, write).await;
        self.meters.stage("commit", started);
        committed.map(|()| Some(after))
    }

    /// Loads what a batch needs in one query, and in a second one what its idempotency keys stand for, if it has any.
    async fn load(&mut self, batch: &[&Input], recheck: bool) -> Result<Facts, Aborted> {
        let wanted = self.planner.wanted(batch, recheck);
        let asked = wanted.docs.clone();
        let mut facts = Facts::new(asked, self.read(wanted).await?);
        if let Some(originals) = facts.originals() {
            facts.learn_entries(self.read(originals).await?.journal);
        }
        Ok(facts)
    }

    async fn read(&mut self, wanted: Wanted) -> Result<Loaded, Aborted> {
        match self.store.load(wanted).await {
            Ok(loaded) => Ok(loaded),
            Err(error) => Err(self.store_is_away(&error.to_string()).await),
        }
    }

    async fn commit_starts(
        &mut self,
        suspects: &Suspects,
        facts: &mut Facts,
        begun: &mut HashSet<Id>,
        now: Timestamp,
    ) -> Result<(), Aborted> {
        if suspects.starts.is_empty() {
            return Ok(());
        }
        match self.commit(&[], suspects.write(now)).await {
            Err(Aborted::Contended) => return Err(Aborted::Busy),
            committed => committed?,
        }
        self.publish(vec![], 0);
        fail_point!("started");
        begun.extend(suspects.starts.iter().map(|start| start.id));
        facts.learn_entries(suspects.starts.iter().cloned());
        Ok(())
    }

    /// Decides, and again as often as a handler reads what was not loaded.
    async fn decide(&mut self, batch: &[&Input], facts: &mut Facts, doomed: &HashSet<Id>) -> Result<Decision, Aborted> {
        let now = self.clock.now();
        loop {
            let decided = {
                let mut slots = self.slots.lock();
                if self.stop.is_cancelled() {
                    slots.close();
                }
                self.planner.decide(batch, facts, doomed, &slots, now)
            };
            match decided {
                Ok(decision) => return Ok(decision),
                Err(Missed(_)) if facts.miss_too_often(batch) => return Err(Aborted::Large),
                Err(Missed(keys)) => {
                    let wanted = facts.wanted_after(&keys);
                    let asked = wanted.docs.clone();
                    let found = self.read(wanted).await?.docs;
                    facts.learn_documents(asked, found);
                }
            }
        }
    }

    /// Whether the journal is asked for every delivery: for a while after each (re)connect.
    fn distrusts(&mut self) -> bool {
        let epoch = self.link.borrow().epoch;
        if self.distrust.0 != epoch {
            self.distrust = (epoch, Instant::now() + self.planner.timing.distrust);
        }
        Instant::now() < self.distrust.1
    }
}

fn inputs(batch: &[Arrival]) -> Vec<&Input> {
    batch.iter().map(|arrival| &arrival.input).collect()
}
