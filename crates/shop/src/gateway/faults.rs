//! The faults that can be switched on while the gateway runs, and the chances that go with them.

use millstream::FieldError;
use serde::Serialize;
use serde_json::Value;

/// What goes wrong beside the rules by amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Faults {
    /// The share of orders whose charge is declined.
    pub decline: f64,
    /// The share of attempts that fail with 500 before anything is done.
    pub error: f64,
    /// How long every answer about charges and refunds takes, in milliseconds.
    pub latency_ms: u64,
    /// Whether everything about charges and refunds is answered with 503.
    pub down: bool,
    /// The share of orders whose capture or refund is done but its first answer lost.
    pub capture_then_fail: f64,
}

/// An hour: more is surely a slip of the hand.
const MAX_LATENCY_MS: u64 = 3_600_000;

impl Faults {
    /// Reads a whole setting: what is left out is off, what is not known is refused.
    ///
    /// # Errors
    /// Names every field at fault and what would be right.
    pub fn parse(body: &[u8]) -> Result<Self, Vec<FieldError>> {
        let wrong = |field: &str, message: String| FieldError { field: field.into(), message };
        let value: Value =
            serde_json::from_slice(body).map_err(|error| vec![wrong("", format!("not JSON: {error}"))])?;
        let Value::Object(fields) = value else {
            return Err(vec![wrong("", "a JSON object is expected, such as {\"decline\": 0.1}".into())]);
        };
        let mut faults = Self::default();
        let mut errors = vec![];
        for (name, value) in &fields {
            let read = match name.as_str() {
                "decline" => share(value).map(|share| faults.decline = share),
                "error" => share(value).map(|share| faults.error = share),
                "captureThenFail" => share(value).map(|share| faults.capture_then_fail = share),
                "latencyMs" => match value.as_u64() {
                    Some(ms) if ms <= MAX_LATENCY_MS => {
                        faults.latency_ms = ms;
                        Ok(())
                    }
                    _ => Err(format!("{value} is not a whole number of milliseconds from 0 to {MAX_LATENCY_MS}")),
                },
                "down" => match value.as_bool() {
                    Some(down) => {
                        faults.down = down;
                        Ok(())
                    }
                    None => Err(format!("{value} is neither true nor false")),
                },
                _ => Err("unknown fault; known are decline, error, latencyMs, down and captureThenFail".into()),
            };
            if let Err(message) = read {
                errors.push(wrong(name, message));
            }
        }
        if errors.is_empty() { Ok(faults) } else { Err(errors) }
    }
}

fn share(value: &Value) -> Result<f64, String> {
    value.as_f64().filter(|share| (0.0..=1.0).contains(share)).ok_or(format!("{value} is not a number from 0 to 1"))
}

/// A number from 0 to 1 that the same seed, fault, order and attempt always give, so that a run can be repeated.
pub(super) fn chance(seed: u64, fault: &str, order: &str, attempt: u32) -> f64 {
    let bytes = fault.bytes().chain([0]).chain(order.bytes()).chain(attempt.to_be_bytes());
    let hash =
        bytes.fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    crate::dice::scatter(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_fault_is_named_with_what_would_be_right() {
        let body = br#"{"decline": 1.5, "error": "often", "latencyMs": -1, "down": 1, "gone": true}"#;
        let errors = Faults::parse(body).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["decline", "down", "error", "gone", "latencyMs"]);
        assert_eq!(errors[0].message, "1.5 is not a number from 0 to 1");
        assert!(Faults::parse(b"[]").is_err());
        assert!(Faults::parse(b"{").is_err());
    }

    #[test]
    fn what_is_left_out_is_off() {
        let faults = Faults::parse(br#"{"captureThenFail": 1, "latencyMs": 20}"#).unwrap();
        assert_eq!(faults, Faults { capture_then_fail: 1.0, latency_ms: 20, ..Faults::default() });
        assert_eq!(Faults::parse(b"{}").unwrap(), Faults::default());
    }

    #[test]
    fn a_chance_repeats_and_is_spread_evenly() {
        assert_eq!(chance(7, "decline", "order-1", 0), chance(7, "decline", "order-1", 0));
        let hits = (0..10_000).filter(|n| chance(7, "decline", &format!("order-{n}"), 0) < 0.1).count();
        assert!((900..1_100).contains(&hits), "{hits} of 10000 at a share of 0.1");
    }
}
