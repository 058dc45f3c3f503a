//! The report on a terminal: a table of the tiers, and the verdict in words.

use comfy_table::{Cell, CellAlignment, Color, Table, presets};

use crate::metric::Metric;
use crate::result::{MetricResult, RunResult, Step, StepResult, TierResult, Verdict};
use crate::verdict::capacity_sentence;

/// The tiers as a table; `colour` paints the verdicts.
pub fn tier_table(result: &RunResult, colour: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_NO_BORDERS).set_header([
        "users", "turns/s", "streams", "TTFT p50", "TTFT p95", "ITL p95", "turn p95", "errors", "verdict",
    ]);
    for tier in &result.tiers {
        table.add_row(row(tier, colour));
    }
    for column in table.column_iter_mut().take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn row(tier: &TierResult, colour: bool) -> Vec<Cell> {
    let latency = |metric, pick: fn(&MetricResult) -> u64| {
        let metric = tier.metrics.get(&metric).filter(|metric| metric.count > 0);
        metric.map_or_else(|| "-".to_owned(), |metric| milliseconds(pick(metric)))
    };
    let verdict = Cell::new(mark(tier.verdict));
    let verdict = if colour { verdict.fg(paint(tier.verdict)) } else { verdict };
    let texts = [
        tier.users.to_string(),
        format!("{:.1}", tier.turns_per_s),
        format!("{:.1}", tier.streams),
        latency(Metric::Ttft, |metric| metric.p50_us),
        latency(Metric::Ttft, |metric| metric.p95_us),
        latency(Metric::Itl, |metric| metric.p95_us),
        latency(Metric::Turn, |metric| metric.p95_us),
        format!("{} of {}", tier.counts.errors, tier.counts.started),
    ];
    texts.into_iter().map(Cell::new).chain([verdict]).collect()
}

/// A verdict with a mark, so that it is told not by colour alone.
fn mark(verdict: Verdict) -> String {
    let mark = match verdict {
        Verdict::Pass => "✔",
        Verdict::Warn => "!",
        Verdict::Inconclusive => "?",
        Verdict::Fail => "✘",
    };
    format!("{mark} {}", verdict.name())
}

fn paint(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Warn => Color::Yellow,
        Verdict::Inconclusive => Color::Cyan,
        Verdict::Fail => Color::Red,
    }
}

fn milliseconds(micros: u64) -> String {
    if micros < 10_000 { format!("{:.1} ms", micros as f64 / 1e3) } else { format!("{:.0} ms", micros as f64 / 1e3) }
}

/// The verdict of the run with its reasons, the capacity, what went wrong and how good the generator was.
pub fn summary(result: &RunResult) -> String {
    let mut lines = vec![format!("Verdict: {}. {}", mark(result.verdict), capacity_sentence(result))];
    lines.extend(result.reasons.iter().map(|reason| format!("  {reason}")));
    let asked = result.tiers.last().map(|tier| tier.users);
    for tier in &result.tiers {
        if Some(tier.users) != asked {
            lines.extend(tier.reasons.iter().map(|reason| format!("  {} users: {reason}", tier.users)));
        }
        lines.extend(outcomes(tier));
    }
    lines.extend(result.steps.iter().map(|(step, result)| step_line(*step, result)));
    lines.extend(streams(result));
    lines.extend(result.tiers.last().map(generator));
    if result.target.kind == "embedded" {
        lines.push(
            "These numbers describe the embedded reference deployment with its modelled costs, not a deployment of \
             yours: test that with --target."
                .to_owned(),
        );
    }
    if !result.comparable {
        lines.push("A quick run: a first look, not comparable with others.".to_owned());
    }
    if result.target.insecure {
        lines.push("Certificates were not verified (--insecure).".to_owned());
    }
    lines.join("\n")
}

fn outcomes(tier: &TierResult) -> Option<String> {
    let failed: Vec<String> = tier
        .counts
        .outcomes
        .iter()
        .filter(|(outcome, _)| *outcome != "completed")
        .map(|(outcome, count)| {
            let example = tier.examples.iter().find(|example| example.outcome == *outcome);
            let detail = example.map_or_else(String::new, |example| format!(" ({})", example.detail));
            format!("{count} {outcome}{detail}")
        })
        .collect();
    (!failed.is_empty()).then(|| format!("  {} users: {}", tier.users, failed.join(", ")))
}

/// One step in a line.
fn step_line(step: Step, result: &StepResult) -> String {
    let name = match step {
        Step::Registration => "Registrations",
        Step::Login => "Logins",
        Step::PageLoad => "Page loads",
        Step::Renewal => "Token renewals",
    };
    let all: u64 = result.outcomes.values().sum();
    let mut line = format!("{name}: {all}");
    if result.latency.count > 0 {
        let (p50, p95) = (milliseconds(result.latency.p50_us), milliseconds(result.latency.p95_us));
        line += &format!(", p50 {p50}, p95 {p95}");
    }
    let failed = result.outcomes.iter().filter(|(outcome, _)| *outcome != "completed");
    for (outcome, count) in failed {
        let example = result.examples.iter().find(|example| example.outcome == *outcome);
        let detail = example.map_or_else(String::new, |example| format!(" ({})", example.detail));
        line += &format!(", {count} {outcome}{detail}");
    }
    line + "."
}

/// What happened to streams besides ending.
fn streams(result: &RunResult) -> Vec<String> {
    let mut lines = Vec::new();
    if result.totals.resumes > 0 {
        lines.push(format!("Streams that broke off and were taken up again: {}.", result.totals.resumes));
    }
    if result.totals.unseen_tokens > 0 {
        lines.push(format!(
            "Stickiness: {} words of whole replies never arrived as tokens, though a reload of the page would show \
             them. Whoever subscribes to a stream late, or on another process than the one that generates, loses its \
             beginning: check that the balancer keeps a user on one process.",
            result.totals.unseen_tokens
        ));
    }
    lines
}

fn generator(tier: &TierResult) -> String {
    let p99 = |metric| tier.metrics.get(&metric).map_or(0, |metric| metric.p99_us);
    format!(
        "Generator at {} users: start lag p99 {}, receive lag p99 {}, loop delay p99 {}, CPU {:.0} % of its cores, \
         {} of {} first tokens known to within more than 10 ms.",
        tier.users,
        milliseconds(p99(Metric::StartLag)),
        milliseconds(p99(Metric::ReceiveLag)),
        milliseconds(p99(Metric::LoopDelay)),
        tier.generator.cpu_share * 100.0,
        tier.generator.first_tokens_wide,
        tier.generator.first_tokens,
    )
}
