//! The orders service: accepts orders, follows their saga through the events of inventory and payments, and alone decides the outcome.
//!
//! * [`Order`] is the document, and `order.rs` has its state machine;
//! * `facts.rs` has the handlers for other services' events, and the deadline;
//! * `commands.rs` has the commands [`PlaceOrder`] and [`CancelOrder`];
//! * `new_order.rs` validates a request body, `http.rs` has the routes, `metrics.rs` the metrics.

use std::time::Duration;

use contracts::Currency;
use contracts::inventory::{InventoryRejected, InventoryReserved};
use contracts::payments::{PaymentProcessed, PaymentRefunded};
use millstream::telemetry::metrics::HTTP_DURATION;
use millstream::{Service, Start};

mod commands;
mod facts;
mod http;
pub mod metrics;
mod new_order;
mod order;

pub use commands::{CancelOrder, PlaceOrder};
pub use facts::Deadline;
pub use metrics::INVARIANT_VIOLATIONS;
pub use order::{Order, Status};

/// Settings of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time limit of an order, after which it is cancelled.
    pub deadline: Duration,
    /// The currency of all prices.
    pub currency: Currency,
}

impl Default for Settings {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(15 * 60), currency: Currency::Eur }
    }
}

/// The orders service.
pub fn service(settings: Settings) -> Service {
    Service::new("orders")
        .keeps::<Order>()
        .publishes(contracts::orders::STREAM)
        .read_by(["inventory", "payments"])
        .reads(contracts::inventory::STREAM, Start::Beginning)
        .on::<InventoryReserved>(facts::Learn)
        .on::<InventoryRejected>(facts::Learn)
        .reads(contracts::payments::STREAM, Start::Beginning)
        .on::<PaymentProcessed>(facts::Learn)
        .on::<PaymentRefunded>(facts::Learn)
        .timer(Deadline)
        .metrics(metrics::ALL)
        .preset_series(&HTTP_DURATION, http::ANSWERS)
        .routes(http::routes(settings))
}

#[cfg(test)]
mod table;
