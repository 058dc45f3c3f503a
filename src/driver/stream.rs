//! Reading the event stream of a turn: frames to events, events to arrivals, up to the terminal one.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;

use super::exchange::{Exchange, Failure, silence};
use super::reply::Arrivals;
use crate::clock;
use crate::net::sse::{Decoder, Event};
use crate::net::{Frame, HttpConnection};
use crate::record::Outcome;

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
}

/// How a protocol's events are read.
pub(super) trait Reader {
    /// What the terminal event is, in words.
    const END: &'static str;
    /// Whether nothing may come after it.
    const STRICT: bool;

    /// Reads one event. A failure is the turn's; the rest is read nevertheless.
    fn read(&mut self, event: &Event<'_>) -> Result<Said, Failure>;
}

/// Why reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The terminal event came.
    End,
    /// As many tokens came as were asked for.
    Pause,
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

    /// Reads up to the terminal event, or until the turn has `pause_at` tokens.
    pub(super) async fn read(
        &mut self,
        connection: &mut HttpConnection,
        body: &mut Incoming,
        exchange: &mut Exchange<'_>,
        pause_at: u64,
    ) -> Result<Stop, Failure> {
        let ended = poll_fn(|cx| {
            loop {
                let ended = match connection.poll_frame(cx, body) {
                    Poll::Ready(Some(Ok(frame))) => {
                        exchange.watchdog.sign(frame.stamp.returned);
                        match self.take(&frame, exchange) {
                            Ok(true) => Poll::Ready(Ok(Stop::End)),
                            Ok(false) if self.arrivals.tokens(exchange.turn) >= pause_at => {
                                Poll::Ready(Ok(Stop::Pause))
                            }
                            Ok(false) => continue,
                            Err(failure) => Poll::Ready(Err(failure)),
                        }
                    }
                    Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error.into())),
                    Poll::Ready(None) => {
                        let detail = format!("the stream ended without {}", R::END);
                        Poll::Ready(Err(Failure::new(Outcome::Truncated, detail)))
                    }
                    Poll::Pending => exchange.watchdog.poll(cx).map(|outcome| Err(silence(outcome))),
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
    fn take(&mut self, frame: &Frame, exchange: &mut Exchange<'_>) -> Result<bool, Failure> {
        exchange.body_left = match exchange.body_left.checked_sub(frame.data.len()) {
            Some(left) => left,
            None => return Err(Failure::new(Outcome::Protocol, "the reply is larger than the limit")),
        };
        let (mut tokens, mut done, mut followed) = (0, false, false);
        let (reader, failed) = (&mut self.reader, &mut exchange.failed);
        let fed = self.decoder.feed(&frame.data, |event| {
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
                Ok(Said::Other) => {}
                Err(failure) => {
                    failed.get_or_insert(failure);
                }
            }
        });
        if tokens > 0 {
            self.arrivals.add(frame.stamp, tokens, exchange.turn, exchange.live);
        }
        if tokens == 0 || followed {
            self.arrivals.follow(frame.stamp);
        }
        if done {
            exchange.turn.ended = frame.stamp.latest;
        }
        fed.map(|()| done).map_err(|error| Failure::new(Outcome::Protocol, error.to_string()))
    }

    /// Reads the body's end after the terminal event, so that the connection can be used again,
    /// and notes when the user could go on.
    pub(super) async fn finish(
        &mut self,
        connection: &mut HttpConnection,
        body: &mut Incoming,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let decoder = &mut self.decoder;
        let rest = poll_fn(|cx| {
            loop {
                match connection.poll_frame(cx, body) {
                    Poll::Ready(Some(Ok(frame))) => {
                        let mut more = false;
                        if (decoder.feed(&frame.data, |_| more = true).is_err() || more) && R::STRICT {
                            let detail = format!("an event after {}", R::END);
                            return Poll::Ready(Err(Failure::new(Outcome::Protocol, detail)));
                        }
                    }
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
