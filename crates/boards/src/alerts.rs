//! The table of alerts. Rules use fixed windows of at least four scrapes, and an alert waits for at least two evaluations.

use millstream::telemetry::metrics::{
    BROKER_CONNECTED, DEAD_LETTERED, EFFECTS_UNANSWERED, HTTP_DURATION, REDELIVERIES, REPLICAS_MISSED, REPUBLISHED,
    SENT, STORE_UP, TRIM_HELD, UNFILLED, UNPUBLISHED_AGE, WAKE_OVERDUE,
};
use millstream_console::metrics::{DEAD_LETTERS, OLDEST_UNACKED, STREAM_RATIO, WAITING};
use orders::metrics::{DURATION, INVARIANT_VIOLATIONS, ORDERS, OVERDUE};

use crate::{OBSERVER, SERVICES};

/// Urgency of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Needs attention now.
    Page,
    /// Needs attention within days.
    Ticket,
}

/// An alert: it fires once `value` has met `condition` for some time.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its name, and in lower case the anchor of its runbook.
    pub name: &'static str,
    /// The watched expression, which has a value whether or not the alert fires.
    pub value: String,
    /// The condition under which it fires.
    pub condition: String,
    /// How long the condition must hold.
    pub lasts: &'static str,
    /// Its urgency.
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

/// A recording rule for an expression that is costly, or used twice.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The series' name.
    pub name: String,
    /// The recorded expression.
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

/// The requests that the objective is about, of services only: pages of the console wait for answers of the whole system, and
/// nobody is to be woken because somebody looks.
fn asked() -> String {
    format!(r#"{HTTP_DURATION}_count{{{WORK},job!="{OBSERVER}"}}"#)
}

/// The orders that the objective is about.
fn accepted() -> String {
    format!(r#"{ORDERS}{{outcome="accepted"}}"#)
}

/// Requests without those of probes.
const WORK: &str = r#"http_route!~"/health|/livez|/readyz|/metrics""#;
/// How many there must be in the short window of an alert on an objective: of a few, one is a large share.
const ENOUGH: u32 = 60;

/// A value as last scraped: an alert does not resolve because what it is about has vanished, and the value with it.
fn last(series: &str, within: &str) -> String {
    format!("last_over_time({series}[{within}])")
}

/// What the alerts on the objectives are computed from: the share of requests that failed or took longer than 0.25 s, and of
/// accepted orders that had not ended after 2.5 s.
pub fn recordings() -> Vec<Recording> {
    let asked = asked();
    let accepted = accepted();
    let http = |window| Recording {
        name: http_bad(window),
        expr: format!(
            r#"1 - sum by (job) (rate({HTTP_DURATION}_bucket{{{WORK},job!="{OBSERVER}",http_response_status_code!~"5..",le="0.25"}}[{window}])) / sum by (job) (rate({asked}[{window}]))"#
        ),
    };
    let orders = |window| Recording {
        name: orders_late(window),
        expr: format!(
            r#"clamp_min(1 - sum(rate({DURATION}_bucket{{le="2.5"}}[{window}])) / sum(rate({accepted}[{window}])), 0)"#
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

/// An objective: the share that is bad, and what it is a share of, by these labels.
#[derive(Clone, Copy)]
struct Objective {
    bad: fn(&str) -> String,
    of: fn() -> String,
    by: &'static str,
}

const ORDERS_END: Objective = Objective { bad: orders_late, of: accepted, by: "" };
const HTTP_ANSWERS: Objective = Objective { bad: http_bad, of: asked, by: "by (job) " };

/// Burns the budget `factor` times faster than it may last, over a long window and still now. A long window must have been
/// lived through for a good part: the first minutes of a system say nothing about an hour.
fn burn(
    name: &'static str,
    objective: Objective,
    windows: [&str; 2],
    lived: &str,
    factor: f64,
    lasts: &'static str,
) -> Alert {
    let Objective { bad, of, by } = objective;
    let [long, short] = windows;
    let limit = factor * BUDGET;
    let severity = if factor > 1.0 { Severity::Page } else { Severity::Ticket };
    let (now, of) = (bad(short), of());
    let condition = format!(
        "> {limit} and {now} > {limit} and sum {by}(increase({of}[{short}])) > {ENOUGH} and sum {by}({of} offset {lived}) >= 0"
    );
    Alert::new(name, bad(long), &condition, lasts, severity)
}

/// All alerts.
pub fn all() -> Vec<Alert> {
    use Severity::{Page, Ticket};
    let late = "{{ $value | humanizePercentage }} of accepted orders were not completed within 2.5 s; the objective allows 1 %.";
    let bad = "{{ $value | humanizePercentage }} of the requests to {{ $labels.job }} failed or took longer than 0.25 s; the objective allows 1 %.";
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
        Alert::new("BrokerDown", format!("max by (job) (1 - {})", last(BROKER_CONNECTED.name, "5m")), "> 0", "30s", Page)
            .says("broker", "{{ $labels.job }} has no connection to the broker", "An instance has been without the broker for half a minute (down: {{ $value }}); nothing that was accepted is lost."),
        Alert::new("StoreDown", format!("max by (job) (1 - {})", last(STORE_UP.name, "5m")), "> 0", "30s", Page)
            .says("service", "The store of {{ $labels.job }} does not answer", "An instance has been without its store for half a minute (down: {{ $value }}): commands get 503, and events wait."),
        Alert::new("ReplicaMissing", format!("max by (job) ({})", last(REPLICAS_MISSED.name, "5m")), "> 0", "15s", Page)
            .says("service", "A replica of {{ $labels.job }} is gone", "{{ $value }} ended without a clean stop, and no other has replaced it; the others do the work."),
        burn("OrdersLateFast", ORDERS_END, ["1h", "5m"], "30m", 14.4, "1m")
            .says("shop", "Orders are completed too late: the monthly error budget will be spent in two days", late),
        burn("OrdersLateSteady", ORDERS_END, ["6h", "30m"], "3h", 6.0, "5m")
            .says("shop", "Orders are completed too late: the monthly error budget will be spent in five days", late),
        burn("OrdersLateSlow", ORDERS_END, ["3d", "6h"], "1d", 1.0, "30m")
            .says("shop", "Orders are completed too late: the objective is missed", late),
        burn("HttpErrorsFast", HTTP_ANSWERS, ["1h", "5m"], "30m", 14.4, "1m")
            .says("service", "{{ $labels.job }} fails requests: the monthly error budget will be spent in two days", bad),
        burn("HttpErrorsSteady", HTTP_ANSWERS, ["6h", "30m"], "3h", 6.0, "5m")
            .says("service", "{{ $labels.job }} fails requests: the monthly error budget will be spent in five days", bad),
        burn("HttpErrorsSlow", HTTP_ANSWERS, ["3d", "6h"], "1d", 1.0, "30m")
            .says("service", "{{ $labels.job }} fails requests: the objective is missed", bad),
        Alert::new("NoOrderAccepted",
            format!(r#"sum(rate({ORDERS}{{outcome="accepted"}}[10m]))"#),
            &format!(r#"== 0 and sum(rate({HTTP_DURATION}_count{{http_request_method="POST",http_route="/orders"}}[10m])) > 0 and sum(up{{job="orders"}}) > 0"#), "2m", Page)
            .says("shop", "Customers place orders but none is accepted", "POST /orders receives requests, and {{ $value }} orders per second were accepted in the last ten minutes."),
        Alert::new("OrdersOverdue", format!("max({OVERDUE})"), "> 0", "2m", Page)
            .says("shop", "Orders are still open after their deadline", "{{ $value }} orders are more than two minutes past their deadline."),
        Alert::new("SagaViolated", format!("sum by (job, invariant) (increase({INVARIANT_VIOLATIONS}[15m]))"), "> 0", "30s", Page)
            .says("shop", "{{ $labels.job }} received an event that contradicts its state: {{ $labels.invariant }}", "{{ $value }} times in 15 minutes: money or goods may be wrong."),
        Alert::new("DeadLetters", format!("sum by (service_name) ({})", last(DEAD_LETTERS.name, "1h")), "> 0", "1m", Ticket)
            .says("events", "{{ $labels.service_name }} has dead letters", "{{ $value }} dead letters are unresolved."),
        Alert::new("DeadLettersGrow", format!("sum by (job, event, reason) (increase({DEAD_LETTERED}[10m]))"), "> 10", "1m", Page)
            .says("events", "{{ $labels.job }} dead-letters {{ $labels.event }} repeatedly: {{ $labels.reason }}", "{{ $value }} dead letters in ten minutes."),
        Alert::new("ConsumerLags", format!("max by (stream_name, consumer_name) ({})", last(OLDEST_UNACKED.name, "1h")), "> 3600", "5m", Page)
            .says("broker", "{{ $labels.consumer_name }} lags on {{ $labels.stream_name }}", "Its oldest unacknowledged event is {{ $value | humanizeDuration }} old."),
        Alert::new("ConsumerNotPulled",
            format!("max by (stream_name, consumer_name) (max_over_time({WAITING}[1d]))"),
            &format!("== 0 and max by (stream_name, consumer_name) ({WAITING} offset 1d) == 0"), "5m", Ticket)
            .says("broker", "{{ $labels.consumer_name }} has not read {{ $labels.stream_name }} for a day", "{{ $value }} pull requests waited in the last day; the consumer blocks the trimming of the stream."),
        Alert::new("StreamFull", format!("max by (stream_name) ({})", last(STREAM_RATIO.name, "1h")), "> 0.8", "5m", Ticket)
            .says("broker", "{{ $labels.stream_name }} is nearly full", "It is at {{ $value | humanizePercentage }} of its limit; from 90 % commands get 503."),
        Alert::new("StreamNotTrimmed", format!("max by (stream_name) ({TRIM_HELD})"), "> 0", "10m", Ticket)
            .says("broker", "{{ $labels.stream_name }} is not trimmed", "Its owner cannot trim it (blocked: {{ $value }}): a reader has no durable on it, or the broker does not answer."),
        Alert::new("BrokerForgot", format!("max by (job, stream_name) (increase({REPUBLISHED}[15m]) + increase({UNFILLED}[15m]))"), "> 0", "1m", Ticket)
            .says("broker", "The broker had lost messages of {{ $labels.stream_name }}", "{{ $labels.job }} has published them again (about {{ $value }}), as far as its journal has them; its `/readyz` says whether any are gone."),
        Alert::new("EventsUnpublished", format!("max by (job) ({})", last(UNPUBLISHED_AGE.name, "5m")), "> 60", "1m", Page)
            .says("service", "{{ $labels.job }} cannot publish", "Its oldest committed event has been waiting for {{ $value | humanizeDuration }}."),
        Alert::new("PublishFails", format!(r#"sum by (job, error_type) (rate({SENT}{{error_type!=""}}[5m]))"#), "> 0", "5m", Ticket)
            .says("service", "Publishes of {{ $labels.job }} fail: {{ $labels.error_type }}", "{{ $value }} per second; they are retried."),
        Alert::new("Redelivered", format!(r#"sum by (job, event) (rate({REDELIVERIES}{{cause="unacked"}}[5m]))"#), "> 0", "10m", Ticket)
            .says("events", "{{ $labels.event }} is redelivered repeatedly to {{ $labels.job }}", "{{ $value }} per second are redelivered because no ack arrived in time."),
        Alert::new("OutsideUnanswered", format!("max by (job, kind) ({})", last(EFFECTS_UNANSWERED.name, "5m")), "> 10", "15s", Page)
            .says("service", "{{ $labels.job }} gets no answer to {{ $labels.kind }}", "The external system has not answered for {{ $value | humanizeDuration }}; pending work resumes by itself once it does."),
        Alert::new("WakesOverdue", format!("max by (job, kind) ({})", last(WAKE_OVERDUE.name, "5m")), "> 60", "1m", Page)
            .says("service", "{{ $labels.kind }} of {{ $labels.job }} is overdue", "The oldest has been due for {{ $value | humanizeDuration }}: the external system does not answer, or too slowly."),
    ]);
    all
}
