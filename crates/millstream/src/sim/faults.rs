//! What may go wrong.

/// What may go wrong, each in so many of 1000 cases where it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// A process is killed; another one starts in its place.
    pub kill: u32,
    /// A process is left alone for up to 40 seconds.
    pub freeze: u32,
    /// An ack does not arrive.
    pub lost_ack: u32,
    /// The ack of a publish does not arrive, and the message is sent again.
    pub lost_publish_ack: u32,
    /// A commit fails in one of four ways.
    pub commit: u32,
    /// The answer of an effect does not arrive, although it has happened.
    pub lost_outcome: u32,
    /// A durable is deleted, and made anew from where the service first began.
    pub consumer: u32,
    /// The broker comes back without the last events of a service that it had acknowledged.
    pub lost_tail: u32,
    /// How far clocks of processes differ from the broker's at most, in milliseconds.
    pub skew_ms: u64,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            kill: 0,
            freeze: 0,
            lost_ack: 0,
            lost_publish_ack: 0,
            commit: 0,
            lost_outcome: 0,
            consumer: 0,
            lost_tail: 0,
            skew_ms: 0,
        }
    }

    /// Everything goes wrong that may.
    pub fn all() -> Self {
        Self {
            kill: 12,
            freeze: 8,
            lost_ack: 60,
            lost_publish_ack: 60,
            commit: 120,
            lost_outcome: 100,
            consumer: 3,
            lost_tail: 3,
            skew_ms: 60_000,
        }
    }
}
