//! The table of tiers: what each budget measured against its bounds, with the interval.

use super::load::{Load, head, is_open};
use super::view::{Cell, Table};
use super::words;
use crate::lang::Texts;
use crate::result::{BudgetResult, RunResult, TierResult, Verdict};

pub(super) fn tier_table(result: &RunResult, texts: &Texts) -> Table {
    let mut names: Vec<&str> = Vec::new();
    for budget in result.tiers.iter().flat_map(|tier| &tier.budgets) {
        if !names.contains(&budget.metric.as_str()) {
            names.push(&budget.metric);
        }
    }
    let keys = [head(is_open(result)), "head-turn-rate", "head-streams", "head-verdict"];
    let mut head: Vec<String> = keys.iter().map(|key| texts.get(key)).collect();
    let mut common = Vec::new();
    for name in &names {
        let bounds = common_bounds(result, name);
        let title = words::budget(texts, name);
        head.push(bounds.as_ref().map_or_else(|| title.clone(), |bounds| format!("{title}\n{bounds}")));
        common.push(bounds.is_some());
    }
    head.push(texts.get("head-errors"));
    let rows = result.tiers.iter().map(|tier| row(tier, &names, &common, texts)).collect();
    Table { caption: texts.get("caption-tiers"), head, rows }
}

fn row(tier: &TierResult, names: &[&str], common: &[bool], texts: &Texts) -> Vec<Cell> {
    let mut row = vec![
        Load::of(tier).cell(texts),
        Cell::Number(words::decimal(tier.turns_per_s)),
        Cell::Number(words::decimal(tier.streams)),
        Cell::Verdict(tier.verdict, verdict(tier, texts)),
    ];
    for (name, common) in names.iter().zip(common) {
        let budget = tier.budgets.iter().find(|budget| budget.metric == *name);
        row.push(Cell::Number(budget.map_or_else(|| "-".to_owned(), |budget| measured(budget, *common, texts))));
    }
    let errors = [("errors", words::number(tier.counts.errors)), ("turns", words::number(tier.counts.started))];
    let errors: Vec<(&str, &str)> = errors.iter().map(|(name, value)| (*name, value.as_str())).collect();
    row.push(Cell::Number(texts.with("errors-of-turns", &errors)));
    row
}

/// The verdict's word, and whether it was expected.
fn verdict(tier: &TierResult, texts: &Texts) -> String {
    let word = words::verdict(texts, tier.verdict);
    let Some(expected) = tier.expect else { return word };
    let key = if tier.verdict.meets(expected) { "verdict-as-expected" } else { "verdict-not-as-expected" };
    texts.with(key, &[("verdict", &word), ("expected", &words::verdict(texts, expected))])
}

/// The bounds of a budget, where they are the same in all tiers.
fn common_bounds(result: &RunResult, name: &str) -> Option<String> {
    let all = result.tiers.iter().flat_map(|tier| &tier.budgets).filter(|budget| budget.metric == name);
    let mut texts: Vec<String> = all.map(bounds).collect();
    texts.dedup();
    if texts.len() == 1 { texts.pop() } else { None }
}

fn bounds(budget: &BudgetResult) -> String {
    let of = |bound| words::value(&budget.metric, bound);
    if budget.pass == budget.warn {
        format!("≤ {}", of(budget.pass))
    } else {
        format!("≤ {} / {}", of(budget.pass), of(budget.warn))
    }
}

/// What was measured, with the interval, and a mark where it is no pass: `412 ms (398–431 ms)`.
fn measured(budget: &BudgetResult, common: bool, texts: &Texts) -> String {
    let nothing = budget.samples == 0;
    let mut text = if nothing { "-".to_owned() } else { words::open_value(texts, &budget.metric, budget.measured) };
    let interval = match (budget.lower, budget.upper) {
        (Some(lower), Some(upper)) => {
            Some(format!("{}–{}", bare(budget, lower, upper), words::value(&budget.metric, upper)))
        }
        (Some(lower), None) => Some(format!("≥ {}", words::value(&budget.metric, lower))),
        (None, Some(upper)) => Some(format!("≤ {}", words::value(&budget.metric, upper))),
        (None, None) => None,
    };
    if let Some(interval) = interval.filter(|_| !nothing) {
        text += &format!(" ({interval})");
    }
    if budget.verdict != Verdict::Pass {
        text += &format!(" {}", words::mark(budget.verdict));
    }
    if common { text } else { format!("{text}\n{}", bounds(budget)) }
}

/// The lower bound, without its unit where the upper one has the same.
fn bare(budget: &BudgetResult, lower: f64, upper: f64) -> String {
    let (lower, upper) = (words::value(&budget.metric, lower), words::value(&budget.metric, upper));
    let unit = |text: &str| text.split_once(' ').map(|(_, unit)| unit.to_owned());
    match (lower.split_once(' '), unit(&upper)) {
        (Some((number, unit)), Some(other)) if unit == other => number.to_owned(),
        _ => lower,
    }
}
