//! What the observer shows. Streams and consumers have the names that prometheus-nats-exporter gives them, so that the boards
//! also work for those who run that.

use millstream::telemetry::Metric;
use millstream::telemetry::metrics::{BROKER_CONNECTED, HTTP_ACTIVE, HTTP_DURATION, HTTP_SHED};

/// `outcome` of [`REDRIVES`].
pub const REDRIVE_OUTCOMES: [&str; 4] = ["sent", "handled", "failed_again", "discarded"];

/// Messages in a stream.
pub static STREAM_MESSAGES: Metric =
    Metric::gauge("jetstream_stream_total_messages", "Messages in a stream.", &["stream_name"]);
/// Bytes in a stream.
pub static STREAM_BYTES: Metric = Metric::gauge("jetstream_stream_total_bytes", "Bytes in a stream.", &["stream_name"]);
/// How far a stream is.
pub static STREAM_LAST: Metric =
    Metric::gauge("jetstream_stream_last_seq", "Sequence of a stream's last message.", &["stream_name"]);
/// How full a stream is.
pub static STREAM_RATIO: Metric = Metric::gauge(
    "millstream_stream_bytes_ratio",
    "Bytes in a stream as a share of what it may hold; 0 if it has no limit.",
    &["stream_name"],
);
/// Messages a consumer has not been given.
pub static PENDING: Metric = Metric::gauge(
    "jetstream_consumer_num_pending",
    "Messages that a consumer has not been given yet.",
    &["stream_name", "consumer_name"],
);
/// Messages a consumer has not acked.
pub static ACK_PENDING: Metric = Metric::gauge(
    "jetstream_consumer_num_ack_pending",
    "Messages that a consumer was given and has not acknowledged yet.",
    &["stream_name", "consumer_name"],
);
/// Messages given again.
pub static REDELIVERED: Metric = Metric::gauge(
    "jetstream_consumer_num_redelivered",
    "Unacknowledged messages that a consumer was given more than once.",
    &["stream_name", "consumer_name"],
);
/// Pulls that wait.
pub static WAITING: Metric = Metric::gauge(
    "jetstream_consumer_num_waiting",
    "Pulls of a consumer that wait for messages.",
    &["stream_name", "consumer_name"],
);
/// How old a consumer's oldest message is.
pub static OLDEST_UNACKED: Metric = Metric::gauge(
    "millstream_consumer_oldest_unacked_age_seconds",
    "Age of the oldest message that a consumer has not acknowledged, given or not; 0 if there is none.",
    &["stream_name", "consumer_name"],
);
/// Dead letters.
pub static DEAD_LETTERS: Metric = Metric::gauge(
    "millstream_dead_letters",
    "Messages that a service has given up, and that nobody has dealt with.",
    &["service_name", "event", "reason"],
);
/// How old a service's oldest dead letter is.
pub static DEAD_LETTER_AGE: Metric = Metric::gauge(
    "millstream_dead_letter_oldest_age_seconds",
    "How long a service's oldest dead letter has been there; 0 if there is none.",
    &["service_name"],
);
/// What became of dead letters that were handed back.
pub static REDRIVES: Metric = Metric::counter(
    "millstream_redrives_total",
    "Dead letters handed back to their service, and what became of them.",
    &["service_name", "outcome"],
);
/// Instances of services.
pub static INSTANCES: Metric = Metric::gauge(
    "millstream_service_instances",
    "Instances of a service that answer on the broker, by release; 0 for a service whose dead letter stream is there alone.",
    &["service_name", "version"],
);

/// What is found at the broker, anew with each look.
pub static OBSERVED: &[&Metric] = &[
    &STREAM_MESSAGES,
    &STREAM_BYTES,
    &STREAM_LAST,
    &STREAM_RATIO,
    &PENDING,
    &ACK_PENDING,
    &REDELIVERED,
    &WAITING,
    &OLDEST_UNACKED,
    &DEAD_LETTERS,
    &DEAD_LETTER_AGE,
    &REDRIVES,
    &INSTANCES,
];

/// What is of the observer itself.
pub(crate) static OWN: &[&Metric] = &[&HTTP_DURATION, &HTTP_ACTIVE, &HTTP_SHED, &BROKER_CONNECTED];
