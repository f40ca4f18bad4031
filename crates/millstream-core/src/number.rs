//! Numbers digit by digit: what JSON writes and a database can keep.

use std::fmt;

/// Decimal128 has so many digits …
const DIGITS: u32 = 34;

/// … and these powers of ten.
const EXPONENTS: std::ops::RangeInclusive<i16> = -6176..=6111;

/// Where the exponent begins in the bits of a Decimal128, and what is added to it there.
const EXPONENT: (u32, i16) = (113, 6176);

const SIGN: u32 = 127;

/// A number as it is written: `1.50` is not `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// One written as an integer of 64 bits.
    Integer(i64),
    /// Any other.
    Decimal(Decimal),
}

/// A number of at most 34 digits times a power of ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    digits: u128,
    exponent: i16,
}

impl Number {
    /// Reads a number of JSON; `None` if it has more digits or a larger exponent than can be kept.
    pub fn read(text: &str) -> Option<Self> {
        // There is a negative zero, and no integer is it.
        if text != "-0"
            && let Ok(integer) = text.parse()
        {
            return Some(Self::Integer(integer));
        }
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |mantissa| (true, mantissa));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, fraction].concat().parse().ok()?;
        let exponent = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let exponent = i16::try_from(exponent).ok()?;
        let kept = digits < 10_u128.pow(DIGITS) && EXPONENTS.contains(&exponent);
        kept.then_some(Self::Decimal(Decimal { negative, digits, exponent }))
    }
}

impl Decimal {
    /// As the bits of a Decimal128.
    pub fn bits(self) -> u128 {
        let (at, bias) = EXPONENT;
        let exponent = u128::from((self.exponent + bias).unsigned_abs());
        u128::from(self.negative) << SIGN | exponent << at | self.digits
    }

    /// Of the bits of a Decimal128; `None` if that is not a finite number.
    pub fn of_bits(bits: u128) -> Option<Self> {
        let (at, bias) = EXPONENT;
        let exponent = i16::try_from(bits << 1 >> 1 >> at).ok()? - bias;
        let digits = bits & ((1 << at) - 1);
        let finite = digits < 10_u128.pow(DIGITS) && EXPONENTS.contains(&exponent);
        finite.then_some(Self { negative: bits >> SIGN == 1, digits, exponent })
    }
}

/// As JSON. Floats come out as they are usually written, and an exponent of zero stays one, so that no float becomes an integer.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decimal { negative, digits, exponent } = match self {
            Self::Integer(integer) => return write!(f, "{integer}"),
            Self::Decimal(decimal) => *decimal,
        };
        let sign = if negative { "-" } else { "" };
        let text = digits.to_string();
        // How many digits stand before the decimal point.
        let before = i64::try_from(text.len()).unwrap_or(i64::MAX) + i64::from(exponent);
        let too_long = digits > i64::MAX.unsigned_abs().into();
        match (exponent, usize::try_from(before)) {
            (0, _) if too_long || (negative && digits == 0) => write!(f, "{sign}{text}"),
            (..0, Ok(before @ 1..)) => write!(f, "{sign}{}.{}", &text[..before], &text[before..]),
            (..0, _) if before > -5 => write!(f, "{sign}0.{}{text}", "0".repeat(before.unsigned_abs() as usize)),
            _ => {
                let (first, rest) = text.split_at(1);
                let point = if rest.is_empty() { "" } else { "." };
                write!(f, "{sign}{first}{point}{rest}e{:+}", before - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> Option<String> {
        let number = Number::read(text)?;
        if let Number::Decimal(decimal) = number {
            assert_eq!(Decimal::of_bits(decimal.bits()), Some(decimal), "{text}");
        }
        assert_eq!(Number::read(&number.to_string()), Some(number), "{text}");
        Some(number.to_string())
    }

    #[test]
    fn a_number_comes_back_with_the_digits_that_it_had() {
        for text in [
            "0",
            "-0",
            "7",
            "-9223372036854775808",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551615",
            "9999999999999999999999999999999999",
            "0.0",
            "-0.0",
            "10.50",
            "-120.00",
            "0.00001",
            "1e-7",
            "1.50e-7",
            "1e+300",
            "0.1000000000000000055511151231257827",
            "5e-324",
            "1.7976931348623157e+308",
            "1.2345678901234567e+16",
            "5e+0",
            "1e+6111",
            "9.999999999999999999999999999999999e-6143",
        ] {
            assert_eq!(again(text).as_deref(), Some(text));
        }
        for (text, expected) in [("1E2", "1e+2"), ("100.5e2", "1.005e+4"), ("0.000000015", "1.5e-8"), ("-0e0", "-0")] {
            assert_eq!(again(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn floats_come_back_as_they_are_usually_written() {
        for exponent in -330..330 {
            for digits in ["1", "1.5", "9.87654321", "1.2345678901234567", "-4.9406564584124654"] {
                let float: f64 = format!("{digits}e{exponent}").parse().unwrap();
                if float.is_finite() {
                    let text = serde_json::to_string(&float).unwrap();
                    assert_eq!(again(&text), Some(text));
                }
            }
        }
    }

    #[test]
    fn what_has_too_many_digits_or_too_large_an_exponent_is_not_rounded() {
        for text in [
            "10000000000000000000000000000000000",
            "1.0000000000000000000000000000000000",
            "1e6112",
            "1e-6177",
            "1.5e-6176",
            "1e99999999999999999999",
            "340282366920938463463374607431768211456",
        ] {
            assert_eq!(again(text), None, "{text}");
        }
        let (infinity, no_number) = (0x78_u128 << 120, 0x7c_u128 << 120);
        assert_eq!([infinity, no_number].map(Decimal::of_bits), [None, None]);
    }
}
