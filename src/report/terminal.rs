//! The report on a terminal: the verdict, the table of the tiers, the answers.

use std::collections::BTreeMap;

use comfy_table::{Cell as Painted, CellAlignment, Color, Table as Grid, presets};

use super::load::{Form, Load};
use super::section::NAME;
use super::tier::tier_table;
use super::view::{Cell, Table, bar};
use super::{answer, arrival, section, sizing, trace, watch, words};
use crate::lang::Texts;
use crate::result::{Example, RunResult, Step, StepResult, TierResult, Verdict};
use crate::secret::escaped;

/// The longest text of a target, in characters.
const FOREIGN: usize = 200;

/// What a terminal shows of a result; `colour` paints the verdicts.
pub fn terminal(result: &RunResult, texts: &Texts, colour: bool) -> String {
    let headline = answer::headline(result, texts);
    let mut lines = vec![
        format!("{} {}: {headline}", words::mark(result.verdict), words::verdict(texts, result.verdict)),
        String::new(),
        grid(&tier_table(result, texts), colour),
        String::new(),
    ];
    for (question, answer) in answer::answers(result, texts) {
        lines.push(question);
        lines.push(format!("  {answer}"));
    }
    lines.push(String::new());
    // The answers have the reasons of the tier that was asked for, and of the first that did not pass.
    let told = [result.asked_tier(), answer::not_passed(result)];
    let is_told = |tier: &TierResult| told.iter().flatten().any(|told| std::ptr::eq(*told, tier));
    let rest = result.tiers.iter().filter(|tier| !is_told(tier));
    lines.extend(rest.filter_map(|tier| section::reasons(tier, texts)));
    if result.trace.is_some() {
        lines.push(trace::told(result, texts));
    }
    lines.extend(failures(result, texts));
    lines.extend(steps(result, texts));
    lines.extend(section::streams(result, texts));
    lines.extend(arrival::lines(result, texts));
    lines.push(format!("{} {}", texts.get("section-generator"), section::health(result, texts)));
    lines.push(trace::error_bar(result, texts));
    lines.extend(watch::lines(result, texts));
    if let Some(table) = result.probes.as_ref().and_then(|probes| sizing::table(probes, texts)) {
        lines.extend([String::new(), format!("{}:", table.caption), grid(&table, colour), String::new()]);
    }
    lines.extend(answer::notes(result, texts));
    lines.join("\n").trim_end().to_owned()
}

/// A table as a terminal shows it.
pub(super) fn grid(table: &Table, colour: bool) -> String {
    let mut grid = Grid::new();
    grid.load_style(presets::UTF8_NO_BORDERS).set_header(&table.head);
    for row in &table.rows {
        grid.add_row(row.iter().map(|cell| painted(cell, colour)));
    }
    for (column, cells) in grid.column_iter_mut().enumerate() {
        if table.is_number(column) {
            cells.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.to_string()
}

fn painted(cell: &Cell, colour: bool) -> Painted {
    match cell {
        Cell::Text(text) | Cell::Number(text) | Cell::Foreign(text) => Painted::new(text),
        Cell::Bar(share, text) => Painted::new(format!("{} {text}", bar(*share))),
        Cell::Verdict(verdict, word) => {
            let cell = Painted::new(format!("{} {word}", words::mark(*verdict)));
            if colour { cell.fg(paint(*verdict)) } else { cell }
        }
    }
}

fn paint(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Warn => Color::Yellow,
        Verdict::Inconclusive => Color::Cyan,
        Verdict::Fail => Color::Red,
    }
}

/// The outcomes other than success, each with its count and what the target said.
fn others(outcomes: &BTreeMap<String, u64>, examples: &[Example]) -> Vec<String> {
    let one = |(outcome, count): (&String, &u64)| {
        let example = examples.iter().find(|example| example.outcome == *outcome);
        let said = example.map_or_else(String::new, |one| format!(" ({})", escaped(&one.detail, FOREIGN)));
        format!("{} {}{said}", words::number(*count), escaped(outcome, NAME))
    };
    outcomes.iter().filter(|(outcome, _)| *outcome != "completed").map(one).collect()
}

/// A line for each tier that had other outcomes than success.
fn failures(result: &RunResult, texts: &Texts) -> Vec<String> {
    let line = |tier: &TierResult| {
        let failed = others(&tier.counts.outcomes, &tier.examples).join(", ");
        let load = Load::of(tier).name(texts, Form::Users);
        (!failed.is_empty()).then(|| texts.with("line-outcomes", &[("load", &load), ("outcomes", &failed)]))
    };
    result.tiers.iter().filter_map(line).collect()
}

/// A line for each step.
fn steps(result: &RunResult, texts: &Texts) -> Vec<String> {
    let line = |(step, result): (&Step, &StepResult)| {
        let latency = &result.latency;
        let timed = |value: u64| if latency.count == 0 { "-".to_owned() } else { words::duration(value as f64) };
        let failed: String =
            others(&result.outcomes, &result.examples).iter().map(|failed| format!(", {failed}")).collect();
        let line = texts.with(
            "line-step",
            &[
                ("step", &words::step(texts, *step)),
                ("count", &words::number(result.outcomes.values().sum())),
                ("median", &timed(latency.p50_us)),
                ("high", &timed(latency.p95_us)),
            ],
        );
        format!("{line}{failed}")
    };
    result.steps.iter().map(line).collect()
}
