//! The journal: one entry a request, kept in a ring, read in pages.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How a request ended, as the mock saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnOutcome {
    /// Everything was handed to the socket, the terminal event included.
    Completed,
    /// Refused with 429 by the rate limit.
    RateLimited,
    /// Refused with 503: every slot taken and the queue full.
    QueueFull,
    /// Refused with 401: no bearer key, or a wrong one.
    Unauthorized,
    /// Refused with 400: not a chat completion request.
    BadRequest,
    /// Refused with 404: no such model.
    UnknownModel,
    /// The caller went away before the end.
    CallerGone,
    /// A planned 500.
    Http500,
    /// A planned 503.
    Http503,
    /// A planned error event in mid-stream.
    ErrorEvent,
    /// A planned reset of the connection.
    Reset,
    /// A planned silence; ends when the caller leaves.
    Stall,
    /// A planned event that is no JSON, in an otherwise whole reply.
    MalformedJson,
    /// A planned end without `[DONE]`.
    NoDone,
}

/// One request. Times are Unix microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The position in the journal, from 1, in the order in which requests ended.
    pub seq: u64,
    /// The newest marker in the last user message, as `cc:RUN:USER:TURN`.
    pub marker: Option<String>,
    /// The model that was asked for.
    pub model: String,
    /// Whether the reply was to be streamed.
    pub stream: bool,
    /// When the request had been read.
    pub received_us: u64,
    /// When it got its slot and its schedule began.
    pub admitted_us: Option<u64>,
    /// When the first token was handed to the socket.
    pub first_token_us: Option<u64>,
    /// When the newest token was handed to the socket.
    pub last_token_us: Option<u64>,
    /// When the request ended.
    pub ended_us: u64,
    /// Tokens handed to the socket.
    pub tokens: u64,
    /// How it ended.
    pub outcome: TurnOutcome,
    /// The greatest lateness of a token against its schedule, in microseconds.
    pub lateness_max_us: u64,
}

/// A page of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The turns, by rising `seq`.
    pub turns: Vec<Turn>,
    /// What to pass as `after` for the next page.
    pub next: u64,
    /// Whether there is more already.
    pub more: bool,
    /// Turns that were asked for but had left the ring.
    pub lost: u64,
    /// The number of the newest turn.
    pub newest: u64,
}

/// The ring of ended turns.
pub(crate) struct Journal {
    turns: VecDeque<Turn>,
    capacity: usize,
    newest: u64,
}

/// The most turns in one page.
pub const PAGE_LIMIT: usize = 5_000;

impl Journal {
    /// An empty ring of `capacity` turns.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { turns: VecDeque::new(), capacity, newest: 0 }
    }

    /// Adds a turn and gives it its number; the oldest leaves a full ring.
    pub(crate) fn push(&mut self, mut turn: Turn) {
        self.newest += 1;
        turn.seq = self.newest;
        if self.turns.len() == self.capacity {
            self.turns.pop_front();
        }
        self.turns.push_back(turn);
    }

    /// The turns after number `after`, at most `limit`.
    pub(crate) fn page(&self, after: u64, limit: usize) -> Page {
        let oldest = self.newest - self.turns.len() as u64;
        let skip = after.max(oldest) - oldest;
        let turns: Vec<Turn> =
            self.turns.iter().skip(skip as usize).take(limit.clamp(1, PAGE_LIMIT)).cloned().collect();
        let next = turns.last().map_or(after.max(oldest), |turn| turn.seq);
        Page { turns, next, more: next < self.newest, lost: oldest.saturating_sub(after), newest: self.newest }
    }
}

/// The wall clock in Unix microseconds.
pub(crate) fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> Turn {
        Turn {
            seq: 0,
            marker: None,
            model: "m".to_owned(),
            stream: true,
            received_us: 1,
            admitted_us: None,
            first_token_us: None,
            last_token_us: None,
            ended_us: 2,
            tokens: 0,
            outcome: TurnOutcome::Completed,
            lateness_max_us: 0,
        }
    }

    #[test]
    fn pages_join_without_gap_and_say_what_was_lost() {
        let mut journal = Journal::new(5);
        for _ in 0..8 {
            journal.push(turn());
        }
        let first = journal.page(0, 3);
        assert_eq!(first.turns.iter().map(|turn| turn.seq).collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!((first.lost, first.more, first.next), (3, true, 6));
        let second = journal.page(first.next, 3);
        assert_eq!(second.turns.iter().map(|turn| turn.seq).collect::<Vec<_>>(), [7, 8]);
        assert_eq!((second.lost, second.more, second.next), (0, false, 8));
        assert_eq!(journal.page(8, 3), Page { turns: vec![], next: 8, more: false, lost: 0, newest: 8 });
    }
}
