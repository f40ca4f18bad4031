//! Retry policy: how long to wait before the next attempt. The only module that names the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Exponential backoff with jitter: `first` doubled with each attempt up to `longest`, each ± `jitter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// The first delay.
    pub first: Duration,
    /// The longest delay.
    pub longest: Duration,
    /// The share by which a delay may be shorter or longer, from 0 to 1.
    pub jitter: f64,
    /// Attempts before giving up.
    pub attempts: u32,
}

impl Retry {
    /// The delay after `attempt` failed attempts, from 1 on.
    pub fn delay(&self, attempt: u32) -> Duration {
        let mut backoff = self.policy();
        // The delay stops growing at `longest`, so more doublings than a u64 of milliseconds holds change nothing.
        let mut delay = self.first;
        for _ in 0..attempt.clamp(1, 64) {
            delay = backoff.next_backoff().unwrap_or(self.longest);
        }
        delay
    }

    fn policy(&self) -> ExponentialBackoff {
        ExponentialBackoff {
            current_interval: self.first,
            initial_interval: self.first,
            max_interval: self.longest,
            multiplier: 2.0,
            randomization_factor: self.jitter,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry =
        Retry { first: Duration::from_millis(200), longest: Duration::from_secs(30), jitter: 0.2, attempts: 8 };

    #[test]
    fn delays_double_up_to_the_longest_each_within_its_jitter() {
        for (attempt, expected_ms) in
            [(1, 200.0), (2, 400.0), (3, 800.0), (8, 25_600.0), (9, 30_000.0), (5000, 30_000.0)]
        {
            let delay_ms = RETRY.delay(attempt).as_secs_f64() * 1000.0;
            assert!((delay_ms / expected_ms - 1.0).abs() <= 0.2001, "{attempt}: {delay_ms}");
        }
    }
}
