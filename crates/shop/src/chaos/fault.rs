//! What can be done to a running shop. A fault knows how long it lasts and which parts it needs for itself.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A service of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Service {
    Orders,
    Inventory,
    Payments,
    Notifications,
    Analytics,
}

impl Service {
    pub(super) const ALL: [Self; 5] =
        [Self::Orders, Self::Inventory, Self::Payments, Self::Notifications, Self::Analytics];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Payments => "payments",
            Self::Notifications => "notifications",
            Self::Analytics => "analytics",
        }
    }

    /// The streams that it reads, each through a durable of its own name.
    pub(super) fn reads(self) -> &'static [&'static str] {
        match self {
            Self::Orders => &["INVENTORY", "PAYMENTS"],
            Self::Payments => &["ORDERS", "INVENTORY"],
            Self::Notifications => &["ORDERS", "PAYMENTS"],
            Self::Inventory | Self::Analytics => &["ORDERS"],
        }
    }

    pub(super) fn replicas(self) -> [Replica; 2] {
        [1, 2].map(|number| Replica { service: self, number })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One of the two processes of a service: `orders-2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Replica {
    pub(super) service: Service,
    pub(super) number: u8,
}

impl Replica {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Service::ALL.into_iter().flat_map(Service::replicas)
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.service, self.number)
    }
}

impl From<Replica> for String {
    fn from(replica: Replica) -> Self {
        replica.to_string()
    }
}

impl TryFrom<String> for Replica {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Replica {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::all().find(|replica| replica.to_string() == text);
        known.ok_or_else(|| format!("there is no replica `{text}`; they are called orders-1, orders-2, inventory-1, …"))
    }
}

/// What the gateway does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ailment {
    /// 503 to everything.
    Down,
    /// Answers take longer than payments waits.
    Slow,
    /// Half of the requests fail, and nothing is done.
    Failing,
    /// Half of the orders are charged, and their first answer is lost.
    LosingAnswers,
}

/// A fault. All of them end by themselves: what was taken away is put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum Fault {
    /// `kill -9`, and a new start after a while.
    Kill { replicas: Vec<Replica>, down_ms: u64 },
    /// The same again and again.
    CrashLoop { replica: Replica, times: u32, life_ms: u64 },
    /// `kill -9` of every process, the broker and the gateway among them.
    KillAll { down_ms: u64 },
    /// SIGSTOP, and SIGCONT after a while.
    Freeze { replicas: Vec<Replica>, for_ms: u64 },
    /// One replica after the other is stopped in order and started again.
    Roll { service: Service },
    /// The replica's connections to the broker end, and new ones are closed at once.
    Cut { replica: Replica, for_ms: u64 },
    /// The replica's connections to the broker stay, and nothing arrives any more.
    HalfOpen { replica: Replica, for_ms: u64 },
    /// `kill -9` of the broker.
    KillBroker { down_ms: u64 },
    /// SIGSTOP of the broker.
    FreezeBroker { for_ms: u64 },
    /// The broker is killed and goes on with its files of a while ago.
    PutBackBroker { ago_ms: u64 },
    /// A service is killed and goes on with its database of a while ago.
    PutBackStore { service: Service, ago_ms: u64 },
    /// `kill -9` of the gateway.
    KillGateway { down_ms: u64 },
    /// The gateway charges without an answer, fails until it has forgotten its idempotency keys, and is asked again.
    ForgetKeys { for_ms: u64 },
    /// The gateway answers badly.
    AilGateway { how: Ailment, for_ms: u64 },
    /// A durable is deleted at the broker.
    DeleteConsumer { service: Service, stream: String },
    /// A durable is paused at the broker.
    PauseConsumer { service: Service, stream: String, for_ms: u64 },
    /// An event that its reader cannot read is published.
    Poison,
    /// So many orders as fast as they are taken.
    Surge { orders: u32 },
}

/// What a fault needs for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Service(Service),
    Broker,
    Gateway,
}

impl Part {
    pub(super) fn all() -> Vec<Self> {
        Service::ALL.into_iter().map(Self::Service).chain([Self::Broker, Self::Gateway]).collect()
    }
}

/// How long a process is given to be at work again before the next fault meets it.
const START: u64 = 1_000;

/// Longer than `ack_wait`: what is held when the broker is put back is delivered again, and acked, before anything else dies. (That
/// an ack from before may count for a message that comes to the same place is a documented limit.)
const REDELIVERY: u64 = 15_000;

impl Fault {
    /// How long it lasts until other faults may meet what it needs.
    pub(super) fn lasts(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Kill { down_ms, .. } | Self::KillBroker { down_ms } | Self::KillGateway { down_ms } => {
                down_ms + START
            }
            Self::KillAll { down_ms } => down_ms + 3 * START,
            Self::CrashLoop { times, life_ms, .. } => u64::from(*times) * life_ms + START,
            Self::Freeze { for_ms, .. }
            | Self::Cut { for_ms, .. }
            | Self::HalfOpen { for_ms, .. }
            | Self::FreezeBroker { for_ms }
            | Self::ForgetKeys { for_ms }
            | Self::AilGateway { for_ms, .. }
            | Self::PauseConsumer { for_ms, .. } => for_ms + START,
            Self::PutBackBroker { ago_ms } => ago_ms + REDELIVERY,
            Self::PutBackStore { ago_ms, .. } => ago_ms + START,
            Self::Roll { .. } => 5 * START,
            Self::DeleteConsumer { .. } | Self::Poison => START,
            Self::Surge { .. } => 0,
        })
    }

    /// What no other fault may meet while it lasts, in the order of [`Part`].
    pub(super) fn needs(&self) -> Vec<Part> {
        let mut parts = match self {
            Self::Kill { replicas, .. } | Self::Freeze { replicas, .. } => {
                replicas.iter().map(|replica| Part::Service(replica.service)).collect()
            }
            Self::CrashLoop { replica, .. } | Self::Cut { replica, .. } | Self::HalfOpen { replica, .. } => {
                vec![Part::Service(replica.service)]
            }
            Self::Roll { service } | Self::PutBackStore { service, .. } => vec![Part::Service(*service)],
            Self::KillAll { .. } | Self::PutBackBroker { .. } => Part::all(),
            Self::KillBroker { .. } | Self::FreezeBroker { .. } => vec![Part::Broker],
            Self::KillGateway { .. } | Self::ForgetKeys { .. } | Self::AilGateway { .. } => vec![Part::Gateway],
            Self::DeleteConsumer { service, .. } | Self::PauseConsumer { service, .. } => {
                vec![Part::Broker, Part::Service(*service)]
            }
            Self::Poison => vec![Part::Broker, Part::Service(Service::Orders)],
            Self::Surge { .. } => vec![],
        };
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// What it is called in the table at the end.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Kill { replicas, .. } if replicas.len() == 1 => "one process killed",
            Self::Kill { .. } => "both replicas killed",
            Self::CrashLoop { .. } => "crash loop",
            Self::KillAll { .. } => "everything killed",
            Self::Freeze { replicas, .. } if replicas.len() == 1 => "one process frozen",
            Self::Freeze { .. } => "both replicas frozen",
            Self::Roll { .. } => "rolling restart",
            Self::Cut { .. } => "connection cut",
            Self::HalfOpen { .. } => "connection half-open",
            Self::KillBroker { .. } => "broker killed",
            Self::FreezeBroker { .. } => "broker frozen",
            Self::PutBackBroker { .. } => "broker put back",
            Self::PutBackStore { .. } => "store put back",
            Self::KillGateway { .. } => "gateway killed",
            Self::ForgetKeys { .. } => "gateway forgets its keys",
            Self::AilGateway { how: Ailment::Down, .. } => "gateway down",
            Self::AilGateway { how: Ailment::Slow, .. } => "gateway slow",
            Self::AilGateway { how: Ailment::Failing, .. } => "gateway fails",
            Self::AilGateway { how: Ailment::LosingAnswers, .. } => "gateway loses answers",
            Self::DeleteConsumer { .. } => "consumer deleted",
            Self::PauseConsumer { .. } => "consumer paused",
            Self::Poison => "poison",
            Self::Surge { .. } => "surge",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: &u64| format!("{:.1} s", Duration::from_millis(*ms).as_secs_f64());
        let list = |replicas: &[Replica]| replicas.iter().map(Replica::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "{}", self.kind())?;
        match self {
            Self::Kill { replicas, down_ms } => write!(f, ": {}, back after {}", list(replicas), seconds(down_ms)),
            Self::CrashLoop { replica, times, life_ms } => {
                write!(f, ": {replica}, {times} times after {}", seconds(life_ms))
            }
            Self::KillAll { down_ms } | Self::KillBroker { down_ms } | Self::KillGateway { down_ms } => {
                write!(f, ", back after {}", seconds(down_ms))
            }
            Self::Freeze { replicas, for_ms } => write!(f, ": {}, for {}", list(replicas), seconds(for_ms)),
            Self::Roll { service } => write!(f, ": {service}"),
            Self::Cut { replica, for_ms } | Self::HalfOpen { replica, for_ms } => {
                write!(f, ": {replica}, for {}", seconds(for_ms))
            }
            Self::FreezeBroker { for_ms } | Self::ForgetKeys { for_ms } | Self::AilGateway { for_ms, .. } => {
                write!(f, ", for {}", seconds(for_ms))
            }
            Self::PutBackBroker { ago_ms } => write!(f, ": in {} to its files of now", seconds(ago_ms)),
            Self::PutBackStore { service, ago_ms } => {
                write!(f, ": {service}, in {} to its files of now", seconds(ago_ms))
            }
            Self::DeleteConsumer { service, stream } => write!(f, ": {service} on {stream}"),
            Self::PauseConsumer { service, stream, for_ms } => {
                write!(f, ": {service} on {stream}, for {}", seconds(for_ms))
            }
            Self::Surge { orders } => write!(f, ": {orders} orders"),
            Self::Poison => Ok(()),
        }
    }
}
