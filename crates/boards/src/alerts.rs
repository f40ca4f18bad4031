//! The table of alerts. Rules use fixed windows of at least four scrapes, and an alert waits for at least two evaluations.

use millstream::telemetry::metrics::{
    DEAD_LETTERED, HTTP_DURATION, REDELIVERIES, SENT, TRIM_HELD, UNPUBLISHED_AGE, WAKE_OVERDUE,
};
use millstream_console::metrics::{DEAD_LETTERS, OLDEST_UNACKED, STREAM_RATIO, WAITING};
use orders::metrics::{DURATION, INVARIANT_VIOLATIONS, ORDERS, OVERDUE};

use crate::{OBSERVER, SERVICES};

/// Whom an alert is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Somebody has to look now.
    Page,
    /// Somebody has to look these days.
    Ticket,
}

/// An alert: it fires while `value` fulfils `condition` for some time.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its name, and in lower case the anchor of its runbook.
    pub name: &'static str,
    /// What is watched; it has a value whether or not the alert fires.
    pub value: String,
    /// What makes it fire.
    pub condition: String,
    /// For how long.
    pub lasts: &'static str,
    /// For whom.
    pub severity: Severity,
    /// The board that explains it.
    pub board: &'static str,
    /// What is wrong, in one line.
    pub summary: &'static str,
    /// What is wrong, with the value.
    pub description: &'static str,
    /// The job it is about, if that does not come from the value.
    pub job: Option<&'static str>,
}

/// A rule that keeps what is costly to compute, or used twice.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The series' name.
    pub name: String,
    /// What is kept.
    pub expr: String,
}

/// Windows over which the two objectives are kept.
const WINDOWS: [&str; 5] = ["5m", "30m", "1h", "6h", "3d"];
/// The share of requests, and of orders, that may be bad.
const BUDGET: f64 = 0.01;

fn http_bad(window: &str) -> String {
    format!("millstream:http_bad:ratio_rate{window}")
}

fn orders_late(window: &str) -> String {
    format!("shop:orders_late:ratio_rate{window}")
}

/// What the alerts on the objectives are computed from: the share of requests that failed or took longer than 0.25 s, and of
/// accepted orders that had not ended after 2.5 s.
pub fn recordings() -> Vec<Recording> {
    let work = r#"http_route!~"/health|/livez|/readyz|/metrics""#;
    let http = |window| Recording {
        name: http_bad(window),
        expr: format!(
            r#"1 - sum by (job) (rate({HTTP_DURATION}_bucket{{{work},http_response_status_code!~"5..",le="0.25"}}[{window}])) / sum by (job) (rate({HTTP_DURATION}_count{{{work}}}[{window}]))"#
        ),
    };
    let orders = |window| Recording {
        name: orders_late(window),
        expr: format!(
            r#"clamp_min(1 - sum(rate({DURATION}_bucket{{le="2.5"}}[{window}])) / sum(rate({ORDERS}{{outcome="accepted"}}[{window}])), 0)"#
        ),
    };
    WINDOWS.into_iter().flat_map(|window| [http(window), orders(window)]).collect()
}

impl Alert {
    fn new(name: &'static str, value: String, condition: &str, lasts: &'static str, severity: Severity) -> Self {
        let condition = condition.to_owned();
        Self { name, value, condition, lasts, severity, board: "shop", summary: "", description: "", job: None }
    }

    fn says(mut self, board: &'static str, summary: &'static str, description: &'static str) -> Self {
        (self.board, self.summary, self.description) = (board, summary, description);
        self
    }

    /// The anchor of its runbook.
    pub fn anchor(&self) -> String {
        self.name.to_lowercase()
    }

    /// The whole expression.
    pub fn expr(&self) -> String {
        format!("{} {}", self.value, self.condition)
    }
}

/// Burns the budget `factor` times faster than it may last, over a long window and still now.
fn burn(name: &'static str, of: fn(&str) -> String, windows: [&str; 2], factor: f64, lasts: &'static str) -> Alert {
    let [long, short] = windows.map(of);
    let limit = factor * BUDGET;
    let severity = if factor > 1.0 { Severity::Page } else { Severity::Ticket };
    Alert::new(name, long, &format!("> {limit} and {short} > {limit}"), lasts, severity)
}

/// All alerts.
pub fn all() -> Vec<Alert> {
    use Severity::{Page, Ticket};
    let late = "Of the orders accepted, {{ $value | humanizePercentage }} had not ended after 2.5 s; 1 % may.";
    let bad = "{{ $labels.job }} failed, or took longer than 0.25 s for, {{ $value | humanizePercentage }} of its requests; 1 % may.";
    let mut all: Vec<Alert> = SERVICES
        .iter()
        .chain([&OBSERVER])
        .map(|job| {
            let mut alert = Alert::new("ServiceDown", format!(r#"absent(up{{job="{job}"}} == 1)"#), "", "1m", Page)
                .says(
                    "service",
                    "{{ $labels.job }} is down",
                    "No instance of {{ $labels.job }} has answered for a minute (absent: {{ $value }}).",
                );
            alert.job = Some(job);
            alert
        })
        .collect();
    all.extend([
        burn("OrdersLateFast", orders_late, ["1h", "5m"], 14.4, "1m")
            .says("shop", "Orders do not end in time: the month's budget is gone in two days", late),
        burn("OrdersLateSteady", orders_late, ["6h", "30m"], 6.0, "5m")
            .says("shop", "Orders do not end in time: the month's budget is gone in five days", late),
        burn("OrdersLateSlow", orders_late, ["3d", "6h"], 1.0, "30m")
            .says("shop", "Orders do not end in time: the month's budget does not last", late),
        burn("HttpErrorsFast", http_bad, ["1h", "5m"], 14.4, "1m")
            .says("service", "{{ $labels.job }} fails requests: the month's budget is gone in two days", bad),
        burn("HttpErrorsSteady", http_bad, ["6h", "30m"], 6.0, "5m")
            .says("service", "{{ $labels.job }} fails requests: the month's budget is gone in five days", bad),
        burn("HttpErrorsSlow", http_bad, ["3d", "6h"], 1.0, "30m")
            .says("service", "{{ $labels.job }} fails requests: the month's budget does not last", bad),
        Alert::new("NoOrderAccepted",
            format!(r#"sum(rate({ORDERS}{{outcome="accepted"}}[10m]))"#),
            &format!(r#"== 0 and sum(rate({HTTP_DURATION}_count{{http_request_method="POST",http_route="/orders"}}[10m])) > 0 and sum(up{{job="orders"}}) > 0"#), "2m", Page)
            .says("shop", "Customers order and no order is accepted", "Orders are asked for and HTTP is up, and {{ $value }} a second were accepted in ten minutes."),
        Alert::new("OrdersOverdue", format!("max({OVERDUE})"), "> 0", "2m", Page)
            .says("shop", "Orders have not ended though their deadline is over", "{{ $value }} orders are more than two minutes past their deadline."),
        Alert::new("SagaViolated", format!("sum by (job, invariant) (increase({INVARIANT_VIOLATIONS}[15m]))"), "> 0", "30s", Page)
            .says("shop", "{{ $labels.job }} met a fact that contradicts its state: {{ $labels.invariant }}", "{{ $value }} times in 15 minutes: money or goods may be wrong."),
        Alert::new("DeadLetters", format!("sum by (service_name) ({DEAD_LETTERS})"), "> 0", "1m", Ticket)
            .says("events", "{{ $labels.service_name }} has dead letters", "{{ $value }} events were given up and nobody has dealt with them."),
        Alert::new("DeadLettersGrow", format!("sum by (job, event, reason) (increase({DEAD_LETTERED}[10m]))"), "> 10", "1m", Page)
            .says("events", "{{ $labels.job }} gives up one {{ $labels.event }} after the other: {{ $labels.reason }}", "{{ $value }} in ten minutes."),
        Alert::new("ConsumerLags", format!("max by (stream_name, consumer_name) ({OLDEST_UNACKED})"), "> 3600", "5m", Page)
            .says("broker", "{{ $labels.consumer_name }} lags on {{ $labels.stream_name }}", "Its oldest event is {{ $value | humanizeDuration }} old."),
        Alert::new("ConsumerNotPulled",
            format!("max by (stream_name, consumer_name) (max_over_time({WAITING}[1d]))"),
            &format!("== 0 and max by (stream_name, consumer_name) ({WAITING} offset 1d) == 0"), "5m", Ticket)
            .says("broker", "Nobody has read {{ $labels.stream_name }} for {{ $labels.consumer_name }} for a day", "{{ $value }} pulls waited in a day; the consumer keeps the stream from being trimmed."),
        Alert::new("StreamFull", format!("max by (stream_name) ({STREAM_RATIO})"), "> 0.8", "5m", Ticket)
            .says("broker", "{{ $labels.stream_name }} is nearly full", "It is at {{ $value | humanizePercentage }} of its limit; from 90 % on commands are answered 503."),
        Alert::new("StreamNotTrimmed", format!("max by (stream_name) ({TRIM_HELD})"), "> 0", "10m", Ticket)
            .says("broker", "{{ $labels.stream_name }} is not trimmed", "Its owner cannot trim it (held: {{ $value }}): a durable that has read it is missing, or the broker does not answer."),
        Alert::new("EventsUnpublished", format!("max by (job) ({UNPUBLISHED_AGE})"), "> 60", "1m", Page)
            .says("service", "{{ $labels.job }} cannot publish", "Its oldest committed event has been waiting for {{ $value | humanizeDuration }}."),
        Alert::new("PublishFails", format!(r#"sum by (job, error_type) (rate({SENT}{{error_type!=""}}[5m]))"#), "> 0", "5m", Ticket)
            .says("service", "Publishes of {{ $labels.job }} fail: {{ $labels.error_type }}", "{{ $value }} a second; they are tried again."),
        Alert::new("Redelivered", format!(r#"sum by (job, event) (rate({REDELIVERIES}{{cause="unacked"}}[5m]))"#), "> 0", "10m", Ticket)
            .says("events", "{{ $labels.event }} comes again and again to {{ $labels.job }}", "{{ $value }} a second were delivered again because no ack came in time."),
        Alert::new("WakesOverdue", format!("max by (job, kind) ({WAKE_OVERDUE})"), "> 60", "1m", Page)
            .says("service", "{{ $labels.kind }} of {{ $labels.job }} is overdue", "The earliest has been due for {{ $value | humanizeDuration }}: the outside does not answer, or too slowly."),
    ]);
    all
}
