//! A socket with pings of its own, and what its end means. Pings of the other side, its close and what is against the
//! protocol are answered by [`crate::net::WebSocket`].

use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::reading::{Channel, Message};
use crate::clock::{self, MILLISECOND, Nanos};
use crate::driver::exchange::{Exchange, Failure};
use crate::net::{
    ConnectTimes, Endpoint, Incoming, OpenError, Opening, Outgoing, ReadStamp, SocketError, UpgradeError, WebSocket,
};
use crate::record::{Outcome, Wire};

/// Nothing more is wanted (RFC 6455, 7.4.1).
pub(in crate::driver) const NORMAL: u16 = 1000;
/// The page is left.
pub(in crate::driver) const GOING_AWAY: u16 = 1001;
/// Nothing more may be said.
const POLICY: u16 = 1008;
/// Overloaded; registered with IANA.
const TRY_AGAIN_LATER: u16 = 1013;
/// What is granted beyond the connect timeout before an upgrade counts as not answered: TCP and TLS have the same
/// limit, and say so themselves when they pass it.
const UPGRADE: Duration = Duration::from_millis(250);

/// Within this of what was said, the end of a kept socket was on its way before it.
const CLOSING: Nanos = 50 * MILLISECOND;

/// Whether a kept socket, whose TCP handshake took `tcp`, must have been closing already when something was said on it
/// that came to nothing: its end crossed what was said. Later it was heard, and saying it again would say it twice.
pub(in crate::driver) fn was_closing(sent: Option<Nanos>, tcp: Nanos) -> bool {
    sent.is_none_or(|sent| clock::monotonic() - sent <= CLOSING.max(2 * tcp))
}

/// A socket of one user.
pub(in crate::driver) struct Line {
    socket: WebSocket,
    pings: Option<Pings>,
    /// Why the kernel has refused what was said.
    refused: Option<SocketError>,
}

/// Why a socket is of no use any more.
#[derive(Debug)]
pub(in crate::driver) enum Broken {
    /// The other side has said that it closes it.
    Closed { code: Option<u16>, reason: String },
    /// It is gone, or what came is not WebSocket.
    Socket(SocketError),
    /// No pong came in this time.
    Silent(Duration),
}

impl Line {
    /// What carries it.
    pub(in crate::driver) fn wire(&self) -> Wire {
        if self.socket.deflates() { Wire::WebSocketDeflate } else { Wire::WebSocket }
    }

    /// An open socket; `ping` tells how often pings are sent, and how long a pong may take.
    pub(in crate::driver) fn new(socket: WebSocket, ping: Option<(Duration, Duration)>) -> Self {
        Self { socket, pings: ping.map(|(interval, timeout)| Pings::new(interval, timeout)), refused: None }
    }

    /// Opens a socket within the connect timeout; `ping` as for [`Self::new`].
    pub(in crate::driver) async fn open(
        endpoint: &Endpoint,
        opening: &Opening<'_>,
        limit: Duration,
        ping: Option<(Duration, Duration)>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Box<Self>, Failure> {
        let opened = exchange.within(limit + UPGRADE, WebSocket::open(endpoint, opening)).await?;
        let socket = opened.ok_or_else(|| {
            let detail = format!("connected, but the upgrade was not answered within {} s", limit.as_secs_f64());
            Failure::new(Outcome::ConnectTimeout, detail)
        })??;
        let line = Box::new(Self::new(socket, ping));
        exchange.turn.connect.get_or_insert(line.times().tcp);
        exchange.turn.tls = exchange.turn.tls.or(line.times().tls);
        Ok(line)
    }

    /// How long connecting took.
    pub(in crate::driver) fn times(&self) -> ConnectTimes {
        self.socket.times
    }

    /// Says something, with the next flush or poll.
    pub(in crate::driver) fn say(&mut self, text: &str) {
        self.socket.queue(Outgoing::Text(text));
    }

    /// Says something and waits until it is sent; gives the moment of its first byte. That it cannot be sent is no
    /// failure here: reading tells why.
    pub(in crate::driver) async fn send(&mut self, text: &str) -> Option<Nanos> {
        self.socket.mark_send();
        self.say(text);
        self.flush().await;
        self.socket.sent_at()
    }

    /// Waits until all that was said is sent, or cannot be.
    pub(in crate::driver) async fn flush(&mut self) {
        if let Err(error) = self.socket.flush().await {
            self.refused = Some(error);
        }
    }

    /// Sends what was said, as far as the kernel takes it.
    pub(in crate::driver) fn poll_flush(&mut self, cx: &mut Context<'_>) {
        // What is left of it lies in the socket, not in this future.
        let _ = pin!(self.flush()).poll(cx);
    }

    /// Ready when no pong came in time.
    fn poll_pings(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        loop {
            let Some(pings) = &mut self.pings else { return Poll::Pending };
            match ready!(pings.poll(cx)) {
                Due::Lost(after) => return Poll::Ready(after),
                Due::Ping => {
                    self.socket.queue(Outgoing::Ping(b""));
                    self.poll_flush(cx);
                }
            }
        }
    }

    /// Closes it, and tells the other side why, unless one of them has closed already. What the kernel does not take
    /// at once is not told.
    pub(in crate::driver) fn close(mut self, code: u16) {
        self.socket.queue(Outgoing::Close(code, ""));
        self.poll_flush(&mut Context::from_waker(Waker::noop()));
    }
}

impl Channel for Line {
    type Broken = Broken;

    fn stamp(&self) -> ReadStamp {
        self.socket.stamp()
    }

    fn has_more(&self) -> bool {
        self.socket.has_more()
    }

    /// Reads at most once, and writes what was said.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Message<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Poll<Result<(), Broken>> {
        let (mut ponged, mut closed) = (false, None);
        let polled = self.socket.poll_message(cx, |incoming, stamp, rest| match incoming {
            Incoming::Text(text) => take(Message::Text(text), stamp, rest),
            Incoming::Binary(bytes) => take(Message::Binary(bytes), stamp, rest),
            Incoming::Ping(_) => ControlFlow::Continue(()),
            Incoming::Pong(_) => {
                ponged = true;
                ControlFlow::Continue(())
            }
            Incoming::Close { code, reason } => {
                closed = Some(Broken::Closed { code, reason: reason.to_owned() });
                ControlFlow::Break(())
            }
        });
        if let Some(closed) = closed {
            return Poll::Ready(Err(closed));
        }
        if let Some(pings) = self.pings.as_mut().filter(|_| ponged) {
            pings.answered();
        }
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(SocketError::Closed)) => {
                Poll::Ready(Err(Broken::Socket(self.refused.take().unwrap_or(SocketError::Closed))))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Broken::Socket(error))),
            // All that has come is read, so a pong that was there in time has been seen.
            Poll::Pending => self.poll_pings(cx).map(|after| Err(Broken::Silent(after))),
        }
    }

    fn answer(&mut self, reply: &str) {
        self.say(reply);
    }
}

impl Broken {
    /// Whether a client that can take its turn up again would do so.
    pub(in crate::driver) fn is_resumable(&self) -> bool {
        match self {
            Self::Closed { code, .. } => !matches!(code, Some(NORMAL | POLICY)),
            Self::Socket(SocketError::Closed | SocketError::Reset) | Self::Silent(_) => true,
            Self::Socket(SocketError::TooLarge { .. } | SocketError::Protocol(_)) => false,
        }
    }

    /// Whether the other side has ended it for no reason that has to do with what was said.
    pub(in crate::driver) fn is_leaving(&self) -> bool {
        match self {
            Self::Closed { code, .. } => matches!(code, None | Some(NORMAL | GOING_AWAY)),
            Self::Socket(error) => matches!(error, SocketError::Closed | SocketError::Reset),
            Self::Silent(_) => false,
        }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Closed { code, reason } => {
                let outcome = if code == Some(TRY_AGAIN_LATER) { Outcome::RateLimited } else { Outcome::Truncated };
                let code = code.map_or_else(|| "without a code".to_owned(), |code| format!("with code {code}"));
                let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                Self::new(outcome, format!("the server closed the socket {code}{reason}"))
            }
            Broken::Socket(error) => {
                let outcome = match &error {
                    SocketError::Closed => Outcome::Truncated,
                    SocketError::Reset => Outcome::Reset,
                    SocketError::TooLarge { .. } | SocketError::Protocol(_) => Outcome::Protocol,
                };
                Self::new(outcome, error.to_string())
            }
            Broken::Silent(after) => Self::new(Outcome::Stalled, format!("no pong within {} s", after.as_secs_f64())),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Connect(error) => error.into(),
            OpenError::Http(error) => error.into(),
            OpenError::Upgrade(UpgradeError::Refused { status, text }) => {
                Self::new(Outcome::of_status(status.as_u16()), format!("{status} instead of 101: {text}"))
            }
            OpenError::Upgrade(error) => Self::new(Outcome::Protocol, error.to_string()),
        }
    }
}

/// Pings, one at a time.
struct Pings {
    interval: Duration,
    timeout: Duration,
    /// When the newest one was sent.
    sent: Instant,
    /// Whether its pong is still to come.
    waiting: bool,
    timer: Pin<Box<Sleep>>,
}

/// What the time has come for.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Another ping.
    Ping,
    /// To give up, after so long without a pong.
    Lost(Duration),
}

impl Pings {
    fn new(interval: Duration, timeout: Duration) -> Self {
        let timer = Box::pin(tokio::time::sleep(interval));
        Self { interval, timeout, sent: Instant::now(), waiting: false, timer }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        ready!(self.timer.as_mut().poll(cx));
        if self.waiting {
            return Poll::Ready(Due::Lost(self.timeout));
        }
        (self.waiting, self.sent) = (true, Instant::now());
        self.timer.as_mut().reset(self.sent + self.timeout);
        Poll::Ready(Due::Ping)
    }

    /// A pong came. One that was not asked for changes nothing.
    fn answered(&mut self) {
        if std::mem::take(&mut self.waiting) {
            let next = (self.sent + self.interval).max(Instant::now());
            self.timer.as_mut().reset(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn failure(broken: Broken) -> (bool, Outcome, String) {
        let resumable = broken.is_resumable();
        let failure = Failure::from(broken);
        (resumable, failure.outcome, failure.detail)
    }

    fn closed(code: Option<u16>, reason: &str) -> (bool, Outcome, String) {
        failure(Broken::Closed { code, reason: reason.to_owned() })
    }

    #[test]
    fn the_end_of_a_socket_has_its_outcome() {
        let text = |told: &str| format!("the server closed the socket {told}");
        assert_eq!(closed(Some(1011), "oh"), (true, Outcome::Truncated, text("with code 1011: oh")));
        assert_eq!(closed(None, ""), (true, Outcome::Truncated, text("without a code")));
        assert_eq!(closed(Some(1013), ""), (true, Outcome::RateLimited, text("with code 1013")));
        assert_eq!(closed(Some(1000), ""), (false, Outcome::Truncated, text("with code 1000")));
        assert_eq!(closed(Some(1008), "no"), (false, Outcome::Truncated, text("with code 1008: no")));
        let silent = failure(Broken::Silent(Duration::from_millis(1_500)));
        assert_eq!(silent, (true, Outcome::Stalled, "no pong within 1.5 s".to_owned()));
        assert_eq!(failure(Broken::Socket(SocketError::Reset)).1, Outcome::Reset);
        assert!(!failure(Broken::Socket(SocketError::Protocol(String::new()))).0);
    }

    #[test]
    fn a_socket_was_closing_where_its_end_crossed_what_was_said() {
        let ago = |milliseconds: i64| Some(clock::monotonic() - milliseconds * MILLISECOND);
        assert!(was_closing(None, 0) && was_closing(ago(1), 0));
        assert!(!was_closing(ago(60), MILLISECOND));
        assert!(was_closing(ago(300), 400 * MILLISECOND) && !was_closing(ago(900), 400 * MILLISECOND));
    }

    #[test]
    fn a_ping_waits_for_its_pong_and_no_longer_than_it_may() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (interval, timeout) = (Duration::from_millis(10), Duration::from_millis(30));
            let begun = Instant::now();
            let mut pings = Pings::new(interval, timeout);
            // Nobody has asked for this one.
            pings.answered();
            for number in 1..=3 {
                assert_eq!(poll_fn(|cx| pings.poll(cx)).await, Due::Ping);
                assert!(begun.elapsed() >= interval * number, "the {number}th came early");
                pings.answered();
            }
            assert_eq!(poll_fn(|cx| pings.poll(cx)).await, Due::Ping);
            assert_eq!(poll_fn(|cx| pings.poll(cx)).await, Due::Lost(timeout));
            assert!(begun.elapsed() >= interval * 4 + timeout);
        });
    }
}
