//! [`Sum`]: the sum of amounts of any number of orders.

use std::fmt;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// An exact sum of amounts in minor units: a single [`Money`](contracts::Money) has at most 13 digits, which two orders may
/// exceed. Written as a JSON number with two decimals and read from its text, never through a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum(pub i64);

impl Sum {
    /// Adds minor units; stops at the largest number there is, which takes a million of the largest orders.
    pub fn add(&mut self, minor: i64) {
        self.0 = self.0.saturating_add(minor);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let minor = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", minor / 100, minor % 100)
    }
}

impl Serialize for Sum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let minor = text.get().rsplit_once('.').filter(|(_, decimals)| decimals.len() == 2);
        let minor = minor.and_then(|(whole, decimals)| format!("{whole}{decimals}").parse().ok());
        minor.map(Self).ok_or_else(|| de::Error::custom(format!("`{text}` is not a sum with two decimals")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_exact_far_beyond_one_amount() {
        for (minor, text) in [(0, "0.00"), (7, "0.07"), (-1250, "-12.50"), (i64::MAX, "92233720368547758.07")] {
            assert_eq!(serde_json::to_string(&Sum(minor)).unwrap(), text);
            assert_eq!(serde_json::from_str::<Sum>(text).unwrap(), Sum(minor));
        }
        let mut sum = Sum(i64::MAX - 1);
        sum.add(5);
        assert_eq!(sum, Sum(i64::MAX));
        assert!(serde_json::from_str::<Sum>("1.5").is_err() && serde_json::from_str::<Sum>("\"1.50\"").is_err());
    }
}
