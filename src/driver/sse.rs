//! A chat over HTTP that a scenario describes: one request that answers with the stream, or two, of which the second
//! one does.
//!
//! | what comes | outcome |
//! |---|---|
//! | the message that ends it, or the body's end where that is the end | `Completed` |
//! | the message that says so / 429 | `RateLimited` |
//! | the message of an error | `ErrorEvent` |
//! | 401 or 403, after one more login where there is one | `Unauthorized` |
//! | another 4xx / 5xx | `HttpClient` / `HttpServer` |
//! | another status or content type, an answer without what later texts want | `Protocol` |
//! | the end before that / a reset connection, and no resume | `Truncated` / `Reset` |
//! | cancelled by the user; left by the user, with nothing there any more to take up again | `Aborted` |
//! | nothing for the stall limit / longer than the turn limit | `Stalled` / `TimedOut` |
//!
//! A stream that breaks off is asked for again with `Last-Event-ID`, as `EventSource` does (HTML standard, 9.2.3):
//! after the time that the stream has set, at most three times in a turn. Whatever is answered but a stream ends that;
//! 204 says that there is no more to come.
//!
//! A turn that the user cancels is `Aborted`: where a request for it is described it is sent on a connection of its own
//! and the stream is read to its end, for two seconds; else the connection is closed. What goes wrong with the stream
//! before that request is answered is the turn's outcome; an end without its message, or what comes later, is what some
//! deployments have for a cancelled turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use http::{HeaderName, StatusCode, header};
use serde_json::Value;
use url::Url;

use super::described::request::{Deployment, Filled};
use super::described::rules::Listener;
use super::described::site::User;
use super::described::values::Scope;
use super::exchange::{Exchange, Failure, HeaderError, usable};
use super::stream::{Pause, Stop, Stream};
use super::{Limits, Live, Prompt};
use crate::account::Credentials;
use crate::clock;
use crate::net::{Endpoint, HttpConnection};
use crate::record::{Outcome, Turn};
use crate::scenario::{Disturbance, Framing, ReplyRules, RequestPlan, Resume, Site, SsePlan};
use crate::secret::Secret;

/// How often a turn's stream is taken up again.
const RESUMES: u32 = 3;
/// The pause before that where the stream has set none: Chromium's.
const RETRY: Duration = Duration::from_secs(3);
/// The longest pause that a stream may set.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How long a stream has for its end after it was cancelled.
const AFTER_CANCEL: Duration = Duration::from_secs(2);
/// The longest id that is sent back: some servers take no longer headers.
const LONGEST_ID: usize = 4 << 10;

/// A deployment that streams over HTTP.
#[derive(Debug)]
pub struct Sse {
    deployment: Deployment,
    plan: Box<SsePlan>,
    rules: Arc<ReplyRules>,
    /// Whether a text wants the conversation so far.
    keeps_messages: bool,
}

/// What one user keeps between turns.
pub struct Session {
    user: User,
}

impl Sse {
    /// A deployment at `base`, spoken to as `plan` says, with the values that are the same for everybody (`model`,
    /// `api_key` where there is a bearer key, and what `values_env` names), one account a user where there are
    /// accounts, and further headers. What its client does besides turns is said with [`Self::with_site`].
    ///
    /// # Errors
    /// When a header cannot be sent.
    pub fn new(
        endpoint: Endpoint,
        base: &Url,
        plan: SsePlan,
        common: Arc<BTreeMap<String, Value>>,
        accounts: Vec<Credentials>,
        extra: &[(String, Secret)],
        limits: Limits,
    ) -> Result<Self, HeaderError> {
        let deployment = Deployment::new(endpoint, base, common, accounts, extra, limits)?;
        let keeps_messages = plan.requests().flat_map(RequestPlan::names).any(|name| name == "messages");
        let rules = Arc::new(plan.reply.clone());
        Ok(Self { deployment, plan: Box::new(plan), rules, keeps_messages })
    }

    /// The same with what its client does besides turns.
    #[must_use]
    pub fn with_site(mut self, site: Site) -> Self {
        self.deployment = self.deployment.with_site(site);
        self
    }

    /// The session of user number `user`.
    pub(super) fn session(&self, user: u32) -> Session {
        Session { user: self.deployment.user(user, self.keeps_messages) }
    }

    /// Lets the user in, into `visit`. False where the site has no login.
    pub(super) async fn login(&self, session: &mut Session, visit: &mut Turn) -> bool {
        self.deployment.login(&mut session.user, visit).await
    }

    /// Loads the page, likewise.
    pub(super) async fn page(&self, session: &mut Session, visit: &mut Turn) -> bool {
        self.deployment.page(&mut session.user, visit).await
    }

    /// Reads the history, likewise.
    pub(super) async fn history(&self, session: &mut Session, visit: &mut Turn) -> bool {
        self.deployment.history(&mut session.user, visit).await
    }

    /// The user leaves, likewise; who comes again is let in again.
    pub(super) async fn leave(&self, session: &mut Session, visit: &mut Turn) -> bool {
        self.deployment.leave(&mut session.user, visit).await
    }

    /// Speaks one turn; see [`super::Driver::turn`].
    pub(super) async fn turn(&self, session: &mut Session, prompt: &Prompt, turn: &mut Turn, live: Live<'_>) {
        let user = &mut session.user;
        user.values.begin_turn(prompt);
        let mut exchange = Exchange::new(&self.deployment.limits, turn, live);
        let listener = Listener::new(&self.rules, prompt, self.keeps_messages);
        let mut stream = Stream::framed(listener, self.plan.framing);
        let done = self.exchange(user, prompt, &mut stream, &mut exchange).await;
        let mut listener = stream.reader;
        let secrets = self.deployment.secrets_of(user);
        match done {
            Ok(connection) => {
                turn.outcome = Outcome::Completed;
                user.connection = connection;
                listener.give(&mut user.values);
                user.values.end_turn(listener.reply.take());
            }
            Err(failure) => {
                user.connection = failure.end(turn, &secrets);
                user.values.end_turn(None);
            }
        }
        turn.retry_after = listener.retry_after.map(clock::nanos).or(turn.retry_after);
        if let Some(check) = listener.check {
            turn.settle(check.finish(turn.outcome == Outcome::Completed, &secrets));
        }
    }

    /// Says it and reads the reply to its end.
    async fn exchange(
        &self,
        user: &mut User,
        prompt: &Prompt,
        stream: &mut Stream<Listener>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<HttpConnection>, Failure> {
        let mut connection = self.open(user, exchange).await?;
        let mut pause = Pause::of(prompt.disturb, exchange.turn.sent.unwrap_or(exchange.turn.started));
        loop {
            let mut reloads = false;
            let failure = match stream.read(&mut connection, exchange, &mut pause).await {
                Ok(Stop::End) => break,
                Ok(Stop::Pause) if prompt.cancels() => {
                    return Err(self.cancel(user, stream, connection, exchange).await);
                }
                Ok(Stop::Pause) => {
                    pause = Pause::never();
                    reloads = prompt.disturb.is_some_and(|disturb| disturb.what == Disturbance::Reload);
                    // Where nothing takes the turn up again, it was the user's doing that it is lost.
                    Failure::new(Outcome::Aborted, "the user left the stream")
                }
                Err(failure) if matches!(failure.outcome, Outcome::Truncated | Outcome::Reset) => failure,
                Err(failure) => return Err(failure),
            };
            drop(connection);
            if reloads {
                self.deployment.reload(user, exchange).await?;
            }
            connection = self.resume(user, stream, failure, !reloads, exchange).await?;
            stream.reconnect();
        }
        stream.finish(&mut connection, exchange).await?;
        Ok(usable(connection))
    }

    /// Opens the turn's stream; who is refused is let in again, once, and sends again what was refused and nothing
    /// before it: what was said would be said twice.
    async fn open(&self, user: &mut User, exchange: &mut Exchange<'_>) -> Result<HttpConnection, Failure> {
        self.deployment.keep_in(user, exchange).await?;
        let mut renews = self.deployment.renews();
        if self.plan.stream.is_some() {
            while let Err(failure) = self.post(user, exchange).await {
                self.let_in_again(failure, &mut renews, user, exchange).await?;
            }
        }
        // What a renewal takes after the message is on its way is no lag before it.
        let (posted, before) = (self.plan.stream.is_some(), exchange.turn.renewal);
        loop {
            match self.begin(user, exchange).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => self.let_in_again(failure, &mut renews, user, exchange).await?,
            }
            if posted {
                exchange.turn.renewal = before;
            }
        }
    }

    /// Lets the user in again who was refused with `failure`, which stands where that is in vain or was done already.
    async fn let_in_again(
        &self,
        failure: Failure,
        renews: &mut bool,
        user: &mut User,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        if failure.outcome != Outcome::Unauthorized || !std::mem::take(renews) {
            return Err(failure);
        }
        user.connection = failure.connection.map(|connection| *connection);
        // Boxed: it is rare, and its state would lie in every turn otherwise.
        Box::pin(self.deployment.renew(user, exchange)).await
    }

    /// Sends the first of two requests, and keeps what its answer brings.
    async fn post(&self, user: &mut User, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        let first = self.deployment.fill(&self.plan.request, &user.values)?;
        exchange.opening = true;
        let asked = self.deployment.ask(user.connection.take(), &first, exchange).await;
        exchange.opening = false;
        let (connection, brought) = asked?;
        user.connection = connection;
        brought.keep(Scope::Conversation, &self.plan.request, &mut user.values)
    }

    /// Sends the request that opens the stream.
    async fn begin(&self, user: &mut User, exchange: &mut Exchange<'_>) -> Result<HttpConnection, Failure> {
        let request = self.deployment.fill(self.plan.streaming(), &user.values)?;
        exchange.opening = self.plan.stream.is_none();
        let subscribed = self.subscribe(user, &request, exchange).await;
        exchange.opening = false;
        subscribed?.ok_or_else(|| Failure::new(Outcome::Protocol, "204 No Content instead of a stream"))
    }

    /// Sends the request whose answer is the stream. `None`: there is nothing to be read (204).
    async fn subscribe(
        &self,
        user: &mut User,
        request: &Filled<'_>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<HttpConnection>, Failure> {
        let (mut connection, response) = self.deployment.call(user.connection.take(), request, exchange).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase()).unwrap_or_default();
        let fits = match self.plan.framing {
            Framing::Sse => kind.starts_with("text/event-stream"),
            Framing::Lines => !kind.starts_with("text/html"),
        };
        if fits {
            return Ok(Some(connection));
        }
        let text = exchange.read_error(&mut connection).await?;
        let kind = if kind.is_empty() { "none" } else { kind.as_str() };
        Err(Failure::new(Outcome::Protocol, format!("content type {kind} instead of a stream: {text}")))
    }

    /// Takes a stream up again that broke off with `failure`, which stands where that is in vain; where the user broke
    /// it off, so does what goes wrong with the target then.
    async fn resume(
        &self,
        user: &mut User,
        stream: &Stream<Listener>,
        mut failure: Failure,
        waits: bool,
        exchange: &mut Exchange<'_>,
    ) -> Result<HttpConnection, Failure> {
        let (id, is_own) = (stream.last_id(), failure.outcome == Outcome::Aborted);
        let allowed = match self.plan.resume {
            Resume::Never => false,
            Resume::WithId => !id.is_empty() || exchange.turn.tokens == 0,
            Resume::Always => true,
        };
        if !allowed || id.len() > LONGEST_ID {
            return Err(failure);
        }
        let values = stream.reader.lent(&user.values);
        let mut request = self.deployment.fill(self.plan.streaming(), &values)?;
        if !id.is_empty() {
            request.set(&HeaderName::from_static("last-event-id"), id)?;
        }
        let retry = stream.retry().unwrap_or(RETRY).min(LONGEST_RETRY);
        let mut pause = if waits { retry } else { Duration::ZERO };
        while exchange.turn.resumes < RESUMES {
            // Our own pause is no silence of the target.
            tokio::time::sleep(pause).await;
            exchange.watchdog.sign(clock::monotonic());
            exchange.turn.resumes += 1;
            let again = match self.subscribe(user, &request, exchange).await {
                Ok(Some(connection)) => return Ok(connection),
                Ok(None) => {
                    let detail = format!("{}; then 204 No Content", failure.detail);
                    let outcome = if is_own { Outcome::Aborted } else { Outcome::Truncated };
                    return Err(Failure::new(outcome, detail));
                }
                Err(again) => again,
            };
            if is_own {
                let is_gone = matches!(again.outcome, Outcome::HttpClient(404 | 410));
                failure.outcome = if is_gone { Outcome::Aborted } else { again.outcome };
            }
            failure.detail = format!("{}; resumed in vain: {}", failure.detail, again.detail);
            if !is_of_the_network(&again) {
                break;
            }
            pause = retry;
        }
        Err(failure)
    }

    /// Cancels the turn; gives the outcome that it then has.
    async fn cancel(
        &self,
        user: &mut User,
        stream: &mut Stream<Listener>,
        mut connection: HttpConnection,
        exchange: &mut Exchange<'_>,
    ) -> Failure {
        let Some(plan) = &self.plan.cancel else { return cancelled() };
        let request = match self.deployment.fill(plan, &stream.reader.lent(&user.values)) {
            Ok(request) => request,
            Err(failure) => return failure,
        };
        let began = clock::monotonic();
        let read = self.read_cancelling(&request, stream, &mut connection, exchange).await;
        let ended = match read {
            Ok(true) => Ok(Outcome::Aborted),
            Ok(false) => Err(cancelled()),
            Err(failure) => Err(failure),
        };
        exchange.tell_cancel(began, &ended);
        if let Err(failure) = ended {
            return failure;
        }
        let mut aborted = cancelled();
        if stream.finish(&mut connection, exchange).await.is_ok() {
            stream.reader.give(&mut user.values);
            aborted.connection = usable(connection).map(Box::new);
        }
        aborted
    }

    /// Reads on while the turn is being cancelled. True where it came to its end in order.
    async fn read_cancelling(
        &self,
        request: &Filled<'_>,
        stream: &mut Stream<Listener>,
        connection: &mut HttpConnection,
        exchange: &mut Exchange<'_>,
    ) -> Result<bool, Failure> {
        let now = clock::monotonic();
        let mut visit = Turn::new(now, now);
        let mut aside = Exchange::new(&self.deployment.limits, &mut visit, Live::nobody());
        let mut on = Pause::never();
        let cancel = std::pin::pin!(self.deployment.ask(None, request, &mut aside));
        let read = std::pin::pin!(stream.read(connection, exchange, &mut on));
        let read = match select(cancel, read).await {
            // The turn ended before the cancel was answered, which is as well.
            Either::Right((Ok(stop), _)) => return Ok(stop == Stop::End),
            // Some deployments end a cancelled stream without the message for it.
            Either::Right((Err(failure), _)) if failure.outcome == Outcome::Truncated => return Ok(false),
            Either::Right((Err(failure), _)) => return Err(failure),
            Either::Left((Ok(_), read)) => read,
            // It had ended meanwhile, and is not there any more.
            Either::Left((Err(failure), read)) if matches!(failure.outcome, Outcome::HttpClient(404 | 409)) => read,
            Either::Left((Err(failure), _)) => return Err(failure),
        };
        // An error, or an end without the message for it, is what some deployments have for it.
        Ok(matches!(tokio::time::timeout(AFTER_CANCEL, read).await, Ok(Ok(Stop::End))))
    }
}

/// How a turn ends that its user has cancelled.
fn cancelled() -> Failure {
    Failure::new(Outcome::Aborted, "cancelled by the user")
}

/// Whether a request failed on its way, and not by what was answered.
fn is_of_the_network(failure: &Failure) -> bool {
    use Outcome::{ConnectRefused, ConnectTimeout, Dns, Reset, Tls, Truncated};
    matches!(failure.outcome, ConnectRefused | ConnectTimeout | Dns | Reset | Tls | Truncated)
}
