//! What was watched over the time of the run, below the TTFT of the same moments.

use maud::{Markup, html};

use super::axis::Vertical;
use super::strip::{Curve, Strip, strips};
use super::time::{Slot, Time, slots};
use super::{Figure, LEFT, RIGHT, SERIES, at, canvas, marker, stroke};
use crate::lang::Texts;
use crate::report::load::is_open;
use crate::report::view::Group;
use crate::report::{usage, watch, words};
use crate::result::{Gap, Probe, RunResult, Watched};

/// The figures of one kind of probe.
const FIGURES: usize = 3;
/// The top of the first strip, below its name and the load of the bands.
const TOP: f64 = 40.0;
/// The height of a strip, and from its top to that of the next.
const STRIP: f64 = 84.0;
const STEP: f64 = 112.0;
/// A limit far above everything would press the curves to the floor.
const SHOWN: f64 = 4.0;
/// The series whose marker stands for an event.
const EVENT: usize = 4;

/// A figure for each thing that was watched, the first few of each kind.
pub(super) fn figures(result: &RunResult, texts: &Texts) -> Vec<Figure> {
    let Some(probes) = &result.probes else { return Vec::new() };
    let ttft = slots(&result.timeline);
    let kinds = [Probe::Mongo, Probe::Redis, Probe::Process, Probe::Cgroup, Probe::Health, Probe::Prometheus];
    let mut figures = Vec::new();
    for kind in kinds {
        let watched = probes.watched.iter().filter(|watched| watched.probe == kind);
        let drawn = watched.filter_map(|watched| Some((watched, time(result, watched)?))).take(FIGURES);
        for (index, (watched, time)) in drawn.enumerate() {
            let id = format!("{}-{}", id(kind), index + 1);
            figures.push(figure(id, watched, &time, &ttft, result, texts));
        }
    }
    figures
}

fn id(probe: Probe) -> &'static str {
    match probe {
        Probe::Mongo => "mongo",
        Probe::Redis => "redis",
        Probe::Process => "process",
        Probe::Cgroup => "cgroup",
        Probe::Health => "health",
        Probe::Prometheus => "prometheus",
    }
}

/// The axis: to the last thing that was seen of the run or of what is watched; `None`: nothing was measured.
fn time(result: &RunResult, watched: &Watched) -> Option<Time> {
    let last = watched.series.iter().filter_map(|series| series.points.last()).map(|point| point.t_s).max()?;
    let run = result.timeline.last().map_or(1, |point| point.t_s);
    Some(Time { end_s: run.max(u64::from(last)).max(1) as f64 })
}

fn figure(id: String, watched: &Watched, time: &Time, ttft: &[Slot], result: &RunResult, texts: &Texts) -> Figure {
    let strips = strips(watched, time, texts);
    let legend = legend(&strips);
    let bottom = TOP + STEP * strips.len() as f64 + STRIP;
    let content = html! {
        (time.bands(result, TOP, bottom))
        (felt(time, ttft, texts))
        @for event in &watched.events { (marker(EVENT, (time.place(event.t_s), TOP + 5.0))) }
        @for (index, strip) in strips.iter().enumerate() {
            (drawn(strip, TOP + STEP * (index + 1) as f64, time, &watched.gaps, &legend))
        }
        (time.draw(bottom, texts))
    };
    let title = texts.with("chart-watch", &[("name", &usage::name(watched, texts))]);
    let svg = canvas(&id, bottom + 44.0, &title, &content);
    let mut note = vec![texts.get(if is_open(result) { "chart-watch-note-open" } else { "chart-watch-note" })];
    if !watched.gaps.is_empty() {
        note.push(texts.get("chart-watch-gaps"));
    }
    if !watched.events.is_empty() {
        note.push(texts.with("chart-watch-events", &[("events", &watch::happened(watched, texts).join(", "))]));
    }
    let legend = legend.into_iter().enumerate().map(|(number, name)| (number % SERIES, name)).collect();
    let group = Group::Watch(watch::shown_with(watched.probe));
    Figure { group, id, title, note: note.join(" "), legend, areas: false, svg }
}

/// The names of curves that share a strip with others: elsewhere the strip's own name says it.
fn legend(strips: &[Strip]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for curve in strips.iter().filter(|strip| strip.curves.len() > 1).flat_map(|strip| &strip.curves) {
        if !names.contains(&curve.name) {
            names.push(curve.name.clone());
        }
    }
    names
}

/// The strip on top: what users felt.
fn felt(time: &Time, ttft: &[Slot], texts: &Texts) -> Markup {
    let most = ttft.iter().filter_map(|slot| slot.ttft_p95_us).max().unwrap_or(0);
    let axis = Vertical::new(TOP, TOP + STRIP, if most > 0 { most as f64 } else { 1e3 });
    html! {
        // Above the load of the bands.
        text class="name" x=(at(LEFT)) y=(at(TOP - 26.0)) { (texts.get("axis-ttft-p95")) }
        (axis.ticks(words::duration))
        @for curve in time.curves(&axis, ttft, |slot| slot.ttft_p95_us.map(|micros| micros as f64)) { (stroke(1, &curve)) }
    }
}

fn drawn(strip: &Strip, top: f64, time: &Time, gaps: &[Gap], legend: &[String]) -> Markup {
    let limit = strip.limit.filter(|limit| *limit <= strip.most * SHOWN);
    let most = strip.most.max(limit.unwrap_or(0.0));
    let bottom = top + STRIP;
    let axis = if strip.is_counted() { Vertical::whole(top, bottom, most) } else { Vertical::new(top, bottom, most) };
    let placed = |run: &[(f64, f64)]| -> Vec<(f64, f64)> {
        run.iter().map(|(t_s, value)| (time.place(*t_s), axis.y(*value))).collect()
    };
    let number = |curve: &Curve| legend.iter().position(|name| *name == curve.name).unwrap_or(0) % SERIES;
    html! {
        @for gap in gaps { (blind(gap, (top, bottom), time)) }
        text class="name" x=(at(LEFT)) y=(at(top - 8.0)) { (strip.title) }
        (axis.ticks(|value| strip.tick(value)))
        @if let Some(limit) = limit {
            line class="limit" x1=(at(LEFT)) x2=(at(RIGHT)) y1=(at(axis.y(limit))) y2=(at(axis.y(limit))) {}
        }
        @for curve in &strip.curves {
            @for run in &curve.runs { (stroke(number(curve), &placed(run))) }
        }
    }
}

/// A time in which nothing was seen.
fn blind(gap: &Gap, (top, bottom): (f64, f64), time: &Time) -> Markup {
    let (from, to) = (time.place(gap.from_s), time.place(gap.to_s.unwrap_or(time.end_s)));
    // Even a short one is seen.
    let width = (to - from).max(2.0);
    html! {
        rect class="gap" x=(at(from)) y=(at(top)) width=(at(width)) height=(at(bottom - top)) {}
        rect fill="url(#hatch1)" x=(at(from)) y=(at(top)) width=(at(width)) height=(at(bottom - top)) {}
    }
}
