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
//! A turn that the user cancels is `Aborted`: the connection is closed, or with HTTP/2 the stream reset, which is all
//! that this protocol has for it.

mod event;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header};
use serde_json::json;
use url::Url;

use self::event::ChunkReader;
use super::exchange::{Call, Exchange, Failure, HeaderError, add_headers, usable};
use super::stream::{Pause, Stop, Stream};
use super::{Limits, Live, Prompt};
use crate::net::{Endpoint, HttpConnection};
use crate::record::{Outcome, Turn};
use crate::secret::Secret;

/// A chat completions endpoint.
#[derive(Debug)]
pub struct OpenAi {
    endpoint: Endpoint,
    uri: Uri,
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
        let fixed = [
            ("host", &base[url::Position::BeforeHost..url::Position::AfterPort]),
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "identity"),
            ("user-agent", concat!("capacity-check/", env!("CARGO_PKG_VERSION"))),
        ];
        let bearer = key.map(|key| format!("Bearer {}", key.expose()));
        let bearer = bearer.as_deref().map(|bearer| ("authorization", bearer));
        let extra_texts = extra.iter().map(|(name, value)| (name.as_str(), value.expose()));
        add_headers(&mut headers, fixed.into_iter().chain(bearer).chain(extra_texts))?;
        let path = format!("{}/chat/completions", base.path().trim_end_matches('/'));
        // The base came from a parsed URL, so its path is one.
        let uri = path.parse().unwrap_or_default();
        let secrets = key.into_iter().chain(extra.iter().map(|(_, value)| value)).cloned().collect();
        Ok(Self { endpoint, uri, headers, model: model.to_owned(), limits, secrets })
    }

    /// Speaks one turn; see [`super::Driver::turn`].
    pub(super) async fn turn(&self, session: &mut Session, prompt: &Prompt, turn: &mut Turn, live: Live<'_>) {
        if prompt.opens {
            session.messages.clear();
        }
        session.messages.push(Message { role: "user", content: prompt.text.clone() });
        let mut exchange = Exchange::new(&self.limits, turn, live);
        let reader = ChunkReader { reply: prompt.continues.then(String::new), check: prompt.check() };
        let mut stream = Stream::new(reader);
        // Taken out for the turn: a connection goes back only when its response was read to the end.
        let kept = session.connection.take();
        match self.exchange(kept, &session.messages, prompt, &mut stream, &mut exchange).await {
            Ok(connection) => {
                turn.outcome = Outcome::Completed;
                session.connection = connection;
                if let Some(content) = stream.reader.reply {
                    session.messages.push(Message { role: "assistant", content });
                }
            }
            Err(failure) => {
                session.connection = failure.end(turn, &self.secrets);
                // What was not answered was not said: many models refuse two user messages in a row.
                session.messages.pop();
            }
        }
        if let Some(check) = stream.reader.check {
            turn.settle(check.finish(turn.outcome == Outcome::Completed, &self.secrets));
        }
    }

    /// Sends the conversation and reads the reply.
    async fn exchange(
        &self,
        kept: Option<HttpConnection>,
        messages: &[Message],
        prompt: &Prompt,
        stream: &mut Stream<ChunkReader>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<HttpConnection>, Failure> {
        let body = json!({ "model": self.model, "messages": messages, "stream": true }).to_string();
        let call =
            Call { method: Method::POST, uri: self.uri.clone(), headers: &self.headers, body: Bytes::from(body) };
        exchange.opening = true;
        let (mut connection, response) = exchange.call(&self.endpoint, kept, &call).await?;
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        if status != 200 {
            let text = exchange.read_error(&mut connection).await?;
            let detail = format!("{status}: {text}");
            return Err(Failure {
                outcome: Outcome::of_status(status.as_u16()),
                detail,
                connection: usable(connection).map(Box::new),
            });
        }
        if !kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            let text = exchange.read_error(&mut connection).await?;
            let kind = kind.as_ref().map_or("none".into(), |kind| String::from_utf8_lossy(kind.as_bytes()));
            return Err(Failure::new(
                Outcome::Protocol,
                format!("content type {kind} instead of text/event-stream: {text}"),
            ));
        }
        // Whatever the user does here ends the stream, and nothing takes the reply up again.
        let mut pause = Pause::of(prompt.disturb, exchange.turn.sent.unwrap_or(exchange.turn.started));
        match stream.read(&mut connection, exchange, &mut pause).await? {
            Stop::Pause => {
                let mut failure = Failure::new(Outcome::Aborted, "cancelled by the user");
                failure.connection = usable(connection).map(Box::new);
                Err(failure)
            }
            Stop::End => {
                stream.finish(&mut connection, exchange).await?;
                Ok(usable(connection))
            }
        }
    }
}
