//! What tracing has found, in a result.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::record::{Parts, Reading, Relay, Slow, TierTrace};

/// Tracing over the whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceResult {
    /// How white space of replies was compared: `exact`, `trim-ends` or `collapse`.
    pub white_space: String,
    /// Whether the mock and this tool read the same clock.
    pub same_host: bool,
    /// How far the mock's clock ran ahead of ours in the end, in microseconds.
    pub offset_us: f64,
    /// How much faster it ran, in millionths.
    pub drift_ppm: f64,
    /// To within how much its distance is known, in microseconds: what is smaller cannot be told from nothing.
    pub uncertainty_us: f64,
    /// The distance as it was measured during the run.
    pub readings: Vec<Reading>,
    /// Calls of the model that were no turn's stream: retries, titles, summaries.
    pub extra_llm_calls: u64,
    /// Of them, those for a turn that the model had been asked for already.
    pub retries: u64,
    /// Of them, those about a turn: its title, a summary.
    pub asides: u64,
    /// Entries of the mock's journal that were gone before they were read.
    pub lost_entries: u64,
    /// Turns that were not looked for, because too many ended at once.
    pub missed: u64,
    /// Why the journal could not be read at the end, if so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unreadable: Option<String>,
}

/// Tracing in one tier's steady phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TierTraceResult {
    /// Turns found on both sides.
    pub joined: u64,
    /// Turns whose first token came, and that were not found in the mock's journal.
    pub unjoined: u64,
    /// Turns found on both sides of which single tokens could not be told, though the mock had kept their stamps.
    #[serde(default)]
    pub unmeasured: u64,
    /// How tokens came through.
    pub relay: Relay,
    /// The parts of turns by time to first token.
    pub ttft: Option<Stack>,
    /// The parts of turns by turn latency.
    pub turn: Option<Stack>,
    /// The completed turns to which the deployment added most, the most first.
    pub slowest: Vec<Slow>,
}

/// The parts of turns around two quantiles: means over the turns nearby, so that they sum up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    /// Turns that were looked at.
    pub turns: u64,
    /// Around the median: from the 45th to the 55th percentile.
    pub median: Parts,
    /// Around the 95th percentile: from the 92.5th to the 97.5th.
    pub p95: Parts,
}

/// What a machine was found to carry as a generator, by `capacity-check calibrate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// The version of the tool.
    pub version: String,
    /// Threads that carried users.
    pub shards: usize,
    /// The most streams at once at which the generator was not in the way.
    pub streams: u32,
    /// Tokens a second that came with them.
    pub tokens_per_s: f64,
    /// There, the median of the time to first token less that of the mock's own journal, in microseconds.
    pub error_p50_us: i64,
    /// The same for the 99th percentiles.
    pub error_p99_us: i64,
}

/// A tier's traces as a result.
pub fn tier_trace(trace: &TierTrace) -> TierTraceResult {
    let sample = trace.sample();
    TierTraceResult {
        joined: trace.joined,
        unjoined: trace.unjoined,
        unmeasured: trace.unmeasured,
        relay: trace.relay,
        ttft: stack(&sample, Parts::ttft),
        turn: stack(&sample, Parts::turn),
        slowest: trace.slowest.clone(),
    }
}

fn stack(sample: &[Parts], by: impl Fn(&Parts) -> u64) -> Option<Stack> {
    let mut sorted = sample.to_vec();
    sorted.sort_by_key(|parts| (by(parts), parts.turn(), parts.ttft()));
    let around = |from: f64, to: f64| {
        let index = |share: f64| ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
        mean(&sorted[index(from)..=index(to)])
    };
    (!sorted.is_empty()).then(|| Stack {
        turns: sorted.len() as u64,
        median: around(0.45, 0.55),
        p95: around(0.925, 0.975),
    })
}

fn mean(turns: &[Parts]) -> Parts {
    let of = |part: fn(&Parts) -> u64| turns.iter().map(part).sum::<u64>() / turns.len() as u64;
    Parts {
        generator: of(|parts| parts.generator),
        connect: of(|parts| parts.connect),
        before_llm: of(|parts| parts.before_llm),
        llm_first: of(|parts| parts.llm_first),
        relay: of(|parts| parts.relay),
        llm: of(|parts| parts.llm),
        finalise: of(|parts| parts.finalise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_of_the_turns_around_its_quantile() {
        let turn = |before_llm| Parts { before_llm, llm_first: 100, relay: 10, ..Parts::default() };
        let sample: Vec<Parts> = (0..1_000).rev().map(turn).collect();
        let found = stack(&sample, Parts::ttft).unwrap();
        assert_eq!((found.turns, found.median.before_llm, found.p95.before_llm), (1_000, 500, 950));
        assert_eq!(found.median.ttft(), 610);
        assert_eq!(stack(&[turn(7)], Parts::ttft).unwrap().p95.before_llm, 7);
        assert!(stack(&[], Parts::ttft).is_none());
    }
}
