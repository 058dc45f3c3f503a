//! The run second by second: users, TTFT p95 and failed turns, one above the other on one axis of time.

use maud::{Markup, html};

use super::axis::{Vertical, horizontal, round_step};
use super::{Figure, LEFT, RIGHT, at, canvas, line, marker};
use crate::lang::Texts;
use crate::report::view::Group;
use crate::report::words;
use crate::result::{RunResult, TierResult, TimelinePoint};

const HEIGHT: f64 = 380.0;
const BOTTOM: f64 = HEIGHT - 44.0;
/// The top and bottom of the three strips.
const STRIPS: [(f64, f64); 3] = [(24.0, 112.0), (130.0, 238.0), (256.0, BOTTOM)];
/// The most points of a strip.
const POINTS: usize = 240;

/// Some seconds together.
struct Slot {
    t_s: f64,
    users: u64,
    ttft_p95_us: Option<u64>,
    errors: f64,
}

pub(super) fn timeline(result: &RunResult, texts: &Texts) -> Option<Figure> {
    let slots = slots(&result.timeline);
    let end = result.timeline.last()?.t_s.max(1) as f64;
    let place = |t_s: f64| LEFT + (RIGHT - LEFT) * t_s / end;
    let most = |pick: fn(&Slot) -> f64| slots.iter().map(pick).fold(0.0, f64::max);
    let axes = [
        most(|slot| slot.users as f64),
        most(|slot| slot.ttft_p95_us.unwrap_or(0) as f64),
        most(|slot| slot.errors).max(1.0),
    ];
    let [(top, bottom), (middle, floor), (below, ground)] = STRIPS;
    let users = Vertical::whole(top, bottom, axes[0]);
    let ttft = Vertical::new(middle, floor, axes[1]);
    let errors = Vertical::new(below, ground, axes[2]);
    let step = round_step(end / 60.0, 5.0).max(0.5) * 60.0;
    let ticks: Vec<(f64, String)> =
        (0..=(end / step) as u32).map(|n| f64::from(n) * step).map(|t_s| (place(t_s), words::clock(t_s))).collect();
    // No line leads over seconds in which there was nothing to draw.
    let curves = |axis: &Vertical, pick: &dyn Fn(&Slot) -> Option<f64>| -> Vec<Vec<(f64, f64)>> {
        let points = |slots: &[Slot]| {
            slots.iter().filter_map(|slot| Some((place(slot.t_s), axis.y(pick(slot)?)))).collect::<Vec<_>>()
        };
        slots.chunk_by(|one, next| pick(one).is_some() == pick(next).is_some()).map(points).collect()
    };
    let zero = errors.y(0.0);
    let content = html! {
        @for tier in &result.tiers { (steady(tier, &place)) }
        (users.draw(&texts.get("axis-users-short"), |value| words::number(value as u64)))
        (ttft.draw(&texts.get("axis-ttft-p95"), words::duration))
        (errors.draw(&texts.get("axis-errors"), |value| if value.fract() == 0.0 { words::number(value as u64) } else { words::decimal(value) }))
        (horizontal(BOTTOM, &texts.get("axis-run-time"), &ticks))
        @for curve in curves(&users, &|slot| Some(slot.users as f64)) { (line(0, &curve)) }
        @for curve in curves(&ttft, &|slot| slot.ttft_p95_us.map(|micros| micros as f64)) {
            @match curve[..] {
                [] => {},
                [point] => (marker(1, point)),
                _ => (line(1, &curve)),
            }
        }
        @for slot in slots.iter().filter(|slot| slot.errors > 0.0) {
            line class="bar s2" x1=(at(place(slot.t_s))) x2=(at(place(slot.t_s))) y1=(at(zero)) y2=(at(errors.y(slot.errors))) {}
        }
    };
    let title = texts.get("chart-timeline");
    let svg = canvas("timeline", HEIGHT, &title, &content);
    Some(Figure {
        group: Group::Run,
        id: "timeline",
        title,
        note: texts.get("chart-timeline-note"),
        legend: Vec::new(),
        areas: false,
        svg,
    })
}

/// The steady phase of a tier as a band with its users above.
fn steady(tier: &TierResult, place: &impl Fn(f64) -> f64) -> Markup {
    let (from, to) = (place(tier.steady_from_s), place(tier.steady_from_s + tier.steady_s));
    let (top, bottom) = (STRIPS[0].0, BOTTOM);
    html! {
        @if to > from {
            rect class="band" x=(at(from)) y=(at(top)) width=(at(to - from)) height=(at(bottom - top)) {}
            text class="tick" x=(at(f64::midpoint(from, to))) y=(at(top - 8.0)) text-anchor="middle" {
                (words::number(u64::from(tier.users)))
            }
        }
    }
}

/// The timeline in no more slots than a screen can show: the most users, the worst p95, the mean
/// of failed turns a second.
fn slots(timeline: &[TimelinePoint]) -> Vec<Slot> {
    let width = timeline.len().div_ceil(POINTS).max(1);
    timeline
        .chunks(width)
        .map(|points| Slot {
            t_s: points.last().map_or(0.0, |point| point.t_s as f64),
            users: points.iter().map(|point| point.users).max().unwrap_or(0),
            ttft_p95_us: points.iter().filter_map(|point| point.ttft_p95_us).max(),
            errors: points.iter().map(|point| point.errors).sum::<u64>() as f64 / points.len() as f64,
        })
        .collect()
}
