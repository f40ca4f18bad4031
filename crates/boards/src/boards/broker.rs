//! Broker: streams, consumers, dead letter streams and instances, as the observer sees them.

use millstream::telemetry::metrics::{BROKER_CONNECTED, GONE, RECOVERED, REPUBLISHED, TRIM_HELD, TRIMMED, UNFILLED};
use millstream_console::metrics::{
    ACK_PENDING, DEAD_LETTER_AGE, DEAD_LETTERS, INSTANCES, OLDEST_UNACKED, PENDING, REDELIVERED, STREAM_BYTES,
    STREAM_LAST, STREAM_MESSAGES, STREAM_RATIO, WAITING,
};
use serde_json::Value;

use crate::OBSERVER;
use crate::board::{Asks, Board, RATE};
use crate::panel::{AMBER, GREEN, Kind, Panel, RED, Unit};

pub(crate) fn board() -> Value {
    Board::new(
        "millstream-broker",
        "Broker",
        "Does it answer? Which consumers lag? How full are the streams?",
        Asks::Nothing,
    )
    .tiles(tiles())
    .row("Which consumers lag?", consumers())
    .row("How full are the streams?", streams())
    .row("Which services run, and what did they park?", others())
    .build()
}

fn tiles() -> Vec<Panel> {
    vec![
        Panel::stat(
            "Broker answers",
            Unit::Count,
            format!(r#"min({BROKER_CONNECTED}{{job="{OBSERVER}"}})"#),
            &[(f64::NEG_INFINITY, RED), (1.0, GREEN)],
        )
        .says(
            "1 while the broker answers the observer.",
            "1.",
            "Check whether the broker is running.",
            "brokerdown",
        ),
        Panel::stat("Fullest stream", Unit::Share, format!("max({STREAM_RATIO})"), &[(0.8, AMBER), (0.9, RED)]).says(
            "Bytes of the fullest stream as a share of its limit.",
            "Below 80 %; from 90 % commands get 503.",
            "See which consumer blocks trimming.",
            "streamfull",
        ),
        Panel::stat("Oldest event", Unit::Seconds, format!("max({OLDEST_UNACKED})"), &[(5.0, AMBER), (15.0, RED)])
            .says(
                "Age of the oldest event that a consumer has not acknowledged.",
                "Below a second.",
                "See below which consumer.",
                "consumerlags",
            )
            .leads_to("events", "Events", ""),
        Panel::stat("Not delivered", Unit::Count, format!("max({PENDING})"), &[(10_000.0, AMBER), (100_000.0, RED)])
            .says(
                "Messages not yet delivered to the slowest consumer.",
                "A few.",
                "See below which consumer.",
                "consumerlags",
            ),
        Panel::stat("Unacknowledged", Unit::Count, format!("max({ACK_PENDING})"), &[(1500.0, AMBER), (2048.0, RED)])
            .says(
                "Messages delivered to a consumer and not acknowledged; at 2048 delivery stops.",
                "A few hundred under load.",
                "Many concurrent retries block the consumer.",
                "consumerlags",
            ),
        Panel::stat(
            "Consumers not pulling",
            Unit::Count,
            format!("count({WAITING} == 0 and {PENDING} > 0 and {OLDEST_UNACKED} > 10) or vector(0)"),
            &[(1.0, RED)],
        )
        .says(
            "Consumers with messages pending for ten seconds and no pull request.",
            "0.",
            "Start the service; if it runs, restart it.",
            "consumernotpulled",
        ),
        Panel::stat("Dead letters", Unit::Count, format!("sum({DEAD_LETTERS})"), &[(1.0, RED)])
            .says("Unresolved dead letters.", "0.", "Read them, fix the cause, redrive.", "deadletters")
            .leads_to("events", "Events", "")
            .leads_to_letters(""),
        Panel::stat(
            "Oldest dead letter",
            Unit::Seconds,
            format!("max({DEAD_LETTER_AGE})"),
            &[(0.001, AMBER), (86400.0, RED)],
        )
        .says("Age of the oldest unresolved dead letter.", "0.", "Resolve the oldest first.", "deadletters")
        .leads_to_letters(""),
    ]
}

/// A gauge of each consumer.
fn each(metric: &millstream::telemetry::Metric) -> String {
    format!("max by (stream_name, consumer_name) ({metric})")
}

const CONSUMER: &str = "{{consumer_name}} on {{stream_name}}";
const ITS_SERVICE: &str = "&var-job=${__field.labels.consumer_name}";

fn consumers() -> Vec<Panel> {
    vec![
        Panel::lines("Oldest event", Unit::Seconds, each(&OLDEST_UNACKED), CONSUMER)
            .steps(&[(15.0, RED)])
            .says(
                "Age of the oldest unacknowledged event of each consumer.",
                "Below a second.",
                "Start the service that lags, or read its log.",
                "consumerlags",
            )
            .leads_to("service", "This service", ITS_SERVICE),
        Panel::lines("Not delivered", Unit::Count, each(&PENDING), CONSUMER)
            .says(
                "Messages not yet delivered to each consumer.",
                "A few.",
                "Rises only: the consumer is too slow or does not pull.",
                "consumerlags",
            )
            .leads_to("service", "This service", ITS_SERVICE),
        Panel::lines("Unacknowledged", Unit::Count, each(&ACK_PENDING), CONSUMER)
            .says(
                "Messages delivered and not acknowledged.",
                "At most two batches of 256 per instance.",
                "Near 2048 the consumer is blocked.",
                "consumerlags",
            )
            .leads_to("service", "This service", ITS_SERVICE),
        Panel::lines("Redelivered and unacknowledged", Unit::Count, each(&REDELIVERED), CONSUMER)
            .says(
                "Unacknowledged messages delivered more than once.",
                "0.",
                "Check whether they are being retried or crash their service.",
                "redelivered",
            )
            .leads_to("service", "This service", ITS_SERVICE),
        Panel::lines("Waiting pull requests", Unit::Count, each(&WAITING), CONSUMER)
            .says(
                "Pull requests waiting for messages: the service is reading.",
                "At least 1 per instance while nothing is pending.",
                "0 for long: no instance reads.",
                "consumernotpulled",
            )
            .leads_to("service", "This service", ITS_SERVICE),
    ]
}

fn streams() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Messages stored",
            Unit::PerSecond,
            format!("max by (stream_name) (clamp_min(deriv({STREAM_LAST}[{RATE}]), 0))"),
            "{{stream_name}}",
        )
        .says(
            "Messages stored in each stream per second.",
            "Follows the orders.",
            "0 while orders are accepted: nothing is published.",
            "publishfails",
        ),
        Panel::new(
            Kind::Bars,
            "Share of the limit",
            Unit::Share,
            format!("max by (stream_name) ({STREAM_RATIO})"),
            "{{stream_name}}",
        )
        .steps(&[(0.8, AMBER), (0.9, RED)])
        .max(1.0)
        .says(
            "How full each stream is; 0 without a limit.",
            "Below 80 %.",
            "Raise its limit, or see which consumer blocks trimming.",
            "streamfull",
        ),
        Panel::lines("Bytes", Unit::Bytes, format!("max by (stream_name) ({STREAM_BYTES})"), "{{stream_name}}").says(
            "Bytes in each stream.",
            "Rises until trimmed.",
            "Check the free disk space.",
            "streamfull",
        ),
        Panel::lines("Messages", Unit::Count, format!("max by (stream_name) ({STREAM_MESSAGES})"), "{{stream_name}}")
            .says(
                "Messages in each stream.",
                "Rises until trimmed.",
                "A DLQ stream rises: see its dead letters.",
                "streamfull",
            ),
        Panel::lines(
            "Trimmed",
            Unit::PerSecond,
            format!("sum by (stream_name) (rate({TRIMMED}[{RATE}]))"),
            "{{stream_name}}",
        )
        .says(
            "Messages handled by all readers and removed by the stream's owner.",
            "In bursts, once the oldest messages are a week old or the stream is 80 % full.",
            "None although the stream is full: see what blocks trimming.",
            "streamnottrimmed",
        ),
        Panel::lines("Trimming blocked", Unit::Count, format!("max by (stream_name) ({TRIM_HELD})"), "{{stream_name}}")
            .steps(&[(1.0, RED)])
            .says(
                "1 while a stream cannot be trimmed.",
                "0.",
                "The owner's log names the durable that is missing.",
                "streamnottrimmed",
            ),
        Panel::lines(
            "Missed messages",
            Unit::Count,
            format!("sum by (job, stream_name) (increase({GONE}[{RATE}]))"),
            "{{job}} on {{stream_name}}: gone",
        )
        .and(
            format!("sum by (job, stream_name) (increase({RECOVERED}[{RATE}]))"),
            "{{job}} on {{stream_name}}: handled again",
        )
        .says(
            "Messages that were gone before a service read them, and messages handled again after a restored backup.",
            "0.",
            "Gone: the service lacks them. Handled again: its database was older than its consumer.",
            "restore",
        ),
        Panel::lines(
            "Messages the broker lost",
            Unit::Count,
            format!("sum by (job, stream_name) (increase({REPUBLISHED}[{RATE}]))"),
            "{{job}} on {{stream_name}}: published again",
        )
        .and(
            format!("sum by (job, stream_name) (increase({UNFILLED}[{RATE}]))"),
            "{{job}} on {{stream_name}}: not all in the journal",
        )
        .says(
            "Messages that the broker had acknowledged and lost, published again by their service.",
            "0.",
            "After a power failure or a restored backup; `/readyz` says whether any are gone for good.",
            "brokerforgot",
        ),
    ]
}

fn others() -> Vec<Panel> {
    vec![
        Panel::lines(
            "Dead letters",
            Unit::Count,
            format!("sum by (service_name) ({DEAD_LETTERS})"),
            "dead letters of {{service_name}}",
        )
        .says("Dead letters by service.", "0.", "Open them with the link.", "deadletters")
        .leads_to("events", "Events of this service", "&var-job=${__field.labels.service_name}")
        .leads_to_letters("service=${__field.labels.service_name}"),
        Panel::lines(
            "Age of the oldest dead letter",
            Unit::Seconds,
            format!("max by (service_name) ({DEAD_LETTER_AGE})"),
            "{{service_name}}",
        )
        .says("Age of each service's oldest unresolved dead letter.", "0.", "Resolve the oldest first.", "deadletters")
        .leads_to_letters("service=${__field.labels.service_name}"),
        Panel::lines(
            "Instances",
            Unit::Count,
            format!("sum by (service_name, version) ({INSTANCES})"),
            "{{service_name}} {{version}}",
        )
        .says(
            "Instances that answer on the broker, by service and release.",
            "The number that was started.",
            "0: the service is down or cannot reach the broker.",
            "servicedown",
        )
        .leads_to("service", "This service", "&var-job=${__field.labels.service_name}"),
    ]
}
