//! Events: outcome, age and failures of each type of event.

use millstream::telemetry::metrics::{
    CONSUMED, DEAD_LETTERED, EVENT_AGE, MESSAGES, PROCESS_DURATION, REDELIVERIES, SENT,
};
use millstream_console::metrics::{DEAD_LETTER_AGE, DEAD_LETTERS, OLDEST_UNACKED, REDRIVES};
use serde_json::Value;

use crate::board::{Asks, Board, CHOSEN, RATE};
use crate::panel::{AMBER, Kind, Panel, RED, Unit};

pub(crate) fn board() -> Value {
    Board::new(
        "millstream-events",
        "Events",
        "Which outcome do events have? How old do they get? Which fail?",
        Asks::Instance,
    )
    .tiles(tiles())
    .row("Which outcome do events have?", outcomes())
    .row("How old do they get?", ages())
    .row("Which fail?", failing())
    .build()
}

fn by_outcome(outcome: &str) -> String {
    format!(r#"sum(rate({MESSAGES}{{{CHOSEN},outcome="{outcome}"}}[{RATE}]))"#)
}

fn tiles() -> Vec<Panel> {
    vec![
        Panel::stat("Retried", Unit::PerSecond, by_outcome("retried"), &[(0.001, AMBER), (1.0, RED)]).says(
            "Events for which a handler requested a retry.",
            "0; some when events arrive out of order.",
            "See below which events.",
            "deadletters",
        ),
        Panel::stat("Dead-lettered", Unit::PerSecond, by_outcome("dead_lettered"), &[(0.001, RED)]).says(
            "Events parked as dead letters per second.",
            "0.",
            "See below which events and why.",
            "deadlettersgrow",
        ),
        Panel::stat(
            "Redelivered without ack",
            Unit::PerSecond,
            format!(r#"sum(rate({REDELIVERIES}{{{CHOSEN},cause="unacked"}}[{RATE}]))"#),
            &[(0.001, AMBER), (10.0, RED)],
        )
        .says(
            "Events delivered again because no ack came in time.",
            "0, except briefly after a crash.",
            "An engine is stuck or crashes repeatedly.",
            "redelivered",
        ),
        Panel::stat("Oldest event", Unit::Seconds, format!("max({OLDEST_UNACKED})"), &[(5.0, AMBER), (15.0, RED)])
            .says(
                "Age of the oldest event that a consumer has not acknowledged.",
                "Below a second.",
                "See the Broker board for the consumer.",
                "consumerlags",
            )
            .leads_to("broker", "Consumers", ""),
        Panel::stat(
            "Age when handled, p99",
            Unit::Seconds,
            format!(
                "histogram_quantile(0.99, sum by (le) (rate({EVENT_AGE}_bucket{{{CHOSEN}}}[{RATE}]))) > 0 or vector(0)"
            ),
            &[(0.25, AMBER), (2.5, RED)],
        )
        .says(
            "99th percentile of the age of events when handled.",
            "Below 0.25 s.",
            "See below which events.",
            "consumerlags",
        ),
        Panel::stat("Dead letters", Unit::Count, format!("sum({DEAD_LETTERS})"), &[(1.0, RED)])
            .says("Unresolved dead letters.", "0.", "Read them, fix the cause, redrive.", "deadletters")
            .leads_to_letters(""),
        Panel::stat(
            "Oldest dead letter",
            Unit::Seconds,
            format!("max({DEAD_LETTER_AGE})"),
            &[(0.001, AMBER), (86400.0, RED)],
        )
        .says(
            "Age of the oldest unresolved dead letter.",
            "0; a day at most.",
            "Resolve the oldest first.",
            "deadletters",
        )
        .leads_to_letters(""),
        Panel::stat(
            "Failed publishes",
            Unit::PerSecond,
            format!(r#"sum(rate({SENT}{{{CHOSEN},error_type!=""}}[{RATE}]))"#),
            &[(0.001, RED)],
        )
        .says(
            "Publishes that the broker rejected or did not acknowledge.",
            "0.",
            "The service's log has the broker's error.",
            "publishfails",
        ),
    ]
}

fn outcomes() -> Vec<Panel> {
    vec![
        Panel::lines("Events by outcome", Unit::PerSecond, format!("sum by (outcome) (rate({MESSAGES}{{{CHOSEN}}}[{RATE}]))"), "{{outcome}}")
            .says("Outcomes of the events that services received.", "All handled.", "Retried and dead_lettered are broken down below.", "deadletters"),
        Panel::lines("Handled by event", Unit::PerSecond,
            format!(r#"sum by (event) (rate({MESSAGES}{{{CHOSEN},outcome="handled"}}[{RATE}]))"#), "{{event}}")
            .says("Events handled, by type, summed over services.", "All types of a saga at about the same rate.", "A type that falls behind shows which service lags.", "consumerlags"),
        Panel::lines("Delivered by consumer", Unit::PerSecond,
            format!("sum by (messaging_consumer_group_name, messaging_destination_name) (rate({CONSUMED}{{{CHOSEN}}}[{RATE}]))"),
            "{{messaging_consumer_group_name}} from {{messaging_destination_name}}")
            .says("Messages delivered by the broker, including redeliveries.", "About the rate handled.", "Far more than handled: redeliveries.", "redelivered")
            .leads_to("service", "This service", "&var-job=${__field.labels.messaging_consumer_group_name}"),
        Panel::lines("Published by stream", Unit::PerSecond,
            format!(r#"sum by (messaging_destination_name) (rate({SENT}{{{CHOSEN},error_type=""}}[{RATE}]))"#), "{{messaging_destination_name}}")
            .and(format!(r#"sum by (error_type) (rate({SENT}{{{CHOSEN},error_type!=""}}[{RATE}]))"#), "{{error_type}}")
            .says("Events published, and failed publishes by error.", "No errors.", "Refused: check stream sizes. Timeout: check the broker.", "publishfails")
            .leads_to("broker", "Streams", ""),
    ]
}

fn ages() -> Vec<Panel> {
    vec![
        Panel::heatmap("Age when handled", Unit::Seconds, format!("sum by (le) (increase({EVENT_AGE}_bucket{{{CHOSEN}}}[{RATE}]))"))
            .says("Distribution of the age of events when handled.", "Nearly all below 0.1 s.", "A band that rises is a backlog.", "consumerlags"),
        Panel::lines("Age when handled, p99, by event", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, event) (rate({EVENT_AGE}_bucket{{{CHOSEN}}}[{RATE}])))"), "{{event}}")
            .steps(&[(2.5, RED)])
            .says("99th percentile of the age when handled, by type.", "Below 0.25 s.", "The late type shows which service is late.", "consumerlags"),
        Panel::lines("Time in the engine, p99", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, messaging_consumer_group_name) (rate({PROCESS_DURATION}_bucket{{{CHOSEN}}}[{RATE}])))"),
            "{{messaging_consumer_group_name}}")
            .says("Time from a message being taken into a batch to its ack.", "A few milliseconds.", "High: see the stages on the Service board.", "orderslatefast")
            .leads_to("service", "This service", "&var-job=${__field.labels.messaging_consumer_group_name}"),
    ]
}

fn failing() -> Vec<Panel> {
    vec![
        Panel::lines("Retried by event", Unit::PerSecond,
            format!(r#"sum by (job, event) (rate({MESSAGES}{{{CHOSEN},outcome="retried"}}[{RATE}]))"#), "{{event}} by {{job}}")
            .says("Events for which a handler requested a retry.", "0.", "The service's log says why.", "deadletters")
            .leads_to("service", "This service", "&var-job=${__field.labels.job}"),
        Panel::lines("Dead-lettered by reason", Unit::PerSecond,
            format!("sum by (reason) (rate({DEAD_LETTERED}{{{CHOSEN}}}[{RATE}]))"), "as {{reason}}")
            .says("Events parked, by reason.", "0.", "schema, ahead: the sender is newer. panic, crash: a defect. exhausted: retries ran out.", "deadlettersgrow"),
        Panel::lines("Redelivered by cause", Unit::PerSecond,
            format!("sum by (cause) (rate({REDELIVERIES}{{{CHOSEN}}}[{RATE}]))"), "{{cause}}")
            .says("Redeliveries: requested (nak), or because no ack arrived (unacked).", "0.", "Persistent unacked: an engine is stuck.", "redelivered"),
        Panel::new(Kind::Table, "Dead letters", Unit::Count,
            format!("sum by (service_name, event, reason) ({DEAD_LETTERS}) > 0 or label_replace(sum({DEAD_LETTERS}) == 0, \"service_name\", \"none\", \"\", \"\")"), "")
            .columns(&[("service_name", "Service"), ("event", "Event"), ("reason", "Reason"), ("Value", "Dead letters")])
            .says("Contents of the dead letter streams.", "None.", "Follow the link to read them.", "deadletters")
            .leads_to_letters("service=${__data.fields.Service}&event=${__data.fields.Event}&reason=${__data.fields.Reason}"),
        Panel::lines("Redrives", Unit::PerSecond,
            format!("sum by (outcome) (rate({REDRIVES}[{RATE}]))"), "{{outcome}}")
            .says("Dead letters redriven or discarded, by outcome.", "0 unless an operator acts.", "failed_again: the cause is not fixed.", "deadletters"),
    ]
}
