//! The payments service: charges for what is set aside, once, and gives back what an order that was cancelled has paid.
//!
//! * [`Payment`] is the document, one an order, its state an enum;
//! * `saga.rs` has the handlers: an order's goods are set aside, an order was cancelled;
//! * `effects.rs` has the wakes: [`ChargeCard`], [`RefundCharge`];
//! * [`gateway`] is the port to the card gateway and its HTTP adapter;
//! * `http.rs` has the route, `metrics.rs` the figures.
//!
//! Nothing is sent to the gateway before the intent is committed, and an answer that did not arrive is never taken for a
//! refusal: it is asked again under the same key until it says what became of it.

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
