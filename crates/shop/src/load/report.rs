//! What a load tells at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// The outcome of a load. It displays as a table.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Orders to submit.
    pub orders: usize,
    /// Orders that were answered with 201.
    pub accepted: usize,
    /// Orders that were refused, by reason.
    pub refused: BTreeMap<String, usize>,
    /// Orders without an answer until the client gave up, by the last trouble; whether they exist is unknown.
    pub unanswered: BTreeMap<String, usize>,
    /// Orders that ended confirmed.
    pub confirmed: usize,
    /// Orders that ended cancelled, by reason.
    pub cancelled: BTreeMap<String, usize>,
    /// Accepted orders that had not ended in time.
    pub open: Vec<String>,
    /// Accepted orders that the service does not know any more.
    pub lost: Vec<String>,
    /// Why the orders service could not be asked at the end, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How often a submission was sent again.
    pub retries: u64,
    /// The customers' cancels: taken, too late, without an answer.
    pub cancels: Cancels,
    /// Accepted orders per second, from the first submission to the last answer.
    #[serde(serialize_with = "rounded")]
    pub accepted_per_second: f64,
    /// Ended orders per second, from the first order's creation to the last one's end, by the service's clock.
    #[serde(serialize_with = "rounded")]
    pub ended_per_second: f64,
    /// How long a submission took, tries and pauses included.
    pub submit_ms: Quantiles,
    /// How long it took from an order's creation to its end.
    pub end_to_end_ms: Quantiles,
}

/// What became of the customers' cancels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancels {
    /// The order was cancelled, or had ended so already.
    pub taken: usize,
    /// The order was confirmed before.
    pub too_late: usize,
    /// No answer until the client gave up.
    pub unanswered: usize,
}

/// Quantiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    /// Half are faster.
    #[serde(serialize_with = "rounded")]
    pub p50: f64,
    /// 95 of 100 are faster.
    #[serde(serialize_with = "rounded")]
    pub p95: f64,
    /// 99 of 100 are faster.
    #[serde(serialize_with = "rounded")]
    pub p99: f64,
    /// The slowest.
    #[serde(serialize_with = "rounded")]
    pub max: f64,
}

fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 100.0).round() / 100.0)
}

/// The upper bound of the histogram.
const LONGEST_MICROS: u64 = 24 * 3600 * 1_000_000;

/// Collects times, in microseconds to three digits.
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_max(LONGEST_MICROS, 3)?))
    }

    pub(super) fn add(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn quantiles(&self) -> Quantiles {
        let ms = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Quantiles { p50: ms(0.5), p95: ms(0.95), p99: ms(0.99), max: self.0.max() as f64 / 1000.0 }
    }
}

impl Report {
    /// Whether every order was answered, and every accepted one has ended.
    pub fn complete(&self) -> bool {
        self.unanswered.is_empty() && self.open.is_empty() && self.lost.is_empty() && self.cancels.unanswered == 0
    }
}

/// How many reasons or ids of one kind a table shows.
const SHOWN: usize = 8;

fn by_reason(table: &mut Table, what: &str, reasons: &BTreeMap<String, usize>) {
    let mut reasons: Vec<_> = reasons.iter().collect();
    reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), reason.as_str()));
    for (reason, count) in reasons.iter().take(SHOWN) {
        table.add_row([format!("{what}: {reason}"), count.to_string()]);
    }
    if reasons.len() > SHOWN {
        let rest: usize = reasons[SHOWN..].iter().map(|(_, count)| **count).sum();
        table.add_row([format!("{what} for {} other reasons", reasons.len() - SHOWN), rest.to_string()]);
    }
}

fn ids(table: &mut Table, what: &str, ids: &[String]) {
    if !ids.is_empty() {
        let more = if ids.len() > SHOWN { ", …" } else { "" };
        let first = ids[..ids.len().min(SHOWN)].join(", ");
        table.add_row([format!("{what}: {first}{more}"), ids.len().to_string()]);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut outcomes = Table::new();
        outcomes.load_style(presets::UTF8_FULL_CONDENSED).set_header(["outcome", "orders"]);
        outcomes.add_row(["submitted".into(), self.orders.to_string()]);
        outcomes.add_row(["accepted".into(), self.accepted.to_string()]);
        by_reason(&mut outcomes, "refused", &self.refused);
        by_reason(&mut outcomes, "NO ANSWER", &self.unanswered);
        outcomes.add_row(["confirmed".into(), self.confirmed.to_string()]);
        by_reason(&mut outcomes, "cancelled", &self.cancelled);
        ids(&mut outcomes, "NOT FINISHED in time", &self.open);
        ids(&mut outcomes, "LOST", &self.lost);
        let Cancels { taken, too_late, unanswered } = self.cancels;
        if taken + too_late + unanswered > 0 {
            outcomes.add_row(["cancellations accepted".into(), taken.to_string()]);
            outcomes.add_row(["cancellations too late".into(), too_late.to_string()]);
        }
        if unanswered > 0 {
            outcomes.add_row(["cancellations WITHOUT AN ANSWER".into(), unanswered.to_string()]);
        }
        if self.retries > 0 {
            outcomes.add_row(["submissions retried".into(), self.retries.to_string()]);
        }
        let mut speed = Table::new();
        speed.load_style(presets::UTF8_FULL_CONDENSED);
        speed.set_header(["", "orders/s", "p50 ms", "p95 ms", "p99 ms", "max ms"]);
        for (what, rate, times) in [
            ("POST to 201", self.accepted_per_second, self.submit_ms),
            ("accepted to finished", self.ended_per_second, self.end_to_end_ms),
        ] {
            let numbers = [rate, times.p50, times.p95, times.p99, times.max].map(|number| format!("{number:.1}"));
            speed.add_row(std::iter::once(what.to_owned()).chain(numbers));
        }
        for table in [&mut outcomes, &mut speed] {
            table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        }
        write!(f, "{outcomes}\n{speed}")?;
        if let Some(trouble) = &self.trouble {
            write!(f, "\ncannot query the orders service: {trouble}")?;
        }
        Ok(())
    }
}
