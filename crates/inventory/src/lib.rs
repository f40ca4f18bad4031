//! The inventory service: sets an order's goods aside, and lets them go or marks them sold when the order has ended.
//!
//! * `documents.rs` has [`Product`] and [`Reservation`];
//! * `saga.rs` has the handlers: reserve, release, sell;
//! * `stock.rs` has the command [`SetStock`], `http.rs` the routes, `metrics.rs` the figures.
//!
//! At every moment, for each product: `initial = available + reserved + sold`, none of them below zero, and `reserved` is
//! what the reservations in state RESERVED add up to. All of it changes in one commit, or nothing does.

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
