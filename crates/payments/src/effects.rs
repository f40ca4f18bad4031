//! The two things done outside: charging, and giving back.

use std::sync::Arc;
use std::time::Duration;

use contracts::OrderId;
use contracts::payments::{PaymentProcessed, PaymentRefunded, PaymentStatus};
use millstream::{Effect, Kind, Outage, Timestamp, Unit, Wake};

use crate::gateway::{Charged, Gateway, Refunded};
use crate::metrics::PAYMENTS;
use crate::payment::{Payment, PaymentState, Terms};

pub(crate) const CHARGE: Kind<Payment> = Kind::new("charge");
pub(crate) const REFUND: Kind<Payment> = Kind::new("refund");

/// Gateways forget idempotency keys, often after 24 hours. Before that a repeat under the key is harmless; from then on the
/// gateway is asked first what it has. One hour is left for clocks that differ and for answers on their way.
const KEYS_KEPT: Duration = Duration::from_secs(23 * 60 * 60);

fn key_may_be_forgotten(wake: &Wake) -> bool {
    Timestamp::system().since(wake.opened) >= KEYS_KEPT
}

/// Takes the money for an order.
pub struct ChargeCard<G>(pub Arc<G>);

impl<G: Gateway> Effect for ChargeCard<G> {
    type Document = Payment;
    type Outcome = Charged;
    const KIND: Kind<Payment> = CHARGE;

    async fn run(&self, payment: &Payment, wake: &Wake) -> Result<Charged, Outage> {
        let order = &payment.id;
        let PaymentState::Charging { terms: Terms { amount, currency, customer }, .. } = &payment.state else {
            return Err(Outage::new(format!("payment {order} is {} and has nothing to charge", payment.state.name())));
        };
        if key_may_be_forgotten(wake)
            && let Some(charged) = charged_before(&*self.0, order).await?
        {
            return Ok(charged);
        }
        self.0.charge(order, *amount, *currency, customer, &format!("{CHARGE}-{order}")).await
    }

    fn settle(&self, payment: &mut Payment, charged: Charged, unit: &mut Unit<'_>) {
        let PaymentState::Charging { terms, cancel_requested } = payment.state.clone() else { return };
        let processed = PaymentProcessed {
            order_id: payment.id.clone(),
            status: PaymentStatus::Success,
            amount: terms.amount,
            currency: terms.currency,
            customer: terms.customer.clone(),
            charge_id: None,
            reason: None,
        };
        match charged {
            Charged::Captured { charge_id } => {
                unit.count(&PAYMENTS, &["captured"]);
                unit.emit(&PaymentProcessed { charge_id: Some(charge_id.clone()), ..processed });
                payment.state = if cancel_requested {
                    unit.count(&PAYMENTS, &["refund_pending"]);
                    unit.set_next_wake(REFUND, unit.now());
                    PaymentState::Refunding { terms, charge_id }
                } else {
                    PaymentState::Captured { terms, charge_id }
                };
            }
            Charged::Declined { reason } => {
                unit.count(&PAYMENTS, &["declined"]);
                let status = PaymentStatus::Failed;
                unit.emit(&PaymentProcessed { status, reason: Some(reason.clone()), ..processed });
                payment.state = PaymentState::Declined { terms, reason };
            }
        }
    }
}

/// What the gateway has of an order already: money that is there was captured, money that was given back at the gateway's own
/// desk is not there to be had, and is not asked for a second time.
async fn charged_before(gateway: &impl Gateway, order: &OrderId) -> Result<Option<Charged>, Outage> {
    let captures = gateway.find(order).await?;
    if let Some(capture) = captures.iter().find(|capture| !capture.refunded) {
        return Ok(Some(Charged::Captured { charge_id: capture.charge_id.clone() }));
    }
    let refunded = !captures.is_empty();
    Ok(refunded.then(|| Charged::Declined { reason: "charged and refunded at the gateway already".into() }))
}

/// Gives back what a cancelled order has paid.
pub struct RefundCharge<G>(pub Arc<G>);

impl<G: Gateway> Effect for RefundCharge<G> {
    type Document = Payment;
    type Outcome = ();
    const KIND: Kind<Payment> = REFUND;

    async fn run(&self, payment: &Payment, wake: &Wake) -> Result<(), Outage> {
        let order = &payment.id;
        let PaymentState::Refunding { terms, .. } = &payment.state else {
            return Err(Outage::new(format!("payment {order} is {} and has nothing to refund", payment.state.name())));
        };
        if key_may_be_forgotten(wake) && refunded_before(&*self.0, order).await? {
            return Ok(());
        }
        match self.0.refund(order, terms.amount, &format!("{REFUND}-{order}")).await? {
            Refunded::Done => Ok(()),
            Refunded::NothingCaptured if refunded_before(&*self.0, order).await? => Ok(()),
            Refunded::NothingCaptured => {
                Err(Outage::new(format!("the gateway has no capture for order {order}, which it had captured")))
            }
        }
    }

    fn settle(&self, payment: &mut Payment, (): (), unit: &mut Unit<'_>) {
        let PaymentState::Refunding { terms, charge_id } = payment.state.clone() else { return };
        unit.count(&PAYMENTS, &["refunded"]);
        unit.emit(&PaymentRefunded {
            order_id: payment.id.clone(),
            amount: terms.amount,
            currency: terms.currency,
            customer: terms.customer.clone(),
        });
        payment.state = PaymentState::Refunded { terms, charge_id };
    }
}

async fn refunded_before(gateway: &impl Gateway, order: &OrderId) -> Result<bool, Outage> {
    let captures = gateway.find(order).await?;
    Ok(!captures.is_empty() && captures.iter().all(|capture| capture.refunded))
}
