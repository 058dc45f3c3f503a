//! From nothing to a socket on which turns can be spoken, and what happens on it between them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use serde_json::Value;

use super::{Session, WebSocketChat};
use crate::clock;
use crate::driver::described::line::{Broken, GOING_AWAY, Line};
use crate::driver::described::reading::Channel;
use crate::driver::described::rules::meets;
use crate::driver::described::values::{Scope, Values};
use crate::driver::exchange::{Exchange, Failure, uri};
use crate::driver::{Act, Live};
use crate::net::Opening;
use crate::record::{Outcome, Turn};
use crate::scenario::{Condition, SocketPer};

impl WebSocketChat {
    /// Does something besides turns, into `visit`. False where there is nothing to do for it.
    pub(in crate::driver) async fn act(&self, act: Act, session: &mut Session, visit: &mut Turn) -> bool {
        match act {
            Act::Login => self.deployment.login(&mut session.user, visit).await,
            Act::History => self.deployment.history(&mut session.user, visit).await,
            Act::Page => {
                let loaded = self.deployment.page(&mut session.user, visit).await;
                if loaded && visit.outcome != Outcome::Completed {
                    return true;
                }
                self.arrive(session, visit).await || loaded
            }
            Act::Leave => {
                if let Some(line) = session.line.take() {
                    line.close(GOING_AWAY);
                }
                self.deployment.leave(&mut session.user, visit).await
            }
        }
    }

    /// The user comes: opens the socket, into `visit`. False where each turn opens its own.
    async fn arrive(&self, session: &mut Session, visit: &mut Turn) -> bool {
        if self.plan.socket == SocketPer::Turn {
            return false;
        }
        if let Some(line) = session.line.take() {
            line.close(GOING_AWAY);
        }
        let mut exchange = Exchange::new(&self.deployment.limits, visit, Live::nobody());
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
            let Err(_) = self.listen(&session.user.values, line, |_| None::<Infallible>).await;
            session.line = None;
        }
        std::future::pending().await
    }

    /// A kept socket, if it is still one. Looks at it, does not wait.
    pub(super) fn usable(&self, session: &Session, mut line: Box<Line>) -> Option<Box<Line>> {
        let is_open = {
            let listening = pin!(self.listen(&session.user.values, &mut line, |_| None::<Infallible>));
            listening.poll(&mut Context::from_waker(Waker::noop())).is_pending()
        };
        is_open.then_some(line)
    }

    /// Opens a socket, after the pause that earlier failures ask for. Before the turn's message is sent, all of it is
    /// the part of the turn in which the user is let in. Who is refused is let in again, once.
    pub(super) async fn connect(
        &self,
        session: &mut Session,
        exchange: &mut Exchange<'_>,
    ) -> Result<Box<Line>, Failure> {
        self.deployment.keep_in(&mut session.user, exchange).await?;
        let (began, before) = (clock::monotonic(), exchange.turn.renewal);
        let pause = session.backoff.left();
        if !pause.is_zero() {
            exchange.within(pause, std::future::pending::<()>()).await?;
        }
        // Boxed: opening is rare, and its state would lie in every open turn otherwise.
        let mut opened = Box::pin(self.open(&mut session.user.values, exchange)).await;
        let is_refused = matches!(&opened, Err(failure) if failure.outcome == Outcome::Unauthorized);
        if is_refused && self.deployment.renews() {
            opened = match Box::pin(self.deployment.renew(&mut session.user, exchange)).await {
                Ok(()) => Box::pin(self.open(&mut session.user.values, exchange)).await,
                Err(failure) => Err(failure),
            };
        }
        match &opened {
            Err(_) => session.backoff.fail(self.plan.reconnect),
            Ok(line) => {
                session.backoff.succeed();
                // A renewal on the way is within the time from the beginning.
                exchange.turn.renewal = before;
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
        let headers = values.fill_headers(&self.headers, &self.plan.headers)?;
        let opening = Opening {
            uri: uri(&format!("{}{}", self.deployment.prefix, values.fill_path(&self.plan.path)))?,
            headers: &headers,
            subprotocols: &self.plan.subprotocols,
            deflate: self.plan.deflate,
            message_limit: self.plan.message_limit,
        };
        let mut line =
            Line::open(&self.deployment.endpoint, &opening, self.deployment.limits.connect, self.plan.ping, exchange)
                .await?;
        self.greet(values, &mut line, exchange).await?;
        Ok(line)
    }

    /// Says the first messages and waits for the answer to them.
    async fn greet(&self, values: &mut Values, line: &mut Line, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        for text in &self.plan.open {
            line.say(&values.fill(text));
        }
        let Some(opened) = &self.plan.opened else {
            return exchange.wait(line.flush()).await;
        };
        let limit = self.deployment.limits.connect;
        let listening = self.listen(values, line, |text| self.greeting(opened, text));
        let Some(heard) = exchange.within(limit, listening).await? else {
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
                let polled = line.poll(cx, |message, _, _| {
                    let text = message.text();
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
