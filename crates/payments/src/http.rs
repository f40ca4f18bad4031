//! The routes.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use contracts::{Currency, Money, OrderId, UserId};
use millstream::commands::Context;
use millstream::http::{List, Problem};
use serde::{Deserialize, Serialize};

use crate::payment::{Payment, PaymentState, Terms};

/// The expected answers: method, route and status.
pub(crate) const ANSWERS: [[&str; 3]; 3] =
    [["GET", "/payments", "200"], ["GET", "/payments/{orderId}", "200"], ["GET", "/payments/{orderId}", "404"]];

pub(crate) fn routes() -> Router<Context> {
    Router::new().route("/payments", get(list)).route("/payments/{orderId}", get(show))
}

/// A payment, as returned to callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentView {
    /// The order.
    pub order_id: OrderId,
    /// The status: NEVER, CHARGING, DECLINED, CAPTURED, REFUNDING or REFUNDED.
    pub status: String,
    /// The order was cancelled while the charge was pending.
    #[serde(default)]
    pub cancel_requested: bool,
    /// The amount; absent if the order was cancelled before any charge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Money>,
    /// The currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// The customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<UserId>,
    /// The gateway's id of the charge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_id: Option<String>,
    /// The reason if it was declined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<Payment> for PaymentView {
    fn from(Payment { id, state }: Payment) -> Self {
        let (amount, currency, customer) = match state.terms().cloned() {
            Some(Terms { amount, currency, customer }) => (Some(amount), Some(currency), Some(customer)),
            None => (None, None, None),
        };
        let status = state.name().into();
        let (cancel_requested, charge_id, reason) = match state {
            PaymentState::Never => (false, None, None),
            PaymentState::Charging { cancel_requested, .. } => (cancel_requested, None, None),
            PaymentState::Declined { reason, .. } => (false, None, Some(reason)),
            PaymentState::Captured { charge_id, .. }
            | PaymentState::Refunding { charge_id, .. }
            | PaymentState::Refunded { charge_id, .. } => (false, Some(charge_id), None),
        };
        Self { order_id: id, status, cancel_requested, amount, currency, customer, charge_id, reason }
    }
}

/// A page of payments, newest orders first.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payments {
    payments: Vec<PaymentView>,
    /// The `cursor` of the next page; `null` on the last.
    next_cursor: Option<String>,
}

async fn list(State(cx): State<Context>, list: List) -> Result<Json<Payments>, Problem> {
    let page = cx.page(list.query::<Payment>(&[])?.newest_first()).await?;
    Ok(Json(Payments { payments: page.items.into_iter().map(PaymentView::from).collect(), next_cursor: page.next }))
}

async fn show(State(cx): State<Context>, Path(id): Path<String>) -> Result<Json<PaymentView>, Problem> {
    let payment = match id.parse::<OrderId>() {
        Ok(id) => cx.get::<Payment>(&id).await?,
        Err(_) => None,
    };
    payment.map(|payment| Json(payment.into())).ok_or_else(|| Problem::not_found(format!("no payment for order {id}")))
}
