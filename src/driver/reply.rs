//! Arrivals of tokens: what came with one read is one arrival.

use super::Live;
use crate::net::ReadStamp;
use crate::record::{Arrival, Turn};

/// Groups the tokens of a turn by the read that brought them.
#[derive(Default)]
pub(super) struct Arrivals {
    open: ReadStamp,
    tokens: u64,
    /// Whether something else came after the newest token with the same read.
    followed: bool,
    flushed_read: u64,
}

impl Arrivals {
    /// `tokens` tokens came with the read of this stamp.
    pub(super) fn add(&mut self, stamp: ReadStamp, tokens: u64, turn: &mut Turn, live: Live<'_>) {
        if self.open.read != stamp.read {
            self.flush(turn, live);
        }
        self.open = stamp;
        self.tokens += tokens;
    }

    /// Tokens of the turn so far, the open arrival's among them.
    pub(super) fn tokens(&self, turn: &Turn) -> u64 {
        turn.tokens + self.tokens
    }

    /// What comes now comes on another connection, whose reads have numbers of their own.
    pub(super) fn reconnect(&mut self) {
        self.flushed_read = u64::MAX;
    }

    /// Something that is no token came with the read of this stamp.
    pub(super) fn follow(&mut self, stamp: ReadStamp) {
        self.followed |= self.tokens > 0 && self.open.read == stamp.read;
    }

    /// Nothing more of the open read will come: writes its arrival down.
    ///
    /// The stamp is that of the read's last segment. It is exact where the read brought one
    /// token, nothing after it, and ended with a line; of several tokens, or before something
    /// else, any can have come with an earlier segment, so there it is an upper bound.
    pub(super) fn flush(&mut self, turn: &mut Turn, live: Live<'_>) {
        let tokens = std::mem::take(&mut self.tokens);
        let followed = std::mem::take(&mut self.followed);
        if tokens == 0 {
            return;
        }
        let stamp = self.open;
        let latest = stamp.latest;
        match turn.last_token {
            None => {
                turn.arrive(latest, tokens);
                let exact = tokens == 1 && !followed && stamp.whole && stamp.kernel;
                let earliest = if exact { latest } else { stamp.earliest.max(turn.sent.unwrap_or(turn.started)) };
                turn.first_token = Some(Arrival { latest, earliest: earliest.min(latest) });
                live.first_token(latest - turn.intended);
            }
            Some(last) if self.flushed_read != stamp.read => {
                // A stamp of another connection may be earlier.
                turn.arrive(latest.max(last), tokens);
            }
            // The rest of a read of which the reading stopped half-way, to cancel.
            Some(_) => {
                if let Some(batch) = turn.arrivals.last_mut() {
                    batch.tokens = batch.tokens.saturating_add(u32::try_from(tokens).unwrap_or(u32::MAX));
                }
            }
        }
        self.flushed_read = stamp.read;
        turn.last_token = Some(latest);
        turn.tokens += tokens;
        live.arrival(tokens, stamp.returned - latest, stamp.kernel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(read: u64, latest: i64, earliest: i64, whole: bool) -> ReadStamp {
        ReadStamp { read, latest, earliest, returned: latest + 10, kernel: true, whole, drained: true }
    }

    #[test]
    fn a_lone_token_is_exact_and_a_merged_or_torn_one_is_a_bound() {
        for (tokens, whole, earliest) in [(1, true, 9_000), (2, true, 5_000), (1, false, 5_000)] {
            let (mut arrivals, mut turn) = (Arrivals::default(), Turn::new(0, 0));
            arrivals.add(stamp(1, 9_000, 5_000, whole), tokens, &mut turn, Live::nobody());
            arrivals.flush(&mut turn, Live::nobody());
            assert_eq!(turn.first_token, Some(Arrival { latest: 9_000, earliest }));
        }
    }

    #[test]
    fn a_token_with_something_after_it_is_a_bound() {
        let (mut arrivals, mut turn) = (Arrivals::default(), Turn::new(0, 0));
        arrivals.follow(stamp(1, 9_000, 5_000, true));
        arrivals.add(stamp(1, 9_000, 5_000, true), 1, &mut turn, Live::nobody());
        arrivals.follow(stamp(1, 9_000, 5_000, true));
        arrivals.flush(&mut turn, Live::nobody());
        assert_eq!(turn.first_token, Some(Arrival { latest: 9_000, earliest: 5_000 }));
    }

    #[test]
    fn tokens_of_one_read_are_one_arrival_with_one_gap() {
        let (mut arrivals, mut turn) = (Arrivals::default(), Turn::new(0, 0));
        arrivals.add(stamp(1, 1_000_000, 0, true), 1, &mut turn, Live::nobody());
        arrivals.add(stamp(2, 3_000_000, 0, true), 1, &mut turn, Live::nobody());
        arrivals.add(stamp(2, 3_000_000, 0, true), 4, &mut turn, Live::nobody());
        arrivals.flush(&mut turn, Live::nobody());
        arrivals.add(stamp(2, 3_000_000, 0, true), 1, &mut turn, Live::nobody());
        arrivals.add(stamp(3, 3_500_000, 0, true), 1, &mut turn, Live::nobody());
        arrivals.flush(&mut turn, Live::nobody());
        assert_eq!((turn.tokens, turn.gaps().collect::<Vec<_>>()), (8, vec![2_000, 500]));
        assert_eq!(turn.arrivals.iter().map(|batch| batch.tokens).collect::<Vec<_>>(), [1, 6, 1]);
    }
}
