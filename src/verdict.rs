//! Budgets to verdicts, with reasons. A verdict is a statistical statement: a budget's pass and
//! fail are each wrong in at most 5 % of cases, and what was not measured never passes. A tier
//! passes only with all its budgets, so its pass is wrong no more often.

use hdrhistogram::Histogram;

use crate::analysis::{
    Interval, LEAST_BLOCKS, blocks_interval, capacity, exceeding, generator_causes, quantile_interval, rate_interval,
    samples_for_quantile, samples_for_rate, would_fail_with, would_pass_with,
};
use crate::metric::{Metric, Unit};
use crate::result::{BudgetResult, DecodeError, End, Reason, RunResult, SampleUnit, TierResult, Verdict};
use crate::scenario::{Budget, BudgetMetric, Limit, Spoilt, Statistic, Tier};

/// What is traced proves nothing where more turns are missing than this share of those that may be above a bound.
const MISSING: f64 = 0.2;

/// Judges every tier and the run, and writes verdicts, reasons and capacity into the result.
/// `planned` are the tiers that were asked for, of which those of the result are the first; the run is about the largest,
/// or about the usual load before a crowd and after it.
///
/// # Errors
/// When a histogram of the result cannot be read.
pub fn judge(result: &mut RunResult, planned: &[Tier]) -> Result<(), DecodeError> {
    let run = Run::of(result);
    for (index, tier) in result.tiers.iter_mut().enumerate() {
        let plan = planned.get(index);
        tier.expect = plan.and_then(|plan| plan.expect);
        judge_tier(tier, plan.map_or(&[], |plan| &plan.budgets), run)?;
    }
    result.capacity = capacity(&result.tiers);
    result.asked = planned.iter().map(|tier| tier.users).max().unwrap_or(0);
    result.asked_rate = planned.iter().filter_map(|tier| tier.rate).reduce(f64::max);
    result.reasons = run_reasons(result, planned);
    let told = planned.iter().enumerate().filter_map(|(index, plan)| contribution(result, index, plan));
    let verdict = told.fold(Verdict::Pass, Verdict::worse);
    // A leak is one wherever it happens, in a ramp too.
    result.verdict = if leaked(result) > 0 { Verdict::Fail } else { verdict };
    Ok(())
}

/// What a planned tier adds to the verdict of the run: the one that was asked for its verdict, any
/// other only where it carries an expectation. An expectation that is met is a pass, one that is
/// missed a failure, and what could not be decided meets none. A run that was stopped early meets
/// no expectation in the tier in which that happened.
fn contribution(result: &RunResult, index: usize, plan: &Tier) -> Option<Verdict> {
    if plan.expect.is_none() && !result.is_about(plan.role, plan.users, plan.rate) {
        return None;
    }
    let Some(tier) = result.tiers.get(index) else {
        return Some(Verdict::Inconclusive);
    };
    Some(match (plan.expect, tier.verdict) {
        (Some(expected), verdict) if verdict.meets(expected) && tier.complete => Verdict::Pass,
        (Some(_), Verdict::Warn) => Verdict::Fail,
        (_, verdict) => verdict,
    })
}

/// Turns with tokens of another user's.
fn leaked(result: &RunResult) -> u64 {
    result.totals.outcomes.get(Spoilt::Leaked.name()).copied().unwrap_or(0)
}

fn run_reasons(result: &RunResult, planned: &[Tier]) -> Vec<Reason> {
    let leaked = Some(leaked(result)).filter(|turns| *turns > 0);
    let leaked = leaked.map(|turns| Reason::Spoilt { budget: Spoilt::Leaked.name().to_owned(), turns });
    let ended = match &result.end {
        End::Finished => None,
        End::Interrupted => Some(Reason::Interrupted),
        End::Guard(what) => Some(what.clone()),
    };
    let about = |plan: &Tier| result.is_about(plan.role, plan.users, plan.rate);
    let last = planned.iter().enumerate().rfind(|(_, plan)| about(plan));
    let missing = last.filter(|(index, _)| *index >= result.tiers.len());
    let missing = missing.map(|(_, plan)| Reason::NotReached { users: plan.users, rate: plan.rate, role: plan.role });
    leaked.into_iter().chain(ended).chain(missing).collect()
}

/// What is the same for all tiers of a run.
#[derive(Clone, Copy)]
struct Run {
    clock_steps: u64,
    /// To within how much the mock's clock is known, in microseconds.
    uncertainty_us: f64,
    /// The share of turns that were not looked for in the mock's journal.
    missed: f64,
}

impl Run {
    fn of(result: &RunResult) -> Self {
        let trace = result.trace.as_ref();
        let missed = trace.map_or(0, |trace| trace.missed) as f64;
        Self {
            clock_steps: result.generator.clock_steps,
            uncertainty_us: trace.map_or(0.0, |trace| trace.uncertainty_us),
            missed: missed / result.totals.started.max(1) as f64,
        }
    }
}

fn judge_tier(tier: &mut TierResult, budgets: &[Budget], run: Run) -> Result<(), DecodeError> {
    tier.budgets = budgets.iter().map(|budget| judge_budget(tier, budget, run)).collect::<Result<_, _>>()?;
    // The generator is judged first: what it spoiled proves nothing either way.
    let mut causes = generator_causes(tier, run.clock_steps);
    // But no generator puts another turn's words into a reply.
    let spoilt = |budget: &&BudgetResult| {
        budget.metric == Spoilt::Leaked.name() && matches!(budget.reason, Reason::Spoilt { .. })
    };
    let found: Vec<Reason> = tier.budgets.iter().filter(spoilt).map(|budget| budget.reason.clone()).collect();
    if !causes.is_empty() && !found.is_empty() {
        causes.splice(0..0, found);
        (tier.verdict, tier.reasons) = (Verdict::Fail, causes);
        return Ok(());
    }
    if !causes.is_empty() {
        (tier.verdict, tier.reasons) = (Verdict::Inconclusive, causes);
        return Ok(());
    }
    tier.verdict = tier.budgets.iter().map(|budget| budget.verdict).fold(Verdict::Pass, Verdict::worse);
    let open = tier.budgets.iter().filter(|budget| budget.verdict != Verdict::Pass);
    tier.reasons = open.map(|budget| budget.reason.clone()).collect();
    if tier.budgets.is_empty() {
        tier.verdict = Verdict::Inconclusive;
        tier.reasons.push(Reason::NoBudget);
    }
    if tier.counts.dropped > 0 && tier.verdict != Verdict::Fail {
        // What was never served is not in any number here, the error rate's among them.
        tier.verdict = Verdict::Inconclusive;
        if !tier.reasons.iter().any(|reason| matches!(reason, Reason::Dropped { .. })) {
            let (turns, of) = (tier.counts.dropped, tier.counts.intended);
            tier.reasons.push(Reason::Dropped { budget: BudgetMetric::ErrorRate.to_string(), turns, of });
        }
    }
    let cut = !tier.complete || tier.counts.outcomes.contains_key("interrupted");
    if cut && tier.verdict != Verdict::Fail {
        tier.verdict = Verdict::Inconclusive;
        tier.reasons.insert(0, Reason::CutShort);
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
    unit: SampleUnit,
}

/// How many turns are above each bound, and the share of them that may be.
struct Beyond {
    pass: (u64, f64),
    warn: (u64, f64),
}

fn judge_budget(tier: &TierResult, budget: &Budget, run: Run) -> Result<BudgetResult, DecodeError> {
    let mut measured = match budget.metric {
        BudgetMetric::Replies(spoilt) => return Ok(judge_replies(tier, budget, spoilt)),
        BudgetMetric::ErrorRate => measure_error_rate(tier, budget.limit),
        BudgetMetric::Latency(metric, statistic) if metric.is_of_tokens() => measure_tokens(tier, metric, statistic)?,
        BudgetMetric::Latency(metric, statistic) => measure_turns(tier, metric, statistic, budget.limit)?,
    };
    let turns_per_second = tier.counts.started as f64 / tier.steady_s.max(1e-9);
    let missing = match budget.metric {
        BudgetMetric::Latency(metric, statistic) if Metric::TRACED.contains(&metric) => {
            if let Some(interval) = measured.interval.as_mut().filter(|_| metric.unit() == Unit::Time) {
                // Across two clocks what is measured may be wrong by so much either way.
                interval.lower = interval.lower.map(|lower| lower - run.uncertainty_us);
                interval.upper = interval.upper.map(|upper| upper + run.uncertainty_us);
            }
            Some(missing_share(tier, metric) + run.missed)
                .filter(|share| *share > (1.0 - statistic.quantile()) * MISSING)
        }
        _ => None,
    };
    let dropped = tier.counts.dropped;
    let is_latency = matches!(budget.metric, BudgetMetric::Latency(..));
    let (verdict, reason) = match missing {
        Some(share) => (Verdict::Inconclusive, Reason::TraceIncomplete { budget: budget.metric.to_string(), share }),
        None => match decide(budget, &measured, turns_per_second) {
            // Who was never served has no latency: what is measured of the others looks better than it is.
            (Verdict::Pass | Verdict::Warn | Verdict::Inconclusive, _) if is_latency && dropped > 0 => {
                let reason =
                    Reason::Dropped { budget: budget.metric.to_string(), turns: dropped, of: tier.counts.intended };
                (Verdict::Inconclusive, reason)
            }
            decided => decided,
        },
    };
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
    })
}

/// Spoilt replies are counted: none passes, one fails.
fn judge_replies(tier: &TierResult, budget: &Budget, spoilt: Spoilt) -> BudgetResult {
    let turns = tier.counts.outcomes.get(spoilt.name()).copied().unwrap_or(0);
    let name = budget.metric.to_string();
    let looked_at = tier.counts.checked.max(turns);
    let (verdict, reason) = match (turns, looked_at) {
        (0, 0) => (Verdict::Inconclusive, Reason::NothingMeasured { budget: name.clone() }),
        (0, _) => (Verdict::Pass, Reason::NoneSpoilt { budget: name.clone() }),
        _ => (Verdict::Fail, Reason::Spoilt { budget: name.clone(), turns }),
    };
    BudgetResult {
        metric: name,
        pass: budget.limit.pass,
        warn: budget.limit.warn,
        measured: (looked_at > 0).then_some(turns as f64),
        lower: None,
        upper: None,
        samples: looked_at,
        verdict,
        reason,
    }
}

/// The share of traced turns that were not found on the mock's side, or whose tokens could not be told.
fn missing_share(tier: &TierResult, metric: Metric) -> f64 {
    tier.trace.as_ref().map_or(0.0, |trace| {
        let missing = trace.unjoined + if metric.is_of_tokens() { trace.unmeasured } else { 0 };
        missing as f64 / (trace.joined + trace.unjoined).max(1) as f64
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
        unit: SampleUnit::Turns,
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
        return Ok(Measured { interval: None, samples: 0, needed, beyond: None, unit: SampleUnit::Turns });
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
        unit: SampleUnit::Turns,
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
        unit: SampleUnit::Blocks,
    })
}

/// A value that is not above every bound.
fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

fn decide(budget: &Budget, measured: &Measured, turns_per_second: f64) -> (Verdict, Reason) {
    let Limit { pass, warn } = budget.limit;
    let budget_name = budget.metric.to_string();
    let Some(interval) = measured.interval else {
        return (Verdict::Inconclusive, Reason::NothingMeasured { budget: budget_name });
    };
    let value = finite(Some(interval.measured));
    if interval.lower.is_some_and(|lower| lower > warn) {
        let lower = finite(interval.lower);
        return (Verdict::Fail, Reason::Above { budget: budget_name, measured: value, lower, warn });
    }
    match interval.upper {
        Some(upper) if upper <= pass => {
            (Verdict::Pass, Reason::Within { budget: budget_name, measured: interval.measured, upper, pass })
        }
        Some(_) if measured.samples >= measured.needed => {
            let reason = Reason::Undecided {
                budget: budget_name,
                measured: value,
                lower: interval.lower.unwrap_or(0.0),
                upper: finite(interval.upper),
                pass,
                warn,
                more_seconds: more_seconds(measured, interval, budget.limit, turns_per_second),
            };
            (Verdict::Warn, reason)
        }
        _ => {
            let missing = measured.needed.saturating_sub(measured.samples);
            let reason = Reason::TooFew {
                budget: budget_name,
                samples: measured.samples,
                needed: measured.needed,
                unit: measured.unit,
                more_seconds: match measured.unit {
                    SampleUnit::Turns => seconds_for(missing, turns_per_second),
                    SampleUnit::Blocks => Some(5 * missing),
                },
            };
            (Verdict::Inconclusive, reason)
        }
    }
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
