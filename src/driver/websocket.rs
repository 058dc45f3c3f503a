//! A chat over WebSocket (RFC 6455) whose messages a scenario describes: a socket a user or a socket a turn.
//!
//! | what comes | outcome |
//! |---|---|
//! | the message that ends a turn | `Completed` |
//! | the message that says of an error / of too many | `ErrorEvent` / `RateLimited` |
//! | no connection | `ConnectRefused`, `ConnectTimeout`, `Dns`, `Tls` |
//! | no answer to the upgrade, or not the message that is waited for, within the connect timeout | `ConnectTimeout` |
//! | 429 / 401, 403 / other 4xx / 5xx instead of 101 | `RateLimited` / `Unauthorized` / `HttpClient` / `HttpServer` |
//! | another status, or broken HTTP | `Protocol` |
//! | an upgrade with another subprotocol than those offered, or that is none | `Protocol` |
//! | a close frame with 1013, "try again later" | `RateLimited` |
//! | another close frame, 1008 ("policy") among them, or the end without one | `Truncated` |
//! | a reset connection | `Reset` |
//! | a frame or message against the protocol, or larger than the limit | `Protocol` |
//! | no pong in time | `Stalled` |
//! | no message but heartbeats for the stall limit / longer than the turn limit | `Stalled` / `TimedOut` |
//! | cancelled by the user; the connection lost by the user, with nothing to take the turn up again | `Aborted` |
//!
//! A close frame says why in a code and not who may come in, so 1008 is not `Unauthorized`; the detail has the code.
//!
//! A turn whose socket breaks is taken up again on another one where the scenario says how, at most three times: a
//! client that is told 1000 or 1008 does not come back. A page that is loaded again in the middle of a turn is, here,
//! a connection that is lost: what else a page loads is not part of this protocol.
//!
//! A message is one token if it has text where the scenario says; how often the other side pings, and what its
//! heartbeats are, is no sign that the reply goes on.

mod open;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;
use url::Url;

use super::described::backoff::Backoff;
use super::described::line::{GOING_AWAY, Line, NORMAL, was_closing};
use super::described::reading::{Lost, Reading};
use super::described::request::Deployment;
use super::described::rules::Listener;
use super::described::site::User;
use super::exchange::{Exchange, Failure, HeaderError};
use super::stream::{Pause, Stop};
use super::{Limits, Live, Prompt};
use crate::account::Credentials;
use crate::clock;
use crate::net::Endpoint;
use crate::record::{Outcome, Turn};
use crate::scenario::{API_KEY, Disturbance, ReplyRules, Site, SocketPer, Template, WebSocketPlan};
use crate::secret::Secret;

/// How long a turn has for its end after it was cancelled.
const AFTER_CANCEL: Duration = Duration::from_secs(2);
/// How often a turn is taken up again.
const RESUMES: u32 = 3;

/// A deployment that speaks WebSocket.
pub struct WebSocketChat {
    deployment: Deployment,
    /// Those of the requests that open a socket.
    headers: HeaderMap,
    plan: Box<WebSocketPlan>,
    rules: Arc<ReplyRules>,
    /// Whether a text wants the conversation so far.
    keeps_messages: bool,
}

impl fmt::Debug for WebSocketChat {
    /// Without the values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketChat").field("deployment", &self.deployment).finish_non_exhaustive()
    }
}

/// What one user keeps between turns.
pub struct Session {
    user: User,
    line: Option<Box<Line>>,
    backoff: Backoff,
}

impl Drop for Session {
    /// The user leaves, and says so.
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.close(GOING_AWAY);
        }
    }
}

impl WebSocketChat {
    /// A deployment at `base` (such as `https://chat.example/api`), with what all users' texts have in common, the
    /// accounts that users share in turn, and further headers.
    ///
    /// # Errors
    /// When a header cannot be sent.
    pub fn new(
        endpoint: Endpoint,
        base: &Url,
        plan: Box<WebSocketPlan>,
        common: Arc<BTreeMap<String, Value>>,
        accounts: Vec<Credentials>,
        extra: &[(String, Secret)],
        limits: Limits,
    ) -> Result<Self, HeaderError> {
        let deployment = Deployment::new(endpoint, base, common, accounts, extra, limits)?;
        let headers = deployment.socket_headers(base, extra, wants(&plan, API_KEY))?;
        let (rules, keeps_messages) = (Arc::new(plan.reply.clone()), wants(&plan, "messages"));
        Ok(Self { deployment, headers, rules, keeps_messages, plan })
    }

    /// The same with what its client does besides turns.
    #[must_use]
    pub fn with_site(mut self, site: Site) -> Self {
        self.deployment = self.deployment.with_site(site);
        self
    }

    /// The session of user number `user`.
    pub(super) fn session(&self, user: u32) -> Session {
        let user = self.deployment.user(user, self.keeps_messages);
        Session { user, line: None, backoff: Backoff::default() }
    }

    /// What must not be shown of what this session is told.
    fn secrets_of(&self, session: &Session) -> Vec<Secret> {
        self.deployment.secrets_of(&session.user)
    }

    /// Speaks one turn; see [`super::Driver::turn`].
    pub(super) async fn turn(&self, session: &mut Session, prompt: &Prompt, turn: &mut Turn, live: Live<'_>) {
        session.user.values.begin_turn(prompt);
        let beat = self.plan.heartbeat_reply.as_ref().map(|reply| session.user.values.fill(reply));
        let mut reading = Reading::new(Listener::new(&self.rules, prompt, self.keeps_messages), beat);
        let mut exchange = Exchange::new(&self.deployment.limits, turn, live);
        let ended = self.exchange(session, prompt, &mut reading, &mut exchange).await;
        let secrets = self.secrets_of(session);
        reading.settle(ended, &mut session.user.values, turn, &secrets);
    }

    /// Sends the message and reads the reply to its end. The socket goes back to the session only if that came.
    async fn exchange(
        &self,
        session: &mut Session,
        prompt: &Prompt,
        reading: &mut Reading,
        exchange: &mut Exchange<'_>,
    ) -> Result<Outcome, Failure> {
        let message = session.user.values.fill(&self.plan.message);
        let kept = session.line.take().and_then(|line| self.usable(session, line));
        let mut may_be_closing = kept.is_some();
        let mut line = match kept {
            Some(line) => line,
            None => self.connect(session, exchange).await?,
        };
        self.ask(&mut line, &message, exchange).await?;
        let mut pause = Pause::of(prompt.disturb, exchange.turn.sent.unwrap_or(exchange.turn.started));
        loop {
            let failure: Failure = match reading.read(&mut *line, exchange, &mut pause).await {
                Ok(Stop::End) => {
                    self.keep(session, line);
                    return Ok(Outcome::Completed);
                }
                Ok(Stop::Pause) if prompt.cancels() => {
                    return self.cancel(session, line, reading, exchange).await;
                }
                Ok(Stop::Pause) => {
                    pause = Pause::never();
                    drop(line);
                    if prompt.disturb.is_some_and(|disturb| disturb.what == Disturbance::Reload) {
                        self.deployment.reload(&mut session.user, exchange).await?;
                    }
                    // Where nothing takes the turn up again, it was the user's doing that it is lost.
                    let outcome = if self.plan.resume.is_some() { Outcome::Truncated } else { Outcome::Aborted };
                    Failure::new(outcome, "the user lost the connection")
                }
                // The server closed the kept socket while we were writing, which is no failure of it.
                Err(Lost::Channel(broken))
                    if may_be_closing
                        && !reading.begun
                        && broken.is_leaving()
                        && was_closing(exchange.turn.sent, line.times().tcp) =>
                {
                    may_be_closing = false;
                    exchange.turn.retries += 1;
                    exchange.turn.sent = None;
                    line = self.connect(session, exchange).await?;
                    self.ask(&mut line, &message, exchange).await?;
                    continue;
                }
                // Without a word: who says goodbye has nothing to come back to.
                Err(Lost::Channel(broken)) if broken.is_resumable() => {
                    drop(line);
                    broken.into()
                }
                Err(lost) => {
                    line.close(NORMAL);
                    return Err(lost.into());
                }
            };
            line = self.resume(session, failure, reading, exchange).await?;
        }
    }

    /// Sends the turn's message.
    async fn ask(&self, line: &mut Line, message: &str, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        exchange.turn.wire = Some(line.wire());
        exchange.turn.sent = exchange.wait(line.send(message)).await?;
        Ok(())
    }

    /// Takes a turn up again whose socket broke with `failure`, which stands where that is in vain.
    async fn resume(
        &self,
        session: &mut Session,
        mut failure: Failure,
        reading: &mut Reading,
        exchange: &mut Exchange<'_>,
    ) -> Result<Box<Line>, Failure> {
        let Some(resume) = &self.plan.resume else { return Err(failure) };
        reading.reconnect();
        session.backoff.fail(self.plan.reconnect);
        while exchange.turn.resumes < RESUMES {
            exchange.turn.resumes += 1;
            match self.connect(session, exchange).await {
                Ok(mut line) => {
                    reading.listener.give(&mut session.user.values);
                    session.user.values.received(reading.tokens(exchange.turn));
                    exchange.wait(line.send(&session.user.values.fill(resume))).await?;
                    return Ok(line);
                }
                Err(again) => {
                    failure.detail = format!("{}; resumed in vain: {}", failure.detail, again.detail);
                    let gone = [Outcome::TimedOut, Outcome::Unauthorized].contains(&again.outcome);
                    if gone || matches!(again.outcome, Outcome::HttpClient(_)) {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    /// Cancels the turn and reads on to its end. Where that does not come, the socket is closed; so it is where the
    /// turn came to its usual end while the cancel was on its way, whose answer would end the next one.
    async fn cancel(
        &self,
        session: &mut Session,
        mut line: Box<Line>,
        reading: &mut Reading,
        exchange: &mut Exchange<'_>,
    ) -> Result<Outcome, Failure> {
        let aborted = Failure::new(Outcome::Aborted, "cancelled by the user");
        let Some(cancel) = &self.plan.cancel else {
            line.close(NORMAL);
            return Err(aborted);
        };
        reading.listener.give(&mut session.user.values);
        line.say(&session.user.values.fill(cancel));
        let (began, mut on) = (clock::monotonic(), Pause::never());
        let read = tokio::time::timeout(AFTER_CANCEL, reading.read(&mut *line, exchange, &mut on)).await;
        let ended = match read {
            Ok(Ok(_)) if !reading.listener.ended_as_usual => {
                self.keep(session, line);
                Ok(Outcome::Aborted)
            }
            Ok(Ok(_)) => {
                line.close(NORMAL);
                Ok(Outcome::Aborted)
            }
            Ok(Err(lost)) => {
                line.close(NORMAL);
                let failure = Failure::from(lost);
                let against = matches!(failure.outcome, Outcome::Protocol);
                Err(if against { failure } else { aborted })
            }
            Err(_) => {
                line.close(NORMAL);
                Err(aborted)
            }
        };
        exchange.tell_cancel(began, &ended);
        ended
    }

    /// A turn has ended in order.
    fn keep(&self, session: &mut Session, line: Box<Line>) {
        match self.plan.socket {
            SocketPer::User => session.line = Some(line),
            SocketPer::Turn => line.close(NORMAL),
        }
    }
}

/// Whether a text of the plan has a place of this name.
fn wants(plan: &WebSocketPlan, place: &str) -> bool {
    let single = [Some(&plan.path), Some(&plan.message), plan.cancel.as_ref(), plan.resume.as_ref()];
    let texts = single.into_iter().flatten().chain(&plan.open).chain(&plan.heartbeat_reply);
    let texts = texts.chain(plan.headers.iter().map(|(_, text)| text));
    texts.flat_map(Template::names).any(|name| name == place)
}
