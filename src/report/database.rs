//! What was found out about the stores beside their series: waits for a connection, indexes, pools that were tried.

use super::load::{Load, head};
use super::quantity::{self, of_unit, plain};
use super::section::{FOREIGN, NAME, count, heads};
use super::view::{Block, Cell, Table};
use super::words;
use crate::lang::Texts;
use crate::result::{Checkout, IndexAudit, IndexFinding, PoolStudy, PoolTrial, Probe, Probes, Smallest, Unit};
use crate::secret::escaped;

/// What a MongoDB section ends with.
pub(super) fn mongo(probes: &Probes, texts: &Texts) -> Vec<Block> {
    let mut blocks = checkout(&probes.checkout, texts);
    if let Some(found) = &probes.index_audit {
        blocks.extend(audit(found, texts));
    }
    if let Some(tried) = &probes.mongo_pools {
        blocks.extend(study(tried, texts.get("caption-mongo-pools"), texts));
    }
    blocks
}

/// What a Redis section ends with.
pub(super) fn redis(probes: &Probes, texts: &Texts) -> Vec<Block> {
    probes.redis_pools.as_ref().map_or_else(Vec::new, |tried| study(tried, texts.get("caption-redis-pools"), texts))
}

/// What a terminal says of it: missing indexes with what mends them, and sizes that are enough.
pub(super) fn lines(probes: &Probes, texts: &Texts) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(found) = &probes.index_audit {
        lines.extend(found.failed.as_ref().map(|why| failed(why, texts)));
        lines.extend(found.findings.iter().map(|finding| finding_line(finding, texts)));
    }
    for (probe, tried) in [(Probe::Mongo, &probes.mongo_pools), (Probe::Redis, &probes.redis_pools)] {
        let Some(tried) = tried else { continue };
        let mut said = sizes(tried, texts);
        said.extend(warnings(tried, texts));
        if !said.is_empty() {
            lines.push(format!("{}: {}", quantity::probe(texts, probe), said.join(" ")));
        }
    }
    lines
}

fn finding_line(finding: &IndexFinding, texts: &Texts) -> String {
    texts.with(
        "line-index",
        &[
            ("query", &escaped(&finding.query, FOREIGN)),
            ("problem", &quantity::problem(texts, finding.problem)),
            ("command", &escaped(&finding.create_index, FOREIGN)),
        ],
    )
}

fn checkout(tiers: &[Checkout], texts: &Texts) -> Vec<Block> {
    if tiers.is_empty() {
        return Vec::new();
    }
    let some = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| of_unit(Unit::Count, value));
    let row = |tier: &Checkout| {
        vec![
            Load::new(tier.users, tier.rate, tier.role).cell(texts),
            Cell::Number(some(tier.busy)),
            Cell::Number(some(tier.limit)),
            Cell::Number(words::decimal(tier.operations_per_s)),
            Cell::Number(words::duration(tier.mean_us)),
            Cell::Text(texts.get(if tier.told { "wait-told" } else { "wait-inferred" })),
        ]
    };
    let first = head(tiers.iter().any(|tier| tier.rate.is_some()));
    let keys = [first, "head-busy", "head-limit", "head-operations", "head-wait-mean", "head-known-from"];
    let table = Table {
        caption: texts.get("caption-checkout"),
        head: heads(texts, &keys),
        rows: tiers.iter().map(row).collect(),
    };
    let mut blocks = vec![Block::Table(table)];
    if tiers.iter().any(|tier| !tier.told) {
        blocks.push(Block::Text(texts.get("checkout-inferred")));
    }
    blocks
}

fn failed(why: &str, texts: &Texts) -> String {
    texts.with("index-failed", &[("why", &escaped(why, FOREIGN))])
}

fn audit(found: &IndexAudit, texts: &Texts) -> Vec<Block> {
    let database = escaped(&found.database, NAME);
    let checked = words::number(u64::from(found.checked));
    let all = found.findings.is_empty() && found.failed.is_none() && found.checked > 0;
    let key = if all { "index-all" } else { "index-checked" };
    let mut blocks = vec![Block::Text(texts.with(key, &[("database", &database), ("checked", &checked)]))];
    blocks.extend(found.failed.as_ref().map(|why| Block::Text(failed(why, texts))));
    if !found.findings.is_empty() {
        let row = |finding: &IndexFinding| {
            vec![
                Cell::Foreign(escaped(&finding.query, FOREIGN)),
                Cell::Text(quantity::problem(texts, finding.problem)),
                count(finding.documents),
                Cell::Foreign(escaped(&finding.create_index, FOREIGN)),
            ]
        };
        blocks.push(Block::Table(Table {
            caption: texts.get("caption-indexes"),
            head: heads(texts, &["head-query", "head-problem", "head-documents", "head-command"]),
            rows: found.findings.iter().map(row).collect(),
        }));
    }
    if !found.empty.is_empty() {
        let names: Vec<String> = found.empty.iter().map(|name| escaped(name, NAME)).collect();
        blocks.push(Block::Text(texts.with("index-empty", &[("collections", &names.join(", "))])));
    }
    blocks
}

fn study(tried: &PoolStudy, caption: String, texts: &Texts) -> Vec<Block> {
    let mut lines = Vec::new();
    if tried.operations_per_s > 0.0 {
        lines.push(texts.with(
            "pool-load",
            &[
                ("rate", &words::decimal(tried.operations_per_s)),
                ("time", &words::duration(tried.operation_us)),
                ("concurrency", &plain(tried.concurrency)),
            ],
        ));
    }
    lines.extend(sizes(tried, texts));
    if let Some(headroom) = tried.headroom {
        lines.push(texts.with("pool-headroom", &[("count", &of_unit(Unit::Count, headroom))]));
    }
    lines.extend(warnings(tried, texts));
    let mut blocks = Vec::new();
    if !lines.is_empty() {
        blocks.push(Block::List(lines));
    }
    if !tried.trials.is_empty() {
        blocks.push(Block::Table(trials(&tried.trials, caption, texts)));
    }
    blocks
}

/// The sizes that are enough, by load.
fn sizes(tried: &PoolStudy, texts: &Texts) -> Vec<String> {
    let limit = words::duration(tried.wait_limit_us as f64);
    let one = |smallest: &Smallest| {
        let multiple = plain(smallest.multiple);
        let Some(size) = smallest.size else {
            return texts.with("pool-size-none", &[("multiple", &multiple), ("limit", &limit)]);
        };
        let size = words::number(u64::from(size));
        texts.with("pool-size", &[("multiple", &multiple), ("size", &size), ("limit", &limit)])
    };
    tried.smallest.iter().map(one).collect()
}

/// What was not tried, and what was left behind.
fn warnings(tried: &PoolStudy, texts: &Texts) -> Vec<String> {
    let refused = tried.refused.as_ref().map(|why| texts.with("pool-refused", &[("why", &escaped(why, FOREIGN))]));
    let left = tried.left_behind.as_ref().map(|what| texts.with("pool-left", &[("what", &escaped(what, FOREIGN))]));
    refused.into_iter().chain(left).collect()
}

fn trials(trials: &[PoolTrial], caption: String, texts: &Texts) -> Table {
    // Only Redis is sent commands together.
    let together = trials.iter().any(|trial| trial.pipeline > 0);
    let micros = |value: u64| Cell::Number(words::duration(value as f64));
    let row = |trial: &PoolTrial| {
        let mut row = vec![count(u64::from(trial.size)), Cell::Number(format!("{}×", plain(trial.multiple)))];
        if together {
            row.push(count(u64::from(trial.pipeline)));
        }
        row.push(Cell::Number(words::decimal(trial.operations_per_s)));
        row.extend([trial.wait_p50_us, trial.wait_p99_us, trial.latency_p50_us, trial.latency_p99_us].map(micros));
        row.push(count(trial.errors));
        row
    };
    let mut head = heads(texts, &["head-size", "head-load"]);
    if together {
        head.push(texts.get("head-pipeline"));
    }
    let keys = ["head-operations", "head-wait-p50", "head-wait-p99", "head-latency-p50", "head-latency-p99"];
    head.extend(heads(texts, &keys));
    head.push(texts.get("head-errors"));
    Table { caption, head, rows: trials.iter().map(row).collect() }
}
