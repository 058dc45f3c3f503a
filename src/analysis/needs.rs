//! How long a steady phase must be for its budgets to be decided at all.

use std::time::Duration;

use super::binomial::{samples_for_quantile, samples_for_rate};
use super::blocks::LEAST_BLOCKS;
use crate::clock::SECOND;
use crate::record::BLOCK;
use crate::scenario::{Budget, BudgetMetric};

/// Turns come at random: so much more time than the mean would want.
const MARGIN: f64 = 1.1;

/// The time in which so many turns a second give every budget the samples that its bound needs.
///
/// It follows from the turn rate alone, never from what was measured: the verdict looks once, and
/// so its bounds hold as they are.
pub fn steady_needed(budgets: &[Budget], turns_per_second: f64) -> Duration {
    let turns =
        |turns: u64| Duration::try_from_secs_f64(turns as f64 * MARGIN / turns_per_second).unwrap_or(Duration::MAX);
    let needed = |budget: &Budget| match budget.metric {
        BudgetMetric::Latency(metric, _) if metric.is_of_tokens() => {
            // Only blocks in which a turn starts count; turns come as a Poisson process.
            let block = Duration::from_nanos(BLOCK as u64);
            let filled = 1.0 - (-turns_per_second * block.as_secs_f64()).exp();
            let margin = if filled > 0.999 { 1.0 } else { MARGIN };
            let blocks = (LEAST_BLOCKS as f64 * margin / filled).ceil().min(1e6);
            block.saturating_mul(blocks as u32)
        }
        BudgetMetric::Latency(_, statistic) => turns(samples_for_quantile(statistic.quantile())),
        BudgetMetric::Replies(_) => Duration::ZERO,
        BudgetMetric::ErrorRate => turns(samples_for_rate(budget.limit.pass)),
    };
    let longest = budgets.iter().map(needed).max().unwrap_or_default();
    // Whole blocks, so that the last one is not a stump.
    let block = Duration::from_nanos(BLOCK as u64);
    let blocks = longest.as_nanos().div_ceil(block.as_nanos());
    block.saturating_mul(u32::try_from(blocks).unwrap_or((i64::MAX / SECOND) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::default_budgets;

    #[test]
    fn what_each_budget_wants() {
        let seconds = |text: &str, rate: f64| steady_needed(&[Budget::parse(text).unwrap()], rate).as_secs();
        assert_eq!(seconds("itl.p95=1s", 1_000.0), 100);
        assert_eq!(seconds("itl.p95=1s", 0.5), 120);
        assert_eq!(seconds("ttft.p95=1s", 2.5), 30);
        assert_eq!(seconds("ttft.p99=1s", 2.5), 135);
        assert_eq!(seconds("error_rate=1%", 2.5), 135);
        assert_eq!(steady_needed(&default_budgets(false), 25.0).as_secs(), 100);
        assert_eq!(steady_needed(&[], 1.0), Duration::ZERO);
        assert!(steady_needed(&default_budgets(false), 0.0) > Duration::from_hours(1));
        assert!(steady_needed(&default_budgets(false), f64::INFINITY).as_secs() == 100);
    }
}
