//! LibreChat's web API, as the web client speaks it: sign-in, page load, two-step chat (v0.8.2 and
//! later) or one step (v0.7.9 to v0.8.1), resume, cancel. The two are told apart by what the POST
//! answers: JSON, or the stream itself.
//!
//! What comes, and the outcome. Rows with a transcript were seen on a running server and are replayed in
//! `librechat/replay.rs`, which reads this table, and `tests/it/transcripts.rs`; the others are driven
//! through the reference deployment in `tests/it/librechat.rs`:
//!
//! | what comes | transcript | outcome |
//! |---|---|---|
//! | `final`, nothing wrong in it | `v087-turn1-stream`, `v087-turn2-stream`, `v081-turn`, `v088rc1-turn-stream` | `Completed` |
//! | `final` with `aborted`, as the user asked | `v087-abort` | `Aborted` |
//! | `final` with a content of type `error` | `v087-upstream-drops-midstream` | `ErrorEvent` |
//! | nothing for the stall limit | `v087-upstream-hangs` | `Stalled` |
//! | the end without `final`, and no resume | `v087-resume` (its first connection) | `Truncated`, `Reset` |
//! | 200 and `event: error` | `v087-bad-request-in-200` | `ErrorEvent` |
//! | 200 and an error whose text is a `message_limit` | `v087-message-limited-in-200` | `RateLimited` |
//! | 429 | `v087-concurrent-limited`, `v087-login-limited`, `v087-register-limited` | `RateLimited` |
//! | 200 and an error whose text is a `ban`, or `Illegal request`; 403 that says "banned" | | `Banned` |
//! | 401 or another 403, after one renewal | | `Unauthorized` |
//! | another status | | `HttpClient`, `HttpServer` |
//! | a page, or JSON without `streamId` | | `Protocol` |
//!
//! A stream that breaks off is taken up again with `?resume=true`, at most three times; only when
//! that fails is the turn lost. Words of the whole text that no delta brought are counted as
//! unseen: a reload of the page would show them, so they are a matter of stickiness, not of loss.

mod auth;
mod event;
mod page;
#[cfg(test)]
mod replay;

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use self::auth::Tokens;
use self::event::Reply;
use super::exchange::{Call, ERROR_BODY, Exchange, Failure, HeaderError, add_headers, uri, usable};
use super::stream::{Pause, Stop, Stream};
use super::{Limits, Live, Prompt};
use crate::account::Credentials;
use crate::net::{Endpoint, HttpConnection};
use crate::record::{Outcome, Turn};
use crate::secret::Secret;

pub use page::Offer;

/// LibreChat bans who names no browser.
pub const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
/// The parent of a conversation's first message.
const NO_PARENT: &str = "00000000-0000-0000-0000-000000000000";
/// How long a one-step stream has for its `final` after it was cancelled.
const AFTER_CANCEL: Duration = Duration::from_secs(2);
/// How often a stream that breaks off is taken up again, and the pauses before.
const RESUMES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2)];

/// A LibreChat deployment.
#[derive(Debug)]
pub struct LibreChat {
    endpoint: Endpoint,
    /// The path before `/api`, without a slash at its end.
    prefix: String,
    headers: HeaderMap,
    chat: Offer,
    accounts: Vec<Account>,
    jwt_secret: Option<Secret>,
    limits: Limits,
    /// What must not be shown, though the target repeat it, besides what a session holds.
    secrets: Vec<Secret>,
}

/// An account, and what its user holds since the login.
#[derive(Debug)]
struct Account {
    credentials: Credentials,
    tokens: OnceLock<Tokens>,
}

/// What one user keeps between turns.
pub struct Session {
    account: usize,
    tokens: Tokens,
    /// The headers of chat calls, with the bearer token.
    headers: HeaderMap,
    connection: Option<HttpConnection>,
    conversation: Option<String>,
    parent: String,
}

/// What the POST of a two-step turn answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    stream_id: String,
    conversation_id: Option<String>,
}

/// Where a turn's stream comes from.
struct Source {
    connection: HttpConnection,
    /// The stream's id, where it can be taken up again.
    stream_id: Option<String>,
}

impl LibreChat {
    /// A deployment at `base` (such as `https://chat.example`), with one account a user, further
    /// headers, and the secret for those whose tokens are minted. Which endpoint and model are
    /// asked for is said with [`Self::choose`].
    ///
    /// # Errors
    /// When a header cannot be sent.
    pub fn new(
        endpoint: Endpoint,
        base: &Url,
        accounts: Vec<Credentials>,
        jwt_secret: Option<Secret>,
        extra: &[(String, Secret)],
        limits: Limits,
    ) -> Result<Self, HeaderError> {
        let mut headers = HeaderMap::new();
        let fixed = [
            ("host", &base[url::Position::BeforeHost..url::Position::AfterPort]),
            ("accept", "application/json, text/event-stream, */*"),
            ("accept-encoding", "identity"),
            ("accept-language", "en-US,en;q=0.9"),
            ("user-agent", BROWSER),
        ];
        let extra_texts = extra.iter().map(|(name, value)| (name.as_str(), value.expose()));
        add_headers(&mut headers, fixed.into_iter().chain(extra_texts))?;
        let accounts: Vec<Account> =
            accounts.into_iter().map(|credentials| Account { credentials, tokens: OnceLock::new() }).collect();
        let secrets = jwt_secret.iter().chain(extra.iter().map(|(_, value)| value)).cloned().collect();
        Ok(Self {
            endpoint,
            prefix: base.path().trim_end_matches('/').to_owned(),
            headers,
            chat: Offer::default(),
            accounts,
            jwt_secret,
            limits,
            secrets,
        })
    }

    /// Says which endpoint and model the users ask for.
    pub fn choose(&mut self, offer: Offer) {
        self.chat = offer;
    }

    /// The session of user number `user`, with what its login brought.
    ///
    /// # Panics
    /// When there is no account at all.
    pub(super) fn session(&self, user: u32) -> Session {
        let account = user as usize % self.accounts.len();
        let mut session = Session {
            account,
            tokens: Tokens::default(),
            headers: self.headers.clone(),
            connection: None,
            conversation: None,
            parent: NO_PARENT.to_owned(),
        };
        if let Some(tokens) = self.accounts[account].tokens.get() {
            session.hold(tokens.clone());
        }
        session
    }

    /// What must not be shown of what this session's requests are answered.
    fn secrets_of(&self, session: &Session) -> Vec<Secret> {
        let credentials = self.accounts[session.account].credentials.secret().into_iter().cloned();
        self.secrets.iter().cloned().chain(credentials).chain(session.tokens.secrets()).collect()
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Speaks one turn; see [`super::Driver::turn`].
    pub(super) async fn turn(&self, session: &mut Session, prompt: &Prompt, turn: &mut Turn, live: Live<'_>) {
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
            if matches!(read, Ok(Stop::Pause)) {
                pause = Pause::never();
                read = self.read_cancelling(session, stream, &mut source, exchange).await;
            }
            match read {
                Ok(_) => break,
                Err(failure) if matches!(failure.outcome, Outcome::Truncated | Outcome::Reset) => {
                    let Some(id) = source.stream_id.take() else { return Err(failure) };
                    source = self.resume(session, id, failure, exchange).await?;
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
        let path = format!("/api/agents/chat/{}", page::encoded(&self.chat.endpoint));
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
        let path = self.path(&format!("/api/agents/chat/stream/{}{query}", page::encoded(&id)));
        let call = Call { method: Method::GET, uri: uri(&path)?, headers: &session.headers, body: Bytes::new() };
        let (connection, response) = exchange.call(&self.endpoint, session.connection.take(), &call).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(connection, response, exchange).await);
        }
        self.source(connection, response, Some(id), exchange).await
    }

    /// Takes a stream up again that broke off with `failure`, which stands where that is in vain.
    async fn resume(
        &self,
        session: &mut Session,
        id: String,
        mut failure: Failure,
        exchange: &mut Exchange<'_>,
    ) -> Result<Source, Failure> {
        for pause in RESUMES.into_iter().skip(exchange.turn.resumes as usize) {
            // Our own pause is no silence of the target.
            tokio::time::sleep(pause).await;
            exchange.watchdog.sign(crate::clock::monotonic());
            exchange.turn.resumes += 1;
            match self.subscribe(session, id.clone(), true, exchange).await {
                Ok(source) => return Ok(source),
                Err(again) => {
                    let gone = matches!(again.outcome, Outcome::HttpClient(_) | Outcome::Unauthorized);
                    failure.detail = format!("{}; resumed in vain: {}", failure.detail, again.detail);
                    if gone {
                        return Err(failure);
                    }
                }
            }
        }
        Err(failure)
    }

    /// Reads on while the turn is being cancelled. In two steps the stream goes on to its `final`;
    /// in one step some versions leave it open and silent, so there the cancel itself is the end.
    async fn read_cancelling(
        &self,
        session: &Session,
        stream: &mut Stream<Reply>,
        source: &mut Source,
        exchange: &mut Exchange<'_>,
    ) -> Result<Stop, Failure> {
        let two_steps = source.stream_id.is_some();
        let id = source.stream_id.clone().or_else(|| stream.reader.conversation.clone()).unwrap_or_default();
        let beside = source.connection.another();
        let cancel = std::pin::pin!(self.cancel(session, beside, &id, two_steps));
        let mut on = Pause::never();
        let read = std::pin::pin!(stream.read(&mut source.connection, exchange, &mut on));
        match select(cancel, read).await {
            // The turn ended before the cancel was answered, which is as well.
            Either::Right((read, _)) => read,
            Either::Left((cancelled, read)) => {
                cancelled?;
                if two_steps {
                    return read.await;
                }
                let aborted = || Err(Failure::new(Outcome::Aborted, "cancelled by the user"));
                tokio::time::timeout(AFTER_CANCEL, read).await.unwrap_or_else(|_| aborted())
            }
        }
    }

    /// Cancels a turn as a browser does: `beside` its stream with HTTP/2, else on a connection of its own. A turn that
    /// has ended meanwhile is not there any more, which is as well.
    async fn cancel(
        &self,
        session: &Session,
        beside: Option<HttpConnection>,
        id: &str,
        two_steps: bool,
    ) -> Result<(), Failure> {
        let now = crate::clock::monotonic();
        let mut visit = Turn::new(now, now);
        let mut exchange = Exchange::new(&self.limits, &mut visit, Live::nobody());
        let key = if two_steps { "streamId" } else { "abortKey" };
        let wish = json!({ key: id });
        match self.post(beside, &session.headers, "/api/agents/chat/abort", &wish, &mut exchange).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.outcome, Outcome::HttpClient(404 | 409)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

impl Session {
    /// Takes new tokens.
    fn hold(&mut self, tokens: Tokens) {
        if let Some(bearer) = &tokens.bearer
            && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", bearer.expose()))
        {
            value.set_sensitive(true);
            self.headers.insert(header::AUTHORIZATION, value);
        }
        self.tokens = tokens;
    }

    fn begin_anew(&mut self) {
        self.conversation = None;
        NO_PARENT.clone_into(&mut self.parent);
    }
}

/// What a turn that came to its `final` was.
fn verdict(reply: &Reply, prompt: &Prompt) -> Result<Outcome, Failure> {
    let Some(ending) = &reply.ending else { return Ok(Outcome::Completed) };
    match (&ending.error, ending.aborted) {
        (Some(error), _) => Err(Failure::new(Outcome::ErrorEvent, error.clone())),
        (None, true) if prompt.cancels() => Ok(Outcome::Aborted),
        (None, true) => Err(Failure::new(Outcome::ErrorEvent, "cancelled, but not by this user")),
        (None, false) => Ok(Outcome::Completed),
    }
}
