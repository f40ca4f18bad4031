//! Drain: take what is ready, without waiting for more.

use millstream_core::timing::Timing;
use tokio::sync::mpsc;

use crate::engine::arrival::Arrival;
use crate::engine::meters::Meters;

/// Where inputs come from. Each consumer waits its turn at the one channel of messages, so the streams take turns there.
pub(crate) struct Intake {
    pub(crate) commands: mpsc::Receiver<Arrival>,
    pub(crate) ends: mpsc::UnboundedReceiver<Arrival>,
    pub(crate) due: mpsc::Receiver<Arrival>,
    pub(crate) messages: mpsc::Receiver<Arrival>,
}

impl Intake {
    /// Waits for one input and takes with it what else is there: commands first, at most half of a batch, then outcomes and
    /// due wakes, then messages. Cancel-safe: nothing is taken before the first await is over.
    pub(crate) async fn drain(&mut self, timing: &Timing, meters: &Meters) -> Vec<Arrival> {
        let first = tokio::select! {
            biased;
            Some(arrival) = self.commands.recv() => arrival,
            Some(arrival) = self.ends.recv() => arrival,
            Some(arrival) = self.due.recv() => arrival,
            Some(arrival) = self.messages.recv() => arrival,
            // The service holds a sender of each until it has stopped the loop.
            else => std::future::pending().await,
        };
        let started = tokio::time::Instant::now();
        let mut batch = Batch { bytes: first.bytes(), arrivals: vec![first] };
        let half = timing.batch_inputs.div_ceil(2);
        batch.fill(half, timing.batch_bytes, || self.commands.try_recv().ok());
        batch.fill(timing.batch_inputs, timing.batch_bytes, || self.ends.try_recv().ok());
        batch.fill(timing.batch_inputs, timing.batch_bytes, || self.due.try_recv().ok());
        batch.fill(timing.batch_inputs, timing.batch_bytes, || self.messages.try_recv().ok());
        batch.arrivals.sort_by_key(|arrival| arrival.input.rank());
        meters.stage("drain", started);
        batch.arrivals
    }

    /// Everything that is still there, for handing back.
    pub(crate) fn rest(&mut self) -> Vec<Arrival> {
        let commands = std::iter::from_fn(|| self.commands.try_recv().ok());
        let ends = std::iter::from_fn(|| self.ends.try_recv().ok());
        let due = std::iter::from_fn(|| self.due.try_recv().ok());
        let messages = std::iter::from_fn(|| self.messages.try_recv().ok());
        commands.chain(ends).chain(due).chain(messages).collect()
    }
}

struct Batch {
    bytes: usize,
    arrivals: Vec<Arrival>,
}

impl Batch {
    fn fill(&mut self, inputs: usize, bytes: usize, mut next: impl FnMut() -> Option<Arrival>) {
        while self.arrivals.len() < inputs && self.bytes < bytes {
            let Some(arrival) = next() else { return };
            self.bytes += arrival.bytes();
            self.arrivals.push(arrival);
        }
    }
}
