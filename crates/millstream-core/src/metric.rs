//! What a metric is: everything about it in one place.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only ever rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations into buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// A metric: everything about it in one place, for the recorder, the dashboards and the tests.
#[derive(Debug)]
pub struct Metric {
    /// The full name, unit suffix included.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts or measures, for its `# HELP` line.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The label values of the series there are, each from the start at 0; empty if they follow from what a service declares.
    pub series: &'static [&'static [&'static str]],
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Metric {
    /// A counter.
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::Counter, help, labels, series: &[] }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::Gauge, help, labels, series: &[] }
    }

    /// A histogram; for times take `telemetry::metrics::SECONDS` or `AGES` of the toolkit as its bounds.
    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Self {
        Self { name, kind: Kind::Histogram(bounds), help, labels, series: &[] }
    }

    /// With the label values of all its series, if they form a closed set.
    #[must_use]
    pub const fn with_series(mut self, series: &'static [&'static [&'static str]]) -> Self {
        self.series = series;
        self
    }
}
