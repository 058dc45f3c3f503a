//! The metrics by name: a word that scenario, record and verdict share.

use serde::{Deserialize, Serialize};

/// A share is recorded in millionths.
pub const SHARE: f64 = 1e6;

/// Something that is measured many times, in microseconds, or as a share in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
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
    /// Actual send to received by the mock, of traced turns.
    BeforeLlm,
    /// What the deployment added to the time to first token, counted from the actual send.
    TtftOverhead,
    /// From the mock's sending of a token to its arrival.
    TokenDelay,
    /// From the mock's last token to the terminal event.
    Finalise,
    /// The deployment's share of the turn, counted from the actual send.
    OverheadShare,
}

/// What the values of a metric are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Time,
    /// Millionths.
    Share,
}

impl Metric {
    /// How many there are.
    pub const COUNT: usize = 16;

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
        Self::BeforeLlm,
        Self::TtftOverhead,
        Self::TokenDelay,
        Self::Finalise,
        Self::OverheadShare,
    ];

    /// Those that only a turn that was found in the mock's journal has.
    pub const TRACED: [Self; 5] =
        [Self::BeforeLlm, Self::TtftOverhead, Self::TokenDelay, Self::Finalise, Self::OverheadShare];

    /// Those that a budget may limit: what a user feels, and what the deployment added.
    pub const BUDGETED: [Self; 10] = [
        Self::Ttft,
        Self::Itl,
        Self::Tpot,
        Self::Turn,
        Self::Connect,
        Self::BeforeLlm,
        Self::TtftOverhead,
        Self::TokenDelay,
        Self::Finalise,
        Self::OverheadShare,
    ];

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
            Self::BeforeLlm => "before_llm",
            Self::TtftOverhead => "ttft_overhead",
            Self::TokenDelay => "token_delay",
            Self::Finalise => "finalise",
            Self::OverheadShare => "overhead_share",
        }
    }

    /// Whether its samples are tokens, of which a turn has many: then the turn is the cluster.
    pub fn is_of_tokens(self) -> bool {
        matches!(self, Self::Itl | Self::ReceiveLag | Self::TokenDelay)
    }

    /// What its values are.
    pub fn unit(self) -> Unit {
        if self == Self::OverheadShare { Unit::Share } else { Unit::Time }
    }
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
