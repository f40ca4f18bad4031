//! The shop's five services, as they are, in Millstream's simulator: orders are placed, some cancelled, while messages are repeated
//! and processes killed; and when all is at rest, what must hold is checked.
//!
//! `accounts.rs` and `letters.rs` are services that do what the shop does not; `gateway.rs` is the card company, which answers late and keeps its keys; `invariants.rs` has what must hold; [`simulate_everywhere`] is what
//! `cargo xtask simulate` runs, and [`cost`] what `cargo xtask budget` counts.

mod accounts;
pub mod cost;
mod gateway;
mod invariants;
mod letters;

use std::sync::Arc;

use contracts::{Line, Money};
use inventory::SetStock;
use millstream::sim::{Call, Failure, Faults, Sim, hunt};
use orders::{CancelOrder, PlaceOrder, Settings};

use crate::gateway::{Cards, Company};

/// Actions with faults in one world.
pub const ACTIONS: usize = 2500;
const ORDERS: usize = 12;
const PRODUCTS: [(&str, u64); 3] = [("chai", 9), ("tofu", 30), ("ikura", 2)];

/// One world, with what is outside of it.
struct Shop {
    placed: Vec<(Call, Money)>,
    company: Arc<Company>,
}

/// Runs a world for each seed, and checks it.
///
/// # Errors
/// What the first seed that fails has found.
pub fn simulate(seeds: impl IntoIterator<Item = u64>, faults: Faults) -> Result<u64, Box<Failure>> {
    let shop = std::cell::RefCell::new(None);
    hunt(
        seeds,
        ACTIONS,
        |seed| {
            let (sim, outside) = world(seed, faults);
            shop.replace(Some(outside));
            sim
        },
        |sim| {
            let shop = shop.borrow();
            let Some(shop) = shop.as_ref() else { return Ok(()) };
            every_caller_has_an_answer(shop, sim)?;
            invariants::check(sim, &shop.placed, &shop.company)
        },
    )
}

/// Runs all worlds for each seed, the shop's, that of the accounts and that of the dead letters, on all cores; of several failures the
/// one of the lowest seed.
///
/// # Errors
/// What was found.
pub fn simulate_everywhere(seeds: std::ops::Range<u64>, faults: Faults) -> Result<u64, Box<Failure>> {
    on_all_cores(seeds, |part| {
        simulate(part.clone(), faults)?;
        accounts::simulate(part.clone(), faults)?;
        letters::simulate(part, faults)
    })
}

fn on_all_cores(
    seeds: std::ops::Range<u64>,
    run: impl Fn(std::ops::Range<u64>) -> Result<u64, Box<Failure>> + Copy + Send,
) -> Result<u64, Box<Failure>> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let share = (seeds.end - seeds.start).div_ceil(cores).max(1);
    let parts = (0..cores).map(|core| seeds.start + core * share).map(|from| from..(from + share).min(seeds.end));
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = parts.map(|part| scope.spawn(move || run(part))).collect();
        running.into_iter().map(|part| part.join().expect("a world panics only within a handler")).collect()
    });
    results.into_iter().sum()
}

/// The shop, with orders on their way, and some that will be cancelled.
fn world(seed: u64, faults: Faults) -> (Sim, Shop) {
    let company = Arc::new(Company::new(seed));
    let services = [
        (orders::service(Settings::default()), 2),
        (inventory::service(), 2),
        (payments::service(Cards(company.clone())), 2),
        (notifications(), 2),
        (analytics::service(), 1),
    ];
    let mut sim = Sim::new(seed).with_faults(faults);
    for (service, replicas) in &services {
        sim = sim.with(service, *replicas);
    }
    for (product, initial) in PRODUCTS {
        let set = SetStock { product_id: id(product), name: None, initial };
        sim.call("inventory", Some(&format!("stock {product}")), set);
    }
    let mut placed = Vec::new();
    for number in 0..ORDERS {
        let (product, _) = PRODUCTS[(number + usize::try_from(seed % 7).unwrap_or_default()) % PRODUCTS.len()];
        let price = Money::from_minor(450).expect("a price");
        let quantity = 1 + u32::try_from(number % 3).unwrap_or_default();
        let lines = vec![Line { product_id: id(product), quantity, price }];
        let total = Line::total(&lines).expect("a total");
        let place = PlaceOrder { user_id: id("ALFKI"), total, lines };
        let call = sim.call_to("orders", Some(&format!("order {number}")), Settings::default(), place);
        placed.push((call, total));
    }
    sim.at(ACTIONS / 4, move |sim| cancel_some(sim, seed));
    (sim, Shop { placed, company })
}

/// Cancels each third order that is there.
fn cancel_some(sim: &mut Sim, seed: u64) {
    for (index, order) in sim.all::<orders::Order>("orders").into_iter().enumerate() {
        if (index as u64 + seed).is_multiple_of(3) {
            let key = format!("cancel {}", order.id);
            sim.call("orders", Some(&key), CancelOrder { id: order.id });
        }
    }
}

fn every_caller_has_an_answer(shop: &Shop, sim: &Sim) -> Result<(), String> {
    for (call, _) in &shop.placed {
        if sim.reply::<orders::Order>(*call).is_none() {
            return Err("a caller has no answer".into());
        }
    }
    Ok(())
}

fn notifications() -> millstream::Service {
    let settings = notifications::Settings::default();
    notifications::service(&settings).unwrap_or_else(|error| panic!("{error}"))
}

fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as two cores run in half a minute without optimisation; `cargo xtask test --long` and `cargo xtask simulate` run more.
    const SEEDS: u64 = 1000;

    fn seeds() -> u64 {
        std::env::var("MILLSTREAM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
    }

    #[test]
    fn whatever_happens_nothing_is_lost_or_doubled_and_every_order_ends() {
        if let Err(failure) = on_all_cores(0..seeds(), |part| simulate(part, Faults::all())) {
            panic!("{failure}");
        }
    }

    #[test]
    fn whatever_happens_to_accounts_none_is_overdrawn_and_no_message_is_lost() {
        if let Err(failure) = on_all_cores(0..seeds(), |part| accounts::simulate(part, Faults::all())) {
            panic!("{failure}");
        }
    }

    #[test]
    fn whatever_happens_to_dead_letters_each_is_redriven_once_and_what_is_discarded_stays_so() {
        if let Err(failure) = on_all_cores(0..seeds(), |part| letters::simulate(part, Faults::all())) {
            panic!("{failure}");
        }
    }

    #[test]
    fn without_faults_every_order_ends_too() {
        if let Err(failure) = simulate(0..20, Faults::none()) {
            panic!("{failure}");
        }
    }
}
