//! [`Order`]: the document, and its state machine.

use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed};
use contracts::{Currency, Line, Money, OrderId, UserId};
use millstream::{Document, Timestamp, Unit};
use serde::{Deserialize, Serialize};

use crate::metrics::{DURATION, INVARIANT_VIOLATIONS, ORDERS, VALUE, value_labels};

/// An order, as stored and as returned to callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The id of the command that placed it; it begins with the time, so ids sort by age.
    pub id: OrderId,
    /// The customer.
    pub user_id: UserId,
    /// The order lines.
    #[serde(rename = "items")]
    pub lines: Vec<Line>,
    /// The sum of the lines.
    #[serde(rename = "totalAmount")]
    pub total: Money,
    /// The currency of all amounts.
    pub currency: Currency,
    /// The status.
    pub status: Status,
    /// The reason if it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CancelReason>,
    /// A charge was captured although the order had been cancelled; payments refunds it.
    #[serde(default)]
    pub captured_late: bool,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was confirmed or cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl Document for Order {
    const COLLECTION: &'static str = "orders";
    const INDEXED: &'static [&'static str] = &["userId", "status"];

    fn id(&self) -> &str {
        &self.id
    }
}

/// The status of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Accepted; waiting for inventory.
    Pending,
    /// Its stock is reserved; waiting for payment.
    Reserved,
    /// Finished: in stock and paid for.
    Confirmed,
    /// Finished: cancelled.
    Cancelled,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Reserved, Self::Confirmed, Self::Cancelled];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Reserved => "RESERVED",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether the status is final.
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Confirmed | Self::Cancelled)
    }
}

/// An input of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Reserved,
    Rejected,
    Captured,
    Declined,
    Refunded,
    Deadline,
    CancelAsked,
}

/// A transition of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stay,
    Reserve,
    Confirm,
    Cancel(CancelReason),
    /// Note that a cancelled order was charged.
    NoteCapture,
    /// Keep the state, and count an inconsistency of the saga. The slice has the labels of the metric.
    Violation(&'static [&'static str]),
}

/// The transition table of an order; every pair that it does not list changes nothing.
fn step(status: Status, fact: Fact) -> Step {
    use Status::{Cancelled, Confirmed, Pending, Reserved};
    match (status, fact) {
        (Pending, Fact::Reserved) => Step::Reserve,
        (Pending, Fact::Rejected) => Step::Cancel(CancelReason::OutOfStock),
        (Pending | Reserved, Fact::Captured) => Step::Confirm,
        (Pending | Reserved, Fact::Declined) => Step::Cancel(CancelReason::Declined),
        (Pending | Reserved, Fact::Deadline) => Step::Cancel(CancelReason::Deadline),
        (Pending | Reserved, Fact::CancelAsked) => Step::Cancel(CancelReason::Customer),
        (Cancelled, Fact::Captured) => Step::NoteCapture,
        (Reserved | Confirmed, Fact::Rejected) => Step::Violation(&["rejected_after_reserved"]),
        (Confirmed, Fact::Declined) => Step::Violation(&["declined_after_confirmed"]),
        (Confirmed, Fact::Refunded) => Step::Violation(&["refunded_after_confirmed"]),
        _ => Step::Stay,
    }
}

/// What to store after a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The order; its deadline stays.
    Noted,
    /// The order, without a deadline.
    Ended,
}

impl Order {
    /// Applies a fact: changes the order, emits its outcome, counts.
    pub(crate) fn learn(&mut self, fact: Fact, unit: &mut Unit<'_>) -> Change {
        match step(self.status, fact) {
            Step::Stay => Change::None,
            Step::Reserve => {
                self.status = Status::Reserved;
                Change::Noted
            }
            Step::Confirm => {
                self.end(Status::Confirmed, unit);
                unit.count(&ORDERS, &["confirmed", "none"]);
                unit.count_by(&DURATION, &["confirmed"], self.duration_seconds());
                self.count_value("confirmed", unit);
                unit.emit(&OrderConfirmed {
                    order_id: self.id.clone(),
                    user_id: self.user_id.clone(),
                    lines: self.lines.clone(),
                    total: self.total,
                    currency: self.currency,
                });
                Change::Ended
            }
            Step::Cancel(reason) => {
                self.end(Status::Cancelled, unit);
                self.reason = Some(reason);
                unit.count(&ORDERS, cancelled_for(reason));
                unit.count_by(&DURATION, &["cancelled"], self.duration_seconds());
                self.count_value("cancelled", unit);
                unit.emit(&OrderCancelled {
                    order_id: self.id.clone(),
                    user_id: self.user_id.clone(),
                    lines: self.lines.clone(),
                    total: self.total,
                    currency: self.currency,
                    reason,
                });
                Change::Ended
            }
            Step::NoteCapture if self.captured_late => Change::None,
            Step::NoteCapture => {
                self.captured_late = true;
                Change::Noted
            }
            Step::Violation(invariant) => {
                unit.count(&INVARIANT_VIOLATIONS, invariant);
                tracing::error!(
                    order_id = %self.id,
                    correlation_id = unit.correlation(),
                    invariant = invariant[0],
                    status = self.status.name(),
                    "event ignored: it contradicts the order's state"
                );
                Change::None
            }
        }
    }

    fn end(&mut self, status: Status, unit: &Unit<'_>) {
        self.status = status;
        self.ended_at = Some(unit.now());
    }

    fn duration_seconds(&self) -> f64 {
        self.ended_at.map_or(0.0, |ended| ended.since(self.created_at).as_secs_f64())
    }

    pub(crate) fn count_value(&self, outcome: &str, unit: &mut Unit<'_>) {
        // 13 digits are far below where an f64 stops being exact.
        unit.count_by(&VALUE, value_labels(self.currency, outcome), self.total.minor() as f64);
    }
}

fn cancelled_for(reason: CancelReason) -> &'static [&'static str] {
    match reason {
        CancelReason::OutOfStock => &["cancelled", "out_of_stock"],
        CancelReason::Declined => &["cancelled", "declined"],
        CancelReason::Deadline => &["cancelled", "deadline"],
        CancelReason::Customer => &["cancelled", "customer"],
    }
}
