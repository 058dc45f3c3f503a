//! One turn, from intended start to outcome.

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use crate::clock::Nanos;

/// When a token arrived: at `latest` at the latest, after `earliest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The upper bound, which latencies count to.
    pub latest: Nanos,
    /// The lower bound; equal to `latest` where the stamp is exact.
    pub earliest: Nanos,
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
    /// Gaps between arrivals of tokens, in microseconds. Tokens of one read are one arrival.
    pub gaps: Vec<u32>,
    /// Requests that were sent again on a fresh connection because the old one was closing.
    pub retries: u32,
    /// How often its stream was taken up again after it had broken off.
    pub resumes: u32,
    /// Words of the whole text that never arrived as tokens.
    pub unseen: u64,
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
            first_token: None,
            last_token: None,
            ended: started,
            released: started,
            tokens: 0,
            gaps: Vec::new(),
            retries: 0,
            resumes: 0,
            unseen: 0,
            outcome: Outcome::Interrupted,
            detail: String::new(),
        }
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
