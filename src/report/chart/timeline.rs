//! The run second by second: the load, TTFT p95 and failed turns, one above the other on one axis of time.

use maud::html;

use super::axis::Vertical;
use super::time::{Slot, Time, slots};
use super::{Figure, at, canvas, line, stroke};
use crate::lang::Texts;
use crate::report::load::is_open;
use crate::report::view::Group;
use crate::report::words;
use crate::result::RunResult;

const HEIGHT: f64 = 380.0;
const BOTTOM: f64 = HEIGHT - 44.0;
/// The top and bottom of the three strips.
const STRIPS: [(f64, f64); 3] = [(24.0, 112.0), (130.0, 238.0), (256.0, BOTTOM)];

pub(super) fn timeline(result: &RunResult, texts: &Texts) -> Option<Figure> {
    let slots = slots(&result.timeline);
    let time = Time { end_s: result.timeline.last()?.t_s.max(1) as f64 };
    let most = |pick: fn(&Slot) -> f64| slots.iter().map(pick).fold(0.0, f64::max);
    // The users of an open load only say how many it had to take.
    let open = is_open(result);
    let load = |slot: &Slot| if open { slot.turns } else { slot.users as f64 };
    let axes = [
        slots.iter().map(load).fold(0.0, f64::max),
        most(|slot| slot.ttft_p95_us.unwrap_or(0) as f64),
        most(|slot| slot.errors).max(1.0),
    ];
    let [(top, bottom), (middle, floor), (below, ground)] = STRIPS;
    let above = Vertical::whole(top, bottom, axes[0]);
    let ttft = Vertical::new(middle, floor, axes[1]);
    let errors = Vertical::new(below, ground, axes[2]);
    let zero = errors.y(0.0);
    let content = html! {
        (time.bands(result, top, BOTTOM))
        (above.draw(&texts.get(if open { "axis-turns-short" } else { "axis-users-short" }), |value| words::number(value as u64)))
        (ttft.draw(&texts.get("axis-ttft-p95"), words::duration))
        (errors.draw(&texts.get("axis-errors"), |value| if value.fract() == 0.0 { words::number(value as u64) } else { words::decimal(value) }))
        (time.draw(BOTTOM, texts))
        @for curve in time.curves(&above, &slots, |slot| Some(load(slot))) { (line(0, &curve)) }
        @for curve in time.curves(&ttft, &slots, |slot| slot.ttft_p95_us.map(|micros| micros as f64)) { (stroke(1, &curve)) }
        @for slot in slots.iter().filter(|slot| slot.errors > 0.0) {
            @let x = at(time.place(slot.t_s));
            line class="bar s2" x1=(x) x2=(x) y1=(at(zero)) y2=(at(errors.y(slot.errors))) {}
        }
    };
    let title = texts.get("chart-timeline");
    let svg = canvas("timeline", HEIGHT, &title, &content);
    Some(Figure {
        group: Group::Run,
        id: "timeline".to_owned(),
        title,
        note: texts.get(if open { "chart-timeline-note-open" } else { "chart-timeline-note" }),
        legend: Vec::new(),
        areas: false,
        svg,
    })
}
