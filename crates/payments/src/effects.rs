//! The two effects: charging and refunding.

use std::sync::Arc;

use contracts::OrderId;
use contracts::payments::{PaymentProcessed, PaymentRefunded, PaymentStatus};
use millstream::{Effect, Kind, Outage, Timestamp, Unit, Wake};

use crate::gateway::{Charged, Gateway, Refunded};
use crate::metrics::PAYMENTS;
use crate::payment::{Payment, PaymentState, Terms};

pub(crate) const CHARGE: Kind<Payment> = Kind::new("charge");
pub(crate) const REFUND: Kind<Payment> = Kind::new("refund");

/// Until the gateway may have forgotten the key, a repeat under it is harmless; after that the gateway is queried first.
fn key_may_be_forgotten(gateway: &impl Gateway, wake: &Wake) -> bool {
    Timestamp::system().since(wake.opened) >= gateway.query_after()
}

/// Charges an order.
pub struct ChargeCard<G>(pub Arc<G>);

impl<G: Gateway> Effect for ChargeCard<G> {
    type Document = Payment;
    type Outcome = Charged;
    const KIND: Kind<Payment> = CHARGE;

    async fn run(&self, payment: &Payment, wake: &Wake) -> Result<Charged, Outage> {
        let order = &payment.id;
        let PaymentState::Charging { terms: Terms { amount, currency, customer }, .. } = &payment.state else {
            return Err(Outage::new(format!("payment {order} is {}: nothing to charge", payment.state.name())));
        };
        if key_may_be_forgotten(&*self.0, wake)
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

/// The gateway's existing charge for an order: an open capture counts as captured; a charge that was refunded at the gateway's
/// own interface counts as declined, and is not repeated.
async fn charged_before(gateway: &impl Gateway, order: &OrderId) -> Result<Option<Charged>, Outage> {
    let captures = gateway.find(order).await?;
    if let Some(capture) = captures.iter().find(|capture| !capture.refunded) {
        return Ok(Some(Charged::Captured { charge_id: capture.charge_id.clone() }));
    }
    let refunded = !captures.is_empty();
    Ok(refunded.then(|| Charged::Declined { reason: "already charged and refunded at the gateway".into() }))
}

/// Refunds a cancelled order.
pub struct RefundCharge<G>(pub Arc<G>);

impl<G: Gateway> Effect for RefundCharge<G> {
    type Document = Payment;
    type Outcome = ();
    const KIND: Kind<Payment> = REFUND;

    async fn run(&self, payment: &Payment, wake: &Wake) -> Result<(), Outage> {
        let order = &payment.id;
        let PaymentState::Refunding { terms, .. } = &payment.state else {
            return Err(Outage::new(format!("payment {order} is {}: nothing to refund", payment.state.name())));
        };
        if key_may_be_forgotten(&*self.0, wake) && refunded_before(&*self.0, order).await? {
            return Ok(());
        }
        match self.0.refund(order, terms.amount, &format!("{REFUND}-{order}")).await? {
            Refunded::Done => Ok(()),
            Refunded::NothingCaptured if refunded_before(&*self.0, order).await? => Ok(()),
            Refunded::NothingCaptured => {
                Err(Outage::new(format!("the gateway no longer has the capture of order {order}")))
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
