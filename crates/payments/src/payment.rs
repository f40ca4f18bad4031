//! [`Payment`]: what is known of an order's money.

use contracts::{Currency, Money, OrderId, UserId};
use millstream::Document;
use serde::{Deserialize, Serialize};

/// The money of an order. There is one for each order that was heard of, so that a cancel that comes first is found by the
/// charge that comes after.
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

/// How much, and who pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// How much.
    pub amount: Money,
    /// In which currency.
    pub currency: Currency,
    /// Who pays.
    pub customer: UserId,
}

/// Where a payment stands, and what is known there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", rename_all_fields = "camelCase")]
pub enum PaymentState {
    /// The order was cancelled before anything was sent: nothing ever will be.
    Never,
    /// The gateway is to be asked, or is being asked, for the money.
    Charging {
        /// What is to be paid.
        terms: Terms,
        /// The order was cancelled while the outcome is open: what comes in goes back.
        cancel_requested: bool,
    },
    /// The gateway has refused.
    Declined {
        /// What was to be paid.
        terms: Terms,
        /// Why, in the gateway's words.
        reason: String,
    },
    /// The money is there.
    Captured {
        /// What was paid.
        terms: Terms,
        /// The gateway's id of the charge.
        charge_id: String,
    },
    /// The money is to be given back.
    Refunding {
        /// What was paid.
        terms: Terms,
        /// The gateway's id of the charge.
        charge_id: String,
    },
    /// The money was given back.
    Refunded {
        /// What was paid, and given back.
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

    /// How much and who pays, unless it never came to that.
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
