//! The service's metrics.

use std::time::Duration;

use contracts::Currency;
use millstream::telemetry::metrics::AGES;
use millstream::telemetry::{Kind, Metric};

/// All of them.
pub const ALL: [&Metric; 5] = [&ORDERS, &DURATION, &VALUE, &OVERDUE, &INVARIANT_VIOLATIONS];

/// Orders by outcome and reason.
pub static ORDERS: Metric = Metric {
    name: "shop_orders_total",
    kind: Kind::Counter,
    help: "Orders accepted and completed, by outcome and reason.",
    labels: &["outcome", "reason"],
    series: &[
        &["accepted", "none"],
        &["confirmed", "none"],
        &["cancelled", "out_of_stock"],
        &["cancelled", "declined"],
        &["cancelled", "deadline"],
        &["cancelled", "customer"],
    ],
};

/// Time from acceptance to completion.
pub static DURATION: Metric = Metric {
    name: "shop_order_duration_seconds",
    kind: Kind::Histogram(AGES),
    help: "Time from an order's acceptance to its completion.",
    labels: &["outcome"],
    series: &[&["confirmed"], &["cancelled"]],
};

/// Value of orders.
pub static VALUE: Metric = Metric {
    name: "shop_order_value_cents_total",
    kind: Kind::Counter,
    help: "Value of orders in minor units of their currency, by outcome.",
    labels: &["currency", "outcome"],
    series: &[
        &["EUR", "accepted"],
        &["EUR", "confirmed"],
        &["EUR", "cancelled"],
        &["USD", "accepted"],
        &["USD", "confirmed"],
        &["USD", "cancelled"],
        &["GBP", "accepted"],
        &["GBP", "confirmed"],
        &["GBP", "cancelled"],
        &["CHF", "accepted"],
        &["CHF", "confirmed"],
        &["CHF", "cancelled"],
    ],
};

/// Grace period after the deadline before an order counts as overdue: after a start or a reconnect, deadlines wait up to a
/// minute for events that are already in the streams.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(120);

/// Orders past their deadline; all replicas report the same number.
pub static OVERDUE: Metric =
    Metric::gauge("shop_orders_overdue", "Orders still open two minutes after their deadline.", &[]);

/// Events that the saga's tables exclude.
pub static INVARIANT_VIOLATIONS: Metric = Metric {
    name: "shop_invariant_violations_total",
    kind: Kind::Counter,
    help: "Events that contradict an order's state: the saga is inconsistent.",
    labels: &["invariant"],
    series: &[&["rejected_after_reserved"], &["declined_after_confirmed"], &["refunded_after_confirmed"]],
};

/// The labels of [`VALUE`]: staged labels live as long as the program, so they are looked up in the table.
pub(crate) fn value_labels(currency: Currency, outcome: &str) -> &'static [&'static str] {
    let found = VALUE.series.iter().find(|series| series[0] == currency.code() && series[1] == outcome);
    found.copied().unwrap_or_else(|| panic!("{} has no series {currency}, {outcome}", VALUE.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_currency_has_its_series() {
        for currency in [Currency::Eur, Currency::Usd, Currency::Gbp, Currency::Chf] {
            for outcome in ["accepted", "confirmed", "cancelled"] {
                assert_eq!(value_labels(currency, outcome), [currency.code(), outcome]);
            }
        }
    }
}
