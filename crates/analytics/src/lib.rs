//! The analytics service: what the orders' events add up to. It publishes nothing and does nothing outside, so it can be
//! rebuilt from the stream at any time.
//!
//! * `figures.rs` has the documents, few of them: [`Totals`], and one [`Sold`] a product;
//! * `projection.rs` has the handlers: each adds one event to them, in whatever order events come;
//! * `spread.rs` has how durations are kept, `sum.rs` how money is;
//! * `summary.rs` has what callers see, `http.rs` the route.
//!
//! Documents are few and every event touches the same, so a batch of events is folded into one write of each.

use contracts::orders::{OrderCancelled, OrderConfirmed, OrderCreated};
use millstream::{Service, Start};

mod figures;
mod http;
mod projection;
mod spread;
mod sum;
mod summary;

pub use figures::{Cancelled, Sold, Totals};
pub use spread::Spread;
pub use sum::Sum;
pub use summary::{Durations, Summary, Timing, TopProducts};

/// The analytics service.
pub fn service() -> Service {
    Service::new("analytics")
        .single_writer()
        .keeps::<Totals>()
        .keeps::<Sold>()
        .reads(contracts::orders::STREAM, Start::Beginning)
        .on::<OrderCreated>(projection::Add)
        .on::<OrderConfirmed>(projection::Add)
        .on::<OrderCancelled>(projection::Add)
        .routes(http::routes())
}

#[cfg(test)]
mod tests;
