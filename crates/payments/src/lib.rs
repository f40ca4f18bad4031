//! The payments service: charges reserved orders, once, and refunds cancelled ones.
//!
//! * [`Payment`] is the document, one per order, with its state as an enum;
//! * `saga.rs` has the handlers: stock was reserved, an order was cancelled;
//! * `effects.rs` has the effects: [`ChargeCard`], [`RefundCharge`];
//! * [`gateway`] is the port to the card gateway and its HTTP adapter;
//! * `http.rs` has the routes, `metrics.rs` the metrics.
//!
//! Nothing is sent to the gateway before the intent is committed, and a missing answer is never taken for a
//! decline: the request is repeated under the same key until the outcome is known.

use std::sync::Arc;

use millstream::telemetry::metrics::{HTTP_CLIENT_DURATION, HTTP_DURATION};
use millstream::{Service, Start};

use crate::gateway::Gateway;

mod effects;
pub mod gateway;
mod http;
pub mod metrics;
mod payment;
mod saga;

pub use effects::{ChargeCard, RefundCharge};
pub use http::PaymentView;
pub use payment::{Payment, PaymentState, Terms};

/// The payments service.
pub fn service(gateway: impl Gateway) -> Service {
    let gateway = Arc::new(gateway);
    let server = gateway.server().to_owned();
    let answers = metrics::GATEWAY_ANSWERS.map(|[method, status, error]| [method, &server, status, error]);
    Service::new("payments")
        .publishes(contracts::payments::STREAM)
        .reads(contracts::inventory::STREAM, Start::Beginning)
        .on(saga::Charge)
        .reads(contracts::orders::STREAM, Start::Beginning)
        .on(saga::Cancel)
        .effect(ChargeCard(gateway.clone()))
        .effect(RefundCharge(gateway))
        .metrics(metrics::ALL)
        .preset_series(&HTTP_CLIENT_DURATION, answers)
        .preset_series(&HTTP_DURATION, http::ANSWERS)
        .routes(http::routes())
}

#[cfg(test)]
mod adapter;
#[cfg(test)]
mod keys_forgotten;
#[cfg(test)]
mod table;
