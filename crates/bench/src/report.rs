//! One table of a run: each figure beside its floor of the same rounds, and whether systems can be told apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::figures::{Figure, Sample, System};
use crate::statistics::{Gap, Spread};

/// A phase in which others took more of the machine is marked.
const FOREIGN_LIMIT: f64 = 10.0;

/// Everything that is known of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The day and the time, in UTC.
    pub(crate) began: String,
    pub(crate) minutes: f64,
    pub(crate) rounds: u32,
    pub(crate) quick: bool,
    pub(crate) machine: String,
    /// The programs and their versions.
    pub(crate) programs: Vec<String>,
    /// What failed or was left out.
    pub(crate) left_out: Vec<String>,
    /// Whether anything of it was to be measured and failed.
    #[serde(default)]
    pub(crate) failed: bool,
    pub(crate) samples: Vec<Sample>,
}

/// The values of a figure by round.
type Rounds = BTreeMap<u32, f64>;

const HEADER: [&str; 5] = ["", "system", "median (range)", "× floor", "against one process"];

impl Run {
    fn rounds_of(&self, system: System, figure: Figure) -> Rounds {
        let of = self.samples.iter().filter(|sample| sample.system == system && sample.figure == figure);
        of.map(|sample| (sample.round, sample.value)).collect()
    }

    fn disturbed(&self, system: System, figure: Figure) -> usize {
        let of = self.samples.iter().filter(|sample| sample.system == system && sample.figure == figure);
        of.filter(|sample| sample.foreign.is_some_and(|foreign| foreign > FOREIGN_LIMIT)).count()
    }

    fn row(&self, system: System, figure: Figure) -> Option<[String; 5]> {
        let rounds = self.rounds_of(system, figure);
        let spread = spread(&rounds)?;
        let mark = match self.disturbed(system, figure) {
            0 => String::new(),
            count => format!(" †{count}"),
        };
        let floor = system.floor().map(|floor| self.rounds_of(floor, figure.of_floor())).unwrap_or_default();
        let ratios: Rounds =
            rounds.iter().filter_map(|(round, value)| Some((*round, value / floor.get(round)?))).collect();
        let ratio = self::spread(&ratios).map(|ratios| number(ratios.median));
        let one = self.rounds_of(System::One, figure);
        let against = match self::spread(&one) {
            Some(one) if system.floor().is_some() && system != System::One => difference(&spread, &one),
            _ => String::new(),
        };
        let range = if rounds.len() > 1 {
            format!(" ({}–{})", number(spread.least), number(spread.most))
        } else {
            String::new()
        };
        Some([
            figure.title(),
            system.title().into(),
            format!("{}{range}{mark}", number(spread.median)),
            ratio.unwrap_or_default(),
            against,
        ])
    }

    /// The table, which reads well as text too, and what there is to know about it.
    pub(crate) fn table(&self) -> String {
        let mut rows = vec![HEADER.map(String::from)];
        for figure in Figure::ALL {
            rows.extend(System::ALL.iter().filter_map(|system| self.row(*system, figure)));
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        let mut text = String::new();
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text += &format!("| {} |\n", cells.join(" | "));
            if number == 0 {
                text += &format!("| {} |\n", widths.map(|width| "-".repeat(width.max(3))).join(" | "));
            }
        }
        text
    }

    /// When, on what, and what to know about the table.
    pub(crate) fn preface(&self) -> String {
        let mut text = format!(
            "{}, {} rounds{} in {:.1} minutes, on {}; {}.\n",
            self.began,
            self.rounds,
            if self.quick { " of `--quick`" } else { "" },
            self.minutes,
            self.machine,
            self.programs.join(", "),
        );
        let mut phases: Vec<(f64, u32, System)> =
            self.samples.iter().filter_map(|sample| Some((sample.foreign?, sample.round, sample.system))).collect();
        phases.dedup();
        let disturbed = phases.iter().filter(|(foreign, ..)| *foreign > FOREIGN_LIMIT).count();
        // Writing to a string cannot fail.
        writeln!(
            text,
            "Others took more than {FOREIGN_LIMIT} % of the machine in {disturbed} of {} phases (†: in so many rounds of a figure).",
            phases.len()
        )
        .ok();
        for what in &self.left_out {
            writeln!(text, "\n**Left out:** {what}").ok();
        }
        text
    }
}

fn spread(rounds: &Rounds) -> Option<Spread> {
    Spread::of(&rounds.values().copied().collect::<Vec<_>>())
}

/// How a figure differs from that of another system.
fn difference(this: &Spread, other: &Spread) -> String {
    match this.gap(other) {
        Gap::Unknown => "one round".into(),
        Gap::Indistinguishable => "indistinguishable".into(),
        Gap::Distinct => format!("{:+.0} %", (this.median / other.median - 1.0) * 100.0),
    }
}

/// Three digits, or all before the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 99.95 => 0,
        middle if middle >= 9.995 => 1,
        small if small >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

const BEGIN: &str = "<!-- Measured: `cargo xtask bench --write` replaces what is between here -->\n";
const END: &str = "<!-- and here. -->\n";

/// The page with what was measured in its place.
pub(crate) fn written_into(page: &str, run: &Run) -> Result<String> {
    let lacks = || format!("the page has no place for the figures: two lines\n{BEGIN}{END}");
    let (before, rest) = page.split_once(BEGIN).with_context(lacks)?;
    let (_, after) = rest.split_once(END).with_context(lacks)?;
    Ok(format!("{before}{BEGIN}\n{}\n{}\n{END}{after}", run.preface(), run.table()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u32, system: System, figure: Figure, value: f64) -> Sample {
        Sample { round, system, figure, value, foreign: Some(if value == 111.0 { 25.0 } else { 0.5 }) }
    }

    fn run() -> Run {
        let mut samples = vec![];
        for (round, floor, one, five) in
            [(1, 1000.0, 100.0, 150.0), (2, 2000.0, 200.0, 111.0), (3, 4000.0, 360.0, 300.0)]
        {
            samples.push(sample(round, System::Floor, Figure::Burst, floor));
            samples.push(sample(round, System::One, Figure::Burst, one));
            samples.push(sample(round, System::One, Figure::Saturation, one));
            samples.push(sample(round, System::Five, Figure::Burst, five));
            samples.push(sample(round, System::One, Figure::InFlightP50, 10.0));
            samples.push(sample(round, System::Five, Figure::InFlightP50, 12.5));
        }
        Run {
            began: "2026-01-01 00:00 UTC".into(),
            minutes: 1.25,
            rounds: 3,
            quick: false,
            machine: "a machine".into(),
            programs: vec!["nats-server: v1".into()],
            left_out: vec!["five processes, MongoDB: no mongod".into()],
            failed: false,
            samples,
        }
    }

    fn cells(table: &str, figure: &str, system: &str) -> Vec<String> {
        let rows = table.lines().map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
        let mut found = rows.filter(|row| row[1] == figure && row[2] == system);
        found.next().unwrap_or_else(|| panic!("no row {figure}, {system} in\n{table}"))[3..6].to_vec()
    }

    #[test]
    fn a_figure_stands_beside_the_floor_of_its_own_rounds() {
        let table = run().table();
        // The median of 0.1, 0.1 and 0.09, whereas the medians' ratio would hide that all drifted together.
        assert_eq!(cells(&table, "burst, orders/s", "one process"), ["200 (100–360)", "0.100", ""]);
        assert_eq!(cells(&table, "saturation, orders/s", "one process")[1], "0.100");
        assert_eq!(cells(&table, "burst, orders/s", "floor"), ["2,000 (1,000–4,000)", "", ""]);
    }

    #[test]
    fn a_gap_below_the_spread_is_called_indistinguishable_and_disturbed_phases_are_marked() {
        let table = run().table();
        let five = cells(&table, "burst, orders/s", "five processes");
        assert_eq!(five, ["150 (111–300) †1", "0.075", "indistinguishable"]);
        let p50 = cells(&table, "64 in flight, p50 ms", "five processes");
        assert_eq!(p50, ["12.5 (12.5–12.5)", "", "+25 %"]);
    }

    #[test]
    fn the_preface_says_what_was_disturbed_and_what_is_missing() {
        let preface = run().preface();
        assert!(preface.contains("3 rounds in 1.2 minutes, on a machine; nats-server: v1"), "{preface}");
        assert!(preface.contains("in 1 of ") && preface.contains("**Left out:** five processes, MongoDB"), "{preface}");
    }

    #[test]
    fn the_figures_replace_those_of_an_earlier_run_and_nothing_else() {
        let page = format!("# Before\n{BEGIN}old\n{END}\nAfter\n");
        let once = written_into(&page, &run()).unwrap();
        assert!(once.starts_with("# Before\n") && once.ends_with("\nAfter\n") && !once.contains("old"), "{once}");
        assert_eq!(written_into(&once, &run()).unwrap(), once);
        assert!(written_into("# A page\n", &run()).is_err());
    }

    #[test]
    fn a_run_survives_its_file() {
        let json = serde_json::to_string(&run()).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&json).unwrap().table(), run().table());
    }

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        for (value, text) in [
            (0.04567, "0.046"),
            (1.0, "1.00"),
            (12.345, "12.3"),
            (99.97, "100"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (-123.0, "-123"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
