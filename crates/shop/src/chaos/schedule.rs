//! What is done to the shop and when, decided by a seed alone.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::fault::{Ailment, Fault, Service};
use crate::dice::Dice;

/// A run, as it is written down and repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Schedule {
    /// Of the faults, and of the orders of the load.
    pub(super) seed: u64,
    /// How long there is load.
    pub(super) minutes: u32,
    /// By the time when they begin.
    pub(super) steps: Vec<Step>,
}

/// A fault and when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    #[serde(rename = "atMs")]
    pub(super) at_ms: u64,
    #[serde(flatten)]
    pub(super) fault: Fault,
}

impl Step {
    pub(super) fn at(&self) -> Duration {
        Duration::from_millis(self.at_ms)
    }
}

/// What faults are dealt from: each of them comes once before any comes again.
#[derive(Clone, Copy, Debug)]
enum Card {
    KillOne,
    KillBoth,
    CrashLoop,
    KillAll,
    FreezeOne,
    FreezeBriefly,
    FreezeBoth,
    Roll,
    Cut,
    HalfOpen,
    KillBroker,
    FreezeBroker,
    PutBackBroker,
    PutBackStore,
    KillGateway,
    ForgetKeys,
    Ail(Ailment),
    DeleteConsumer,
    PauseConsumer,
    Poison,
    Surge,
}

const DECK: [Card; 24] = [
    Card::KillOne,
    Card::KillBoth,
    Card::CrashLoop,
    Card::KillAll,
    Card::FreezeOne,
    Card::FreezeBriefly,
    Card::FreezeBoth,
    Card::Roll,
    Card::Cut,
    Card::HalfOpen,
    Card::KillBroker,
    Card::FreezeBroker,
    Card::PutBackBroker,
    Card::PutBackStore,
    Card::KillGateway,
    Card::ForgetKeys,
    Card::Ail(Ailment::Down),
    Card::Ail(Ailment::Slow),
    Card::Ail(Ailment::Failing),
    Card::Ail(Ailment::LosingAnswers),
    Card::DeleteConsumer,
    Card::PauseConsumer,
    Card::Poison,
    Card::Surge,
];

/// Whose database may be put back. An order that was just accepted is in the database of orders only; and a charge that the database
/// of payments has forgotten is not looked for if its order was cancelled meanwhile.
const MAY_BE_PUT_BACK: [Service; 3] = [Service::Inventory, Service::Notifications, Service::Analytics];

impl Schedule {
    /// Faults for so many minutes, a new one every few seconds while earlier ones last. Two that need the same part come one after
    /// the other.
    pub(super) fn new(seed: u64, minutes: u32) -> Self {
        let mut dice = Dice::new(seed);
        let end = u64::from(minutes) * 60_000;
        let mut steps: Vec<Step> = vec![];
        let mut deck = vec![];
        let mut now = 3_000;
        while now < end {
            if deck.is_empty() {
                deck = DECK.to_vec();
            }
            let card = deck.swap_remove(dice.below(deck.len()));
            let fault = card.dealt(&mut dice);
            let at_ms = steps.iter().filter(|step| step.fault.conflicts(&fault)).map(Step::over_ms).fold(now, u64::max);
            let step = Step { at_ms, fault };
            // What lasts longer than there is load would go on when nothing may.
            if step.over_ms() <= end {
                now = at_ms + between(&mut dice, 1_000, 6_000);
                steps.push(step);
            } else {
                now += 1_000;
            }
        }
        Self { seed, minutes, steps }
    }

    /// Reads a file that an earlier run has written, or that somebody has shortened.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let read = || {
            let mut schedule: Self = serde_json::from_str(&std::fs::read_to_string(path)?)?;
            ensure!(schedule.minutes > 0, "`minutes` is not above 0");
            schedule.steps.sort_by_key(|step| step.at_ms);
            Ok(schedule)
        };
        read().with_context(|| format!("--replay: {} is not the schedule of a run", path.display()))
    }

    /// As text that can be read again, a line a step.
    pub(super) fn text(&self) -> Result<String> {
        let steps: Vec<String> =
            self.steps.iter().map(|step| Ok(format!("    {}", serde_json::to_string(step)?))).collect::<Result<_>>()?;
        let Self { seed, minutes, .. } = self;
        Ok(format!("{{\n  \"seed\": {seed}, \"minutes\": {minutes}, \"steps\": [\n{}\n  ]\n}}\n", steps.join(",\n")))
    }
}

impl Step {
    fn over_ms(&self) -> u64 {
        self.at_ms + u64::try_from(self.fault.lasts().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Fault {
    fn conflicts(&self, other: &Self) -> bool {
        let needs = other.needs();
        self.needs().iter().any(|part| needs.contains(part))
    }
}

fn between(dice: &mut Dice, least: u64, most: u64) -> u64 {
    least + ((most - least) as f64 * dice.roll()) as u64
}

impl Card {
    fn dealt(self, dice: &mut Dice) -> Fault {
        let service = Service::ALL[dice.below(Service::ALL.len())];
        let replica = service.replicas()[dice.below(2)];
        let stream = service.reads()[dice.below(service.reads().len())].to_owned();
        let both = service.replicas().to_vec();
        match self {
            // Either back at once, or only after it was taken for dead.
            Self::KillOne if dice.roll() < 0.5 => {
                Fault::Kill { replicas: vec![replica], down_ms: between(dice, 0, 3_000) }
            }
            Self::KillOne => Fault::Kill { replicas: vec![replica], down_ms: between(dice, 11_000, 16_000) },
            Self::KillBoth => Fault::Kill { replicas: both, down_ms: between(dice, 0, 8_000) },
            Self::CrashLoop => {
                let times = 3 + dice.below(6) as u32;
                Fault::CrashLoop { replica, times, life_ms: between(dice, 50, 1_500) }
            }
            Self::KillAll => Fault::KillAll { down_ms: between(dice, 0, 4_000) },
            // Past `ack_wait` and `dead_after`: it is delivered to others, swept, and comes back.
            Self::FreezeOne => Fault::Freeze { replicas: vec![replica], for_ms: between(dice, 12_000, 20_000) },
            Self::FreezeBriefly => Fault::Freeze { replicas: vec![replica], for_ms: between(dice, 500, 9_000) },
            Self::FreezeBoth => Fault::Freeze { replicas: both, for_ms: between(dice, 2_000, 14_000) },
            Self::Roll => Fault::Roll { service },
            Self::Cut => Fault::Cut { replica, for_ms: between(dice, 100, 14_000) },
            Self::HalfOpen => Fault::HalfOpen { replica, for_ms: between(dice, 3_000, 20_000) },
            Self::KillBroker => Fault::KillBroker { down_ms: between(dice, 0, 8_000) },
            Self::FreezeBroker => Fault::FreezeBroker { for_ms: between(dice, 1_000, 14_000) },
            Self::PutBackBroker => Fault::PutBackBroker { ago_ms: between(dice, 2_000, 15_000) },
            Self::PutBackStore => {
                let service = MAY_BE_PUT_BACK[dice.below(MAY_BE_PUT_BACK.len())];
                Fault::PutBackStore { service, ago_ms: between(dice, 2_000, 15_000) }
            }
            Self::KillGateway => Fault::KillGateway { down_ms: between(dice, 0, 8_000) },
            Self::ForgetKeys => Fault::ForgetKeys { for_ms: between(dice, 10_000, 16_000) },
            Self::Ail(how) => Fault::AilGateway { how, for_ms: between(dice, 5_000, 15_000) },
            Self::DeleteConsumer => Fault::DeleteConsumer { service, stream },
            Self::PauseConsumer => Fault::PauseConsumer { service, stream, for_ms: between(dice, 2_000, 12_000) },
            Self::Poison => Fault::Poison,
            Self::Surge => Fault::Surge { orders: 200 + dice.below(600) as u32 },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_seed_another() {
        assert_eq!(Schedule::new(7, 3), Schedule::new(7, 3));
        assert_ne!(Schedule::new(7, 3).steps, Schedule::new(8, 3).steps);
    }

    #[test]
    fn a_schedule_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schedule.json");
        for seed in 0..20 {
            let schedule = Schedule::new(seed, 5);
            std::fs::write(&path, schedule.text().unwrap()).unwrap();
            assert_eq!(Schedule::read(&path).unwrap(), schedule);
        }
    }

    #[test]
    fn a_file_that_is_no_schedule_is_refused_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schedule.json");
        for (step, told) in [
            (r#"{"atMs": 1, "fault": "kill", "replicas": ["orders-3"], "downMs": 1}"#, "no replica `orders-3`"),
            (r#"{"atMs": 1, "fault": "flood"}"#, "unknown variant `flood`"),
        ] {
            std::fs::write(&path, format!(r#"{{"seed": 1, "minutes": 1, "steps": [{step}]}}"#)).unwrap();
            let error = format!("{:#}", Schedule::read(&path).unwrap_err());
            assert!(error.contains("--replay") && error.contains(told), "{error}");
        }
    }

    #[test]
    fn faults_that_need_the_same_part_do_not_overlap_and_all_are_over_before_the_load_is() {
        for seed in 0..200 {
            let steps = Schedule::new(seed, 6).steps;
            assert!(steps.is_sorted_by_key(|step| step.at_ms), "{steps:?}");
            for (number, step) in steps.iter().enumerate() {
                assert!(step.over_ms() <= 360_000, "{step:?}");
                let meets = |other: &&Step| other.fault.conflicts(&step.fault) && other.over_ms() > step.at_ms;
                assert_eq!(steps[..number].iter().find(meets), None, "seed {seed}: {step:?}");
            }
        }
    }

    #[test]
    fn every_fault_comes_in_a_few_minutes_and_some_overlap() {
        let kinds = |steps: &[Step]| steps.iter().map(|step| step.fault.kind()).collect::<BTreeSet<_>>().len();
        let steps = Schedule::new(1, 6).steps;
        assert_eq!(kinds(&steps), 23);
        let overlaps = steps.windows(2).filter(|pair| pair[0].over_ms() > pair[1].at_ms).count();
        assert!(overlaps > steps.len() / 4, "{overlaps} of {}", steps.len());
        // The long test of the program relies on it.
        assert_eq!(kinds(&Schedule::new(19, 2).steps), 23);
    }

    #[test]
    fn no_database_is_put_back_that_alone_knows_what_was_promised_or_paid() {
        let put_back = |step: &Step| match step.fault {
            Fault::PutBackStore { service, .. } => Some(service),
            _ => None,
        };
        let services: BTreeSet<Service> =
            (0..100).flat_map(|seed| Schedule::new(seed, 10).steps).filter_map(|step| put_back(&step)).collect();
        assert_eq!(services, BTreeSet::from(MAY_BE_PUT_BACK));
    }
}
