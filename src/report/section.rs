//! The sections of a report, in their order.

use serde_json::Value;

use super::load::{Form, Load, head, is_open};
use super::tier::tier_table;
use super::view::{Block, Cell, Group, Section, Table};
use super::{arrival, reason, trace, watch, words};
use crate::lang::Texts;
use crate::metric::Metric;
use crate::result::{End, Example, MetricResult, RunResult, StepResult, TargetInfo, TierResult, Wire};
use crate::secret::escaped;

/// The longest text of a target that is shown, in characters.
pub(super) const FOREIGN: usize = 300;
/// The longest name; a result file may come from anywhere.
pub(super) const NAME: usize = 80;

/// The metrics that a user feels, and their parts.
const FELT: [Metric; 12] = [
    Metric::Ttft,
    Metric::TtftFromSend,
    Metric::TtftOverhead,
    Metric::BeforeLlm,
    Metric::TokenDelay,
    Metric::Finalise,
    Metric::OverheadShare,
    Metric::Itl,
    Metric::Tpot,
    Metric::Turn,
    Metric::Connect,
    Metric::Tls,
];

pub(super) fn all(result: &RunResult, texts: &Texts) -> Vec<Section> {
    let mut sections = vec![
        section("tiers", texts.get("section-tiers"), tiers(result, texts)),
        section("arrival", texts.get("section-arrival"), arrival::blocks(result, texts)),
        section("time", texts.get("section-time"), trace::time(result, texts)),
        section("tokens", texts.get("section-tokens"), trace::tokens(result, texts)),
        section("charts", texts.get("section-charts"), vec![Block::Charts(Group::Run)]),
        section("latencies", texts.get("section-latencies"), vec![Block::Table(latencies(result, texts))]),
    ];
    sections.extend(watch::sections(result, texts));
    sections.extend([
        section("happened", texts.get("section-happened"), happened(result, texts)),
        section("generator", texts.get("section-generator"), generator(result, texts)),
        section("method", texts.get("section-method"), method(result, texts)),
        section("not-loaded", texts.get("section-not-loaded"), not_loaded(texts)),
    ]);
    sections.retain(|section| !section.blocks.is_empty());
    sections
}

fn section(id: &'static str, title: String, blocks: Vec<Block>) -> Section {
    Section { id, title, blocks }
}

/// What was tested, when and by what, in a line.
pub(super) fn subject(result: &RunResult, texts: &Texts) -> String {
    let target = format!("{} ({})", result.target.url, result.target.kind);
    let tool = format!("{} {}", result.tool.name, result.tool.version);
    let arguments = [
        ("target", escaped(&target, FOREIGN)),
        ("started", escaped(&result.started_at, NAME)),
        ("duration", words::clock(result.duration_s)),
        ("tool", escaped(&tool, NAME)),
    ];
    let arguments: Vec<(&str, &str)> = arguments.iter().map(|(name, value)| (*name, value.as_str())).collect();
    texts.with("subject", &arguments)
}

fn tiers(result: &RunResult, texts: &Texts) -> Vec<Block> {
    let mut blocks = vec![Block::Table(tier_table(result, texts)), legend(texts)];
    let reasons: Vec<String> = result.tiers.iter().filter_map(|tier| reasons(tier, texts)).collect();
    if !reasons.is_empty() {
        blocks.push(Block::List(reasons));
    }
    blocks
}

/// Why a tier is no pass, in a line.
pub(super) fn reasons(tier: &TierResult, texts: &Texts) -> Option<String> {
    let reasons: Vec<String> = tier.reasons.iter().map(|reason| reason::sentence(texts, reason)).collect();
    let load = Load::of(tier).name(texts, Form::Users);
    let verdict = words::verdict(texts, tier.verdict);
    let arguments = [("load", load.as_str()), ("verdict", &verdict), ("reasons", &reasons.join(". "))];
    (!reasons.is_empty()).then(|| texts.with("tier-reasons", &arguments))
}

fn legend(texts: &Texts) -> Block {
    Block::Text(texts.with("tiers-legend", &[("confidence", &words::share(crate::analysis::CONFIDENCE))]))
}

pub(super) fn count(value: u64) -> Cell {
    Cell::Number(words::number(value))
}

fn micros(value: u64) -> Cell {
    Cell::Number(words::duration(value as f64))
}

pub(super) fn heads(texts: &Texts, keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| texts.get(key)).collect()
}

fn latencies(result: &RunResult, texts: &Texts) -> Table {
    let quantiles = |name: Metric, metric: &MetricResult| {
        let all = [metric.p50_us, metric.p90_us, metric.p95_us, metric.p99_us, metric.max_us];
        let shown = |value| if metric.count == 0 { "-".to_owned() } else { words::of_metric(name, value) };
        all.map(|value| Cell::Number(shown(value)))
    };
    let mut rows = Vec::new();
    for tier in &result.tiers {
        for (name, metric) in FELT.iter().filter_map(|name| Some((name, tier.metrics.get(name)?))) {
            let mut row = vec![Load::of(tier).cell(texts), Cell::Text(words::metric(texts, *name))];
            row.extend(quantiles(*name, metric));
            row.extend([count(metric.count), count(metric.above)]);
            rows.push(row);
        }
    }
    let mut head = heads(texts, &[head(is_open(result)), "head-metric"]);
    head.extend(["p50", "p90", "p95", "p99"].map(str::to_owned));
    head.extend(heads(texts, &["head-max", "head-samples", "head-never"]));
    Table { caption: texts.get("caption-latencies"), head, rows }
}

fn happened(result: &RunResult, texts: &Texts) -> Vec<Block> {
    let mut blocks = vec![Block::Table(outcomes(result, texts))];
    if !result.steps.is_empty() {
        blocks.push(Block::Table(steps(result, texts)));
    }
    let lines = streams(result, texts);
    if !lines.is_empty() {
        blocks.push(Block::List(lines));
    }
    blocks
}

/// What happened to streams and turns besides ending.
pub(super) fn streams(result: &RunResult, texts: &Texts) -> Vec<String> {
    let mut lines = Vec::new();
    if result.totals.resumes > 0 {
        lines.push(texts.with("happened-resumes", &[("count", &words::number(result.totals.resumes))]));
    }
    if result.totals.retries > 0 {
        lines.push(texts.with("happened-retries", &[("count", &words::number(result.totals.retries))]));
    }
    lines
}

/// How turns ended, by tier and in the whole run; the codes are those of result.json.
fn outcomes(result: &RunResult, texts: &Texts) -> Table {
    let mut head = heads(texts, &["head-outcome", "head-meaning"]);
    head.extend(result.tiers.iter().map(|tier| Load::of(tier).name(texts, Form::Users)));
    head.extend(heads(texts, &["head-whole-run", "head-example"]));
    let row = |(outcome, total): (&String, &u64)| {
        let mut row = vec![Cell::Text(escaped(outcome, NAME)), Cell::Text(words::outcome(texts, outcome))];
        row.extend(result.tiers.iter().map(|tier| count(tier.counts.outcomes.get(outcome).copied().unwrap_or(0))));
        let example = result.tiers.iter().find_map(|tier| example(&tier.examples, outcome));
        row.extend([count(*total), Cell::Foreign(example.unwrap_or_default())]);
        row
    };
    Table { caption: texts.get("caption-outcomes"), head, rows: result.totals.outcomes.iter().map(row).collect() }
}

/// What the target said in the first turn that ended like this.
fn example(examples: &[Example], outcome: &str) -> Option<String> {
    let found = examples.iter().find(|example| example.outcome == outcome)?;
    Some(escaped(&found.detail, FOREIGN))
}

fn steps(result: &RunResult, texts: &Texts) -> Table {
    let row = |(step, result): (&crate::result::Step, &StepResult)| {
        let failed: u64 = result.outcomes.iter().filter(|(name, _)| *name != "completed").map(|(_, count)| count).sum();
        let said = result.outcomes.keys().find_map(|outcome| example(&result.examples, outcome)).unwrap_or_default();
        let latency = &result.latency;
        let timed = |value| if latency.count == 0 { Cell::Number("-".to_owned()) } else { micros(value) };
        vec![
            Cell::Text(words::step(texts, *step)),
            count(result.outcomes.values().sum()),
            timed(latency.p50_us),
            timed(latency.p95_us),
            timed(latency.max_us),
            count(failed),
            Cell::Foreign(said),
        ]
    };
    let mut head = heads(texts, &["head-step", "head-times"]);
    head.extend(["p50", "p95"].map(str::to_owned));
    head.extend(heads(texts, &["head-max", "head-failed", "head-example"]));
    Table { caption: texts.get("caption-steps"), head, rows: result.steps.iter().map(row).collect() }
}

fn generator(result: &RunResult, texts: &Texts) -> Vec<Block> {
    let p99 = |tier: &TierResult, name: Metric| {
        tier.metrics.get(&name).map_or_else(|| Cell::Number("-".to_owned()), |metric| micros(metric.p99_us))
    };
    let row = |tier: &TierResult| {
        let generator = &tier.generator;
        let wide = generator.first_tokens_wide as f64 / generator.first_tokens.max(1) as f64;
        vec![
            Load::of(tier).cell(texts),
            p99(tier, Metric::StartLag),
            p99(tier, Metric::ReceiveLag),
            p99(tier, Metric::LoopDelay),
            Cell::Number(words::share(generator.cpu_share)),
            Cell::Number(words::mebibytes(generator.rss_bytes)),
            count(generator.fds),
            Cell::Number(words::share(wide)),
        ]
    };
    let keys = [
        head(is_open(result)),
        "head-start-lag",
        "head-receive-lag",
        "head-loop-delay",
        "head-cpu",
        "head-memory",
        "head-fds",
        "head-wide",
    ];
    let rows: Vec<Vec<Cell>> = result.tiers.iter().map(row).collect();
    let table = Table { caption: texts.get("caption-generator"), head: heads(texts, &keys), rows };
    vec![Block::Text(health(result, texts)), Block::Text(trace::error_bar(result, texts)), Block::Table(table)]
}

/// Whether the generator was in the way, in a sentence.
pub(super) fn health(result: &RunResult, texts: &Texts) -> String {
    let steps = result.generator.clock_steps;
    let causes: Vec<String> = result
        .tiers
        .iter()
        .flat_map(|tier| {
            crate::analysis::generator_causes(tier, steps).into_iter().map(move |cause| (Load::of(tier), cause))
        })
        .map(|(load, cause)| {
            let load = load.name(texts, Form::Users);
            texts.with("generator-cause", &[("load", &load), ("cause", &reason::sentence(texts, &cause))])
        })
        .collect();
    if causes.is_empty() { texts.get("generator-fine") } else { causes.join(" ") }
}

fn method(result: &RunResult, texts: &Texts) -> Vec<Block> {
    let rows = facts(result, texts).into_iter().map(|(name, value)| vec![Cell::Text(name), Cell::Text(value)]);
    let facts = Table {
        caption: texts.get("caption-facts"),
        head: heads(texts, &["head-fact", "head-value"]),
        rows: rows.collect(),
    };
    let mut flat = Vec::new();
    flatten("", &result.scenario, &mut flat);
    let rows = flat
        .into_iter()
        .map(|(key, value)| vec![Cell::Text(escaped(&key, NAME)), Cell::Foreign(escaped(&value, FOREIGN))]);
    let scenario = Table {
        caption: texts.get("caption-scenario"),
        head: heads(texts, &["head-setting", "head-value"]),
        rows: rows.collect(),
    };
    vec![Block::Text(texts.get("method-intro")), Block::Table(facts), Block::Table(scenario)]
}

fn facts(result: &RunResult, texts: &Texts) -> Vec<(String, String)> {
    let generator = &result.generator;
    let number = |value: u64| words::number(value);
    let mut facts = Vec::new();
    let mut add = |key: &str, value: String| facts.push((texts.get(key), value));
    add("fact-tool", escaped(&format!("{} {}", result.tool.name, result.tool.version), NAME));
    let target = &result.target;
    let endpoint = target.endpoint.as_ref().map(|endpoint| format!("{endpoint} / ")).unwrap_or_default();
    add("fact-target", escaped(&target.url, FOREIGN));
    add("fact-model", escaped(&format!("{endpoint}{}", target.model), FOREIGN));
    add("fact-mock", texts.get(if target.mock { "mock-ours" } else { "mock-other" }));
    for (key, value) in reached(target, texts) {
        add(key, value);
    }
    add("fact-started", escaped(&result.started_at, NAME));
    add("fact-duration", words::clock(result.duration_s));
    add(
        "fact-end",
        match &result.end {
            End::Finished => texts.get("end-finished"),
            End::Interrupted => texts.get("reason-interrupted"),
            End::Guard(what) => reason::sentence(texts, what),
        },
    );
    if let Some(machine) = &generator.machine {
        let memory = words::mebibytes(machine.memory_bytes);
        add("fact-machine", escaped(&format!("{}, {}, {memory}", machine.cpu, machine.system), FOREIGN));
    }
    let cores = [("shards", number(generator.shards as u64)), ("cores", number(generator.cores as u64))];
    let cores: Vec<(&str, &str)> = cores.iter().map(|(name, value)| (*name, value.as_str())).collect();
    add("fact-shards", texts.with("shards-of-cores", &cores));
    add(
        "fact-limits",
        texts.with("limits-of-machine", &[("fds", &number(generator.fd_limit)), ("ports", &number(generator.ports))]),
    );
    add("fact-peak-memory", words::mebibytes(generator.peak_rss_bytes));
    add("fact-clock", texts.with("clock-steps", &[("steps", &number(generator.clock_steps))]));
    if !result.totals.wires.is_empty() {
        add("fact-wires", wires(result, texts));
    }
    add("fact-stamps", stamps(result, texts));
    if let Some(trace) = &result.trace {
        add("fact-white-space", escaped(&trace.white_space, NAME));
    }
    facts
}

/// How the target was reached, where that was not as its URL alone says.
fn reached(target: &TargetInfo, texts: &Texts) -> Vec<(&'static str, String)> {
    let Some(reached) = &target.reached else { return Vec::new() };
    let list = |all: &[String]| all.iter().map(|one| escaped(one, NAME)).collect::<Vec<_>>().join(", ");
    let facts = [
        ("fact-sni", reached.sni.as_ref().map(|name| escaped(name, NAME))),
        ("fact-client-cert", reached.client_cert.then(|| texts.get("client-cert-ready"))),
        ("fact-resolved", (!reached.resolved.is_empty()).then(|| list(&reached.resolved))),
        ("fact-proxy", reached.proxy.as_ref().map(|proxy| escaped(proxy, NAME))),
        ("fact-source-addresses", (!reached.source_addresses.is_empty()).then(|| list(&reached.source_addresses))),
    ];
    facts.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// What carried the turns, and what HTTP/1.1 means for people with many tabs.
fn wires(result: &RunResult, texts: &Texts) -> String {
    let wires = &result.totals.wires;
    let turns = |(wire, turns): (&String, &u64)| {
        texts.with("wire-turns", &[("wire", &escaped(wire, NAME)), ("turns", &words::number(*turns))])
    };
    let told = wires.iter().map(turns).collect::<Vec<_>>().join(", ");
    if wires.contains_key(Wire::Http1.name()) { format!("{told}. {}", texts.get("wire-http1")) } else { told }
}

/// How many first tokens have an exact stamp, and how many a bound only.
fn stamps(result: &RunResult, texts: &Texts) -> String {
    let sum = |pick: fn(&TierResult) -> u64| result.tiers.iter().map(pick).sum::<u64>();
    let first = sum(|tier| tier.generator.first_tokens);
    let bounded = sum(|tier| tier.generator.first_tokens_bounded);
    let user_space = sum(|tier| tier.generator.user_space_stamps);
    texts.with(
        "stamps",
        &[
            ("exact", &words::number(first.saturating_sub(bounded))),
            ("bounded", &words::number(bounded)),
            ("userspace", &words::number(user_space)),
        ],
    )
}

/// A tree as dotted keys and values, in the order of the tree.
fn flatten(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Array(budgets) if path == "budgets" || path.ends_with(".budgets") => {
            let all: Vec<String> = budgets.iter().filter_map(budget).collect();
            out.push((path.to_owned(), all.join(", ")));
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&below, value, out);
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            for (index, value) in values.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), value, out);
            }
        }
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().map(plain).collect();
            out.push((path.to_owned(), texts.join(", ")));
        }
        other => out.push((path.to_owned(), plain(other))),
    }
}

/// A budget of the scenario with its bounds.
fn budget(value: &Value) -> Option<String> {
    let name = value["metric"].as_str()?;
    let [pass, warn] = ["pass", "warn"].map(|bound| value[bound].as_f64());
    Some(format!("{name} ≤ {} / {}", words::value(name, pass?), words::value(name, warn?)))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn not_loaded(texts: &Texts) -> Vec<Block> {
    let keys =
        ["not-files", "not-rag", "not-agents", "not-search", "not-tools", "not-media", "not-assets", "not-network"];
    vec![Block::Text(texts.get("not-loaded-intro")), Block::List(heads(texts, &keys))]
}
