//! Charts as inline SVG: drawn with classes, coloured by the page's style sheet, told apart by dash
//! and marker as well as by colour.

mod axis;
mod latency;
mod outcome;
mod parts;
mod percentile;
mod strip;
mod time;
mod timeline;
mod watch;

use maud::{Markup, html};

use crate::lang::Texts;
use crate::report::view::Group;
use crate::result::RunResult;

/// The size of a chart in its own units, which are pixels on a small screen.
const WIDTH: f64 = 440.0;
/// The edges of the plot.
const LEFT: f64 = 74.0;
const RIGHT: f64 = WIDTH - 14.0;
/// The most series that dashes and markers tell apart.
const SERIES: usize = 6;

/// A chart with what belongs around it.
pub(super) struct Figure {
    pub(super) id: String,
    pub(super) group: Group,
    pub(super) title: String,
    /// What the chart shows, for who cannot see it and for who wonders.
    pub(super) note: String,
    /// Series by number, with their names.
    pub(super) legend: Vec<(usize, String)>,
    /// Whether the series are areas, told apart by hatching.
    pub(super) areas: bool,
    pub(super) svg: Markup,
}

/// The charts of a result that has anything to draw.
pub(super) fn all(result: &RunResult, texts: &Texts) -> Vec<Figure> {
    let mut figures: Vec<Figure> = [
        parts::ttft(result, texts),
        parts::turn(result, texts),
        parts::waterfall(result, texts),
        latency::ttft(result, texts),
        latency::turn(result, texts),
        percentile::curve(result, texts),
        outcome::shares(result, texts),
        timeline::timeline(result, texts),
    ]
    .into_iter()
    .flatten()
    .collect();
    figures.extend(watch::figures(result, texts));
    figures
}

/// A drawing of so much height.
fn canvas(id: &str, height: f64, title: &str, content: &Markup) -> Markup {
    let name = format!("{id}-title");
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-labelledby=(name) xmlns="http://www.w3.org/2000/svg" {
            title id=(name) { (title) }
            (content)
        }
    }
}

/// A coordinate, with a tenth of a pixel.
fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A line through points.
fn line(series: usize, points: &[(f64, f64)]) -> Markup {
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", at(*x), at(*y))).collect();
    html! { polyline class=(format!("line s{series}")) points=(path.join(" ")) {} }
}

/// A line through points, or a marker where there is only one.
fn stroke(series: usize, points: &[(f64, f64)]) -> Markup {
    match points {
        [] => html! {},
        [point] => marker(series, *point),
        _ => line(series, points),
    }
}

/// A point in the form of its series.
fn marker(series: usize, (x, y): (f64, f64)) -> Markup {
    let class = format!("mark s{series}");
    let polygon = |offsets: &[(f64, f64)]| {
        let points: Vec<String> = offsets.iter().map(|(dx, dy)| format!("{},{}", at(x + dx), at(y + dy))).collect();
        html! { polygon class=(class) points=(points.join(" ")) {} }
    };
    match series % SERIES {
        0 => html! { circle class=(class) cx=(at(x)) cy=(at(y)) r="3.5" {} },
        1 => polygon(&[(-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)]),
        2 => polygon(&[(0.0, -4.2), (4.0, 3.2), (-4.0, 3.2)]),
        3 => polygon(&[(0.0, -4.6), (4.6, 0.0), (0.0, 4.6), (-4.6, 0.0)]),
        4 => polygon(&[(0.0, 4.2), (4.0, -3.2), (-4.0, -3.2)]),
        _ => polygon(&[(-4.0, -1.6), (4.0, -1.6), (4.0, 1.6), (-4.0, 1.6)]),
    }
}

/// An area of a series: its colour, and over it its hatching.
fn area(series: usize, (x, y): (f64, f64), (width, height): (f64, f64)) -> Markup {
    html! {
        rect class=(format!("area s{series}")) x=(at(x)) y=(at(y)) width=(at(width)) height=(at(height)) {}
        @if series > 0 {
            rect fill=(format!("url(#hatch{series})")) x=(at(x)) y=(at(y)) width=(at(width)) height=(at(height)) {}
        }
    }
}

/// The hatchings of areas, by series, once for all charts of a page; the first series has none.
pub(super) fn patterns() -> Markup {
    let hatches = [
        "M0,8 L8,0 M-2,2 L2,-2 M6,10 L10,6",
        "M0,0 L8,8 M-2,6 L2,10 M6,-2 L10,2",
        "M2,0 V8 M6,0 V8",
        "M0,2 H8 M0,6 H8",
        "M0,0 L8,8 M0,8 L8,0",
    ];
    html! {
        svg class="patterns" width="0" height="0" aria-hidden="true" xmlns="http://www.w3.org/2000/svg" { defs {
            @for (index, path) in hatches.iter().enumerate() {
                pattern id=(format!("hatch{}", index + 1)) width="8" height="8" patternUnits="userSpaceOnUse" {
                    path class="hatch" d=(path) {}
                }
            }
        } }
    }
}

/// The sign of a series in a legend.
pub(super) fn swatch(series: usize, areas: bool) -> Markup {
    html! {
        svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" xmlns="http://www.w3.org/2000/svg" {
            @if areas {
                (area(series, (0.0, 0.0), (28.0, 12.0)))
            } @else {
                (line(series, &[(0.0, 6.0), (28.0, 6.0)]))
                (marker(series, (14.0, 6.0)))
            }
        }
    }
}
