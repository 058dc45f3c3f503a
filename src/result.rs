//! The one result of a run: serialised, versioned, and all that reports ever see.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde::{Deserialize, Serialize};

use crate::clock::SECOND;
use crate::metric::Metric;
pub use crate::record::Step;
use crate::record::{Example, OutcomeCounts, StepRecord, Steps, TierRecord, TimelinePoint, Totals, encode};

/// The version of the form; it rises when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// How good a run, a tier or a budget is. In the order of [`Verdict::worse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within the pass bound, with 95 % confidence.
    Pass,
    /// Neither proved to be within the pass bound nor to be above the warn bound.
    Warn,
    /// Nothing can be said: too few samples, or a generator that was in the way.
    Inconclusive,
    /// Above the warn bound, with 95 % confidence.
    Fail,
}

impl Verdict {
    /// The worse of two. A failure is worse than not knowing, and not knowing is worse than a
    /// warning: so another budget never improves a verdict.
    pub fn worse(self, other: Self) -> Self {
        self.max(other)
    }

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }
}

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunResult {
    /// The version of this form.
    pub schema_version: u32,
    /// What made it.
    pub tool: Tool,
    /// What was asked for, as resolved.
    pub scenario: serde_json::Value,
    /// What was tested.
    pub target: TargetInfo,
    /// When the run began, RFC 3339 in UTC.
    pub started_at: String,
    /// How long it took.
    pub duration_s: f64,
    /// Whether it can be compared with others and may gate: not so for `--quick`.
    pub comparable: bool,
    /// The verdict of the tier that was asked for.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<String>,
    /// How the run ended.
    pub end: End,
    /// The most users at which the verdict is still pass.
    pub capacity: Capacity,
    /// The tiers that were begun.
    pub tiers: Vec<TierResult>,
    /// All turns of the run, those of ramps and drains among them.
    pub totals: Counts,
    /// The generator over the whole run.
    pub generator: GeneratorResult,
    /// What users did besides turns, over the whole run.
    #[serde(default)]
    pub steps: BTreeMap<Step, StepResult>,
    /// A point a second.
    pub timeline: Vec<TimelinePoint>,
}

/// What made a result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tool {
    /// `capacity-check`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What was tested.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetInfo {
    /// `embedded`, `openai` or `librechat`.
    pub kind: String,
    /// The base URL.
    pub url: String,
    /// The endpoint of LibreChat that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub endpoint: Option<String>,
    /// The model that was asked for.
    pub model: String,
    /// Whether a turn was found in the journal of our mock.
    pub mock: bool,
    /// Whether any certificate was accepted.
    pub insecure: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how", content = "detail")]
pub enum End {
    /// Every tier was run.
    Finished,
    /// Somebody asked for an early end.
    Interrupted,
    /// A guard was tripped.
    Guard(String),
}

/// The answer to "how many users does it carry?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// The largest tier that passed, with every smaller one; `None`: not even the smallest did.
    pub users: Option<u32>,
    /// The smallest tier above it that did not pass; `None`: none was seen, so the capacity may be more.
    pub not_passed: Option<u32>,
}

/// Counts of turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Turns that the load model wanted.
    pub intended: u64,
    /// Turns that were begun.
    pub started: u64,
    /// Turns that could not be begun.
    pub dropped: u64,
    /// How the begun ones ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Of them, the target's failures.
    pub errors: u64,
    /// Content tokens received.
    pub tokens: u64,
    /// Requests sent again because a kept-alive connection was closing.
    pub retries: u64,
    /// Streams taken up again after they had broken off.
    #[serde(default)]
    pub resumes: u64,
    /// Words of whole texts that never arrived as tokens: somebody subscribed late.
    #[serde(default)]
    pub unseen_tokens: u64,
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
            resumes: totals.resumes,
            unseen_tokens: totals.unseen,
        }
    }
}

/// One tier.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TierResult {
    /// Concurrent users.
    pub users: u32,
    /// The worst budget's verdict, unless the generator was in the way.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<String>,
    /// Whether the steady phase was run to its end.
    pub complete: bool,
    /// When the steady phase began, in seconds of the run.
    pub steady_from_s: f64,
    /// How long it was.
    pub steady_s: f64,
    /// Turns of the steady phase.
    #[serde(flatten)]
    pub counts: Counts,
    /// Turns a second, by intended start.
    pub turns_per_s: f64,
    /// Mean streams in flight.
    pub streams: f64,
    /// Metrics of completed turns, and of the generator, by name.
    pub metrics: BTreeMap<Metric, MetricResult>,
    /// Metrics of turns that failed.
    pub failed_metrics: BTreeMap<Metric, MetricResult>,
    /// What each budget measured.
    pub budgets: Vec<BudgetResult>,
    /// The generator during the steady phase.
    pub generator: TierGenerator,
    /// A few turns of each outcome but success, with what the target said.
    pub examples: Vec<Example>,
}

/// One step: how often it was done, how it ended, how long it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepResult {
    /// How it ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Of those that succeeded.
    pub latency: MetricResult,
    /// A few of those that did not.
    pub examples: Vec<Example>,
}

/// One metric: microseconds, over turns or tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockResult {
    /// Samples.
    pub count: u64,
    /// Turns that count as above every bound.
    pub above: u64,
    /// The samples, in the same form as the tier's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub histogram: Option<String>,
}

/// What a budget measured, in microseconds or as a share from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetResult {
    /// The budget, such as `ttft.p95`.
    pub metric: String,
    /// The pass bound.
    pub pass: f64,
    /// The warn bound.
    pub warn: f64,
    /// What was measured; `None`: nothing, or above every bound.
    pub measured: Option<f64>,
    /// The lower 95 % bound; `None`: too few samples, or above every bound.
    pub lower: Option<f64>,
    /// The upper 95 % bound, likewise.
    pub upper: Option<f64>,
    /// Independent samples: turns, or blocks of tokens.
    pub samples: u64,
    /// What follows.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// How many more seconds of the same would decide, where that is so.
    pub more_seconds: Option<u64>,
}

/// The generator during one tier's steady phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TierGenerator {
    /// CPU time over wall time: 1 is one core.
    pub cpu_cores: f64,
    /// The same over the cores that the shards have.
    pub cpu_share: f64,
    /// Resident memory at its end.
    pub rss_bytes: u64,
    /// Open descriptors at its end.
    pub fds: u64,
    /// First tokens received.
    pub first_tokens: u64,
    /// Of them, those whose stamp is only an upper bound.
    pub first_tokens_bounded: u64,
    /// Of them, those whose bounds are more than 10 ms apart.
    pub first_tokens_wide: u64,
    /// Arrivals of tokens.
    pub arrivals: u64,
    /// Of them, those stamped in user space, for want of a kernel stamp.
    pub user_space_stamps: u64,
}

/// The generator over the whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GeneratorResult {
    /// Threads that carried users.
    pub shards: usize,
    /// Cores of the machine.
    pub cores: usize,
    /// The limit of open descriptors in force.
    pub fd_limit: u64,
    /// Local ports that connections to one address may use.
    pub ports: u64,
    /// The most resident memory.
    pub peak_rss_bytes: u64,
    /// Steps of the wall clock that were seen.
    pub clock_steps: u64,
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
