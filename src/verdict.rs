//! Budgets to verdicts, with reasons. A verdict is a statistical statement: a budget's pass and
//! fail are each wrong in at most 5 % of cases, and what was not measured never passes. A tier
//! passes only with all its budgets, so its pass is wrong no more often.

use hdrhistogram::Histogram;

use crate::analysis::{
    CONFIDENCE, Interval, LEAST_BLOCKS, blocks_interval, capacity, exceeding, generator_causes, quantile_interval,
    rate_interval, samples_for_quantile, samples_for_rate, would_fail_with, would_pass_with,
};
use crate::metric::Metric;
use crate::result::{BudgetResult, Capacity, DecodeError, End, RunResult, TierResult, Verdict};
use crate::scenario::{Budget, BudgetMetric, Limit, Statistic};

/// Judges every tier and the run, and writes verdicts, reasons and capacity into the result.
/// `asked` is the tier that the run is about.
///
/// # Errors
/// When a histogram of the result cannot be read.
pub fn judge(result: &mut RunResult, budgets: &[Budget], asked: u32) -> Result<(), DecodeError> {
    let clock_steps = result.generator.clock_steps;
    for tier in &mut result.tiers {
        judge_tier(tier, budgets, clock_steps)?;
    }
    result.capacity = capacity(&result.tiers);
    (result.verdict, result.reasons) = judge_run(result, asked);
    Ok(())
}

fn judge_run(result: &RunResult, asked: u32) -> (Verdict, Vec<String>) {
    let ended = match &result.end {
        End::Finished => None,
        End::Interrupted => Some("the run was interrupted".to_owned()),
        End::Guard(what) => Some(format!("the run was stopped by a guard: {what}")),
    };
    match result.tiers.iter().find(|tier| tier.users == asked) {
        Some(tier) => {
            let reasons = tier.reasons.iter().map(|reason| format!("{asked} users: {reason}"));
            (tier.verdict, ended.into_iter().chain(reasons).collect())
        }
        None => {
            let missing = format!("the tier of {asked} users was not reached");
            (Verdict::Inconclusive, ended.into_iter().chain([missing]).collect())
        }
    }
}

fn judge_tier(tier: &mut TierResult, budgets: &[Budget], clock_steps: u64) -> Result<(), DecodeError> {
    tier.budgets = budgets.iter().map(|budget| judge_budget(tier, budget)).collect::<Result<_, _>>()?;
    // The generator is judged first: what it spoiled proves nothing either way.
    let causes = generator_causes(tier, clock_steps);
    if !causes.is_empty() {
        (tier.verdict, tier.reasons) = (Verdict::Inconclusive, causes);
        return Ok(());
    }
    tier.verdict = tier.budgets.iter().map(|budget| budget.verdict).fold(Verdict::Pass, Verdict::worse);
    tier.reasons = tier
        .budgets
        .iter()
        .filter(|budget| budget.verdict != Verdict::Pass)
        .map(|budget| format!("{}: {}", budget.metric, budget.reason))
        .collect();
    if tier.budgets.is_empty() {
        tier.verdict = Verdict::Inconclusive;
        tier.reasons.push("there is no budget".to_owned());
    }
    let cut = !tier.complete || tier.counts.outcomes.contains_key("interrupted");
    if cut && tier.verdict != Verdict::Fail {
        tier.verdict = Verdict::Inconclusive;
        tier.reasons.insert(0, "the tier was cut short".to_owned());
    }
    Ok(())
}

/// What one budget measured in one tier.
struct Measured {
    interval: Option<Interval>,
    /// Independent samples.
    samples: u64,
    /// Samples that an upper bound needs.
    needed: u64,
    /// Of turns: those above the pass bound, those above the warn bound, and the share that may be
    /// above each.
    beyond: Option<Beyond>,
    unit: Unit,
}

/// How many turns are above each bound, and the share of them that may be.
struct Beyond {
    pass: (u64, f64),
    warn: (u64, f64),
}

#[derive(Clone, Copy)]
enum Unit {
    Turns,
    Blocks,
}

fn judge_budget(tier: &TierResult, budget: &Budget) -> Result<BudgetResult, DecodeError> {
    let measured = match budget.metric {
        BudgetMetric::ErrorRate => measure_error_rate(tier, budget.limit),
        BudgetMetric::Latency(metric, statistic) if metric.is_of_tokens() => measure_tokens(tier, metric, statistic)?,
        BudgetMetric::Latency(metric, statistic) => measure_turns(tier, metric, statistic, budget.limit)?,
    };
    let turns_per_second = tier.counts.started as f64 / tier.steady_s.max(1e-9);
    let Decision { verdict, reason, more_seconds } = decide(budget, &measured, turns_per_second);
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    Ok(BudgetResult {
        metric: budget.metric.to_string(),
        pass: budget.limit.pass,
        warn: budget.limit.warn,
        measured: finite(measured.interval.map(|interval| interval.measured)),
        lower: finite(measured.interval.and_then(|interval| interval.lower)),
        upper: finite(measured.interval.and_then(|interval| interval.upper)),
        samples: measured.samples,
        verdict,
        reason,
        more_seconds,
    })
}

fn measure_error_rate(tier: &TierResult, limit: Limit) -> Measured {
    let interrupted = tier.counts.outcomes.get("interrupted").copied().unwrap_or(0);
    let turns = tier.counts.outcomes.values().sum::<u64>() - interrupted;
    let errors = tier.counts.errors;
    Measured {
        interval: rate_interval(errors, turns),
        samples: turns,
        needed: samples_for_rate(limit.pass),
        beyond: Some(Beyond { pass: (errors, limit.pass), warn: (errors, limit.warn) }),
        unit: Unit::Turns,
    }
}

fn measure_turns(
    tier: &TierResult,
    metric: Metric,
    statistic: Statistic,
    limit: Limit,
) -> Result<Measured, DecodeError> {
    let quantile = statistic.quantile();
    let needed = samples_for_quantile(quantile);
    let Some(result) = tier.metrics.get(&metric) else {
        return Ok(Measured { interval: None, samples: 0, needed, beyond: None, unit: Unit::Turns });
    };
    let histogram = result.decode()?;
    let samples = histogram.len() + result.above;
    Ok(Measured {
        interval: quantile_interval(&histogram, result.above, quantile),
        samples,
        needed,
        beyond: Some(Beyond {
            pass: (exceeding(&histogram, result.above, limit.pass), 1.0 - quantile),
            warn: (exceeding(&histogram, result.above, limit.warn), 1.0 - quantile),
        }),
        unit: Unit::Turns,
    })
}

fn measure_tokens(tier: &TierResult, metric: Metric, statistic: Statistic) -> Result<Measured, DecodeError> {
    let decoded = tier.metrics.get(&metric).map(|result| result.blocks.iter().map(|block| block.decode()).collect());
    let blocks: Vec<Option<Histogram<u64>>> = decoded.transpose()?.unwrap_or_default();
    let blocks: Vec<Histogram<u64>> = blocks.into_iter().flatten().filter(|block| !block.is_empty()).collect();
    Ok(Measured {
        interval: blocks_interval(&blocks, statistic.quantile()),
        samples: blocks.len() as u64,
        needed: LEAST_BLOCKS as u64,
        beyond: None,
        unit: Unit::Blocks,
    })
}

struct Decision {
    verdict: Verdict,
    reason: String,
    more_seconds: Option<u64>,
}

fn decide(budget: &Budget, measured: &Measured, turns_per_second: f64) -> Decision {
    let Limit { pass, warn } = budget.limit;
    let show = |value: f64| shown(budget.metric, value);
    let Some(interval) = measured.interval else {
        return Decision {
            verdict: Verdict::Inconclusive,
            reason: "nothing was measured".to_owned(),
            more_seconds: None,
        };
    };
    let confidence = CONFIDENCE * 100.0;
    let value = show(interval.measured);
    if let Some(lower) = interval.lower.filter(|lower| *lower > warn) {
        let reason = format!(
            "{value}, at least {} with {confidence:.0} % confidence, above the limit of {}",
            show(lower),
            show(warn)
        );
        return Decision { verdict: Verdict::Fail, reason, more_seconds: None };
    }
    let unit = match measured.unit {
        Unit::Turns => "turns",
        Unit::Blocks => "blocks of 5 s",
    };
    match interval.upper {
        Some(upper) if upper <= pass => {
            let reason =
                format!("{value}, at most {} with {confidence:.0} % confidence, within {}", show(upper), show(pass));
            Decision { verdict: Verdict::Pass, reason, more_seconds: None }
        }
        Some(_) if measured.samples >= measured.needed => {
            let more_seconds = more_seconds(measured, interval, budget.limit, turns_per_second);
            let more = match more_seconds {
                Some(seconds) => format!("about {seconds} s more of the same would decide"),
                None => "it is between the bounds, and more of the same would not change that".to_owned(),
            };
            let range =
                format!("between {} and {}", show(interval.lower.unwrap_or(0.0)), show(upper_or_infinity(interval)));
            let reason =
                format!("{value}, {range}, not proved to be within {} nor above {}; {more}", show(pass), show(warn));
            Decision { verdict: Verdict::Warn, reason, more_seconds }
        }
        _ => {
            let more_seconds = match measured.unit {
                Unit::Turns => seconds_for(measured.needed.saturating_sub(measured.samples), turns_per_second),
                Unit::Blocks => Some(5 * measured.needed.saturating_sub(measured.samples)),
            };
            let more = more_seconds.map_or_else(String::new, |seconds| format!("; about {seconds} s more would do"));
            let reason = format!("{} of the {} {unit} that are needed{more}", measured.samples, measured.needed);
            Decision { verdict: Verdict::Inconclusive, reason, more_seconds }
        }
    }
}

fn upper_or_infinity(interval: Interval) -> f64 {
    interval.upper.unwrap_or(f64::INFINITY)
}

/// How many more seconds of the same would decide: prove a pass where the value is within the pass
/// bound, a failure where it is above the warn bound. Between them nothing decides.
fn more_seconds(measured: &Measured, interval: Interval, limit: Limit, turns_per_second: f64) -> Option<u64> {
    let passing = interval.measured < limit.pass;
    if !passing && interval.measured <= limit.warn {
        return None;
    }
    let Some(beyond) = &measured.beyond else {
        // An interval of blocks shrinks with the root of their number.
        let (bound, edge) = if passing { (limit.pass, interval.upper?) } else { (limit.warn, interval.lower?) };
        let factor = ((edge - interval.measured) / (bound - interval.measured)).powi(2);
        let blocks = measured.samples as f64 * (factor - 1.0).max(0.0);
        return (blocks.is_finite() && blocks < 1e5).then_some(5 * blocks.ceil() as u64);
    };
    let needed = if passing {
        would_pass_with(beyond.pass.0, measured.samples, beyond.pass.1)?
    } else {
        would_fail_with(beyond.warn.0, measured.samples, beyond.warn.1)?
    };
    seconds_for(needed.saturating_sub(measured.samples), turns_per_second)
}

fn seconds_for(turns: u64, turns_per_second: f64) -> Option<u64> {
    let seconds = turns as f64 / turns_per_second;
    (seconds.is_finite() && seconds < 7.0 * 86_400.0).then(|| seconds.ceil() as u64)
}

/// A budget's value with its unit.
pub fn shown(metric: BudgetMetric, value: f64) -> String {
    if value.is_infinite() {
        return "without end".to_owned();
    }
    match metric {
        BudgetMetric::ErrorRate => format!("{:.2} %", value * 100.0),
        BudgetMetric::Latency(..) if value >= 10_000_000.0 => format!("{:.1} s", value / 1e6),
        BudgetMetric::Latency(..) => format!("{:.0} ms", value / 1e3),
    }
}

/// The capacity in words.
pub fn capacity_sentence(result: &RunResult) -> String {
    let Capacity { users, not_passed } = result.capacity;
    let ended = |users: u32| {
        let verdict = result.tiers.iter().find(|tier| tier.users == users).map(|tier| tier.verdict);
        match verdict {
            Some(Verdict::Inconclusive) => format!("{users} users were not decided"),
            Some(Verdict::Warn) => format!("{users} users gave a warning"),
            _ => format!("{users} users were too many"),
        }
    };
    match (users, not_passed) {
        (Some(users), None) => {
            format!("The deployment carries {users} users, and perhaps more: no larger tier was run.")
        }
        (Some(users), Some(not)) => format!("The deployment carries {users} users; {}.", ended(not)),
        (None, Some(not)) => format!("No tier passed: {}.", ended(not)),
        (None, None) => "No tier was run.".to_owned(),
    }
}
