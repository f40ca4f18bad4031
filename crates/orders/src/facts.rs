//! What other services tell about an order, and its deadline.

use std::time::Duration;

use contracts::inventory::{InventoryRejected, InventoryReserved};
use contracts::payments::{PaymentProcessed, PaymentRefunded, PaymentStatus};
use millstream::telemetry::Metric;
use millstream::{Event, Fault, Handler, Keys, Kind, Received, Timer, Unit};

use crate::metrics::{OVERDUE, TOLERANCE};
use crate::order::{Change, Fact, Order};

/// An event that tells a fact about the order that is its key.
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

/// Takes in what an event tells.
pub(crate) struct Learn;

impl<E: Tells> Handler<E> for Learn {
    fn touches(&self, event: &Received<E>) -> Keys {
        Keys::one::<Order>(event.key())
    }

    fn handle(&self, event: &Received<E>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let Some(mut order) = unit.get::<Order>(event.key())? else {
            // Money may hang on it: it is tried again and then parked, never dropped.
            return Err(Fault::Retry(format!("there is no order {}", event.key())));
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

/// An order that has not ended in time is cancelled.
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
