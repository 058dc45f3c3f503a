//! Whether a metric drifts while the load stays the same: what a soak run is for.

use super::slope::{Season, two_sided_slope};
use super::{LEAST_BLOCKS, quantile_interval};
use crate::result::{DecodeError, Drift, MetricResult};

/// The shortest steady phase of which something is said, in seconds: in the first minutes caches fill and pools grow.
const LEAST_STEADY_S: f64 = 600.0;
const HOUR_S: f64 = 3_600.0;

/// How a metric of a tier changed over its steady phase of `steady_s` seconds. `None` where that is below ten minutes,
/// or fewer than [`LEAST_BLOCKS`] blocks have samples: a metric has blocks where a budget limits it.
///
/// A block counts with its median. Its 95th percentile is the second largest of some 25 turns: noise that hides a
/// drift, and it moves with the number of turns in a block, which changes when turns become slower.
///
/// # Errors
/// When a histogram of the result cannot be read.
pub fn drift_of(measured: &MetricResult, steady_s: f64) -> Result<Option<Drift>, DecodeError> {
    let width_s = measured.block_s.unwrap_or(0) as f64;
    if steady_s < LEAST_STEADY_S || measured.blocks.iter().filter(|block| block.count > 0).count() < LEAST_BLOCKS {
        return Ok(None);
    }
    let mut season = Season::new();
    for (index, block) in measured.blocks.iter().enumerate() {
        let middle_s = (index as f64 + 0.5) * width_s;
        // Of the last block most may lie beyond the end: few turns that would weigh as much as any block's.
        if middle_s > steady_s {
            break;
        }
        let median = match block.decode()? {
            Some(histogram) => quantile_interval(&histogram, block.above, 0.5).map(|interval| interval.measured),
            None => (block.above > 0).then_some(f64::INFINITY),
        };
        // Where most turns never came to have it, it was at least as bad as the worst that was measured.
        season.extend(median.map(|median| (middle_s / HOUR_S, median.min(measured.max_us as f64))));
    }
    Ok(drift(season, steady_s))
}

/// The drift of block medians, each with its hour.
fn drift(season: Season, steady_s: f64) -> Option<Drift> {
    let mut medians: Vec<f64> = season.iter().map(|(_, median)| *median).collect();
    medians.sort_by(f64::total_cmp);
    let median = *medians.get(medians.len() / 2)?;
    let found = two_sided_slope(&[season])?;
    Some(Drift {
        blocks: medians.len() as u64,
        median,
        per_hour: found.median,
        lower: found.lower,
        upper: found.upper,
        change: found.median * steady_s / HOUR_S / median.max(1.0),
        drifts: found.lower > 0.0 || found.upper < 0.0,
    })
}

#[cfg(test)]
mod tests {
    use mock_llm::distribution::Distribution;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::record::{encode, new_histogram};
    use crate::result::BlockResult;

    /// Times to first token, in microseconds.
    const TTFT: Distribution = Distribution::Lognormal { median: 300_000.0, p95: 900_000.0 };

    fn block(values: impl IntoIterator<Item = u64>, above: u64) -> BlockResult {
        let mut histogram = new_histogram();
        for value in values {
            histogram.saturating_record(value);
        }
        let encoded = (!histogram.is_empty()).then(|| encode(&histogram));
        BlockResult { count: histogram.len(), above, histogram: encoded }
    }

    fn measured(block_s: u64, max_us: u64, blocks: Vec<BlockResult>) -> MetricResult {
        MetricResult {
            count: blocks.iter().map(|block| block.count).sum(),
            above: blocks.iter().map(|block| block.above).sum(),
            min_us: 1,
            mean_us: 1.0,
            p50_us: 1,
            p90_us: 1,
            p95_us: 1,
            p99_us: 1,
            p999_us: 1,
            max_us,
            histogram: String::new(),
            block_s: Some(block_s),
            blocks,
        }
    }

    #[test]
    fn what_does_not_drift_is_said_to_in_about_five_of_a_hundred() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut covered = 0;
        for _ in 0..400 {
            // Ten minutes of 2.5 turns a second, in blocks of 10 s.
            let median = |rng: &mut ChaCha8Rng| {
                let mut turns: Vec<f64> = (0..25).map(|_| TTFT.sample(rng)).collect();
                turns.sort_by(f64::total_cmp);
                turns[12]
            };
            let season = (0..60_u32).map(|index| (f64::from(index) / 360.0, median(&mut rng))).collect();
            let found = drift(season, 600.0).unwrap();
            assert_eq!(found.drifts, !(found.lower..=found.upper).contains(&0.0));
            covered += u32::from(!found.drifts);
        }
        // 93 of a hundred.
        assert!(covered >= 372, "{covered} of 400");
    }

    #[test]
    fn a_fifth_an_hour_is_found_in_two_hours() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let later = |index: u32| {
            let factor = 1.0 + 0.2 * f64::from(index) * 160.0 / HOUR_S;
            let values: Vec<u64> = (0..1_000).map(|_| (TTFT.sample(&mut rng) * factor) as u64).collect();
            block(values, 0)
        };
        let blocks = (0..45).map(later).collect();
        let found = drift_of(&measured(160, 9_000_000, blocks), 7_200.0).unwrap().unwrap();
        assert_eq!((found.blocks, found.drifts), (45, true), "{found:?}");
        assert!(found.lower > 0.0 && found.lower < found.per_hour && found.per_hour < found.upper, "{found:?}");
        // More than five standard errors.
        assert!((found.per_hour / 60_000.0 - 1.0).abs() < 0.35, "{found:?}");
        // 300 ms become 420 ms: a third of the 360 ms between them.
        assert!((found.change - 1.0 / 3.0).abs() < 0.12, "{found:?}");
    }

    #[test]
    fn who_never_got_an_answer_counts_as_the_worst() {
        // Twenty turns are answered in 10 to 200 ms; besides them more and more never are.
        let blocks = (0..40).map(|index| block((1..=20).map(|turn| turn * 10_000), index)).collect();
        let found = drift_of(&measured(30, 200_000, blocks), 1_200.0).unwrap().unwrap();
        assert!(found.per_hour > 0.0 && found.per_hour.is_finite() && found.upper.is_finite(), "{found:?}");
        assert!(found.median > 180_000.0, "{found:?}");
    }

    #[test]
    fn too_little_says_nothing() {
        let blocks = |count: usize| -> Vec<BlockResult> { (0..count).map(|_| block([50_000], 0)).collect() };
        let found = |blocks, steady_s| drift_of(&measured(30, 50_000, blocks), steady_s).unwrap();
        let same = found(blocks(20), 600.0).unwrap();
        assert_eq!((same.blocks, same.per_hour, same.change, same.drifts), (20, 0.0, 0.0, false));
        assert_eq!(found(blocks(21), 605.0).unwrap().blocks, 20, "a sixth of the last block");
        assert_eq!(found(blocks(20), 599.0), None);
        assert_eq!(found(blocks(19), 600.0), None);
        let mut hollow = blocks(20);
        hollow[4] = block([], 3);
        assert_eq!(found(hollow, 600.0), None);
        assert_eq!(found(Vec::new(), 600.0), None, "no budget limits it");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let broken = BlockResult { count: 1, above: 0, histogram: Some("?".to_owned()) };
        assert!(drift_of(&measured(30, 1, vec![broken; 20]), 600.0).is_err());
    }
}
