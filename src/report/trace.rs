//! Where the time of traced turns went, whether every token arrived, and how exact the generator is.

use super::load::{Form, Load, head, is_open};
use super::section::{count, heads};
use super::view::{Block, Cell, Group, Table};
use super::words;
use crate::lang::Texts;
use crate::result::{Finding, Flaw, Parts, RunResult, Stack, TierResult, TierTraceResult, TraceResult};
use crate::secret::escaped;

/// The findings that a report shows.
const FINDINGS: usize = 10;
/// So far above what was calibrated a run is still like it: a tier's streams are never exactly as many.
const ALIKE: f64 = 1.05;
/// Tokens an arrival from which on a report speaks of it.
const COALESCED: f64 = 1.5;

/// The tiers with what their traced turns have told.
pub(super) fn traced(result: &RunResult) -> Vec<(&TierResult, &TierTraceResult)> {
    result.tiers.iter().filter_map(|tier| Some((tier, tier.trace.as_ref()?))).collect()
}

/// Where the time went.
pub(super) fn time(result: &RunResult, texts: &Texts) -> Vec<Block> {
    let tiers = traced(result);
    let Some(trace) = result.trace.as_ref().filter(|_| tiers.iter().any(|(_, tier)| tier.ttft.is_some())) else {
        return Vec::new();
    };
    let rows = |stack: fn(&TierTraceResult) -> Option<Stack>, parts: fn(&Parts) -> Vec<(bool, u64)>| {
        let row = |tier: &TierResult, quantile: &str, of: &Parts| {
            let mut row = vec![Load::of(tier).cell(texts), Cell::Text(quantile.to_owned())];
            row.extend(parts(of).into_iter().map(|(crosses, value)| part(trace, crosses, value)));
            row
        };
        let both = tiers.iter().filter_map(|(tier, trace)| Some((tier, stack(trace)?)));
        both.flat_map(|(tier, stack)| [row(tier, "p50", &stack.median), row(tier, "p95", &stack.p95)]).collect()
    };
    let first = head(is_open(result));
    let ttft = Table {
        caption: texts.get("caption-ttft-parts"),
        head: heads(
            texts,
            &[
                first,
                "head-turns-around",
                "part-generator",
                "part-connect",
                "part-before-llm",
                "part-llm",
                "part-relay",
                "metric-ttft",
            ],
        ),
        rows: rows(
            |trace| trace.ttft,
            |parts| {
                vec![
                    (false, parts.generator),
                    (false, parts.connect),
                    (true, parts.before_llm),
                    (false, parts.llm_first),
                    (true, parts.relay),
                    (false, parts.ttft()),
                ]
            },
        ),
    };
    let turn = Table {
        caption: texts.get("caption-turn-parts"),
        head: heads(
            texts,
            &[
                first,
                "head-turns-around",
                "part-generator",
                "part-connect",
                "part-before-llm",
                "part-llm",
                "part-finalise",
                "metric-turn",
            ],
        ),
        rows: rows(
            |trace| trace.turn,
            |parts| {
                vec![
                    (false, parts.generator),
                    (false, parts.connect),
                    (true, parts.before_llm),
                    (false, parts.llm),
                    (true, parts.finalise),
                    (false, parts.turn()),
                ]
            },
        ),
    };
    vec![
        Block::Text(texts.get("time-intro")),
        Block::Charts(Group::Time),
        Block::Table(ttft),
        Block::Table(turn),
        Block::Text(clocks(trace, texts)),
    ]
}

/// A part; one that crosses from one clock to the other cannot be less than what is known of their distance.
fn part(trace: &TraceResult, crosses: bool, value: u64) -> Cell {
    let uncertain = crosses && (value as f64) < trace.uncertainty_us;
    let shown = words::duration(if uncertain { trace.uncertainty_us } else { value as f64 });
    Cell::Number(if uncertain { format!("< {shown}") } else { shown })
}

/// Whether two clocks were in play.
fn clocks(trace: &TraceResult, texts: &Texts) -> String {
    if trace.same_host {
        return texts.get("clocks-same");
    }
    let drift = format!("{:+.1}", trace.drift_ppm);
    let offset = format!("{:+.2} ms", trace.offset_us / 1e3);
    let uncertainty = words::duration(trace.uncertainty_us);
    texts.with("clocks-apart", &[("offset", &offset), ("uncertainty", &uncertainty), ("drift", &drift)])
}

/// Whether every token arrived.
pub(super) fn tokens(result: &RunResult, texts: &Texts) -> Vec<Block> {
    let tiers = traced(result);
    let Some(trace) = result.trace.as_ref().filter(|_| !tiers.is_empty()) else { return Vec::new() };
    let mut head = heads(texts, &[head(is_open(result)), "head-turns-traced", "head-not-found"]);
    head.extend(Flaw::ALL.map(|flaw| words::flaw(texts, flaw)));
    head.extend(heads(texts, &["head-late", "head-coalescing", "head-held", "head-buffered"]));
    let row = |(tier, trace): &(&TierResult, &TierTraceResult)| {
        let relay = &trace.relay;
        let (tokens, arrivals) = (relay.tokens.max(1) as f64, relay.arrivals.max(1) as f64);
        let mut row = vec![Load::of(tier).cell(texts), count(trace.joined), count(trace.unjoined)];
        row.extend(Flaw::ALL.map(|flaw| count(tier.counts.flaws.get(flaw))));
        row.push(count(tier.counts.late_tokens));
        row.push(Cell::Number(format!("{:.2}", tokens / arrivals)));
        row.push(Cell::Number(words::duration(relay.held_us as f64 / tokens)));
        row.push(count(relay.buffered_turns));
        row
    };
    let table = Table { caption: texts.get("caption-tokens"), head, rows: tiers.iter().map(row).collect() };
    let mut blocks = vec![Block::Text(told(result, texts)), Block::Table(table)];
    let findings: Vec<&Finding> = result.tiers.iter().flat_map(|tier| &tier.findings).take(FINDINGS).collect();
    if !findings.is_empty() {
        blocks.push(Block::Table(examples(&findings, texts)));
    }
    let lines = lines(trace, &tiers, texts);
    if !lines.is_empty() {
        blocks.push(Block::List(lines));
    }
    blocks
}

/// Whether every token arrived, in a sentence.
pub(super) fn told(result: &RunResult, texts: &Texts) -> String {
    let (flaws, checked) = (result.totals.flaws, words::number(result.totals.checked));
    if flaws.total() == 0 {
        let key = match (result.totals.checked, result.totals.late_tokens) {
            (0, _) => return texts.get("tokens-none"),
            (_, 0) => "tokens-all",
            _ => "tokens-all-but-late",
        };
        return texts.with(key, &[("turns", &checked)]);
    }
    let found: Vec<String> = Flaw::ALL
        .into_iter()
        .filter(|flaw| flaws.get(*flaw) > 0)
        .map(|flaw| format!("{}: {}", words::flaw(texts, flaw), words::number(flaws.get(flaw))))
        .collect();
    texts.with("tokens-flawed", &[("flaws", &found.join(", "))])
}

fn examples(findings: &[&Finding], texts: &Texts) -> Table {
    let row = |finding: &&Finding| {
        vec![
            Cell::Text(words::flaw(texts, finding.flaw)),
            Cell::Foreign(escaped(&finding.turn, 100)),
            count(finding.position),
            Cell::Foreign(escaped(&finding.expected, 60)),
            Cell::Foreign(escaped(&finding.got, 60)),
        ]
    };
    Table {
        caption: texts.get("caption-findings"),
        head: heads(texts, &["head-flaw", "head-turn", "head-token", "head-expected", "head-got"]),
        rows: findings.iter().map(row).collect(),
    }
}

/// What else there is to say of calls and arrivals.
fn lines(trace: &TraceResult, tiers: &[(&TierResult, &TierTraceResult)], texts: &Texts) -> Vec<String> {
    let mut lines = Vec::new();
    if trace.extra_llm_calls > 0 {
        let [all, retries, asides] = [trace.extra_llm_calls, trace.retries, trace.asides].map(words::number);
        lines.push(texts.with("tokens-extra-calls", &[("all", &all), ("retries", &retries), ("asides", &asides)]));
    }
    for (tier, trace) in tiers {
        let relay = &trace.relay;
        let ratio = relay.tokens as f64 / relay.arrivals.max(1) as f64;
        if ratio >= COALESCED {
            let load = Load::of(tier).name(texts, Form::Concurrent);
            let together = words::share(relay.together as f64 / relay.tokens.max(1) as f64);
            let ratio = format!("{ratio:.1}");
            lines.push(texts.with("tokens-coalesced", &[("load", &load), ("ratio", &ratio), ("together", &together)]));
        }
    }
    if trace.lost_entries + trace.missed > 0 {
        lines.push(texts.with("tokens-not-read", &[("count", &words::number(trace.lost_entries + trace.missed))]));
    }
    if let Some(why) = &trace.unreadable {
        lines.push(texts.with("tokens-unreadable", &[("why", &escaped(why, 300))]));
    }
    lines
}

/// What the generator's numbers are right to, as far as this machine was ever looked at.
pub(super) fn error_bar(result: &RunResult, texts: &Texts) -> String {
    let Some(found) = &result.generator.calibration else { return texts.get("calibration-none") };
    let most = result.tiers.iter().map(|tier| tier.streams).fold(0.0, f64::max);
    let error = found.error_p50_us.abs().max(found.error_p99_us.abs());
    let arguments = [
        ("error", words::duration(error as f64)),
        ("streams", words::number(u64::from(found.streams))),
        ("rate", words::number(found.tokens_per_s as u64)),
        ("shards", words::number(found.shards as u64)),
        ("at", escaped(found.at.get(..10).unwrap_or(&found.at), 40)),
    ];
    let arguments: Vec<(&str, &str)> = arguments.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let rate = result.tiers.iter().map(|tier| tier.counts.tokens as f64 / tier.steady_s.max(1.0)).fold(0.0, f64::max);
    let beyond = most > f64::from(found.streams) * ALIKE
        || rate > found.tokens_per_s * ALIKE
        || result.generator.shards != found.shards;
    let key = if beyond { "calibration-beyond" } else { "calibration-known" };
    texts.with(key, &arguments)
}
