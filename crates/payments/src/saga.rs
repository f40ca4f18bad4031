//! Handlers for the events of other services: stock was reserved, an order was cancelled.

use contracts::inventory::InventoryReserved;
use contracts::orders::OrderCancelled;
use millstream::{Fault, Handler, Keys, Received, Unit};

use crate::effects::{CHARGE, REFUND};
use crate::metrics::PAYMENTS;
use crate::payment::{Payment, State, Terms};

/// Stock was reserved: starts the charge, unless the order is already cancelled.
pub(crate) struct Charge;

impl Handler for Charge {
    type On = InventoryReserved;

    fn touches(&self, reserved: &Received<InventoryReserved>) -> Keys {
        Keys::one::<Payment>(&reserved.order_id)
    }

    fn handle(&self, reserved: &Received<InventoryReserved>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let id = &reserved.order_id;
        if unit.get::<Payment>(id)?.is_none() {
            let terms =
                Terms { amount: reserved.amount, currency: reserved.currency, customer: reserved.customer.clone() };
            let state = State::Charging { terms, cancel_requested: false };
            unit.put_waking(Payment { id: id.clone(), state }, CHARGE, unit.now());
        }
        Ok(())
    }
}

/// The order was cancelled: prevents the charge, or refunds it.
pub(crate) struct Cancel;

impl Handler for Cancel {
    type On = OrderCancelled;

    fn touches(&self, order: &Received<OrderCancelled>) -> Keys {
        Keys::one::<Payment>(&order.order_id)
    }

    fn handle(&self, order: &Received<OrderCancelled>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let id = &order.order_id;
        let Some(payment) = unit.get::<Payment>(id)? else {
            unit.put(Payment { id: id.clone(), state: State::Never });
            return Ok(());
        };
        match payment.state {
            State::Charging { terms, .. } => {
                // Attempt 0: nothing was sent, because a claim would have changed the document's version, and this commit fails
                // on any other version than the one read. From attempt 1 on, only the outcome shows whether there is a capture to refund.
                if unit.wake_of::<Payment>(id).is_some_and(|wake| wake.attempt == 0) {
                    unit.put_resting(Payment { id: id.clone(), state: State::Never });
                } else {
                    unit.put(Payment { id: id.clone(), state: State::Charging { terms, cancel_requested: true } });
                }
            }
            State::Captured { terms, charge_id } => {
                unit.count(&PAYMENTS, &["refund_pending"]);
                let state = State::Refunding { terms, charge_id };
                unit.put_waking(Payment { id: id.clone(), state }, REFUND, unit.now());
            }
            State::Never | State::Declined { .. } | State::Refunding { .. } | State::Refunded { .. } => {}
        }
        Ok(())
    }
}
