//! The percentile curve: what share of turns had their first token by when, tier by tier.

use hdrhistogram::Histogram;
use maud::html;

use super::axis::{Vertical, horizontal};
use super::{Figure, LEFT, RIGHT, SERIES, canvas, line, marker};
use crate::lang::Texts;
use crate::metric::Metric;
use crate::report::load::{Form, Load};
use crate::report::view::Group;
use crate::report::words;
use crate::result::RunResult;

const HEIGHT: f64 = 270.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 44.0;
/// Nines behind which nothing is drawn.
const NINES: f64 = 3.0;
/// Points of a curve.
const POINTS: u32 = 90;

pub(super) fn curve(result: &RunResult, texts: &Texts) -> Option<Figure> {
    // The largest tiers, where there are more than can be told apart.
    let skipped = result.tiers.len().saturating_sub(SERIES);
    let curves: Vec<(String, Vec<(f64, f64)>)> = result.tiers[skipped..]
        .iter()
        .filter_map(|tier| {
            let metric = tier.metrics.get(&Metric::Ttft)?;
            Some((Load::of(tier).name(texts, Form::Users), points(&metric.decode().ok()?, metric.above)))
        })
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let most = curves.iter().flat_map(|(_, points)| points).map(|(_, value)| *value).fold(0.0, f64::max);
    if curves.is_empty() || most <= 0.0 {
        return None;
    }
    let axis = Vertical::new(TOP, BOTTOM, most);
    let place = |nines: f64| LEFT + (RIGHT - LEFT) * nines / NINES;
    let ticks: Vec<(f64, String)> = [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")]
        .into_iter()
        .map(|(quantile, text)| (place(nines(quantile)), text.to_owned()))
        .collect();
    let content = html! {
        (axis.draw(&texts.get("axis-ttft"), words::duration))
        (horizontal(BOTTOM, &texts.get("axis-percentile"), &ticks))
        @for (series, (_, points)) in curves.iter().enumerate() {
            @let points: Vec<(f64, f64)> = points.iter().map(|(nines, value)| (place(*nines), axis.y(*value))).collect();
            (line(series, &points))
            @for point in points.iter().step_by(18).skip(1) { (marker(series, *point)) }
        }
    };
    let title = texts.get("chart-percentiles");
    let legend = curves.into_iter().map(|(name, _)| name).enumerate().collect();
    let svg = canvas("percentiles", HEIGHT, &title, &content);
    Some(Figure {
        group: Group::Run,
        id: "percentiles".to_owned(),
        title,
        note: texts.get("chart-percentiles-note"),
        legend,
        areas: false,
        svg,
    })
}

/// Each further nine of a quantile takes as much room as the one before.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// The curve as (nines, microseconds), as far as there are samples; turns that never had a first
/// token stand above its end.
fn points(histogram: &Histogram<u64>, above: u64) -> Vec<(f64, f64)> {
    let samples = histogram.len() + above;
    let known = histogram.len() as f64 / samples.max(1) as f64;
    (0..=POINTS)
        .map(|point| 1.0 - 10_f64.powf(-NINES * f64::from(point) / f64::from(POINTS)))
        .take_while(|quantile| *quantile <= known && (1.0 - quantile) * samples as f64 >= 1.0)
        .map(|quantile| (nines(quantile), histogram.value_at_quantile((quantile / known).min(1.0)) as f64))
        .collect()
}
