//! The service's figures.

use millstream::telemetry::{Kind, Metric};

/// All of them.
pub(crate) const ALL: [&Metric; 3] = [&RESERVATIONS, &SHORT_LINES, &INVARIANT_VIOLATIONS];

pub(crate) static RESERVATIONS: Metric = Metric {
    name: "shop_reservations_total",
    kind: Kind::Counter,
    help: "Reservations by what became of them.",
    labels: &["outcome"],
    series: &[&["reserved"], &["rejected"], &["released"], &["sold"]],
};

pub(crate) static SHORT_LINES: Metric = Metric {
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
