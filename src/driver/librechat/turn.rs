//! A turn: the message, the stream that answers it, and taking that up again where it breaks off.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::event::Reply;
use super::page::encoded;
use super::{LibreChat, Session};
use crate::clock;
use crate::driver::exchange::{Call, ERROR_BODY, Exchange, Failure, uri, usable};
use crate::driver::stream::{Pause, Stop, Stream};
use crate::driver::{Live, Prompt};
use crate::net::HttpConnection;
use crate::record::{Outcome, Step, Turn};
use crate::scenario::Disturbance;

/// How often a stream that breaks off is taken up again, and the pauses before.
pub(super) static RESUMES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2)];

/// What the POST of a two-step turn answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    stream_id: String,
    conversation_id: Option<String>,
}

/// Where a turn's stream comes from.
pub(super) struct Source {
    pub(super) connection: HttpConnection,
    /// The stream's id, where it can be taken up again.
    pub(super) stream_id: Option<String>,
}

impl LibreChat {
    /// Speaks one turn; see [`crate::driver::Driver::turn`].
    pub(in crate::driver) async fn turn(
        &self,
        session: &mut Session,
        prompt: &Prompt,
        turn: &mut Turn,
        live: Live<'_>,
    ) {
        if prompt.opens {
            session.begin_anew();
        }
        let mut exchange = Exchange::new(&self.limits, turn, live);
        let mut stream = Stream::new(Reply::new(prompt.check()));
        let done = self.exchange(session, prompt, &mut stream, &mut exchange).await;
        match done.and_then(|()| verdict(&stream.reader, prompt)) {
            Ok(outcome) => {
                turn.outcome = outcome;
                session.parent = stream
                    .reader
                    .ending
                    .as_mut()
                    .map(|ending| std::mem::take(&mut ending.message_id))
                    .unwrap_or_default();
            }
            Err(failure) => {
                if let Some(lost) = stream.lost.take() {
                    live.step(Step::Resume, failure.outcome, clock::monotonic() - lost);
                }
                let secrets = self.secrets_of(session);
                session.connection = failure.end(turn, &secrets).or(session.connection.take());
                // The deployment may still be generating in the old one.
                session.begin_anew();
            }
        }
        let whole = turn.outcome == Outcome::Completed;
        match stream.reader.checked(whole, || self.secrets_of(session)) {
            Some(checked) => turn.settle(checked),
            None => turn.late = stream.reader.late(),
        }
    }

    /// Sends the message and reads the reply to its end.
    async fn exchange(
        &self,
        session: &mut Session,
        prompt: &Prompt,
        stream: &mut Stream<Reply>,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        self.keep_fresh(session, exchange).await?;
        let mut source = self.open(session, prompt, exchange).await?;
        let mut pause = Pause::of(prompt.disturb, exchange.turn.sent.unwrap_or(exchange.turn.started));
        loop {
            let mut read = stream.read(&mut source.connection, exchange, &mut pause).await;
            if let Some(disturb) = prompt.disturb.filter(|_| matches!(read, Ok(Stop::Pause))) {
                pause = Pause::never();
                // Boxed here and below: what is rare would lie in every open stream otherwise.
                match disturb.what {
                    Disturbance::Cancel => {
                        read = Box::pin(self.read_cancelling(session, stream, &mut source, exchange)).await;
                    }
                    Disturbance::Reload | Disturbance::Drop => {
                        let broken = self.break_off(session, disturb.what, source, stream, exchange);
                        match Box::pin(broken).await? {
                            Some(again) => source = again,
                            // It is over, and read.
                            None => return Ok(()),
                        }
                        stream.reconnect();
                        continue;
                    }
                }
            }
            match read {
                Ok(_) => break,
                Err(failure) if matches!(failure.outcome, Outcome::Truncated | Outcome::Reset) => {
                    let Some(id) = source.stream_id.take() else { return Err(failure) };
                    stream.lost.get_or_insert_with(clock::monotonic);
                    let pauses = RESUMES.get(exchange.turn.resumes as usize..).unwrap_or_default();
                    source = Box::pin(self.resume(session, &id, Some(failure), pauses, exchange)).await?;
                    stream.reconnect();
                }
                Err(failure) => return Err(failure),
            }
        }
        stream.finish(&mut source.connection, exchange).await?;
        session.connection = usable(source.connection);
        session.conversation = stream.reader.conversation.take().or(session.conversation.take());
        Ok(())
    }

    /// Sends the message; a token that is refused is renewed, once.
    async fn open(
        &self,
        session: &mut Session,
        prompt: &Prompt,
        exchange: &mut Exchange<'_>,
    ) -> Result<Source, Failure> {
        let body = self.message(session, prompt);
        let path = format!("/api/agents/chat/{}", encoded(&self.chat.endpoint));
        for last in [false, true] {
            let mut headers = session.headers.clone();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let call =
                Call { method: Method::POST, uri: uri(&self.path(&path))?, headers: &headers, body: body.clone() };
            exchange.opening = true;
            let called = exchange.call(&self.endpoint, session.connection.take(), &call).await;
            exchange.opening = false;
            let (connection, response) = called?;
            match self.answered(session, connection, response, exchange).await {
                Err(failure) if failure.outcome == Outcome::Unauthorized && !last => {
                    session.connection = failure.connection.map(|connection| *connection);
                    self.renew_measured(session, exchange).await?;
                }
                answered => return answered,
            }
        }
        unreachable!("the second round returns")
    }

    /// What the user says, as the web client posts it.
    fn message(&self, session: &Session, prompt: &Prompt) -> Bytes {
        let mut message = json!({
            "text": prompt.text, "sender": "User", "isCreatedByUser": true,
            "endpoint": self.chat.endpoint, "endpointType": "custom", "model": self.chat.model,
            "messageId": Uuid::new_v4().to_string(), "parentMessageId": session.parent,
            "error": false, "isContinued": false, "isTemporary": false,
        });
        if let Some(conversation) = &session.conversation {
            message["conversationId"] = json!(conversation);
        }
        Bytes::from(message.to_string())
    }

    /// The POST was answered: by the stream itself, or by where it is.
    async fn answered(
        &self,
        session: &mut Session,
        mut connection: HttpConnection,
        response: Response<()>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Source, Failure> {
        if response.status() != StatusCode::OK {
            return Err(self.refused(connection, response, exchange).await);
        }
        let kind = response.headers().get(header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
            return self.source(connection, response, None, exchange).await;
        }
        let text = exchange.read_body(&mut connection, ERROR_BODY, true).await?;
        let started: Started = serde_json::from_slice(&text).map_err(|_| {
            Failure::new(Outcome::Protocol, format!("no streamId in {}", String::from_utf8_lossy(&text)))
        })?;
        let id = started.stream_id;
        session.conversation = started.conversation_id.or_else(|| Some(id.clone()));
        session.connection = usable(connection);
        self.subscribe(session, id, false, exchange).await
    }

    /// A response as a stream: by its content type, or without one, as early errors come.
    async fn source(
        &self,
        mut connection: HttpConnection,
        response: Response<()>,
        stream_id: Option<String>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Source, Failure> {
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        if let Some(kind) = kind.filter(|kind| !kind.as_bytes().starts_with(b"text/event-stream")) {
            let text = exchange.read_error(&mut connection).await?;
            let kind = String::from_utf8_lossy(kind.as_bytes()).into_owned();
            return Err(Failure::new(Outcome::Protocol, format!("content type {kind} instead of a stream: {text}")));
        }
        Ok(Source { connection, stream_id })
    }

    /// Opens a turn's stream.
    async fn subscribe(
        &self,
        session: &mut Session,
        id: String,
        resume: bool,
        exchange: &mut Exchange<'_>,
    ) -> Result<Source, Failure> {
        let query = if resume { "?resume=true" } else { "" };
        let path = self.path(&format!("/api/agents/chat/stream/{}{query}", encoded(&id)));
        let call = Call { method: Method::GET, uri: uri(&path)?, headers: &session.headers, body: Bytes::new() };
        let (connection, response) = exchange.call(&self.endpoint, session.connection.take(), &call).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(connection, response, exchange).await);
        }
        self.source(connection, response, Some(id), exchange).await
    }

    /// Takes a stream up again, after each of these pauses until it is there. What it broke off with stands where
    /// that is in vain; where the user broke it off, the first refusal does.
    pub(super) async fn resume(
        &self,
        session: &mut Session,
        id: &str,
        mut broken: Option<Failure>,
        pauses: &[Duration],
        exchange: &mut Exchange<'_>,
    ) -> Result<Source, Failure> {
        for pause in pauses {
            // Our own pause is no silence of the target.
            tokio::time::sleep(*pause).await;
            exchange.watchdog.sign(clock::monotonic());
            exchange.turn.resumes += 1;
            let again = match self.subscribe(session, id.to_owned(), true, exchange).await {
                Ok(source) => return Ok(source),
                Err(again) => again,
            };
            let gone = matches!(again.outcome, Outcome::HttpClient(_) | Outcome::Unauthorized);
            match &mut broken {
                Some(first) => first.detail = format!("{}; resumed in vain: {}", first.detail, again.detail),
                None => broken = Some(again),
            }
            if gone {
                break;
            }
        }
        Err(broken.unwrap_or_else(|| Failure::new(Outcome::Truncated, "broken off, and not taken up again")))
    }
}

/// What a turn that came to its `final` was.
pub(super) fn verdict(reply: &Reply, prompt: &Prompt) -> Result<Outcome, Failure> {
    let Some(ending) = &reply.ending else { return Ok(Outcome::Completed) };
    match (&ending.error, ending.aborted) {
        (Some(error), _) => Err(Failure::new(Outcome::ErrorEvent, error.clone())),
        (None, true) if prompt.cancels() => Ok(Outcome::Aborted),
        (None, true) => Err(Failure::new(Outcome::ErrorEvent, "cancelled, but not by this user")),
        (None, false) => Ok(Outcome::Completed),
    }
}
