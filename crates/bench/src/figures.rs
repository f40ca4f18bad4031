//! What is measured, on what, and the sheet that it is noted on.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::load::SUBMITTERS;
use crate::tally::Tally;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// The least that the same messages and states can cost, and raw rates.
    Floor,
    /// `shop up`: all services in one process.
    One,
    /// A process a service, each with a SQLite file.
    Five,
    /// A process a service, each with a MongoDB database.
    Mongo,
    /// The floor on a broker that syncs before it acknowledges.
    FloorSynced,
    /// `shop up --broker-sync always`.
    OneSynced,
}

impl System {
    pub(crate) const ALL: [Self; 6] =
        [Self::Floor, Self::One, Self::Five, Self::Mongo, Self::FloorSynced, Self::OneSynced];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::One => "one process",
            Self::Five => "five processes",
            Self::Mongo => "five processes, MongoDB",
            Self::FloorSynced => "floor, broker syncs always",
            Self::OneSynced => "one process, broker syncs always",
        }
    }

    /// The floor with the same durability; `None` of a floor.
    pub(crate) fn floor(self) -> Option<Self> {
        match self {
            Self::Floor | Self::FloorSynced => None,
            Self::One | Self::Five | Self::Mongo => Some(Self::Floor),
            Self::OneSynced => Some(Self::FloorSynced),
        }
    }
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    Burst,
    InFlight,
    InFlightP50,
    InFlightP99,
    Saturation,
    LatencyP50,
    LatencyP99,
    Cpu,
    CpuServices,
    CpuBroker,
    CpuStore,
    CpuGateway,
    CpuGenerator,
    IdleCpuServices,
    IdleCpuBroker,
    IdleMemoryServices,
    IdleMemoryBroker,
    Messages,
    Deliveries,
    Bytes,
    PublishPipelined,
    PublishAwaited,
    ConsumeAck,
    Commit,
}

impl Figure {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 24] = [
        Self::Burst,
        Self::InFlight,
        Self::InFlightP50,
        Self::InFlightP99,
        Self::Saturation,
        Self::LatencyP50,
        Self::LatencyP99,
        Self::Cpu,
        Self::CpuServices,
        Self::CpuBroker,
        Self::CpuStore,
        Self::CpuGateway,
        Self::CpuGenerator,
        Self::IdleCpuServices,
        Self::IdleCpuBroker,
        Self::IdleMemoryServices,
        Self::IdleMemoryBroker,
        Self::Messages,
        Self::Deliveries,
        Self::Bytes,
        Self::PublishPipelined,
        Self::PublishAwaited,
        Self::ConsumeAck,
        Self::Commit,
    ];

    /// Its name and unit.
    pub(crate) fn title(self) -> String {
        let title = match self {
            Self::Burst => "burst, orders/s",
            Self::InFlight => return format!("{SUBMITTERS} in flight, orders/s"),
            Self::InFlightP50 => return format!("{SUBMITTERS} in flight, p50 ms"),
            Self::InFlightP99 => return format!("{SUBMITTERS} in flight, p99 ms"),
            Self::Saturation => "saturation, orders/s",
            Self::LatencyP50 => "latency at half of it, p50 ms",
            Self::LatencyP99 => "latency at half of it, p99 ms",
            Self::Cpu => "CPU, ms/order",
            Self::CpuServices => "– of it the services",
            Self::CpuBroker => "– of it the broker",
            Self::CpuStore => "– of it mongod",
            Self::CpuGateway => "– of it the gateway",
            Self::CpuGenerator => "– beside it the generator",
            Self::IdleCpuServices => "idle, services: % of a core",
            Self::IdleCpuBroker => "idle, broker: % of a core",
            Self::IdleMemoryServices => "idle, services: MiB",
            Self::IdleMemoryBroker => "idle, broker: MiB",
            Self::Messages => "messages/order",
            Self::Deliveries => "deliveries/order",
            Self::Bytes => "bytes/order in the broker",
            Self::PublishPipelined => "publish, pipelined: msg/s",
            Self::PublishAwaited => "publish, one by one: msg/s",
            Self::ConsumeAck => "consume and ack: msg/s",
            Self::Commit => "SQLite, a synced row: commits/s",
        };
        title.into()
    }

    /// What the floor has under it: no rate is sustained beyond what the floor carries at all.
    pub(crate) fn of_floor(self) -> Self {
        if self == Self::Saturation { Self::Burst } else { self }
    }
}

/// A value of one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) round: u32,
    pub(crate) system: System,
    pub(crate) figure: Figure,
    pub(crate) value: f64,
    /// What others took of the machine meanwhile, in percent; `None` of what is counted, whatever it took.
    pub(crate) foreign: Option<f64>,
}

/// All values so far.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) round: u32,
    pub(crate) samples: Vec<Sample>,
}

impl Sheet {
    pub(crate) fn note(&mut self, system: System, figure: Figure, value: f64, foreign: Option<f64>) {
        self.samples.push(Sample { round: self.round, system, figure, value, foreign });
    }

    pub(crate) fn note_tally(&mut self, system: System, tally: &Tally, orders: u64) {
        for (figure, count) in
            [(Figure::Messages, tally.messages), (Figure::Deliveries, tally.deliveries), (Figure::Bytes, tally.bytes)]
        {
            self.note(system, figure, count as f64 / orders as f64, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_row_with_a_title_of_its_own() {
        let mut titles: Vec<String> = Figure::ALL.iter().map(|figure| figure.title()).collect();
        titles.sort();
        titles.dedup();
        assert_eq!(titles.len(), Figure::ALL.len());
        assert_eq!(Figure::ALL.last().map(|last| *last as usize + 1), Some(Figure::ALL.len()));
    }
}
