//! Metrics in a result: quantiles for the eye, the histogram for whoever computes with it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Counts, StepResult};
use crate::clock::SECOND;
use crate::metric::Metric;
use crate::record::{OutcomeCounts, Step, StepRecord, Steps, TierRecord, Totals, encode};

/// One metric: microseconds, over turns or tokens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MetricResult {
    /// Samples.
    pub count: u64,
    /// Turns that never came to have it, and count as above every bound.
    pub above: u64,
    /// The least.
    pub min_us: u64,
    /// The mean.
    pub mean_us: f64,
    /// The median; this and the following are of the samples alone, without `above`.
    pub p50_us: u64,
    /// The 90th percentile.
    pub p90_us: u64,
    /// The 95th percentile.
    pub p95_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The 99.9th percentile.
    pub p999_us: u64,
    /// The greatest.
    pub max_us: u64,
    /// All of them: HdrHistogram V2 deflate, base64.
    pub histogram: String,
    /// The length of a block in seconds, where there are blocks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub block_s: Option<u64>,
    /// The blocks of the steady phase, where a budget limits the metric.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub blocks: Vec<BlockResult>,
}

/// One block of a metric.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BlockResult {
    /// Samples.
    pub count: u64,
    /// Turns that count as above every bound.
    pub above: u64,
    /// The samples, in the same form as the tier's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub histogram: Option<String>,
}

impl From<&Totals> for Counts {
    fn from(totals: &Totals) -> Self {
        Self {
            intended: totals.intended,
            started: totals.started,
            dropped: totals.dropped,
            outcomes: by_name(&totals.outcomes),
            errors: totals.outcomes.errors(),
            tokens: totals.tokens,
            retries: totals.retries,
            told_to_wait: totals.told_to_wait,
            waited: totals.waited,
            resumes: totals.resumes,
            late_tokens: totals.late,
            checked: totals.checked,
            flaws: totals.flaws,
            wires: totals.wires.iter().map(|(wire, turns)| (wire.name().to_owned(), *turns)).collect(),
        }
    }
}

impl MetricResult {
    fn new(histogram: &Histogram<u64>, above: u64) -> Self {
        Self {
            count: histogram.len(),
            above,
            min_us: histogram.min(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
            histogram: encode(histogram),
            block_s: None,
            blocks: Vec::new(),
        }
    }

    /// The histogram itself.
    ///
    /// # Errors
    /// When the text is no HdrHistogram.
    pub fn decode(&self) -> Result<Histogram<u64>, DecodeError> {
        decode(&self.histogram)
    }
}

impl BlockResult {
    /// The block's histogram; `None` where nothing was recorded.
    ///
    /// # Errors
    /// When the text is no HdrHistogram.
    pub fn decode(&self) -> Result<Option<Histogram<u64>>, DecodeError> {
        self.histogram.as_deref().map(decode).transpose()
    }
}

/// A histogram in a result that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("a histogram of the result cannot be read: {0}")]
pub struct DecodeError(String);

fn decode(text: &str) -> Result<Histogram<u64>, DecodeError> {
    let bytes = STANDARD.decode(text).map_err(|error| DecodeError(error.to_string()))?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| DecodeError(error.to_string()))
}

/// The metrics of one tier, by name, with blocks where the recorder kept them.
pub fn metrics(record: &TierRecord) -> BTreeMap<Metric, MetricResult> {
    let (blocks, width) = record.blocks();
    let empty = crate::record::new_histogram();
    Metric::ALL
        .into_iter()
        .filter_map(|metric| {
            let above = record.above(metric);
            let histogram = record.metrics.get(metric);
            if histogram.is_none() && above == 0 {
                return None;
            }
            let mut result = MetricResult::new(histogram.unwrap_or(&empty), above);
            if blocks.iter().any(|block| block.get(metric).is_some() || block.above(metric) > 0) {
                result.block_s = Some((width / SECOND) as u64);
                result.blocks = blocks
                    .iter()
                    .map(|block| BlockResult {
                        count: block.get(metric).map_or(0, Histogram::len),
                        above: block.above(metric),
                        histogram: block.get(metric).map(encode),
                    })
                    .collect();
            }
            Some((metric, result))
        })
        .collect()
}

/// The steps of a run, by name.
pub fn steps_of(steps: &Steps) -> BTreeMap<Step, StepResult> {
    let result = |(step, record): (Step, &StepRecord)| {
        let latency = MetricResult::new(&record.latency, 0);
        (step, StepResult { outcomes: by_name(&record.outcomes), latency, examples: record.examples.clone() })
    };
    steps.iter().map(result).collect()
}

/// Outcomes by their names.
fn by_name(outcomes: &OutcomeCounts) -> BTreeMap<String, u64> {
    let names = serde_json::to_value(outcomes).and_then(serde_json::from_value);
    names.expect("outcomes are a map of numbers")
}

/// The metrics of one tier's failed turns, by name.
pub fn failed_metrics(record: &TierRecord) -> BTreeMap<Metric, MetricResult> {
    let found = |metric| Some((metric, MetricResult::new(record.failed.get(metric)?, 0)));
    Metric::ALL.into_iter().filter_map(found).collect()
}
