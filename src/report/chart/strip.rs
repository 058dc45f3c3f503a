//! What the strips of a probe's figure show: a few quantities that belong together, on one scale.

use super::SERIES;
use super::time::{POINTS, Time};
use crate::lang::Texts;
use crate::report::quantity::{self, MEBI, of_unit, plain};
use crate::report::words;
use crate::result::{Gap, Gauge, Point, Probe, Series, Unit, Watched};
use crate::secret::escaped;

/// The strips of a figure.
const STRIPS: usize = 4;
/// The most characters of a title: more would stand out of the picture.
const TITLE: usize = 54;
/// So many times the usual distance of two points apart, a line does not lead from one to the next.
const HOLE: f64 = 5.0;

/// One strip.
pub(super) struct Strip {
    /// Its quantities, with unit and limit.
    pub(super) title: String,
    pub(super) curves: Vec<Curve>,
    /// The limit, on the scale of the curves.
    pub(super) limit: Option<f64>,
    /// The highest value that is drawn, never nothing.
    pub(super) most: f64,
    unit: Unit,
}

/// One curve of it.
pub(super) struct Curve {
    pub(super) name: String,
    /// Unbroken runs of (second, value).
    pub(super) runs: Vec<Vec<(f64, f64)>>,
}

/// What is drawn of the points of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    Mean,
    Most,
}

impl Strip {
    /// Whether its values are things, of which there is no half.
    pub(super) fn is_counted(&self) -> bool {
        self.unit == Unit::Count
    }

    /// A value as its axis shows it.
    pub(super) fn tick(&self, value: f64) -> String {
        match self.unit {
            Unit::Micros => words::duration(value),
            Unit::Share => words::share(value),
            _ => plain(value),
        }
    }
}

/// The strips of what was watched, as far as anything was measured.
pub(super) fn strips(watched: &Watched, time: &Time, texts: &Texts) -> Vec<Strip> {
    let plan = plan(watched);
    plan.iter().filter_map(|wanted| strip(wanted, watched, time, texts)).take(STRIPS).collect()
}

/// Which quantities stand together, strip by strip.
fn plan(watched: &Watched) -> Vec<Vec<(Gauge, Take)>> {
    let one = |gauge| vec![(gauge, Take::Mean)];
    let two = |one, other| vec![(one, Take::Mean), (other, Take::Mean)];
    let both = |gauge: Gauge| vec![(gauge.clone(), Take::Mean), (gauge, Take::Most)];
    let is_told = |gauge: &Gauge| watched.series.iter().any(|series| series.gauge == *gauge);
    match watched.probe {
        Probe::Mongo => vec![
            // Without a pool that can be told apart, all connections of the server.
            if is_told(&Gauge::PoolBusy) { two(Gauge::PoolBusy, Gauge::PoolOpen) } else { one(Gauge::Connections) },
            one(Gauge::Operations),
            two(Gauge::ReadLatency, Gauge::CheckoutWait),
            one(Gauge::ReadTickets),
        ],
        Probe::Redis => {
            vec![one(Gauge::Connections), one(Gauge::Memory), one(Gauge::Operations), both(Gauge::Ping)]
        }
        Probe::Process | Probe::Cgroup => {
            vec![one(Gauge::Cpu), one(Gauge::Memory), one(Gauge::Descriptors), one(Gauge::ListenQueue)]
        }
        Probe::Health => vec![both(Gauge::HealthLatency)],
        Probe::Prometheus => {
            let mut gauges: Vec<&Gauge> = Vec::new();
            for Series { gauge, .. } in &watched.series {
                if matches!(gauge, Gauge::Named(_) | Gauge::CheckoutWait) && !gauges.contains(&gauge) {
                    gauges.push(gauge);
                }
            }
            gauges.into_iter().cloned().map(one).collect()
        }
    }
}

fn strip(wanted: &[(Gauge, Take)], watched: &Watched, time: &Time, texts: &Texts) -> Option<Strip> {
    let parts: Vec<(&Series, Take)> = wanted
        .iter()
        .flat_map(|(gauge, take)| of(gauge, watched).into_iter().map(move |series| (series, *take)))
        .collect();
    let (first, _) = parts.first()?;
    let highest = parts.iter().flat_map(|(series, take)| runs(series, *take, time, &watched.gaps)).flatten();
    let highest = highest.map(|(_, value)| value).fold(0.0, f64::max);
    let (scale, suffix) = scale(first.unit, highest);
    let both = wanted.iter().any(|(_, take)| *take == Take::Most);
    let curves = parts.iter().map(|(series, take)| Curve {
        name: curve_name(series, both.then_some(*take), texts),
        runs: runs(series, *take, time, &watched.gaps)
            .into_iter()
            .map(|run| run.into_iter().map(|(t_s, value)| (t_s, value / scale)).collect())
            .collect(),
    });
    let limit = parts.iter().find_map(|(series, _)| series.limit);
    let mut names: Vec<String> = Vec::new();
    for (series, _) in &parts {
        let name = quantity::gauge(texts, &series.gauge);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut title = names.join(", ");
    if let Some(unit) = suffix {
        title = format!("{title} ({unit})");
    }
    if let Some(limit) = limit {
        let value = of_unit(first.unit, limit.value);
        title = texts.with("strip-limit", &[("name", &title), ("limit", &value)]);
    }
    let quiet = if first.unit == Unit::Micros { 1e3 } else { 1.0 };
    Some(Strip {
        title: escaped(&title, TITLE),
        curves: curves.collect(),
        limit: limit.map(|limit| limit.value / scale),
        most: if highest > 0.0 { highest / scale } else { quiet },
        unit: first.unit,
    })
}

/// The series of a quantity: of processes each its own, elsewhere that of all where there is one.
fn of<'a>(gauge: &Gauge, watched: &'a Watched) -> Vec<&'a Series> {
    let known = watched.series.iter().filter(|series| series.gauge == *gauge && !series.points.is_empty());
    let (parts, all): (Vec<&Series>, Vec<&Series>) = known.partition(|series| series.of.is_some());
    let apart = matches!(watched.probe, Probe::Process | Probe::Cgroup);
    let mut found = if all.is_empty() || (apart && !parts.is_empty()) { parts } else { all };
    found.truncate(SERIES);
    found
}

/// The name of a curve: its part, or whether it is the mean or the most, or its quantity.
fn curve_name(series: &Series, take: Option<Take>, texts: &Texts) -> String {
    let name = quantity::series(texts, series);
    match (take, &series.of) {
        (Some(Take::Mean), _) => texts.with("curve-mean", &[("name", &name)]),
        (Some(Take::Most), _) => texts.with("curve-highest", &[("name", &name)]),
        (None, Some(of)) => escaped(of, 40),
        (None, None) => name,
    }
}

/// By what values are divided so that ticks are round, and the unit that they have then.
fn scale(unit: Unit, highest: f64) -> (f64, Option<&'static str>) {
    match unit {
        Unit::Bytes if highest >= MEBI => (MEBI, Some("MiB")),
        Unit::Bytes => (1024.0, Some("KiB")),
        Unit::BytesPerSecond if highest >= MEBI => (MEBI, Some("MiB/s")),
        Unit::BytesPerSecond => (1024.0, Some("KiB/s")),
        Unit::PerSecond => (1.0, Some("1/s")),
        _ => (1.0, None),
    }
}

/// A series in no more points than a screen can show, broken where nothing was seen.
fn runs(series: &Series, take: Take, time: &Time, gaps: &[Gap]) -> Vec<Vec<(f64, f64)>> {
    let width = (time.end_s / POINTS as f64).max(1.0);
    let slot = |point: &Point| (f64::from(point.t_s) / width) as u64;
    let together = |points: &[Point]| {
        let value = match take {
            Take::Most => points.iter().map(|point| point.max).fold(0.0, f64::max),
            Take::Mean => points.iter().map(|point| point.mean).sum::<f64>() / points.len() as f64,
        };
        (points.last().map_or(0.0, |point| f64::from(point.t_s)), value)
    };
    let slots: Vec<(f64, f64)> = series.points.chunk_by(|one, next| slot(one) == slot(next)).map(together).collect();
    let mut apart: Vec<f64> = slots.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    apart.sort_by(f64::total_cmp);
    let usual = apart.get(apart.len() / 2).copied().unwrap_or(width);
    let is_blind = |one: f64, next: f64| {
        let within = |gap: &Gap| gap.from_s < next && gap.to_s.unwrap_or(f64::INFINITY) > one;
        next - one > usual * HOLE || gaps.iter().any(within)
    };
    slots.chunk_by(|one, next| !is_blind(one.0, next.0)).map(<[(f64, f64)]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(seconds: impl Iterator<Item = u32>) -> Watched {
        let mut watched = Watched::new(Probe::Redis, "127.0.0.1:6379");
        for second in seconds {
            watched.put(second, Gauge::Ping, None, f64::from(second % 10));
        }
        watched
    }

    #[test]
    fn a_long_series_has_no_more_points_than_a_screen() {
        let watched = watched(1..3_000);
        let time = Time { end_s: 3_000.0 };
        let all = runs(&watched.series[0], Take::Most, &time, &[]);
        assert!(all.len() == 1 && all[0].len() <= POINTS + 1, "{} runs, {} points", all.len(), all[0].len());
        assert!(all[0].iter().all(|(_, value)| *value == 9.0), "every slot of 12 s has the most of them");
        let mean = &runs(&watched.series[0], Take::Mean, &time, &[])[0];
        assert!(mean[10].1 > 3.0 && mean[10].1 < 6.0, "{}", mean[10].1);
    }

    #[test]
    fn no_line_leads_over_a_gap() {
        let time = Time { end_s: 60.0 };
        let gap = Gap { from_s: 20.5, to_s: Some(22.0), why: String::new() };
        let seen = watched((1..=20).chain(23..=60));
        assert_eq!(runs(&seen.series[0], Take::Mean, &time, &[gap]).len(), 2);
        assert_eq!(runs(&seen.series[0], Take::Mean, &time, &[]).len(), 1, "3 s may be chance");
        let hole = watched((1..=20).chain(40..=60));
        assert_eq!(runs(&hole.series[0], Take::Mean, &time, &[]).len(), 2);
    }
}
