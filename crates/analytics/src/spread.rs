//! [`Spread`]: a histogram of durations of fixed size.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets in milliseconds; one more bucket holds longer durations. Changing the bounds invalidates stored
/// documents: it takes a new [`SHAPE`](millstream::Document::SHAPE) and a rebuild.
const BOUNDS_MS: [u64; 16] =
    [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 1_800_000];

/// Durations: count, sum, extremes, and the count per bucket. Addition is commutative.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// The count.
    pub count: u64,
    /// The sum.
    pub sum_ms: u64,
    /// The shortest; 0 if there is none.
    pub min_ms: u64,
    /// The longest.
    pub max_ms: u64,
    buckets: [u64; BOUNDS_MS.len() + 1],
}

impl Spread {
    /// Adds one.
    pub fn add(&mut self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.min_ms = if self.count == 0 { ms } else { self.min_ms.min(ms) };
        self.max_ms = self.max_ms.max(ms);
        self.count += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
        self.buckets[BOUNDS_MS.partition_point(|bound| *bound < ms)] += 1;
    }

    /// The mean in milliseconds; 0 of none.
    pub fn mean_ms(&self) -> u64 {
        self.sum_ms.checked_div(self.count).unwrap_or(0)
    }

    /// An estimate of the duration that `percent` of them do not exceed, in milliseconds: within the bucket it falls into they are
    /// taken to lie evenly.
    pub fn percentile_ms(&self, percent: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100).max(1);
        let mut below = 0_u128;
        for (at, count) in self.buckets.iter().enumerate() {
            let count = u128::from(*count);
            if below + count >= rank {
                let from = at.checked_sub(1).map_or(0, |before| BOUNDS_MS[before]).max(self.min_ms);
                let to = BOUNDS_MS.get(at).copied().unwrap_or(u64::MAX).min(self.max_ms);
                let within = u128::from(to.saturating_sub(from)) * (rank - below) / count;
                return from + u64::try_from(within).unwrap_or(u64::MAX);
            }
            below += count;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(durations: impl IntoIterator<Item = u64>) -> Spread {
        let mut spread = Spread::default();
        durations.into_iter().for_each(|ms| spread.add(Duration::from_millis(ms)));
        spread
    }

    #[test]
    fn estimates_lie_within_the_bucket_and_never_beyond_the_extremes() {
        let even = spread(1..=1000);
        assert_eq!((even.count, even.mean_ms(), even.min_ms, even.max_ms), (1000, 500, 1, 1000));
        for (percent, right) in [(50, 500), (95, 950), (100, 1000)] {
            assert_eq!(even.percentile_ms(percent), right, "{percent}");
        }
        let long = spread([7_200_000]);
        assert_eq!((long.percentile_ms(50), long.percentile_ms(95)), (7_200_000, 7_200_000));
        assert_eq!((spread([]).percentile_ms(50), spread([]).mean_ms()), (0, 0));
        assert_eq!(spread([5]).buckets[0], 1, "a bound belongs to its bucket");
    }
}
