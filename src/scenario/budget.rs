//! Budgets: a metric, a statistic, a pass bound and a warn bound.

use std::fmt;

use mock_llm::distribution::parse_duration;
use mock_llm::unknown;
use serde::{Serialize, Serializer};

use crate::metric::{Metric, SHARE, Unit};

/// A quantile that a budget may limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statistic {
    /// The median.
    P50,
    /// The 90th percentile.
    P90,
    /// The 95th percentile.
    P95,
    /// The 99th percentile.
    P99,
    /// The 99.9th percentile.
    P999,
}

impl Statistic {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 5] =
        [(Self::P50, "p50"), (Self::P90, "p90"), (Self::P95, "p95"), (Self::P99, "p99"), (Self::P999, "p999")];

    /// The quantile, between 0 and 1.
    pub fn quantile(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P95 => 0.95,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
        }
    }

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What a budget limits, in the order of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetMetric {
    /// A quantile of a latency.
    Latency(Metric, Statistic),
    /// The share of turns that failed.
    ErrorRate,
    /// The number of turns with such a reply: passes at 0, fails at 1.
    Replies(Spoilt),
}

/// How a reply that is known in advance can be spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spoilt {
    /// Tokens lost, doubled, reordered or altered.
    Corrupted,
    /// Tokens of another user's turn.
    Leaked,
}

impl Spoilt {
    /// The name, which is that of the outcome.
    pub fn name(self) -> &'static str {
        match self {
            Self::Corrupted => "corrupted",
            Self::Leaked => "leaked",
        }
    }
}

impl fmt::Display for BudgetMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(metric, statistic) => write!(f, "{}.{}", metric.name(), statistic.name()),
            Self::ErrorRate => f.write_str("error_rate"),
            Self::Replies(spoilt) => f.write_str(spoilt.name()),
        }
    }
}

impl Serialize for BudgetMetric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The two bounds of a budget: microseconds for latencies, millionths for `overhead_share`, a share from 0 to 1
/// for the error rate, turns for spoilt replies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limit {
    /// Within it: pass.
    pub pass: f64,
    /// Above it: fail.
    pub warn: f64,
}

/// One budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Budget {
    /// What is limited.
    pub metric: BudgetMetric,
    /// The bounds.
    #[serde(flatten)]
    pub limit: Limit,
}

impl Budget {
    /// Reads `ttft.p95=1s,3s` or `error_rate=1%,5%`. With one bound, pass and warn are the same.
    ///
    /// # Errors
    /// A sentence that says what was expected, with the nearest name for a misspelt one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (metric, bounds) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` has no bounds; write METRIC.STATISTIC=PASS,WARN like ttft.p95=1s,3s"))?;
        let metric = parse_metric(metric.trim())?;
        let (pass, warn) = bounds.split_once(',').unwrap_or((bounds, bounds));
        let bound = |text: &str| match metric {
            BudgetMetric::Latency(metric, _) if metric.unit() == Unit::Share => {
                parse_share(text.trim()).map(|share| share * SHARE)
            }
            BudgetMetric::Latency(..) => parse_duration(text.trim()).map(|duration| duration.as_micros() as f64),
            BudgetMetric::ErrorRate | BudgetMetric::Replies(_) => parse_share(text.trim()),
        };
        let limit = Limit { pass: bound(pass)?, warn: bound(warn)? };
        if limit.pass <= 0.0 {
            return Err(format!("`{text}`: no number of turns proves a bound of 0; write a larger one"));
        }
        if limit.pass > limit.warn {
            return Err(format!("`{text}`: the pass bound is above the warn bound"));
        }
        Ok(Self { metric, limit })
    }
}

fn parse_metric(text: &str) -> Result<BudgetMetric, String> {
    if text == "error_rate" {
        return Ok(BudgetMetric::ErrorRate);
    }
    let (name, statistic) = text.split_once('.').unwrap_or((text, ""));
    let names = Metric::BUDGETED.iter().map(|metric| metric.name()).chain(["error_rate"]);
    let Some(metric) = Metric::BUDGETED.into_iter().find(|metric| metric.name() == name) else {
        return Err(unknown("metric", name, names));
    };
    let statistics = Statistic::ALL.iter().map(|(_, name)| *name);
    match Statistic::ALL.into_iter().find(|(_, name)| *name == statistic) {
        Some((statistic, _)) => Ok(BudgetMetric::Latency(metric, statistic)),
        None if statistic.is_empty() => Err(format!("`{name}` needs a statistic, like `{name}.p95`")),
        None => Err(unknown("statistic", statistic, statistics)),
    }
}

/// Reads `5%` or `0.05`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is no share; write a percentage like 5%")),
    }
}

/// What must hold where nothing else is said: where turns are traced what the deployment adds, whatever the
/// model's speed; elsewhere what users feel.
pub fn default_budgets(traced: bool) -> Vec<Budget> {
    let texts = if traced {
        ["ttft_overhead.p95=500ms,1500ms", "token_delay.p99=200ms,500ms", "error_rate=1%,5%"]
    } else {
        ["ttft.p95=1s,3s", "itl.p95=200ms,500ms", "error_rate=1%,5%"]
    };
    let read = |text: &str| Budget::parse(text).expect("the default budgets are written correctly");
    let none = |spoilt| Budget { metric: BudgetMetric::Replies(spoilt), limit: Limit { pass: 0.0, warn: 0.0 } };
    let spoilt = [Spoilt::Corrupted, Spoilt::Leaked].into_iter().filter(|_| traced).map(none);
    texts.into_iter().map(read).chain(spoilt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_read_as_written() {
        let budget = Budget::parse("ttft.p95=1s,3s").unwrap();
        assert_eq!(budget.metric, BudgetMetric::Latency(Metric::Ttft, Statistic::P95));
        assert_eq!(budget.limit, Limit { pass: 1e6, warn: 3e6 });
        assert_eq!(Budget::parse("error_rate=1%").unwrap().limit, Limit { pass: 0.01, warn: 0.01 });
        assert_eq!((default_budgets(false).len(), default_budgets(true).len()), (3, 5));
        assert_eq!(Budget::parse("overhead_share.p95=10%,20%").unwrap().limit, Limit { pass: 1e5, warn: 2e5 });
        for (statistic, name) in Statistic::ALL {
            assert_eq!(statistic.name(), name);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_a_hint() {
        for (text, part) in [
            ("ttfb.p95=1s,3s", "unknown metric `ttfb`; did you mean `ttft`?"),
            ("ttft.p59=1s", "unknown statistic `p59`; did you mean `p50`?"),
            ("ttft=1s", "`ttft` needs a statistic"),
            ("ttft.p95", "has no bounds"),
            ("ttft.p95=3s,1s", "the pass bound is above the warn bound"),
            ("ttft.p95=1000", "with a unit"),
            ("error_rate=7", "`7` is no share"),
            ("error_rate=0%,5%", "no number of turns proves a bound of 0"),
            ("receive_lag.p95=1s", "unknown metric `receive_lag`"),
        ] {
            let error = Budget::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
