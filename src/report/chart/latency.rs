//! A latency's percentiles against the size of the load, with the bounds of its budget. Of a crowd or a rise there is
//! none: a tier is then no level that was held, or has the size of another.

use maud::{Markup, html};

use super::axis::{Vertical, horizontal};
use super::{Figure, LEFT, RIGHT, at, canvas, line, marker};
use crate::lang::Texts;
use crate::metric::Metric;
use crate::report::load::{Load, axis, is_levels, is_open};
use crate::report::view::Group;
use crate::report::words;
use crate::result::{BudgetResult, MetricResult, RunResult, TierResult};

const HEIGHT: f64 = 270.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 44.0;

/// Takes a percentile out of a metric.
type Pick = fn(&MetricResult) -> u64;

/// The percentiles that are drawn, by series.
const PICKS: [(&str, Pick); 3] =
    [("p50", |metric| metric.p50_us), ("p95", |metric| metric.p95_us), ("p99", |metric| metric.p99_us)];

pub(super) fn ttft(result: &RunResult, texts: &Texts) -> Option<Figure> {
    let title = texts.get(if is_open(result) { "chart-ttft-open" } else { "chart-ttft" });
    figure("ttft", Metric::Ttft, title, result, texts)
}

pub(super) fn turn(result: &RunResult, texts: &Texts) -> Option<Figure> {
    let title = texts.get(if is_open(result) { "chart-turn-open" } else { "chart-turn" });
    figure("turn", Metric::Turn, title, result, texts)
}

fn figure(id: &'static str, metric: Metric, title: String, result: &RunResult, texts: &Texts) -> Option<Figure> {
    if !is_levels(result) {
        return None;
    }
    let measured = |tier: &TierResult| tier.metrics.get(&metric).filter(|metric| metric.count > 0).cloned();
    let tiers: Vec<(&TierResult, Option<MetricResult>)> =
        result.tiers.iter().map(|tier| (tier, measured(tier))).collect();
    let most = tiers.iter().filter_map(|(_, metric)| Some(metric.as_ref()?.p99_us)).max()? as f64;
    let budgets: Vec<Option<&BudgetResult>> = tiers.iter().map(|(tier, _)| budget(tier, metric)).collect();
    // A bound far above everything would press the curves to the floor.
    let shown = |bound: f64| bound <= most * 4.0;
    let values = |budget: &&BudgetResult| {
        [budget.pass, budget.warn].into_iter().filter(|bound| shown(*bound)).chain(budget.upper)
    };
    let top = budgets.iter().flatten().flat_map(values).fold(most, f64::max);
    let vertical = Vertical::new(TOP, BOTTOM, top * 1.02);
    let place = |index: usize| LEFT + (RIGHT - LEFT) * (index as f64 + 0.5) / tiers.len() as f64;
    let ticks: Vec<(f64, String)> =
        tiers.iter().enumerate().map(|(index, (tier, _))| (place(index), Load::of(tier).tick())).collect();
    let content = html! {
        (vertical.draw(&texts.get("axis-time"), words::duration))
        (horizontal(BOTTOM, &texts.get(axis(is_open(result))), &ticks))
        @for (index, budget) in budgets.iter().enumerate() {
            @if let Some(budget) = budget {
                @let half = (RIGHT - LEFT) / tiers.len() as f64 / 2.0;
                @let same = index > 0 && budgets[index - 1].is_some_and(|before| (before.pass, before.warn) == (budget.pass, budget.warn));
                @for (name, bound) in bounds(budget, texts).into_iter().filter(|(_, bound)| shown(*bound)) {
                    (limit(&vertical, bound, (place(index) - half, place(index) + half), (!same).then_some(name)))
                }
            }
        }
        @for (index, budget) in budgets.iter().enumerate() {
            @if let Some(BudgetResult { lower: Some(lower), upper: Some(upper), .. }) = budget {
                line class="whisker s1" x1=(at(place(index))) x2=(at(place(index))) y1=(at(vertical.y(*lower))) y2=(at(vertical.y(*upper))) {}
            }
        }
        @for (series, (_, pick)) in PICKS.iter().enumerate() {
            @let points: Vec<(f64, f64)> = tiers.iter().enumerate().filter_map(|(index, (_, metric))| {
                Some((place(index), vertical.y(pick(metric.as_ref()?) as f64)))
            }).collect();
            (line(series, &points))
            @for point in &points { (marker(series, *point)) }
        }
    };
    let legend = PICKS.iter().enumerate().map(|(series, (name, _))| (series, (*name).to_owned())).collect();
    let svg = canvas(id, HEIGHT, &title, &content);
    Some(Figure {
        group: Group::Run,
        id: id.to_owned(),
        title,
        note: texts.get("chart-latency-note"),
        legend,
        areas: false,
        svg,
    })
}

/// The bounds of a budget with their labels; one, where they are the same.
fn bounds(budget: &BudgetResult, texts: &Texts) -> Vec<(String, f64)> {
    let label =
        |name: String, bound: f64| (texts.with("bound", &[("name", &name), ("value", &words::duration(bound))]), bound);
    let mut bounds = vec![label(texts.get("bound-pass"), budget.pass)];
    if budget.warn > budget.pass {
        bounds.push(label(texts.get("bound-warn"), budget.warn));
    }
    bounds
}

/// The budget of the metric's 95th percentile, whose interval is drawn.
fn budget(tier: &TierResult, metric: Metric) -> Option<&BudgetResult> {
    let name = format!("{}.p95", metric.name());
    tier.budgets.iter().find(|budget| budget.metric == name)
}

fn limit(axis: &Vertical, bound: f64, (from, to): (f64, f64), label: Option<String>) -> Markup {
    let y = axis.y(bound);
    html! {
        line class="limit" x1=(at(from)) x2=(at(to)) y1=(at(y)) y2=(at(y)) {}
        @if let Some(label) = label {
            text class="limit-name" x=(at(from + 4.0)) y=(at(y - 4.0)) { (label) }
        }
    }
}
