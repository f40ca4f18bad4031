//! What an order costs each service, for a profiler that counts instructions: a world that is always the same, in which nothing
//! goes wrong, and each service at work within a function that is called like it.

use std::sync::Arc;

use contracts::{Line, Money};
use inventory::SetStock;
use millstream::sim::Sim;
use orders::{PlaceOrder, Settings};

use crate::gateway::{Cards, Company};
use crate::{id, notifications};

/// Places so many orders, and works until each has ended.
///
/// # Errors
/// When one has not.
pub fn orders(count: usize) -> Result<(), String> {
    let company = Arc::new(Company::new(0));
    let mut sim = Sim::new(0)
        .with(&orders::service(Settings::default()), 1)
        .with(&inventory::service(), 1)
        .with(&payments::service(Cards(company)), 1)
        .with(&notifications(), 1)
        .with(&analytics::service(), 1)
        .within("orders", within::orders)
        .within("inventory", within::inventory)
        .within("payments", within::payments)
        .within("notifications", within::notifications)
        .within("analytics", within::analytics);
    sim.call("inventory", Some("stock"), SetStock { product_id: id("chai"), name: None, initial: 1_000_000 });
    sim.settle()?;
    let price = Money::from_minor(450).ok_or("a price")?;
    let mut placed = vec![];
    for number in 0..count {
        let lines = vec![Line { product_id: id("chai"), quantity: 1, price }];
        let total = Line::total(&lines).ok_or("a total")?;
        let place = PlaceOrder { user_id: id("ALFKI"), total, lines };
        placed.push(sim.call_to("orders", Some(&format!("order {number}")), Settings::default(), place));
    }
    sim.settle()?;
    let open = |order: &orders::Order| matches!(order.status, orders::Status::Pending | orders::Status::Reserved);
    let all = sim.all::<orders::Order>("orders");
    if all.len() != count
        || all.iter().any(open)
        || placed.iter().any(|call| sim.reply::<orders::Order>(*call).is_none())
    {
        return Err(format!("of {count} orders not all have ended"));
    }
    Ok(())
}

/// A function a service: what it calls is that service's.
mod within {
    macro_rules! services {
        ($($name:ident)*) => {
            $(
                #[inline(never)]
                pub(super) fn $name(turn: &mut dyn FnMut()) {
                    turn();
                    // What follows keeps the call from being a jump, after which a profiler would see another function.
                    std::hint::black_box(());
                }
            )*
        };
    }
    services!(orders inventory payments notifications analytics);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_orders_whose_cost_is_counted_all_end() {
        super::orders(20).unwrap();
    }
}
