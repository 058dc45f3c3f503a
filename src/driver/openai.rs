//! OpenAI's chat completions, streamed: `POST {base}/chat/completions` with `"stream": true`.
//!
//! | what comes | outcome |
//! |---|---|
//! | 200, `text/event-stream`, ends with `data: [DONE]` | `Completed` |
//! | 429 / 401, 403 / other 4xx / 5xx | `RateLimited` / `Unauthorized` / `HttpClient` / `HttpServer` |
//! | another status, another content type, an event that is no JSON object, broken HTTP | `Protocol` |
//! | an event with `error` | `ErrorEvent` |
//! | the end without `[DONE]`, clean or not | `Truncated` |
//! | a reset connection | `Reset` |
//! | nothing for the stall limit / longer than the turn limit | `Stalled` / `TimedOut` |
//! | no connection | `ConnectRefused`, `ConnectTimeout`, `Dns`, `Tls` |
//!
//! After an error inside the stream the rest is read too, as a web client would; the first thing
//! that went wrong is the outcome.
//!
//! A chunk whose delta has content that is not empty is one token; a role-only chunk is none.
//! A kept-alive connection that turns out to be closed within a second of the request, before a
//! byte of the response came, is replaced once: the server closed it while we were writing, which
//! is no failure of the target.

mod event;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use url::Url;

use self::event::{Said, read_event};
use super::reply::Arrivals;
use super::watchdog::Watchdog;
use super::{Limits, Live, Prompt};
use crate::clock;
use crate::net::sse::Decoder;
use crate::net::{ConnectError, Endpoint, Frame, HttpConnection, HttpError};
use crate::record::{Outcome, Turn};
use crate::secret::{Secret, escaped, redacted};

/// The characters of a foreign text that are kept.
const DETAIL: usize = 200;
/// The bytes of an error's body that are read.
const ERROR_BODY: usize = 16 << 10;
/// How long the end of the body may take after the terminal event.
const AFTER_DONE: Duration = Duration::from_secs(2);

/// A chat completions endpoint.
#[derive(Debug)]
pub struct OpenAi {
    endpoint: Endpoint,
    path: String,
    headers: HeaderMap,
    model: String,
    limits: Limits,
    /// What must not be shown, though the target repeat it.
    secrets: Vec<Secret>,
}

/// What one user keeps between turns: a connection and the conversation so far.
#[derive(Default)]
pub struct Session {
    connection: Option<HttpConnection>,
    messages: Vec<Message>,
}

#[derive(serde::Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

/// A header that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("the header `{name}` has a name or value that HTTP does not allow")]
pub struct HeaderError {
    name: String,
}

impl OpenAi {
    /// An endpoint below `base` (such as `http://host/v1`), with further headers.
    ///
    /// # Errors
    /// When a header cannot be sent.
    pub fn new(
        endpoint: Endpoint,
        base: &Url,
        model: &str,
        key: Option<&Secret>,
        extra: &[(String, Secret)],
        limits: Limits,
    ) -> Result<Self, HeaderError> {
        let mut headers = HeaderMap::new();
        let authority = &base[url::Position::BeforeHost..url::Position::AfterPort];
        let bearer = key.map(|key| ("authorization".to_owned(), Secret::new(format!("Bearer {}", key.expose()))));
        let fixed = [
            ("host", authority),
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
            ("user-agent", concat!("capacity-check/", env!("CARGO_PKG_VERSION"))),
        ]
        .map(|(name, value)| (name.to_owned(), Secret::new(value)));
        for (name, value) in fixed.iter().chain(&bearer).chain(extra) {
            let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value.expose()));
            let (Ok(parsed_name), Ok(mut parsed_value)) = parsed else {
                return Err(HeaderError { name: name.clone() });
            };
            parsed_value.set_sensitive(true);
            headers.insert(parsed_name, parsed_value);
        }
        let path = format!("{}/chat/completions", base.path().trim_end_matches('/'));
        let secrets = key.into_iter().chain(extra.iter().map(|(_, value)| value)).cloned().collect();
        Ok(Self { endpoint, path, headers, model: model.to_owned(), limits, secrets })
    }

    /// Speaks one turn; see [`super::Driver::turn`].
    pub(super) async fn turn(&self, session: &mut Session, prompt: &Prompt, turn: &mut Turn, live: Live<'_>) {
        if prompt.opens {
            session.messages.clear();
        }
        session.messages.push(Message { role: "user", content: prompt.text.clone() });
        let mut exchange = Exchange {
            watchdog: Watchdog::new(&self.limits, turn.started),
            turn,
            live,
            reply: prompt.continues.then(String::new),
            body_left: self.limits.reply_bytes,
            failed: None,
        };
        // Taken out for the turn: a connection goes back only when its response was read to the end.
        let kept = session.connection.take();
        match self.exchange(kept, &session.messages, &mut exchange).await {
            Ok(connection) => {
                exchange.turn.outcome = Outcome::Completed;
                session.connection = connection;
                if let Some(content) = exchange.reply {
                    session.messages.push(Message { role: "assistant", content });
                }
            }
            Err(Failure { outcome, detail, connection }) => {
                exchange.turn.outcome = outcome;
                exchange.turn.detail = escaped(&redacted(&detail, &self.secrets), DETAIL);
                exchange.turn.ended = clock::monotonic();
                exchange.turn.released = exchange.turn.ended;
                session.connection = connection;
                // What was not answered was not said: many models refuse two user messages in a row.
                session.messages.pop();
            }
        }
    }

    /// Sends the conversation and reads the reply.
    async fn exchange(
        &self,
        kept: Option<HttpConnection>,
        messages: &[Message],
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<HttpConnection>, Failure> {
        let body = json!({ "model": self.model, "messages": messages, "stream": true }).to_string();
        let body = Bytes::from(body);
        let (mut connection, response) = self.respond(kept, &body, exchange).await?;
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let mut body = response.into_body();
        if status != 200 {
            let text = read_error(&mut connection, &mut body, exchange).await?;
            let detail = format!("{status}: {text}");
            let connection = connection.is_usable().then_some(connection);
            return Err(Failure { outcome: Outcome::of_status(status.as_u16()), detail, connection });
        }
        if !kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            let text = read_error(&mut connection, &mut body, exchange).await?;
            let kind = kind.as_ref().map_or("none".into(), |kind| String::from_utf8_lossy(kind.as_bytes()));
            return Err(Failure::new(
                Outcome::Protocol,
                format!("content type {kind} instead of text/event-stream: {text}"),
            ));
        }
        read_stream(&mut connection, &mut body, exchange).await?;
        Ok(connection.is_usable().then_some(connection))
    }

    /// Sends the request on the kept connection or a new one and waits for the response's head.
    async fn respond(
        &self,
        kept: Option<HttpConnection>,
        body: &Bytes,
        exchange: &mut Exchange<'_>,
    ) -> Result<(HttpConnection, Response<Incoming>), Failure> {
        let kept = kept.and_then(|mut kept| kept.is_usable().then_some(kept));
        if let Some(mut connection) = kept {
            match self.send(&mut connection, body, exchange).await? {
                Ok(response) => return Ok((connection, response)),
                Err(HttpError::Closed | HttpError::Reset) if was_closing(&connection) => exchange.turn.retries += 1,
                Err(error) => return Err(error.into()),
            }
        }
        // Boxed: connecting is rare, and its state would lie in every open stream otherwise.
        let opened = Box::pin(HttpConnection::open(&self.endpoint));
        let mut connection = exchange.watchdog.guard(opened).await.map_err(silence)??;
        exchange.turn.connect = Some(connection.times.tcp);
        exchange.turn.tls = connection.times.tls;
        exchange.watchdog.sign(clock::monotonic());
        let response = self.send(&mut connection, body, exchange).await??;
        Ok((connection, response))
    }

    async fn send(
        &self,
        connection: &mut HttpConnection,
        body: &Bytes,
        exchange: &mut Exchange<'_>,
    ) -> Result<Result<Response<Incoming>, HttpError>, Failure> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = http::Method::POST;
        // The base came from a parsed URL, so its path is one.
        *request.uri_mut() = self.path.parse().map_err(|_| Failure::new(Outcome::Protocol, self.path.clone()))?;
        *request.headers_mut() = self.headers.clone();
        let result = exchange.watchdog.guard(connection.send(request)).await;
        exchange.turn.sent = connection.sent_at();
        exchange.watchdog.sign(clock::monotonic());
        result.map_err(silence)
    }
}

/// Whether a kept connection failed so soon after the request that the server must have been
/// closing it already. Later the request was at work, and its failure is the target's.
fn was_closing(connection: &HttpConnection) -> bool {
    connection.sent_at().is_none_or(|sent| clock::monotonic() - sent < clock::SECOND)
}

/// A turn in progress.
struct Exchange<'a> {
    watchdog: Watchdog,
    turn: &'a mut Turn,
    live: Live<'a>,
    /// The reply's text, where the conversation goes on.
    reply: Option<String>,
    /// Bytes that the body may still have.
    body_left: usize,
    /// The first thing that went wrong inside the stream.
    failed: Option<Failure>,
}

/// A turn that did not complete.
struct Failure {
    outcome: Outcome,
    detail: String,
    /// The connection, where it can be used again.
    connection: Option<HttpConnection>,
}

impl Failure {
    fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), connection: None }
    }
}

/// A limit that was passed, in words.
fn silence(outcome: Outcome) -> Failure {
    let what = if outcome == Outcome::Stalled {
        "nothing more came within the stall limit"
    } else {
        "longer than the turn limit"
    };
    Failure::new(outcome, what)
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let outcome = match &error {
            ConnectError::Dns { .. } => Outcome::Dns,
            ConnectError::Refused { .. } => Outcome::ConnectRefused,
            ConnectError::Tls { .. } => Outcome::Tls,
            ConnectError::Timeout { .. } | ConnectError::Io { .. } => Outcome::ConnectTimeout,
        };
        Self::new(outcome, error.to_string())
    }
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        let outcome = match &error {
            HttpError::Closed | HttpError::Truncated => Outcome::Truncated,
            HttpError::Reset => Outcome::Reset,
            HttpError::Protocol(_) => Outcome::Protocol,
        };
        Self::new(outcome, error.to_string())
    }
}

/// The beginning of a body that is no stream, for the report.
async fn read_error(
    connection: &mut HttpConnection,
    body: &mut Incoming,
    exchange: &mut Exchange<'_>,
) -> Result<String, Failure> {
    let mut text = Vec::new();
    while text.len() < ERROR_BODY {
        let frame = exchange.watchdog.guard(poll_fn(|cx| connection.poll_frame(cx, body))).await.map_err(silence)?;
        match frame {
            Some(Ok(Frame { data, .. })) => text.extend_from_slice(&data),
            // The status is known already, and worth more than how its text ended.
            Some(Err(_)) | None => break,
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads events to the terminal one, and the body to its end.
async fn read_stream(
    connection: &mut HttpConnection,
    body: &mut Incoming,
    exchange: &mut Exchange<'_>,
) -> Result<(), Failure> {
    let mut decoder = Decoder::default();
    let mut arrivals = Arrivals::default();
    let ended = poll_fn(|cx| {
        loop {
            let ended = match connection.poll_frame(cx, body) {
                Poll::Ready(Some(Ok(frame))) => {
                    exchange.watchdog.sign(frame.stamp.returned);
                    match take_frame(&frame, &mut decoder, &mut arrivals, exchange) {
                        Ok(false) => continue,
                        Ok(true) => Poll::Ready(Ok(())),
                        Err(failure) => Poll::Ready(Err(failure)),
                    }
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error.into())),
                Poll::Ready(None) => {
                    Poll::Ready(Err(Failure::new(Outcome::Truncated, "the stream ended without [DONE]")))
                }
                Poll::Pending => exchange.watchdog.poll(cx).map(|outcome| Err(silence(outcome))),
            };
            // Everything that has come is read: the open arrival is complete.
            arrivals.flush(exchange.turn, exchange.live);
            return ended;
        }
    })
    .await;
    if let Some(failed) = exchange.failed.take() {
        return Err(failed);
    }
    ended?;
    // The turn is over; what remains is to read the body's end, so that the connection can be used again.
    let rest = poll_fn(|cx| {
        loop {
            match connection.poll_frame(cx, body) {
                Poll::Ready(Some(Ok(frame))) => {
                    let mut more = false;
                    if decoder.feed(&frame.data, |_| more = true).is_err() || more {
                        return Poll::Ready(Err(Failure::new(Outcome::Protocol, "an event after [DONE]")));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let rest = tokio::time::timeout(AFTER_DONE, rest).await;
    // The user goes on from here: what the target takes to end the body is no lag of ours.
    let free = if rest.is_ok() { connection.stamp().latest } else { clock::monotonic() };
    exchange.turn.released = free.max(exchange.turn.ended);
    rest.unwrap_or(Ok(()))
}

/// Decodes one piece of the body. True when it held the terminal event.
fn take_frame(
    frame: &Frame,
    decoder: &mut Decoder,
    arrivals: &mut Arrivals,
    exchange: &mut Exchange<'_>,
) -> Result<bool, Failure> {
    exchange.body_left = match exchange.body_left.checked_sub(frame.data.len()) {
        Some(left) => left,
        None => return Err(Failure::new(Outcome::Protocol, "the reply is larger than the limit")),
    };
    let (mut tokens, mut done, mut followed) = (0, false, false);
    let (reply, failed) = (&mut exchange.reply, &mut exchange.failed);
    let fed = decoder.feed(&frame.data, |event| {
        if done {
            return;
        }
        match read_event(event.data, reply) {
            Ok(Said::Token) => {
                tokens += 1;
                followed = event.rest > 0;
            }
            Ok(Said::Done) => done = true,
            Ok(Said::Other) => {}
            Err(failure) => {
                failed.get_or_insert(failure);
            }
        }
    });
    if tokens > 0 {
        arrivals.add(frame.stamp, tokens, exchange.turn, exchange.live);
    }
    if tokens == 0 || followed {
        arrivals.follow(frame.stamp);
    }
    if done {
        exchange.turn.ended = frame.stamp.latest;
    }
    fed.map(|()| done).map_err(|error| Failure::new(Outcome::Protocol, error.to_string()))
}
