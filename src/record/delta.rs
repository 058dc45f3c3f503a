//! What a shard did in one second, and the timeline that is made of it.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::turn::Turn;
use crate::clock::micros;

/// A small histogram for one second: 1 us to 1 h with two significant digits, made when needed.
#[derive(Debug, Clone, Default)]
pub struct SecondHistogram(Option<Histogram<u32>>);

impl SecondHistogram {
    /// Records microseconds.
    pub fn record(&mut self, micros: u64) {
        self.entry().saturating_record(micros.max(1));
    }

    fn entry(&mut self) -> &mut Histogram<u32> {
        self.0.get_or_insert_with(|| {
            Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("the bounds are constant and valid")
        })
    }

    /// The histogram, if anything was recorded.
    pub fn get(&self) -> Option<&Histogram<u32>> {
        self.0.as_ref()
    }

    fn merge(&mut self, other: &Self) {
        if let Some(histogram) = &other.0 {
            self.entry().add(histogram).expect("both histograms have the same bounds");
        }
    }
}

/// What happened in one second.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// Users that were there at its end.
    pub users: u64,
    /// Turns open at its end.
    pub in_flight: u64,
    /// Turns begun.
    pub started: u64,
    /// Turns that nobody was free for.
    pub dropped: u64,
    /// Turns ended.
    pub turns: u64,
    /// Of them, those that failed.
    pub errors: u64,
    /// What the deployment said to somebody whom it banned, if it did.
    pub banned: Option<String>,
    /// Content tokens received.
    pub tokens: u64,
    /// Times to first token of first tokens that came.
    pub ttft: SecondHistogram,
    /// Gaps of turns that ended.
    pub itl: SecondHistogram,
    /// Turn latencies of turns that completed.
    pub turn: SecondHistogram,
}

impl Delta {
    pub(super) fn finish(&mut self, turn: &Turn) {
        self.in_flight -= 1;
        self.turns += 1;
        self.errors += u64::from(turn.outcome.is_error());
        if turn.outcome == Outcome::Banned {
            self.banned.get_or_insert_with(|| turn.detail.clone());
        }
        for gap in turn.gaps() {
            self.itl.record(gap);
        }
        if turn.outcome == Outcome::Completed {
            self.turn.record(micros(turn.ended - turn.intended));
        }
    }

    /// Takes the second out; what is a level and not a count stays.
    pub(super) fn take(&mut self) -> Self {
        let next = Self { users: self.users, in_flight: self.in_flight, ..Self::default() };
        std::mem::replace(self, next)
    }

    /// Adds another shard's second.
    pub fn merge(&mut self, other: &Self) {
        self.users += other.users;
        self.in_flight += other.in_flight;
        self.started += other.started;
        self.dropped += other.dropped;
        self.turns += other.turns;
        self.errors += other.errors;
        self.tokens += other.tokens;
        self.banned = self.banned.take().or_else(|| other.banned.clone());
        self.ttft.merge(&other.ttft);
        self.itl.merge(&other.itl);
        self.turn.merge(&other.turn);
    }
}

/// One second of the run, or in a run of hours the seconds that were joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TimelinePoint {
    /// Seconds since the run began, at its end.
    pub t_s: u64,
    /// The seconds that were joined to it; counts are of all of them, levels of the last one, and of quantiles the
    /// greatest stands here.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub span_s: u64,
    /// Users.
    pub users: u64,
    /// Streams in flight; of seconds that were joined the mean.
    pub in_flight: u64,
    /// Turns that ended.
    pub turns: u64,
    /// Tokens that arrived.
    pub tokens: u64,
    /// Turns that failed.
    pub errors: u64,
    /// Median time to first token, microseconds.
    pub ttft_p50_us: Option<u64>,
    /// 95th percentile of it.
    pub ttft_p95_us: Option<u64>,
}

fn one() -> u64 {
    1
}

fn is_one(span: &u64) -> bool {
    *span == 1
}

/// The most points of a timeline: of two hours by the second. Above it neighbours are joined, so that a run of any length
/// has a bounded result.
const MOST: usize = 7_200;

/// Joins a point to the one before it.
fn join(before: &mut TimelinePoint, point: &TimelinePoint) {
    let (span, own) = (before.span_s, point.span_s);
    before.in_flight = (before.in_flight * span + point.in_flight * own + (span + own) / 2) / (span + own);
    before.span_s = span + own;
    (before.t_s, before.users) = (point.t_s, point.users);
    before.turns += point.turns;
    before.tokens += point.tokens;
    before.errors += point.errors;
    before.ttft_p50_us = before.ttft_p50_us.max(point.ttft_p50_us);
    before.ttft_p95_us = before.ttft_p95_us.max(point.ttft_p95_us);
}

/// Puts the shards' seconds together.
#[derive(Debug)]
pub struct Timeline {
    shards: usize,
    /// The last second of each shard that has ended.
    ended: Vec<u64>,
    open: BTreeMap<u64, (usize, Delta)>,
    /// The seconds that are complete.
    pub points: Vec<TimelinePoint>,
    /// How many seconds a point has.
    width: u64,
}

impl Timeline {
    /// An empty timeline of so many shards.
    pub fn new(shards: usize) -> Self {
        Self { shards, ended: Vec::new(), open: BTreeMap::new(), points: Vec::new(), width: 1 }
    }

    /// Takes one shard's second; returns the seconds that are whole now.
    pub fn add(&mut self, second: u64, delta: &Delta) -> Vec<(u64, Delta)> {
        let (told, merged) = self.open.entry(second).or_default();
        *told += 1;
        merged.merge(delta);
        self.complete(false)
    }

    /// A shard has ended, and told `last` as its last second; returns the seconds that are whole now.
    pub fn end(&mut self, last: u64) -> Vec<(u64, Delta)> {
        self.ended.push(last);
        self.complete(false)
    }

    /// No shard will tell more; returns what is left.
    pub fn finish(&mut self) -> Vec<(u64, Delta)> {
        self.complete(true)
    }

    /// Closes seconds in order, as far as every shard that still runs has told them.
    fn complete(&mut self, all: bool) -> Vec<(u64, Delta)> {
        let mut whole = Vec::new();
        while let Some(entry) = self.open.first_entry() {
            let second = *entry.key();
            let expected = self.shards - self.ended.iter().filter(|last| **last < second).count();
            if entry.get().0 < expected && !all {
                break;
            }
            let (_, merged) = entry.remove();
            self.push(point(second, &merged));
            whole.push((second, merged));
        }
        whole
    }

    fn push(&mut self, point: TimelinePoint) {
        match self.points.last_mut() {
            Some(last) if last.span_s < self.width => join(last, &point),
            _ => self.points.push(point),
        }
        if self.points.len() > MOST {
            self.width *= 2;
            let mut joined: Vec<TimelinePoint> = Vec::with_capacity(MOST / 2 + 1);
            for point in self.points.drain(..) {
                match joined.last_mut() {
                    Some(last) if last.span_s < self.width => join(last, &point),
                    _ => joined.push(point),
                }
            }
            self.points = joined;
        }
    }
}

fn point(second: u64, merged: &Delta) -> TimelinePoint {
    let quantile = |share| merged.ttft.get().map(|ttft| ttft.value_at_quantile(share));
    TimelinePoint {
        t_s: second,
        span_s: 1,
        users: merged.users,
        in_flight: merged.in_flight,
        turns: merged.turns,
        tokens: merged.tokens,
        errors: merged.errors,
        ttft_p50_us: quantile(0.5),
        ttft_p95_us: quantile(0.95),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_have_a_bounded_timeline_that_loses_nothing() {
        let mut timeline = Timeline::new(1);
        for second in 1..=8 * 3_600 {
            let delta = Delta { users: second / 3_600, in_flight: 7, tokens: 3, turns: 1, ..Delta::default() };
            timeline.add(second, &delta);
        }
        let points = &timeline.points;
        assert!(points.len() <= MOST && points.len() > MOST / 2, "{}", points.len());
        let sum = |pick: fn(&TimelinePoint) -> u64| points.iter().map(pick).sum::<u64>();
        assert_eq!((sum(|point| point.tokens), sum(|point| point.turns)), (3 * 8 * 3_600, 8 * 3_600));
        assert_eq!((sum(|point| point.span_s), points.last().unwrap().t_s), (8 * 3_600, 8 * 3_600));
        assert!(points.iter().all(|point| point.in_flight == 7) && points.is_sorted_by_key(|point| point.t_s));
    }

    #[test]
    fn a_second_is_complete_when_every_shard_that_still_runs_has_told_it() {
        let mut timeline = Timeline::new(2);
        let delta = Delta { users: 3, tokens: 7, ..Delta::default() };
        assert!(timeline.add(1, &delta).is_empty());
        assert!(timeline.add(2, &delta).is_empty());
        let whole = timeline.add(1, &delta);
        assert_eq!((whole.len(), whole[0].1.users, whole[0].1.tokens), (1, 6, 14));
        // The other shard ended with second 1: the rest is this one's alone.
        assert_eq!(timeline.end(1).len(), 1);
        assert_eq!(timeline.add(3, &delta).len(), 1);
        assert_eq!(timeline.finish().len(), 0);
        let tokens: Vec<_> = timeline.points.iter().map(|point| (point.t_s, point.tokens)).collect();
        assert_eq!(tokens, [(1, 14), (2, 7), (3, 7)]);
    }
}
