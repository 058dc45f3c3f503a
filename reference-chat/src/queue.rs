//! The cost model's heart: one event loop as a queue in virtual time. A pure function of the
//! moments at which work comes; nothing sleeps and nothing burns here.

use std::time::Duration;

/// One event loop: work is done in the order in which it comes, one thing at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    busy_until: Duration,
}

impl Queue {
    /// Takes work of `cost` that comes at `now`, and says when it is done (both since any one
    /// beginning): `busy_until = max(now, busy_until) + cost`.
    pub fn take(&mut self, now: Duration, cost: Duration) -> Duration {
        self.busy_until = self.busy_until.max(now) + cost;
        self.busy_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn work_waits_for_what_came_before_and_idle_time_is_not_saved() {
        let mut queue = Queue::default();
        assert_eq!(queue.take(ms(0), ms(10)), ms(10));
        assert_eq!(queue.take(ms(3), ms(10)), ms(20));
        assert_eq!(queue.take(ms(100), ms(5)), ms(105));
    }
}
