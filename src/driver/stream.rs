//! Reading the event stream of a turn: frames to events, events to arrivals, up to the terminal one.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::exchange::{Exchange, Failure, silence};
use super::reply::Arrivals;
use crate::clock::{self, Nanos};
use crate::net::sse::{Decoder, Event};
use crate::net::{HttpConnection, Progress, ReadStamp};
use crate::record::Outcome;
use crate::scenario::{After, Disturb};

/// How long the end of the body may take after the terminal event.
const AFTER_END: Duration = Duration::from_secs(2);

/// What one event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// So many tokens of content.
    Tokens(u64),
    /// The turn is over, after so many tokens of the same event.
    Done(u64),
    /// Anything else: a role, usage, a step.
    Other,
    /// Nothing but that the other side is there.
    Heartbeat,
}

/// How a protocol's events are read.
pub(super) trait Reader {
    /// What the terminal event is, in words.
    const END: &'static str;
    /// Whether nothing may come after it.
    const STRICT: bool;
    /// Whether nothing is to be expected after an error.
    const ERROR_ENDS: bool = false;

    /// Reads one event. A failure is the turn's; the rest is read nevertheless, unless an error ends it.
    fn read(&mut self, event: &Event<'_>) -> Result<Said, Failure>;

    /// Whether the end of the body is the end of the turn.
    fn ends_with_body(&self) -> bool {
        false
    }
}

/// Why reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The terminal event came.
    End,
    /// As many tokens came as were asked for.
    Pause,
}

/// When reading stops though more may come.
pub(super) struct Pause {
    tokens: u64,
    /// Boxed: few turns have one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    pub(super) fn never() -> Self {
        Self { tokens: u64::MAX, timer: None }
    }

    /// When the user does something in the middle of the reply to what was sent at a moment.
    pub(super) fn of(disturb: Option<Disturb>, sent: Nanos) -> Self {
        match disturb.map(|disturb| disturb.after) {
            None => Self::never(),
            Some(After::Tokens(tokens)) => Self { tokens, timer: None },
            Some(After::Time(after)) => {
                let at = clock::instant(sent + clock::nanos(after));
                Self { tokens: u64::MAX, timer: Some(Box::pin(tokio::time::sleep_until(at.into()))) }
            }
        }
    }

    /// Whether the turn has as many tokens as were waited for.
    pub(super) fn is_reached(&self, tokens: u64) -> bool {
        tokens >= self.tokens
    }

    /// Whether its time has come; wakes the task when it does.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }
}

/// A stream that is being read.
pub(super) struct Stream<R> {
    pub(super) reader: R,
    decoder: Decoder,
    arrivals: Arrivals,
}

impl<R: Reader> Stream<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, decoder: Decoder::default(), arrivals: Arrivals::default() }
    }

    /// The stream goes on, on another connection.
    pub(super) fn reconnect(&mut self) {
        self.decoder = Decoder::default();
        self.arrivals.reconnect();
    }

    /// Reads up to the terminal event, or until the user does something else.
    pub(super) async fn read(
        &mut self,
        connection: &mut HttpConnection,
        exchange: &mut Exchange<'_>,
        pause: &mut Pause,
    ) -> Result<Stop, Failure> {
        let ended = poll_fn(|cx| {
            let before = connection.stamp().read;
            loop {
                let mut stopped = None;
                let polled = connection.poll_body(cx, |data, stamp| {
                    exchange.watchdog.sign(stamp.returned);
                    stopped = match self.take(data, stamp, exchange) {
                        Ok(true) => Some(Ok(Stop::End)),
                        Ok(false) if pause.is_reached(self.arrivals.tokens(exchange.turn)) => Some(Ok(Stop::Pause)),
                        Ok(false) => return ControlFlow::Continue(()),
                        Err(failure) => Some(Err(failure)),
                    };
                    ControlFlow::Break(())
                });
                if connection.has_more() {
                    self.arrivals.follow(connection.stamp());
                }
                let ended = match (stopped, polled) {
                    (Some(stopped), _) => Poll::Ready(stopped),
                    (None, Poll::Ready(Ok(Progress::More))) => continue,
                    (None, Poll::Ready(Ok(Progress::End))) if self.reader.ends_with_body() => {
                        exchange.turn.ended = connection.stamp().latest;
                        Poll::Ready(Ok(Stop::End))
                    }
                    (None, Poll::Ready(Ok(Progress::End))) => {
                        let detail = format!("the stream ended without {}", R::END);
                        Poll::Ready(Err(Failure::new(Outcome::Truncated, detail)))
                    }
                    (None, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
                    (None, Poll::Pending) if pause.is_over(cx) => Poll::Ready(Ok(Stop::Pause)),
                    (None, Poll::Pending) => {
                        let newest = connection.stamp();
                        let awake = (newest.read != before).then_some(newest.returned);
                        exchange.watchdog.poll_awake(awake, cx).map(|limit| Err(silence(limit)))
                    }
                };
                // Everything that has come is read: the open arrival is complete.
                self.arrivals.flush(exchange.turn, exchange.live);
                return ended;
            }
        })
        .await;
        if let Some(failed) = exchange.failed.take_if(|_| !matches!(ended, Ok(Stop::Pause))) {
            return Err(failed);
        }
        ended
    }

    /// Decodes one piece of the body. True when it held the terminal event.
    fn take(&mut self, data: &[u8], stamp: ReadStamp, exchange: &mut Exchange<'_>) -> Result<bool, Failure> {
        exchange.body_left = match exchange.body_left.checked_sub(data.len()) {
            Some(left) => left,
            None => return Err(Failure::new(Outcome::Protocol, "the reply is larger than the limit")),
        };
        let (mut tokens, mut done, mut followed) = (0, false, false);
        let (reader, failed) = (&mut self.reader, &mut exchange.failed);
        let fed = self.decoder.feed(data, |event| {
            if done {
                return;
            }
            match reader.read(&event) {
                Ok(Said::Tokens(more)) => {
                    tokens += more;
                    followed = event.rest > 0;
                }
                Ok(Said::Done(more)) => {
                    tokens += more;
                    done = true;
                }
                Ok(Said::Other | Said::Heartbeat) => {}
                Err(failure) => {
                    failed.get_or_insert(failure);
                    done |= R::ERROR_ENDS;
                }
            }
        });
        if tokens > 0 {
            self.arrivals.add(stamp, tokens, exchange.turn, exchange.live);
        }
        if tokens == 0 || followed {
            self.arrivals.follow(stamp);
        }
        if done {
            exchange.turn.ended = stamp.latest;
        }
        fed.map(|()| done).map_err(|error| Failure::new(Outcome::Protocol, error.to_string()))
    }

    /// Reads the body's end after the terminal event, so that the connection can be used again,
    /// and notes when the user could go on.
    pub(super) async fn finish(
        &mut self,
        connection: &mut HttpConnection,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let (decoder, left) = (&mut self.decoder, &mut exchange.body_left);
        let rest = poll_fn(|cx| {
            loop {
                let (mut more, mut flood) = (false, false);
                let polled = connection.poll_body(cx, |data, _| {
                    *left = left.saturating_sub(data.len());
                    flood = *left == 0 || decoder.feed(data, |_| more = true).is_err();
                    if flood { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                if (more || flood) && R::STRICT {
                    let detail = format!("an event after {}", R::END);
                    return Poll::Ready(Err(Failure::new(Outcome::Protocol, detail)));
                }
                match polled {
                    Poll::Ready(Ok(Progress::More)) if !flood => {}
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let rest = tokio::time::timeout(AFTER_END, rest).await;
        // The user goes on from here: what the target takes to end the body is no lag of ours.
        let free = if rest.is_ok() { connection.stamp().latest } else { clock::monotonic() };
        exchange.turn.released = free.max(exchange.turn.ended);
        rest.unwrap_or(Ok(()))
    }
}
