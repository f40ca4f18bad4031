//! The invariants at rest, as a pure comparison of what the services say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use contracts::Money;

use super::snapshot::{Charge, Payment, Reservation, Snapshot};
use super::{figures, notified};
use crate::wire::{Order, total};

/// An invariant and what contradicts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) invariant: &'static str,
    /// What was compared, for the reader of a table in which everything holds.
    pub(super) looked_at: String,
    /// By subject (an order, a product, a durable) what was seen where; empty if the invariant holds.
    pub(super) broken: BTreeMap<String, String>,
}

/// Parameters of the comparison besides the snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// How many dead letters are expected.
    pub(super) dead_letters: u64,
    /// How much longer than others an order, or what is to be done about its money, may be under way.
    pub(super) patience: Duration,
    /// Each stream's last sequence at the first look. On a live system a durable always has something pending; it is stuck
    /// only if a later look finds messages of the first one still unacked.
    pub(super) first_sequences: HashMap<String, u64>,
}

/// The orders, split by whether their consequences must be visible everywhere.
pub(super) struct Orders<'a> {
    pub(super) by_id: HashMap<&'a str, &'a Order>,
    /// Ended, and long enough ago.
    pub(super) settled: Vec<&'a Order>,
    /// All others: what hangs on them may be on its way.
    pub(super) moving: Vec<&'a Order>,
}

/// Compares.
pub(super) fn invariants(snapshot: &Snapshot, terms: &Terms) -> Vec<Finding> {
    let open = snapshot.payments.iter().filter(|payment| matches!(payment.status.as_str(), "CHARGING" | "REFUNDING"));
    let open: HashSet<&str> = open.map(|payment| payment.order_id.as_str()).collect();
    let may_take_longer = |order: &Order| order.created_at + terms.patience > snapshot.before;
    let has_ended = |order: &&Order| {
        matches!(order.status.as_str(), "CONFIRMED" | "CANCELLED")
            && order.ended_at.is_some_and(|at| at <= snapshot.before)
            && !(open.contains(order.id.as_str()) && may_take_longer(order))
    };
    let (settled, moving) = snapshot.orders.iter().partition(has_ended);
    let by_id = snapshot.orders.iter().map(|order| (order.id.as_str(), order)).collect();
    let orders = Orders { by_id, settled, moving };
    let mut charges: HashMap<&str, Vec<&Charge>> = HashMap::new();
    for charge in &snapshot.charges {
        charges.entry(&charge.order_id).or_default().push(charge);
    }
    vec![
        every_order_has_ended(snapshot, terms, &orders),
        outcomes_agree(snapshot, &orders),
        nothing_without_its_order(snapshot, &orders),
        one_capture_an_order(snapshot, &charges),
        money_matches(&orders, &charges),
        sold_matches(snapshot, &orders),
        reserved_matches(snapshot, &orders),
        no_oversale(snapshot),
        notified::customers_are_told(snapshot, &orders, terms.patience),
        figures::analytics_agrees(snapshot, &orders),
        no_dead_letters(snapshot, terms),
        durables_caught_up(snapshot, terms),
    ]
}

pub(super) fn order_subject(id: &str) -> String {
    format!("order {id}")
}

fn every_order_has_ended(snapshot: &Snapshot, terms: &Terms, orders: &Orders<'_>) -> Finding {
    let ended = |order: &Order| matches!(order.status.as_str(), "CONFIRMED" | "CANCELLED") && order.ended_at.is_some();
    let late =
        orders.moving.iter().filter(|order| order.created_at + terms.patience <= snapshot.before && !ended(order));
    Finding {
        invariant: "every accepted order has ended",
        looked_at: format!("{} orders, {} of them in flight", snapshot.orders.len(), orders.moving.len()),
        broken: late
            .map(|order| (order_subject(&order.id), format!("{} since {}", order.status, order.created_at)))
            .collect(),
    }
}

/// A confirmed order is captured and sold, a cancelled one holds neither money nor stock.
fn outcomes_agree(snapshot: &Snapshot, orders: &Orders<'_>) -> Finding {
    let payments: HashMap<_, _> =
        snapshot.payments.iter().map(|payment| (payment.order_id.as_str(), payment)).collect();
    let reservations: HashMap<_, _> = snapshot.reservations.iter().map(|held| (held.order_id.as_str(), held)).collect();
    let wrong = |order: &&Order| -> Option<(String, String)> {
        let payment: Option<&Payment> = payments.get(order.id.as_str()).copied();
        let reservation: Option<&Reservation> = reservations.get(order.id.as_str()).copied();
        let paid = payment.map_or("none", |payment| &payment.status);
        let held = reservation.map_or("none", |reservation| &reservation.status);
        let agrees = match order.status.as_str() {
            "CONFIRMED" => paid == "CAPTURED" && held == "SOLD",
            _ => {
                matches!(paid, "none" | "NEVER" | "DECLINED" | "REFUNDED")
                    && matches!(held, "none" | "REJECTED" | "RELEASED")
            }
        };
        let amount = payment.and_then(|payment| payment.amount).filter(|amount| *amount != order.total_amount);
        let mut seen = format!("{}, payment {paid}, reservation {held}", order.status);
        if let Some(amount) = amount {
            seen += &format!(", payment of {amount} for a total of {}", order.total_amount);
        }
        (!agrees || amount.is_some()).then(|| (order_subject(&order.id), seen))
    };
    Finding {
        invariant: "CONFIRMED = CAPTURED = SOLD; CANCELLED holds neither money nor stock",
        looked_at: format!("{} ended orders", orders.settled.len()),
        broken: orders.settled.iter().filter_map(wrong).collect(),
    }
}

fn nothing_without_its_order(snapshot: &Snapshot, orders: &Orders<'_>) -> Finding {
    let payments = snapshot.payments.iter().map(|payment| (&payment.order_id, format!("payment {}", payment.status)));
    let held = snapshot.reservations.iter().map(|held| (&held.order_id, format!("reservation {}", held.status)));
    let charges = snapshot.charges.iter().map(|charge| (&charge.order_id, format!("capture of {}", charge.amount)));
    let mut broken = BTreeMap::<String, String>::new();
    for (order, what) in
        payments.chain(held).chain(charges).filter(|(order, _)| !orders.by_id.contains_key(order.as_str()))
    {
        let seen = broken.entry(order_subject(order)).or_insert_with(|| "unknown to orders".into());
        *seen += ", ";
        *seen += &what;
    }
    Finding {
        invariant: "no payment, reservation or capture without its order",
        looked_at: format!("{} payments, {} reservations", snapshot.payments.len(), snapshot.reservations.len()),
        broken,
    }
}

fn one_capture_an_order(snapshot: &Snapshot, charges: &HashMap<&str, Vec<&Charge>>) -> Finding {
    let list = |charges: &[&Charge]| {
        let amounts: Vec<_> = charges.iter().map(|charge| charge.amount.to_string()).collect();
        format!("captured {} times: {}", charges.len(), amounts.join(", "))
    };
    let twice = charges.iter().filter(|(_, charges)| charges.len() > 1);
    Finding {
        invariant: "the gateway captured an order at most once",
        looked_at: format!("{} captures", snapshot.charges.len()),
        broken: twice.map(|(order, charges)| (order_subject(order), list(charges))).collect(),
    }
}

/// Order by order, so the sums agree as well.
fn money_matches(orders: &Orders<'_>, charges: &HashMap<&str, Vec<&Charge>>) -> Finding {
    let mut sum = Money::ZERO;
    let mut broken = BTreeMap::new();
    for order in &orders.settled {
        let due = if order.status == "CONFIRMED" { order.total_amount } else { Money::ZERO };
        let charges = charges.get(order.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let kept = total(charges.iter().filter(|charge| !charge.refunded).map(|charge| charge.amount));
        sum = total([sum, due].into_iter());
        if kept != due {
            broken
                .insert(order_subject(&order.id), format!("{}, {due} is due, the gateway keeps {kept}", order.status));
        }
    }
    Finding {
        invariant: "the gateway's captures - refunds = totals of confirmed orders",
        looked_at: format!("{sum} confirmed"),
        broken,
    }
}

fn quantities<'a>(orders: impl Iterator<Item = &'a &'a Order>) -> HashMap<&'a str, i64> {
    let mut sums = HashMap::new();
    for line in orders.flat_map(|order| &order.items) {
        *sums.entry(line.product_id.as_str()).or_default() += line.quantity;
    }
    sums
}

/// While orders are in flight, theirs may be counted or not.
fn sold_matches(snapshot: &Snapshot, orders: &Orders<'_>) -> Finding {
    let mut confirmed = quantities(orders.settled.iter().filter(|order| order.status == "CONFIRMED"));
    let moving = quantities(orders.moving.iter());
    let total: i64 = confirmed.values().sum();
    let mut broken = BTreeMap::new();
    for product in &snapshot.products {
        let least = confirmed.remove(product.product_id.as_str()).unwrap_or_default();
        let most = least + moving.get(product.product_id.as_str()).copied().unwrap_or_default();
        if !(least..=most).contains(&product.sold) {
            let up_to = if most > least { format!(" to {most}") } else { String::new() };
            let seen = format!("sold {}, confirmed orders have {least}{up_to}", product.sold);
            broken.insert(format!("product {}", product.product_id), seen);
        }
    }
    for (product, quantity) in confirmed {
        broken.insert(format!("product {product}"), format!("unknown to inventory, confirmed orders have {quantity}"));
    }
    Finding {
        invariant: "sold = quantities of confirmed orders",
        looked_at: format!("{} products, {total} pieces sold", snapshot.products.len()),
        broken,
    }
}

fn reserved_matches(snapshot: &Snapshot, orders: &Orders<'_>) -> Finding {
    let moving = quantities(orders.moving.iter());
    let mut held = HashMap::<&str, i64>::new();
    for line in snapshot.reservations.iter().filter(|held| held.status == "RESERVED").flat_map(|held| &held.lines) {
        *held.entry(&line.product_id).or_default() += line.quantity;
    }
    let mut broken = BTreeMap::new();
    for product in &snapshot.products {
        let id = product.product_id.as_str();
        let most = moving.get(id).copied().unwrap_or_default();
        let held = held.get(id).copied().unwrap_or_default();
        // The two lists are read one after the other, so they must agree only when nothing moves.
        if !(0..=most).contains(&product.reserved) || (orders.moving.is_empty() && held != product.reserved) {
            let seen = format!("reserved {}, reservations hold {held}, orders in flight need {most}", product.reserved);
            broken.insert(format!("product {id}"), seen);
        }
    }
    let reserved: i64 = snapshot.products.iter().map(|product| product.reserved).sum();
    Finding {
        invariant: "reserved = quantities held by orders in flight",
        looked_at: format!("{reserved} pieces reserved"),
        broken,
    }
}

fn no_oversale(snapshot: &Snapshot) -> Finding {
    let wrong = snapshot.products.iter().filter(|product| {
        let left = product.initial - product.reserved - product.sold;
        left < 0 || left != product.available || product.reserved < 0 || product.sold < 0
    });
    let initial: i64 = snapshot.products.iter().map(|product| product.initial).sum();
    Finding {
        invariant: "initial = available + reserved + sold, none below 0",
        looked_at: format!("{initial} pieces initially"),
        broken: wrong
            .map(|product| {
                let (initial, available) = (product.initial, product.available);
                let seen = format!("{initial} = {available} + {} + {}?", product.reserved, product.sold);
                (format!("product {}", product.product_id), seen)
            })
            .collect(),
    }
}

fn no_dead_letters(snapshot: &Snapshot, terms: &Terms) -> Finding {
    let streams = || snapshot.dead.iter().filter(|stream| stream.left > 0);
    let dead: u64 = streams().map(|stream| stream.left).sum();
    let poisoned: u64 = snapshot.dead.iter().map(|stream| stream.poisoned).sum();
    let mut broken = BTreeMap::new();
    if dead != terms.dead_letters {
        broken.extend(
            streams().map(|stream| (format!("stream {}", stream.stream), format!("{} dead letters", stream.left))),
        );
        if dead == 0 {
            broken.insert("dead letters".into(), format!("{} expected, found none", terms.dead_letters));
        }
    }
    Finding {
        invariant: "no unexpected dead letters",
        looked_at: match poisoned {
            0 => format!("{dead} of {} expected", terms.dead_letters),
            _ => format!("{dead} of {} expected, and {poisoned} poisoned by the demonstration", terms.dead_letters),
        },
        broken,
    }
}

fn durables_caught_up(snapshot: &Snapshot, terms: &Terms) -> Finding {
    let behind = snapshot.durables.iter().filter(|durable| {
        let since = terms.first_sequences.get(&durable.stream);
        let moves_on = since.is_some_and(|first| durable.ack_floor >= *first);
        (durable.pending > 0 || durable.unacked > 0) && !moves_on
    });
    Finding {
        invariant: "every durable has handled its stream",
        looked_at: format!("{} durables", snapshot.durables.len()),
        broken: behind
            .map(|durable| {
                let seen = format!("{} pending, {} unacked", durable.pending, durable.unacked);
                (format!("durable {} on {}", durable.name, durable.stream), seen)
            })
            .collect(),
    }
}
