//! Service: HTTP, the engine, effects and the process of one service or several.

use millstream::telemetry::metrics::{
    BATCH_SIZE, BROKER_CONNECTED, BUILD_INFO, CONFLICTS, EFFECT_DURATION, EFFECTS, HTTP_ACTIVE, HTTP_CLIENT_DURATION,
    HTTP_DURATION, HTTP_SHED, OPERATION_DURATION, STAGE, STORE_UP, UNPUBLISHED, UNPUBLISHED_AGE, WAKE_OVERDUE,
    WAKES_DUE,
};
use serde_json::Value;

use crate::board::{Asks, Board, CHOSEN, RATE};
use crate::panel::{AMBER, GREEN, Kind, Panel, RED, Unit};

/// What is asked for health or by Prometheus is no work.
const WORK: &str = r#"http_route!~"/health|/livez|/readyz|/metrics""#;

pub(crate) fn board() -> Value {
    Board::new(
        "millstream-service",
        "Service",
        "Does it answer? What does its engine do with its time?",
        Asks::Instance,
    )
    .tiles(tiles())
    .row("Does it answer?", http())
    .row("What does the engine do with its time?", engine())
    .row("Does the outside answer?", outside())
    .row("Does the broker take what it publishes?", broker())
    .row("How is the process?", process())
    .build()
}

fn tiles() -> Vec<Panel> {
    let all = format!("sum(rate({HTTP_DURATION}_count{{{CHOSEN},{WORK}}}[{RATE}]))");
    let good = [(f64::NEG_INFINITY, RED), (1.0, GREEN)];
    vec![
        Panel::stat("Up", Unit::Count, format!("min(up{{{CHOSEN}}})"), &good)
            .says("1 while every chosen instance answers Prometheus.", "1.", "Start what is down.", "servicedown"),
        Panel::stat("Broker connected", Unit::Count, format!("min({BROKER_CONNECTED}{{{CHOSEN}}})"), &good)
            .says("1 while every chosen instance is connected to the broker.", "1.", "See whether the broker runs.", "eventsunpublished")
            .leads_to("broker", "Broker", ""),
        Panel::stat("Store up", Unit::Count, format!("min({STORE_UP}{{{CHOSEN}}}) or min({BROKER_CONNECTED}{{{CHOSEN}}})"), &good)
            .says("1 while the store of every chosen instance answers.", "1.", "See whether the database runs and its disk has room.", "httperrorsfast"),
        Panel::stat("Requests failed", Unit::Share,
            format!(r#"sum(rate({HTTP_DURATION}_count{{{CHOSEN},{WORK},http_response_status_code=~"5.."}}[{RATE}])) / ({all} > 0) or {all} * 0"#),
            &[(0.001, AMBER), (0.01, RED)])
            .says("Share of requests answered with a 5xx, health checks left out.", "0 %.", "See below which route.", "httperrorsfast"),
        Panel::stat("Answered within 0.25 s", Unit::Share,
            format!(r#"sum(rate({HTTP_DURATION}_bucket{{{CHOSEN},{WORK},le="0.25"}}[{RATE}])) / ({all} > 0) or {all} * 0 + 1"#),
            &[(f64::NEG_INFINITY, RED), (0.95, AMBER), (0.99, GREEN)])
            .says("Share of requests answered within 0.25 s.", "99 %, the objective.", "See which stage takes the time.", "httperrorsfast"),
        Panel::stat("Busiest engine", Unit::Busy,
            format!(r#"max(sum by (job, instance) (rate({STAGE}_sum{{{CHOSEN},stage=~"load|handle|commit|ack"}}[{RATE}])))"#),
            &[(0.7, AMBER), (0.9, RED)])
            .says("Share of its time that the busiest engine works.", "Below 70 %.", "Add a replica, or look at the largest stage.", "orderslatefast"),
        Panel::stat("Oldest not published", Unit::Seconds, format!("max({UNPUBLISHED_AGE}{{{CHOSEN}}}) or vector(0)"), &[(10.0, AMBER), (60.0, RED)])
            .says("How long the oldest committed event has been waiting for the broker.", "Below a second.", "See whether the broker answers.", "eventsunpublished")
            .leads_to("broker", "Broker", ""),
        Panel::stat("Oldest wake overdue", Unit::Seconds, format!("max({WAKE_OVERDUE}{{{CHOSEN}}}) or vector(0)"), &[(5.0, AMBER), (10.0, RED)])
            .says("How long the earliest due wake has been waiting.", "Below a second.", "See whether the outside answers.", "wakesoverdue"),
    ]
}

fn http() -> Vec<Panel> {
    vec![
        Panel::lines("Requests by status", Unit::PerSecond,
            format!("sum by (http_response_status_code) (rate({HTTP_DURATION}_count{{{CHOSEN},{WORK}}}[{RATE}]))"), "{{http_response_status_code}}")
            .says("Requests each second by the status of their answer.", "2xx; some 4xx.", "5xx: see the log.", "httperrorsfast"),
        Panel::lines("Time to answer, 99 of 100, by route", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, http_request_method, http_route) (rate({HTTP_DURATION}_bucket{{{CHOSEN},{WORK}}}[{RATE}])))"),
            "{{http_request_method}} {{http_route}}")
            .steps(&[(0.25, RED)])
            .says("Time within which 99 of 100 requests were answered.", "Below 0.25 s, the dashed line.", "Commands wait for a commit: see the engine's stages.", "httperrorsfast"),
        Panel::lines("Requests in flight", Unit::Count, format!("sum by (job) ({HTTP_ACTIVE}{{{CHOSEN}}})"), "{{job}}")
            .and(format!("sum by (reason) (rate({HTTP_SHED}{{{CHOSEN}}}[{RATE}]))"), "5.. for {{reason}}")
            .says("Requests being answered now, and those turned away each second.", "Few, and none turned away.", "Many: the engine or the store is slow.", "httperrorsfast"),
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
            "Share of time in each stage of the engine, instances added up.",
            "Commit is the largest.",
            "Near 100 % an instance the engine is saturated.",
            "orderslatefast",
        ),
        Panel::heatmap(
            "Size of batches",
            Unit::Count,
            format!("sum by (le) (increase({BATCH_SIZE}_bucket{{{CHOSEN}}}[{RATE}]))"),
        )
        .says(
            "Inputs of a source in a batch.",
            "Small while there is little to do; up to 256 under load.",
            "Always 256: it is behind.",
            "consumerlags",
        ),
        Panel::lines(
            "Commits that met another's",
            Unit::PerSecond,
            format!("sum by (kind) (rate({CONFLICTS}{{{CHOSEN}}}[{RATE}]))"),
            "{{kind}}",
        )
        .says(
            "Commits handled again because another writer was first.",
            "0 with one instance; few with several.",
            "Many: replicas compete for the same documents.",
            "orderslatefast",
        ),
    ]
}

fn outside() -> Vec<Panel> {
    vec![
        Panel::lines("Effects", Unit::PerSecond, format!("sum by (outcome, kind) (rate({EFFECTS}{{{CHOSEN}}}[{RATE}]))"), "{{outcome}} {{kind}}")
            .says("Effects on the outside by what became of them.", "All settled.", "Outage: the outside does not answer.", "wakesoverdue"),
        Panel::lines("Time of effects, 99 of 100", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, kind) (rate({EFFECT_DURATION}_bucket{{{CHOSEN}}}[{RATE}])))"), "{{kind}}")
            .says("Time that effects took.", "As long as the outside takes.", "Near 7.5 s: it times out.", "wakesoverdue"),
        Panel::lines("Wakes due", Unit::Count, format!("max by (job, kind) ({WAKES_DUE}{{{CHOSEN}}})"), "{{kind}} of {{job}}")
            .says("Wakes whose time has come and that nobody has taken yet.", "0.", "It rises while the outside is away, and falls by itself.", "wakesoverdue"),
        Panel::lines("Requests to others", Unit::PerSecond,
            format!("sum by (server_address, http_response_status_code, error_type) (rate({HTTP_CLIENT_DURATION}_count{{{CHOSEN}}}[{RATE}]))"),
            "{{http_response_status_code}}{{error_type}} {{server_address}}")
            .says("Requests that the service makes, by answer or failure.", "2xx and 402.", "connect, timeout: the other side is away.", "wakesoverdue"),
    ]
}

fn broker() -> Vec<Panel> {
    vec![
        Panel::lines("Not published", Unit::Count, format!("max by (job) ({UNPUBLISHED}{{{CHOSEN}}})"), "{{job}}")
            .steps(&[(10_000.0, RED)])
            .says("Inputs whose events the broker has not acknowledged.", "A few; at the dashed line commands are answered 503.", "See whether the broker answers.", "eventsunpublished"),
        Panel::lines("Exchanges with the broker, 99 of 100", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, messaging_operation_name) (rate({OPERATION_DURATION}_bucket{{{CHOSEN}}}[{RATE}])))"), "{{messaging_operation_name}}")
            .says("Time of a publish until acknowledged, of a fetch until something comes, of sending acks.", "publish and ack some milliseconds; fetch as long as nothing comes.", "A slow publish: the broker's disk.", "publishfails"),
        Panel::new(Kind::Timeline, "Connected", Unit::Count, format!("min by (job) ({BROKER_CONNECTED}{{{CHOSEN}}})"), "{{job}}")
            .steps(&[(f64::NEG_INFINITY, RED), (1.0, GREEN)])
            .says("When each service was connected to the broker.", "Green throughout.", "See the broker's log for that time.", "eventsunpublished"),
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
            "A whole core without load: something spins.",
            "orderslatefast",
        ),
        Panel::lines(
            "Memory",
            Unit::Bytes,
            format!("process_resident_memory_bytes{{{CHOSEN}}}"),
            "{{job}} {{instance}}",
        )
        .says("Resident memory.", "Flat.", "If it only rises, note it before you restart.", "servicedown"),
        Panel::new(
            Kind::Table,
            "Builds",
            Unit::Count,
            format!("max by (job, instance, version, revision) ({BUILD_INFO}{{{CHOSEN}}})"),
            "",
        )
        .columns(&[("job", "Service"), ("instance", "Instance"), ("version", "Release"), ("revision", "Revision")])
        .says(
            "Which build each instance runs.",
            "One release, two during an upgrade.",
            "An old one: its upgrade is stuck.",
            "servicedown",
        ),
    ]
}
