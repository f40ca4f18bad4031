//! Series that are made anew with each look, so that those of what is gone disappear.

use ::metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::{Kind, Metric};

/// Gauges and counters as they were found at one time.
pub struct Snapshot {
    recorder: PrometheusRecorder,
}

impl Snapshot {
    /// Without a series yet; the metrics' help is there already.
    pub fn new(metrics: &[&'static Metric]) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for metric in metrics {
            match metric.kind {
                Kind::Counter => recorder.describe_counter(metric.name.into(), None, metric.help.into()),
                _ => recorder.describe_gauge(metric.name.into(), None, metric.help.into()),
            }
        }
        Self { recorder }
    }

    /// Sets a series to what was found.
    ///
    /// # Panics
    /// When the metric has another number of labels, or is a histogram.
    pub fn set(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        assert_eq!(labels.len(), metric.labels.len(), "{} has the labels {:?}", metric.name, metric.labels);
        let labels: Vec<Label> =
            metric.labels.iter().zip(labels).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        let key = Key::from_parts(metric.name, labels);
        let metadata = Metadata::new(module_path!(), Level::INFO, None);
        match metric.kind {
            Kind::Counter => self.recorder.register_counter(&key, &metadata).absolute(value as u64),
            Kind::Gauge => self.recorder.register_gauge(&key, &metadata).set(value),
            Kind::Histogram(_) => panic!("{} is a histogram", metric.name),
        }
    }

    /// All series in Prometheus' text format.
    pub fn render(&self) -> String {
        self.recorder.handle().render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    static LAG: Metric = Metric::gauge("lag", "How far behind.", &["who"]);

    #[test]
    fn what_is_gone_is_not_shown_any_more() {
        let telemetry = Telemetry::only("console", &[]);
        for (who, gone) in [("a", "b"), ("b", "a")] {
            let mut snapshot = Snapshot::new(&[&LAG]);
            snapshot.set(&LAG, &[who], 7.0);
            telemetry.show(&snapshot);
            let shown = telemetry.render();
            assert!(
                shown.contains(&format!("lag{{who=\"{who}\"}} 7")) && !shown.contains(&format!("\"{gone}\"")),
                "{shown}"
            );
            assert!(shown.contains("# HELP lag How far behind.") && !shown.contains("store_up"), "{shown}");
        }
    }
}
