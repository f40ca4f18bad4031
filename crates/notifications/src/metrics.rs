//! The service's figures.

use millstream::telemetry::{Kind, Metric};

/// Notifications sent and given up.
pub static NOTIFICATIONS: Metric = Metric {
    name: "shop_notifications_total",
    kind: Kind::Counter,
    help: "Notifications by how they went out and what became of them: sent, or failed when they were refused for good.",
    labels: &["channel", "outcome"],
    series: &[&["smtp", "sent"], &["smtp", "failed"], &["log", "sent"], &["log", "failed"]],
};
