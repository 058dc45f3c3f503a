//! Exact binomial bounds, on which rates and quantiles rest alike.
//!
//! Rates have Clopper-Pearson bounds (Clopper and Pearson, "The use of confidence or fiducial
//! limits", Biometrika 26, 1934): they err in at most 5 % of cases at every size of the sample.
//! Wilson's are shorter, but at 268 turns a target whose true error rate is 1 % has no error,
//! and would pass, in 6.8 % of runs: more than a verdict may err.

use statrs::distribution::{Binomial, DiscreteCDF};

use super::{CONFIDENCE, Interval};

/// The probability of at most `successes` in `trials`.
pub(super) fn at_most(successes: u64, trials: u64, probability: f64) -> f64 {
    Binomial::new(probability.clamp(0.0, 1.0), trials).map_or(1.0, |binomial| binomial.cdf(successes))
}

/// The interval of a rate: `successes` of `trials`. `None` without a trial.
pub fn rate_interval(successes: u64, trials: u64) -> Option<Interval> {
    if trials == 0 {
        return None;
    }
    let alpha = 1.0 - CONFIDENCE;
    // The greatest rate at which so few are still likely, and the least at which so many are.
    let upper = if successes == trials { 1.0 } else { bisect(|rate| at_most(successes, trials, rate) > alpha) };
    let lower = if successes == 0 { 0.0 } else { bisect(|rate| 1.0 - at_most(successes - 1, trials, rate) <= alpha) };
    Some(Interval { measured: successes as f64 / trials as f64, lower: Some(lower), upper: Some(upper) })
}

/// The boundary between 0, where `holds`, and 1, where it does not.
fn bisect(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if holds(middle) { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// The fewest turns after which a quantile has an upper bound at all: 59 for p95, 299 for p99.
pub fn samples_for_quantile(quantile: f64) -> u64 {
    samples_for_rate(1.0 - quantile)
}

/// The fewest turns without an error that prove the rate to be within `bound`: 299 for 1 %.
pub fn samples_for_rate(bound: f64) -> u64 {
    if bound <= 0.0 {
        return u64::MAX;
    }
    if bound >= 1.0 {
        return 1;
    }
    ((1.0 - CONFIDENCE).ln() / (1.0 - bound).ln()).ceil() as u64
}

/// How many trials, of which the same share succeeds as now, would prove the rate to be within
/// `bound`; `None` where no number would, or none that anybody would wait for.
pub fn would_pass_with(successes: u64, trials: u64, bound: f64) -> Option<u64> {
    let share = successes as f64 / trials.max(1) as f64;
    let proves = |trials: u64| at_most((share * trials as f64).ceil() as u64, trials, bound) <= 1.0 - CONFIDENCE;
    if share < bound { enough(trials, proves) } else { None }
}

/// How many trials, of which the same share succeeds as now, would prove the rate to be above
/// `bound`; likewise.
pub fn would_fail_with(successes: u64, trials: u64, bound: f64) -> Option<u64> {
    let share = successes as f64 / trials.max(1) as f64;
    let proves = |trials: u64| {
        let successes = (share * trials as f64).floor() as u64;
        successes > 0 && 1.0 - at_most(successes - 1, trials, bound) <= 1.0 - CONFIDENCE
    };
    if share > bound { enough(trials, proves) } else { None }
}

/// About the fewest trials from `now` on that prove something which more of the same proves too.
fn enough(now: u64, proves: impl Fn(u64) -> bool) -> Option<u64> {
    let mut high = now.max(1);
    while !proves(high) {
        high = high.checked_mul(2).filter(|high| *high <= 100_000_000)?;
    }
    let mut low = now;
    while low + 1 < high {
        let middle = u64::midpoint(low, high);
        if proves(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_sizes_that_the_design_rests_on() {
        assert_eq!(samples_for_quantile(0.95), 59);
        assert_eq!(samples_for_quantile(0.99), 299);
        assert_eq!(samples_for_rate(0.01), 299);
        assert!(rate_interval(0, 299).unwrap().upper.unwrap() < 0.01);
        assert!(rate_interval(0, 298).unwrap().upper.unwrap() > 0.01);
    }

    #[test]
    fn bounds_agree_with_published_tables() {
        // Clopper-Pearson, two-sided 90 % and so one-sided 95 %: 3 of 20 (R: binom.test).
        let interval = rate_interval(3, 20).unwrap();
        assert!((interval.lower.unwrap() - 0.0422).abs() < 1e-4, "{interval:?}");
        assert!((interval.upper.unwrap() - 0.3437).abs() < 1e-4, "{interval:?}");
        let all = rate_interval(20, 20).unwrap();
        assert!((all.lower.unwrap() - 0.05_f64.powf(1.0 / 20.0)).abs() < 1e-9);
        assert_eq!(all.upper, Some(1.0));
        assert_eq!(rate_interval(0, 0), None);
    }

    #[test]
    fn more_of_the_same_decides_or_never_will() {
        assert_eq!(would_pass_with(0, 100, 0.01), Some(299));
        let needed = would_pass_with(5, 1_000, 0.01).unwrap();
        assert!((1_000..3_000).contains(&needed), "{needed}");
        assert!(at_most((0.005 * needed as f64).ceil() as u64, needed, 0.01) <= 0.05);
        assert_eq!(would_pass_with(20, 1_000, 0.01), None);
        let needed = would_fail_with(6, 100, 0.05).unwrap();
        assert!((1_000..3_000).contains(&needed), "{needed}");
        assert_eq!(would_fail_with(5, 100, 0.05), None);
    }
}
