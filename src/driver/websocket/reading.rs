//! Reading the messages of a reply, up to the one that ends it.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::task::Poll;

use super::line::{Broken, Line};
use crate::driver::described::rules::Listener;
use crate::driver::exchange::{Exchange, Failure, silence};
use crate::driver::reply::Arrivals;
use crate::driver::stream::{Pause, Said, Stop};
use crate::net::ReadStamp;
use crate::record::{Outcome, Turn};

/// A reply that is being read.
pub(super) struct Reading {
    pub(super) listener: Listener,
    /// What answers a heartbeat.
    beat: Option<String>,
    arrivals: Arrivals,
    /// Whether anything but heartbeats has come.
    pub(super) begun: bool,
}

/// Why a reply cannot be read on.
pub(super) enum Lost {
    /// Its socket is of no use any more.
    Socket(Broken),
    /// The turn has failed.
    Turn(Failure),
}

impl Reading {
    pub(super) fn new(listener: Listener, beat: Option<String>) -> Self {
        Self { listener, beat, arrivals: Arrivals::default(), begun: false }
    }

    /// The reply goes on, on another socket.
    pub(super) fn reconnect(&mut self) {
        self.arrivals.reconnect();
    }

    /// Tokens so far.
    pub(super) fn tokens(&self, turn: &Turn) -> u64 {
        self.arrivals.tokens(turn)
    }

    /// Reads up to the message that ends the turn, or until the user does something else.
    pub(super) async fn read(
        &mut self,
        line: &mut Line,
        exchange: &mut Exchange<'_>,
        pause: &mut Pause,
    ) -> Result<Stop, Lost> {
        poll_fn(|cx| {
            let before = line.stamp().read;
            loop {
                let (mut stopped, mut beaten) = (None, false);
                let polled = line.poll(cx, |data, stamp, rest| {
                    match self.take(data, stamp, rest, exchange) {
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
                    line.say(beat);
                }
                if line.has_more() {
                    self.arrivals.follow(line.stamp());
                }
                let ended = match (stopped, polled) {
                    (Some(stopped), _) => Poll::Ready(stopped),
                    (None, Poll::Ready(Ok(()))) => continue,
                    (None, Poll::Ready(Err(broken))) => Poll::Ready(Err(Lost::Socket(broken))),
                    (None, Poll::Pending) if pause.is_over(cx) => Poll::Ready(Ok(Stop::Pause)),
                    (None, Poll::Pending) => {
                        let newest = line.stamp();
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
        data: &[u8],
        stamp: ReadStamp,
        rest: usize,
        exchange: &mut Exchange<'_>,
    ) -> Result<Said, Failure> {
        exchange.body_left = match exchange.body_left.checked_sub(data.len()) {
            Some(left) => left,
            None => return Err(Failure::new(Outcome::Protocol, "the reply is larger than the limit")),
        };
        let heard = self.listener.hear(b"", data);
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

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Socket(broken) => broken.into(),
            Lost::Turn(failure) => failure,
        }
    }
}
