//! The service's metrics.

use millstream::telemetry::{Kind, Metric};

/// Notifications sent and failed.
pub static NOTIFICATIONS: Metric = Metric {
    name: "shop_notifications_total",
    kind: Kind::Counter,
    help: "Notifications by channel and outcome: sent, or failed when rejected permanently.",
    labels: &["channel", "outcome"],
    series: &[&["smtp", "sent"], &["smtp", "failed"], &["log", "sent"], &["log", "failed"]],
};
