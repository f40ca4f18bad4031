//! Where a service's time comes from: the system's clock, as far as it can be believed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::Timestamp;

/// A step of the system's clock up to this much is followed at once, as NTP makes them.
const STEP: Duration = Duration::from_secs(60);
/// A larger step is followed once the clock has stood by it for so long.
const BELIEVED_AFTER: Duration = Duration::from_secs(300);

/// Where `now` comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock of one's own, for tests.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// `wall`, but a step of more than a minute is followed only after the clock has stood by it for five minutes: a clock that
    /// jumps a day ahead and back lets no deadline pass and no key expire.
    pub fn steady(wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let start = Instant::now();
        let steady = Mutex::new(Steady::default());
        Self::new(move || {
            let mut steady = steady.lock().unwrap_or_else(PoisonError::into_inner);
            steady.now(wall(), start.elapsed())
        })
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Default for Clock {
    /// The system's, [steadied](Clock::steady).
    fn default() -> Self {
        Self::steady(Timestamp::system)
    }
}

/// A clock that follows another one's small steps at once and large ones late.
#[derive(Debug, Default)]
struct Steady {
    /// The time that was given last, and when by a clock that never steps.
    last: Option<(Timestamp, Duration)>,
    /// How far ahead of this one, in milliseconds, the followed clock has been since when.
    step: Option<(i128, Duration)>,
}

impl Steady {
    /// The time, when `wall` is the followed clock's and `elapsed` that of one that never steps.
    fn now(&mut self, wall: Timestamp, elapsed: Duration) -> Timestamp {
        let Some((last, at)) = self.last else {
            self.last = Some((wall, elapsed));
            return wall;
        };
        let expected = last + elapsed.saturating_sub(at);
        let ahead = i128::from(wall.millis()) - i128::from(expected.millis());
        let within = |other: i128| (ahead - other).unsigned_abs() <= STEP.as_millis();
        let now = match self.step {
            _ if within(0) => {
                self.step = None;
                wall
            }
            Some((step, since)) if within(step) => {
                if elapsed.saturating_sub(since) >= BELIEVED_AFTER {
                    tracing::warn!(seconds = ahead / 1000, "the system's clock was set; followed from now on");
                    self.step = None;
                    wall
                } else {
                    expected
                }
            }
            _ => {
                tracing::warn!(
                    seconds = ahead / 1000,
                    "the system's clock has jumped; it is followed if it stands by that for {} s",
                    BELIEVED_AFTER.as_secs()
                );
                self.step = Some((ahead, elapsed));
                expected
            }
        };
        self.last = Some((now, elapsed));
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + secs * 1000)
    }

    #[test]
    fn small_steps_are_followed_at_once_in_both_directions() {
        let mut clock = Steady::default();
        assert_eq!(clock.now(at(0), secs(0)), at(0));
        assert_eq!(clock.now(at(40), secs(10)), at(40));
        assert_eq!(clock.now(at(15), secs(11)), at(15));
    }

    #[test]
    fn a_jump_and_back_is_not_seen() {
        let mut clock = Steady::default();
        clock.now(at(100), secs(0));
        for (wall, elapsed) in [(101 + 25 * HOUR, 1), (103 + 25 * HOUR, 3), (104, 4), (0, 5), (106, 6)] {
            assert_eq!(clock.now(at(wall), secs(elapsed)), at(100 + elapsed));
        }
    }

    #[test]
    fn a_clock_that_stands_by_its_jump_is_followed_after_five_minutes() {
        let mut clock = Steady::default();
        clock.now(at(0), secs(0));
        for elapsed in 1..=300 {
            assert_eq!(clock.now(at(elapsed + 8 * HOUR), secs(elapsed)), at(elapsed));
        }
        assert_eq!(clock.now(at(301 + 8 * HOUR), secs(301)), at(301 + 8 * HOUR));
        assert_eq!(clock.now(at(302 + 8 * HOUR), secs(302)), at(302 + 8 * HOUR));
    }

    #[test]
    fn of_two_jumps_the_second_counts_anew() {
        let mut clock = Steady::default();
        clock.now(at(1000), secs(0));
        clock.now(at(1001 + HOUR), secs(1));
        assert_eq!(clock.now(at(1200 + 2 * HOUR), secs(200)), at(1200));
        assert_eq!(clock.now(at(1400 + 2 * HOUR), secs(400)), at(1400));
        assert_eq!(clock.now(at(1500 + 2 * HOUR), secs(500)), at(1500 + 2 * HOUR));
    }
}
