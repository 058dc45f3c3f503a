//! Axes: round ticks, names with units.

use maud::{Markup, html};

use super::{LEFT, RIGHT, at};

/// A vertical axis from 0 to a round number, drawn between two heights.
pub(super) struct Vertical {
    top: f64,
    bottom: f64,
    most: f64,
    step: f64,
}

impl Vertical {
    /// An axis that holds 0 to `most`.
    pub(super) fn new(top: f64, bottom: f64, most: f64) -> Self {
        let step = round_step(most.max(1e-9), ((bottom - top) / 36.0).clamp(2.0, 6.0));
        Self { top, bottom, most: (most.max(1e-9) / step).ceil() * step, step }
    }

    /// An axis of things that are counted: no step is less than one.
    pub(super) fn whole(top: f64, bottom: f64, most: f64) -> Self {
        let axis = Self::new(top, bottom, most);
        if axis.step >= 1.0 { axis } else { Self { most: most.max(1.0).ceil(), step: 1.0, ..axis } }
    }

    /// The height of a value.
    pub(super) fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * (value / self.most).clamp(0.0, 1.0)
    }

    /// The axis with its ticks, a line across the plot for each, and its name.
    pub(super) fn draw(&self, name: &str, tick: impl Fn(f64) -> String) -> Markup {
        let middle = f64::midpoint(self.top, self.bottom);
        html! {
            (self.ticks(tick))
            text class="name" transform=(format!("translate(12 {}) rotate(-90)", at(middle))) text-anchor="middle" { (name) }
        }
    }

    /// Its ticks, and a line across the plot for each.
    pub(super) fn ticks(&self, tick: impl Fn(f64) -> String) -> Markup {
        let count = (self.most / self.step).round() as u32;
        html! {
            @for number in 0..=count {
                @let value = f64::from(number) * self.step;
                @let y = self.y(value);
                line class="grid" x1=(at(LEFT)) x2=(at(RIGHT)) y1=(at(y)) y2=(at(y)) {}
                text class="tick" x=(at(LEFT - 6.0)) y=(at(y + 4.0)) text-anchor="end" { (tick(value)) }
            }
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten that makes about so many.
pub(super) fn round_step(most: f64, count: f64) -> f64 {
    let raw = most / count;
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw * 0.999).unwrap_or(10.0);
    factor * power
}

/// The name of a horizontal axis, and its ticks as (place, text).
pub(super) fn horizontal(y: f64, name: &str, ticks: &[(f64, String)]) -> Markup {
    html! {
        line class="axis" x1=(at(LEFT)) x2=(at(RIGHT)) y1=(at(y)) y2=(at(y)) {}
        @for (x, text) in ticks {
            line class="axis" x1=(at(*x)) x2=(at(*x)) y1=(at(y)) y2=(at(y + 4.0)) {}
            // The last one would stand out of the picture.
            text class="tick" x=(at(x.min(RIGHT - 8.0))) y=(at(y + 17.0)) text-anchor="middle" { (text) }
        }
        text class="name" x=(at(f64::midpoint(LEFT, RIGHT))) y=(at(y + 35.0)) text-anchor="middle" { (name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_everything() {
        for (most, expected) in [(970.0, 200.0), (1.0, 0.2), (4_512_000.0, 1e6), (3.0, 1.0), (12.0, 5.0)] {
            let step = round_step(most, 5.0);
            assert_eq!(step, expected, "{most}");
        }
        let axis = Vertical::new(10.0, 210.0, 970.0);
        assert_eq!((axis.y(0.0), axis.y(1_000.0)), (210.0, 10.0));
    }
}
