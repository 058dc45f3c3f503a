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
use crate::net::sse::{self, Event, TooLarge};
use crate::net::{HttpConnection, Progress, ReadStamp, lines};
use crate::record::{Outcome, Step};
use crate::scenario::{After, Disturb, Framing};

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

/// How a stream is cut into events.
enum Framed {
    Sse(sse::Decoder),
    Lines(lines::Decoder),
}

impl Framed {
    fn feed(&mut self, data: &[u8], take: impl FnMut(Event<'_>)) -> Result<(), TooLarge> {
        match self {
            Self::Sse(decoder) => decoder.feed(data, take),
            Self::Lines(decoder) => decoder.feed(data, take),
        }
    }

    /// The body is over. A line need not have an end then; an event must.
    fn end(&mut self, take: impl FnMut(Event<'_>)) {
        if let Self::Lines(decoder) = self {
            decoder.end(take);
        }
    }

    /// The stream goes on from its beginning, or from the newest event.
    fn again(&self) -> Self {
        match self {
            Self::Sse(decoder) => Self::Sse(decoder.again()),
            Self::Lines(_) => Self::Lines(lines::Decoder::default()),
        }
    }
}

/// A stream that is being read.
pub(super) struct Stream<R> {
    pub(super) reader: R,
    framed: Framed,
    /// When the connection was lost in whose place another is read, until the first event comes there.
    pub(super) lost: Option<Nanos>,
    arrivals: Arrivals,
}

impl<R: Reader> Stream<R> {
    /// A stream of server-sent events.
    pub(super) fn new(reader: R) -> Self {
        Self::framed(reader, Framing::Sse)
    }

    pub(super) fn framed(reader: R, framing: Framing) -> Self {
        let framed = match framing {
            Framing::Sse => Framed::Sse(sse::Decoder::default()),
            Framing::Lines => Framed::Lines(lines::Decoder::default()),
        };
        Self { reader, framed, lost: None, arrivals: Arrivals::default() }
    }

    /// The stream goes on, on another connection.
    pub(super) fn reconnect(&mut self) {
        self.framed = self.framed.again();
        self.arrivals.reconnect();
    }

    /// The id of the newest event that came whole; empty where none had one.
    pub(super) fn last_id(&self) -> &[u8] {
        match &self.framed {
            Framed::Sse(decoder) => decoder.last_id(),
            Framed::Lines(_) => &[],
        }
    }

    /// How long to wait before it is taken up again, where it has said so.
    pub(super) fn retry(&self) -> Option<Duration> {
        match &self.framed {
            Framed::Sse(decoder) => decoder.retry_ms().map(Duration::from_millis),
            Framed::Lines(_) => None,
        }
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
                    stopped = match self.take(Some(data), stamp, exchange) {
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
                    (None, Poll::Ready(Ok(Progress::End))) => {
                        Poll::Ready(self.body_ended(connection.stamp(), exchange))
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

    /// The body is over without the terminal event before: what that means.
    fn body_ended(&mut self, stamp: ReadStamp, exchange: &mut Exchange<'_>) -> Result<Stop, Failure> {
        if matches!(self.framed, Framed::Lines(_)) && self.take(None, stamp, exchange)? {
            return Ok(Stop::End);
        }
        if self.reader.ends_with_body() {
            exchange.turn.ended = stamp.latest;
            return Ok(Stop::End);
        }
        Err(Failure::new(Outcome::Truncated, format!("the stream ended without {}", R::END)))
    }

    /// Decodes one piece of the body, or what its end completes. True when it held the terminal event. A piece is a
    /// sign that the reply goes on, unless all it held was that the other side is there.
    fn take(&mut self, piece: Option<&[u8]>, stamp: ReadStamp, exchange: &mut Exchange<'_>) -> Result<bool, Failure> {
        exchange.body_left = match exchange.body_left.checked_sub(piece.map_or(0, <[u8]>::len)) {
            Some(left) => left,
            None => return Err(Failure::new(Outcome::Protocol, "the reply is larger than the limit")),
        };
        let (mut tokens, mut done, mut followed, mut events, mut beats) = (0, false, false, 0_usize, 0_usize);
        let (reader, failed) = (&mut self.reader, &mut exchange.failed);
        let read = |event: Event<'_>| {
            if done {
                return;
            }
            events += 1;
            match reader.read(&event) {
                Ok(Said::Tokens(more)) => {
                    tokens += more;
                    followed = event.rest > 0;
                }
                Ok(Said::Done(more)) => {
                    tokens += more;
                    done = true;
                }
                Ok(Said::Other) => {}
                Ok(Said::Heartbeat) => beats += 1,
                Err(failure) => {
                    failed.get_or_insert(failure);
                    done |= R::ERROR_ENDS;
                }
            }
        };
        let fed = match piece {
            Some(data) => self.framed.feed(data, read),
            None => {
                self.framed.end(read);
                Ok(())
            }
        };
        if beats == 0 || beats < events {
            exchange.watchdog.sign(stamp.returned);
        }
        if let Some(lost) = self.lost.take_if(|_| events > 0) {
            exchange.live.step(Step::Resume, Outcome::Completed, stamp.latest - lost);
        }
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
        let (framed, left) = (&mut self.framed, &mut exchange.body_left);
        let rest = poll_fn(|cx| {
            loop {
                let (mut more, mut flood) = (false, false);
                let polled = connection.poll_body(cx, |data, _| {
                    *left = left.saturating_sub(data.len());
                    flood = *left == 0 || framed.feed(data, |_| more = true).is_err();
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
