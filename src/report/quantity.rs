//! What probes watch, in the words of a catalogue: quantities, their values, events, limits.

use super::section::NAME;
use super::words::{decimal, duration, number, share, trimmed};
use crate::lang::Texts;
use crate::result::{EventKind, Gauge, IndexProblem, LimitSource, Probe, Series, Unit};
use crate::secret::escaped;

const KIBI: f64 = 1024.0;
pub(super) const MEBI: f64 = KIBI * KIBI;

/// A quantity's name; its unit stands in it where values do not carry one.
pub(super) fn gauge(texts: &Texts, gauge: &Gauge) -> String {
    texts.get(match gauge {
        Gauge::Named(name) => return escaped(name, NAME),
        Gauge::Connections => "gauge-connections",
        Gauge::ConnectionsActive => "gauge-connections-active",
        Gauge::ConnectionsCreated => "gauge-connections-created",
        Gauge::PoolOpen => "gauge-pool-open",
        Gauge::PoolBusy => "gauge-pool-busy",
        Gauge::Checkouts => "gauge-checkouts",
        Gauge::CheckoutWait => "gauge-checkout-wait",
        Gauge::QueuedReaders => "gauge-queued-readers",
        Gauge::QueuedWriters => "gauge-queued-writers",
        Gauge::ReadTickets => "gauge-read-tickets",
        Gauge::WriteTickets => "gauge-write-tickets",
        Gauge::Operations => "gauge-operations",
        Gauge::Queries => "gauge-queries",
        Gauge::Inserts => "gauge-inserts",
        Gauge::Updates => "gauge-updates",
        Gauge::Deletes => "gauge-deletes",
        Gauge::GetMores => "gauge-get-mores",
        Gauge::Commands => "gauge-commands",
        Gauge::ReadLatency => "gauge-read-latency",
        Gauge::WriteLatency => "gauge-write-latency",
        Gauge::CommandLatency => "gauge-command-latency",
        Gauge::NetworkIn => "gauge-network-in",
        Gauge::NetworkOut => "gauge-network-out",
        Gauge::Memory => "gauge-memory",
        Gauge::CacheUsed => "gauge-cache-used",
        Gauge::CacheDirty => "gauge-cache-dirty",
        Gauge::CacheEvicted => "gauge-cache-evicted",
        Gauge::Cursors => "gauge-cursors",
        Gauge::ReplicationLag => "gauge-replication-lag",
        Gauge::ReplicationBehind => "gauge-replication-behind",
        Gauge::BlockedClients => "gauge-blocked-clients",
        Gauge::OutputBuffers => "gauge-output-buffers",
        Gauge::Fragmentation => "gauge-fragmentation",
        Gauge::Evicted => "gauge-evicted",
        Gauge::Expired => "gauge-expired",
        Gauge::Rejected => "gauge-rejected",
        Gauge::HitShare => "gauge-hit-share",
        Gauge::Keys => "gauge-keys",
        Gauge::SlowCommands => "gauge-slow-commands",
        Gauge::Ping => "gauge-ping",
        Gauge::Cpu => "gauge-cpu",
        Gauge::Throttled => "gauge-throttled",
        Gauge::Descriptors => "gauge-descriptors",
        Gauge::Threads => "gauge-threads",
        Gauge::Processes => "gauge-processes",
        Gauge::SwitchesVoluntary => "gauge-switches-voluntary",
        Gauge::SwitchesInvoluntary => "gauge-switches-involuntary",
        Gauge::SocketsEstablished => "gauge-sockets-established",
        Gauge::SocketsTimeWait => "gauge-sockets-time-wait",
        Gauge::SocketsCloseWait => "gauge-sockets-close-wait",
        Gauge::ListenQueue => "gauge-listen-queue",
        Gauge::ListenOverflows => "gauge-listen-overflows",
        Gauge::HealthLatency => "gauge-health-latency",
        Gauge::HealthFailures => "gauge-health-failures",
    })
}

/// A series' name: its quantity, and of which part.
pub(super) fn series(texts: &Texts, series: &Series) -> String {
    let name = gauge(texts, &series.gauge);
    series.of.as_ref().map_or_else(|| name.clone(), |of| format!("{name} ({})", escaped(of, NAME)))
}

/// A value in its unit.
pub(super) fn of_unit(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Count => counted(value),
        Unit::PerSecond => format!("{}/s", counted(value)),
        Unit::Bytes => bytes(value),
        Unit::BytesPerSecond => format!("{}/s", bytes(value)),
        Unit::Micros => duration(value),
        Unit::Share => share(value),
        Unit::Cores => format!("{value:.2}"),
        Unit::Unknown => plain(value),
    }
}

fn counted(value: f64) -> String {
    if value >= 0.0 && value.fract() == 0.0 { number(value as u64) } else { decimal(value) }
}

fn bytes(value: f64) -> String {
    match value.abs() {
        0.0 => "0 KiB".to_owned(),
        some if some < MEBI => format!("{} KiB", decimal(value / KIBI)),
        _ => format!("{} MiB", decimal(value / MEBI)),
    }
}

/// A number of any size: whole from 1,000 on, and four digits that count below.
pub(super) fn plain(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        great if great >= 1e15 => format!("{value:.3e}"),
        great if great >= 999.95 => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", number(great.round() as u64))
        }
        small if small < 1e-4 => format!("{value:.2e}"),
        size => {
            let digits = (3.0 - size.log10().floor()).max(0.0) as usize;
            trimmed(&format!("{value:.digits$}")).to_owned()
        }
    }
}

/// What happened.
pub(super) fn event(texts: &Texts, kind: EventKind) -> String {
    texts.get(match kind {
        EventKind::Failover => "event-failover",
        EventKind::Resharding => "event-resharding",
        EventKind::Evictions => "event-evictions",
        EventKind::MaxClients => "event-max-clients",
        EventKind::PoolFull => "event-pool-full",
        EventKind::ListenOverflow => "event-listen-overflow",
        EventKind::Restarted => "event-restarted",
        EventKind::Gone => "event-gone",
        EventKind::Slow => "event-slow",
        EventKind::OutOfMemory => "event-out-of-memory",
    })
}

/// A kind of thing that is watched.
pub(super) fn probe(texts: &Texts, probe: Probe) -> String {
    texts.get(match probe {
        Probe::Mongo => "probe-mongo",
        Probe::Redis => "probe-redis",
        Probe::Process => "probe-process",
        Probe::Cgroup => "probe-cgroup",
        Probe::Health => "probe-health",
        Probe::Prometheus => "probe-prometheus",
    })
}

/// Where a limit is known from.
pub(super) fn source(texts: &Texts, source: LimitSource) -> String {
    texts.get(match source {
        LimitSource::Scenario => "limit-scenario",
        LimitSource::Environment => "limit-environment",
        LimitSource::Server => "limit-server",
        LimitSource::Plateau => "limit-plateau",
    })
}

/// What is wrong with a query.
pub(super) fn problem(texts: &Texts, problem: IndexProblem) -> String {
    texts.get(match problem {
        IndexProblem::CollectionScan => "index-scan",
        IndexProblem::MemorySort => "index-sort",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_well_in_every_unit() {
        let shown = [
            (Unit::Count, 1_204.0, "1,204"),
            (Unit::Count, 3.26, "3.3"),
            (Unit::PerSecond, 812.0, "812/s"),
            (Unit::Bytes, 0.0, "0 KiB"),
            (Unit::Bytes, 2_048.0, "2.0 KiB"),
            (Unit::Bytes, 1_610_612_736.0, "1,536 MiB"),
            (Unit::BytesPerSecond, 3_145_728.0, "3.0 MiB/s"),
            (Unit::Micros, 412.0, "412 µs"),
            (Unit::Share, 0.985, "98.5 %"),
            (Unit::Cores, 0.918, "0.92"),
            (Unit::Unknown, 0.0, "0"),
        ];
        for (unit, value, text) in shown {
            assert_eq!(of_unit(unit, value), text, "{unit:?} {value}");
        }
        assert_eq!(
            [12.345_6, 0.012_346, 999.97, -1_234.5, 123_456.0, 2e-9, 5.0].map(plain),
            ["12.35", "0.01235", "1,000", "-1,235", "123,456", "2.00e-9", "5"]
        );
    }
}
