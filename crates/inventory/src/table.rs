//! Every row of the inventory's table, and every pair that is not in it.

use contracts::inventory::InventoryRejected;
use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::{Currency, Line, Money, OrderId};
use millstream::event::Emitted;
use millstream::workbench::Workbench;
use millstream::{Fault, Id};

use crate::saga::{Release, Reserve, Sell};
use crate::{INVARIANT_VIOLATIONS, Product, Reservation, SetStock, Status, service};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fact {
    Created,
    Cancelled,
    Confirmed,
}

pub(crate) fn stock(bench: &mut Workbench, product: &str, initial: u64) -> Result<(), Fault> {
    let set = SetStock { product_id: product.parse().unwrap(), name: None, initial };
    bench.command(Id::random(bench.now), &set).map(|_| ())
}

pub(crate) fn line(product: &str, quantity: u32) -> Line {
    Line { product_id: product.parse().unwrap(), quantity, price: Money::from_minor(100).unwrap() }
}

pub(crate) fn tell(bench: &mut Workbench, order: &str, lines: &[Line], fact: Fact) -> Result<Vec<Emitted>, Fault> {
    let order_id: OrderId = order.parse().unwrap();
    let (user_id, lines, currency) = ("u".parse().unwrap(), lines.to_vec(), Currency::Eur);
    let total = Line::total(&lines).unwrap();
    match fact {
        Fact::Created => {
            let event = bench.received(OrderCreated { order_id, user_id, lines, total, currency });
            bench.handle(&Reserve, &event)
        }
        Fact::Cancelled => {
            let reason = CancelReason::Customer;
            let event = bench.received(OrderCancelled { order_id, user_id, lines, total, currency, reason });
            bench.handle(&Release, &event)
        }
        Fact::Confirmed => {
            let event = bench.received(OrderConfirmed { order_id, user_id, lines, total, currency });
            bench.handle(&Sell, &event)
        }
    }
}

fn bench(initial: u64) -> Workbench {
    let mut bench = Workbench::of(&service());
    stock(&mut bench, "a", initial).unwrap();
    stock(&mut bench, "b", 10).unwrap();
    bench
}

fn wanted() -> Vec<Line> {
    vec![line("a", 3), line("b", 1)]
}

/// A bench on which the order `o` is in a state; `None`: never heard of.
fn bench_in(state: Option<Status>) -> Workbench {
    let mut bench = bench(if state == Some(Status::Rejected) { 2 } else { 3 });
    let facts: &[Fact] = match state {
        None => &[],
        Some(Status::Reserved | Status::Rejected) => &[Fact::Created],
        Some(Status::Released) => &[Fact::Created, Fact::Cancelled],
        Some(Status::Sold) => &[Fact::Created, Fact::Confirmed],
    };
    for fact in facts {
        tell(&mut bench, "o", &wanted(), *fact).unwrap();
    }
    assert_eq!(bench.get::<Reservation>("o").map(|reservation| reservation.status), state);
    bench
}

/// What a row says: the state after it, the event that is emitted, and (reserved, sold) of product `a`.
type Row = (Status, Option<&'static str>, (u64, u64));

fn check(from: Option<Status>, fact: Fact, (to, event, counts): Row, violations: f64) {
    let mut bench = bench_in(from);
    let case = format!("{from:?} on {fact:?}");
    let emitted = tell(&mut bench, "o", &wanted(), fact).unwrap();
    let subjects: Vec<_> = emitted.iter().map(|event| event.subject.rsplit_once('.').unwrap().0).collect();
    assert_eq!(subjects, Vec::from_iter(event), "{case}");
    assert_eq!(bench.get::<Reservation>("o").unwrap().status, to, "{case}");
    let product = bench.get::<Product>("a").unwrap();
    assert_eq!((product.reserved, product.sold), counts, "{case}");
    assert_eq!(bench.counted(&INVARIANT_VIOLATIONS, &[]), violations, "{case}");
    let after = bench.state();
    assert_eq!(tell(&mut bench, "o", &wanted(), fact).unwrap(), [], "{case}, again");
    assert_eq!(bench.state(), after, "{case}, again");
}

#[test]
fn every_pair_of_state_and_fact_does_what_the_table_says() {
    use Fact::{Cancelled, Confirmed, Created};
    use Status::{Rejected, Released, Reserved, Sold};
    check(None, Created, (Reserved, Some("inventory.reserved"), (3, 0)), 0.0);
    check(None, Cancelled, (Released, None, (0, 0)), 0.0);
    check(Some(Reserved), Created, (Reserved, None, (3, 0)), 0.0);
    check(Some(Reserved), Cancelled, (Released, Some("inventory.released"), (0, 0)), 0.0);
    check(Some(Reserved), Confirmed, (Sold, None, (0, 3)), 0.0);
    check(Some(Rejected), Created, (Rejected, None, (0, 0)), 0.0);
    check(Some(Rejected), Cancelled, (Rejected, None, (0, 0)), 0.0);
    check(Some(Rejected), Confirmed, (Rejected, None, (0, 0)), 1.0);
    check(Some(Released), Created, (Released, None, (0, 0)), 0.0);
    check(Some(Released), Cancelled, (Released, None, (0, 0)), 0.0);
    check(Some(Released), Confirmed, (Released, None, (0, 0)), 1.0);
    check(Some(Sold), Created, (Sold, None, (0, 3)), 0.0);
    check(Some(Sold), Cancelled, (Sold, None, (0, 3)), 1.0);
    check(Some(Sold), Confirmed, (Sold, None, (0, 3)), 0.0);
}

#[test]
fn an_order_of_which_a_line_is_short_reserves_nothing_and_names_the_short_lines() {
    let mut bench = bench(2);
    let emitted = tell(&mut bench, "o", &[line("a", 3), line("b", 1), line("unknown", 1)], Fact::Created).unwrap();
    let rejected: InventoryRejected = serde_json::from_slice(&emitted[0].payload).unwrap();
    let short: Vec<_> = rejected.short.iter().map(|s| (&*s.product_id, s.requested, s.available)).collect();
    assert_eq!(short, [("a", 3, 2), ("unknown", 1, 0)]);
    assert_eq!(bench.get::<Product>("b").unwrap().reserved, 0);
    assert!(bench.get::<Product>("unknown").is_none());
}

#[test]
fn two_lines_of_one_product_are_counted_together() {
    let mut bench = bench(3);
    let emitted = tell(&mut bench, "o", &[line("a", 2), line("a", 2)], Fact::Created).unwrap();
    assert!(emitted[0].subject.starts_with("inventory.rejected."));
}

#[test]
fn a_confirmation_of_an_order_never_heard_of_is_tried_again() {
    let mut bench = bench_in(None);
    assert!(matches!(tell(&mut bench, "o", &wanted(), Fact::Confirmed), Err(Fault::Retry(_))));
    assert!(bench.get::<Reservation>("o").is_none());
}

#[test]
fn stock_is_never_set_below_what_is_reserved_and_sold() {
    let mut bench = bench_in(Some(Status::Sold));
    tell(&mut bench, "p", &[line("b", 2)], Fact::Created).unwrap();
    assert!(matches!(stock(&mut bench, "a", 2), Err(Fault::Reject(reject))
        if reject.status == 409 && reject.detail.contains("at least 3, not 2")));
    stock(&mut bench, "a", 3).unwrap();
    assert!(stock(&mut bench, "b", 2).is_err());
    stock(&mut bench, "b", 3).unwrap();
    assert_eq!(bench.get::<Product>("b").unwrap().available(), 0);
}
