//! Handlers for the events of other services: stock was reserved, an order was cancelled.

use contracts::inventory::InventoryReserved;
use contracts::orders::OrderCancelled;
use millstream::{Fault, Handler, Keys, Received, Unit};

use crate::effects::{CHARGE, REFUND};
use crate::metrics::PAYMENTS;
use crate::payment::{Payment, PaymentState, Terms};

/// Stock was reserved: starts the charge, unless the order is already cancelled.
pub(crate) struct Charge;

impl Handler<InventoryReserved> for Charge {
    fn touches(&self, reserved: &Received<InventoryReserved>) -> Keys {
        Keys::one::<Payment>(&reserved.order_id)
    }

    fn handle(&self, reserved: &Received<InventoryReserved>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let id = &reserved.order_id;
        if unit.get::<Payment>(id)?.is_none() {
            let terms =
                Terms { amount: reserved.amount, currency: reserved.currency, customer: reserved.customer.clone() };
            let state = PaymentState::Charging { terms, cancel_requested: false };
            unit.put_with_wake(Payment { id: id.clone(), state }, CHARGE, unit.now());
        }
        Ok(())
    }
}

/// The order was cancelled: prevents the charge, or refunds it.
pub(crate) struct Cancel;

impl Handler<OrderCancelled> for Cancel {
    fn touches(&self, order: &Received<OrderCancelled>) -> Keys {
        Keys::one::<Payment>(&order.order_id)
    }

    fn handle(&self, order: &Received<OrderCancelled>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let id = &order.order_id;
        let Some(payment) = unit.get::<Payment>(id)? else {
            unit.put(Payment { id: id.clone(), state: PaymentState::Never });
            return Ok(());
        };
        match payment.state {
            PaymentState::Charging { terms, .. } => {
                // Attempt 0: nothing was sent, for a claim would have changed the document's version, and this commit fails
                // on any other version than the one read. From 1 on only the outcome tells whether there is money to return.
                if unit.wake_of::<Payment>(id).is_some_and(|wake| wake.attempt == 0) {
                    unit.put_without_wake(Payment { id: id.clone(), state: PaymentState::Never });
                } else {
                    unit.put(Payment {
                        id: id.clone(),
                        state: PaymentState::Charging { terms, cancel_requested: true },
                    });
                }
            }
            PaymentState::Captured { terms, charge_id } => {
                unit.count(&PAYMENTS, &["refund_pending"]);
                let state = PaymentState::Refunding { terms, charge_id };
                unit.put_with_wake(Payment { id: id.clone(), state }, REFUND, unit.now());
            }
            PaymentState::Never
            | PaymentState::Declined { .. }
            | PaymentState::Refunding { .. }
            | PaymentState::Refunded { .. } => {}
        }
        Ok(())
    }
}
