//! From what the engine has left behind to the one result.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::calibrate::calibration;
use crate::clock::{self, Nanos, SECOND};
use crate::engine::{Output, Prepared, Stop, TierRun, Tripped};
use crate::record::{Steps, TierRecord, TimelinePoint};
use crate::result::{
    Capacity, Counts, End, GeneratorResult, Machine, Probes, Reason, Role, RunResult, SCHEMA_VERSION, TargetInfo,
    TierGenerator, TierResult, Tool, TraceResult, Verdict, failed_metrics, metrics, steps_of, tier_trace,
};
use crate::scenario::Scenario;
use crate::trace::Traces;

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
    /// What was found in the mock's journal, where it was looked at.
    pub(super) traces: Option<Traces>,
    /// What was seen beside the users.
    pub(super) probes: Option<Probes>,
    /// How many users followed which journey.
    pub(super) journeys: BTreeMap<String, u64>,
}

/// The result of a run, not judged yet.
pub(super) fn assemble(facts: Facts<'_>, output: Output) -> RunResult {
    let Facts { scenario, target, started, epoch, ended, prepared, mut steps, traces, probes, journeys } = facts;
    steps.merge(output.record.steps.clone());
    let mut record = output.record;
    let trace = traces.as_ref().map(|traces| trace_result(traces, scenario, epoch));
    let mut traced = Vec::new();
    if let Some(traces) = traces {
        record.merge(traces.record);
        traced = traces.tiers;
    }
    let totals = Counts::from(&record.totals());
    let mut records = record.tiers.into_iter();
    let tiers = output.tiers.iter().enumerate().map(|(number, run)| TierResult {
        trace: traced.get(number).map(tier_trace),
        rate: scenario.load.tiers[number].rate,
        role: scenario.load.tiers[number].role,
        ..tier(run, records.next(), epoch, scenario.shards, &output.timeline)
    });
    let tiers = tiers.collect();
    RunResult {
        schema_version: SCHEMA_VERSION,
        tool: Tool { name: "capacity-check".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        scenario: serde_json::to_value(scenario).expect("a scenario is plain data"),
        target,
        started_at: humantime::format_rfc3339_micros(started).to_string(),
        duration_s: seconds(ended - epoch),
        comparable: !scenario.quick,
        asked: scenario.peak(),
        asked_rate: scenario.load.peak_rate(),
        verdict: Verdict::Inconclusive,
        reasons: Vec::new(),
        end: match output.stop {
            Stop::Finished => End::Finished,
            Stop::Interrupted => End::Interrupted,
            Stop::Guard(what) => End::Guard(reason_of(&what)),
        },
        capacity: Capacity::default(),
        tiers,
        totals,
        trace,
        probes,
        recovery: None,
        journeys,
        steps: steps_of(&steps),
        generator: GeneratorResult {
            shards: scenario.shards,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            fd_limit: prepared.fds,
            ports: prepared.ports,
            peak_rss_bytes: output.peak_rss_bytes,
            clock_steps: output.clock_steps,
            calibration: calibration(),
            machine: machine(),
        },
        timeline: output.timeline,
    }
}

fn trace_result(traces: &Traces, scenario: &Scenario, epoch: Nanos) -> TraceResult {
    let white_space = serde_json::to_value(scenario.white_space).expect("a word");
    let offset = &traces.offset;
    TraceResult {
        white_space: white_space.as_str().unwrap_or_default().to_owned(),
        same_host: offset.is_same_host(),
        offset_us: offset.at(clock::monotonic()) as f64 / 1e3,
        drift_ppm: offset.drift_ppm(),
        uncertainty_us: offset.uncertainty_us(),
        readings: offset.readings(epoch),
        extra_llm_calls: traces.retries + traces.asides,
        retries: traces.retries,
        asides: traces.asides,
        lost_entries: traces.lost_entries,
        missed: traces.missed,
        unreadable: traces.unreadable.clone(),
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
        rate: None,
        role: Role::Step,
        expect: None,
        verdict: Verdict::Inconclusive,
        reasons: Vec::new(),
        complete: run.complete,
        steady_from_s: from,
        steady_s,
        counts: Counts::from(&record.totals),
        turns_per_s: if steady_s > 0.0 { record.totals.started as f64 / steady_s } else { 0.0 },
        streams: during.iter().sum::<u64>() as f64 / during.len().max(1) as f64,
        metrics: metrics(&record),
        failed_metrics: failed_metrics(&record),
        trace: None,
        findings: record.findings,
        law: None,
        drift: BTreeMap::new(),
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

/// A tripped guard as a reason.
pub(super) fn reason_of(tripped: &Tripped) -> Reason {
    match tripped {
        Tripped::ErrorRate { share, turns, limit } => Reason::ErrorRate { share: *share, turns: *turns, limit: *limit },
        Tripped::MaxDuration(limit) => Reason::MaxDuration { limit_s: limit.as_secs_f64() },
        Tripped::Banned(said) => Reason::Banned { said: said.clone() },
    }
}

/// What this runs on, as far as the system tells.
pub(super) fn machine() -> Option<Machine> {
    let system = nix::sys::utsname::uname().ok()?;
    let about = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory = about("/proc/meminfo", "MemTotal");
    let kibibytes = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    Some(Machine {
        system: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
        cpu: about("/proc/cpuinfo", "model name").unwrap_or_else(|| system.machine().to_string_lossy().into_owned()),
        memory_bytes: kibibytes * 1024,
    })
}

fn seconds(duration: Nanos) -> f64 {
    // Milliseconds are enough here, and shorter in the file.
    (duration as f64 / SECOND as f64 * 1_000.0).round() / 1_000.0
}
