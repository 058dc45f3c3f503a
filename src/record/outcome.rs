//! How a turn ended: exactly one of these.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The terminal event came.
    Completed,
    /// 429.
    RateLimited,
    /// The deployment refuses the account or the address outright.
    Banned,
    /// Nobody listens at the target's address.
    ConnectRefused,
    /// The target did not accept a connection in time, or not at all.
    ConnectTimeout,
    /// The target's name does not resolve.
    Dns,
    /// The TLS handshake failed.
    Tls,
    /// A 4xx other than 401, 403 and 429.
    HttpClient(u16),
    /// A 5xx.
    HttpServer(u16),
    /// 401 or 403.
    Unauthorized,
    /// An error inside a 200 stream.
    ErrorEvent,
    /// Closed without a terminal event.
    Truncated,
    /// The connection was reset.
    Reset,
    /// Nothing for the stall timeout.
    Stalled,
    /// Longer than the turn timeout.
    TimedOut,
    /// Not what the protocol allows.
    Protocol,
    /// It ended, but tokens of it were lost, doubled, reordered or altered.
    Corrupted,
    /// Tokens of another user's turn came with it: a security finding.
    Leaked,
    /// The user cancelled it, as the scenario asked.
    Aborted,
    /// The run was stopped.
    Interrupted,
}

impl Outcome {
    /// The outcome of a response status that is no success.
    pub fn of_status(status: u16) -> Self {
        match status {
            429 => Self::RateLimited,
            401 | 403 => Self::Unauthorized,
            400..=499 => Self::HttpClient(status),
            500..=599 => Self::HttpServer(status),
            _ => Self::Protocol,
        }
    }

    /// Whether this is the target's failure. An interrupted turn is nobody's, a cancelled one the user's wish.
    pub fn is_error(self) -> bool {
        !matches!(self, Self::Completed | Self::Aborted | Self::Interrupted)
    }
}

impl fmt::Display for Outcome {
    /// The name in results: snake case, with the status where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Completed => "completed",
            Self::RateLimited => "rate_limited",
            Self::Banned => "banned",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::HttpClient(status) => return write!(f, "http_client_{status}"),
            Self::HttpServer(status) => return write!(f, "http_server_{status}"),
            Self::Unauthorized => "unauthorized",
            Self::ErrorEvent => "error_event",
            Self::Truncated => "truncated",
            Self::Reset => "reset",
            Self::Stalled => "stalled",
            Self::TimedOut => "timed_out",
            Self::Protocol => "protocol",
            Self::Corrupted => "corrupted",
            Self::Leaked => "leaked",
            Self::Aborted => "aborted",
            Self::Interrupted => "interrupted",
        };
        f.write_str(name)
    }
}

/// How many turns ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutcomeCounts(BTreeMap<Outcome, u64>);

impl OutcomeCounts {
    /// Counts one turn.
    pub fn add(&mut self, outcome: Outcome) {
        *self.0.entry(outcome).or_default() += 1;
    }

    /// Counts what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (outcome, count) in &other.0 {
            *self.0.entry(*outcome).or_default() += count;
        }
    }

    /// Turns that ended like this.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0.get(&outcome).copied().unwrap_or(0)
    }

    /// All turns.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Turns whose end was the target's failure.
    pub fn errors(&self) -> u64 {
        self.0.iter().filter(|(outcome, _)| outcome.is_error()).map(|(_, count)| count).sum()
    }
}

impl Serialize for OutcomeCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(outcome, count)| (outcome.to_string(), count)))
    }
}
