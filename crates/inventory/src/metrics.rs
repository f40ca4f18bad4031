//! The service's figures.

use millstream::telemetry::{Kind, Metric};

/// All of them.
pub const ALL: [&Metric; 3] = [&RESERVATIONS, &SHORT_LINES, &INVARIANT_VIOLATIONS];

/// Reservations by what became of them.
pub static RESERVATIONS: Metric = Metric {
    name: "shop_reservations_total",
    kind: Kind::Counter,
    help: "Reservations by what became of them.",
    labels: &["outcome"],
    series: &[&["reserved"], &["rejected"], &["released"], &["sold"]],
};

/// Lines that were short of stock.
pub static SHORT_LINES: Metric = Metric {
    name: "shop_stock_short_lines_total",
    kind: Kind::Counter,
    help: "Products of which an order wanted more than there was.",
    labels: &[],
    series: &[&[]],
};

/// What the saga's tables say cannot happen, and has.
pub static INVARIANT_VIOLATIONS: Metric = Metric {
    name: "shop_invariant_violations_total",
    kind: Kind::Counter,
    help: "Facts that contradict a reservation's state: something is wrong in the saga.",
    labels: &["invariant"],
    series: &[&["confirmed_without_reservation"], &["cancelled_after_sold"]],
};
