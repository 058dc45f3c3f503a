//! What follows from what was watched: what each tier needed, how long a connection was waited for, whether workers
//! share the work, whether memory grows with turns.

use std::collections::BTreeMap;

use super::slope::{Season, slope};
use crate::metric::Metric;
use crate::record::{Gauge, Probe, Series, Watched};
use crate::result::{Balance, Checkout, Growth, Probes, RunResult, SizingRow, TierResult, Used};

/// The length of a block over which memory is averaged, in seconds.
const BLOCK_S: u32 = 5;
/// A worker that uses less than this share of the others' mean is their master, which only deals out the work.
const MASTER: f64 = 0.05;

/// Fills what follows from the series of a result.
pub fn watched(result: &mut RunResult) {
    let Some(mut probes) = result.probes.take() else { return };
    probes.sizing = result.tiers.iter().map(|tier| sizing(&probes, tier)).collect();
    if probes.sizing.iter().all(is_empty) {
        probes.sizing.clear();
    }
    probes.checkout = result.tiers.iter().filter_map(|tier| checkout(&probes, tier)).collect();
    probes.balance = result.tiers.iter().filter_map(|tier| balance(&probes, tier)).collect();
    probes.growth = growth(&probes, result);
    result.probes = Some(probes);
}

/// What the busiest whole tier asked of a store: operations a second, and operations at once.
pub fn demand(result: &RunResult, probe: Probe) -> Option<(f64, f64)> {
    let probes = result.probes.as_ref()?;
    let of_tier = |tier: &TierResult| {
        let mean = |gauge: Gauge| used(probes, &[probe], &gauge, tier).map(|used| used.mean);
        match probe {
            Probe::Mongo => {
                let operations = operations(probes, tier)?;
                let latency = mean(Gauge::ReadLatency).unwrap_or(0.0) / 1e6;
                // Seen directly, and by Little's law: a pool that is full hides demand, and the server does not
                // count all of an operation's time. The larger one is nearer.
                Some((operations, mean(Gauge::PoolBusy).unwrap_or(0.0).max(operations * latency)))
            }
            _ => {
                let operations = mean(Gauge::Operations)?;
                Some((operations, operations * mean(Gauge::Ping).unwrap_or(0.0) / 1e6))
            }
        }
    };
    let all = result.tiers.iter().filter_map(of_tier);
    all.max_by(|one, other| one.0.total_cmp(&other.0))
}

/// Operations a second of a MongoDB that carry data; commands such as our own looks are none.
fn operations(probes: &Probes, tier: &TierResult) -> Option<f64> {
    let kinds = [Gauge::Queries, Gauge::Inserts, Gauge::Updates, Gauge::Deletes, Gauge::GetMores];
    kinds
        .iter()
        .filter_map(|gauge| used(probes, &[Probe::Mongo], gauge, tier))
        .map(|used| used.mean)
        .reduce(|sum, one| sum + one)
}

fn is_empty(row: &SizingRow) -> bool {
    *row == SizingRow { users: row.users, rate: row.rate, role: row.role, ..SizingRow::default() }
}

fn sizing(probes: &Probes, tier: &TierResult) -> SizingRow {
    let of = |kind: Probe, gauge: Gauge| used(probes, &[kind], &gauge, tier);
    let of_server = |gauge: Gauge| of(Probe::Process, gauge.clone()).or_else(|| of(Probe::Cgroup, gauge));
    SizingRow {
        users: tier.users,
        rate: tier.rate,
        role: tier.role,
        cpu_cores: of_server(Gauge::Cpu),
        memory_bytes: of_server(Gauge::Memory),
        mongo_connections: of(Probe::Mongo, Gauge::PoolOpen).or_else(|| of(Probe::Mongo, Gauge::Connections)),
        mongo_busy: of(Probe::Mongo, Gauge::PoolBusy),
        redis_memory_bytes: of(Probe::Redis, Gauge::Memory),
        redis_clients: of(Probe::Redis, Gauge::Connections),
    }
}

fn window(tier: &TierResult) -> (f64, f64) {
    (tier.steady_from_s, tier.steady_from_s + tier.steady_s)
}

/// A quantity over a tier's steady phase, summed up over all that is watched of these kinds.
fn used(probes: &Probes, kinds: &[Probe], gauge: &Gauge, tier: &TierResult) -> Option<Used> {
    let (from, to) = window(tier);
    let mut seconds: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    let all = probes.watched.iter().filter(|watched| kinds.contains(&watched.probe));
    for point in all.filter_map(|watched| watched.find(gauge, None)).flat_map(|series| series.during(from, to)) {
        let sum = seconds.entry(point.t_s).or_default();
        *sum = (sum.0 + point.mean, sum.1 + point.max);
    }
    let count = seconds.len() as f64;
    let mean = seconds.values().map(|(mean, _)| mean).sum::<f64>() / count;
    let max = seconds.values().map(|(_, max)| *max).reduce(f64::max)?;
    Some(Used { mean, max })
}

/// How long an operation waited for a connection: as the deployment tells it, or by Little's law where the pool was full.
fn checkout(probes: &Probes, tier: &TierResult) -> Option<Checkout> {
    let told = told_wait(probes, tier);
    let busy = used(probes, &[Probe::Mongo], &Gauge::PoolBusy, tier);
    let mongo = probes.watched.iter().find(|watched| watched.probe == Probe::Mongo);
    let limit = mongo.and_then(|mongo| mongo.find(&Gauge::PoolBusy, None)?.limit).map(|limit| limit.value);
    let operations_per_s = operations(probes, tier).unwrap_or(0.0);
    let row = |mean_us, told| Checkout {
        users: tier.users,
        rate: tier.rate,
        role: tier.role,
        mean_us,
        told,
        busy: busy.map(|busy| busy.mean),
        limit,
        operations_per_s,
    };
    if let Some(told) = told {
        return Some(row(told, true));
    }
    let (busy, limit) = (busy?, limit?);
    if busy.max < limit || operations_per_s <= 0.0 {
        return None;
    }
    let mean = |metric: Metric| tier.metrics.get(&metric).filter(|found| found.count > 0).map(|found| found.mean_us);
    // Little's law for those who wait: turns that are in the deployment and not with the model, less connections in
    // use. An estimate: what turns do besides is taken for waiting, and a turn that waits for several connections at
    // once counts as one.
    let within_us = mean(Metric::BeforeLlm)? + mean(Metric::Finalise).unwrap_or(0.0);
    let waiting = (tier.turns_per_s * within_us / 1e6 - busy.mean).max(0.0);
    Some(row(waiting / operations_per_s * 1e6, false))
}

/// The mean wait that the deployment tells, in microseconds, over all its endpoints: each second weighs as much as
/// connections were waited for in it.
fn told_wait(probes: &Probes, tier: &TierResult) -> Option<f64> {
    let (from, to) = window(tier);
    let (mut waited, mut count) = (0.0, 0.0);
    let mut seen: Vec<&str> = Vec::new();
    for watched in probes.watched.iter().filter(|watched| watched.probe == Probe::Prometheus) {
        // An endpoint that is named twice tells the same twice.
        if seen.contains(&watched.name.as_str()) {
            continue;
        }
        seen.push(&watched.name);
        let (Some(waits), Some(checkouts)) =
            (watched.find(&Gauge::CheckoutWait, None), watched.find(&Gauge::Checkouts, None))
        else {
            continue;
        };
        let rates: BTreeMap<u32, f64> = checkouts.during(from, to).map(|point| (point.t_s, point.mean)).collect();
        for point in waits.during(from, to) {
            let rate = rates.get(&point.t_s).copied().unwrap_or(0.0);
            waited += point.mean * rate;
            count += rate;
        }
    }
    (count > 0.0).then(|| waited / count)
}

/// How evenly workers share CPU time: processes of one name.
fn balance(probes: &Probes, tier: &TierResult) -> Option<Balance> {
    let (from, to) = window(tier);
    let mut groups: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
    let processes = probes.watched.iter().filter(|watched| watched.probe == Probe::Process);
    for series in processes.flat_map(|watched| &watched.series).filter(|series| series.gauge == Gauge::Cpu) {
        let Some(name) = series.of.as_deref() else { continue };
        if let Some(cores) = mean_of(series, from, to) {
            groups.entry(name.rsplit_once(' ').map_or(name, |(name, _)| name)).or_default().push((name, cores));
        }
    }
    let sum = |group: &[(&str, f64)]| group.iter().map(|(_, cores)| cores).sum::<f64>();
    let mut workers = groups.into_values().max_by(|one, other| sum(one).total_cmp(&sum(other)))?;
    workers.sort_by(|one, other| other.1.total_cmp(&one.1));
    workers.dedup_by_key(|(name, _)| *name);
    if let [others @ .., last] = &workers[..]
        && others.len() > 1
        && last.1 < MASTER * sum(others) / others.len() as f64
    {
        workers.pop();
    }
    let [(busiest, most_cores), _, ..] = workers[..] else { return None };
    Some(Balance {
        users: tier.users,
        rate: tier.rate,
        role: tier.role,
        workers: workers.len() as u32,
        busiest: busiest.to_owned(),
        most_cores,
        mean_cores: sum(&workers) / workers.len() as f64,
    })
}

fn mean_of(series: &Series, from: f64, to: f64) -> Option<f64> {
    let points: Vec<f64> = series.during(from, to).map(|point| point.mean).collect();
    (!points.is_empty()).then(|| points.iter().sum::<f64>() / points.len() as f64)
}

/// Growth of memory with turns, of everything of which memory is watched. A tier is a season of its own: from one to
/// the next memory grows with users.
fn growth(probes: &Probes, result: &RunResult) -> Vec<Growth> {
    let mut turns = BTreeMap::new();
    let mut ended = 0;
    for point in &result.timeline {
        ended += point.turns;
        turns.insert(point.t_s as u32, ended);
    }
    let of = |watched: &Watched| {
        let memory = watched.find(&Gauge::Memory, None)?;
        let seasons: Vec<Season> = result.tiers.iter().map(|tier| season(memory, tier, &turns)).collect();
        let found = slope(&seasons)?;
        let span = |season: &Season| match (season.first(), season.last()) {
            (Some(first), Some(last)) => last.0 - first.0,
            _ => 0.0,
        };
        Some(Growth {
            of: watched.name.clone(),
            bytes_per_turn: found.median,
            lower: found.lower,
            upper: found.upper,
            turns: seasons.iter().map(span).sum::<f64>() as u64,
        })
    };
    let servers = [Probe::Process, Probe::Cgroup];
    probes.watched.iter().filter(|watched| servers.contains(&watched.probe)).filter_map(of).collect()
}

/// Blocks of a steady phase: turns that have ended by then, and mean memory.
fn season(memory: &Series, tier: &TierResult, turns: &BTreeMap<u32, u64>) -> Season {
    let (from, to) = window(tier);
    let mut blocks: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
    for point in memory.during(from, to) {
        let ended = turns.range(..=point.t_s).next_back().map_or(0, |(_, ended)| *ended);
        blocks.entry(point.t_s / BLOCK_S.max(memory.step_s)).or_default().push((ended as f64, point.mean));
    }
    let mean = |block: Vec<(f64, f64)>| {
        let count = block.len() as f64;
        let (turns, bytes) = block.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (turns / count, bytes / count)
    };
    blocks.into_values().map(mean).collect()
}
