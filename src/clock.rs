//! The run's clock: nanoseconds of `CLOCK_MONOTONIC`, and how wall-clock stamps are brought onto it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// A moment, in nanoseconds of `CLOCK_MONOTONIC`; a difference of two is a duration in nanoseconds.
pub type Nanos = i64;

/// Nanoseconds in a second.
pub const SECOND: Nanos = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// A clock step is flagged when wall clock and monotonic clock part by more than this in a second.
const STEP: Nanos = MILLISECOND;

/// Now, on the monotonic clock.
pub fn monotonic() -> Nanos {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Now, on the wall clock, in nanoseconds since the Unix epoch.
pub fn realtime() -> Nanos {
    read(ClockId::CLOCK_REALTIME)
}

fn read(clock: ClockId) -> Nanos {
    // Both clocks always exist on Linux; a failure would be a broken kernel.
    let time = clock_gettime(clock).expect("CLOCK_MONOTONIC and CLOCK_REALTIME can be read");
    Nanos::from(time.tv_sec()) * SECOND + Nanos::from(time.tv_nsec())
}

/// The `Instant` of a moment, for timers. `Instant` is `CLOCK_MONOTONIC` too, but opaque, so
/// both are read together once.
pub fn instant(at: Nanos) -> Instant {
    static PAIR: OnceLock<(Instant, Nanos)> = OnceLock::new();
    let (instant, nanos) = *PAIR.get_or_init(|| (Instant::now(), monotonic()));
    if at >= nanos {
        instant + Duration::from_nanos((at - nanos) as u64)
    } else {
        instant.checked_sub(Duration::from_nanos((nanos - at) as u64)).unwrap_or(instant)
    }
}

/// A duration in whole microseconds, never negative.
pub fn micros(duration: Nanos) -> u64 {
    (duration.max(0) / 1_000) as u64
}

/// A duration as nanoseconds.
pub fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// The distance between wall clock and monotonic clock, measured again from time to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairing {
    offset: Nanos,
}

impl Pairing {
    /// Measures the distance: of three readings of the wall clock between two of the monotonic
    /// one, the tightest counts.
    pub fn measure() -> Self {
        let reading = || {
            let before = monotonic();
            let wall = realtime();
            let after = monotonic();
            (after - before, wall - before - (after - before) / 2)
        };
        let (_, offset) = reading().min(reading()).min(reading());
        Self { offset }
    }

    /// A wall-clock moment on the monotonic clock.
    pub fn to_monotonic(self, wall: Nanos) -> Nanos {
        wall - self.offset
    }

    /// A monotonic moment on the wall clock.
    pub fn to_realtime(self, at: Nanos) -> Nanos {
        at + self.offset
    }

    /// Whether the wall clock was stepped between `self` and `later`.
    pub fn stepped(self, later: Self) -> bool {
        (later.offset - self.offset).abs() > STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_nanoseconds_are_one_clock() {
        let now = monotonic();
        let later = instant(now + 5 * SECOND);
        let distance = later.duration_since(Instant::now());
        assert!(distance <= Duration::from_secs(5));
        assert!(distance > Duration::from_millis(4_900));
    }

    #[test]
    fn a_step_is_told_from_a_slew() {
        let pairing = Pairing { offset: 7 * SECOND };
        assert!(!pairing.stepped(Pairing { offset: 7 * SECOND + 500_000 }));
        assert!(pairing.stepped(Pairing { offset: 6 * SECOND }));
        assert_eq!(pairing.to_monotonic(pairing.to_realtime(42)), 42);
        assert!((Pairing::measure().to_monotonic(realtime()) - monotonic()).abs() < SECOND);
    }
}
