//! The metrics that have histograms, and a set of histograms by metric.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Something that is measured in microseconds, many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Intended start to first content token.
    Ttft,
    /// Actual send to first content token: what the target and the network took.
    TtftFromSend,
    /// Between successive arrivals of tokens of a turn.
    Itl,
    /// (Last token - first token) / (tokens - 1).
    Tpot,
    /// Intended start to terminal event.
    Turn,
    /// The TCP handshake, where a turn needed a new connection.
    Connect,
    /// The TLS handshake, likewise.
    Tls,
    /// Kernel receive stamp to user space, of the reads that carried tokens.
    ReceiveLag,
    /// Intended start to actual start.
    StartLag,
    /// Lateness of a shard's heartbeat.
    LoopDelay,
    /// Between the bounds of a first token whose stamp is only a bound.
    FirstTokenWidth,
}

impl Metric {
    /// How many there are.
    pub const COUNT: usize = 11;

    /// All of them, in the order of the report.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Ttft,
        Self::TtftFromSend,
        Self::Itl,
        Self::Tpot,
        Self::Turn,
        Self::Connect,
        Self::Tls,
        Self::ReceiveLag,
        Self::StartLag,
        Self::LoopDelay,
        Self::FirstTokenWidth,
    ];

    /// Those that a budget may limit: what a user feels.
    pub const BUDGETED: [Self; 5] = [Self::Ttft, Self::Itl, Self::Tpot, Self::Turn, Self::Connect];

    /// The name in flags and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::TtftFromSend => "ttft_from_send",
            Self::Itl => "itl",
            Self::Tpot => "tpot",
            Self::Turn => "turn",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::ReceiveLag => "receive_lag",
            Self::StartLag => "start_lag",
            Self::LoopDelay => "loop_delay",
            Self::FirstTokenWidth => "first_token_width",
        }
    }

    /// Whether its samples are tokens, of which a turn has many: then the turn is the cluster.
    pub fn is_of_tokens(self) -> bool {
        matches!(self, Self::Itl | Self::ReceiveLag)
    }
}

/// An empty histogram from 1 us to 1 h with three significant digits: 184 KiB of counters.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are constant and valid")
}

/// A set of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricSet(u16);

impl MetricSet {
    /// Whether a metric is in the set.
    pub fn contains(self, metric: Metric) -> bool {
        self.0 & (1 << metric as u16) != 0
    }
}

impl FromIterator<Metric> for MetricSet {
    fn from_iter<T: IntoIterator<Item = Metric>>(metrics: T) -> Self {
        Self(metrics.into_iter().fold(0, |set, metric| set | 1 << metric as u16))
    }
}

/// A histogram a metric, made when it is first needed.
#[derive(Debug, Clone, Default)]
pub struct Metrics([Option<Box<Histogram<u64>>>; Metric::COUNT]);

impl Metrics {
    /// Records a duration in microseconds; above an hour counts as an hour, below 1 us as 1 us.
    pub fn record(&mut self, metric: Metric, micros: u64) {
        self.entry(metric).saturating_record(micros.max(1));
    }

    fn entry(&mut self, metric: Metric) -> &mut Histogram<u64> {
        self.0[metric as usize].get_or_insert_with(|| Box::new(new_histogram()))
    }

    /// The histogram of a metric, if anything was recorded.
    pub fn get(&self, metric: Metric) -> Option<&Histogram<u64>> {
        self.0[metric as usize].as_deref()
    }

    /// How often a metric was recorded.
    pub fn count(&self, metric: Metric) -> u64 {
        self.get(metric).map_or(0, Histogram::len)
    }

    /// Adds what another set has recorded; exact.
    pub fn merge(&mut self, other: &Self) {
        for metric in Metric::ALL {
            if let Some(histogram) = other.get(metric) {
                let mine = self.entry(metric);
                mine.add(histogram).expect("both histograms have the same bounds");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_all_is_the_index() {
        for (index, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, index);
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
        }
    }

    #[test]
    fn a_set_has_what_it_was_made_of() {
        let set: MetricSet = [Metric::Itl, Metric::Turn].into_iter().collect();
        assert!(set.contains(Metric::Itl) && set.contains(Metric::Turn) && !set.contains(Metric::Ttft));
    }
}
