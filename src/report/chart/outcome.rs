//! How turns ended, as a bar a tier.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::axis::horizontal;
use super::{Figure, LEFT, RIGHT, SERIES, area, at, canvas};
use crate::lang::Texts;
use crate::report::load::Load;
use crate::report::section::NAME;
use crate::report::view::Group;
use crate::report::words;
use crate::result::{RunResult, TierResult};
use crate::secret::escaped;

const BAR: f64 = 22.0;
const ROW: f64 = 46.0;

pub(super) fn shares(result: &RunResult, texts: &Texts) -> Option<Figure> {
    let tiers: Vec<&TierResult> = result.tiers.iter().filter(|tier| tier.counts.started > 0).collect();
    if tiers.is_empty() {
        return None;
    }
    let kinds = kinds(&tiers);
    let bottom = 8.0 + ROW * tiers.len() as f64;
    let height = bottom + 44.0;
    let place = |share: f64| LEFT + (RIGHT - LEFT) * share;
    let ticks: Vec<(f64, String)> =
        [0.0, 0.25, 0.5, 0.75, 1.0].into_iter().map(|share| (place(share), words::share(share))).collect();
    let content = html! {
        @for (row, tier) in tiers.iter().enumerate() {
            (bar(tier, 8.0 + ROW * row as f64, &kinds, texts))
        }
        (horizontal(bottom, &texts.get("axis-share"), &ticks))
    };
    let title = texts.get("chart-outcomes");
    let legend = kinds.iter().map(|(name, series)| (*series, escaped(name, NAME)));
    let mut legend: Vec<(usize, String)> = legend.collect();
    legend.sort_by_key(|(series, _)| *series);
    legend.dedup_by_key(|(series, _)| *series);
    if kinds.len() > SERIES {
        legend.pop();
        legend.push((SERIES - 1, texts.get("outcomes-rest")));
    }
    let svg = canvas("outcomes", height, &title, &content);
    Some(Figure {
        group: Group::Run,
        id: "outcomes".to_owned(),
        title,
        note: texts.get("chart-outcomes-note"),
        legend,
        areas: true,
        svg,
    })
}

/// The outcomes with their series: success first, then the most frequent; the rest shares the last.
fn kinds(tiers: &[&TierResult]) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<&String, u64> = BTreeMap::new();
    for (outcome, count) in tiers.iter().flat_map(|tier| &tier.counts.outcomes) {
        *counts.entry(outcome).or_default() += count;
    }
    let mut order: Vec<(&String, u64)> = counts.into_iter().collect();
    order.sort_by_key(|(name, count)| (name.as_str() != "completed", std::cmp::Reverse(*count)));
    order.into_iter().enumerate().map(|(index, (name, _))| (name.clone(), index.min(SERIES - 1))).collect()
}

fn bar(tier: &TierResult, top: f64, kinds: &BTreeMap<String, usize>, texts: &Texts) -> Markup {
    let total: u64 = tier.counts.outcomes.values().sum();
    let mut parts: Vec<(usize, u64)> =
        tier.counts.outcomes.iter().filter_map(|(name, count)| Some((*kinds.get(name)?, *count))).collect();
    parts.sort_unstable();
    let mut x = LEFT;
    let mut rects = Vec::new();
    for (series, count) in parts {
        let width = (RIGHT - LEFT) * count as f64 / total.max(1) as f64;
        rects.push((series, x, width));
        x += width;
    }
    let errors = [("errors", words::number(tier.counts.errors)), ("turns", words::number(total))];
    let errors: Vec<(&str, &str)> = errors.iter().map(|(name, value)| (*name, value.as_str())).collect();
    html! {
        text class="tick" x=(at(LEFT - 6.0)) y=(at(top + BAR - 6.0)) text-anchor="end" { (Load::of(tier).tick()) }
        @for (series, x, width) in rects {
            (area(series, (x, top), (width.max(0.8), BAR)))
        }
        text class="tick" x=(at(RIGHT)) y=(at(top + BAR + 14.0)) text-anchor="end" { (texts.with("errors-of-turns-failed", &errors)) }
    }
}
