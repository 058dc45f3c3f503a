//! One axis of time under strips that stand one above the other.

use maud::{Markup, html};

use super::axis::{Vertical, horizontal, round_step};
use super::{LEFT, RIGHT, at};
use crate::lang::Texts;
use crate::report::load::Load;
use crate::report::words;
use crate::result::{RunResult, TierResult, TimelinePoint};

/// The most points of a strip.
pub(super) const POINTS: usize = 240;

/// The axis: from the start of the run to its end.
pub(super) struct Time {
    pub(super) end_s: f64,
}

impl Time {
    /// The place of a second of the run.
    pub(super) fn place(&self, t_s: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (t_s / self.end_s).clamp(0.0, 1.0)
    }

    /// The axis, drawn at a height.
    pub(super) fn draw(&self, bottom: f64, texts: &Texts) -> Markup {
        let step = round_step(self.end_s / 60.0, 5.0).max(0.5) * 60.0;
        let ticks: Vec<(f64, String)> = (0..=(self.end_s / step) as u32)
            .map(|n| f64::from(n) * step)
            .map(|t_s| (self.place(t_s), words::clock(t_s)))
            .collect();
        horizontal(bottom, &texts.get("axis-run-time"), &ticks)
    }

    /// The steady phases of tiers as bands from top to bottom, each with its load above.
    pub(super) fn bands(&self, result: &RunResult, top: f64, bottom: f64) -> Markup {
        html! {
            @for tier in &result.tiers { (self.band(tier, top, bottom)) }
        }
    }

    fn band(&self, tier: &TierResult, top: f64, bottom: f64) -> Markup {
        let (from, to) = (self.place(tier.steady_from_s), self.place(tier.steady_from_s + tier.steady_s));
        html! {
            @if to > from {
                rect class="band" x=(at(from)) y=(at(top)) width=(at(to - from)) height=(at(bottom - top)) {}
                text class="tick" x=(at(f64::midpoint(from, to))) y=(at(top - 8.0)) text-anchor="middle" {
                    (Load::of(tier).tick())
                }
            }
        }
    }

    /// The curves of a value; none leads over seconds in which there was nothing to draw.
    pub(super) fn curves(
        &self,
        axis: &Vertical,
        slots: &[Slot],
        pick: impl Fn(&Slot) -> Option<f64>,
    ) -> Vec<Vec<(f64, f64)>> {
        let points = |slots: &[Slot]| {
            slots.iter().filter_map(|slot| Some((self.place(slot.t_s), axis.y(pick(slot)?)))).collect::<Vec<_>>()
        };
        slots.chunk_by(|one, next| pick(one).is_some() == pick(next).is_some()).map(points).collect()
    }
}

/// Some seconds of the timeline together.
pub(super) struct Slot {
    pub(super) t_s: f64,
    pub(super) users: u64,
    pub(super) turns: f64,
    pub(super) ttft_p95_us: Option<u64>,
    pub(super) errors: f64,
}

/// The timeline in no more slots than a screen can show: the most users, the worst p95, the means
/// of turns and of failed turns a second.
pub(super) fn slots(timeline: &[TimelinePoint]) -> Vec<Slot> {
    let width = timeline.len().div_ceil(POINTS).max(1);
    let spans = |points: &[TimelinePoint]| points.iter().map(|point| point.span_s).sum::<u64>().max(1) as f64;
    timeline
        .chunks(width)
        .map(|points| Slot {
            t_s: points.last().map_or(0.0, |point| point.t_s as f64),
            users: points.iter().map(|point| point.users).max().unwrap_or(0),
            ttft_p95_us: points.iter().filter_map(|point| point.ttft_p95_us).max(),
            turns: points.iter().map(|point| point.turns).sum::<u64>() as f64 / spans(points),
            errors: points.iter().map(|point| point.errors).sum::<u64>() as f64 / spans(points),
        })
        .collect()
}
