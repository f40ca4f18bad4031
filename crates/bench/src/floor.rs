//! The floor: what this machine, one broker and SQLite do with nothing in the way.

mod raw;
mod saga;
mod store;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nats_embedded::{Server, Setup};

use crate::figures::{Figure, Sheet, System};
use crate::load::SUBMITTERS;
use crate::machine::{Meter, Watched};

/// What an event of the shop's takes, headers and body.
const EVENT: usize = 614;

/// How long the parts of the floor take: each raw rate, and each saga.
pub(crate) struct Lengths {
    pub(crate) raw: Duration,
    pub(crate) saga: Duration,
}

/// The raw rates, and the saga with the broker's default durability.
pub(crate) async fn measure(folder: &Path, lengths: &Lengths, sheet: &mut Sheet) -> Result<()> {
    raw::measure(folder, lengths.raw, sheet).await?;
    sagas(System::Floor, folder, lengths.saga, sheet).await
}

/// How many messages are consumed and acknowledged a second with nothing done.
pub(crate) async fn consume_and_ack(folder: &Path, length: Duration) -> Result<f64> {
    let mut sheet = Sheet::default();
    raw::measure(folder, length, &mut sheet).await?;
    let sample = sheet.samples.iter().find(|sample| sample.figure == Figure::ConsumeAck);
    sample.map(|sample| sample.value).context("the rate was not measured")
}

/// The saga with a broker that syncs before it acknowledges.
pub(crate) async fn measure_synced(folder: &Path, lengths: &Lengths, sheet: &mut Sheet) -> Result<()> {
    sagas(System::FloorSynced, folder, lengths.saga, sheet).await
}

/// As many orders as it carries, as many as submitters in flight, and one at a time.
async fn sagas(system: System, folder: &Path, length: Duration, sheet: &mut Sheet) -> Result<()> {
    for window in [None, Some(SUBMITTERS), Some(1)] {
        let folder = tempfile::tempdir_in(folder)?;
        let sync_always = system == System::FloorSynced;
        let broker = start_broker(folder.path(), sync_always).await?;
        let watched: [Watched; 1] = [("broker", broker.pid())];
        let meter = Meter::start(&watched)?;
        let saga = saga::run(&broker.url(), folder.path(), window, length).await?;
        let spent = meter.stop()?;
        let tally = saga.verify().await?;
        let (phase, orders) = (&saga.phase, saga.phase.orders as f64);
        let mut note = |figure, value| sheet.note(system, figure, value, Some(spent.foreign));
        match window {
            None => {
                let broker_ms = spent.watched_ms["broker"] / orders;
                note(Figure::Burst, phase.rate());
                note(Figure::Cpu, spent.own_ms / orders + broker_ms);
                note(Figure::CpuServices, spent.own_ms / orders);
                note(Figure::CpuBroker, broker_ms);
                sheet.note_tally(system, &tally, phase.orders);
            }
            Some(1) => {
                note(Figure::LatencyP50, phase.latency_ms(0.5));
                note(Figure::LatencyP99, phase.latency_ms(0.99));
            }
            Some(_) => {
                note(Figure::InFlight, phase.rate());
                note(Figure::InFlightP50, phase.latency_ms(0.5));
                note(Figure::InFlightP99, phase.latency_ms(0.99));
            }
        }
        broker.stop().await;
    }
    Ok(())
}

async fn start_broker(folder: &Path, sync_always: bool) -> Result<Server> {
    Ok(Server::start(&Setup { folder: folder.join("nats"), port: 0, sync_always }).await?)
}
