//! [`Payment`]: the payment of an order.

use contracts::{Currency, Money, OrderId, UserId};
use millstream::Document;
use serde::{Deserialize, Serialize};

/// The payment of an order. There is one for each known order, so that a cancellation that arrives first is found by the
/// charge that follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    /// The order.
    pub id: OrderId,
    /// Where it stands.
    pub state: PaymentState,
}

impl Document for Payment {
    const COLLECTION: &'static str = "payments";

    fn id(&self) -> &str {
        &self.id
    }
}

/// Amount and customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// The amount.
    pub amount: Money,
    /// The currency.
    pub currency: Currency,
    /// The customer.
    pub customer: UserId,
}

/// The state of a payment, with its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", rename_all_fields = "camelCase")]
pub enum PaymentState {
    /// The order was cancelled before anything was sent to the gateway: nothing will be charged.
    Never,
    /// A charge is pending or in flight.
    Charging {
        /// The amount to pay.
        terms: Terms,
        /// The order was cancelled while the outcome was pending: a capture will be refunded.
        cancel_requested: bool,
    },
    /// The gateway declined.
    Declined {
        /// The declined amount.
        terms: Terms,
        /// The gateway's reason.
        reason: String,
    },
    /// The charge was captured.
    Captured {
        /// The captured amount.
        terms: Terms,
        /// The gateway's id of the charge.
        charge_id: String,
    },
    /// A refund is pending or in flight.
    Refunding {
        /// The captured amount.
        terms: Terms,
        /// The gateway's id of the charge.
        charge_id: String,
    },
    /// The charge was refunded.
    Refunded {
        /// The refunded amount.
        terms: Terms,
        /// The gateway's id of the charge.
        charge_id: String,
    },
}

impl PaymentState {
    /// Its name, as in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Never => "NEVER",
            Self::Charging { .. } => "CHARGING",
            Self::Declined { .. } => "DECLINED",
            Self::Captured { .. } => "CAPTURED",
            Self::Refunding { .. } => "REFUNDING",
            Self::Refunded { .. } => "REFUNDED",
        }
    }

    /// Amount and customer, unless nothing was ever to be charged.
    pub const fn terms(&self) -> Option<&Terms> {
        match self {
            Self::Never => None,
            Self::Charging { terms, .. }
            | Self::Declined { terms, .. }
            | Self::Captured { terms, .. }
            | Self::Refunding { terms, .. }
            | Self::Refunded { terms, .. } => Some(terms),
        }
    }
}
