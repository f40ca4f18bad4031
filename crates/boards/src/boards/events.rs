//! Events: what becomes of each type of event, how old it gets, which fail.

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
        "What becomes of events? How old do they get? Which fail?",
        Asks::Instance,
    )
    .tiles(tiles())
    .row("What becomes of events?", outcomes())
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
            "Events that a handler asked to see again.",
            "0; some when events overtake each other.",
            "See below which.",
            "deadletters",
        ),
        Panel::stat("Given up", Unit::PerSecond, by_outcome("dead_lettered"), &[(0.001, RED)]).says(
            "Events parked as dead letters, each second.",
            "0.",
            "See below which and why.",
            "deadlettersgrow",
        ),
        Panel::stat(
            "Redelivered unasked",
            Unit::PerSecond,
            format!(r#"sum(rate({REDELIVERIES}{{{CHOSEN},cause="unacked"}}[{RATE}]))"#),
            &[(0.001, AMBER), (10.0, RED)],
        )
        .says(
            "Events delivered again because no ack came in time.",
            "0, but for a moment after a crash.",
            "An engine is stuck or dies again and again.",
            "redelivered",
        ),
        Panel::stat("Oldest event", Unit::Seconds, format!("max({OLDEST_UNACKED})"), &[(5.0, AMBER), (15.0, RED)])
            .says(
                "Age of the oldest event that a consumer has not dealt with.",
                "Below a second.",
                "See the Broker board for whose.",
                "consumerlags",
            )
            .leads_to("broker", "Consumers", ""),
        Panel::stat(
            "Age when handled, 99 of 100",
            Unit::Seconds,
            format!(
                "histogram_quantile(0.99, sum by (le) (rate({EVENT_AGE}_bucket{{{CHOSEN}}}[{RATE}]))) > 0 or vector(0)"
            ),
            &[(0.25, AMBER), (2.5, RED)],
        )
        .says(
            "Age by which 99 of 100 events have been handled.",
            "Below 0.25 s.",
            "See which event below.",
            "consumerlags",
        ),
        Panel::stat("Dead letters", Unit::Count, format!("sum({DEAD_LETTERS})"), &[(1.0, RED)])
            .says("Events given up that nobody has dealt with.", "0.", "Read them, mend the cause.", "deadletters")
            .leads_to_letters(""),
        Panel::stat(
            "Oldest dead letter",
            Unit::Seconds,
            format!("max({DEAD_LETTER_AGE})"),
            &[(0.001, AMBER), (86400.0, RED)],
        )
        .says(
            "How long the oldest dead letter has been there.",
            "0; a day at most.",
            "Deal with the oldest first.",
            "deadletters",
        )
        .leads_to_letters(""),
        Panel::stat(
            "Publishing held up",
            Unit::PerSecond,
            format!(r#"sum(rate({SENT}{{{CHOSEN},error_type!=""}}[{RATE}]))"#),
            &[(0.001, RED)],
        )
        .says(
            "Publishes that the broker refused or did not answer.",
            "0.",
            "See the service's log for what it was told.",
            "publishfails",
        ),
    ]
}

fn outcomes() -> Vec<Panel> {
    vec![
        Panel::lines("Events by outcome", Unit::PerSecond, format!("sum by (outcome) (rate({MESSAGES}{{{CHOSEN}}}[{RATE}]))"), "{{outcome}}")
            .says("What became of the events that services took.", "All handled.", "Retried and dead_lettered have their own row below.", "deadletters"),
        Panel::lines("Handled by event", Unit::PerSecond,
            format!(r#"sum by (event) (rate({MESSAGES}{{{CHOSEN},outcome="handled"}}[{RATE}]))"#), "{{event}}")
            .says("Events handled, by type, all services together.", "All types of a saga at about one rate.", "One that falls behind shows which service lags.", "consumerlags"),
        Panel::lines("Delivered by consumer", Unit::PerSecond,
            format!("sum by (messaging_consumer_group_name, messaging_destination_name) (rate({CONSUMED}{{{CHOSEN}}}[{RATE}]))"),
            "{{messaging_consumer_group_name}} from {{messaging_destination_name}}")
            .says("Messages that the broker delivered, repeats included.", "As many as are handled.", "Far more than handled: redeliveries.", "redelivered")
            .leads_to("service", "This service", "&var-job=${__field.labels.messaging_consumer_group_name}"),
        Panel::lines("Published by stream", Unit::PerSecond,
            format!(r#"sum by (messaging_destination_name) (rate({SENT}{{{CHOSEN},error_type=""}}[{RATE}]))"#), "{{messaging_destination_name}}")
            .and(format!(r#"sum by (error_type) (rate({SENT}{{{CHOSEN},error_type!=""}}[{RATE}]))"#), "{{error_type}}")
            .says("Events published, and why some were not at once.", "No errors.", "Refused: see stream sizes. Timeout: see the broker.", "publishfails")
            .leads_to("broker", "Streams", ""),
    ]
}

fn ages() -> Vec<Panel> {
    vec![
        Panel::heatmap("Age when handled", Unit::Seconds, format!("sum by (le) (increase({EVENT_AGE}_bucket{{{CHOSEN}}}[{RATE}]))"))
            .says("How old events were when handled, and how many.", "Nearly all below 0.1 s.", "A band that rises is a backlog.", "consumerlags"),
        Panel::lines("Age when handled, 99 of 100, by event", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, event) (rate({EVENT_AGE}_bucket{{{CHOSEN}}}[{RATE}])))"), "{{event}}")
            .steps(&[(2.5, RED)])
            .says("Age by which 99 of 100 events of a type were handled.", "Below 0.25 s.", "The type that is late names the service that is.", "consumerlags"),
        Panel::lines("Time in the engine, 99 of 100", Unit::Seconds,
            format!("histogram_quantile(0.99, sum by (le, messaging_consumer_group_name) (rate({PROCESS_DURATION}_bucket{{{CHOSEN}}}[{RATE}])))"),
            "{{messaging_consumer_group_name}}")
            .says("Time from a message being taken into a batch to its ack.", "Some milliseconds.", "If it is high, so is a stage on the Service board.", "orderslatefast")
            .leads_to("service", "This service", "&var-job=${__field.labels.messaging_consumer_group_name}"),
    ]
}

fn failing() -> Vec<Panel> {
    vec![
        Panel::lines("Retried by event", Unit::PerSecond,
            format!(r#"sum by (job, event) (rate({MESSAGES}{{{CHOSEN},outcome="retried"}}[{RATE}]))"#), "{{event}} by {{job}}")
            .says("Events that a handler asked to see again.", "0.", "The service's log says why.", "deadletters")
            .leads_to("service", "This service", "&var-job=${__field.labels.job}"),
        Panel::lines("Given up by reason", Unit::PerSecond,
            format!("sum by (reason) (rate({DEAD_LETTERED}{{{CHOSEN}}}[{RATE}]))"), "as {{reason}}")
            .says("Events parked, by reason.", "0.", "schema, ahead: a sender is newer. panic, crash: a defect. exhausted: something never came.", "deadlettersgrow"),
        Panel::lines("Redelivered by cause", Unit::PerSecond,
            format!("sum by (cause) (rate({REDELIVERIES}{{{CHOSEN}}}[{RATE}]))"), "{{cause}}")
            .says("Deliveries of what was delivered before: asked for (nak), or because no ack came (unacked).", "0.", "unacked for long: an engine is stuck.", "redelivered"),
        Panel::new(Kind::Table, "Dead letters", Unit::Count,
            format!("sum by (service_name, event, reason) ({DEAD_LETTERS}) > 0 or label_replace(sum({DEAD_LETTERS}) == 0, \"service_name\", \"none\", \"\", \"\")"), "")
            .columns(&[("service_name", "Service"), ("event", "Event"), ("reason", "Reason"), ("Value", "Dead letters")])
            .says("What lies in the dead letter streams.", "None.", "Follow the link to read them.", "deadletters")
            .leads_to_letters("service=${__data.fields.Service}&event=${__data.fields.Event}&reason=${__data.fields.Reason}"),
        Panel::lines("Redrives", Unit::PerSecond,
            format!("sum by (outcome) (rate({REDRIVES}[{RATE}]))"), "{{outcome}}")
            .says("Dead letters handed back to their service, and what became of them.", "0 unless somebody does so.", "failed_again: the cause is not mended.", "deadletters"),
    ]
}
