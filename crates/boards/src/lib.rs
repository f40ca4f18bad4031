//! The dashboards and alerts, generated: queries name the constants of the metrics' tables, so that a metric that was renamed
//! does not compile.
//!
//! * [`dashboards`] are the four boards, a file in `boards/` each, made with what is in `panel.rs` and `board.rs`;
//! * [`alerts`] is the table of alerts, and [`rules`] the file that Prometheus reads;
//! * [`metrics`] are the tables put together.
//!
//! `cargo xtask dashboards` writes all of it.
#![warn(missing_docs)]

use millstream::telemetry::Metric;
use serde_json::Value;

pub mod alerts;
mod board;
mod boards;
mod panel;
pub mod rules;

pub use board::RATE;

/// The scrape job of the observer.
pub const OBSERVER: &str = "console";
/// The scrape jobs of the services, which bear the services' names.
pub const SERVICES: &[&str] = &["orders", "inventory", "payments", "notifications", "analytics"];

/// The boards: a file name without extension, and what is in the file.
pub fn dashboards() -> Vec<(&'static str, Value)> {
    vec![
        ("shop", boards::shop::board()),
        ("events", boards::events::board()),
        ("service", boards::service::board()),
        ("broker", boards::broker::board()),
    ]
}

/// Every metric that a service or the observer has.
pub fn metrics() -> Vec<&'static Metric> {
    use millstream::telemetry::metrics as toolkit;
    let mut all: Vec<&Metric> = toolkit::ALL.to_vec();
    all.extend(millstream_console::metrics::OBSERVED);
    all.extend(orders::metrics::ALL);
    all.extend(inventory::metrics::ALL);
    all.extend(payments::metrics::ALL);
    all.push(&notifications::NOTIFICATIONS);
    let mut names = std::collections::HashSet::new();
    all.retain(|metric| names.insert(metric.name));
    all
}

/// A board as it stands in its file.
pub fn text(board: &Value) -> String {
    format!("{board:#}\n")
}
