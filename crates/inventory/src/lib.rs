//! The inventory service: reserves stock for an order, and releases it or marks it sold when the order is finished.
//!
//! * `documents.rs` has [`Product`] and [`Reservation`];
//! * `saga.rs` has the handlers: reserve, release, sell;
//! * `stock.rs` has the command [`SetStock`], `http.rs` the routes, `metrics.rs` the metrics.
//!
//! At every moment, for each product: `initial = available + reserved + sold`, none of them below zero, and `reserved` is
//! the sum of the reservations in state RESERVED. All of it changes in one commit, or not at all.

use millstream::telemetry::metrics::HTTP_DURATION;
use millstream::{Service, Start};

mod documents;
mod http;
pub mod metrics;
mod saga;
mod stock;

pub use documents::{Product, Reservation, Status};
pub use metrics::INVARIANT_VIOLATIONS;
pub use stock::SetStock;

/// The inventory service.
pub fn service() -> Service {
    Service::new("inventory")
        .single_writer()
        .keeps::<Product>()
        .keeps::<Reservation>()
        .publishes(contracts::inventory::STREAM)
        .reads(contracts::orders::STREAM, Start::Beginning)
        .on(saga::Reserve)
        .on(saga::Release)
        .on(saga::Sell)
        .metrics(metrics::ALL)
        .preset_series(&HTTP_DURATION, http::ANSWERS)
        .routes(http::routes())
}

#[cfg(test)]
mod conservation;
#[cfg(test)]
mod table;
