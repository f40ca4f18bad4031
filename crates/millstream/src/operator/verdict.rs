//! Whether all is well, in one sentence: what `millstream status` ends with and the console begins with. What is looked at comes
//! from the broker and the services; what it means is decided here, without I/O.
//!
//! Causes are named in the order of what drags what with it: a broker that is away before a service that is, that before an
//! outside that does not answer, and events that wait last. What is explained by a cause is not named beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::operator::invariants::Told;
use crate::operator::letters::Letters;
use crate::operator::status::SystemStatus;
use crate::operator::{Operator, OperatorError};

mod causes;
#[cfg(test)]
mod tests;

pub(crate) use causes::silences;

/// Whether all is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// In a word.
    pub state: State,
    /// In a sentence: the first cause, and where to read what to do.
    pub sentence: String,
    /// Everything that is wrong or not known, what drags others with it first.
    pub causes: Vec<Cause>,
}

/// A verdict in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Everything was looked at, and is as it should be.
    Well,
    /// Nothing that was seen is wrong, but not everything could be seen.
    Unknown,
    /// Something is wrong.
    Wrong,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// What kind of thing.
    pub kind: Kind,
    /// What is wrong, for how long, and what that does, with the name of what it is about first.
    pub sentence: String,
    /// Since when, as far as that is known.
    pub since: Option<Timestamp>,
    /// The section of the runbooks that says what to do.
    pub runbook: String,
}

/// What can be wrong. An earlier kind drags later ones with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The broker does not answer.
    BrokerDown,
    /// The broker takes no more, because its disk is full.
    DiskFull,
    /// No instance of a service answers.
    ServiceDown,
    /// A service's store does not answer.
    StoreDown,
    /// Somebody has paused a consumer.
    ConsumerPaused,
    /// A consumer that a service reads is not there.
    ConsumerMissing,
    /// An external system does not answer.
    OutsideUnanswered,
    /// The broker refuses events.
    EventsHeld,
    /// An instance cannot do its whole job.
    NotReady,
    /// A stream is nearly full.
    StreamFull,
    /// A replica ended without a clean stop.
    ReplicaMissing,
    /// Messages were given up.
    DeadLetters,
    /// An invariant does not hold.
    InvariantBroken,
    /// Deadlines or effects are not run.
    WakesOverdue,
    /// Events wait.
    ConsumerLags,
    /// An event is not acknowledged, but later ones are.
    FloorStands,
    /// Nobody reads a consumer.
    ConsumerNotPulled,
    /// Two releases of a service run side by side for long.
    ReleasesMixed,
    /// A consumer was made anew under a running service.
    ConsumerRemade,
    /// Something could not be looked at.
    Unknown,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::BrokerDown,
        Self::DiskFull,
        Self::ServiceDown,
        Self::StoreDown,
        Self::ConsumerPaused,
        Self::ConsumerMissing,
        Self::OutsideUnanswered,
        Self::EventsHeld,
        Self::NotReady,
        Self::StreamFull,
        Self::ReplicaMissing,
        Self::DeadLetters,
        Self::InvariantBroken,
        Self::WakesOverdue,
        Self::ConsumerLags,
        Self::FloorStands,
        Self::ConsumerNotPulled,
        Self::ReleasesMixed,
        Self::ConsumerRemade,
        Self::Unknown,
    ];

    /// The section of the runbooks that says what to do.
    pub fn runbook(self) -> &'static str {
        match self {
            Self::BrokerDown => "BrokerDown",
            Self::DiskFull => "DiskFull",
            Self::ServiceDown => "ServiceDown",
            Self::StoreDown => "StoreDown",
            Self::ConsumerPaused => "ConsumerPaused",
            Self::ConsumerMissing | Self::ConsumerRemade => "ConsumerMissing",
            Self::OutsideUnanswered => "OutsideUnanswered",
            Self::EventsHeld => "EventsUnpublished",
            Self::NotReady => "NotReady",
            Self::StreamFull => "StreamFull",
            Self::ReplicaMissing => "ReplicaMissing",
            Self::DeadLetters => "DeadLetters",
            Self::InvariantBroken => "InvariantBroken",
            Self::WakesOverdue => "WakesOverdue",
            Self::ConsumerLags | Self::FloorStands => "ConsumerLags",
            Self::ConsumerNotPulled => "ConsumerNotPulled",
            Self::ReleasesMixed => "ReleasesMixed",
            Self::Unknown => "NotKnown",
        }
    }
}

/// What was looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Streams, consumers and instances.
    pub status: SystemStatus,
    /// How many dead letters each service has, and since when the oldest; or why that is not known.
    pub letters: Result<BTreeMap<String, (usize, Timestamp)>, String>,
    /// What checkers of invariants have told last; or why that is not known.
    pub told: Result<Vec<Told>, String>,
}

impl Seen {
    /// The verdict on it.
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        let mut causes = causes::of(self, now);
        causes.sort_by_key(|cause| cause.kind);
        let Some(first) = causes.first() else {
            return Verdict { state: State::Well, sentence: self.well(), causes };
        };
        let state = if first.kind == Kind::Unknown { State::Unknown } else { State::Wrong };
        let others = match causes.len() - 1 {
            0 => String::new(),
            1 => " One more problem is listed.".into(),
            others => format!(" {others} more problems are listed."),
        };
        let sentence = format!("{}. See the runbook \"{}\".{others}", first.sentence, first.runbook);
        Verdict { state, sentence, causes }
    }

    /// What "all" is, when all is well: a checker that nobody has started proves nothing.
    fn well(&self) -> String {
        let (services, instances) = (self.status.services().len(), self.status.instances.len());
        let checked: usize = self.told.iter().flatten().map(|told| told.invariants.len()).sum();
        let checked = match checked {
            0 => "no invariants are checked".to_owned(),
            checked => format!("{checked} invariants hold"),
        };
        format!("All is well: {} of {} answer, and {checked}.", many(instances, "instance"), many(services, "service"))
    }
}

impl Verdict {
    /// The verdict when nothing can be seen because the broker, or JetStream on it, does not answer.
    pub fn blind(why: &str) -> Self {
        let sentence = format!(
            "broker: {why}; until it answers no events are published or delivered, commands are accepted up to a bound, \
             and nothing that was accepted is lost"
        );
        let cause = Cause { kind: Kind::BrokerDown, sentence, since: None, runbook: "BrokerDown".into() };
        let sentence = format!("{}. See the runbook \"BrokerDown\".", cause.sentence);
        Self { state: State::Wrong, sentence, causes: vec![cause] }
    }

    /// The verdict when nobody has looked for so long.
    pub fn outdated(age: Duration) -> Self {
        let sentence = format!("state: nothing is known, because the system could not be observed for {}", rough(age));
        let cause = Cause { kind: Kind::Unknown, sentence, since: None, runbook: "NotKnown".into() };
        let sentence = format!("{}. See the runbook \"NotKnown\".", cause.sentence);
        Self { state: State::Unknown, sentence, causes: vec![cause] }
    }
}

/// How many there are of something.
fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A time as people say it.
fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

impl Operator {
    /// Looks at everything that a verdict is about. `letters` keeps what was read.
    ///
    /// # Errors
    /// When the broker, or JetStream on it, does not answer; see [`Verdict::blind`].
    pub async fn examine(&self, letters: &mut Letters) -> Result<Seen, OperatorError> {
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return Err(OperatorError::Away("there is no connection to it".into()));
        }
        let letters = async {
            letters.update(self).await.map_err(|error| error.to_string())?;
            Ok(letters.unresolved())
        };
        let told = async { self.told().await.map_err(|error| error.to_string()) };
        let (status, letters, told) = tokio::join!(self.status(), letters, told);
        Ok(Seen { status: status?, letters, told })
    }
}
