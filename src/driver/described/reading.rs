//! Reading the messages of a reply, up to the one that ends it.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::task::{Context, Poll};

use serde_json::Value;

use super::rules::Listener;
use super::values::Values;
use crate::clock;
use crate::driver::exchange::{Exchange, Failure, silence};
use crate::driver::reply::Arrivals;
use crate::driver::stream::{Pause, Said, Stop};
use crate::net::ReadStamp;
use crate::record::{Outcome, Turn};
use crate::secret::Secret;

/// What comes in one piece.
#[derive(Debug, Clone, Copy)]
pub(in crate::driver) enum Message<'m> {
    /// A text.
    Text(&'m str),
    /// Bytes.
    Binary(&'m [u8]),
    /// An event with its arguments, and how many bytes it was.
    Event { name: &'m str, arguments: &'m Value, size: usize },
}

impl<'m> Message<'m> {
    fn size(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Event { size, .. } => size,
        }
    }

    /// It as a text; an empty one where it is none.
    pub(in crate::driver) fn text(self) -> &'m str {
        match self {
            Self::Text(text) => text,
            Self::Binary(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Self::Event { .. } => "",
        }
    }
}

/// What messages come by.
pub(in crate::driver) trait Channel {
    /// Why it is of no use any more.
    type Broken: Into<Failure>;

    /// When the newest read arrived.
    fn stamp(&self) -> ReadStamp;

    /// Whether something was read that nobody has taken yet.
    fn has_more(&self) -> bool;

    /// Hands messages that have come to `take`, with the stamp of the read that completed them and the number of
    /// bytes behind them in it, until it has had enough. What keeps the channel alive is done on the way. Ready when
    /// there may be more, or the channel is of no use.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnMut(Message<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Poll<Result<(), Self::Broken>>;

    /// Says what answers a heartbeat, with the next poll.
    fn answer(&mut self, reply: &str);
}

/// A reply that is being read.
pub(in crate::driver) struct Reading {
    pub(in crate::driver) listener: Listener,
    /// What answers a heartbeat.
    beat: Option<String>,
    arrivals: Arrivals,
    /// Whether anything but heartbeats has come.
    pub(in crate::driver) begun: bool,
}

/// Why a reply cannot be read on.
pub(in crate::driver) enum Lost<B> {
    /// What it comes by is of no use any more.
    Channel(B),
    /// The turn has failed.
    Turn(Failure),
}

impl Reading {
    pub(in crate::driver) fn new(listener: Listener, beat: Option<String>) -> Self {
        Self { listener, beat, arrivals: Arrivals::default(), begun: false }
    }

    /// The turn has ended: what its reply brought is kept for the next one, and its text is held against what was sent.
    pub(in crate::driver) fn settle(
        self,
        ended: Result<Outcome, Failure>,
        values: &mut Values,
        turn: &mut Turn,
        secrets: &[Secret],
    ) {
        let mut listener = self.listener;
        listener.give(values);
        turn.retry_after = listener.retry_after.map(clock::nanos).or(turn.retry_after);
        let reply = listener.reply.take().filter(|_| ended.is_ok());
        match ended {
            Ok(outcome) => turn.outcome = outcome,
            Err(failure) => drop(failure.end(turn, secrets)),
        }
        values.end_turn(reply);
        if let Some(check) = listener.check {
            turn.settle(check.finish(turn.outcome == Outcome::Completed, secrets));
        }
    }

    /// The reply goes on, on another channel.
    pub(in crate::driver) fn reconnect(&mut self) {
        self.arrivals.reconnect();
    }

    /// Tokens so far.
    pub(in crate::driver) fn tokens(&self, turn: &Turn) -> u64 {
        self.arrivals.tokens(turn)
    }

    /// Reads up to the message that ends the turn, or until the user does something else.
    pub(in crate::driver) async fn read<C: Channel>(
        &mut self,
        channel: &mut C,
        exchange: &mut Exchange<'_>,
        pause: &mut Pause,
    ) -> Result<Stop, Lost<C::Broken>> {
        poll_fn(|cx| {
            let before = channel.stamp().read;
            loop {
                let (mut stopped, mut beaten) = (None, false);
                let polled = channel.poll(cx, |message, stamp, rest| {
                    match self.take(message, stamp, rest, exchange) {
                        Ok(Said::Done(_)) => stopped = Some(Ok(Stop::End)),
                        Ok(Said::Heartbeat) => beaten = true,
                        Ok(_) if pause.is_reached(self.arrivals.tokens(exchange.turn)) => {
                            stopped = Some(Ok(Stop::Pause));
                        }
                        Ok(_) => return ControlFlow::Continue(()),
                        Err(failure) => stopped = Some(Err(Lost::Turn(failure))),
                    }
                    ControlFlow::Break(())
                });
                if let Some(beat) = self.beat.as_ref().filter(|_| beaten) {
                    channel.answer(beat);
                }
                if channel.has_more() {
                    self.arrivals.follow(channel.stamp());
                }
                let ended = match (stopped, polled) {
                    (Some(stopped), _) => Poll::Ready(stopped),
                    (None, Poll::Ready(Ok(()))) => continue,
                    (None, Poll::Ready(Err(broken))) => Poll::Ready(Err(Lost::Channel(broken))),
                    (None, Poll::Pending) if pause.is_over(cx) => Poll::Ready(Ok(Stop::Pause)),
                    (None, Poll::Pending) => {
                        let newest = channel.stamp();
                        let awake = (newest.read != before).then_some(newest.returned);
                        exchange.watchdog.poll_awake(awake, cx).map(|limit| Err(Lost::Turn(silence(limit))))
                    }
                };
                // Everything that has come is read: the open arrival is complete.
                self.arrivals.flush(exchange.turn, exchange.live);
                return ended;
            }
        })
        .await
    }

    /// Takes one message.
    fn take(
        &mut self,
        message: Message<'_>,
        stamp: ReadStamp,
        rest: usize,
        exchange: &mut Exchange<'_>,
    ) -> Result<Said, Failure> {
        exchange.body_left = match exchange.body_left.checked_sub(message.size()) {
            Some(left) => left,
            None => return Err(Failure::new(Outcome::Protocol, "the reply is larger than the limit")),
        };
        let heard = match message {
            Message::Text(text) => self.listener.hear(b"", text.as_bytes()),
            Message::Binary(bytes) => self.listener.hear(b"", bytes),
            Message::Event { name, arguments, .. } => self.listener.hear_json(name, arguments),
        };
        let tokens = match heard {
            Ok(Said::Tokens(tokens) | Said::Done(tokens)) => tokens,
            Ok(Said::Other | Said::Heartbeat) | Err(_) => 0,
        };
        if tokens > 0 {
            self.arrivals.add(stamp, tokens, exchange.turn, exchange.live);
        }
        if tokens == 0 || rest > 0 {
            self.arrivals.follow(stamp);
        }
        // Who only says that he is there does not go on with the reply.
        if !matches!(heard, Ok(Said::Heartbeat)) {
            exchange.watchdog.sign(stamp.returned);
            self.begun = true;
        }
        if let Ok(Said::Done(_)) = heard {
            (exchange.turn.ended, exchange.turn.released) = (stamp.latest, stamp.latest);
        }
        heard
    }
}

impl<B: Into<Failure>> From<Lost<B>> for Failure {
    fn from(lost: Lost<B>) -> Self {
        match lost {
            Lost::Channel(broken) => broken.into(),
            Lost::Turn(failure) => failure,
        }
    }
}
