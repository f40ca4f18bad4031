//! The table of the toolkit's own metrics, and the closed sets that their labels are from.
//!
//! Names follow OpenTelemetry's semantic conventions where those have one; the rest begins with `millstream_`. A success has
//! an empty `error_type`, which Prometheus takes as no such label.

use super::Metric;

/// Bounds for durations in seconds. None is a whole number, because Prometheus 3 stores `le="5"` as `le="5.0"` and a rule on
/// such a bound is then silently empty; 0.25 and 2.5 are the bounds of the service level objectives.
pub const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.5, 2.5, 7.5];
/// Bounds for what may take from a millisecond to half an hour, in seconds; like [`SECONDS`] without whole numbers.
pub const AGES: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 2.5, 7.5, 22.5, 67.5, 202.5, 607.5, 1822.5];
/// Bounds for the sizes of batches; the largest batch is 256.
pub const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// `messaging_system`.
pub const SYSTEM: &str = "nats";
/// `event` of a message whose type no handler knows.
pub const UNKNOWN_EVENT: &str = millstream_core::planner::UNKNOWN_EVENT;
/// `outcome` of [`MESSAGES`].
pub const OUTCOMES: &[&str] = &["handled", "duplicate", "retried", "dead_lettered", "ignored"];
/// `reason` of [`DEAD_LETTERED`].
pub const REASONS: &[&str] =
    &["rejected", "exhausted", "schema", "ahead", "panic", "misuse", "crash", "too_large", "unknown"];
/// `cause` of [`REDELIVERIES`].
pub const CAUSES: &[&str] = &["nak", "unacked"];
/// `outcome` of [`EFFECTS`].
pub const EFFECT_OUTCOMES: &[&str] = &["settled", "outage", "lease_lost"];
/// `error_type` of what is sent to the broker: no answer in time.
pub const TIMEOUT: &str = "timeout";
/// `error_type` of what is sent to the broker: the broker refuses it.
pub const REFUSED: &str = "refused";
/// `error_type` of what is sent to the broker: the connection went away before the answer.
pub const DISCONNECTED: &str = "disconnected";
/// `error_type` of what is sent to the broker: none, or one of the above.
pub const BROKER_ERRORS: &[&str] = &["", TIMEOUT, REFUSED, DISCONNECTED];
/// `error_type` of [`PROCESS_DURATION`]: none; tried again later; given up.
pub const PROCESS_ERRORS: &[&str] = &["", "retried", "dead_lettered"];
/// `http_request_method`: those of RFC 9110 and PATCH, all others under one name.
pub const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "_OTHER"];

/// How long requests took.
pub static HTTP_DURATION: Metric = Metric::histogram(
    "http_server_request_duration_seconds",
    "Time from a request's arrival to its answer.",
    &["http_request_method", "http_route", "http_response_status_code"],
    SECONDS,
);
/// Requests being answered.
pub static HTTP_ACTIVE: Metric =
    Metric::gauge("http_server_active_requests", "Requests that are being answered now.", &["http_request_method"])
        .with_series(&[
            &["GET"],
            &["HEAD"],
            &["POST"],
            &["PUT"],
            &["DELETE"],
            &["PATCH"],
            &["OPTIONS"],
            &["CONNECT"],
            &["TRACE"],
            &["_OTHER"],
        ]);
/// Requests turned away.
pub static HTTP_SHED: Metric = Metric::counter(
    "millstream_http_shed_total",
    "Requests answered with 503: too many at once, a dependency unavailable, or the service stopping.",
    &["reason"],
)
.with_series(&[&["overload"], &["unavailable"], &["draining"]]);
/// How long requests to others took; for services that make some.
pub static HTTP_CLIENT_DURATION: Metric = Metric::histogram(
    "http_client_request_duration_seconds",
    "Time from sending a request to another server to its answer or failure.",
    &["http_request_method", "server_address", "http_response_status_code", "error_type"],
    SECONDS,
);
/// Messages published.
pub static SENT: Metric = Metric::counter(
    "messaging_client_sent_messages_total",
    "Messages published, by the broker's acknowledgement or its failure; attempts, so a repeat counts again.",
    &[
        "messaging_system",
        "messaging_operation_name",
        "messaging_destination_name",
        "messaging_destination_template",
        "error_type",
    ],
);
/// Messages received.
pub static CONSUMED: Metric = Metric::counter(
    "messaging_client_consumed_messages_total",
    "Messages delivered by the broker, repeats included.",
    &[
        "messaging_system",
        "messaging_operation_name",
        "messaging_destination_name",
        "messaging_destination_template",
        "messaging_consumer_group_name",
        "error_type",
    ],
);
/// How long exchanges with the broker took.
pub static OPERATION_DURATION: Metric = Metric::histogram(
    "messaging_client_operation_duration_seconds",
    "Time of an exchange with the broker, one observation a batch: publish until acknowledged, fetch until something comes, \
     ack until sent.",
    &["messaging_operation_name", "error_type"],
    SECONDS,
)
.with_series(&[&["publish", ""], &["fetch", ""], &["ack", ""]]);
/// How long messages took from being drained to being acked.
pub static PROCESS_DURATION: Metric = Metric::histogram(
    "messaging_process_duration_seconds",
    "Time from taking a message into a batch to its ack, one observation a message.",
    &["messaging_destination_template", "messaging_consumer_group_name", "error_type"],
    SECONDS,
);
/// How old events were when handled.
pub static EVENT_AGE: Metric = Metric::histogram(
    "millstream_event_age_seconds",
    "Time from when an event happened (ce-time) to the commit that handled it.",
    &["event"],
    AGES,
);
/// What became of messages.
pub static MESSAGES: Metric =
    Metric::counter("millstream_messages_total", "Messages by what became of them.", &["event", "outcome"]);
/// Messages given up.
pub static DEAD_LETTERED: Metric = Metric::counter(
    "millstream_dead_lettered_total",
    "Messages parked in the dead letter stream, by reason.",
    &["event", "reason"],
);
/// Repeated deliveries.
pub static REDELIVERIES: Metric = Metric::counter(
    "millstream_redeliveries_total",
    "Messages delivered again: asked for by this service (nak), or because no ack arrived in time (unacked).",
    &["event", "cause"],
);
/// Where the engine's time goes.
pub static STAGE: Metric = Metric::histogram(
    "millstream_engine_stage_seconds",
    "Time that a batch spent in a stage of the engine; the rates of the sums, stacked, are the engine's saturation.",
    &["stage"],
    SECONDS,
)
.with_series(&[&["drain"], &["load"], &["handle"], &["commit"], &["publish"], &["ack"], &["wake"]]);
/// How large batches were.
pub static BATCH_SIZE: Metric =
    Metric::histogram("millstream_engine_batch_size", "Inputs of a source in a batch.", &["source"], SIZES)
        .with_series(&[&["event"], &["command"], &["wake"]]);
/// Commits that met somebody else's.
pub static CONFLICTS: Metric = Metric::counter(
    "millstream_engine_conflicts_total",
    "Commits that met another writer's and were handled again.",
    &["kind"],
)
.with_series(&[&["version"], &["duplicate"], &["transient"]]);
/// Further loads for documents that no `touches` had named.
pub static LOAD_MISSES: Metric = Metric::counter(
    "millstream_load_misses_total",
    "Batches loaded again and run again because a handler used a document that its `touches` did not name.",
    &[],
)
.with_series(&[&[]]);
/// What became of effects.
pub static EFFECTS: Metric =
    Metric::counter("millstream_effects_total", "Runs of effects by what became of them.", &["kind", "outcome"]);
/// How long effects ran.
pub static EFFECT_DURATION: Metric =
    Metric::histogram("millstream_effect_duration_seconds", "Time that an effect ran.", &["kind", "outcome"], SECONDS);
/// How long the outside of a kind of effect has not answered.
pub static EFFECTS_UNANSWERED: Metric = Metric::gauge(
    "millstream_effects_unanswered_seconds",
    "Time since the first run of an effect without a definite outcome that none with one has followed; 0 while the outside answers.",
    &["kind"],
);
/// Wakes that wait to be claimed.
pub static WAKES_DUE: Metric =
    Metric::gauge("millstream_wakes_due", "Wakes that are due and not yet claimed.", &["kind"]);
/// How late the latest wake is.
pub static WAKE_OVERDUE: Metric = Metric::gauge(
    "millstream_wake_oldest_overdue_seconds",
    "How long the earliest of the wakes that are due has been so; while the outside does not answer, how long that has lasted.",
    &["kind"],
);
/// Events that wait in the journal.
pub static UNPUBLISHED: Metric = Metric::gauge(
    "millstream_journal_unpublished",
    "Journal entries whose events the broker has not acknowledged yet.",
    &[],
);
/// How long events have been waiting.
pub static UNPUBLISHED_AGE: Metric = Metric::gauge(
    "millstream_journal_unpublished_oldest_age_seconds",
    "Age of the oldest journal entry whose events the broker has not acknowledged yet.",
    &[],
);
/// What was trimmed.
pub static TRIMMED: Metric = Metric::counter(
    "millstream_stream_trimmed_messages_total",
    "Messages that the owner of a stream has taken away, because all readers have handled them.",
    &["stream_name"],
);
/// What was trimmed before it was read.
pub static GONE: Metric = Metric::counter(
    "millstream_messages_gone_total",
    "Messages that were no longer in a stream when this service was to read them.",
    &["stream_name"],
);
/// What an older database had lost.
pub static RECOVERED: Metric = Metric::counter(
    "millstream_messages_recovered_total",
    "Messages that had been acked and were not in the database, which was older than the durable: read again and handled.",
    &["stream_name"],
);
/// What the broker had lost.
pub static REPUBLISHED: Metric = Metric::counter(
    "millstream_messages_republished_total",
    "Messages that the broker had acknowledged and lost, published again from the journal.",
    &["stream_name"],
);
/// What the broker had lost for good.
pub static UNFILLED: Metric = Metric::counter(
    "millstream_stream_losses_unfilled_total",
    "How often a stream had lost acknowledged messages that may be too old to be in the journal.",
    &["stream_name"],
);
/// Whether trimming is held up.
pub static TRIM_HELD: Metric = Metric::gauge(
    "millstream_stream_trim_held",
    "1 while nothing may be trimmed from a stream, because a durable is missing or the broker cannot be asked; 0 otherwise.",
    &["stream_name"],
);
/// Whether the broker is there.
pub static BROKER_CONNECTED: Metric =
    Metric::gauge("millstream_broker_connected", "1 while the broker is connected, 0 while not.", &[]);
/// Whether the store is there.
pub static STORE_UP: Metric = Metric::gauge("millstream_store_up", "1 while the store answers, 0 while not.", &[]);
/// Replicas that have gone without a goodbye.
pub static REPLICAS_MISSED: Metric = Metric::gauge(
    "millstream_replicas_missed",
    "Replicas of this service that this one saw alive, that ended without a clean stop, and that none has replaced.",
    &[],
);
/// Which build runs.
pub static BUILD_INFO: Metric =
    Metric::gauge("millstream_build_info", "Always 1; the labels name the build.", &["version", "revision"]);

/// All that every service has.
pub static ALL: &[&Metric] = &[
    &HTTP_DURATION,
    &HTTP_ACTIVE,
    &HTTP_SHED,
    &SENT,
    &CONSUMED,
    &OPERATION_DURATION,
    &PROCESS_DURATION,
    &EVENT_AGE,
    &MESSAGES,
    &DEAD_LETTERED,
    &REDELIVERIES,
    &STAGE,
    &BATCH_SIZE,
    &CONFLICTS,
    &LOAD_MISSES,
    &EFFECTS,
    &EFFECT_DURATION,
    &EFFECTS_UNANSWERED,
    &WAKES_DUE,
    &WAKE_OVERDUE,
    &UNPUBLISHED,
    &UNPUBLISHED_AGE,
    &TRIMMED,
    &GONE,
    &RECOVERED,
    &REPUBLISHED,
    &UNFILLED,
    &TRIM_HELD,
    &BROKER_CONNECTED,
    &STORE_UP,
    &REPLICAS_MISSED,
    &BUILD_INFO,
];

/// `messaging_destination_template` of a stream's subjects, for what is counted before a message's type is known.
pub fn stream_template(domain: &str) -> String {
    format!("{domain}.{{event}}.{{partition}}")
}

/// `messaging_destination_template` of an event's subjects.
pub fn event_template(event: &str) -> String {
    format!("{event}.{{partition}}")
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn bounds_of_times_begin_at_a_millisecond_hold_the_objectives_and_no_whole_number() {
        for metric in ALL.iter().chain([&&HTTP_CLIENT_DURATION]) {
            let Kind::Histogram(bounds) = metric.kind else { continue };
            assert!(bounds.is_sorted_by(|a, b| a < b), "{}", metric.name);
            if metric.name.ends_with("_seconds") {
                assert_eq!(bounds[0], 0.001, "{}", metric.name);
                assert!(bounds.contains(&0.25) && bounds.contains(&2.5), "{}", metric.name);
                assert!(bounds.iter().all(|bound| bound.fract() != 0.0), "{}", metric.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_say_what_they_are() {
        for (at, metric) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != metric.name), "{} twice", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(metric.series.iter().all(|series| series.len() == metric.labels.len()), "{}", metric.name);
        }
    }

    #[test]
    fn every_method_has_its_series() {
        let series: Vec<_> = HTTP_ACTIVE.series.iter().map(|series| series[0]).collect();
        assert_eq!(series, METHODS);
    }
}
