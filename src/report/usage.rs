//! How much of what is watched was used at most, and of which limit.

use super::quantity::{self, of_unit};
use super::section::{NAME, heads};
use super::view::{Block, Cell, Table};
use super::words;
use crate::lang::Texts;
use crate::result::{Limit, Point, Series, Watched};
use crate::secret::escaped;

/// The most rows of a table: an endpoint may tell hundreds of series.
const ROWS: usize = 24;
/// The uses that a line tells.
const TOLD: usize = 2;

/// The highest use of one series.
struct Use<'a> {
    series: &'a Series,
    /// The first moment at which it was so high.
    highest: &'a Point,
    /// Its limit with the share of it.
    of: Option<(Limit, f64)>,
}

/// What is limited first, the fullest first; then the others as they began.
fn uses(watched: &Watched) -> Vec<Use<'_>> {
    let mut uses: Vec<Use<'_>> = watched.series.iter().filter_map(highest).collect();
    let share = |used: &Use<'_>| used.of.map_or(-1.0, |(_, share)| share);
    uses.sort_by(|one, other| share(other).total_cmp(&share(one)));
    uses
}

fn highest(series: &Series) -> Option<Use<'_>> {
    let most = series.highest()?.max;
    let highest = series.points.iter().find(|point| point.max >= most)?;
    let limit = series.limit.filter(|limit| limit.value > 0.0);
    Some(Use { series, highest, of: limit.map(|limit| (limit, most / limit.value)) })
}

/// The tables of one thing: what is limited, and what else was measured.
pub(super) fn tables(watched: &Watched, texts: &Texts) -> Vec<Block> {
    let uses = uses(watched);
    let (limited, free) = uses.split_at(uses.iter().take_while(|used| used.of.is_some()).count());
    let name = name(watched, texts);
    let mut blocks = Vec::new();
    if !limited.is_empty() {
        blocks.push(Block::Table(Table {
            caption: texts.with("caption-limits", &[("name", &name)]),
            head: heads(
                texts,
                &["head-gauge", "head-highest", "head-limit", "head-used", "head-when", "head-limit-source"],
            ),
            rows: limited.iter().take(ROWS).filter_map(|used| limited_row(used, texts)).collect(),
        }));
    }
    if !free.is_empty() {
        blocks.push(Block::Table(Table {
            caption: texts.with("caption-unlimited", &[("name", &name)]),
            head: heads(texts, &["head-gauge", "head-highest", "head-mean", "head-when"]),
            rows: free.iter().take(ROWS).map(|used| free_row(used, texts)).collect(),
        }));
    }
    let left_out = limited.len().saturating_sub(ROWS) + free.len().saturating_sub(ROWS);
    if left_out > 0 {
        blocks.push(Block::Text(texts.with("usage-left-out", &[("count", &words::number(left_out as u64))])));
    }
    blocks
}

/// What kind of thing it is, and its name.
pub(super) fn name(watched: &Watched, texts: &Texts) -> String {
    format!("{} {}", quantity::probe(texts, watched.probe), escaped(&watched.name, NAME))
}

fn limited_row(used: &Use<'_>, texts: &Texts) -> Option<Vec<Cell>> {
    let (limit, share) = used.of?;
    let unit = used.series.unit;
    Some(vec![
        Cell::Text(quantity::series(texts, used.series)),
        Cell::Number(of_unit(unit, used.highest.max)),
        Cell::Number(of_unit(unit, limit.value)),
        Cell::Bar(share, words::share(share)),
        Cell::Number(words::clock(f64::from(used.highest.t_s))),
        Cell::Text(quantity::source(texts, limit.source)),
    ])
}

fn free_row(used: &Use<'_>, texts: &Texts) -> Vec<Cell> {
    let (unit, points) = (used.series.unit, &used.series.points);
    let mean = points.iter().map(|point| point.mean).sum::<f64>() / points.len().max(1) as f64;
    vec![
        Cell::Text(quantity::series(texts, used.series)),
        Cell::Number(of_unit(unit, used.highest.max)),
        Cell::Number(of_unit(unit, mean)),
        Cell::Number(words::clock(f64::from(used.highest.t_s))),
    ]
}

/// The highest uses of one thing in a line; none, where nothing was measured.
pub(super) fn line(watched: &Watched, texts: &Texts) -> Option<String> {
    let uses = uses(watched);
    let limited = uses.iter().filter(|used| used.of.is_some()).count();
    // Where there are limits, what has none is left to the other forms.
    let most = if limited > 0 { limited.min(TOLD) } else { TOLD };
    let told: Vec<String> = uses.iter().take(most).map(|used| told(used, texts)).collect();
    let name = name(watched, texts);
    (!told.is_empty()).then(|| texts.with("line-watched", &[("name", &name), ("uses", &told.join("; "))]))
}

fn told(used: &Use<'_>, texts: &Texts) -> String {
    let unit = used.series.unit;
    let gauge = quantity::series(texts, used.series);
    let highest = of_unit(unit, used.highest.max);
    let when = words::clock(f64::from(used.highest.t_s));
    let Some((limit, share)) = used.of else {
        return texts.with("line-use", &[("gauge", &gauge), ("highest", &highest), ("when", &when)]);
    };
    texts.with(
        "line-use-of-limit",
        &[
            ("gauge", &gauge),
            ("highest", &highest),
            ("limit", &of_unit(unit, limit.value)),
            ("share", &words::share(share)),
            ("when", &when),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Gauge, LimitSource, Probe};

    #[test]
    fn the_fullest_stands_first_with_the_first_moment_at_which_it_was() {
        let mut watched = Watched::new(Probe::Mongo, "127.0.0.1:27017");
        for (t_s, busy) in [(1, 2.0), (2, 5.0), (3, 5.0)] {
            watched.put(t_s, Gauge::Operations, None, 800.0);
            watched.put(t_s, Gauge::Connections, None, 12.0);
            watched.put(t_s, Gauge::PoolBusy, None, busy);
        }
        watched.limit(&Gauge::Connections, None, 800.0, LimitSource::Server);
        watched.limit(&Gauge::PoolBusy, None, 5.0, LimitSource::Scenario);
        let uses = uses(&watched);
        let order: Vec<&Gauge> = uses.iter().map(|used| &used.series.gauge).collect();
        assert_eq!(order, [&Gauge::PoolBusy, &Gauge::Connections, &Gauge::Operations]);
        assert_eq!((uses[0].highest.t_s, uses[0].of.map(|(_, share)| share)), (2, Some(1.0)));
    }
}
