//! Medians, spreads, percentiles, and when two figures are told apart.

/// The median of a figure over the rounds, with its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    rounds: usize,
}

/// How a figure stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// One round has no spread to hold a gap against.
    Unknown,
    /// The gap between the medians is no wider than the wider of the spreads.
    Indistinguishable,
    Distinct,
}

impl Spread {
    /// `None` of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] };
        Some(Self { median, least, most, rounds: sorted.len() })
    }

    pub(crate) fn gap(&self, other: &Self) -> Gap {
        let spread = (self.most - self.least).max(other.most - other.least);
        if self.rounds < 2 || other.rounds < 2 {
            Gap::Unknown
        } else if (self.median - other.median).abs() <= spread {
            Gap::Indistinguishable
        } else {
            Gap::Distinct
        }
    }
}

/// The least value that a share of the sorted ones does not exceed; 0 of none.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        let of = |values: &[f64]| Spread::of(values).map(|spread| (spread.least, spread.median, spread.most));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some((1.0, 2.0, 9.0)));
        assert_eq!(of(&[4.0, 1.0, 9.0, 2.0]), Some((1.0, 3.0, 9.0)));
    }

    #[test]
    fn a_gap_within_the_wider_spread_tells_nothing() {
        let gap = |a: &[f64], b: &[f64]| Spread::of(a).unwrap().gap(&Spread::of(b).unwrap());
        assert_eq!(gap(&[100.0, 101.0, 102.0], &[110.0, 111.0, 112.0]), Gap::Distinct);
        assert_eq!(gap(&[100.0, 101.0, 102.0], &[103.0, 111.0, 115.0]), Gap::Indistinguishable);
        assert_eq!(gap(&[111.0, 111.0], &[101.0, 101.0]), Gap::Distinct);
        assert_eq!(gap(&[5.0, 5.0], &[5.0, 5.0]), Gap::Indistinguishable);
        assert_eq!(gap(&[100.0], &[200.0, 201.0]), Gap::Unknown);
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| percentile(&hundred, share)), [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[3.0], 0.99), 3.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 0.5), 2.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
