//! Handlers that turn other services' events into notifications.

use std::sync::Arc;

use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed};
use contracts::payments::PaymentRefunded;
use contracts::{Currency, Money, OrderId, UserId};
use millstream::{Effect, Event, Fault, Handler, Keys, Received, Unit};

use crate::notification::{Notification, Occasion, Status};
use crate::send::Send;

/// An event that customers are notified of.
pub(crate) trait Told: Event {
    fn told(&self) -> Telling<'_>;
}

/// The content and recipient of the notification.
pub(crate) struct Telling<'a> {
    order: &'a OrderId,
    occasion: Occasion,
    user: &'a UserId,
    amount: Money,
    currency: Currency,
    reason: Option<CancelReason>,
}

impl Told for OrderConfirmed {
    fn told(&self) -> Telling<'_> {
        let Self { order_id: order, user_id: user, total: amount, currency, .. } = self;
        Telling { order, occasion: Occasion::Confirmed, user, amount: *amount, currency: *currency, reason: None }
    }
}

impl Told for OrderCancelled {
    fn told(&self) -> Telling<'_> {
        let Self { order_id: order, user_id: user, total: amount, currency, reason, .. } = self;
        let reason = Some(*reason);
        Telling { order, occasion: Occasion::Cancelled, user, amount: *amount, currency: *currency, reason }
    }
}

impl Told for PaymentRefunded {
    fn told(&self) -> Telling<'_> {
        let Self { order_id: order, customer: user, amount, currency } = self;
        Telling { order, occasion: Occasion::Refunded, user, amount: *amount, currency: *currency, reason: None }
    }
}

/// Stages a notification of an event, to be sent immediately.
#[derive(Clone)]
pub(crate) struct Announce {
    /// The domain of the customers' mailboxes.
    pub(crate) domain: Arc<str>,
}

impl<E: Told> Handler<E> for Announce {
    fn touches(&self, event: &Received<E>) -> Keys {
        Keys::one::<Notification>(event.meta.id.to_string())
    }

    fn handle(&self, event: &Received<E>, unit: &mut Unit<'_>) -> Result<(), Fault> {
        let id = event.meta.id.to_string();
        // The journal answers duplicates; this one arrives so late that its entry has expired.
        if unit.get::<Notification>(&id)?.is_some() {
            return Ok(());
        }
        let Telling { order, occasion, user, amount, currency, reason } = event.told();
        let domain = &self.domain;
        let notification = Notification {
            to: format!("{user}@{domain}"),
            message_id: format!("<{id}@{domain}>"),
            id,
            order_id: order.clone(),
            occasion,
            user_id: user.clone(),
            amount,
            currency,
            reason,
            happened_at: event.meta.time,
            status: Status::Sending,
            channel: None,
            ended_at: None,
            error: None,
        };
        unit.put_with_wake(notification, Send::KIND, unit.now());
        Ok(())
    }
}
