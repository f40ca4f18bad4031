//! What is measured of a system of the shop's, in one go: idle, warm-up, in flight, burst, saturation, latency.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Client;

use crate::figures::{Figure, Sheet, System};
use crate::load::{Generator, Phase};
use crate::machine::{Meter, Spent, resident_mib};
use crate::search::Search;
use crate::stack::Stack;
use crate::tally;
use crate::witness::Witness;

/// The p99 up to which a rate counts as sustained.
pub(crate) const LIMIT_MS: f64 = 250.0;

/// How long the phases take.
pub(crate) struct Lengths {
    /// Of one process without orders.
    pub(crate) idle: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) in_flight: Duration,
    /// Steps of the search for saturation; none leave it out, and the latency with it.
    pub(crate) probes: u32,
    pub(crate) probe: Duration,
    pub(crate) latency: Duration,
}

/// A burst has as many orders as are carried in this many times the length of the phase before.
const BURST: f64 = 1.5;

/// A search begins below this many times the rate that was carried in flight.
const TOO_MUCH: f64 = 1.25;

/// A proxy of the environment is for other hosts.
pub(crate) fn client() -> Result<Client> {
    Ok(Client::builder().no_proxy().tcp_nodelay(true).timeout(Duration::from_secs(30)).build()?)
}

/// Starts a system, measures it, sees that every order was confirmed exactly once, and stops it.
pub(crate) async fn measure(
    system: System,
    folder: &Path,
    shop: &Path,
    lengths: &Lengths,
    sheet: &mut Sheet,
) -> Result<()> {
    let http = client()?;
    let stack = Stack::start(system, folder, shop, &http).await?;
    let mut note = |figure, value, foreign| sheet.note(system, figure, value, Some(foreign));
    if system == System::One {
        idle(&stack, lengths.idle, &mut note).await?;
    }
    let nats = async_nats::connect(&stack.nats).await?;
    let witness = Witness::start(&nats).await?;
    let generator = Generator::new(http, &stack.orders, witness.clone());
    generator.in_flight(lengths.warm_up).await.context("warm-up")?;

    let meter = Meter::start(&stack.watched)?;
    let phase = generator.in_flight(lengths.in_flight).await.context("in flight")?;
    let carried = phase.rate();
    let foreign = meter.stop()?.foreign;
    note(Figure::InFlight, carried, foreign);
    note(Figure::InFlightP50, phase.latency_ms(0.5), foreign);
    note(Figure::InFlightP99, phase.latency_ms(0.99), foreign);

    let meter = Meter::start(&stack.watched)?;
    let orders = (carried * lengths.in_flight.as_secs_f64() * BURST).ceil() as u64;
    let phase = generator.burst(orders).await.context("burst")?;
    note_burst(&phase, &meter.stop()?, &mut note);

    if lengths.probes > 0 {
        let mut search = Search::below(carried * TOO_MUCH);
        let mut foreign: f64 = 0.0;
        for _ in 0..lengths.probes {
            let meter = Meter::start(&stack.watched)?;
            let phase = generator.open_loop(search.next(), lengths.probe).await.context("saturation")?;
            foreign = foreign.max(meter.stop()?.foreign);
            search.tell(phase.latency_ms(0.99) <= LIMIT_MS);
        }
        let rate = search.found();
        note(Figure::Saturation, rate, foreign);
        // Where nothing is sustained, there is no half of it.
        if rate > 0.0 {
            let meter = Meter::start(&stack.watched)?;
            let phase = generator.open_loop(rate / 2.0, lengths.latency).await.context("latency")?;
            let foreign = meter.stop()?.foreign;
            note(Figure::LatencyP50, phase.latency_ms(0.5), foreign);
            note(Figure::LatencyP99, phase.latency_ms(0.99), foreign);
        }
    }

    let orders = witness.settled()?;
    let tally = tally::verified(&async_nats::jetstream::new(nats), orders).await?;
    // A repeated confirmation would have been delivered by now.
    witness.settled()?;
    sheet.note_tally(system, &tally, orders);
    stack.stop().await
}

fn note_burst(phase: &Phase, spent: &Spent, note: &mut impl FnMut(Figure, f64, f64)) {
    let (orders, foreign) = (phase.orders as f64, spent.foreign);
    note(Figure::Burst, phase.rate(), foreign);
    note(Figure::Cpu, spent.watched_ms.values().sum::<f64>() / orders, foreign);
    for (part, figure) in [
        ("services", Figure::CpuServices),
        ("broker", Figure::CpuBroker),
        ("store", Figure::CpuStore),
        ("gateway", Figure::CpuGateway),
    ] {
        if let Some(ms) = spent.watched_ms.get(part) {
            note(figure, ms / orders, foreign);
        }
    }
    note(Figure::CpuGenerator, spent.own_ms / orders, foreign);
}

async fn idle(stack: &Stack, length: Duration, note: &mut impl FnMut(Figure, f64, f64)) -> Result<()> {
    let meter = Meter::start(&stack.watched)?;
    tokio::time::sleep(length).await;
    let spent = meter.stop()?;
    for (part, cpu, memory) in [
        ("services", Figure::IdleCpuServices, Figure::IdleMemoryServices),
        ("broker", Figure::IdleCpuBroker, Figure::IdleMemoryBroker),
    ] {
        note(cpu, spent.watched_ms[part] / spent.seconds / 10.0, spent.foreign);
        let pids = stack.watched.iter().filter(|(of, _)| *of == part);
        let mib: Result<Vec<f64>> = pids.map(|(_, pid)| resident_mib(*pid)).collect();
        note(memory, mib?.iter().sum(), spent.foreign);
    }
    Ok(())
}
