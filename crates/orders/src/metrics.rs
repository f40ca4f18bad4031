//! The service's figures.

use contracts::Currency;
use millstream::telemetry::{Kind, Metric};

/// All of them.
pub(crate) const ALL: [&Metric; 4] = [&ORDERS, &DURATION, &VALUE, &INVARIANT_VIOLATIONS];

pub(crate) static ORDERS: Metric = Metric {
    name: "shop_orders_total",
    kind: Kind::Counter,
    help: "Orders accepted, and orders ended, by outcome and reason.",
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

pub(crate) static DURATION: Metric = Metric {
    name: "shop_order_duration_seconds",
    kind: Kind::Histogram(&[
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0,
    ]),
    help: "From an order's acceptance to its end.",
    labels: &["outcome"],
    series: &[&["confirmed"], &["cancelled"]],
};

pub(crate) static VALUE: Metric = Metric {
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

/// What the saga's tables say cannot happen, and has.
pub static INVARIANT_VIOLATIONS: Metric = Metric {
    name: "shop_invariant_violations_total",
    kind: Kind::Counter,
    help: "Facts that contradict an order's state: something is wrong in the saga.",
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
