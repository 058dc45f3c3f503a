//! How long to wait before what broke is opened again.

use std::time::Duration;

use crate::clock::{self, Nanos};

/// How many times the first pause the longest one is.
const LONGEST: u32 = 30;

/// The pauses before sockets are opened again: doubled for each failure after the other.
#[derive(Debug, Default)]
pub(in crate::driver) struct Backoff {
    failed: u32,
    not_before: Nanos,
}

impl Backoff {
    /// An opening has failed, or a socket broke; `first` is the first pause.
    pub(in crate::driver) fn fail(&mut self, first: Duration) {
        let times = 2_u32.saturating_pow(self.failed).min(LONGEST);
        self.failed = self.failed.saturating_add(1);
        self.not_before = clock::monotonic().saturating_add(clock::nanos(first.saturating_mul(times)));
    }

    /// It is open.
    pub(in crate::driver) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// How long to wait from now on.
    pub(in crate::driver) fn left(&self) -> Duration {
        Duration::from_nanos((self.not_before - clock::monotonic()).max(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_thirty_times_the_first() {
        let (mut backoff, first) = (Backoff::default(), Duration::from_secs(10));
        assert_eq!(backoff.left(), Duration::ZERO);
        for times in [1, 2, 4, 8, 16, 30, 30] {
            backoff.fail(first);
            let (left, whole) = (backoff.left(), first * times);
            assert!(left <= whole && left > whole - first / 2, "{left:?} of {whole:?}");
        }
        backoff.succeed();
        assert_eq!(backoff.left(), Duration::ZERO);
    }
}
