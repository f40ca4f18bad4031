//! The recorder of one service: its own registry, so that several services of a process, and parallel tests, do not mix.

use millstream_core::hash::HashMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use super::metrics::{self, ALL, BUILD_INFO};
use super::{Kind, Metric, REVISION, Snapshot};

/// The content type of what [`Telemetry::render`] returns: Prometheus 3 refuses a scrape without it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A service's metrics. Cheap to clone; handles taken from it work from any thread.
#[derive(Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

struct Inner {
    service: &'static str,
    recorder: PrometheusRecorder,
    process: metrics_process::Collector,
    /// What is shown beside the recorder's series.
    snapshot: RwLock<String>,
    /// By metric; a metric has few series, so they are found by comparing, without building a key.
    series: RwLock<HashMap<&'static str, Vec<Series>>>,
}

struct Series {
    labels: Vec<String>,
    handle: Handle,
}

#[derive(Clone)]
enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// The label values that follow from what a service declares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'a> {
    /// The consumer group: the durable's name, the same on every stream, or the service's.
    pub group: &'a str,
    /// Name and domain of each stream that it publishes to.
    pub publishes: &'a [(&'a str, &'a str)],
    /// Name and domain of each stream that it reads.
    pub reads: &'a [(&'a str, &'a str)],
    /// The events it handles.
    pub events: &'a [&'a str],
    /// The kinds of its effects.
    pub effects: &'a [&'a str],
    /// The kinds of its timers.
    pub timers: &'a [&'a str],
}

tokio::task_local! {
    /// The service on whose behalf a task runs an effect.
    static CURRENT: Telemetry;
}

/// Within an effect ([`Effect::run`](crate::Effect::run)): counts or observes `value` for a metric of the service that runs it. Elsewhere it does
/// nothing.
pub fn record(metric: &'static Metric, labels: &[&str], value: f64) {
    // Outside of an effect there is no service to record for.
    let _ = CURRENT.try_with(|telemetry| telemetry.record(metric, labels, value));
}

impl Telemetry {
    /// Runs `effect` with [`record`] recording here.
    pub(crate) fn scope<F: Future>(&self, effect: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), effect)
    }

    /// The metrics of `service`: the toolkit's and its own. Every series whose labels are known is there from now on, at 0.
    pub fn new(service: &'static str, own: &[&'static Metric]) -> Self {
        Self::only(service, &[ALL, own].concat())
    }

    /// The metrics of a process that is no service: these alone, and which build it is.
    pub fn only(service: &'static str, own: &[&'static Metric]) -> Self {
        let own = own.iter().copied().filter(|metric| metric.name != BUILD_INFO.name);
        let all = || own.clone().chain([&BUILD_INFO]);
        // A histogram that is in no table gets these bounds; without any it would come out as a summary.
        let mut builder = with_bounds(PrometheusBuilder::new(), None, metrics::SECONDS);
        for metric in all() {
            if let Kind::Histogram(bounds) = metric.kind {
                builder = with_bounds(builder, Some(metric.name), bounds);
            }
        }
        let recorder = builder.build_recorder();
        let process = metrics_process::Collector::default();
        with_local_recorder(&recorder, || process.describe());
        let telemetry = Self {
            inner: Arc::new(Inner {
                service,
                recorder,
                process,
                snapshot: RwLock::default(),
                series: RwLock::default(),
            }),
        };
        for metric in all() {
            telemetry.describe(metric);
            telemetry.declare(metric, if metric.labels.is_empty() { &[&[]] } else { metric.series });
        }
        telemetry.gauge(&BUILD_INFO, &[env!("CARGO_PKG_VERSION"), REVISION]).set(1.0);
        telemetry
    }

    /// The service's name.
    pub fn service(&self) -> &'static str {
        self.inner.service
    }

    /// A span that names the service in every log line of the tasks that run in it. It is an error span because a filter that
    /// lets only errors through must not take the name away.
    pub fn span(&self) -> tracing::Span {
        tracing::error_span!("service", service = self.inner.service)
    }

    fn describe(&self, metric: &'static Metric) {
        // The unit is part of the name, so there is none to tell.
        let (recorder, name, help) = (&self.inner.recorder, metric.name.into(), metric.help.into());
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }

    /// Lets series of a metric begin at 0.
    ///
    /// # Panics
    /// When a series has more or fewer values than the metric has labels.
    pub fn declare(&self, metric: &'static Metric, series: &[&[&str]]) {
        for labels in series {
            check(metric, labels);
            self.series(metric, labels);
        }
    }

    /// Lets the series of every combination begin at 0: `values` has for each label the values it takes.
    ///
    /// # Panics
    /// When `values` has more or fewer entries than the metric has labels.
    pub fn declare_all(&self, metric: &'static Metric, values: &[&[&str]]) {
        let mut combinations = vec![vec![]];
        for values in values {
            let extend = |start: Vec<_>| values.iter().map(move |value| [start.clone(), vec![*value]].concat());
            combinations = combinations.into_iter().flat_map(extend).collect();
        }
        for labels in combinations {
            self.declare(metric, &[&labels]);
        }
    }

    /// Lets all series of the toolkit's metrics begin at 0 that follow from what a service declares.
    pub fn declare_service(&self, labels: &Labels<'_>) {
        let group = &[labels.group][..];
        for (stream, domain) in labels.publishes {
            let template = metrics::stream_template(domain);
            let errors = metrics::BROKER_ERRORS;
            self.declare_all(&metrics::SENT, &[&[metrics::SYSTEM], &["publish"], &[stream], &[&template], errors]);
            self.declare_all(&metrics::TRIMMED, &[&[stream]]);
            self.declare_all(&metrics::TRIM_HELD, &[&[stream]]);
        }
        let letters = crate::dead_letter::stream_name(labels.group);
        for stream in labels.publishes.iter().map(|(stream, _)| *stream).chain([&*letters]) {
            self.declare_all(&metrics::REPUBLISHED, &[&[stream]]);
            self.declare_all(&metrics::UNFILLED, &[&[stream]]);
        }
        for (stream, domain) in labels.reads {
            let template = metrics::stream_template(domain);
            let values: &[&[&str]] = &[&[metrics::SYSTEM], &["fetch"], &[stream], &[&template], group, &[""]];
            self.declare_all(&metrics::CONSUMED, values);
            self.declare_all(&metrics::GONE, &[&[stream]]);
            self.declare_all(&metrics::RECOVERED, &[&[stream]]);
        }
        for event in labels.events {
            let template = metrics::event_template(event);
            self.declare_all(&metrics::PROCESS_DURATION, &[&[&template], group, metrics::PROCESS_ERRORS]);
        }
        self.declare_all(&metrics::EVENT_AGE, &[labels.events]);
        let mut events = labels.events.to_vec();
        if !labels.reads.is_empty() {
            events.push(metrics::UNKNOWN_EVENT);
        }
        self.declare_all(&metrics::MESSAGES, &[&events, metrics::OUTCOMES]);
        self.declare_all(&metrics::DEAD_LETTERED, &[&events, metrics::REASONS]);
        self.declare_all(&metrics::REDELIVERIES, &[&events, metrics::CAUSES]);
        self.declare_all(&metrics::EFFECTS, &[labels.effects, metrics::EFFECT_OUTCOMES]);
        self.declare_all(&metrics::EFFECT_DURATION, &[labels.effects, metrics::EFFECT_OUTCOMES]);
        self.declare_all(&metrics::EFFECTS_UNANSWERED, &[labels.effects]);
        for kinds in [labels.effects, labels.timers] {
            self.declare_all(&metrics::WAKES_DUE, &[kinds]);
            self.declare_all(&metrics::WAKE_OVERDUE, &[kinds]);
        }
    }

    /// The counter of a series, to be kept: using it costs no look-up.
    ///
    /// # Panics
    /// When the metric is not a counter, or has another number of labels.
    pub fn counter(&self, metric: &'static Metric, labels: &[&str]) -> Counter {
        check(metric, labels);
        let Handle::Counter(counter) = self.series(metric, labels) else { panic!("{} is not a counter", metric.name) };
        counter
    }

    /// The gauge of a series, to be kept: using it costs no look-up.
    ///
    /// # Panics
    /// When the metric is not a gauge, or has another number of labels.
    pub fn gauge(&self, metric: &'static Metric, labels: &[&str]) -> Gauge {
        check(metric, labels);
        let Handle::Gauge(gauge) = self.series(metric, labels) else { panic!("{} is not a gauge", metric.name) };
        gauge
    }

    /// The histogram of a series, to be kept: using it costs no look-up.
    ///
    /// # Panics
    /// When the metric is not a histogram, or has another number of labels.
    pub fn histogram(&self, metric: &'static Metric, labels: &[&str]) -> Histogram {
        check(metric, labels);
        let Handle::Histogram(histogram) = self.series(metric, labels) else {
            panic!("{} is not a histogram", metric.name)
        };
        histogram
    }

    /// Adds `value` to a counter (whole numbers), sets a gauge to it, or has a histogram observe it. It never panics, because
    /// it is called between a commit and the answers that rest on it.
    pub fn record(&self, metric: &'static Metric, labels: &[&str], value: f64) {
        if labels.len() != metric.labels.len() {
            let (metric, expected) = (metric.name, metric.labels);
            tracing::error!(metric, ?expected, ?labels, "not counted: the values do not fit the metric's labels");
            return;
        }
        match self.series(metric, labels) {
            Handle::Counter(counter) => counter.increment(value as u64),
            Handle::Gauge(gauge) => gauge.set(value),
            Handle::Histogram(histogram) => histogram.record(value),
        }
    }

    fn series(&self, metric: &'static Metric, labels: &[&str]) -> Handle {
        let find = |all: &HashMap<&'static str, Vec<Series>>| {
            let mut series = all.get(metric.name)?.iter();
            series.find(|series| series.labels == labels).map(|series| series.handle.clone())
        };
        let found = find(&self.inner.series.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(handle) = found {
            return handle;
        }
        let mut all = self.inner.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = find(&all) {
            return handle;
        }
        let handle = self.register(metric, labels);
        let labels = labels.iter().copied().map(Into::into).collect();
        all.entry(metric.name).or_default().push(Series { labels, handle: handle.clone() });
        handle
    }

    fn register(&self, metric: &'static Metric, labels: &[&str]) -> Handle {
        let labels: Vec<Label> =
            metric.labels.iter().zip(labels).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        let key = Key::from_parts(metric.name, labels);
        let metadata = Metadata::new(module_path!(), Level::INFO, None);
        let recorder = &self.inner.recorder;
        match metric.kind {
            Kind::Counter => Handle::Counter(recorder.register_counter(&key, &metadata)),
            Kind::Gauge => Handle::Gauge(recorder.register_gauge(&key, &metadata)),
            Kind::Histogram(_) => Handle::Histogram(recorder.register_histogram(&key, &metadata)),
        }
    }

    /// All metrics in Prometheus' text format, of type [`CONTENT_TYPE`]; the order of lines is not fixed.
    pub fn render(&self) -> String {
        with_local_recorder(&self.inner.recorder, || self.inner.process.collect());
        let snapshot = self.inner.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        self.inner.recorder.handle().render() + &snapshot
    }

    /// Shows series that were made anew, in place of those shown so before: what is gone from the one look to the next is not
    /// shown any more, while the recorder would keep its last value.
    pub fn show(&self, snapshot: &Snapshot) {
        *self.inner.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot.render();
    }

    /// Sorts observations into their buckets once a second until `shutdown`: without it they pile up between scrapes.
    pub async fn upkeep(&self, shutdown: impl Future<Output = ()>) {
        let handle = self.inner.recorder.handle();
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = ticks.tick() => handle.run_upkeep(),
            }
        }
    }
}

fn with_bounds(builder: PrometheusBuilder, name: Option<&str>, bounds: &[f64]) -> PrometheusBuilder {
    let with = match name {
        Some(name) => builder.set_buckets_for_metric(Matcher::Full(name.into()), bounds),
        None => builder.set_buckets(bounds),
    };
    with.unwrap_or_else(|_| panic!("the histogram {} has no bounds", name.unwrap_or_default()))
}

fn check(metric: &Metric, labels: &[&str]) {
    let (have, want) = (labels.len(), metric.labels);
    assert_eq!(have, want.len(), "{} has the labels {want:?}, so {labels:?} cannot be its values", metric.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    static ORDERS: Metric =
        Metric::counter("shop_orders_total", "Orders.", &["outcome"]).with_series(&[&["accepted"], &["ended"]]);
    static DURATION: Metric = Metric::histogram("shop_seconds", "Time.", &[], metrics::AGES);

    fn service() -> Telemetry {
        let telemetry = Telemetry::new("orders", &[&ORDERS, &DURATION]);
        telemetry.declare_service(&Labels {
            group: "orders",
            publishes: &[("ORDERS", "orders")],
            reads: &[("PAYMENTS", "payments")],
            events: &["payments.processed"],
            effects: &["charge"],
            timers: &["deadline"],
        });
        telemetry
    }

    fn lines(telemetry: &Telemetry) -> Vec<String> {
        telemetry.render().lines().map(Into::into).collect()
    }

    #[test]
    fn every_metric_has_help_and_its_type_and_none_is_a_summary() {
        let lines = lines(&service());
        for metric in ALL.iter().filter(|metric| metric.name != metrics::HTTP_DURATION.name) {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            assert!(lines.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
            assert!(lines.contains(&format!("# TYPE {} {kind}", metric.name)), "{}", metric.name);
        }
        assert!(!lines.iter().any(|line| line.ends_with(" summary")));
        assert!(lines.iter().any(|line| line.starts_with("process_cpu_seconds_total ")));
        assert!(lines.contains(&"# TYPE process_cpu_seconds_total gauge".to_owned()));
    }

    #[test]
    fn a_histogram_of_no_table_is_no_summary_either() {
        static STRAY: Metric = Metric::histogram("stray_seconds", "Stray.", &[], metrics::SECONDS);
        let telemetry = Telemetry::new("orders", &[]);
        telemetry.record(&STRAY, &[], 0.2);
        assert!(lines(&telemetry).contains(&"stray_seconds_bucket{le=\"0.25\"} 1".to_owned()));
    }

    #[test]
    fn every_known_series_is_there_from_the_start_at_0() {
        let lines = lines(&service());
        for series in [
            r#"shop_orders_total{outcome="accepted"} 0"#,
            r#"shop_seconds_bucket{le="2.5"} 0"#,
            r#"millstream_messages_total{event="payments.processed",outcome="dead_lettered"} 0"#,
            r#"millstream_messages_total{event="unknown",outcome="duplicate"} 0"#,
            r#"millstream_dead_lettered_total{event="payments.processed",reason="crash"} 0"#,
            r#"millstream_redeliveries_total{event="payments.processed",cause="unacked"} 0"#,
            r#"millstream_event_age_seconds_count{event="payments.processed"} 0"#,
            r#"millstream_effects_total{kind="charge",outcome="lease_lost"} 0"#,
            r#"millstream_wakes_due{kind="deadline"} 0"#,
            r#"millstream_engine_stage_seconds_sum{stage="commit"} 0"#,
            r#"millstream_engine_conflicts_total{kind="version"} 0"#,
            r#"millstream_http_shed_total{reason="overload"} 0"#,
            r#"millstream_store_up 0"#,
            r#"http_server_active_requests{http_request_method="POST"} 0"#,
            concat!(
                r#"messaging_client_sent_messages_total{messaging_system="nats",messaging_operation_name="publish","#,
                r#"messaging_destination_name="ORDERS",messaging_destination_template="orders.{event}.{partition}","#,
                r#"error_type="timeout"} 0"#
            ),
            concat!(
                r#"messaging_process_duration_seconds_count{messaging_destination_template="payments.processed.{partition}","#,
                r#"messaging_consumer_group_name="orders",error_type=""} 0"#
            ),
        ] {
            assert!(lines.iter().any(|line| line == series), "{series} is missing from\n{}", lines.join("\n"));
        }
        assert!(lines.iter().any(|line| line.starts_with("millstream_build_info{") && line.ends_with(" 1")));
    }

    #[test]
    fn what_is_recorded_is_rendered_and_services_do_not_mix() {
        let (one, other) = (service(), service());
        one.record(&ORDERS, &["accepted"], 3.0);
        one.counter(&ORDERS, &["accepted"]).increment(1);
        one.record(&DURATION, &[], 0.02);
        one.record(&ORDERS, &["too", "many"], 1.0);
        let lines = lines(&one);
        assert!(lines.contains(&r#"shop_orders_total{outcome="accepted"} 4"#.to_owned()));
        assert!(lines.contains(&r#"shop_seconds_bucket{le="0.01"} 0"#.to_owned()));
        assert!(lines.contains(&r#"shop_seconds_bucket{le="0.025"} 1"#.to_owned()));
        assert!(other.render().contains(r#"shop_orders_total{outcome="accepted"} 0"#));
    }

    #[tokio::test]
    async fn upkeep_ends_with_the_shutdown() {
        let telemetry = service();
        let upkeep = telemetry.upkeep(std::future::ready(()));
        tokio::time::timeout(Duration::from_secs(5), upkeep).await.expect("upkeep ends with its shutdown");
    }
}
