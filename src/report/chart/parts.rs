//! Where the time went: stacked bars of the median and the p95 turn as users grow, and the turns to which the
//! deployment added most.

use maud::{Markup, html};

use super::axis::{Vertical, horizontal, round_step};
use super::{Figure, LEFT, RIGHT, area, at, canvas};
use crate::lang::Texts;
use crate::report::load::{self, Form, Load};
use crate::report::view::Group;
use crate::report::{trace, words};
use crate::result::{Parts, RunResult, Slow, Stack, TierTraceResult};
use crate::secret::escaped;

const HEIGHT: f64 = 280.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 56.0;
const ROW: f64 = 42.0;
const BAR: f64 = 18.0;

/// The parts of a bar, from the bottom: series and microseconds.
type Layers = fn(&Parts) -> Vec<u64>;

/// The parts of the time to first token, by tier.
pub(super) fn ttft(result: &RunResult, texts: &Texts) -> Option<Figure> {
    let names = ["part-generator", "part-connect", "part-before-llm", "part-llm", "part-relay"];
    let layers: Layers = |parts| vec![parts.generator, parts.connect, parts.before_llm, parts.llm_first, parts.relay];
    stacks("ttft-parts", texts.get("chart-ttft-parts"), &names, |trace| trace.ttft, layers, result, texts)
}

/// The parts of the turn, by tier.
pub(super) fn turn(result: &RunResult, texts: &Texts) -> Option<Figure> {
    let names = ["part-generator", "part-connect", "part-before-llm", "part-llm", "part-finalise"];
    let layers: Layers = |parts| vec![parts.generator, parts.connect, parts.before_llm, parts.llm, parts.finalise];
    stacks("turn-parts", texts.get("chart-turn-parts"), &names, |trace| trace.turn, layers, result, texts)
}

fn stacks(
    id: &'static str,
    title: String,
    names: &[&str],
    stack: fn(&TierTraceResult) -> Option<Stack>,
    layers: Layers,
    result: &RunResult,
    texts: &Texts,
) -> Option<Figure> {
    let tiers: Vec<(Load, Stack)> =
        trace::traced(result).into_iter().filter_map(|(tier, trace)| Some((Load::of(tier), stack(trace)?))).collect();
    let all = |parts: &Parts| layers(parts).iter().sum::<u64>();
    let most = tiers.iter().map(|(_, stack)| all(&stack.median).max(all(&stack.p95))).max()?;
    let axis = Vertical::new(TOP, BOTTOM, most as f64 * 1.02);
    let step = (RIGHT - LEFT) / tiers.len() as f64;
    let middle = |index: usize| LEFT + step * (index as f64 + 0.5);
    let width = (step * 0.34).min(46.0);
    let ticks: Vec<(f64, String)> =
        tiers.iter().enumerate().map(|(index, (load, _))| (middle(index), load.tick())).collect();
    let content = html! {
        (axis.draw(&texts.get("axis-time"), words::duration))
        @for (index, (_, stack)) in tiers.iter().enumerate() {
            @for (parts, x, name) in [(&stack.median, middle(index) - width - 1.0, "p50"), (&stack.p95, middle(index) + 1.0, "p95")] {
                (bar(&axis, x, width, &layers(parts)))
                text class="tick" x=(at(x + width / 2.0)) y=(at(BOTTOM + 12.0)) text-anchor="middle" { (name) }
            }
        }
        (horizontal(BOTTOM + 18.0, &texts.get(load::axis(load::is_open(result))), &ticks))
    };
    let legend = names.iter().enumerate().map(|(series, name)| (series, texts.get(name))).collect();
    let svg = canvas(id, HEIGHT, &title, &content);
    Some(Figure {
        group: Group::Time,
        id: id.to_owned(),
        title,
        note: texts.get("chart-parts-note"),
        legend,
        areas: true,
        svg,
    })
}

fn bar(axis: &Vertical, x: f64, width: f64, layers: &[u64]) -> Markup {
    let mut below = 0;
    let mut rects = Vec::new();
    for (series, value) in layers.iter().enumerate() {
        let (bottom, top) = (axis.y(below as f64), axis.y((below + value) as f64));
        rects.push((series, top, bottom - top));
        below += value;
    }
    html! {
        @for (series, top, height) in rects.into_iter().filter(|(_, _, height)| *height > 0.05) {
            (area(series, (x, top), (width, height)))
        }
    }
}

/// The turns to which the deployment added most, of the last tier that has any, from start to end.
pub(super) fn waterfall(result: &RunResult, texts: &Texts) -> Option<Figure> {
    let tiers = trace::traced(result);
    let (tier, trace) = tiers.iter().rfind(|(_, trace)| !trace.slowest.is_empty())?;
    let most = trace.slowest.iter().map(|slow| slow.parts.turn()).max()? as f64;
    let step = round_step(most, 5.0);
    let end = (most / step).ceil() * step;
    let place = |value: f64| LEFT + (RIGHT - LEFT) * value / end;
    let bottom = 8.0 + ROW * trace.slowest.len() as f64;
    let count = (end / step).round() as u32;
    let ticks: Vec<(f64, String)> =
        (0..=count).map(|tick| f64::from(tick) * step).map(|value| (place(value), words::duration(value))).collect();
    let content = html! {
        @for (row, slow) in trace.slowest.iter().enumerate() {
            (flow(slow, 8.0 + ROW * row as f64, row, place, texts))
        }
        (horizontal(bottom, &texts.get("axis-turn-time"), &ticks))
    };
    let title = texts.with("chart-slowest", &[("load", &Load::of(tier).name(texts, Form::Concurrent))]);
    let names = ["part-generator", "part-connect", "part-before-llm", "part-llm", "part-finalise"];
    let legend = names.iter().enumerate().map(|(series, name)| (series, texts.get(name))).collect();
    let svg = canvas("slowest", bottom + 44.0, &title, &content);
    Some(Figure {
        group: Group::Time,
        id: "slowest".to_owned(),
        title,
        note: texts.get("chart-slowest-note"),
        legend,
        areas: true,
        svg,
    })
}

/// One turn from left to right.
fn flow(slow: &Slow, top: f64, row: usize, place: impl Fn(f64) -> f64, texts: &Texts) -> Markup {
    let Parts { generator, connect, before_llm, llm, finalise, .. } = slow.parts;
    let mut from = 0;
    let mut rects = Vec::new();
    for (series, value) in [generator, connect, before_llm, llm, finalise].into_iter().enumerate() {
        let (left, right) = (place(from as f64), place((from + value) as f64));
        rects.push((series, left, right - left));
        from += value;
    }
    let added = words::duration(slow.parts.added() as f64);
    let ttft = words::duration(slow.parts.ttft() as f64);
    let marker = slow.turn.rsplit(':').take(2).collect::<Vec<_>>();
    let turn: String = marker.iter().rev().copied().collect::<Vec<_>>().join(":");
    let said = [("turn", escaped(&turn, 30)), ("ttft", ttft), ("added", added)];
    let said: Vec<(&str, &str)> = said.iter().map(|(name, value)| (*name, value.as_str())).collect();
    html! {
        text class="tick" x=(at(LEFT - 6.0)) y=(at(top + BAR - 4.0)) text-anchor="end" { (row + 1) }
        @for (series, left, width) in rects.into_iter().filter(|(_, _, width)| *width > 0.05) {
            (area(series, (left, top), (width, BAR)))
        }
        text class="tick" x=(at(RIGHT)) y=(at(top + BAR + 14.0)) text-anchor="end" { (texts.with("slow-turn", &said)) }
    }
}
