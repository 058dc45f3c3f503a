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
    /// Refused with 401: no key, or a wrong one.
    Unauthorized,
    /// Refused with 400: not a request of the API that was asked.
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
    /// A planned end without the terminal event (`[DONE]` of chat completions).
    NoDone,
}

/// What a request with a marker is to the turn whose marker it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// The turn's own.
    Turn,
    /// The turn's own once more: the deployment tried again.
    Retry,
    /// Another one about the turn, such as for a title or a summary: the marker is not what its
    /// last user message ends with.
    Aside,
}

/// One request. Times are Unix microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The position in the journal, from 1, in the order in which requests ended.
    pub seq: u64,
    /// The newest marker in the last user message, as `cc:RUN:USER:TURN`.
    pub marker: Option<String>,
    /// What it is to that turn.
    pub call: Option<Call>,
    /// The model that was asked for.
    pub model: String,
    /// Whether the reply was to be streamed.
    pub stream: bool,
    /// When the request had come, by the kernel's stamp of its last bytes; where there is none, when it was read.
    pub received_us: u64,
    /// When it got its slot. Its schedule began then, or, where it had not to wait, when the request had come.
    pub admitted_us: Option<u64>,
    /// When the first token was handed to the socket.
    pub first_token_us: Option<u64>,
    /// When the newest token was handed to the socket.
    pub last_token_us: Option<u64>,
    /// When the request ended.
    pub ended_us: u64,
    /// Tokens handed to the socket.
    pub tokens: u64,
    /// When each of them was, in microseconds since `received_us`; not kept of every turn.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sends_us: Option<Vec<u32>>,
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
    /// Of how many of the oldest turns the token stamps are gone, and how many stamps there are.
    bare: usize,
    stamps: usize,
}

/// The most turns in one page.
pub const PAGE_LIMIT: usize = 5_000;
/// A page ends after the turn with which it has so many token stamps: some 5 MB of JSON.
const PAGE_STAMPS: usize = 500_000;
/// The token stamps that the ring keeps (64 MiB); the oldest turns lose theirs first.
const STAMPS: usize = 16 << 20;

impl Journal {
    /// An empty ring of `capacity` turns.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { turns: VecDeque::new(), capacity, newest: 0, bare: 0, stamps: 0 }
    }

    /// Adds a turn and gives it its number; the oldest leaves a full ring.
    pub(crate) fn push(&mut self, mut turn: Turn) {
        self.newest += 1;
        turn.seq = self.newest;
        if self.turns.len() == self.capacity
            && let Some(oldest) = self.turns.pop_front()
        {
            self.stamps -= stamps(&oldest);
            self.bare = self.bare.saturating_sub(1);
        }
        self.stamps += stamps(&turn);
        self.turns.push_back(turn);
        while self.stamps > STAMPS {
            let Some(oldest) = self.turns.get_mut(self.bare) else { return };
            self.stamps -= stamps(oldest);
            oldest.sends_us = None;
            self.bare += 1;
        }
    }

    /// The turns after number `after`, at most `limit`.
    pub(crate) fn page(&self, after: u64, limit: usize) -> Page {
        let oldest = self.newest - self.turns.len() as u64;
        let skip = after.max(oldest) - oldest;
        let mut room = PAGE_STAMPS;
        let turns: Vec<Turn> = self
            .turns
            .iter()
            .skip(skip as usize)
            .take(limit.clamp(1, PAGE_LIMIT))
            .take_while(|turn| {
                let open = room > 0;
                room = room.saturating_sub(stamps(turn));
                open
            })
            .cloned()
            .collect();
        let next = turns.last().map_or(after.max(oldest), |turn| turn.seq);
        Page { turns, next, more: next < self.newest, lost: oldest.saturating_sub(after), newest: self.newest }
    }
}

fn stamps(turn: &Turn) -> usize {
    turn.sends_us.as_ref().map_or(0, Vec::len)
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
            call: None,
            model: "m".to_owned(),
            stream: true,
            received_us: 1,
            admitted_us: None,
            first_token_us: None,
            last_token_us: None,
            ended_us: 2,
            tokens: 0,
            sends_us: None,
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

    #[test]
    fn stamps_are_bounded_in_the_ring_and_in_a_page() {
        let mut journal = Journal::new(50);
        for _ in 0..40 {
            journal.push(Turn { sends_us: Some(vec![7; 1 << 19]), ..turn() });
        }
        let kept = journal.turns.iter().filter(|turn| turn.sends_us.is_some()).count();
        assert_eq!(kept, STAMPS >> 19);
        assert!(journal.turns.iter().take(40 - kept).all(|turn| turn.sends_us.is_none()), "the oldest lose theirs");
        assert_eq!(journal.page(0, 100).turns.len(), 40 - kept + 1, "a page has one turn with so many");
        let rest = journal.page(30, 100);
        assert_eq!((rest.turns.len(), rest.next, rest.more), (1, 31, true));
        for _ in 0..60 {
            journal.push(turn());
        }
        assert_eq!((journal.stamps, journal.bare), (0, 0));
    }
}
