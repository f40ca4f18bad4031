//! The service's figures.

use millstream::telemetry::metrics::HTTP_CLIENT_DURATION;
use millstream::telemetry::{Kind, Metric};

/// All of them.
pub(crate) const ALL: [&Metric; 2] = [&PAYMENTS, &HTTP_CLIENT_DURATION];

pub(crate) static PAYMENTS: Metric = Metric {
    name: "shop_payments_total",
    kind: Kind::Counter,
    help: "Payments by what became of them; refund_pending when a refund is due, refunded when it is done.",
    labels: &["outcome"],
    series: &[&["captured"], &["declined"], &["refunded"], &["refund_pending"]],
};
