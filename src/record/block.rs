//! Histograms of 5 s blocks: the clusters from which intervals of token metrics are drawn.

use hdrhistogram::Histogram;

use crate::clock::{Nanos, SECOND};
use crate::metric::{Metric, MetricSet};

/// The length of a block.
pub const BLOCK: Nanos = 5 * SECOND;

/// The most blocks of a tier. A longer steady phase has longer blocks: neighbours are joined in
/// pairs, so that memory stays bounded and a turn still lies in one block.
const MOST: usize = 64;

/// What the turns whose intended start lies in one block have measured.
#[derive(Debug, Clone, Default)]
pub struct Block {
    histograms: [Option<Histogram<u32>>; Metric::COUNT],
    above: [u64; Metric::COUNT],
}

impl Block {
    fn record(&mut self, metric: Metric, micros: u64) {
        let histogram = self.histograms[metric as usize]
            .get_or_insert_with(|| Histogram::new(3).expect("three digits are a valid precision"));
        // Grows as needed; only a length beyond memory could fail.
        let _ = histogram.record(micros.clamp(1, 3_600_000_000));
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            match (mine.as_mut(), theirs) {
                (Some(mine), Some(theirs)) => mine.add(theirs).expect("a resizing histogram takes any other"),
                (None, Some(theirs)) => *mine = Some(theirs.clone()),
                (_, None) => {}
            }
        }
        for (mine, theirs) in self.above.iter_mut().zip(&other.above) {
            *mine += theirs;
        }
    }

    /// What was measured of a metric.
    pub fn get(&self, metric: Metric) -> Option<&Histogram<u32>> {
        self.histograms[metric as usize].as_ref()
    }

    /// Turns that never came to have the metric, and count as above every bound.
    pub fn above(&self, metric: Metric) -> u64 {
        self.above[metric as usize]
    }
}

/// The blocks of one tier's steady phase.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    width: Nanos,
    blocks: Vec<Block>,
    metrics: MetricSet,
}

impl Blocks {
    pub(super) fn new(metrics: MetricSet) -> Self {
        Self { width: BLOCK, blocks: Vec::new(), metrics }
    }

    /// The length of every block.
    pub(super) fn width(&self) -> Nanos {
        self.width
    }

    pub(super) fn all(&self) -> &[Block] {
        &self.blocks
    }

    /// Records a value of a turn that was meant to start `offset` after the steady phase began.
    pub(super) fn record(&mut self, offset: Nanos, metric: Metric, micros: u64) {
        if self.metrics.contains(metric) {
            self.at(offset).record(metric, micros);
        }
    }

    /// Notes such a turn as above every bound of a metric.
    pub(super) fn record_above(&mut self, offset: Nanos, metric: Metric) {
        if self.metrics.contains(metric) {
            self.at(offset).above[metric as usize] += 1;
        }
    }

    fn at(&mut self, offset: Nanos) -> &mut Block {
        while offset / self.width >= MOST as Nanos {
            self.coarsen();
        }
        let index = usize::try_from(offset / self.width).unwrap_or(0);
        if index >= self.blocks.len() {
            self.blocks.resize_with(index + 1, Block::default);
        }
        &mut self.blocks[index]
    }

    fn coarsen(&mut self) {
        self.width *= 2;
        let mut joined: Vec<Block> = Vec::with_capacity(self.blocks.len().div_ceil(2));
        for (index, block) in self.blocks.drain(..).enumerate() {
            match joined.get_mut(index / 2) {
                Some(pair) => pair.merge(&block),
                None => joined.push(block),
            }
        }
        self.blocks = joined;
    }

    /// Adds another shard's blocks of the same tier.
    pub(super) fn merge(&mut self, mut other: Self) {
        while self.width < other.width {
            self.coarsen();
        }
        while other.width < self.width {
            other.coarsen();
        }
        if other.blocks.len() > self.blocks.len() {
            self.blocks.resize_with(other.blocks.len(), Block::default);
        }
        for (mine, theirs) in self.blocks.iter_mut().zip(&other.blocks) {
            mine.merge(theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_of_blocks_stay_few_and_lose_nothing() {
        let metrics: MetricSet = [Metric::Ttft].into_iter().collect();
        let mut long = Blocks::new(metrics);
        for second in 0..4 * 3_600 {
            long.record(second * SECOND, Metric::Ttft, 1_000 + second as u64);
            long.record(second * SECOND, Metric::Turn, 1);
        }
        assert!(long.all().len() <= MOST);
        let mut short = Blocks::new(metrics);
        short.record(7 * SECOND, Metric::Ttft, 5);
        short.record_above(7 * SECOND, Metric::Ttft);
        short.merge(long);
        let count: u64 = short.all().iter().filter_map(|block| block.get(Metric::Ttft)).map(Histogram::len).sum();
        assert_eq!(count, 4 * 3_600 + 1);
        assert_eq!(short.all()[0].above(Metric::Ttft), 1);
        assert!(short.all().iter().all(|block| block.get(Metric::Turn).is_none()));
    }
}
