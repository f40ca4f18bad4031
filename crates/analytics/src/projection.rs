//! Adds each event to the figures. Addition is commutative: OrderConfirmed may arrive before OrderCreated.

use contracts::OrderId;
use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use millstream::{Event, Fault, Handler, Id, Keys, Meta, Received, Unit};

use crate::figures::{Sold, Totals};
use crate::spread::Spread;

/// An event that is counted.
pub(crate) trait Counted: Event {
    /// The product figures it changes.
    fn products(&self) -> Vec<String> {
        vec![]
    }

    /// Adds it.
    fn add_to(&self, meta: &Meta, totals: &mut Totals, unit: &mut Unit<'_>) -> Result<(), Fault>;
}

/// Adds an event to the figures.
pub(crate) struct Add;

impl<E: Counted> Handler<E> for Add {
    fn touches(&self, event: &Received<E>) -> Keys {
        Keys::one::<Totals>(Totals::ID).and_all::<Sold>(event.products())
    }

    fn handle(&self, event: &Received<E>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let mut totals = unit.get::<Totals>(Totals::ID)?.unwrap_or_default();
        totals.saw(event.meta.time);
        event.add_to(&event.meta, &mut totals, unit)?;
        unit.put(totals);
        Ok(())
    }
}

impl Counted for OrderCreated {
    fn add_to(&self, _: &Meta, totals: &mut Totals, _: &mut Unit<'_>) -> Result<(), Fault> {
        totals.accepted += 1;
        Ok(())
    }
}

impl Counted for OrderConfirmed {
    fn products(&self) -> Vec<String> {
        self.lines.iter().map(|line| Sold::id_of(&line.product_id, self.currency)).collect()
    }

    fn add_to(&self, meta: &Meta, totals: &mut Totals, unit: &mut Unit<'_>) -> Result<(), Fault> {
        totals.confirmed += 1;
        totals.revenue.entry(self.currency.code().into()).or_default().add(self.total.minor());
        add_duration(&mut totals.to_confirmed, &self.order_id, meta);
        for line in &self.lines {
            let sold = unit.get::<Sold>(&Sold::id_of(&line.product_id, self.currency))?;
            let mut sold = sold.unwrap_or_else(|| Sold::none_of(line.product_id.clone(), self.currency));
            sold.quantity += u64::from(line.quantity);
            sold.revenue.add(line.price.minor().saturating_mul(i64::from(line.quantity)));
            unit.put(sold);
        }
        Ok(())
    }
}

impl Counted for OrderCancelled {
    fn add_to(&self, meta: &Meta, totals: &mut Totals, _: &mut Unit<'_>) -> Result<(), Fault> {
        totals.cancelled.add(self.reason);
        add_duration(&mut totals.to_cancelled, &self.order_id, meta);
        Ok(())
    }
}

/// An order's id is that of the command that placed it, and begins with its arrival time. So the duration of its saga can be
/// computed from the final event alone, even if the first event has not arrived yet, or has expired.
fn add_duration(spread: &mut Spread, order: &OrderId, meta: &Meta) {
    if let Some(placed) = order.parse::<Id>().ok().and_then(Id::time) {
        spread.add(meta.time.since(placed));
    }
}
