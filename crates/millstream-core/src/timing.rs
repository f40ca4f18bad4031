//! Every time and bound of the engine in one place.

use std::time::Duration;

pub use crate::clock::Clock;
use crate::retry::Retry;

/// The engine's times and bounds. The defaults are for production; tests shorten them.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Maximum number of inputs in a batch.
    pub batch_inputs: usize,
    /// Maximum size of the message bodies in a batch, in bytes.
    pub batch_bytes: usize,
    /// Entries of the service that may wait to be published before pulling pauses and commands get 503.
    pub unpublished_limit: u64,
    /// How long a command waits for its commit before it is answered 503.
    pub command_timeout: Duration,
    /// Maximum number of queued commands.
    pub command_queue: usize,
    /// How long the broker waits for an ack before it delivers again.
    pub ack_wait: Duration,
    /// Deliveries of a durable that may be unacked at once, over all replicas.
    pub max_ack_pending: i64,
    /// Idle heartbeat of a pull; two missed ones re-open it.
    pub pull_heartbeat: Duration,
    /// How long a pull request stands.
    pub pull_expires: Duration,
    /// How long the replica that reads for a single writer may not pull before another takes over.
    pub pin_timeout: Duration,
    /// Delays and attempts of a message whose handler requests a retry.
    pub message_retry: Retry,
    /// How often a message is redelivered that only a newer release understands.
    pub ahead_every: Duration,
    /// How long such a message is retried before it is parked as `ahead`; longer than a rolling upgrade takes.
    pub ahead_patience: Duration,
    /// Delays of an effect whose outcome is unknown; it is retried without limit.
    pub effect_retry: Retry,
    /// Minimum time before a claimed effect may be claimed again.
    pub lease: Duration,
    /// How long one run of an effect may take before its outcome counts as unknown.
    pub effect_timeout: Duration,
    /// Maximum number of effects that run concurrently.
    pub effect_slots: usize,
    /// Consecutive outages, on different documents, that open the circuit breaker of a kind of effect.
    pub effect_gate: usize,
    /// How often due wakes are looked for; a sixth as often while none comes due.
    pub wake_sweep: Duration,
    /// Starts alone after which a message that kills the process is parked as `crash`.
    pub crash_starts: u32,
    /// After a (re)connect, how long the journal is asked for every delivery.
    pub distrust: Duration,
    /// After a (re)connect, how long deadlines wait at most for the durables to be drained.
    pub deadline_patience: Duration,
    /// Idle time after which an advanced watermark is written without a batch.
    pub watermark_idle: Duration,
    /// How often the instance row is written at the least.
    pub heartbeat: Duration,
    /// How long an instance row must stand unchanged before its instance counts as dead.
    pub dead_after: Duration,
    /// How often instance rows are looked at.
    pub instance_sweep: Duration,
    /// How long a publish waits for the broker's ack before all that is unacked is sent again.
    pub publish_timeout: Duration,
    /// How often a stream is looked at that the service publishes to: whether the broker still has what it has acknowledged.
    pub tail_check: Duration,
    /// How long journal entries are kept.
    pub journal_retention: Duration,
    /// How often old entries are looked for.
    pub expiry_every: Duration,
    /// How often the owner of a stream looks whether it is full, and trims it.
    pub trim_every: Duration,
    /// Minimum time for which messages that all readers have handled are kept, while there is space.
    pub trim_older_than: Duration,
    /// The share of a stream's size limit above which messages that all readers have handled are removed, whatever their age.
    pub trim_above: f64,
    /// The share of a stream's size limit from which on commands get 503, so that there is room for what is under way.
    pub admit_below: f64,
    /// How long an idempotency key stands for its command.
    pub key_retention: Duration,
    /// How often watched documents are looked at.
    pub watch_every: Duration,
    /// How many watches there may be at once.
    pub watch_limit: usize,
    /// Delay between two attempts to reach a dependency that is unavailable.
    pub gate_retry: Retry,
    /// On shutdown, how long running effects get.
    pub effect_grace: Duration,
    /// On shutdown, how long everything may take.
    pub shutdown: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        let secs = Duration::from_secs;
        Self {
            batch_inputs: 256,
            batch_bytes: 4 << 20,
            unpublished_limit: 10_000,
            command_timeout: secs(2),
            command_queue: 4096,
            ack_wait: secs(10),
            max_ack_pending: 2048,
            pull_heartbeat: secs(5),
            pull_expires: secs(30),
            pin_timeout: secs(5),
            message_retry: Retry { first: ms(200), longest: secs(30), jitter: 0.2, attempts: 8 },
            ahead_every: secs(1),
            ahead_patience: secs(600),
            effect_retry: Retry { first: ms(500), longest: secs(3600), jitter: 0.2, attempts: u32::MAX },
            lease: secs(30),
            effect_timeout: secs(10),
            effect_slots: 256,
            effect_gate: 5,
            wake_sweep: ms(250),
            crash_starts: 3,
            distrust: secs(60),
            deadline_patience: secs(60),
            watermark_idle: ms(100),
            heartbeat: secs(2),
            dead_after: secs(10),
            instance_sweep: secs(2),
            publish_timeout: secs(5),
            tail_check: secs(60),
            journal_retention: secs(14 * 24 * 3600),
            expiry_every: secs(10),
            trim_every: secs(2),
            trim_older_than: secs(7 * 24 * 3600),
            trim_above: 0.8,
            admit_below: 0.9,
            key_retention: secs(24 * 3600),
            watch_every: ms(200),
            watch_limit: 1000,
            gate_retry: Retry { first: ms(50), longest: secs(2), jitter: 0.2, attempts: u32::MAX },
            effect_grace: secs(5),
            shutdown: secs(10),
        }
    }
}

impl Timing {
    /// Times for tests: in the same proportion to each other, but seconds instead of minutes.
    pub fn short() -> Self {
        let ms = Duration::from_millis;
        Self {
            ack_wait: ms(1500),
            pull_heartbeat: ms(500),
            pull_expires: ms(2000),
            pin_timeout: ms(1000),
            message_retry: Retry { first: ms(20), longest: ms(500), jitter: 0.2, attempts: 8 },
            ahead_every: ms(50),
            ahead_patience: Duration::from_secs(10),
            effect_retry: Retry { first: ms(50), longest: ms(1000), jitter: 0.2, attempts: u32::MAX },
            lease: ms(1500),
            effect_timeout: ms(1000),
            wake_sweep: ms(50),
            dead_after: ms(1500),
            heartbeat: ms(300),
            instance_sweep: ms(200),
            publish_timeout: ms(1000),
            tail_check: ms(1000),
            trim_every: ms(50),
            deadline_patience: Duration::from_secs(10),
            gate_retry: Retry { first: ms(20), longest: ms(200), jitter: 0.2, attempts: u32::MAX },
            ..Self::default()
        }
    }
}
