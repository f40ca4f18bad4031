//! The service's metrics.

use millstream::telemetry::metrics::HTTP_CLIENT_DURATION;
use millstream::telemetry::{Kind, Metric};

/// All of them.
pub const ALL: [&Metric; 2] = [&PAYMENTS, &HTTP_CLIENT_DURATION];

/// Payments by outcome.
pub static PAYMENTS: Metric = Metric {
    name: "shop_payments_total",
    kind: Kind::Counter,
    help: "Payments by outcome; refund_pending when a refund is due, refunded when it is completed.",
    labels: &["outcome"],
    series: &[&["captured"], &["declined"], &["refunded"], &["refund_pending"]],
};

/// The expected answers of the gateway: method, status and, without an answer, the error.
pub(crate) const GATEWAY_ANSWERS: [[&str; 3]; 9] = [
    ["POST", "201", ""],
    ["POST", "402", ""],
    ["POST", "409", ""],
    ["POST", "500", ""],
    ["POST", "503", ""],
    ["POST", "", "timeout"],
    ["POST", "", "connect"],
    ["POST", "", "broken_off"],
    ["GET", "200", ""],
];
