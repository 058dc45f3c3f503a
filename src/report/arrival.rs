//! How load arrived: turns at moments of their own, journeys, whether the load was steady, and what a crowd left.

use super::load::{Form, Load, head, is_open, length};
use super::section::{NAME, count, heads};
use super::view::{Block, Cell, Table};
use super::words;
use crate::lang::Texts;
use crate::metric::Metric;
use crate::result::{Drift, LittlesLaw, RunResult, TierResult};
use crate::secret::escaped;

/// The section; nothing where load came from users who waited for answers, and nothing is to be said of it.
pub(super) fn blocks(result: &RunResult, texts: &Texts) -> Vec<Block> {
    let mut blocks = Vec::new();
    if is_open(result) {
        blocks.extend([Block::Text(texts.get("arrival-open")), Block::Table(turns(result, texts))]);
    }
    let mut lines = lines(result, texts);
    lines.extend(recovery(result, texts));
    if !lines.is_empty() {
        blocks.push(Block::List(lines));
    }
    if !result.journeys.is_empty() {
        blocks.push(Block::Table(journeys(result, texts)));
    }
    if result.tiers.iter().any(|tier| !tier.drift.is_empty()) {
        blocks.push(Block::Table(drifts(result, texts)));
    }
    if result.tiers.iter().any(|tier| tier.law.is_some()) {
        blocks.extend([Block::Text(texts.get("law-intro")), Block::Table(laws(result, texts))]);
    }
    blocks
}

/// What is to be said in sentences, but for the recovery from a crowd, which is part of the answers.
pub(super) fn lines(result: &RunResult, texts: &Texts) -> Vec<String> {
    let mut lines = Vec::new();
    let totals = &result.totals;
    if totals.dropped > 0 {
        lines.push(dropped(result, texts));
    }
    if totals.told_to_wait > 0 {
        let (told, waited) = (words::number(totals.told_to_wait), words::number(totals.waited));
        lines.push(texts.with("told-to-wait", &[("told", &told), ("waited", &waited)]));
    }
    for tier in &result.tiers {
        lines.extend(tier.law.iter().filter(|law| !law.holds).map(|law| broken(tier, law, texts)));
        let drifting = tier.drift.iter().filter(|(_, drift)| drift.drifts);
        lines.extend(drifting.map(|(metric, drift)| drifted(tier, *metric, drift, texts)));
    }
    let mut drifts = result.tiers.iter().flat_map(|tier| tier.drift.values()).peekable();
    if drifts.peek().is_some() && drifts.all(|drift| !drift.drifts) {
        lines.push(texts.get("drift-none"));
    }
    lines
}

/// When the deployment was as usual again after a crowd.
pub(super) fn recovery(result: &RunResult, texts: &Texts) -> Option<String> {
    let found = result.recovery?;
    let usual = words::duration(found.usual_us);
    Some(match found.recovered_s {
        None => texts.with("recovery-none", &[("usual", &usual)]),
        Some(after) if after > 0.0 => {
            texts.with("recovery-after", &[("after", &length(texts, after)), ("usual", &usual)])
        }
        Some(_) => texts.with("recovery-at-once", &[("usual", &usual)]),
    })
}

fn dropped(result: &RunResult, texts: &Texts) -> String {
    let (turns, of) = (words::number(result.totals.dropped), words::number(result.totals.intended));
    if !is_open(result) {
        return texts.with("happened-dropped", &[("count", &turns)]);
    }
    let users = words::number(u64::from(result.asked));
    texts.with("arrival-dropped", &[("turns", &turns), ("of", &of), ("users", &users)])
}

fn turns(result: &RunResult, texts: &Texts) -> Table {
    let row = |tier: &TierResult| {
        let counts = &tier.counts;
        let users = u64::from(tier.users);
        vec![
            Load::of(tier).cell(texts),
            count(counts.intended),
            count(counts.started),
            count(counts.dropped),
            count(users),
        ]
    };
    Table {
        caption: texts.get("caption-arrival"),
        head: heads(texts, &[head(true), "head-intended", "head-begun", "head-dropped", "head-most-users"]),
        rows: result.tiers.iter().map(row).collect(),
    }
}

/// The journeys by name, with those who followed each.
fn journeys(result: &RunResult, texts: &Texts) -> Table {
    let row = |(name, users): (&String, &u64)| vec![Cell::Foreign(escaped(name, NAME)), count(*users)];
    Table {
        caption: texts.get("caption-journeys"),
        head: heads(texts, &["head-journey", "head-users"]),
        rows: result.journeys.iter().map(row).collect(),
    }
}

fn laws(result: &RunResult, texts: &Texts) -> Table {
    let row = |tier: &TierResult| {
        let law = tier.law?;
        Some(vec![
            Load::of(tier).cell(texts),
            Cell::Number(words::decimal(law.streams)),
            Cell::Number(words::decimal(law.turns_per_s)),
            Cell::Number(words::duration(law.mean_turn_s * 1e6)),
            Cell::Number(format!("{:.3}", law.ratio)),
            Cell::Number(format!("1 ± {:.3}", law.tolerance)),
            Cell::Text(yes_or_no(law.holds, texts)),
        ])
    };
    let keys = [
        head(is_open(result)),
        "head-streams",
        "head-turn-rate",
        "head-mean-turn",
        "head-law-ratio",
        "head-tolerance",
        "head-holds",
    ];
    Table {
        caption: texts.get("caption-law"),
        head: heads(texts, &keys),
        rows: result.tiers.iter().filter_map(row).collect(),
    }
}

fn broken(tier: &TierResult, law: &LittlesLaw, texts: &Texts) -> String {
    let (load, ratio) = (Load::of(tier).name(texts, Form::Users), format!("{:.2}", law.ratio));
    texts.with("law-broken", &[("load", &load), ("ratio", &ratio)])
}

fn drifts(result: &RunResult, texts: &Texts) -> Table {
    let mut rows = Vec::new();
    for tier in &result.tiers {
        for (metric, drift) in &tier.drift {
            let change = |value| signed(*metric, value, texts);
            let interval = format!("{} ({}, {})", change(drift.per_hour), change(drift.lower), change(drift.upper));
            rows.push(vec![
                Load::of(tier).cell(texts),
                Cell::Text(words::metric(texts, *metric)),
                Cell::Number(words::value(metric.name(), drift.median)),
                Cell::Number(interval),
                Cell::Number(share(drift.change)),
                Cell::Text(yes_or_no(drift.drifts, texts)),
            ]);
        }
    }
    let keys = [head(is_open(result)), "head-metric", "head-median", "head-per-hour", "head-over-phase", "head-drifts"];
    Table { caption: texts.get("caption-drift"), head: heads(texts, &keys), rows }
}

fn drifted(tier: &TierResult, metric: Metric, drift: &Drift, texts: &Texts) -> String {
    let key = if drift.per_hour < 0.0 { "drift-down" } else { "drift-up" };
    texts.with(
        key,
        &[
            ("load", &Load::of(tier).name(texts, Form::Users)),
            ("metric", &words::metric(texts, metric)),
            ("change", &words::share(drift.change.abs())),
            ("length", &length(texts, tier.steady_s)),
        ],
    )
}

/// A change of a metric with its sign.
fn signed(metric: Metric, change: f64, texts: &Texts) -> String {
    format!("{}{}", sign(change), words::difference(texts, metric.name(), change.abs()))
}

fn share(change: f64) -> String {
    format!("{}{}", sign(change), words::share(change.abs()))
}

fn sign(change: f64) -> &'static str {
    if change < 0.0 { "-" } else { "+" }
}

fn yes_or_no(yes: bool, texts: &Texts) -> String {
    texts.get(if yes { "yes" } else { "no" })
}
