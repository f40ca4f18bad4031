//! Broker: streams, consumers, dead letter streams and instances, as the observer sees them.

use millstream::telemetry::metrics::{BROKER_CONNECTED, TRIM_HELD, TRIMMED};
use millstream_console::metrics::{
    ACK_PENDING, DEAD_LETTER_AGE, DEAD_LETTERS, INSTANCES, OLDEST_UNACKED, PENDING, REDELIVERED, STREAM_BYTES,
    STREAM_LAST, STREAM_MESSAGES, STREAM_RATIO, WAITING,
};
use serde_json::Value;

use crate::OBSERVER;
use crate::board::{Asks, Board, RATE};
use crate::panel::{AMBER, GREEN, Kind, Panel, RED, Unit};

pub(crate) fn board() -> Value {
    Board::new("millstream-broker", "Broker", "Does it answer? Who lags? How full are the streams?", Asks::Nothing)
        .tiles(tiles())
        .row("Who lags?", consumers())
        .row("How full are the streams?", streams())
        .row("What was given up, and who is there?", others())
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
            "1 while the observer's looks at the broker are answered.",
            "1.",
            "See whether the broker runs.",
            "eventsunpublished",
        ),
        Panel::stat("Fullest stream", Unit::Share, format!("max({STREAM_RATIO})"), &[(0.8, AMBER), (0.9, RED)]).says(
            "Bytes of the fullest stream as a share of its limit.",
            "Below 80 %; from 90 % on commands are answered 503.",
            "See who holds it up.",
            "streamfull",
        ),
        Panel::stat("Oldest event", Unit::Seconds, format!("max({OLDEST_UNACKED})"), &[(5.0, AMBER), (15.0, RED)])
            .says(
                "Age of the oldest event that a consumer has not dealt with.",
                "Below a second.",
                "See below whose.",
                "consumerlags",
            )
            .leads_to("events", "Events", ""),
        Panel::stat("Not handed out", Unit::Count, format!("max({PENDING})"), &[(10_000.0, AMBER), (100_000.0, RED)])
            .says(
                "Messages that the consumer furthest behind has not been given.",
                "A few.",
                "See below whose.",
                "consumerlags",
            ),
        Panel::stat("Unacknowledged", Unit::Count, format!("max({ACK_PENDING})"), &[(1500.0, AMBER), (2048.0, RED)])
            .says(
                "Messages given to a consumer and not acknowledged; at 2048 it is given no more.",
                "Some hundred under load.",
                "Many retries at once hold it up.",
                "consumerlags",
            ),
        Panel::stat(
            "Consumers that do not pull",
            Unit::Count,
            format!("count({WAITING} == 0 and {PENDING} > 0 and {OLDEST_UNACKED} > 10) or vector(0)"),
            &[(1.0, RED)],
        )
        .says(
            "Consumers with messages pending for ten seconds and nobody who pulls.",
            "0.",
            "Start the service; if it runs, restart it.",
            "consumernotpulled",
        ),
        Panel::stat("Dead letters", Unit::Count, format!("sum({DEAD_LETTERS})"), &[(1.0, RED)])
            .says("Events given up that nobody has dealt with.", "0.", "Read them, mend the cause.", "deadletters")
            .leads_to("events", "Events", "")
            .leads_to_letters(""),
        Panel::stat(
            "Oldest dead letter",
            Unit::Seconds,
            format!("max({DEAD_LETTER_AGE})"),
            &[(0.001, AMBER), (86400.0, RED)],
        )
        .says("How long the oldest dead letter has been there.", "0.", "Deal with the oldest first.", "deadletters")
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
                "Age of the oldest event that each consumer has not dealt with.",
                "Below a second.",
                "Start the service that lags, or read its log.",
                "consumerlags",
            )
            .leads_to("service", "This service", ITS_SERVICE),
        Panel::lines("Not handed out", Unit::Count, each(&PENDING), CONSUMER)
            .says(
                "Messages that each consumer has not been given yet.",
                "A few.",
                "If it only rises, the consumer is too slow or does not pull.",
                "consumerlags",
            )
            .leads_to("service", "This service", ITS_SERVICE),
        Panel::lines("Unacknowledged", Unit::Count, each(&ACK_PENDING), CONSUMER)
            .says(
                "Messages given and not acknowledged.",
                "At most two batches of 256 an instance.",
                "Near 2048 the consumer stands still.",
                "consumerlags",
            )
            .leads_to("service", "This service", ITS_SERVICE),
        Panel::lines("Given more than once", Unit::Count, each(&REDELIVERED), CONSUMER)
            .says(
                "Unacknowledged messages given more than once.",
                "0.",
                "See whether they are retried or their service dies of them.",
                "redelivered",
            )
            .leads_to("service", "This service", ITS_SERVICE),
        Panel::lines("Pulls that wait", Unit::Count, each(&WAITING), CONSUMER)
            .says(
                "Pulls that wait for messages: somebody is there.",
                "At least 1 an instance while nothing is pending.",
                "0 for long: nobody reads.",
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
            "Messages that each stream takes in each second.",
            "Follows the orders.",
            "0 while orders come in: nothing is published.",
            "publishfails",
        ),
        Panel::new(
            Kind::Bars,
            "Share of its limit",
            Unit::Share,
            format!("max by (stream_name) ({STREAM_RATIO})"),
            "{{stream_name}}",
        )
        .steps(&[(0.8, AMBER), (0.9, RED)])
        .max(1.0)
        .says(
            "How full each stream is; without a limit 0.",
            "Below 80 %.",
            "Give it more room, or see who holds it up.",
            "streamfull",
        ),
        Panel::lines("Bytes", Unit::Bytes, format!("max by (stream_name) ({STREAM_BYTES})"), "{{stream_name}}").says(
            "Bytes in each stream.",
            "Rises and is trimmed.",
            "See how much room the disk has.",
            "streamfull",
        ),
        Panel::lines("Messages", Unit::Count, format!("max by (stream_name) ({STREAM_MESSAGES})"), "{{stream_name}}")
            .says(
                "Messages in each stream.",
                "Rises and is trimmed.",
                "A DLQ stream that rises: see its dead letters.",
                "streamfull",
            ),
        Panel::lines(
            "Trimmed",
            Unit::PerSecond,
            format!("sum by (stream_name) (rate({TRIMMED}[{RATE}]))"),
            "{{stream_name}}",
        )
        .says(
            "Messages that all readers have handled, taken away by the stream's owner.",
            "In bursts, once the oldest are a week old or the stream is 80 % full.",
            "None though the stream is full: see what holds it.",
            "streamnottrimmed",
        ),
        Panel::lines("Trimming held up", Unit::Count, format!("max by (stream_name) ({TRIM_HELD})"), "{{stream_name}}")
            .steps(&[(1.0, RED)])
            .says(
                "1 while nothing may be trimmed from a stream.",
                "0.",
                "The owner's log names the durable that is missing.",
                "streamnottrimmed",
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
        .says("Events given up, by service.", "0.", "Read them by the link.", "deadletters")
        .leads_to("events", "Events of this service", "&var-job=${__field.labels.service_name}")
        .leads_to_letters("service=${__field.labels.service_name}"),
        Panel::lines(
            "Age of the oldest dead letter",
            Unit::Seconds,
            format!("max by (service_name) ({DEAD_LETTER_AGE})"),
            "{{service_name}}",
        )
        .says(
            "How long each service's oldest dead letter has been there.",
            "0.",
            "Deal with the oldest first.",
            "deadletters",
        )
        .leads_to_letters("service=${__field.labels.service_name}"),
        Panel::lines(
            "Instances",
            Unit::Count,
            format!("sum by (service_name, version) ({INSTANCES})"),
            "{{service_name}} {{version}}",
        )
        .says(
            "Instances that answer on the broker, by service and release.",
            "As many as were started.",
            "0: the service is down or cannot reach the broker.",
            "servicedown",
        )
        .leads_to("service", "This service", "&var-job=${__field.labels.service_name}"),
    ]
}
