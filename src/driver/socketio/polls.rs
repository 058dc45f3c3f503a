//! HTTP long-polling: one GET after the other brings packets, POSTs take them away, one of each at a time.
//!
//! Packets of a poll count from the read that completed it: a browser gives nothing of it out before.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use tokio::runtime::Handle;

use super::packet::{Frame, Malformed, PONG, add_to, first_of};
use crate::clock::{self, Nanos};
use crate::driver::described::cookies::Jar;
use crate::driver::exchange::{ERROR_BODY, Failure, usable, was_closing};
use crate::net::{ConnectError, ConnectTimes, Endpoint, HttpConnection, HttpError, Progress, ReadStamp};
use crate::record::{Outcome, Wire};

/// The most messages of the largest size that one poll may bring.
const MESSAGES: usize = 16;
/// The most bytes that it may bring in any case.
const LARGEST: usize = 64 << 20;
/// What Engine.IO says of a session that it does not have.
const UNKNOWN: &str = "Session ID unknown";
/// What that means for whoever runs it.
const NOT_STICKY: &str =
    "400 from a server that does not have this session; polling wants sticky sessions at the load balancer";

/// Where requests go, and with what.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) jar: Rc<RefCell<Jar>>,
    /// How long a POST may take.
    pub(super) patience: Duration,
}

/// When a request's first byte was handed to the socket, and how long connecting took where that was done for it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) at: Option<Nanos>,
    pub(super) times: Option<ConnectTimes>,
    /// Whether it was sent a second time, for its connection was closing.
    pub(super) again: bool,
}

/// What came of a request.
pub(super) struct Answer {
    connection: HttpConnection,
    pub(super) body: String,
    stamp: ReadStamp,
}

/// Why polling cannot go on.
#[derive(Debug)]
pub(super) enum PollError {
    Connect(ConnectError),
    Http(HttpError),
    /// Another status than 200, and what it says.
    Refused(u16, String),
    Malformed(Malformed),
    /// More than so many bytes.
    TooLarge(usize),
    /// A POST that was not answered in this time.
    Unanswered(Duration),
}

type Asking = Pin<Box<dyn Future<Output = Result<Answer, PollError>>>>;

/// The session of one user that is polled.
pub(super) struct Polls {
    way: Way,
    /// The bytes that a poll may bring.
    limit: usize,
    /// The bytes that a POST may have.
    max_payload: usize,
    polling: Option<Asking>,
    posting: Option<Asking>,
    /// Connections between two requests.
    poll_kept: Option<HttpConnection>,
    post_kept: Option<HttpConnection>,
    /// What is to be sent.
    outbox: VecDeque<String>,
    /// Told of the request that takes the newest of it.
    sent: Rc<Cell<Sent>>,
    /// What the newest poll has brought, and how much of it was taken.
    payload: String,
    taken: usize,
    /// The newest poll's, with its number among the polls.
    stamp: ReadStamp,
    /// What the newest poll came over, and how long TCP took there.
    wire: Wire,
    tcp: Nanos,
    /// Whether no request may follow those that are under way.
    paused: bool,
    /// Why what was to be sent was not.
    failed: Option<PollError>,
}

impl Way {
    fn request(&self, method: Method, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if method == Method::POST {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
        }
        self.jar.borrow().add_to(headers);
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        request
    }

    /// Begins a session: its first payload.
    pub(super) async fn begin(self, limit: usize, sent: Rc<Cell<Sent>>) -> Result<Answer, PollError> {
        let request = self.request(Method::GET, Bytes::new());
        self.ask(None, request, limit, sent).await
    }

    /// Sends a request on the kept connection or a new one, and reads the whole answer.
    async fn ask(
        self,
        kept: Option<HttpConnection>,
        request: Request<Bytes>,
        most: usize,
        sent: Rc<Cell<Sent>>,
    ) -> Result<Answer, PollError> {
        let mut answered = None;
        // A poll follows the one before at once, so that its connection cannot have been idle for too long.
        let may_be_closing = request.method() == Method::POST;
        let mut again = sent.get().again;
        if let Some(mut connection) = kept.and_then(usable) {
            sent.set(Sent { at: Some(clock::monotonic()), times: None, again });
            match connection.send(&request).await {
                Ok(response) => answered = Some((connection, response)),
                // The server closed it while we were writing, which is no failure of it.
                Err(HttpError::Closed | HttpError::Reset) if may_be_closing && was_closing(&connection) => again = true,
                Err(error) => return Err(error.into()),
            }
        }
        let (connection, response) = match answered {
            Some(answered) => answered,
            None => {
                let mut connection = HttpConnection::open(&self.endpoint).await?;
                sent.set(Sent { at: Some(clock::monotonic()), times: Some(connection.times), again });
                let response = connection.send(&request).await?;
                (connection, response)
            }
        };
        self.jar.borrow_mut().take(response.headers());
        whole(connection, &response, most).await
    }
}

/// What carries requests on a connection.
fn wire(connection: &HttpConnection) -> Wire {
    if connection.version() == Version::HTTP_2 { Wire::Http2 } else { Wire::Http1 }
}

/// Reads an answer to its end. Of one that refuses, the beginning is enough.
async fn whole(mut connection: HttpConnection, response: &Response<()>, most: usize) -> Result<Answer, PollError> {
    let status = response.status().as_u16();
    let most = if status == 200 { most } else { ERROR_BODY };
    let (mut body, mut is_large) = (Vec::new(), false);
    loop {
        let progress = poll_fn(|cx| {
            connection.poll_body(cx, |data, _| {
                let room = most - body.len();
                body.extend_from_slice(&data[..data.len().min(room)]);
                is_large = data.len() > room;
                if is_large { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        })
        .await;
        match progress {
            _ if is_large => break,
            Ok(Progress::More) => {}
            Ok(Progress::End) => break,
            // Of an error the status is known already, and worth more than how its text ended.
            Err(_) if status != 200 => break,
            Err(error) => return Err(error.into()),
        }
    }
    if status != 200 {
        return Err(PollError::Refused(status, String::from_utf8_lossy(&body).into_owned()));
    }
    if is_large {
        return Err(PollError::TooLarge(most));
    }
    let body = String::from_utf8(body).map_err(|_| Malformed::of("a poll that is no UTF-8 text"))?;
    // Beneath TLS the end of a body cannot be seen in the read.
    let is_whole = connection.times.tls.is_none() && !connection.has_more();
    let stamp = ReadStamp { whole: is_whole, ..connection.stamp() };
    Ok(Answer { connection, body, stamp })
}

impl Polls {
    /// The session that `answer` has begun, with the packets behind its first one. Messages have at most `limit`
    /// bytes, and POSTs `max_payload`.
    pub(super) fn new(way: Way, answer: Answer, limit: usize, max_payload: usize) -> Self {
        let (_, rest) = first_of(&answer.body);
        let payload = rest.to_owned();
        Self {
            way,
            limit: limit.saturating_mul(MESSAGES).min(LARGEST),
            max_payload,
            polling: None,
            posting: None,
            wire: wire(&answer.connection),
            tcp: answer.connection.times.tcp,
            poll_kept: Some(answer.connection),
            post_kept: None,
            outbox: VecDeque::new(),
            sent: Rc::default(),
            payload,
            taken: 0,
            stamp: ReadStamp { read: 1, ..answer.stamp },
            paused: false,
            failed: None,
        }
    }

    /// When the newest poll arrived.
    pub(super) fn stamp(&self) -> ReadStamp {
        self.stamp
    }

    /// What the newest poll came over.
    pub(super) fn wire(&self) -> Wire {
        self.wire
    }

    /// How long TCP took of the connection that it came by.
    pub(super) fn tcp(&self) -> Nanos {
        self.tcp
    }

    /// Whether what was said last was sent twice already.
    pub(super) fn was_said_again(&self) -> bool {
        self.sent.get().again
    }

    /// Whether packets came that nobody has taken yet.
    pub(super) fn has_more(&self) -> bool {
        self.taken < self.payload.len()
    }

    /// Says something, with the next POST.
    pub(super) fn say(&mut self, packet: &str) {
        self.outbox.push_back(packet.to_owned());
    }

    /// Answers a ping with the next POST, unless that has an answer already.
    pub(super) fn pong(&mut self) {
        if !self.outbox.iter().any(|packet| packet == PONG) {
            self.say(PONG);
        }
    }

    /// Says something and waits until it is on its way. That it cannot be sent is no failure here: reading tells why.
    pub(super) async fn send(&mut self, packet: &str) -> Sent {
        // What is on its way already tells of itself elsewhere.
        self.sent = Rc::default();
        self.say(packet);
        poll_fn(|cx| {
            self.poll_post(cx);
            let sent = self.sent.get();
            if sent.at.is_some() || self.failed.is_some() { Poll::Ready(sent) } else { Poll::Pending }
        })
        .await
    }

    /// Lets no request follow those that are under way, or does again.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether nothing is under way, and everything that came was taken.
    pub(super) fn is_resting(&self) -> bool {
        self.paused && self.polling.is_none() && self.posting.is_none() && !self.has_more()
    }

    /// What was to be said and is not on its way.
    pub(super) fn unsaid(&mut self) -> impl Iterator<Item = String> {
        self.outbox.drain(..)
    }

    /// Sends what was said.
    pub(super) fn poll_post(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(posting) = &mut self.posting {
                match posting.as_mut().poll(cx) {
                    Poll::Pending => return,
                    Poll::Ready(answered) => {
                        self.posting = None;
                        match answered {
                            Ok(answer) => self.post_kept = Some(answer.connection),
                            Err(error) => {
                                self.failed = Some(error);
                                return;
                            }
                        }
                    }
                }
            }
            if self.paused || self.failed.is_some() || self.outbox.is_empty() {
                return;
            }
            let body = Bytes::from(self.batch());
            let request = self.way.request(Method::POST, body);
            let asking = self.way.clone().ask(self.post_kept.take(), request, ERROR_BODY, Rc::clone(&self.sent));
            let patience = self.way.patience;
            self.posting = Some(Box::pin(async move {
                let asked = tokio::time::timeout(patience, asking).await;
                asked.unwrap_or(Err(PollError::Unanswered(patience)))
            }));
        }
    }

    /// What the next POST takes: as much as the server does, and at least one packet.
    fn batch(&mut self) -> String {
        let mut payload = String::new();
        while let Some(packet) = self.outbox.front() {
            if !payload.is_empty() && payload.len() + 1 + packet.len() > self.max_payload {
                break;
            }
            add_to(&mut payload, packet);
            self.outbox.pop_front();
        }
        payload
    }

    /// Hands packets that have come to `take`, with the stamp of their poll and the number of bytes behind them in it,
    /// until it has had enough. Ready when there may be more, or polling cannot go on.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Frame<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Poll<Result<(), PollError>> {
        self.poll_post(cx);
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        loop {
            if self.hand_out(&mut take)?.is_break() {
                return Poll::Ready(Ok(()));
            }
            if self.polling.is_none() {
                if self.paused {
                    return Poll::Pending;
                }
                let request = self.way.request(Method::GET, Bytes::new());
                let asking = self.way.clone().ask(self.poll_kept.take(), request, self.limit, Rc::default());
                self.polling = Some(Box::pin(asking));
            }
            let Some(polling) = &mut self.polling else { return Poll::Pending };
            let answered = ready!(polling.as_mut().poll(cx));
            self.polling = None;
            let answer = answered?;
            self.stamp = ReadStamp { read: self.stamp.read + 1, ..answer.stamp };
            (self.payload, self.taken) = (answer.body, 0);
            (self.wire, self.tcp) = (wire(&answer.connection), answer.connection.times.tcp);
            self.poll_kept = Some(answer.connection);
        }
    }

    fn hand_out(
        &mut self,
        take: &mut impl FnMut(Frame<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PollError> {
        while self.taken < self.payload.len() {
            let (packet, rest) = first_of(&self.payload[self.taken..]);
            self.taken = self.payload.len() - rest.len();
            let stamp = ReadStamp { whole: self.stamp.whole && rest.is_empty(), ..self.stamp };
            if take(Frame::read(packet)?, stamp, rest.len()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        // A large one is not kept until the next.
        (self.payload, self.taken) = (String::new(), 0);
        Ok(ControlFlow::Continue(()))
    }

    /// Says a last thing, as far as that can be done at once: on a connection that is open.
    pub(super) fn close(mut self) {
        let is_open = self.post_kept.as_mut().is_some_and(HttpConnection::is_usable);
        // Where the runtime is gone, nobody could connect anew if it came to that.
        if is_open && self.posting.is_none() && Handle::try_current().is_ok() {
            self.say("1");
            self.paused = false;
            self.poll_post(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl PollError {
    /// Whether the connection has ended, and no answer says why.
    pub(super) fn is_leaving(&self) -> bool {
        match self {
            Self::Http(error) => matches!(error, HttpError::Closed | HttpError::Reset | HttpError::Truncated),
            Self::Connect(_) | Self::Refused(..) | Self::Malformed(_) | Self::TooLarge(_) | Self::Unanswered(_) => {
                false
            }
        }
    }
}

impl From<ConnectError> for PollError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<HttpError> for PollError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl From<Malformed> for PollError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<PollError> for Failure {
    fn from(error: PollError) -> Self {
        match error {
            PollError::Connect(error) => error.into(),
            PollError::Http(error) => error.into(),
            // The hint comes first: what is long is cut at its end.
            PollError::Refused(400, text) if text.contains(UNKNOWN) => {
                let detail = format!("{NOT_STICKY}: {text}");
                Self::new(Outcome::HttpClient(400), detail)
            }
            PollError::Refused(status, text) => Self::new(Outcome::of_status(status), format!("{status}: {text}")),
            PollError::Malformed(malformed) => Self::new(Outcome::Protocol, malformed.to_string()),
            PollError::Unanswered(after) => {
                Self::new(Outcome::Stalled, format!("a POST was not answered within {} s", after.as_secs_f64()))
            }
            PollError::TooLarge(most) => Self::new(Outcome::Protocol, format!("an answer larger than {most} bytes")),
        }
    }
}
