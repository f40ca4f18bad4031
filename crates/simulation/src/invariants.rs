//! What must hold when the shop is at rest, from the services' own documents and from the card company's books.

use std::collections::BTreeMap;

use contracts::{Money, OrderId};
use inventory::{Product, Reservation};
use millstream::sim::{Call, Sim};
use notifications::Notification;
use orders::Order;
use payments::{Payment, PaymentState};

use crate::gateway::Company;

const SERVICES: [&str; 5] = ["orders", "inventory", "payments", "notifications", "analytics"];

pub(crate) fn check(sim: &mut Sim, placed: &[(Call, Money)], company: &Company) -> Result<(), String> {
    let orders: BTreeMap<OrderId, Order> =
        sim.all::<Order>("orders").into_iter().map(|order| (order.id.clone(), order)).collect();
    every_call_has_one_order(sim, placed, &orders)?;
    for order in orders.values() {
        outcome_agrees(sim, order, company)?;
    }
    nothing_without_an_order(sim, &orders, company)?;
    stock_adds_up(sim, &orders)?;
    everybody_is_told_once(sim, &orders)?;
    analytics_has_counted(sim, &orders)?;
    for service in SERVICES {
        let letters = sim.dead_letters(service);
        if !letters.is_empty() {
            return Err(format!("{service} has dead letters: {letters:?}"));
        }
    }
    let violations = sim.counted("orders", &orders::INVARIANT_VIOLATIONS, &[])
        + sim.counted("inventory", &inventory::INVARIANT_VIOLATIONS, &[]);
    if violations > 0.0 { Err("a service has counted a violation".into()) } else { Ok(()) }
}

fn every_call_has_one_order(
    sim: &Sim,
    placed: &[(Call, Money)],
    orders: &BTreeMap<OrderId, Order>,
) -> Result<(), String> {
    if orders.len() != placed.len() {
        return Err(format!("{} calls under keys of their own made {} orders", placed.len(), orders.len()));
    }
    for (call, total) in placed {
        let accepted = match sim.reply::<Order>(*call) {
            Some(Ok(order)) => order,
            other => return Err(format!("an order was not taken: {other:?}")),
        };
        let order = orders.get(&accepted.id).ok_or("an order that was accepted is gone")?;
        if order.total != *total {
            return Err(format!("order {} was accepted with another total", order.id));
        }
    }
    Ok(())
}

fn outcome_agrees(sim: &Sim, order: &Order, company: &Company) -> Result<(), String> {
    use inventory::Status::{Rejected, Released, Sold};
    use orders::Status::{Cancelled, Confirmed};
    let id = &order.id;
    let payment = sim.get::<Payment>("payments", id).map(|payment| payment.state);
    let reservation = sim.get::<Reservation>("inventory", id).map(|reservation| reservation.status);
    let captures = company.captures(id);
    if captures.len() > 1 {
        return Err(format!("order {id} was charged {} times", captures.len()));
    }
    let kept: Vec<_> = captures.iter().filter(|capture| !capture.refunded).collect();
    let right = match order.status {
        Confirmed => {
            matches!(payment, Some(PaymentState::Captured { .. }))
                && reservation == Some(Sold)
                && kept.len() == 1
                && kept[0].amount == order.total
        }
        Cancelled => {
            let unpaid = matches!(
                payment,
                None | Some(PaymentState::Never | PaymentState::Declined { .. } | PaymentState::Refunded { .. })
            );
            unpaid && matches!(reservation, None | Some(Rejected | Released)) && kept.is_empty()
        }
        status => return Err(format!("order {id} has not ended: {status:?}")),
    };
    let payment = payment.map_or("no payment", |state| state.name());
    if right {
        Ok(())
    } else {
        Err(format!("order {id} is {:?}, {payment}, {reservation:?}, captures {captures:?}", order.status))
    }
}

fn nothing_without_an_order(sim: &Sim, orders: &BTreeMap<OrderId, Order>, company: &Company) -> Result<(), String> {
    let reservations = sim.all::<Reservation>("inventory").into_iter().map(|reservation| reservation.id);
    let payments = sim.all::<Payment>("payments").into_iter().map(|payment| payment.id);
    match reservations.chain(payments).chain(company.orders()).find(|id| !orders.contains_key(id)) {
        None => Ok(()),
        Some(id) => Err(format!("{id} is no order")),
    }
}

fn stock_adds_up(sim: &Sim, orders: &BTreeMap<OrderId, Order>) -> Result<(), String> {
    for product in sim.all::<Product>("inventory") {
        let confirmed = orders.values().filter(|order| order.status == orders::Status::Confirmed);
        let lines = confirmed.flat_map(|order| &order.lines).filter(|line| line.product_id == product.id);
        let sold: u64 = lines.map(|line| u64::from(line.quantity)).sum();
        if (product.sold, product.reserved) != (sold, 0) || product.sold > product.initial {
            return Err(format!("orders took {sold} of {product:?}"));
        }
    }
    Ok(())
}

fn everybody_is_told_once(sim: &Sim, orders: &BTreeMap<OrderId, Order>) -> Result<(), String> {
    let told = sim.all::<Notification>("notifications");
    for order in orders.values() {
        let ended = told.iter().filter(|told| told.order_id == order.id);
        let ended = ended.filter(|told| told.occasion != notifications::Occasion::Refunded);
        let sent: Vec<_> = ended.map(|told| told.status).collect();
        if sent != [notifications::Status::Sent] {
            return Err(format!("the customer of {} was told {sent:?}", order.id));
        }
    }
    Ok(())
}

fn analytics_has_counted(sim: &Sim, orders: &BTreeMap<OrderId, Order>) -> Result<(), String> {
    let totals = sim.all::<analytics::Totals>("analytics").pop().unwrap_or_default();
    let confirmed = orders.values().filter(|order| order.status == orders::Status::Confirmed).count();
    if (totals.accepted, totals.confirmed) == (orders.len() as u64, confirmed as u64) {
        return Ok(());
    }
    let (all, counted) = (orders.len(), (totals.accepted, totals.confirmed));
    Err(format!("analytics has counted {counted:?} of {all} orders, of which {confirmed} are confirmed"))
}
