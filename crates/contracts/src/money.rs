//! [`Money`]: exact amounts, and their currencies.

use std::fmt;
use std::str::FromStr;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// Maximum number of digits of an amount, including the two decimals.
const DIGITS: u32 = 13;

/// An amount of money in minor units (cents): at most two decimals and 13 digits in all, so that every one can be written as
/// a JSON number and read back, by any reader, without loss.
///
/// It is read from the JSON text itself, never through a float. Text is all it can be read from: behind serde's `flatten`,
/// `untagged` or internally tagged enums, which hand on parsed values, it fails or loses digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(i64);

/// The error for an invalid amount: what is wrong, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidMoney(&'static str);

impl fmt::Display for InvalidMoney {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: an amount must be a number such as 12.50, with at most two decimals and {DIGITS} digits in all",
            self.0
        )
    }
}

impl std::error::Error for InvalidMoney {}

impl Money {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// The largest amount, 99999999999.99.
    pub const MAX: Self = Self(10_i64.pow(DIGITS) - 1);

    /// An amount in minor units; `None` beyond 13 digits.
    pub const fn from_minor(minor: i64) -> Option<Self> {
        if minor.unsigned_abs() <= Self::MAX.0.unsigned_abs() { Some(Self(minor)) } else { None }
    }

    /// The amount in minor units.
    pub const fn minor(self) -> i64 {
        self.0
    }

    /// The sum; `None` beyond 13 digits.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        // Two numbers of 13 digits are far from the end of an i64.
        Self::from_minor(self.0 + other.0)
    }

    /// The amount times a quantity; `None` beyond 13 digits.
    pub const fn checked_mul(self, times: u32) -> Option<Self> {
        match self.0.checked_mul(times as i64) {
            Some(minor) => Self::from_minor(minor),
            None => None,
        }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let minor = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", minor / 100, minor % 100)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Money {
    type Err = InvalidMoney;

    /// Parses the text of a JSON number. Exponents are rejected: `1e2` has no defined number of decimals.
    fn from_str(text: &str) -> Result<Self, InvalidMoney> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(decimals) {
            let exponent = digits.starts_with(|first: char| first.is_ascii_digit()) && digits.contains(['e', 'E']);
            return Err(InvalidMoney(if exponent { "is written with an exponent" } else { "is not a number" }));
        }
        if decimals.len() > 2 {
            return Err(InvalidMoney("has more than two decimals"));
        }
        let cents = if decimals.len() == 1 { "0" } else { "" };
        let digits = [whole, decimals, cents].into_iter().flat_map(str::bytes);
        let minor = digits
            .map(|digit| i64::from(digit - b'0'))
            .try_fold(0_i64, |minor, digit| minor.checked_mul(10)?.checked_add(digit));
        minor.and_then(|minor| Self::from_minor(sign * minor)).ok_or(InvalidMoney("has too many digits"))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer)?.get().parse().map_err(de::Error::custom)
    }
}

/// The supported currencies, all with two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Currency {
    /// Euro.
    #[default]
    Eur,
    /// US dollar.
    Usd,
    /// Pound sterling.
    Gbp,
    /// Swiss franc.
    Chf,
}

impl Currency {
    /// The ISO 4217 code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Eur => "EUR",
            Self::Usd => "USD",
            Self::Gbp => "GBP",
            Self::Chf => "CHF",
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Eur, Self::Usd, Self::Gbp, Self::Chf]
            .into_iter()
            .find(|currency| currency.code() == text)
            .ok_or_else(|| format!("`{text}` is not a known currency: use EUR, USD, GBP or CHF"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_from_the_text_and_written_as_numbers() {
        for (text, minor, written) in [
            ("0", 0, "0.00"),
            ("-0.00", 0, "0.00"),
            ("0.07", 7, "0.07"),
            ("19.9", 1990, "19.90"),
            ("-12.5", -1250, "-12.50"),
            ("4.35", 435, "4.35"),
            ("99999999999.99", 9_999_999_999_999, "99999999999.99"),
            ("12345678901.67", 1_234_567_890_167, "12345678901.67"),
        ] {
            let money: Money = serde_json::from_str(text).unwrap();
            assert_eq!(money.minor(), minor, "{text}");
            assert_eq!(serde_json::to_string(&money).unwrap(), written);
            assert_eq!(serde_json::from_str::<Money>(written).unwrap(), money);
            let value = serde_json::to_value(money).unwrap();
            assert!(value.is_number());
            assert_eq!(serde_json::from_value::<Money>(value).unwrap(), money);
        }
    }

    #[test]
    fn what_is_not_an_exact_amount_is_refused_with_the_reason() {
        for (text, reason) in [
            ("1.234", "more than two decimals"),
            ("1.230", "more than two decimals"),
            ("100000000000", "too many digits"),
            ("123456789012345678901234567890", "too many digits"),
            ("1e2", "exponent"),
            ("1E-2", "exponent"),
            ("1.0e1", "exponent"),
            ("\"12.50\"", "not a number"),
            ("\"1e2\"", "not a number"),
            ("null", "not a number"),
            ("true", "not a number"),
            ("{}", "not a number"),
        ] {
            let error = serde_json::from_str::<Money>(text).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("12.50"), "{text}: {error}");
        }
    }

    #[test]
    fn sums_and_products_stop_at_the_largest_amount() {
        let cent = Money::from_minor(1).unwrap();
        assert_eq!(Money::MAX.checked_add(cent), None);
        assert_eq!(Money::MAX.checked_mul(2), None);
        assert_eq!(Money::MAX.checked_mul(u32::MAX), None);
        assert_eq!(cent.checked_mul(350).unwrap().to_string(), "3.50");
        assert_eq!(Money::from_minor(i64::MIN), None);
    }
}
