//! A service tested in the simulator: no broker, no store, no waiting; a seed decides who is killed when.
//!
//! ```sh
//! cargo run -p millstream --example test_with_sim --features testing
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millstream::sim::{Faults, Sim, hunt};
use millstream::{
    Document, Effect, Event, Fault, Handler, Kind, Outage, Received, Service, Start, Stream, Timer, Unit, Wake,
};
use serde::{Deserialize, Serialize};

const PARCELS: Stream = Stream::new("PARCELS", "parcels");

#[derive(Clone, Serialize, Deserialize)]
struct Sent {
    id: String,
    grams: i32,
}

impl Event for Sent {
    const TYPE: &'static str = "parcels.sent";
    const STREAM: Stream = PARCELS;
    fn key(&self) -> &str {
        &self.id
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Parcel {
    id: String,
    handled: u32,
    labelled: bool,
    overdue: bool,
}

impl Document for Parcel {
    const COLLECTION: &'static str = "parcels";
    fn id(&self) -> &str {
        &self.id
    }
}

/// Handles the event and prints the label; counts how often the printer was asked.
#[derive(Clone, Default)]
struct Label(Arc<AtomicU32>);

impl Handler<Sent> for Label {
    fn handle(&self, sent: &Received<Sent>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        if sent.grams <= 0 {
            return Err(Fault::unprocessable("a parcel has a weight"));
        }
        let handled = unit.get::<Parcel>(&sent.id)?.map_or(0, |parcel| parcel.handled) + 1;
        let parcel = Parcel { id: sent.id.clone(), handled, labelled: false, overdue: false };
        unit.put_with_wake(parcel, Self::KIND, unit.now());
        Ok(())
    }
}

impl Effect for Label {
    type Document = Parcel;
    type Outcome = ();
    const KIND: Kind<Parcel> = Kind::new("label");
    async fn run(&self, _: &Parcel, _: &Wake) -> Result<(), Outage> {
        let fails = self.0.fetch_add(1, Ordering::Relaxed) < 2;
        if fails { Err(Outage::new("the printer is off")) } else { Ok(()) }
    }
    fn settle(&self, parcel: &mut Parcel, (): (), unit: &mut Unit<'_>) {
        parcel.labelled = true;
        unit.set_next_wake(Overdue::KIND, unit.now() + Duration::from_secs(3600));
    }
}

struct Overdue;

impl Timer for Overdue {
    type Document = Parcel;
    const KIND: Kind<Parcel> = Kind::new("overdue");
    fn fire(&self, parcel: &mut Parcel, _: &mut Unit<'_>) {
        parcel.overdue = true;
    }
}

fn world(seed: u64, faults: Faults) -> (Sim, Label) {
    let label = Label::default();
    let service = Service::new("parcels").publishes(PARCELS).reads(PARCELS, Start::Beginning).on(label.clone());
    let mut sim = Sim::new(seed).with_faults(faults).with(&service.effect(label.clone()).timer(Overdue), 2);
    sim.publish(&Sent { id: "heavy".into(), grams: 500 });
    sim.publish(&Sent { id: "nothing".into(), grams: 0 });
    (sim, label)
}

/// The parcel was handled once, labelled, and is overdue after an hour; what weighs nothing is a dead letter.
fn check(sim: &mut Sim) -> Result<(), String> {
    let parcel = sim.get::<Parcel>("parcels", "heavy").ok_or("the parcel is lost")?;
    let letters = sim.dead_letters("parcels");
    let rejected = letters.len() == 1 && letters[0].0 == "rejected";
    let right = parcel.handled == 1 && parcel.labelled && parcel.overdue && rejected;
    if right { Ok(()) } else { Err(format!("handled {} times, dead letters {letters:?}", parcel.handled)) }
}

fn main() -> Result<(), String> {
    let (mut calm, label) = world(1, Faults::none());
    calm.settle()?;
    check(&mut calm)?;
    assert_eq!(label.0.load(Ordering::Relaxed), 3, "two outages, then an outcome");

    let seeds = hunt(0..100, 200, |seed| world(seed, Faults::all()).0, check).map_err(|found| found.to_string())?;
    println!("{seeds} worlds with kills, lost acks and failing commits: each parcel handled once");
    Ok(())
}
