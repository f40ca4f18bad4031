//! Inputs that are put aside: alone in its batch, one conflicts with the store again and again. Whatever is wrong with it, the
//! others go on, and it is tried again later.

use std::collections::HashMap;

use async_nats::jetstream::AckKind;
use tokio::time::Instant;

use crate::accepted::CommandError;
use crate::engine::Engine;
use crate::engine::arrival::{Arrival, Receipt};
use crate::ids::Id;

/// Conflicts in a row, alone in a batch, after which an input is put aside. With replicas that write the same document some are
/// lost to them; so many in a row are not.
pub(crate) const CONFLICTS: u32 = 64;

/// How many inputs are remembered that were put aside.
const REMEMBERED: usize = 1000;

/// What was put aside.
#[derive(Default)]
pub(crate) struct Aside {
    waiting: Vec<(Instant, Arrival)>,
    /// How often each was.
    times: HashMap<Id, u32>,
}

impl Aside {
    /// Those whose time has come.
    pub(crate) fn due(&mut self) -> Vec<Arrival> {
        let now = Instant::now();
        self.waiting.extract_if(.., |(at, _)| *at <= now).map(|(_, arrival)| arrival).collect()
    }

    /// All of them.
    pub(crate) fn rest(&mut self) -> Vec<Arrival> {
        self.waiting.drain(..).map(|(_, arrival)| arrival).collect()
    }

    /// How often an input was put aside, this time included.
    fn count(&mut self, id: Id) -> u32 {
        if self.times.len() >= REMEMBERED {
            self.times.clear();
        }
        let times = self.times.entry(id).or_default();
        *times = times.saturating_add(1);
        *times
    }
}

impl Engine {
    /// Puts an input aside: a message comes again from the broker, a caller is told, and the rest waits here.
    pub(crate) fn put_aside(&mut self, arrival: Arrival) {
        let id = arrival.input.id();
        let times = self.aside.count(id);
        let delay = self.planner.timing.message_retry.delay(times);
        tracing::error!(input = %id, conflicts = CONFLICTS, times, ?delay, "an input keeps conflicting; put aside");
        let Arrival { input, receipt } = arrival;
        match receipt {
            Receipt::Message(message) => {
                self.acker.send(message.ack(AckKind::Nak(Some(delay))).into_iter().collect());
            }
            Receipt::Command { answer, .. } => {
                let why = "it keeps conflicting with other writes to the store";
                drop(answer.send(Err(CommandError::Unavailable(why.into()))));
            }
            receipt => self.aside.waiting.push((Instant::now() + delay, Arrival { input, receipt })),
        }
    }
}
