//! How long no order ended after each fault: what a customer would have noticed of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use millstream::Timestamp;

/// A fault that was done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Struck {
    pub(super) kind: &'static str,
    pub(super) at: Timestamp,
    /// How long it lasted.
    pub(super) lasted: Duration,
}

/// What is counted of a kind of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    times: u32,
    longest: Duration,
}

/// By kind how often it was done, and the longest time without an order's end while it lasted or before the next fault. It displays
/// as a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pauses(BTreeMap<&'static str, Count>);

impl Pauses {
    /// Of faults by time, and of the times at which orders ended, up to `until`.
    pub(super) fn of(struck: &[Struck], mut ended: Vec<Timestamp>, until: Timestamp) -> Self {
        ended.sort_unstable();
        let mut counts = BTreeMap::<_, Count>::new();
        for (number, fault) in struck.iter().enumerate() {
            let next = struck.get(number + 1).map_or(until, |next| next.at);
            let over = next.max(fault.at + fault.lasted);
            let within = &ended[ended.partition_point(|at| *at <= fault.at)..];
            // A pause that has begun is measured to its end.
            let count = within.partition_point(|at| *at <= over);
            let (mut last, mut longest) = (fault.at, Duration::ZERO);
            for at in within.iter().take(count + 1).copied().chain((count == within.len()).then_some(until)) {
                longest = longest.max(at.since(last));
                last = at;
            }
            let known = counts.entry(fault.kind).or_default();
            *known = Count { times: known.times + 1, longest: known.longest.max(longest) };
        }
        Self(counts)
    }
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["fault", "times", "longest time without an order's end"]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for (kind, count) in &self.0 {
            let longest = format!("{:.1} s", count.longest.as_secs_f64());
            table.add_row([(*kind).to_owned(), count.times.to_string(), longest]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn struck(kind: &'static str, second: u64, lasted: u64) -> Struck {
        Struck { kind, at: at(second), lasted: Duration::from_secs(lasted) }
    }

    fn pauses(struck: &[Struck], ended: &[u64]) -> Vec<(&'static str, u32, u64)> {
        let ended = ended.iter().copied().map(at).collect();
        let Pauses(counts) = Pauses::of(struck, ended, at(100));
        counts.into_iter().map(|(kind, count)| (kind, count.times, count.longest.as_secs())).collect()
    }

    #[test]
    fn a_pause_belongs_to_the_fault_before_it_and_is_measured_to_its_end() {
        let faults = [struck("kill", 10, 1), struck("freeze", 20, 2), struck("kill", 40, 1)];
        let ended = [1, 9, 12, 13, 18, 21, 30, 41, 42, 43, 99];
        // The first kill: 10 to 12, and 13 to 18. The freeze: 21 to 30 to 41. The second kill: 43 to 99.
        assert_eq!(pauses(&faults, &ended), [("freeze", 1, 11), ("kill", 2, 56)]);
        assert_eq!(pauses(&faults[..1], &[11, 15, 20]), [("kill", 1, 80)]);
    }

    #[test]
    fn a_fault_that_lasts_beyond_the_next_one_has_the_pauses_up_to_its_end() {
        let faults = [struck("freeze", 10, 30), struck("kill", 12, 1), struck("end", 50, 1)];
        let ended = [11, 12, 13, 14, 35, 36, 37, 45, 49, 50, 51, 100];
        assert_eq!(pauses(&faults, &ended), [("end", 1, 49), ("freeze", 1, 21), ("kill", 1, 21)]);
    }

    #[test]
    fn without_an_order_that_ends_the_pause_goes_on_to_the_end() {
        assert_eq!(pauses(&[struck("kill", 10, 1)], &[]), [("kill", 1, 90)]);
        assert_eq!(pauses(&[], &[5]), []);
    }
}
