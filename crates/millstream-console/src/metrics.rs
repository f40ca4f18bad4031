//! The observer's metrics. Streams and consumers have the names of prometheus-nats-exporter, so that the boards
//! also work with that exporter.

use millstream::telemetry::Metric;
use millstream::telemetry::metrics::{BROKER_CONNECTED, HTTP_ACTIVE, HTTP_DURATION, HTTP_SHED};

/// `outcome` of [`REDRIVES`].
pub const REDRIVE_OUTCOMES: [&str; 4] = ["sent", "handled", "failed_again", "discarded"];

/// Messages in a stream.
pub static STREAM_MESSAGES: Metric =
    Metric::gauge("jetstream_stream_total_messages", "Messages in a stream.", &["stream_name"]);
/// Bytes in a stream.
pub static STREAM_BYTES: Metric = Metric::gauge("jetstream_stream_total_bytes", "Bytes in a stream.", &["stream_name"]);
/// Last sequence of a stream.
pub static STREAM_LAST: Metric =
    Metric::gauge("jetstream_stream_last_seq", "Sequence of a stream's last message.", &["stream_name"]);
/// How full a stream is.
pub static STREAM_RATIO: Metric = Metric::gauge(
    "millstream_stream_bytes_ratio",
    "Bytes in a stream as a share of its limit; 0 if it has no limit.",
    &["stream_name"],
);
/// Messages pending at a consumer.
pub static PENDING: Metric = Metric::gauge(
    "jetstream_consumer_num_pending",
    "Messages not yet delivered to a consumer.",
    &["stream_name", "consumer_name"],
);
/// Unacknowledged messages of a consumer.
pub static ACK_PENDING: Metric = Metric::gauge(
    "jetstream_consumer_num_ack_pending",
    "Messages delivered to a consumer and not yet acknowledged.",
    &["stream_name", "consumer_name"],
);
/// Redelivered messages.
pub static REDELIVERED: Metric = Metric::gauge(
    "jetstream_consumer_num_redelivered",
    "Unacknowledged messages delivered to a consumer more than once.",
    &["stream_name", "consumer_name"],
);
/// Waiting pull requests.
pub static WAITING: Metric = Metric::gauge(
    "jetstream_consumer_num_waiting",
    "Waiting pull requests of a consumer.",
    &["stream_name", "consumer_name"],
);
/// Age of a consumer's oldest unacknowledged message.
pub static OLDEST_UNACKED: Metric = Metric::gauge(
    "millstream_consumer_oldest_unacked_age_seconds",
    "Age of the oldest message that a consumer has not acknowledged, delivered or not; 0 if there is none.",
    &["stream_name", "consumer_name"],
);
/// Dead letters.
pub static DEAD_LETTERS: Metric = Metric::gauge(
    "millstream_dead_letters",
    "Unresolved dead letters of a service.",
    &["service_name", "event", "reason"],
);
/// Age of a service's oldest dead letter.
pub static DEAD_LETTER_AGE: Metric = Metric::gauge(
    "millstream_dead_letter_oldest_age_seconds",
    "Age of a service's oldest unresolved dead letter; 0 if there is none.",
    &["service_name"],
);
/// Outcomes of redriven dead letters.
pub static REDRIVES: Metric = Metric::counter(
    "millstream_redrives_total",
    "Dead letters redriven or discarded, by outcome.",
    &["service_name", "outcome"],
);
/// Instances of services.
pub static INSTANCES: Metric = Metric::gauge(
    "millstream_service_instances",
    "Instances of a service that answer on the broker, by release; 0 for a service of which only the dead letter stream exists.",
    &["service_name", "version"],
);

/// Metrics of the broker, replaced with each poll.
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

/// Metrics of the observer itself.
pub(crate) static OWN: &[&Metric] = &[&HTTP_DURATION, &HTTP_ACTIVE, &HTTP_SHED, &BROKER_CONNECTED];
