//! Shop: whether orders are ending, where they wait if not, what failed.

use inventory::metrics::{RESERVATIONS, SHORT_LINES};
use millstream::telemetry::metrics::{
    EFFECTS, HTTP_DURATION, HTTP_SHED, MESSAGES, STAGE, UNPUBLISHED_AGE, WAKE_OVERDUE,
};
use millstream_console::metrics::{DEAD_LETTERS, OLDEST_UNACKED, PENDING};
use notifications::NOTIFICATIONS;
use orders::metrics::{DURATION, INVARIANT_VIOLATIONS, ORDERS, OVERDUE, VALUE};
use payments::metrics::PAYMENTS;
use serde_json::Value;

use crate::SERVICES;
use crate::board::{Asks, Board, RATE};
use crate::panel::{AMBER, GREEN, Kind, Panel, RED, Unit};

pub(crate) fn board() -> Value {
    Board::new("millstream-shop", "Shop", "Are orders being completed? Where do they wait? What failed?", Asks::Nothing)
        .tiles(tiles())
        .row("Are orders being completed?", ending())
        .row("Where do they wait?", waiting())
        .row("What failed?", failed())
        .row("Where do the engines spend their time?", time())
        .row("What is sold?", sold())
        .row("Which alerts are firing?", alerts())
        .build()
}

fn tiles() -> Vec<Panel> {
    let jobs = SERVICES.join("|");
    let accepted = format!(r#"sum(rate({ORDERS}{{outcome="accepted"}}[{RATE}]))"#);
    let ended = format!(r#"sum(rate({ORDERS}{{outcome=~"confirmed|cancelled"}}[{RATE}]))"#);
    let in_time = format!(r#"sum(rate({DURATION}_bucket{{le="2.5"}}[{RATE}]))"#);
    let in_all = format!("sum(rate({DURATION}_count[{RATE}]))");
    let asked = r#"http_route=~"/orders.*""#;
    vec![
        Panel::stat("Orders accepted", Unit::PerSecond, accepted.clone(), &[(f64::NEG_INFINITY, AMBER), (0.001, GREEN)])
            .says("Orders answered 201, each second.", "The rate at which customers order; green while there are any.",
                "If customers do order, look at the failed requests.", "noorderaccepted")
            .leads_to("service", "HTTP of orders", "&var-job=orders"),
        Panel::stat("Requests failed", Unit::Share,
            format!(r#"sum(rate({HTTP_DURATION}_count{{{asked},http_response_status_code=~"5.."}}[{RATE}])) / (sum(rate({HTTP_DURATION}_count{{{asked}}}[{RATE}])) > 0) or sum(rate({HTTP_DURATION}_count{{{asked}}}[{RATE}])) * 0"#),
            &[(0.001, AMBER), (0.01, RED)])
            .says("Share of requests to /orders answered with a 5xx.", "0 %; the objective allows 1 %.",
                "See which dependency of orders is unavailable.", "httperrorsfast")
            .leads_to("service", "HTTP of orders", "&var-job=orders"),
        Panel::stat("Orders completed", Unit::Share,
            format!("clamp_max({ended} / ({accepted} > 0), 1) or {accepted} * 0 + 1"),
            &[(f64::NEG_INFINITY, RED), (0.5, AMBER), (0.9, GREEN)])
            .says("Orders completed per order accepted: below 100 % a backlog builds up.", "Around 100 %.",
                "The red tile to the right shows where they wait.", "orderslatefast")
            .leads_to("events", "Events", ""),
        Panel::stat("Completed within 2.5 s", Unit::Share,
            format!("{in_time} / ({in_all} > 0) or {in_all} * 0 + ({accepted} == bool 0)"),
            &[(f64::NEG_INFINITY, RED), (0.95, AMBER), (0.99, GREEN)])
            .says("Share of completed orders that were completed within 2.5 s of being accepted; 0 % while none is completed.", "99 %, the objective.",
                "See which stage takes the time; after an outage it is red until the backlog is gone.", "orderslatefast")
            .leads_to("service", "Engines", ""),
        Panel::stat("Oldest overdue payment", Unit::Seconds,
            format!(r#"max({WAKE_OVERDUE}{{job="payments"}})"#), &[(5.0, AMBER), (10.0, RED)])
            .says("How long the oldest charge or refund has been due without an attempt.", "0 s; above that the gateway does not answer and is being probed.",
                "Check whether the gateway answers; nothing is lost meanwhile.", "wakesoverdue")
            .leads_to("service", "Effects of payments", "&var-job=payments"),
        Panel::stat("Oldest pending event", Unit::Seconds,
            format!("max({OLDEST_UNACKED})"), &[(5.0, AMBER), (15.0, RED)])
            .says("Age of the oldest event that a consumer has not acknowledged.", "Below a second.",
                "See below which consumer lags, and whether its service runs.", "consumerlags")
            .leads_to("broker", "Consumers", ""),
        Panel::stat("Dead letters", Unit::Count, format!("sum({DEAD_LETTERS})"), &[(1.0, RED)])
            .says("Unresolved dead letters of all services.", "0.",
                "Read the reason, fix the cause, redrive.", "deadletters")
            .leads_to("events", "Events", "")
            .leads_to_letters(""),
        Panel::stat("Services down", Unit::Count,
            format!(r#"{} - (count(count by (job) (up{{job=~"{jobs}"}} == 1)) or vector(0))"#, SERVICES.len()), &[(1.0, RED)])
            .says("Services with no instance that Prometheus can scrape.", "0.",
                "Start it; its events are waiting for it.", "servicedown")
            .leads_to("service", "Services", ""),
    ]
}

fn ending() -> Vec<Panel> {
    vec![
        Panel::lines("Orders", Unit::PerSecond, format!("sum by (outcome) (rate({ORDERS}[{RATE}]))"), "{{outcome}}")
            .says(
                "Orders accepted, confirmed and cancelled, each second.",
                "Confirmed and cancelled together keep up with accepted.",
                "If they fall behind, see where orders wait.",
                "orderslatefast",
            )
            .leads_to("service", "Orders", "&var-job=orders"),
        Panel::heatmap(
            "Time to complete an order",
            Unit::Seconds,
            format!("sum by (le) (increase({DURATION}_bucket[{RATE}]))"),
        )
        .says(
            "Distribution of the time from acceptance to completion of an order.",
            "Nearly all below 0.25 s.",
            "A band that rises shows a backlog or a slow gateway.",
            "orderslatefast",
        ),
        Panel::lines("Time to complete, quantiles", Unit::Seconds, quantile(0.5), "p50")
            .and(quantile(0.95), "p95")
            .and(quantile(0.99), "p99")
            .steps(&[(2.5, RED)])
            .says(
                "Quantiles of the time from acceptance to completion.",
                "p99 below 2.5 s, the dashed line.",
                "See which stage takes the time.",
                "orderslatefast",
            ),
    ]
}

fn quantile(share: f64) -> String {
    format!("histogram_quantile({share}, sum by (le) (rate({DURATION}_bucket[{RATE}])))")
}

fn waiting() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Oldest event by consumer",
            Unit::Seconds,
            format!("max by (stream_name, consumer_name) ({OLDEST_UNACKED})"),
            "{{consumer_name}} on {{stream_name}}",
        )
        .steps(&[(15.0, RED)])
        .says(
            "Age of the oldest unacknowledged event of each consumer.",
            "Below a second; the dashed line is where the tile turns red.",
            "Start the service that lags, or read its log.",
            "consumerlags",
        )
        .leads_to("service", "This service", "&var-job=${__field.labels.consumer_name}"),
        Panel::lines(
            "Events not delivered",
            Unit::Count,
            format!("max by (stream_name, consumer_name) ({PENDING})"),
            "{{consumer_name}} on {{stream_name}}",
        )
        .says(
            "Events not yet delivered to each consumer.",
            "A few; falls after a burst.",
            "Rises only: the consumer is too slow or does not pull.",
            "consumerlags",
        )
        .leads_to("service", "This service", "&var-job=${__field.labels.consumer_name}"),
        Panel::lines(
            "Overdue effects and deadlines",
            Unit::Seconds,
            format!("max by (job, kind) ({WAKE_OVERDUE})"),
            "{{kind}} of {{job}}",
        )
        .steps(&[(10.0, RED)])
        .says(
            "How long the oldest charge, refund or deadline has been due.",
            "Below a second.",
            "Check whether the external system answers.",
            "wakesoverdue",
        )
        .leads_to("service", "This service", "&var-job=${__field.labels.job}"),
        Panel::lines("Oldest unpublished event", Unit::Seconds, format!("max by (job) ({UNPUBLISHED_AGE})"), "{{job}}")
            .steps(&[(60.0, RED)])
            .says(
                "How long the oldest committed event has been waiting to be published.",
                "Below a second.",
                "Check that the broker answers and its streams have capacity.",
                "eventsunpublished",
            )
            .leads_to("service", "This service", "&var-job=${__field.labels.job}"),
        Panel::lines("Orders past their deadline", Unit::Count, format!("max({OVERDUE})"), "overdue")
            .says(
                "Orders still open two minutes after their deadline.",
                "0.",
                "The orders service or its store is not processing due deadlines.",
                "ordersoverdue",
            )
            .leads_to("service", "Orders", "&var-job=orders"),
    ]
}

fn failed() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Orders cancelled by reason",
            Unit::PerSecond,
            format!(r#"sum by (reason) (rate({ORDERS}{{outcome="cancelled"}}[{RATE}]))"#),
            "{{reason}}",
        )
        .says(
            "Why orders were cancelled.",
            "A small share for stock and declined cards; none for deadline.",
            "Out of stock: restock. Deadline: a step took too long.",
            "ordersoverdue",
        ),
        Panel::new(
            Kind::Bars,
            "Dead letters by service and reason",
            Unit::Count,
            format!(
                "sum by (service_name, reason) ({DEAD_LETTERS}) > 0 or sum by (service_name) ({DEAD_LETTERS}) == 0"
            ),
            "{{service_name}} {{reason}}",
        )
        .steps(&[(1.0, RED)])
        .says(
            "Dead letters by service and reason.",
            "0 for each service.",
            "Open them with the link, and read the service's log of that time.",
            "deadletters",
        )
        .leads_to("events", "Events of this service", "&var-job=${__field.labels.service_name}")
        .leads_to_letters("service=${__field.labels.service_name}&reason=${__field.labels.reason}"),
        Panel::lines(
            "Events retried, duplicate or dead-lettered",
            Unit::PerSecond,
            format!(r#"sum by (outcome) (rate({MESSAGES}{{outcome=~"retried|dead_lettered|duplicate"}}[{RATE}]))"#),
            "{{outcome}}",
        )
        .says(
            "Events that were retried, dead-lettered, or delivered again after being handled.",
            "0, except duplicates after a restart.",
            "See which event on the Events board.",
            "deadletters",
        )
        .leads_to("events", "Events", ""),
        Panel::lines(
            "Charges and refunds",
            Unit::PerSecond,
            format!(r#"sum by (outcome) (rate({EFFECTS}{{job="payments"}}[{RATE}]))"#),
            "{{outcome}}",
        )
        .says(
            "Attempts at the gateway: settled, or outcome unknown (outage).",
            "Settled follows the orders; no outage.",
            "Outages without anything settled: the gateway is down.",
            "wakesoverdue",
        )
        .leads_to("service", "Payments", "&var-job=payments"),
        Panel::lines(
            "Requests rejected",
            Unit::PerSecond,
            format!("sum by (job) (rate({HTTP_SHED}[{RATE}]))"),
            "{{job}}",
        )
        .says(
            "Requests answered 503: too many in flight, a dependency unavailable, or the service shutting down.",
            "0.",
            "Unavailable: see the service's /readyz.",
            "httperrorsfast",
        )
        .leads_to("service", "This service", "&var-job=${__field.labels.job}"),
        Panel::lines(
            "Violations of the saga",
            Unit::PerSecond,
            format!("sum by (invariant) (rate({INVARIANT_VIOLATIONS}[{RATE}]))"),
            "{{invariant}}",
        )
        .says(
            "Events that contradict the state of an order or a reservation.",
            "0, always.",
            "Investigate immediately: money or goods may be wrong.",
            "sagaviolated",
        ),
    ]
}

fn time() -> Vec<Panel> {
    let stages = |job: &str| format!(r#"sum by (stage) (rate({STAGE}_sum{{job="{job}"}}[{RATE}]))"#);
    let panel = |title, job: &str| {
        Panel::stacked(title, Unit::Busy, stages(job), "{{stage}}")
            .says(
                "Share of time that the engine's loop spends in each stage, summed over replicas.",
                "Well below 100 % per replica.",
                "Near 100 % the engine is saturated; the largest band is the bottleneck.",
                "orderslatefast",
            )
            .leads_to("service", "This service", &format!("&var-job={job}"))
    };
    vec![
        panel("Engine of orders", "orders"),
        panel("Engine of inventory", "inventory"),
        panel("Engine of payments", "payments"),
        panel("Engine of notifications", "notifications"),
        panel("Engine of analytics", "analytics"),
    ]
}

fn sold() -> Vec<Panel> {
    vec![
        Panel::lines("Value of orders", Unit::Cents,
            format!(
                r#"sum by (currency, outcome) (rate({VALUE}[{RATE}])) / 100 * 60 and on (currency) sum by (currency) (rate({VALUE}[{RATE}])) > 0 or sum by (currency, outcome) (rate({VALUE}{{currency="EUR"}}[{RATE}]))"#
            ), "{{outcome}} {{currency}}")
            .says("Value of orders per minute, in units of their currency.", "Confirmed follows accepted.",
                "A gap is revenue that is pending or lost to cancelled orders.", "orderslatefast"),
        Panel::lines("Reservations", Unit::PerSecond,
            format!("sum by (outcome) (rate({RESERVATIONS}[{RATE}]))"), "{{outcome}}")
            .and(format!("sum(rate({SHORT_LINES}[{RATE}]))"), "lines short of stock")
            .says("Reservations by outcome, and order lines that were short of stock.", "Sold follows reserved.",
                "Lines short of stock: restock.", "orderslatefast"),
        Panel::lines("Payments", Unit::PerSecond,
            format!("sum by (outcome) (rate({PAYMENTS}[{RATE}]))"), "{{outcome}}")
            .says("Payments by outcome.", "Captured follows the orders; refunded follows refund_pending.",
                "Refunds that stay pending: the gateway refuses them.", "wakesoverdue"),
        Panel::lines("Notifications", Unit::PerSecond,
            format!("sum by (channel, outcome) (rate({NOTIFICATIONS}[{RATE}]))"), "{{outcome}} by {{channel}}")
            .says("Customer notifications by channel and outcome.", "Sent follows completed orders; none failed.",
                "Failed: the mail server rejects the address. None at all: check whether it answers.", "wakesoverdue"),
    ]
}

fn alerts() -> Vec<Panel> {
    vec![
        Panel::new(Kind::Table, "Firing alerts", Unit::Count, r#"ALERTS{alertstate="firing"}"#, "")
            .columns(&[
                ("alertname", "Alert"),
                ("severity", "Severity"),
                ("job", "Service"),
                ("service_name", "Dead letters of"),
                ("consumer_name", "Consumer"),
                ("event", "Event"),
                ("kind", "Kind"),
            ])
            .says("Alerts currently firing in Prometheus.", "None.", "Follow the runbook of each.", "alerts"),
    ]
}
