//! What each tier needed, as operators count it, and how work and memory went among processes.

use super::load::{Form, Load, head};
use super::quantity::of_unit;
use super::section::NAME;
use super::view::{Block, Cell, Table};
use super::words;
use crate::lang::Texts;
use crate::result::{Balance, Growth, Probes, SizingRow, Unit, Used};
use crate::secret::escaped;

/// A column: its head, its unit, and what stands in it.
type Column = (&'static str, Unit, fn(&SizingRow) -> Option<Used>);

static COLUMNS: [Column; 6] = [
    ("head-cpu-cores", Unit::Cores, |row| row.cpu_cores),
    ("head-memory-used", Unit::Bytes, |row| row.memory_bytes),
    ("head-mongo-connections", Unit::Count, |row| row.mongo_connections),
    ("head-mongo-busy", Unit::Count, |row| row.mongo_busy),
    ("head-redis-memory", Unit::Bytes, |row| row.redis_memory_bytes),
    ("head-redis-clients", Unit::Count, |row| row.redis_clients),
];

/// The section.
pub(super) fn blocks(probes: &Probes, texts: &Texts) -> Vec<Block> {
    let Some(table) = table(probes, texts) else { return Vec::new() };
    vec![Block::Text(texts.get("sizing-intro")), Block::Table(table)]
}

/// The table; a column stands in it where any tier has something for it.
pub(super) fn table(probes: &Probes, texts: &Texts) -> Option<Table> {
    let known = |(_, _, pick): &&Column| probes.sizing.iter().any(|row| pick(row).is_some());
    let columns: Vec<&Column> = COLUMNS.iter().filter(known).collect();
    if columns.is_empty() {
        return None;
    }
    let row = |row: &SizingRow| {
        let mut cells = vec![Load::new(row.users, row.rate, row.role).cell(texts)];
        cells.extend(columns.iter().map(|(_, unit, pick)| cell(*unit, pick(row), texts)));
        cells
    };
    let open = probes.sizing.iter().any(|row| row.rate.is_some());
    let mut heads = vec![texts.get(head(open))];
    heads.extend(columns.iter().map(|(key, _, _)| texts.get(key)));
    let caption = texts.get(if open { "caption-sizing-open" } else { "caption-sizing" });
    Some(Table { caption, head: heads, rows: probes.sizing.iter().map(row).collect() })
}

fn cell(unit: Unit, used: Option<Used>, texts: &Texts) -> Cell {
    Cell::Number(used.map_or_else(
        || "-".to_owned(),
        |used| {
            let mean = texts.with("sizing-mean", &[("value", &of_unit(unit, used.mean))]);
            format!("{}\n{mean}", of_unit(unit, used.max))
        },
    ))
}

/// Whether workers shared the work, and whether memory grows: a sentence each.
pub(super) fn processes(probes: &Probes, texts: &Texts) -> Vec<Block> {
    let shared = probes.balance.iter().map(|balance| shared(balance, texts));
    let lines: Vec<String> = shared.chain(probes.growth.iter().map(|growth| grown(growth, texts))).collect();
    if lines.is_empty() { Vec::new() } else { vec![Block::List(lines)] }
}

fn shared(balance: &Balance, texts: &Texts) -> String {
    let times = if balance.mean_cores > 0.0 { balance.most_cores / balance.mean_cores } else { 1.0 };
    texts.with(
        "balance",
        &[
            ("load", &Load::new(balance.users, balance.rate, balance.role).name(texts, Form::Users)),
            ("workers", &words::number(u64::from(balance.workers))),
            ("busiest", &escaped(&balance.busiest, NAME)),
            ("cores", &of_unit(Unit::Cores, balance.most_cores)),
            ("times", &words::decimal(times)),
        ],
    )
}

fn grown(growth: &Growth, texts: &Texts) -> String {
    // Memory that shrinks is no growth either.
    let key = if growth.lower > 0.0 { "growth" } else { "growth-none" };
    let bytes = |value| of_unit(Unit::Bytes, value);
    texts.with(
        key,
        &[
            ("of", &escaped(&growth.of, NAME)),
            ("bytes", &bytes(growth.bytes_per_turn)),
            ("lower", &bytes(growth.lower)),
            ("upper", &bytes(growth.upper)),
            ("turns", &words::number(growth.turns)),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::Lang;

    #[test]
    fn columns_that_no_tier_fills_are_left_out() {
        let texts = Texts::new(Lang::En);
        let row = |users, memory_bytes| SizingRow { users, memory_bytes, ..SizingRow::default() };
        let used = Used { mean: 1_048_576.0, max: 2_097_152.0 };
        let probes = Probes { sizing: vec![row(50, None), row(100, Some(used))], ..Probes::default() };
        let table = table(&probes, &texts).unwrap();
        assert_eq!((table.head.len(), table.rows.len()), (2, 2));
        let shown = |cell: &Cell| matches!(cell, Cell::Number(text) if text.starts_with("2.0 MiB\n"));
        assert!(shown(&table.rows[1][1]));
        assert!(blocks(&Probes::default(), &texts).is_empty());
    }
}
