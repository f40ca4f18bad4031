//! Drain: take what is ready, without waiting for more.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::engine::input::Input;
use crate::engine::meters::Meters;
use crate::engine::timing::Timing;
use crate::ids::Id;

/// Where inputs come from. Each consumer waits its turn at the one channel of messages, so the streams take turns there.
pub(crate) struct Intake {
    pub(crate) commands: mpsc::Receiver<Input>,
    pub(crate) ends: mpsc::UnboundedReceiver<Input>,
    pub(crate) due: mpsc::Receiver<Input>,
    pub(crate) messages: mpsc::Receiver<Input>,
}

impl Intake {
    /// Waits for one input and takes with it what else is there: commands first, at most half of a batch, then outcomes and
    /// due wakes, then messages. Cancel-safe: nothing is taken before the first await is over.
    pub(crate) async fn drain(&mut self, timing: &Timing, meters: &Meters) -> Vec<Input> {
        let first = tokio::select! {
            biased;
            Some(input) = self.commands.recv() => input,
            Some(input) = self.ends.recv() => input,
            Some(input) = self.due.recv() => input,
            Some(input) = self.messages.recv() => input,
            // The service holds a sender of each until it has stopped the loop.
            else => std::future::pending().await,
        };
        let started = tokio::time::Instant::now();
        let mut batch = Batch { bytes: 0, inputs: vec![], seen: HashMap::new() };
        batch.add(first);
        let half = timing.batch_inputs.div_ceil(2);
        batch.fill(half, timing.batch_bytes, || self.commands.try_recv().ok());
        batch.fill(timing.batch_inputs, timing.batch_bytes, || self.ends.try_recv().ok());
        batch.fill(timing.batch_inputs, timing.batch_bytes, || self.due.try_recv().ok());
        batch.fill(timing.batch_inputs, timing.batch_bytes, || self.messages.try_recv().ok());
        // A fact that is here beats a deadline that has passed.
        batch.inputs.sort_by_key(Input::fires);
        meters.stage("drain", started);
        batch.inputs
    }

    /// Everything that is still there, for handing back.
    pub(crate) fn rest(&mut self) -> Vec<Input> {
        let mut rest = Vec::new();
        while let Ok(input) = self.commands.try_recv() {
            rest.push(input);
        }
        while let Ok(input) = self.ends.try_recv() {
            rest.push(input);
        }
        while let Ok(input) = self.due.try_recv() {
            rest.push(input);
        }
        while let Ok(input) = self.messages.try_recv() {
            rest.push(input);
        }
        rest
    }
}

struct Batch {
    bytes: usize,
    inputs: Vec<Input>,
    seen: HashMap<Id, usize>,
}

impl Batch {
    fn fill(&mut self, inputs: usize, bytes: usize, mut next: impl FnMut() -> Option<Input>) {
        while self.inputs.len() < inputs && self.bytes < bytes {
            match next() {
                Some(input) => self.add(input),
                None => return,
            }
        }
    }

    /// Deliveries of one message share a slot: handled once, every one acked. The latest redrive leads: it may have to be handled
    /// where any other delivery is a duplicate.
    fn add(&mut self, input: Input) {
        self.bytes += input.bytes();
        if let Input::Message(mut delivery) = input {
            match self.seen.get(&delivery.id).and_then(|index| self.inputs.get_mut(*index)) {
                Some(Input::Message(first)) => {
                    if delivery.redrive() > first.redrive() {
                        std::mem::swap(first, &mut delivery);
                        first.twins = std::mem::take(&mut delivery.twins);
                    }
                    first.delivered = first.delivered.max(delivery.delivered);
                    first.twins.push(*delivery);
                }
                _ => {
                    self.seen.insert(delivery.id, self.inputs.len());
                    self.inputs.push(Input::Message(delivery));
                }
            }
        } else {
            self.inputs.push(input);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::input::{Delivery, Source};
    use crate::event::Meta;
    use crate::ids::Timestamp;
    use crate::progress::{InEngine, Progress};
    use crate::redriven::Redriven;
    use crate::unit::Unread;

    fn delivery(redrive: Option<u32>, reply: &'static str) -> Input {
        let id = Id::derived(Timestamp::from_millis(1), "x", b"y", 0);
        let meta = Meta {
            id,
            time: Timestamp::from_millis(1),
            correlation: String::new(),
            causation: None,
            traceparent: None,
        };
        let redriven = |number| Redriven {
            id,
            number,
            stream: "BANK".into(),
            seq: 1,
            subject: String::new(),
            first_failure: None,
            edited_from: None,
        };
        Input::Message(Box::new(Delivery {
            id,
            meta,
            event: "unknown",
            work: Err(Unread::Schema(String::new())),
            source: Arc::new(Source::new("BANK", "ledger")),
            seq: 1,
            redriven: redrive.map(redriven),
            subject: "bank.moved.0".into(),
            headers: None,
            payload: "".into(),
            delivered: 1,
            reply: Some(reply.into()),
            twins: vec![],
            _in_engine: InEngine::enter(&Arc::new(Progress::default())),
            received: tokio::time::Instant::now(),
        }))
    }

    #[test]
    fn of_deliveries_of_one_message_the_latest_redrive_leads_and_all_are_acked_with_it() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let mut batch = Batch { bytes: 0, inputs: vec![], seen: HashMap::new() };
            for at in order {
                let (redrive, reply) = [(None, "a"), (Some(0), "b"), (Some(1), "c"), (Some(2), "d")][at];
                batch.add(delivery(redrive, reply));
            }
            let [Input::Message(leader)] = &batch.inputs[..] else { panic!("{order:?}: one slot") };
            assert_eq!(leader.redrive(), Some(2), "{order:?}");
            let replies = leader.twins.iter().chain([&**leader]).map(|delivery| delivery.reply.as_ref().unwrap());
            let mut replies: Vec<&str> = replies.map(|reply| reply.as_str()).collect();
            replies.sort_unstable();
            assert_eq!(replies, ["a", "b", "c", "d"], "{order:?}");
        }
    }
}
