//! A turn seen from both sides, brought together: pure arithmetic on moments.

use mock_llm::journal;

use crate::clock::{MILLISECOND, Nanos, micros};
use crate::record::{Flaws, Joined, Outcome, Parts, Place, Relay, Turn};

/// The mock sent two tokens apart if there was more than this between them.
const APART: Nanos = 5 * MILLISECOND;
/// A reply of fewer tokens, or sent in less time, cannot be told from a buffered one.
const LEAST_TOKENS: usize = 5;
const LEAST_SPAN: Nanos = 100 * MILLISECOND;

/// A turn as its user saw it.
#[derive(Debug, Clone)]
pub struct Spoken {
    /// Its marker, `cc:RUN:USER:TURN`.
    pub marker: String,
    /// Where its numbers go.
    pub place: Place,
    /// What happened.
    pub turn: Turn,
}

/// Brings a turn and the call that the mock answered together. `clock` brings the mock's Unix microseconds
/// onto the run's clock. `None` where one side saw no token.
pub fn join(spoken: &Spoken, call: &journal::Turn, clock: impl Fn(u64) -> Nanos) -> Option<Joined> {
    let turn = &spoken.turn;
    let (sent, first) = (turn.sent?, turn.first_token?.latest);
    let received = clock(call.received_us);
    let (first_sent, last_sent) = (clock(call.first_token_us?), clock(call.last_token_us?));
    // What was connected after the actual send, for another request of the turn, is no part of this.
    let connect = (turn.connect.unwrap_or(0) + turn.tls.unwrap_or(0) + turn.renewal).min(sent - turn.started).max(0);
    let completed = turn.outcome == Outcome::Completed;
    let parts = Parts {
        generator: micros(sent - turn.intended - connect),
        connect: micros(connect),
        before_llm: micros(received - sent),
        llm_first: micros(first_sent - received),
        relay: micros(first - first_sent),
        llm: micros(last_sent - received),
        finalise: if completed { micros(turn.ended - last_sent) } else { 0 },
    };
    let (delays, relay) = delays(turn, first, call, &clock).unwrap_or_default();
    Some(Joined {
        marker: spoken.marker.clone(),
        parts,
        counts: matches!(turn.outcome, Outcome::Completed | Outcome::Aborted),
        completed,
        stamped: call.sends_us.is_some(),
        delays,
        relay,
        flaws: missing_end(turn, call),
    })
}

/// The check of a reply whose end did not come counts one token as lost; the mock knows how many it sent.
fn missing_end(turn: &Turn, call: &journal::Turn) -> Flaws {
    let whole = call.outcome == journal::TurnOutcome::Completed && turn.outcome == Outcome::Corrupted;
    let more = match &turn.checked {
        Some(checked) if whole && checked.whole && !checked.ended && checked.flaws.lost > 0 => {
            call.tokens.saturating_sub(checked.position + 1)
        }
        _ => 0,
    };
    Flaws { lost: more, ..Flaws::default() }
}

/// How long each token took, and how tokens came through. Only where every token that arrived is known to be the
/// one that was sent as that one.
fn delays(turn: &Turn, first: Nanos, call: &journal::Turn, clock: &impl Fn(u64) -> Nanos) -> Option<(Vec<u64>, Relay)> {
    let checked = turn.checked.as_ref()?;
    if checked.flaws.total() > 0 || turn.late > 0 || turn.resumes > 0 {
        return None;
    }
    let sends: Vec<Nanos> =
        call.sends_us.as_ref()?.iter().map(|after| clock(call.received_us.saturating_add(u64::from(*after)))).collect();
    let mut relay = Relay { turns: 1, arrivals: turn.arrivals.len() as u64, ..Relay::default() };
    let mut delays = Vec::with_capacity(sends.len());
    for batch in &turn.arrivals {
        let arrived = first + Nanos::from(batch.after_us) * 1_000;
        for number in 0..batch.tokens {
            let index = delays.len();
            let sent = *sends.get(index)?;
            delays.push(micros(arrived - sent));
            relay.together += u64::from(number > 0 && sent - sends[index - 1] > APART);
        }
    }
    let least = delays.iter().min().copied().unwrap_or(0);
    relay.tokens = delays.len() as u64;
    relay.held_us = delays.iter().map(|delay| delay - least).sum();
    relay.buffered_turns = u64::from(is_buffered(turn, &sends[..delays.len()]));
    Some((delays, relay))
}

/// Whether a reply that was sent over a time arrived as good as at once.
fn is_buffered(turn: &Turn, sends: &[Nanos]) -> bool {
    let (Some(first), Some(last)) = (sends.first(), sends.last()) else { return false };
    let arrived = turn.arrivals.last().map_or(0, |batch| Nanos::from(batch.after_us) * 1_000);
    sends.len() >= LEAST_TOKENS && last - first >= LEAST_SPAN && arrived * 10 <= last - first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Arrival, Batch, Checked};

    const MS: Nanos = MILLISECOND;

    fn place() -> Place {
        crate::record::Recorder::new(std::sync::Arc::default(), crate::metric::MetricSet::default()).begin(0)
    }

    fn spoken(arrivals: &[(u32, u32)]) -> Spoken {
        let mut turn = Turn::new(0, MS);
        turn.sent = Some(4 * MS);
        turn.connect = Some(2 * MS);
        turn.first_token = Some(Arrival { latest: 120 * MS, earliest: 120 * MS });
        turn.arrivals =
            arrivals.iter().map(|(after_us, tokens)| Batch { after_us: *after_us, tokens: *tokens }).collect();
        turn.outcome = Outcome::Completed;
        turn.ended = 400 * MS;
        turn.checked = Some(Box::new(Checked { ended: true, position: 6, ..Checked::default() }));
        Spoken { marker: "cc:r:1:0".to_owned(), place: place(), turn }
    }

    fn call() -> journal::Turn {
        journal::Turn {
            seq: 1,
            marker: Some("cc:r:1:0".to_owned()),
            call: Some(journal::Call::Turn),
            model: "m".to_owned(),
            stream: true,
            received_us: 14_000,
            admitted_us: Some(14_000),
            first_token_us: Some(114_000),
            last_token_us: Some(364_000),
            ended_us: 365_000,
            tokens: 6,
            sends_us: Some(vec![100_000, 150_000, 200_000, 250_000, 300_000, 350_000]),
            outcome: journal::TurnOutcome::Completed,
            lateness_max_us: 0,
        }
    }

    fn clock(unix_us: u64) -> Nanos {
        unix_us as Nanos * 1_000
    }

    #[test]
    fn the_parts_sum_up_to_the_latencies() {
        let joined = join(&spoken(&[(0, 1); 6]), &call(), clock).unwrap();
        let parts = joined.parts;
        let expected = Parts {
            generator: 2_000,
            connect: 2_000,
            before_llm: 10_000,
            llm_first: 100_000,
            relay: 6_000,
            llm: 350_000,
            finalise: 36_000,
        };
        assert_eq!((parts, parts.ttft(), parts.turn()), (expected, 120_000, 400_000));
    }

    #[test]
    fn tokens_that_were_sent_apart_and_came_together_show() {
        let apart = [(0, 1), (50_000, 1), (100_000, 1), (150_000, 1), (200_000, 1), (250_000, 1)];
        let relay = join(&spoken(&apart), &call(), clock).unwrap().relay;
        assert_eq!(
            (relay.tokens, relay.arrivals, relay.together, relay.held_us, relay.buffered_turns),
            (6, 6, 0, 0, 0)
        );
        let pairs = [(0, 2), (100_000, 2), (200_000, 2)];
        let joined = join(&spoken(&pairs), &call(), clock).unwrap();
        // The second of each pair came as soon as it was sent less 44 ms; what matters is the rest.
        assert_eq!((joined.relay.arrivals, joined.relay.together, joined.relay.buffered_turns), (3, 3, 0));
        let whole = join(&spoken(&[(0, 6)]), &call(), clock).unwrap().relay;
        assert_eq!((whole.together, whole.buffered_turns), (5, 1));
        // Somebody else's reply, or one that began late, says nothing about single tokens.
        let mut flawed = spoken(&apart);
        flawed.turn.late = 1;
        assert!(join(&flawed, &call(), clock).unwrap().delays.is_empty());
        let mut more = spoken(&apart);
        more.turn.arrivals.push(Batch { after_us: 300_000, tokens: 9 });
        assert!(join(&more, &call(), clock).unwrap().delays.is_empty());
    }

    #[test]
    fn what_is_missing_at_the_end_is_counted_by_what_was_sent() {
        let mut cut = spoken(&[(0, 1)]);
        cut.turn.outcome = Outcome::Corrupted;
        let flaws = Flaws { lost: 1, ..Flaws::default() };
        cut.turn.checked =
            Some(Box::new(Checked { flaws, position: 2, ended: false, whole: true, ..Checked::default() }));
        assert_eq!(join(&cut, &call(), clock).unwrap().flaws.lost, 3, "of four, one was counted already");
    }
}
