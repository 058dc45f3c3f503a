//! What is known of a turn from both sides, the user's and the mock's: where its time went.

use std::collections::BinaryHeap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flaw::Flaws;
use crate::metric::{Metric, SHARE};

/// The turns whose parts a tier keeps, for the charts: those with the least hashes, so that which they are does
/// not depend on the order.
const SAMPLE: usize = 4_000;
/// The slowest turns that a tier keeps.
const SLOWEST: usize = 5;

/// Where a turn's time went, in microseconds. The time to first token is the sum of `generator`, `connect`,
/// `before_llm`, `llm_first` and `relay`; the turn's latency that of `generator`, `connect`, `before_llm`, `llm`
/// and `finalise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Parts {
    /// Intended start to actual send, without connecting.
    pub generator: u64,
    /// TCP and TLS, and where the user had to be let in again, that.
    pub connect: u64,
    /// Actual send to received by the mock.
    pub before_llm: u64,
    /// Received by the mock to its first token.
    pub llm_first: u64,
    /// First token sent by the mock to received by the client.
    pub relay: u64,
    /// Received by the mock to its last token.
    pub llm: u64,
    /// Last token sent by the mock to terminal event.
    pub finalise: u64,
}

impl Parts {
    /// Time to first token.
    pub fn ttft(&self) -> u64 {
        self.generator + self.connect + self.before_llm + self.llm_first + self.relay
    }

    /// Turn latency.
    pub fn turn(&self) -> u64 {
        self.generator + self.connect + self.before_llm + self.llm + self.finalise
    }

    /// What the deployment added to the turn.
    pub fn added(&self) -> u64 {
        self.before_llm + self.finalise
    }
}

/// A turn that was found on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The turn's marker.
    pub marker: String,
    /// Where its time went.
    pub parts: Parts,
    /// Whether what it measured counts: it completed, or its user cancelled it.
    pub counts: bool,
    /// Whether it completed.
    pub completed: bool,
    /// Whether the mock had kept the moment of each token.
    pub stamped: bool,
    /// Of each token whose moment of sending is known: how long it took, in microseconds.
    pub delays: Vec<u64>,
    /// How its tokens arrived.
    pub relay: Relay,
    /// Flaws that only the mock's side shows.
    pub flaws: Flaws,
}

impl Joined {
    /// What is recorded of it.
    pub(super) fn metrics(&self) -> impl Iterator<Item = (Metric, u64)> {
        let Parts { before_llm, relay, finalise, .. } = self.parts;
        let since_send = self.parts.before_llm + self.parts.llm + self.parts.finalise;
        let share = self.parts.added() as f64 / since_send.max(1) as f64 * SHARE;
        let of_turn = [
            (Metric::BeforeLlm, Some(before_llm)),
            (Metric::TtftOverhead, Some(before_llm + relay)),
            (Metric::Finalise, self.completed.then_some(finalise)),
            (Metric::OverheadShare, self.completed.then_some(share.round() as u64)),
        ];
        let of_turn = of_turn.into_iter().filter_map(|(metric, value)| Some((metric, value?)));
        of_turn.chain(self.delays.iter().map(|delay| (Metric::TokenDelay, *delay)))
    }
}

/// How tokens came through what lies between the mock and the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Relay {
    /// Turns of which each token's moment of sending is known.
    pub turns: u64,
    /// Their tokens.
    pub tokens: u64,
    /// The arrivals with which these came.
    pub arrivals: u64,
    /// Tokens that the mock sent more than 5 ms after the one before, and that arrived together with it.
    pub together: u64,
    /// How much longer than the quickest token of its turn a token took, summed over the tokens, in microseconds.
    pub held_us: u64,
    /// Turns whose reply arrived as good as at once, though it was sent over a time.
    pub buffered_turns: u64,
}

impl Relay {
    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        self.turns += other.turns;
        self.tokens += other.tokens;
        self.arrivals += other.arrivals;
        self.together += other.together;
        self.held_us += other.held_us;
        self.buffered_turns += other.buffered_turns;
    }
}

/// One slow turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slow {
    /// Its marker.
    pub turn: String,
    /// Where its time went.
    pub parts: Parts,
}

/// One reading of the distance of the mock's clock from ours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reading {
    /// When, in seconds of the run.
    pub t_s: f64,
    /// How far the mock's clock is ahead of ours, in microseconds.
    pub offset_us: f64,
    /// To within so much.
    pub uncertainty_us: f64,
}

/// What a tier's traced turns have told.
#[derive(Debug, Clone, Default)]
pub struct TierTrace {
    /// Turns found on both sides.
    pub joined: u64,
    /// Turns whose first token came and that were not found in the mock's journal.
    pub unjoined: u64,
    /// Turns found on both sides of which single tokens could not be told, though the mock had kept their stamps:
    /// they came late, or with a flaw, or the stream broke off.
    pub unmeasured: u64,
    /// How tokens came through.
    pub relay: Relay,
    /// The completed turns to which the deployment added most, the most first.
    pub slowest: Vec<Slow>,
    sample: BinaryHeap<(u64, [u64; 7])>,
}

impl TierTrace {
    /// Takes a turn that was found on both sides.
    pub fn take(&mut self, joined: &Joined) {
        self.joined += 1;
        self.unmeasured += u64::from(joined.counts && joined.stamped && joined.delays.is_empty());
        self.relay.merge(&joined.relay);
        if !joined.completed {
            return;
        }
        let Parts { generator, connect, before_llm, llm_first, relay, llm, finalise } = joined.parts;
        let hash = mock_llm::script::stable_hash(&[b"sample", joined.marker.as_bytes()]);
        self.sample.push((hash, [generator, connect, before_llm, llm_first, relay, llm, finalise]));
        if self.sample.len() > SAMPLE {
            self.sample.pop();
        }
        self.slowest.push(Slow { turn: joined.marker.clone(), parts: joined.parts });
        self.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.parts.added()));
        self.slowest.truncate(SLOWEST);
    }

    /// The parts of a sample of the completed turns.
    pub fn sample(&self) -> Vec<Parts> {
        let parts = |(_, parts): &(u64, [u64; 7])| {
            let [generator, connect, before_llm, llm_first, relay, llm, finalise] = *parts;
            Parts { generator, connect, before_llm, llm_first, relay, llm, finalise }
        };
        self.sample.iter().map(parts).collect()
    }
}
