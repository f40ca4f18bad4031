//! An amount of money in minor units: exact, because it is read from the JSON text and never through a float.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// Minor units (cents). Reads and writes as a JSON number with two decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Amount(pub(crate) i64);

impl Amount {
    /// The cents beyond the whole units, by which the gateway's rules tell amounts apart.
    pub(crate) fn cents(self) -> i64 {
        self.0.rem_euclid(100)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let minor = self.0.unsigned_abs();
        f.pad(&format!("{sign}{}.{:02}", minor / 100, minor % 100))
    }
}

impl FromStr for Amount {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            format!("{text} is not an amount: a JSON number with at most two decimals and 13 digits is, such as 12.30")
        })
    }
}

fn parse(text: &str) -> Option<Amount> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "00"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(decimals) || decimals.len() > 2 || whole.len() > 11 {
        return None;
    }
    let minor: i64 = format!("{whole}{decimals:0<2}").parse().ok()?;
    Some(Amount(sign * minor))
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer)?.get().parse().map_err(de::Error::custom)
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self(0), |sum, amount| sum + amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_read_exactly_and_written_with_two_decimals() {
        for (text, minor, written) in [
            ("12.3", 1230, "12.30"),
            ("0.07", 7, "0.07"),
            ("5", 500, "5.00"),
            ("12345678901.67", 1_234_567_890_167, "12345678901.67"),
            ("-1.05", -105, "-1.05"),
        ] {
            let amount: Amount = serde_json::from_str(text).unwrap();
            assert_eq!(amount, Amount(minor));
            assert_eq!(serde_json::to_string(&amount).unwrap(), written);
        }
        for text in ["1.005", "1e2", "\"1.00\"", "null", "123456789012"] {
            assert!(serde_json::from_str::<Amount>(text).is_err(), "{text}");
        }
    }
}
