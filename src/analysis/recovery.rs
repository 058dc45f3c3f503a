//! How long a deployment took to be as usual again after a crowd had left.

use crate::grade::Role;
use crate::result::{Recovery, RunResult, TierResult, TimelinePoint};

/// The seconds over which medians are averaged: a single slow second is none.
const SMOOTHED: f64 = 5.0;

/// Finds the three tiers of a crowd in a result and says when the last one was as usual.
pub fn recovery(result: &RunResult, within_s: f64) -> Option<Recovery> {
    let of = |role| result.tiers.iter().find(|tier: &&TierResult| tier.role == role);
    let (usual, after) = (of(Role::Usual)?, of(Role::Recovery)?);
    let ended = after.steady_from_s - within_s;
    let before = smoothed(&result.timeline, usual.steady_from_s, usual.steady_from_s + usual.steady_s);
    let usual_us = before.iter().map(|(_, level)| *level).reduce(f64::max)?;
    let later = smoothed(&result.timeline, ended, after.steady_from_s + after.steady_s);
    let last = later.last()?.0;
    let above = later.iter().rfind(|(_, level)| *level > usual_us).map(|(at, _)| *at);
    let recovered_s = match above {
        None => Some(0.0),
        Some(at) if at < last => Some(at - ended),
        Some(_) => None,
    };
    Some(Recovery { within_s, usual_us, recovered_s })
}

/// The mean of the seconds' medians over the last 5 s, at every second between two moments that had a first token.
fn smoothed(timeline: &[TimelinePoint], from: f64, to: f64) -> Vec<(f64, f64)> {
    let seconds = timeline.iter().filter(|point| point.t_s as f64 > from && point.t_s as f64 <= to);
    let points: Vec<(f64, f64)> =
        seconds.filter_map(|point| Some((point.t_s as f64, point.ttft_p50_us? as f64))).collect();
    let mean = |index: usize| {
        let (at, _) = points[index];
        let recent = points[..=index].iter().rev().take_while(|(t, _)| at - t < SMOOTHED);
        let (count, sum) = recent.fold((0.0, 0.0), |(count, sum), (_, level)| (count + 1.0, sum + level));
        (at, sum / count)
    };
    (0..points.len()).map(mean).collect()
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

    #[test]
    fn means_are_of_the_last_seconds_that_had_a_first_token() {
        let all = points(&[(1, 100), (2, 0), (3, 200), (9, 50), (10, 150), (11, 70)]);
        assert_eq!(smoothed(&all, 1.0, 10.0), [(3.0, 200.0), (9.0, 50.0), (10.0, 100.0)]);
        assert_eq!(smoothed(&all, 0.0, 3.0), [(1.0, 100.0), (3.0, 150.0)]);
    }
}
