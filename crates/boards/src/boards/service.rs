//! Service: HTTP, the engine, effects and the process of one service or several.

use millstream::telemetry::metrics::{
    BATCH_SIZE, BROKER_CONNECTED, BUILD_INFO, CONFLICTS, EFFECT_DURATION, EFFECTS, EFFECTS_UNANSWERED, HTTP_ACTIVE,
    HTTP_CLIENT_DURATION, HTTP_DURATION, HTTP_SHED, LOAD_MISSES, OPERATION_DURATION, STAGE, STORE_UP, UNPUBLISHED,
    UNPUBLISHED_AGE, WAKE_OVERDUE, WAKES_DUE,
};
use serde_json::Value;

use crate::board::{Asks, Board, CHOSEN, RATE};
use crate::panel::{AMBER, GREEN, Kind, Panel, RED, Unit};

/// Health checks and scrapes are not counted.
const WORK: &str = r#"http_route!~"/health|/livez|/readyz|/metrics""#;

pub(crate) fn board() -> Value {
    Board::new("millstream-service", "Service", "Does it answer? Where does its engine spend its time?", Asks::Instance)
        .tiles(tiles())
        .row("Does it answer?", http())
        .row("Where does the engine spend its time?", engine())
        .row("Do external systems answer?", outside())
        .row("Does the broker accept its events?", broker())
        .row("How is the process?", process())
        .build()
}

fn tiles() -> Vec<Panel> {
    let all = format!("sum(rate({HTTP_DURATION}_count{{{CHOSEN},{WORK}}}[{RATE}]))");
    let good = [(f64::NEG_INFINITY, RED), (1.0, GREEN)];
    vec![
        Panel::stat("Up", Unit::Count, format!("min(up{{{CHOSEN}}})"), &good)
            .says("1 while Prometheus can scrape every selected instance.", "1.", "Start the instance that is down.", "servicedown"),
        Panel::stat("Broker connected", Unit::Count, format!("min({BROKER_CONNECTED}{{{CHOSEN}}})"), &good)
            .says("1 while every selected instance is connected to the broker.", "1.", "Check whether the broker is running.", "brokerdown")
            .leads_to("broker", "Broker", ""),
        Panel::stat("Store up", Unit::Count, format!("min({STORE_UP}{{{CHOSEN}}}) or min({BROKER_CONNECTED}{{{CHOSEN}}})"), &good)
            .says("1 while the store of every selected instance answers.", "1.", "Check that the database is running and its disk is not full.", "storedown"),
        Panel::stat("Requests failed", Unit::Share,
            format!(r#"sum(rate({HTTP_DURATION}_count{{{CHOSEN},{WORK},http_response_status_code=~"5.."}}[{RATE}])) / ({all} > 0) or {all} * 0"#),
            &[(0.001, AMBER), (0.01, RED)])
            .says("Share of requests answered with a 5xx, excluding health checks.", "0 %.", "See below which route.", "httperrorsfast"),
        Panel::stat("Answered within 0.25 s", Unit::Share,
            format!(r#"sum(rate({HTTP_DURATION}_bucket{{{CHOSEN},{WORK},le="0.25"}}[{RATE}])) / ({all} > 0) or {all} * 0 + 1"#),
            &[(f64::NEG_INFINITY, RED), (0.95, AMBER), (0.99, GREEN)])
            .says("Share of requests answered within 0.25 s.", "99 %, the objective.", "See which stage takes the time.", "httperrorsfast"),
        Panel::stat("Busiest engine", Unit::Busy,
            format!(r#"max(sum by (job, instance) (rate({STAGE}_sum{{{CHOSEN},stage=~"load|handle|commit|ack"}}[{RATE}])))"#),
            &[(0.7, AMBER), (0.9, RED)])
            .says("Utilization of the busiest engine.", "Below 70 %.", "Add a replica, or look at the largest stage.", "orderslatefast"),
        Panel::stat("Oldest unpublished event", Unit::Seconds, format!("max({UNPUBLISHED_AGE}{{{CHOSEN}}}) or vector(0)"), &[(10.0, AMBER), (60.0, RED)])
            .says("How long the oldest committed event has been waiting to be published.", "Below a second.", "Check whether the broker answers.", "eventsunpublished")
            .leads_to("broker", "Broker", ""),
        Panel::stat("Oldest overdue wake", Unit::Seconds, format!("max({WAKE_OVERDUE}{{{CHOSEN}}}) or vector(0)"), &[(5.0, AMBER), (10.0, RED)])
            .says("How long the oldest due wake has been waiting.", "Below a second.", "Check whether the external system answers.", "wakesoverdue"),
    ]
}

fn http() -> Vec<Panel> {
    vec![
        Panel::lines("Requests by status", Unit::PerSecond,
            format!("sum by (http_response_status_code) (rate({HTTP_DURATION}_count{{{CHOSEN},{WORK}}}[{RATE}]))"), "{{http_response_status_code}}")
            .says("Requests per second by status.", "2xx; some 4xx.", "5xx: see the log.", "httperrorsfast"),
        Panel::lines("Response time, p99, by route", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, http_request_method, http_route) (rate({HTTP_DURATION}_bucket{{{CHOSEN},{WORK}}}[{RATE}])))"),
            "{{http_request_method}} {{http_route}}")
            .steps(&[(0.25, RED)])
            .says("99th percentile of the response time.", "Below 0.25 s, the dashed line.", "Commands wait for a commit: see the engine's stages.", "httperrorsfast"),
        Panel::lines("Requests in flight", Unit::Count, format!("sum by (job) ({HTTP_ACTIVE}{{{CHOSEN}}})"), "{{job}}")
            .and(format!("sum by (reason) (rate({HTTP_SHED}{{{CHOSEN}}}[{RATE}]))"), "5.. for {{reason}}")
            .says("Requests in flight, and requests rejected per second.", "Few, and none rejected.", "Many: the engine or the store is slow.", "httperrorsfast"),
    ]
}

fn engine() -> Vec<Panel> {
    vec![
        Panel::stacked(
            "Time by stage",
            Unit::Busy,
            format!("sum by (stage) (rate({STAGE}_sum{{{CHOSEN}}}[{RATE}]))"),
            "{{stage}}",
        )
        .says(
            "Share of time in each stage of the engine, summed over instances.",
            "Commit is the largest.",
            "Near 100 % per instance the engine is saturated.",
            "orderslatefast",
        ),
        Panel::heatmap(
            "Batch size",
            Unit::Count,
            format!("sum by (le) (increase({BATCH_SIZE}_bucket{{{CHOSEN}}}[{RATE}]))"),
        )
        .says(
            "Inputs per batch.",
            "Small at low load; up to 256 under load.",
            "Always 256: the service is behind.",
            "consumerlags",
        ),
        Panel::lines(
            "Batches run again",
            Unit::PerSecond,
            format!("sum by (kind) (rate({CONFLICTS}{{{CHOSEN}}}[{RATE}]))"),
            "{{kind}}",
        )
        .and(format!("sum(rate({LOAD_MISSES}{{{CHOSEN}}}[{RATE}]))"), "document not named by touches")
        .says(
            "Batches handled again because another writer committed first, or a handler used a document that was not loaded.",
            "0 with one instance; few with several.",
            "Many: replicas compete for the same documents.",
            "orderslatefast",
        ),
    ]
}

fn outside() -> Vec<Panel> {
    vec![
        Panel::lines("Effects", Unit::PerSecond, format!("sum by (outcome, kind) (rate({EFFECTS}{{{CHOSEN}}}[{RATE}]))"), "{{outcome}} {{kind}}")
            .says("Effects by outcome.", "All settled.", "Outage: the external system does not answer.", "wakesoverdue"),
        Panel::lines("Duration of effects, p99", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, kind) (rate({EFFECT_DURATION}_bucket{{{CHOSEN}}}[{RATE}])))"), "{{kind}}")
            .says("99th percentile of the duration of effects.", "The response time of the external system.", "Near 7.5 s: requests time out.", "wakesoverdue"),
        Panel::lines("Unanswered for", Unit::Seconds, format!("max by (job, kind) ({EFFECTS_UNANSWERED}{{{CHOSEN}}})"), "{{kind}} of {{job}}")
            .says("How long the external system has not answered.", "0, or a moment.", "Rises: it is unavailable; pending work resumes by itself once it answers.", "outsideunanswered"),
        Panel::lines("Wakes due", Unit::Count, format!("max by (job, kind) ({WAKES_DUE}{{{CHOSEN}}})"), "{{kind}} of {{job}}")
            .says("Wakes that are due and not yet claimed.", "0.", "Rises while the external system is unavailable, and recovers by itself.", "wakesoverdue"),
        Panel::lines("Outgoing requests", Unit::PerSecond,
            format!("sum by (server_address, http_response_status_code, error_type) (rate({HTTP_CLIENT_DURATION}_count{{{CHOSEN}}}[{RATE}]))"),
            "{{http_response_status_code}}{{error_type}} {{server_address}}")
            .says("Outgoing requests by status or error.", "2xx and 402.", "connect, timeout: the other side is unavailable.", "wakesoverdue"),
    ]
}

fn broker() -> Vec<Panel> {
    vec![
        Panel::lines("Unpublished inputs", Unit::Count, format!("max by (job) ({UNPUBLISHED}{{{CHOSEN}}})"), "{{job}}")
            .steps(&[(10_000.0, RED)])
            .says("Inputs with events that the broker has not acknowledged.", "A few; at the dashed line commands get 503.", "Check whether the broker answers.", "eventsunpublished"),
        Panel::lines("Broker operations, p99", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, messaging_operation_name) (rate({OPERATION_DURATION}_bucket{{{CHOSEN}}}[{RATE}])))"), "{{messaging_operation_name}}")
            .says("Duration of a publish until acknowledged, of a fetch until a message arrives, and of sending acks.", "publish and ack a few milliseconds; fetch as long as no message arrives.", "Slow publish: check the broker's disk.", "publishfails"),
        Panel::new(Kind::Timeline, "Connected", Unit::Count, format!("min by (job) ({BROKER_CONNECTED}{{{CHOSEN}}})"), "{{job}}")
            .steps(&[(f64::NEG_INFINITY, RED), (1.0, GREEN)])
            .says("Connection of each service to the broker over time.", "Green throughout.", "See the broker's log for that time.", "eventsunpublished"),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        Panel::lines(
            "CPU",
            Unit::Busy,
            format!("rate(process_cpu_seconds_total{{{CHOSEN}}}[{RATE}])"),
            "{{job}} {{instance}}",
        )
        .says(
            "Share of one core.",
            "Follows the load.",
            "A full core without load: a busy loop.",
            "orderslatefast",
        ),
        Panel::lines(
            "Memory",
            Unit::Bytes,
            format!("process_resident_memory_bytes{{{CHOSEN}}}"),
            "{{job}} {{instance}}",
        )
        .says("Resident memory.", "Flat.", "Rises only: a leak; record it before you restart.", "servicedown"),
        Panel::new(
            Kind::Table,
            "Builds",
            Unit::Count,
            format!("max by (job, instance, version, revision) ({BUILD_INFO}{{{CHOSEN}}})"),
            "",
        )
        .columns(&[("job", "Service"), ("instance", "Instance"), ("version", "Release"), ("revision", "Revision")])
        .says(
            "Build of each instance.",
            "One release, two during an upgrade.",
            "An old release: its upgrade is stuck.",
            "servicedown",
        ),
    ]
}
