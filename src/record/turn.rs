//! One turn, from intended start to outcome.

use serde::{Deserialize, Serialize};

use super::flaw::Checked;
use super::outcome::Outcome;
use super::wire::Wire;
use crate::clock::{Nanos, micros};

/// When a token arrived: at `latest` at the latest, after `earliest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The upper bound, which latencies count to.
    pub latest: Nanos,
    /// The lower bound; equal to `latest` where the stamp is exact.
    pub earliest: Nanos,
}

/// Tokens that arrived together, with one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Microseconds since the first token.
    pub after_us: u32,
    /// How many there were.
    pub tokens: u32,
}

/// What happened to one turn. Moments are on the run's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// When the load model wanted it to start.
    pub intended: Nanos,
    /// When the user's task began it.
    pub started: Nanos,
    /// When the request's first byte was handed to the socket.
    pub sent: Option<Nanos>,
    /// How long the TCP handshake took, if a connection was made.
    pub connect: Option<Nanos>,
    /// How long the TLS handshake took, likewise.
    pub tls: Option<Nanos>,
    /// What carried its stream, or the newest of its requests where it came to no stream.
    pub wire: Option<Wire>,
    /// When the first content token arrived.
    pub first_token: Option<Arrival>,
    /// When the newest one arrived.
    pub last_token: Option<Nanos>,
    /// When the terminal event arrived, or the turn was given up.
    pub ended: Nanos,
    /// When the user could go on: the end of the response's body, or `ended`.
    pub released: Nanos,
    /// Content tokens received.
    pub tokens: u64,
    /// How they arrived, the first among them. Tokens of one read are one arrival.
    pub arrivals: Vec<Batch>,
    /// How much of the time before the actual send was spent on letting the user in again.
    pub renewal: Nanos,
    /// Requests that were sent again on a fresh connection because the old one was closing.
    pub retries: u32,
    /// How often its stream was taken up again after it had broken off.
    pub resumes: u32,
    /// For how long the target wants to be left alone, where it said so.
    pub retry_after: Option<Nanos>,
    /// Words of the whole text that never arrived as tokens: somebody subscribed late.
    pub late: u64,
    /// What the check of the text has found, where it is known in advance.
    pub checked: Option<Box<Checked>>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the target or the system said, for the first examples of an outcome.
    pub detail: String,
}

impl Turn {
    /// A turn of which nothing is known yet but its beginning.
    pub fn new(intended: Nanos, started: Nanos) -> Self {
        Self {
            intended,
            started,
            sent: None,
            connect: None,
            tls: None,
            wire: None,
            first_token: None,
            last_token: None,
            ended: started,
            released: started,
            tokens: 0,
            arrivals: Vec::new(),
            renewal: 0,
            retries: 0,
            resumes: 0,
            retry_after: None,
            late: 0,
            checked: None,
            outcome: Outcome::Interrupted,
            detail: String::new(),
        }
    }

    /// Notes tokens that arrived with a read.
    pub fn arrive(&mut self, at: Nanos, tokens: u64) {
        let first = self.first_token.map_or(at, |first| first.latest);
        let after_us = u32::try_from(micros(at - first)).unwrap_or(u32::MAX);
        self.arrivals.push(Batch { after_us, tokens: u32::try_from(tokens).unwrap_or(u32::MAX) });
    }

    /// Gaps between arrivals, in microseconds.
    pub fn gaps(&self) -> impl Iterator<Item = u64> {
        self.arrivals.windows(2).map(|pair| u64::from(pair[1].after_us.saturating_sub(pair[0].after_us)))
    }

    /// The check of the text is done: a reply that came to its end is spoilt by any flaw, and any reply by
    /// what is somebody else's.
    pub fn settle(&mut self, checked: Checked) {
        self.late = checked.late;
        let ended = matches!(self.outcome, Outcome::Completed | Outcome::Aborted);
        let outcome = match (checked.flaws.leaked > 0, checked.flaws.total() > 0) {
            (true, _) => Some(Outcome::Leaked),
            (false, true) if ended => Some(Outcome::Corrupted),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.outcome = outcome;
            if let Some(finding) = checked.findings.first() {
                let (flaw, position) = (finding.flaw.name(), finding.position);
                self.detail =
                    format!("{flaw} at token {position}: expected `{}`, got `{}`", finding.expected, finding.got);
            }
        }
        self.checked = Some(Box::new(checked));
    }
}

/// What one turn of an outcome looked like; the text is the target's and must be escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Example {
    /// The outcome's name.
    pub outcome: String,
    /// What was said, cut to 200 characters.
    pub detail: String,
}
