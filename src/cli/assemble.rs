//! From what the engine has left behind to the one result.

use std::time::SystemTime;

use crate::clock::{Nanos, SECOND};
use crate::engine::{Output, Prepared, Stop, TierRun};
use crate::record::{Steps, TierRecord, TimelinePoint};
use crate::result::{
    Capacity, Counts, End, GeneratorResult, RunResult, SCHEMA_VERSION, TargetInfo, TierGenerator, TierResult, Tool,
    Verdict, failed_metrics, metrics, steps_of,
};
use crate::scenario::Scenario;

/// What is known about a run besides what the engine tells.
pub(super) struct Facts<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) target: TargetInfo,
    pub(super) started: SystemTime,
    pub(super) epoch: Nanos,
    pub(super) ended: Nanos,
    pub(super) prepared: Prepared,
    /// What users did before the first tier.
    pub(super) steps: Steps,
}

/// The result of a run, not judged yet.
pub(super) fn assemble(facts: Facts<'_>, output: Output) -> RunResult {
    let Facts { scenario, target, started, epoch, ended, prepared, mut steps } = facts;
    steps.merge(output.record.steps.clone());
    let totals = Counts::from(&output.record.totals());
    let mut records = output.record.tiers.into_iter();
    let tiers =
        output.tiers.iter().map(|run| tier(run, records.next(), epoch, scenario.shards, &output.timeline)).collect();
    RunResult {
        schema_version: SCHEMA_VERSION,
        tool: Tool { name: "capacity-check".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        scenario: serde_json::to_value(scenario).expect("a scenario is plain data"),
        target,
        started_at: humantime::format_rfc3339_micros(started).to_string(),
        duration_s: seconds(ended - epoch),
        comparable: !scenario.quick,
        verdict: Verdict::Inconclusive,
        reasons: Vec::new(),
        end: match output.stop {
            Stop::Finished => End::Finished,
            Stop::Interrupted => End::Interrupted,
            Stop::Guard(what) => End::Guard(what),
        },
        capacity: Capacity { users: None, not_passed: None },
        tiers,
        totals,
        steps: steps_of(&steps),
        generator: GeneratorResult {
            shards: scenario.shards,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            fd_limit: prepared.fds,
            ports: prepared.ports,
            peak_rss_bytes: output.peak_rss_bytes,
            clock_steps: output.clock_steps,
        },
        timeline: output.timeline,
    }
}

fn tier(
    run: &TierRun,
    record: Option<TierRecord>,
    epoch: Nanos,
    shards: usize,
    timeline: &[TimelinePoint],
) -> TierResult {
    let record = record.unwrap_or_default();
    let steady_to = run.window.steady_to.unwrap_or(run.window.steady_from);
    let steady_s = seconds(steady_to - run.window.steady_from);
    let (from, to) = (seconds(run.window.steady_from - epoch), seconds(steady_to - epoch));
    let during: Vec<u64> = timeline
        .iter()
        .filter(|point| point.t_s as f64 > from && point.t_s as f64 <= to)
        .map(|point| point.in_flight)
        .collect();
    TierResult {
        users: run.users,
        verdict: Verdict::Inconclusive,
        reasons: Vec::new(),
        complete: run.complete,
        steady_from_s: from,
        steady_s,
        counts: Counts::from(&record.totals),
        turns_per_s: if steady_s > 0.0 { record.totals.intended as f64 / steady_s } else { 0.0 },
        streams: during.iter().sum::<u64>() as f64 / during.len().max(1) as f64,
        metrics: metrics(&record),
        failed_metrics: failed_metrics(&record),
        budgets: Vec::new(),
        generator: TierGenerator {
            cpu_cores: run.usage.cpu_cores,
            cpu_share: run.usage.cpu_cores / shards as f64,
            rss_bytes: run.usage.rss_bytes,
            fds: run.usage.fds,
            first_tokens: record.first_tokens,
            first_tokens_bounded: record.first_tokens_bounded,
            first_tokens_wide: record.first_tokens_wide,
            arrivals: record.arrivals,
            user_space_stamps: record.user_space_stamps,
        },
        examples: record.examples,
    }
}

fn seconds(duration: Nanos) -> f64 {
    // Milliseconds are enough here, and shorter in the file.
    (duration as f64 / SECOND as f64 * 1_000.0).round() / 1_000.0
}
