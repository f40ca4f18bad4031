//! [`Notification`]: what a customer is told.

use contracts::orders::CancelReason;
use contracts::{Currency, Money, OrderId, UserId};
use millstream::{Document, Timestamp};
use serde::{Deserialize, Serialize};

/// Something a customer is told, as it is kept and as callers see it. There is one for each event that is told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// The id of the event; it begins with the time, so ids sort by age.
    pub id: String,
    /// The order.
    pub order_id: OrderId,
    /// What has happened.
    pub occasion: Occasion,
    /// Who is told.
    pub user_id: UserId,
    /// The address.
    pub to: String,
    /// `Message-ID` of the mail, the same at every try.
    pub message_id: String,
    /// What it is about: the order's total, or what is given back.
    pub amount: Money,
    /// The currency of the amount.
    pub currency: Currency,
    /// Why the order was cancelled, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CancelReason>,
    /// When it happened.
    pub happened_at: Timestamp,
    /// Where it stands.
    pub status: Status,
    /// How it went out: `smtp` or `log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// When it was sent, or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why it was given up, in the mail server's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Document for Notification {
    const COLLECTION: &'static str = "notifications";
    const INDEXED: &'static [&'static str] = &["orderId"];

    fn id(&self) -> &str {
        &self.id
    }
}

/// What a customer is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Occasion {
    /// The order was confirmed.
    Confirmed,
    /// The order was cancelled.
    Cancelled,
    /// The money was given back.
    Refunded,
}

/// Where a notification stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It is to be sent, or being sent, for as long as it takes.
    Sending,
    /// The mail server has it, or the log.
    Sent,
    /// The mail server refuses it for good.
    Failed,
}
