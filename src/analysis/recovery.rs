//! How long a deployment took to be as usual again after a crowd had left.

use crate::grade::Role;
use crate::result::{Recovery, RunResult, TierResult, TimelinePoint};

/// The seconds over which medians are averaged: a single slow second is none.
const SMOOTHED: f64 = 5.0;
/// By so much it may be above what was usual: the greatest of some seconds is often passed by the greatest of others.
const MARGIN: f64 = 1.1;

/// So many seconds without a first token, while turns are open, are no accident even where turns are rare.
const SILENCE: f64 = 5.0;

/// Finds the three tiers of a crowd in a result and says when the last one was as usual.
pub fn recovery(result: &RunResult, within_s: f64) -> Option<Recovery> {
    let of = |role| result.tiers.iter().find(|tier: &&TierResult| tier.role == role);
    let (usual, after) = (of(Role::Usual)?, of(Role::Recovery)?);
    let ended = after.steady_from_s - within_s;
    let before = during(&result.timeline, usual.steady_from_s, usual.steady_from_s + usual.steady_s);
    let usual_us = smoothed(&before).into_iter().map(|(_, level)| level).reduce(f64::max)?;
    let silence = silences(&before).into_iter().map(|(_, length)| length).fold(SILENCE, f64::max);
    let later = during(&result.timeline, ended, after.steady_from_s + after.steady_s);
    let slow = smoothed(&later).into_iter().filter(|(_, level)| *level > usual_us * MARGIN).map(|(at, _)| at);
    let silent = silences(&later).into_iter().filter(|(_, length)| *length > silence).map(|(at, _)| at);
    let failed = later.iter().filter(|point| point.errors > 0).map(|point| point.t_s as f64);
    let above = slow.chain(silent).chain(failed).reduce(f64::max);
    let last = later.last().map(|point| point.t_s as f64);
    let recovered_s = match (above, last) {
        (None, Some(_)) => Some(0.0),
        (Some(at), Some(last)) if at < last => Some(at - ended),
        _ => None,
    };
    Some(Recovery { within_s, usual_us, recovered_s })
}

/// The seconds between two moments.
fn during(timeline: &[TimelinePoint], from: f64, to: f64) -> Vec<&TimelinePoint> {
    timeline.iter().filter(|point| point.t_s as f64 > from && point.t_s as f64 <= to).collect()
}

/// The mean of the seconds' medians over the last 5 s, at every second that had a first token and 5 s before it.
fn smoothed(seconds: &[&TimelinePoint]) -> Vec<(f64, f64)> {
    let Some(first) = seconds.first().map(|point| point.t_s as f64) else { return Vec::new() };
    let points: Vec<(f64, f64)> =
        seconds.iter().filter_map(|point| Some((point.t_s as f64, point.ttft_p50_us? as f64))).collect();
    let mean = |index: usize| {
        let (at, _) = points[index];
        let recent = points[..=index].iter().rev().take_while(|(t, _)| at - t < SMOOTHED);
        let (count, sum) = recent.fold((0.0, 0.0), |(count, sum), (_, level)| (count + 1.0, sum + level));
        (at, sum / count)
    };
    (0..points.len()).filter(|index| points[*index].0 - first >= SMOOTHED - 1.0).map(mean).collect()
}

/// Where no first token came though turns were open: the last second of each such time, and how long it was.
fn silences(seconds: &[&TimelinePoint]) -> Vec<(f64, f64)> {
    let is_silent = |point: &TimelinePoint| point.ttft_p50_us.is_none() && point.in_flight > 0;
    let runs = seconds.chunk_by(|one, next| is_silent(one) == is_silent(next));
    let silent = runs.filter(|run| is_silent(run[0]));
    silent
        .map(|run| {
            let (first, last) = (run[0].t_s as f64, run[run.len() - 1].t_s as f64);
            (last, last - first + 1.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(levels: &[(u64, u64)]) -> Vec<TimelinePoint> {
        let point = |(t_s, ttft): &(u64, u64)| TimelinePoint {
            t_s: *t_s,
            span_s: 1,
            users: 0,
            in_flight: 0,
            turns: 0,
            tokens: 0,
            errors: 0,
            ttft_p50_us: (*ttft > 0).then_some(*ttft),
            ttft_p95_us: None,
        };
        levels.iter().map(point).collect()
    }

    fn refer(all: &[TimelinePoint]) -> Vec<&TimelinePoint> {
        all.iter().collect()
    }

    #[test]
    fn means_are_of_the_last_seconds_that_had_a_first_token() {
        let all = points(&[(1, 100), (2, 0), (3, 200), (9, 50), (10, 150), (11, 70)]);
        assert_eq!(smoothed(&refer(&all)), [(9.0, 50.0), (10.0, 100.0), (11.0, 90.0)]);
        assert_eq!(during(&all, 1.0, 10.0).len(), 4);
    }

    #[test]
    fn a_time_without_first_tokens_counts_where_turns_are_open() {
        let mut all = points(&[(1, 100), (2, 0), (3, 0), (4, 100), (5, 0)]);
        assert_eq!(silences(&refer(&all)), []);
        all.iter_mut().for_each(|point| point.in_flight = 3);
        assert_eq!(silences(&refer(&all)), [(3.0, 2.0), (5.0, 1.0)]);
    }
}
