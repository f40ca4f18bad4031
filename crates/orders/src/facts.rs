//! Handlers for the events of other services about an order, and its deadline.

use std::time::Duration;

use contracts::inventory::{InventoryRejected, InventoryReserved};
use contracts::payments::{PaymentProcessed, PaymentRefunded, PaymentStatus};
use millstream::telemetry::Metric;
use millstream::{Event, Fault, Handler, Keys, Kind, Received, Timer, Unit};

use crate::metrics::{OVERDUE, TOLERANCE};
use crate::order::{Change, Fact, Order};

/// An event that reports a fact about the order in its key.
pub(crate) trait Tells: Event {
    fn fact(&self) -> Fact;
}

impl Tells for InventoryReserved {
    fn fact(&self) -> Fact {
        Fact::Reserved
    }
}

impl Tells for InventoryRejected {
    fn fact(&self) -> Fact {
        Fact::Rejected
    }
}

impl Tells for PaymentProcessed {
    fn fact(&self) -> Fact {
        match self.status {
            PaymentStatus::Success => Fact::Captured,
            PaymentStatus::Failed => Fact::Declined,
        }
    }
}

impl Tells for PaymentRefunded {
    fn fact(&self) -> Fact {
        Fact::Refunded
    }
}

/// Applies the fact to the order.
pub(crate) struct Learn;

impl<E: Tells> Handler<E> for Learn {
    fn touches(&self, event: &Received<E>) -> Keys {
        Keys::one::<Order>(event.key())
    }

    fn handle(&self, event: &Received<E>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let Some(mut order) = unit.get::<Order>(event.key())? else {
            // Money may depend on it: the event is retried and then parked, never dropped.
            return Err(Fault::Retry(format!("no order {}", event.key())));
        };
        let change = order.learn(event.fact(), unit);
        stage(order, change, unit);
        Ok(())
    }
}

pub(crate) fn stage(order: Order, change: Change, unit: &mut Unit<'_>) {
    match change {
        Change::None => {}
        Change::Noted => unit.put(order),
        Change::Ended => unit.put_without_wake(order),
    }
}

/// Cancels an order that is not finished by its deadline.
pub struct Deadline;

impl Timer for Deadline {
    type Document = Order;
    const KIND: Kind<Order> = Kind::new("deadline");

    fn fire(&self, order: &mut Order, unit: &mut Unit<'_>) {
        order.learn(Fact::Deadline, unit);
    }

    fn overdue(&self) -> Option<(&'static Metric, Duration)> {
        Some((&OVERDUE, TOLERANCE))
    }

    fn cancellable(&self) -> bool {
        true
    }
}
