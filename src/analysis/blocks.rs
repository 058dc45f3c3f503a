//! Quantiles over tokens, whose samples are not independent: a bootstrap over blocks of time.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use mock_llm::script::stable_hash;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::{CONFIDENCE, Interval};

/// The fewest blocks that an interval is drawn from.
pub const LEAST_BLOCKS: usize = 20;

/// How often the blocks are drawn again.
const DRAWS: usize = 1_000;

/// The interval of a quantile of everything in `blocks`, where the block is the sampling unit.
/// `None` without a sample; without bounds where blocks with samples are fewer than [`LEAST_BLOCKS`].
///
/// Whole blocks are drawn with replacement and their histograms added (the block bootstrap of
/// Carlstein, Annals of Statistics 14, 1986). A plain percentile interval of so few blocks is
/// too short; the percentiles are moved out by the t quantile and sqrt(n / (n - 1)), as
/// Hesterberg's expanded percentile interval ("What teachers should know about the bootstrap",
/// The American Statistician 69, 2015). The draws follow from the data: equal data, equal bounds.
pub fn blocks_interval(blocks: &[Histogram<u64>], quantile: f64) -> Option<Interval> {
    let table = Table::new(blocks);
    let measured = table.quantile(&table.total(), quantile)?;
    let count = table.blocks.len();
    if count < LEAST_BLOCKS {
        return Some(Interval { measured, lower: None, upper: None });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(stable_hash(&[&table.fingerprint()]));
    let mut drawn: Vec<f64> = Vec::with_capacity(DRAWS);
    let mut sum = vec![0_u64; table.values.len()];
    for _ in 0..DRAWS {
        sum.fill(0);
        for _ in 0..count {
            let block = &table.blocks[rng.random_range(0..count)];
            for (place, samples) in block {
                sum[*place] += samples;
            }
        }
        drawn.extend(table.quantile(&sum, quantile));
    }
    drawn.sort_by(f64::total_cmp);
    let tail = expanded_tail(count);
    let at = |share: f64| drawn[((drawn.len() as f64 * share) as usize).min(drawn.len() - 1)];
    Some(Interval { measured, lower: Some(at(tail).min(measured)), upper: Some(at(1.0 - tail).max(measured)) })
}

/// The share of draws beyond each bound.
fn expanded_tail(blocks: usize) -> f64 {
    let n = blocks as f64;
    let (Ok(t), Ok(normal)) = (StudentsT::new(0.0, 1.0, n - 1.0), Normal::new(0.0, 1.0)) else { return 0.0 };
    normal.cdf((n / (n - 1.0)).sqrt() * t.inverse_cdf(1.0 - CONFIDENCE))
}

/// The blocks as counts over their common values.
struct Table {
    values: Vec<u64>,
    /// Of each block: (place in `values`, samples).
    blocks: Vec<Vec<(usize, u64)>>,
}

impl Table {
    fn new(blocks: &[Histogram<u64>]) -> Self {
        let mut places = BTreeMap::new();
        for step in blocks.iter().flat_map(Histogram::iter_recorded) {
            places.insert(step.value_iterated_to(), 0);
        }
        for (place, (_, slot)) in places.iter_mut().enumerate() {
            *slot = place;
        }
        let blocks = blocks
            .iter()
            .filter(|block| !block.is_empty())
            .map(|block| {
                block.iter_recorded().map(|step| (places[&step.value_iterated_to()], step.count_at_value())).collect()
            })
            .collect();
        Self { values: places.into_keys().collect(), blocks }
    }

    fn total(&self) -> Vec<u64> {
        let mut sum = vec![0; self.values.len()];
        for (place, samples) in self.blocks.iter().flatten() {
            sum[*place] += samples;
        }
        sum
    }

    fn quantile(&self, counts: &[u64], quantile: f64) -> Option<f64> {
        let samples: u64 = counts.iter().sum();
        let rank = ((samples as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (value, count) in self.values.iter().zip(counts) {
            seen += count;
            if seen >= rank {
                return Some(*value as f64);
            }
        }
        None
    }

    fn fingerprint(&self) -> Vec<u8> {
        self.blocks
            .iter()
            .flatten()
            .flat_map(|(place, samples)| [*place as u64, *samples])
            .flat_map(u64::to_le_bytes)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(values: &[u64]) -> Histogram<u64> {
        let mut histogram = crate::record::new_histogram();
        for value in values {
            histogram.record(*value).unwrap();
        }
        histogram
    }

    #[test]
    fn few_blocks_decide_nothing_and_equal_blocks_have_no_spread() {
        let blocks = vec![block(&[10, 20, 30]); 19];
        assert_eq!(blocks_interval(&blocks, 0.5), Some(Interval { measured: 20.0, lower: None, upper: None }));
        let blocks = vec![block(&[10, 20, 30]); 20];
        let interval = blocks_interval(&blocks, 0.5).unwrap();
        assert_eq!((interval.lower, interval.upper), (Some(20.0), Some(20.0)));
        assert_eq!(blocks_interval(&[], 0.5), None);
        assert_eq!(blocks_interval(&[block(&[])], 0.5), None);
    }

    #[test]
    fn the_tail_shrinks_with_few_blocks() {
        assert!((expanded_tail(20) - 0.0380).abs() < 5e-4, "{}", expanded_tail(20));
        assert!((expanded_tail(10_000) - 0.05).abs() < 1e-3);
    }
}
