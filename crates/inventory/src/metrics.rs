//! The service's metrics.

use millstream::telemetry::{Kind, Metric};

/// All of them.
pub const ALL: [&Metric; 3] = [&RESERVATIONS, &SHORT_LINES, &INVARIANT_VIOLATIONS];

/// Reservations by outcome.
pub static RESERVATIONS: Metric = Metric {
    name: "shop_reservations_total",
    kind: Kind::Counter,
    help: "Reservations by outcome.",
    labels: &["outcome"],
    series: &[&["reserved"], &["rejected"], &["released"], &["sold"]],
};

/// Lines that were short of stock.
pub static SHORT_LINES: Metric = Metric {
    name: "shop_stock_short_lines_total",
    kind: Kind::Counter,
    help: "Order lines that requested more than was available.",
    labels: &[],
    series: &[&[]],
};

/// Events that the saga's tables exclude.
pub static INVARIANT_VIOLATIONS: Metric = Metric {
    name: "shop_invariant_violations_total",
    kind: Kind::Counter,
    help: "Events that contradict a reservation's state: the saga is inconsistent.",
    labels: &["invariant"],
    series: &[&["confirmed_without_reservation"], &["cancelled_after_sold"]],
};
