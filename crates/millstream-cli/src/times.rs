//! Parsing and printing of times.

use std::time::Duration;

use millstream::Timestamp;

/// A time: RFC 3339, or relative to now, `+10m`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    At(Timestamp),
    In(Duration),
}

impl When {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        if let Some(from_now) = text.strip_prefix('+') {
            return duration(from_now).map(Self::In);
        }
        let wrong = |_| "expected a time such as 2026-01-31T12:00:00Z, or a duration from now such as +10m".to_owned();
        text.parse().map(Self::At).map_err(wrong)
    }

    pub(crate) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::In(duration) => now + duration,
        }
    }
}

/// A time in the past: RFC 3339, or a duration before now, `10m`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Since {
    At(Timestamp),
    Before(Duration),
}

impl Since {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let wrong = |_| "expected a duration before now such as 10m, or a time such as 2026-01-31T12:00:00Z".to_owned();
        duration(text).map(Self::Before).or_else(|_| text.parse().map(Self::At).map_err(wrong))
    }

    pub(crate) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Before(duration) => now - duration,
        }
    }
}

/// A duration such as `90s`, `10m`, `2h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration such as 90s, 10m or 2h".into())
}

/// A duration, rounded for display: `1.2 s`, `3 min`, `2 h`.
pub(crate) fn rough(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1.0 => format!("{} ms", duration.as_millis()),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// A time relative to now: `in 3 min`, `2 h ago`.
pub(crate) fn from_now(at: Timestamp, now: Timestamp) -> String {
    if at >= now { format!("in {}", rough(at.since(now))) } else { format!("{} ago", rough(now.since(at))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_such_or_from_now() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let of = |text: &str| When::read(text).map(|when| when.from(now));
        assert_eq!(of("+10m"), Ok(now + Duration::from_secs(600)));
        assert_eq!(of(&now.to_string()), Ok(now));
        assert!(of("10m").is_err() && of("+soon").is_err());
        let of = |text: &str| Since::read(text).map(|since| since.from(now));
        assert_eq!(of("1h"), Ok(now - Duration::from_secs(3600)));
        assert_eq!(of(&now.to_string()), Ok(now));
        assert!(of("yesterday").is_err());
    }

    #[test]
    fn durations_are_shown_as_exactly_as_one_looks_at_them() {
        let shown = [0, 7, 1234, 59_000, 600_000, 7_200_000, 864_000_000].map(|ms| rough(Duration::from_millis(ms)));
        assert_eq!(shown, ["0 ms", "7 ms", "1.2 s", "59.0 s", "10 min", "2.0 h", "10 d"]);
    }
}
