//! A chat over Socket.IO 3 or 4 whose events a scenario describes: Socket.IO protocol 5 over Engine.IO protocol 4, as
//! the socket.io project's `socket.io-protocol` and `engine.io-protocol` have them, and its client does it.
//!
//! | what comes | outcome |
//! |---|---|
//! | the event that ends a turn | `Completed` |
//! | the event that says of an error / of too many | `ErrorEvent` / `RateLimited` |
//! | no connection | `ConnectRefused`, `ConnectTimeout`, `Dns`, `Tls` |
//! | no handshake, or no answer of the namespace, within the connect timeout | `ConnectTimeout` |
//! | the namespace refuses: code 401 or 403, or words for it / anything else | `Unauthorized` / `ErrorEvent` |
//! | another status than 101 or 200: 429 / 401, 403 / other 4xx / 5xx / other | `RateLimited` / `Unauthorized` / `HttpClient` / `HttpServer` / `Protocol` |
//! | 400 for a session that the server does not have: no sticky sessions | `HttpClient` |
//! | a DISCONNECT packet, a close packet or frame, the end without one | `Truncated` |
//! | a reset connection | `Reset` |
//! | a packet or frame against the protocol, or larger than the limit | `Protocol` |
//! | no ping of the server within its interval and timeout | `Stalled` |
//! | no event for the stall limit / longer than the turn limit | `Stalled` / `TimedOut` |
//! | cancelled by the user; the connection lost by the user | `Aborted` |
//!
//! With `transport = "polling"` a user begins as browsers do: polls, is taken into the namespace, and goes over to a
//! WebSocket. Where the server does not offer that, or something on the way refuses it, he goes on polling. What a
//! server or a load balancer sets as cookies is sent again, which is how it keeps a session's requests together.
//!
//! Nothing takes a turn up again whose connection breaks: Socket.IO sends events at most once.

mod link;
mod open;
mod packet;
mod polls;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;
use url::Url;

use self::link::{Broken, Link};
use super::described::backoff::Backoff;
use super::described::cookies::Jar;
use super::described::line::was_closing;
use super::described::reading::{Lost, Reading};
use super::described::request::Deployment;
use super::described::rules::Listener;
use super::described::site::{User, spelled};
use super::exchange::{Exchange, Failure, HeaderError};
use super::stream::{Pause, Stop};
use super::{Limits, Live, Prompt};
use crate::account::Credentials;
use crate::clock;
use crate::net::Endpoint;
use crate::record::{Outcome, Turn};
use crate::scenario::{API_KEY, ReplyRules, Site, SocketIoPlan, Template};
use crate::secret::Secret;

/// How long a turn has for its end after it was cancelled.
const AFTER_CANCEL: Duration = Duration::from_secs(2);

/// A deployment that speaks Socket.IO.
pub struct SocketIo {
    deployment: Deployment,
    /// Those of the requests that open a socket.
    headers: HeaderMap,
    plan: Box<SocketIoPlan>,
    rules: Arc<ReplyRules>,
    /// Whether a text wants the conversation so far.
    keeps_messages: bool,
}

impl fmt::Debug for SocketIo {
    /// Without the values, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIo").field("deployment", &self.deployment).finish_non_exhaustive()
    }
}

/// What one user keeps between turns.
pub struct Session {
    user: User,
    link: Option<Box<Link>>,
    jar: Rc<RefCell<Jar>>,
    backoff: Backoff,
}

impl Drop for Session {
    /// The user leaves, and says so.
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.close();
        }
    }
}

impl SocketIo {
    /// A deployment at `base` (such as `https://chat.example`), with what all users' texts have in common, the
    /// accounts that users share in turn, and further headers.
    ///
    /// # Errors
    /// When a header cannot be sent.
    pub fn new(
        endpoint: Endpoint,
        base: &Url,
        plan: Box<SocketIoPlan>,
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
        Session { user, link: None, jar: Rc::default(), backoff: Backoff::default() }
    }

    /// What must not be shown of what this session is told.
    fn secrets_of(&self, session: &Session) -> Vec<Secret> {
        let jar = session.jar.borrow();
        spelled(self.deployment.secrets_of(&session.user).into_iter().chain(jar.secrets().cloned()))
    }

    /// Speaks one turn; see [`super::Driver::turn`].
    pub(super) async fn turn(&self, session: &mut Session, prompt: &Prompt, turn: &mut Turn, live: Live<'_>) {
        session.user.values.begin_turn(prompt);
        let mut reading = Reading::new(Listener::new(&self.rules, prompt, self.keeps_messages), None);
        let mut exchange = Exchange::new(&self.deployment.limits, turn, live);
        let ended = self.exchange(session, prompt, &mut reading, &mut exchange).await;
        let secrets = self.secrets_of(session);
        reading.settle(ended, &mut session.user.values, turn, &secrets);
    }

    /// Sends the event and reads the reply to its end. The link goes back to the session only if that came.
    async fn exchange(
        &self,
        session: &mut Session,
        prompt: &Prompt,
        reading: &mut Reading,
        exchange: &mut Exchange<'_>,
    ) -> Result<Outcome, Failure> {
        let arguments = session.user.values.fill_json(&self.plan.arguments);
        let kept = session.link.take().and_then(Self::usable);
        let mut may_be_closing = kept.is_some();
        let mut link = match kept {
            Some(link) => link,
            None => self.connect(session, exchange).await?,
        };
        loop {
            self.ask(&mut link, arguments.clone(), exchange).await?;
            let mut pause = Pause::of(prompt.disturb, exchange.turn.sent.unwrap_or(exchange.turn.started));
            match reading.read(&mut *link, exchange, &mut pause).await {
                Ok(Stop::End) => {
                    session.link = Some(link);
                    return Ok(Outcome::Completed);
                }
                Ok(Stop::Pause) if prompt.cancels() => return self.cancel(session, link, reading, exchange).await,
                // The socket is gone without a word.
                Ok(Stop::Pause) => return Err(Failure::new(Outcome::Aborted, "the user lost the connection")),
                // The server closed the kept socket while we were writing, which is no failure of it.
                Err(Lost::Channel(broken))
                    if may_be_closing
                        && !reading.begun
                        && !link.was_said_again()
                        && broken.is_leaving()
                        && was_closing(exchange.turn.sent, link.tcp()) =>
                {
                    link.close_after(&broken);
                    may_be_closing = false;
                    exchange.turn.retries += 1;
                    exchange.turn.sent = None;
                    link = self.connect(session, exchange).await?;
                }
                Err(lost) => {
                    give_up(*link, &lost);
                    session.backoff.fail(self.plan.reconnect);
                    return Err(lost.into());
                }
            }
        }
    }

    /// Sends the turn's event.
    async fn ask(&self, link: &mut Link, arguments: Value, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        exchange.turn.wire = Some(link.wire());
        let sent = exchange.wait(link.emit(&self.plan.event, arguments, self.plan.acknowledge)).await?;
        exchange.turn.sent = sent.at;
        if let Some(times) = sent.times {
            exchange.turn.connect.get_or_insert(times.tcp);
            exchange.turn.tls = exchange.turn.tls.or(times.tls);
        }
        Ok(())
    }

    /// Cancels the turn and reads on to its end. Where that does not come, the link is closed; so it is where the turn
    /// came to its usual end while the cancel was on its way, whose answer would end the next one.
    async fn cancel(
        &self,
        session: &mut Session,
        mut link: Box<Link>,
        reading: &mut Reading,
        exchange: &mut Exchange<'_>,
    ) -> Result<Outcome, Failure> {
        let aborted = Failure::new(Outcome::Aborted, "cancelled by the user");
        let Some((event, arguments)) = &self.plan.cancel else {
            link.close();
            return Err(aborted);
        };
        reading.listener.give(&mut session.user.values);
        link.emit_soon(event, session.user.values.fill_json(arguments));
        let (began, mut on) = (clock::monotonic(), Pause::never());
        let read = tokio::time::timeout(AFTER_CANCEL, reading.read(&mut *link, exchange, &mut on)).await;
        let ended = match read {
            Ok(Ok(_)) if !reading.listener.ended_as_usual => {
                session.link = Some(link);
                Ok(Outcome::Aborted)
            }
            Ok(Ok(_)) => {
                link.close();
                Ok(Outcome::Aborted)
            }
            Ok(Err(lost)) => {
                give_up(*link, &lost);
                let failure = Failure::from(lost);
                Err(if failure.outcome == Outcome::Protocol { failure } else { aborted })
            }
            Err(_) => {
                link.close();
                Err(aborted)
            }
        };
        exchange.tell_cancel(began, &ended);
        ended
    }
}

/// Closes the link of a reply that is given up.
fn give_up(link: Link, lost: &Lost<Broken>) {
    match lost {
        Lost::Channel(broken) => link.close_after(broken),
        Lost::Turn(_) => link.close(),
    }
}

/// Whether a text of the plan has a place of this name.
fn wants(plan: &SocketIoPlan, place: &str) -> bool {
    let cancel = plan.cancel.as_ref().map(|(_, arguments)| arguments);
    let texts = [Some(&plan.arguments), plan.auth.as_ref(), cancel].into_iter().flatten();
    let texts = texts.chain(plan.headers.iter().map(|(_, text)| text));
    texts.flat_map(Template::names).any(|name| name == place)
}
