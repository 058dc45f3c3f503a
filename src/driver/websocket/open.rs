//! From nothing to a socket on which turns can be spoken, and what happens on it between them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::line::{Broken, Line};
use super::{Session, WebSocketChat};
use crate::clock::{self, Nanos};
use crate::driver::Live;
use crate::driver::described::rules::meets;
use crate::driver::described::values::{Scope, Values};
use crate::driver::exchange::{Exchange, Failure, silence, uri};
use crate::net::{Opening, WebSocket};
use crate::record::{Outcome, Turn};
use crate::scenario::{Condition, SocketPer};

/// What is granted beyond the connect timeout before an upgrade counts as not answered: TCP and TLS have the same
/// limit, and say so themselves when they pass it.
const UPGRADE: Duration = Duration::from_millis(250);
/// How many times the first pause the longest one is.
const LONGEST: u32 = 30;

/// The pauses before sockets are opened again: doubled for each failure after the other.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failed: u32,
    not_before: Nanos,
}

impl Backoff {
    /// An opening has failed, or a socket broke; `first` is the first pause.
    pub(super) fn fail(&mut self, first: Duration) {
        let times = 2_u32.saturating_pow(self.failed).min(LONGEST);
        self.failed = self.failed.saturating_add(1);
        self.not_before = clock::monotonic().saturating_add(clock::nanos(first.saturating_mul(times)));
    }

    fn succeed(&mut self) {
        *self = Self::default();
    }

    /// How long to wait from now on.
    fn left(&self) -> Duration {
        Duration::from_nanos((self.not_before - clock::monotonic()).max(0) as u64)
    }
}

impl WebSocketChat {
    /// The user comes: opens the socket, into `visit`. False where each turn opens its own.
    pub(in crate::driver) async fn arrive(&self, session: &mut Session, visit: &mut Turn) -> bool {
        if self.plan.socket == SocketPer::Turn {
            return false;
        }
        let mut exchange = Exchange::new(&self.limits, visit, Live::nobody());
        match self.connect(session, &mut exchange).await {
            Ok(line) => {
                session.line = Some(line);
                visit.outcome = Outcome::Completed;
                visit.ended = clock::monotonic();
                visit.released = visit.ended;
            }
            Err(failure) => drop(failure.end(visit, &self.secrets_of(session))),
        }
        true
    }

    /// Reads and answers what comes while the user thinks, until this future is dropped: what comes in between is
    /// nobody's. A socket that breaks is opened again by the next turn.
    pub(in crate::driver) async fn idle(&self, session: &mut Session) {
        if let Some(line) = &mut session.line {
            let Err(_) = self.listen(&session.values, line, |_| None::<Infallible>).await;
            session.line = None;
        }
        std::future::pending().await
    }

    /// A kept socket, if it is still one. Looks at it, does not wait.
    pub(super) fn usable(&self, session: &Session, mut line: Box<Line>) -> Option<Box<Line>> {
        let is_open = {
            let listening = pin!(self.listen(&session.values, &mut line, |_| None::<Infallible>));
            listening.poll(&mut Context::from_waker(Waker::noop())).is_pending()
        };
        is_open.then_some(line)
    }

    /// Opens a socket, after the pause that earlier failures ask for. Before the turn's message is sent, all of it is
    /// the part of the turn in which the user is let in.
    pub(super) async fn connect(
        &self,
        session: &mut Session,
        exchange: &mut Exchange<'_>,
    ) -> Result<Box<Line>, Failure> {
        let began = clock::monotonic();
        let pause = session.backoff.left();
        if !pause.is_zero() {
            within(exchange, pause, std::future::pending::<()>()).await?;
        }
        // Boxed: opening is rare, and its state would lie in every open turn otherwise.
        let opened = Box::pin(self.open(&mut session.values, exchange)).await;
        match &opened {
            Err(_) => session.backoff.fail(self.plan.reconnect),
            Ok(line) => {
                session.backoff.succeed();
                if exchange.turn.sent.is_none() {
                    let shown = line.times().tcp + line.times().tls.unwrap_or(0);
                    exchange.turn.renewal += (clock::monotonic() - began - shown).max(0);
                }
            }
        }
        opened
    }

    /// Opens a socket: the upgrade, the first messages, and what is waited for.
    async fn open(&self, values: &mut Values, exchange: &mut Exchange<'_>) -> Result<Box<Line>, Failure> {
        let headers = self.headers_for(values)?;
        let opening = Opening {
            uri: uri(&format!("{}{}", self.prefix, values.fill_path(&self.plan.path)))?,
            headers: &headers,
            subprotocols: &self.plan.subprotocols,
            deflate: self.plan.deflate,
            message_limit: self.plan.message_limit,
        };
        let limit = self.limits.connect;
        let opened = within(exchange, limit + UPGRADE, WebSocket::open(&self.endpoint, &opening)).await?;
        let socket = opened.ok_or_else(|| {
            let detail = format!("connected, but the upgrade was not answered within {} s", limit.as_secs_f64());
            Failure::new(Outcome::ConnectTimeout, detail)
        })??;
        let mut line = Box::new(Line::new(socket, self.plan.ping));
        exchange.turn.connect.get_or_insert(line.times().tcp);
        exchange.turn.tls = exchange.turn.tls.or(line.times().tls);
        self.greet(values, &mut line, exchange).await?;
        Ok(line)
    }

    fn headers_for(&self, values: &Values) -> Result<HeaderMap, Failure> {
        let mut headers = self.headers.clone();
        for (name, text) in &self.plan.headers {
            let Ok(mut value) = HeaderValue::from_str(&values.fill(text)) else {
                let detail = format!("the header `{name}` has a value that cannot be sent");
                return Err(Failure::new(Outcome::Protocol, detail));
            };
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }

    /// Says the first messages and waits for the answer to them.
    async fn greet(&self, values: &mut Values, line: &mut Line, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        for text in &self.plan.open {
            line.say(&values.fill(text));
        }
        let Some(opened) = &self.plan.opened else {
            return exchange.wait(line.flush()).await;
        };
        let limit = self.limits.connect;
        let listening = self.listen(values, line, |text| self.greeting(opened, text));
        let Some(heard) = within(exchange, limit, listening).await? else {
            let detail = format!("open, but the message that is waited for did not come in {} s", limit.as_secs_f64());
            return Err(Failure::new(Outcome::ConnectTimeout, detail));
        };
        let json = heard??;
        for (name, pointer) in &self.plan.capture {
            if let Some(value) = json.pointer(pointer).filter(|value| !value.is_null()) {
                values.keep(Scope::Visit, name, value.clone());
            }
        }
        Ok(())
    }

    /// What a message is to who waits for the one that opens the way.
    fn greeting(&self, opened: &Condition, text: &str) -> Option<Result<Value, Failure>> {
        if let Some(json) = meets(opened, "", text) {
            return Some(Ok(json));
        }
        let is = |condition: &Option<Condition>| {
            condition.as_ref().is_some_and(|condition| meets(condition, "", text).is_some())
        };
        let outcome = if is(&self.rules.rate_limited) {
            Outcome::RateLimited
        } else if is(&self.rules.error) {
            Outcome::ErrorEvent
        } else {
            return None;
        };
        Some(Err(Failure::new(outcome, text)))
    }

    /// Reads messages that belong to no turn, until `take` has what it wants; heartbeats are answered. What was read
    /// or said so far lies in the line, so this may be dropped at any time.
    async fn listen<T>(
        &self,
        values: &Values,
        line: &mut Line,
        mut take: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Broken> {
        poll_fn(|cx| {
            loop {
                let (mut found, mut beaten) = (None, false);
                let polled = line.poll(cx, |data, _, _| {
                    let text = std::str::from_utf8(data).unwrap_or_default();
                    beaten = self.rules.heartbeat.as_ref().is_some_and(|beat| meets(beat, "", text).is_some());
                    if !beaten {
                        found = take(text);
                    }
                    if beaten || found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                if let Some(reply) = self.plan.heartbeat_reply.as_ref().filter(|_| beaten) {
                    line.say(&values.fill(reply));
                }
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
}

/// Waits for something with a limit of its own in the place of that for silence; `None` when that is passed.
async fn within<T>(
    exchange: &mut Exchange<'_>,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Result<Option<T>, Failure> {
    let left = exchange.watchdog.left();
    let waited = tokio::time::timeout(limit.min(left), future).await;
    exchange.watchdog.sign(clock::monotonic());
    match waited {
        Ok(value) => Ok(Some(value)),
        Err(_) if left <= limit => Err(silence(Outcome::TimedOut)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_thirty_times_the_first() {
        let (mut backoff, first) = (Backoff::default(), Duration::from_secs(10));
        assert_eq!(backoff.left(), Duration::ZERO);
        for times in [1, 2, 4, 8, 16, 30, 30] {
            backoff.fail(first);
            let (left, whole) = (backoff.left(), first * times);
            assert!(left <= whole && left > whole - first / 2, "{left:?} of {whole:?}");
        }
        backoff.succeed();
        assert_eq!(backoff.left(), Duration::ZERO);
    }
}
