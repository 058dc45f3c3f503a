//! Quantiles over turns, with distribution-free bounds from order statistics.

use hdrhistogram::Histogram;

use super::binomial::at_most;
use super::{CONFIDENCE, Interval};

/// The interval of a quantile of independent samples, of which `above` more are known only to
/// be above every bound. `None` without a sample.
///
/// The k-th smallest of n samples is an upper bound of the q-quantile with probability
/// P(Bin(n, q) <= k - 1), and a lower one with P(Bin(n, q) >= k), whatever the distribution
/// (David and Nagaraja, *Order Statistics*, 2003, section 7.1).
pub fn quantile_interval(histogram: &Histogram<u64>, above: u64, quantile: f64) -> Option<Interval> {
    let samples = histogram.len() + above;
    if samples == 0 {
        return None;
    }
    let point = ((samples as f64 * quantile).ceil() as u64).clamp(1, samples);
    // P(Bin <= k - 1) rises with k: the first k where it is 95 % bounds from above, the last
    // where it is 5 % from below.
    let upper = first(samples, |rank| at_most(rank - 1, samples, quantile) >= CONFIDENCE);
    let lower = first(samples, |rank| at_most(rank - 1, samples, quantile) > 1.0 - CONFIDENCE);
    let lower = lower.unwrap_or(samples + 1).checked_sub(1).filter(|rank| *rank > 0);
    Some(Interval {
        measured: at_rank(histogram, point, false),
        lower: lower.map(|rank| at_rank(histogram, rank, true)),
        upper: upper.map(|rank| at_rank(histogram, rank, false)),
    })
}

/// The first rank from 1 to `most` for which `holds`, which it then does for all after it.
fn first(most: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if !holds(most) {
        return None;
    }
    let (mut low, mut high) = (0, most);
    while low + 1 < high {
        let middle = u64::midpoint(low, high);
        if holds(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// The sample of a rank (from 1), at the lower or upper edge of its bucket; infinity above the last.
fn at_rank(histogram: &Histogram<u64>, rank: u64, lower_edge: bool) -> f64 {
    let mut seen = 0;
    for step in histogram.iter_recorded() {
        seen += step.count_at_value();
        if seen >= rank {
            let value = step.value_iterated_to();
            let value =
                if lower_edge { histogram.lowest_equivalent(value) } else { histogram.highest_equivalent(value) };
            return value.min(histogram.max()).max(if lower_edge { 0 } else { histogram.min() }) as f64;
        }
    }
    f64::INFINITY
}

/// How many samples are above a bound in microseconds.
pub fn exceeding(histogram: &Histogram<u64>, above: u64, bound: f64) -> u64 {
    let within: u64 = histogram
        .iter_recorded()
        .take_while(|step| step.value_iterated_to() as f64 <= bound)
        .map(|step| step.count_at_value())
        .sum();
    histogram.len() - within + above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = crate::record::new_histogram();
        for value in values {
            histogram.record(value).unwrap();
        }
        histogram
    }

    #[test]
    fn too_few_samples_have_no_upper_bound() {
        let bounds = |count: u64| quantile_interval(&histogram(1..=count), 0, 0.95).unwrap();
        assert_eq!(bounds(58).upper, None);
        assert_eq!(bounds(59).upper, Some(59.0));
        assert_eq!(quantile_interval(&histogram([]), 0, 0.95), None);
    }

    #[test]
    fn order_statistics_are_the_tabulated_ones() {
        // n = 100, median: ranks 42 and 59 (Conover, table A3: P(Bin(100, 0.5) <= 58) = 0.9557).
        let interval = quantile_interval(&histogram(1..=100), 0, 0.5).unwrap();
        assert_eq!((interval.measured, interval.lower, interval.upper), (50.0, Some(42.0), Some(59.0)));
    }

    #[test]
    fn turns_that_never_came_count_as_above() {
        let interval = quantile_interval(&histogram(1..=90), 10, 0.95).unwrap();
        assert_eq!((interval.measured, interval.upper), (f64::INFINITY, Some(f64::INFINITY)));
        let none = quantile_interval(&histogram([]), 100, 0.95).unwrap();
        assert_eq!(none.lower, Some(f64::INFINITY));
        assert_eq!(exceeding(&histogram(1..=90), 10, 50.0), 50);
    }
}
