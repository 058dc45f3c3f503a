//! A user's connection to a namespace, by a WebSocket or by polling, and what keeps it alive: pongs for the server's
//! pings, which must come.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, Sleep};

use super::packet::{self, Decoder, Frame, Handshake, Malformed, PONG, Packet};
use super::polls::{PollError, Polls, Sent};
use crate::clock::Nanos;
use crate::driver::described::line::{self, Line, NORMAL};
use crate::driver::described::reading::{Channel, Message};
use crate::driver::exchange::Failure;
use crate::net::ReadStamp;
use crate::record::{Outcome, Wire};

/// The name under which an acknowledgement is heard.
const ACKNOWLEDGED: &str = "ack";

/// What carries packets.
enum Carrier {
    Socket(Box<Line>),
    Polls(Box<Polls>),
}

/// A connection to a namespace.
pub(super) struct Link {
    carrier: Carrier,
    decoder: Decoder,
    namespace: String,
    heart: Heart,
    /// The newest id that an acknowledgement was asked for with.
    asked: u64,
}

/// Why it is of no use any more.
#[derive(Debug)]
pub(super) enum Broken {
    Socket(line::Broken),
    Polls(PollError),
    /// The namespace has put the client out.
    Disconnected,
    /// The session was closed.
    Closed,
    /// No ping came in this time.
    Silent(Duration),
    Malformed(Malformed),
}

/// What a packet of Engine.IO is to a client.
enum Heard {
    Packet(Packet, usize),
    Ping,
    Closed,
    Nothing,
}

impl Heard {
    fn read(frame: Frame<'_>, decoder: &mut Decoder) -> Result<Self, Malformed> {
        let packet = match frame {
            Frame::Message(text) => decoder.text(text)?,
            Frame::Binary(bytes) => decoder.binary(&bytes)?,
            Frame::Ping => return Ok(Self::Ping),
            Frame::Close => return Ok(Self::Closed),
            Frame::Nothing | Frame::Pong(_) => None,
            Frame::Open(_) => return Err(Malformed::of("a second handshake")),
        };
        Ok(packet.map_or(Self::Nothing, |(packet, size)| Self::Packet(packet, size)))
    }
}

impl Link {
    /// A session over a WebSocket.
    pub(super) fn over_socket(line: Box<Line>, handshake: &Handshake, namespace: &str, limit: usize) -> Self {
        Self::new(Carrier::Socket(line), handshake, namespace, limit)
    }

    /// A session that is polled.
    pub(super) fn over_polls(polls: Polls, handshake: &Handshake, namespace: &str, limit: usize) -> Self {
        Self::new(Carrier::Polls(Box::new(polls)), handshake, namespace, limit)
    }

    fn new(carrier: Carrier, handshake: &Handshake, namespace: &str, limit: usize) -> Self {
        let decoder = Decoder::new(namespace, limit);
        let heart = Heart::new(handshake.silence());
        Self { carrier, decoder, namespace: namespace.to_owned(), heart, asked: 0 }
    }

    /// What carries it.
    pub(super) fn wire(&self) -> Wire {
        match &self.carrier {
            Carrier::Socket(line) => line.wire(),
            Carrier::Polls(polls) => polls.wire(),
        }
    }

    /// How long TCP took of the connection below, or of the newest one.
    pub(super) fn tcp(&self) -> Nanos {
        match &self.carrier {
            Carrier::Socket(line) => line.times().tcp,
            Carrier::Polls(polls) => polls.tcp(),
        }
    }

    /// Whether the newest event was sent twice already, for its connection was closing.
    pub(super) fn was_said_again(&self) -> bool {
        match &self.carrier {
            Carrier::Socket(_) => false,
            Carrier::Polls(polls) => polls.was_said_again(),
        }
    }

    /// Says something, as soon as that can be done: with the next poll.
    fn say(&mut self, packet: &str) {
        match &mut self.carrier {
            Carrier::Socket(line) => line.say(packet),
            Carrier::Polls(polls) => polls.say(packet),
        }
    }

    /// Asks to be taken into the namespace, and waits for the answer: what it refuses with, where it does.
    pub(super) async fn join(&mut self, auth: Option<&Value>) -> Result<Option<Value>, Broken> {
        self.say(&packet::connect(&self.namespace, auth));
        self.until(|packet| match packet {
            Packet::Connect => Some(None),
            Packet::ConnectError(why) => Some(Some(why)),
            _ => None,
        })
        .await
    }

    /// Sends an event and waits until it is on its way. Where an acknowledgement is asked for, that to the newest one
    /// is heard as the event `ack`.
    pub(super) async fn emit(&mut self, event: &str, arguments: Value, acknowledge: bool) -> Sent {
        let packet = self.event(event, arguments, acknowledge);
        match &mut self.carrier {
            Carrier::Socket(line) => Sent { at: line.send(&packet).await, times: None, again: false },
            Carrier::Polls(polls) => polls.send(&packet).await,
        }
    }

    /// Sends one with the next poll.
    pub(super) fn emit_soon(&mut self, event: &str, arguments: Value) {
        let packet = self.event(event, arguments, false);
        self.say(&packet);
    }

    fn event(&mut self, event: &str, arguments: Value, acknowledge: bool) -> String {
        let id = acknowledge.then(|| {
            self.asked += 1;
            self.asked
        });
        packet::event(&self.namespace, id, event, arguments)
    }

    /// Reads and answers what comes until `take` has what it wants. What was read or said so far lies in the link, so
    /// this may be dropped at any time.
    pub(super) async fn until<T>(&mut self, mut take: impl FnMut(Packet) -> Option<T>) -> Result<T, Broken> {
        poll_fn(|cx| {
            loop {
                let mut found = None;
                let polled = self.poll_packets(cx, |packet, _, _, _| {
                    found = take(packet);
                    if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                match (found, polled) {
                    (Some(found), _) => return Poll::Ready(Ok(found)),
                    (None, Poll::Ready(Ok(()))) => {}
                    (None, Poll::Ready(Err(broken))) => return Poll::Ready(Err(broken)),
                    (None, Poll::Pending) => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// The same until something else is done, whatever comes meanwhile.
    pub(super) async fn beside<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Broken> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            // Both are looked at each time, as each knows only how to wake the whole.
            if let Poll::Ready(broken) = self.poll_all(cx) {
                return Poll::Ready(Err(broken));
            }
            future.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Reads all that has come and drops it; ready when the link is of no use any more.
    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        loop {
            if let Err(broken) = ready!(self.poll_packets(cx, |_, _, _, _| ControlFlow::Continue(()))) {
                return Poll::Ready(broken);
            }
        }
    }

    /// Goes over from polling to a WebSocket on which the server has answered the probe: waits for the requests that
    /// are under way, which the server ends, and says so.
    pub(super) async fn go_over(&mut self, mut line: Box<Line>) -> Result<(), Broken> {
        self.pause(true);
        poll_fn(|cx| {
            if let Poll::Ready(broken) = self.poll_all(cx) {
                return Poll::Ready(Err(broken));
            }
            match &self.carrier {
                Carrier::Polls(polls) if !polls.is_resting() => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            }
        })
        .await?;
        line.say("5");
        if let Carrier::Polls(polls) = &mut self.carrier {
            polls.unsaid().for_each(|packet| line.say(&packet));
        }
        line.flush().await;
        self.carrier = Carrier::Socket(line);
        Ok(())
    }

    /// Goes on polling, where it does not come to that.
    pub(super) fn stay(&mut self) {
        self.pause(false);
    }

    fn pause(&mut self, paused: bool) {
        if let Carrier::Polls(polls) = &mut self.carrier {
            polls.pause(paused);
        }
    }

    /// Reads and answers what comes, which is nobody's, until the link is of no use any more.
    pub(super) async fn rest(&mut self) -> Broken {
        poll_fn(|cx| self.poll_all(cx)).await
    }

    /// Why it is of no use any more, where that has come. Looks at it, does not wait.
    pub(super) fn look(&mut self) -> Option<Broken> {
        match self.poll_all(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(broken) => Some(broken),
            Poll::Pending => None,
        }
    }

    /// Leaves the namespace and closes the session. What cannot be sent at once is not told.
    pub(super) fn close(mut self) {
        let left = packet::disconnect(&self.namespace);
        self.say(&left);
        match self.carrier {
            Carrier::Socket(line) => line.close(NORMAL),
            Carrier::Polls(polls) => polls.close(),
        }
    }

    /// Closes what is of no use any more, where somebody may still hear it.
    pub(super) fn close_after(self, broken: &Broken) {
        match (self.carrier, broken) {
            (Carrier::Socket(line), _) => line.close(NORMAL),
            (Carrier::Polls(polls), Broken::Disconnected | Broken::Malformed(_)) => polls.close(),
            (Carrier::Polls(_), _) => {}
        }
    }

    /// Hands packets that have come to `take`, with their sizes, the stamp of the read that completed them, and the
    /// number of bytes behind them in it, until it has had enough. Pings are answered here. Ready when there may be
    /// more, or the link is of no use.
    fn poll_packets(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Packet, usize, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Poll<Result<(), Broken>> {
        let (mut pinged, mut broken) = (false, None);
        let decoder = &mut self.decoder;
        let mut hear = |frame: Result<Frame<'_>, Malformed>, stamp: ReadStamp, rest: usize| {
            match frame.and_then(|frame| Heard::read(frame, decoder)) {
                Ok(Heard::Packet(Packet::Disconnect, _)) => broken = Some(Broken::Disconnected),
                Ok(Heard::Packet(packet, size)) => return take(packet, size, stamp, rest),
                Ok(Heard::Ping) => {
                    pinged = true;
                    return ControlFlow::Continue(());
                }
                Ok(Heard::Nothing) => return ControlFlow::Continue(()),
                Ok(Heard::Closed) => broken = Some(Broken::Closed),
                Err(malformed) => broken = Some(Broken::Malformed(malformed)),
            }
            ControlFlow::Break(())
        };
        let polled = match &mut self.carrier {
            Carrier::Socket(line) => line
                .poll(cx, |message, stamp, rest| match message {
                    Message::Text(text) => hear(Frame::read(text), stamp, rest),
                    Message::Binary(bytes) => hear(Ok(Frame::Binary(bytes.to_vec())), stamp, rest),
                    Message::Event { .. } => ControlFlow::Continue(()),
                })
                .map_err(Broken::Socket),
            Carrier::Polls(polls) => {
                polls.poll(cx, |frame, stamp, rest| hear(Ok(frame), stamp, rest)).map_err(Broken::Polls)
            }
        };
        if let Some(broken) = broken {
            return Poll::Ready(Err(broken));
        }
        if pinged {
            self.heart.beat();
            match &mut self.carrier {
                Carrier::Socket(line) => {
                    line.say(PONG);
                    line.poll_flush(cx);
                }
                Carrier::Polls(polls) => {
                    polls.pong();
                    polls.poll_post(cx);
                }
            }
        }
        match polled {
            Poll::Ready(polled) => Poll::Ready(polled),
            // All that has come is read, so a ping that was there in time has been seen.
            Poll::Pending => self.heart.poll(cx).map(|silence| Err(Broken::Silent(silence))),
        }
    }
}

impl Channel for Link {
    type Broken = Broken;

    fn stamp(&self) -> ReadStamp {
        match &self.carrier {
            Carrier::Socket(line) => line.stamp(),
            Carrier::Polls(polls) => polls.stamp(),
        }
    }

    fn has_more(&self) -> bool {
        match &self.carrier {
            Carrier::Socket(line) => line.has_more(),
            Carrier::Polls(polls) => polls.has_more(),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Message<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Poll<Result<(), Broken>> {
        let asked = self.asked;
        self.poll_packets(cx, |packet, size, stamp, rest| {
            let (name, arguments) = match &packet {
                Packet::Event(name, arguments) => (name.as_str(), arguments),
                // Those to earlier turns come too late for anybody.
                Packet::Ack(id, arguments) if *id == asked => (ACKNOWLEDGED, arguments),
                _ => return ControlFlow::Continue(()),
            };
            take(Message::Event { name, arguments, size }, stamp, rest)
        })
    }

    /// Heartbeats are Engine.IO's own.
    fn answer(&mut self, _: &str) {}
}

impl Broken {
    /// Whether the other side has ended it for no reason that has to do with what was said.
    pub(super) fn is_leaving(&self) -> bool {
        match self {
            Self::Socket(broken) => broken.is_leaving(),
            Self::Polls(error) => error.is_leaving(),
            Self::Closed => true,
            Self::Disconnected | Self::Silent(_) | Self::Malformed(_) => false,
        }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Socket(broken) => broken.into(),
            Broken::Polls(error) => error.into(),
            Broken::Disconnected => Self::new(Outcome::Truncated, "the server disconnected from the namespace"),
            Broken::Closed => Self::new(Outcome::Truncated, "the server closed the session"),
            Broken::Silent(after) => {
                Self::new(Outcome::Stalled, format!("ping timeout: no ping within {} s", after.as_secs_f64()))
            }
            Broken::Malformed(malformed) => Self::new(Outcome::Protocol, malformed.to_string()),
        }
    }
}

/// The pings that must come.
struct Heart {
    silence: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Heart {
    fn new(silence: Duration) -> Self {
        Self { silence, timer: Box::pin(tokio::time::sleep(silence)) }
    }

    /// A ping came.
    fn beat(&mut self) {
        self.timer.as_mut().reset(Instant::now() + self.silence);
    }

    /// Ready when none came in time.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(self.silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_link_has_its_outcome() {
        let of = |broken: Broken| {
            let is_leaving = broken.is_leaving();
            let failure = Failure::from(broken);
            (is_leaving, failure.outcome, failure.detail)
        };
        let (is_leaving, outcome, _) = of(Broken::Disconnected);
        assert!(!is_leaving && outcome == Outcome::Truncated);
        assert_eq!(of(Broken::Closed), (true, Outcome::Truncated, "the server closed the session".to_owned()));
        let silent = (false, Outcome::Stalled, "ping timeout: no ping within 1.5 s".to_owned());
        assert_eq!(of(Broken::Silent(Duration::from_millis(1_500))), silent);
        let refused = |text: &str| of(Broken::Polls(PollError::Refused(400, text.to_owned())));
        let (is_leaving, outcome, detail) = refused(r#"{"code":1,"message":"Session ID unknown"}"#);
        assert!(!is_leaving && outcome == Outcome::HttpClient(400) && detail.contains("sticky sessions"), "{detail}");
        let other = refused(r#"{"code":3,"message":"Bad request"}"#);
        assert!(other.1 == Outcome::HttpClient(400) && !other.2.contains("sticky"), "{}", other.2);
        assert_eq!(of(Broken::Polls(PollError::Refused(503, String::new()))).1, Outcome::HttpServer(503));
    }

    #[test]
    fn a_client_hears_what_is_for_it() {
        let mut decoder = Decoder::new("/", 100);
        let mut hear = |text: &str| Heard::read(Frame::read(text).unwrap(), &mut decoder);
        assert!(matches!(hear(r#"42["a"]"#), Ok(Heard::Packet(Packet::Event(..), 6))));
        assert!(matches!(hear("2"), Ok(Heard::Ping)));
        assert!(matches!(hear("1"), Ok(Heard::Closed)));
        assert!(matches!(hear("6"), Ok(Heard::Nothing)));
        assert!(hear("0{}").is_err());
    }
}
