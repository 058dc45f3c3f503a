//! From nothing to a namespace in which turns can be spoken, and what happens there between them.

use std::cell::Cell;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::HeaderMap;
use serde_json::Value;

use super::link::{Broken, Link};
use super::packet::{Handshake, first_of};
use super::polls::{Polls, Sent, Way};
use super::{Session, SocketIo};
use crate::clock;
use crate::driver::described::line::{self, Line};
use crate::driver::described::reading::Channel;
use crate::driver::described::values::percent_encoded;
use crate::driver::exchange::{Exchange, Failure, uri};
use crate::driver::{Act, Live};
use crate::net::Opening;
use crate::record::{Outcome, Turn};
use crate::scenario::Transport;

impl SocketIo {
    /// Does something besides turns, into `visit`. False where there is nothing to do for it.
    pub(in crate::driver) async fn act(&self, act: Act, session: &mut Session, visit: &mut Turn) -> bool {
        match act {
            Act::Login => self.deployment.login(&mut session.user, visit).await,
            Act::History => self.deployment.history(&mut session.user, visit).await,
            Act::Page => {
                let loaded = self.deployment.page(&mut session.user, visit).await;
                if !loaded || visit.outcome == Outcome::Completed {
                    self.arrive(session, visit).await;
                }
                true
            }
            Act::Leave => {
                if let Some(link) = session.link.take() {
                    link.close();
                }
                self.deployment.leave(&mut session.user, visit).await
            }
        }
    }

    /// The user comes: connects, into `visit`.
    async fn arrive(&self, session: &mut Session, visit: &mut Turn) {
        if let Some(link) = session.link.take() {
            link.close();
        }
        let mut exchange = Exchange::new(&self.deployment.limits, visit, Live::nobody());
        match self.connect(session, &mut exchange).await {
            Ok(link) => {
                session.link = Some(link);
                visit.outcome = Outcome::Completed;
                visit.ended = clock::monotonic();
                visit.released = visit.ended;
            }
            Err(failure) => drop(failure.end(visit, &self.secrets_of(session))),
        }
    }

    /// Reads and answers what comes while the user thinks, until this future is dropped: what comes in between is
    /// nobody's. A link that breaks is opened again by the next turn.
    pub(in crate::driver) async fn idle(&self, session: &mut Session) {
        if let Some(link) = &mut session.link {
            let broken = link.rest().await;
            if let Some(link) = session.link.take() {
                link.close_after(&broken);
            }
        }
        std::future::pending().await
    }

    /// A kept link, if it is still one. Looks at it, does not wait.
    pub(super) fn usable(mut link: Box<Link>) -> Option<Box<Link>> {
        let Some(broken) = link.look() else { return Some(link) };
        link.close_after(&broken);
        None
    }

    /// Connects, after the pause that earlier failures ask for. Before the turn's event is sent, all of it is the
    /// part of the turn in which the user is let in. Who is refused is let in again, once.
    pub(super) async fn connect(
        &self,
        session: &mut Session,
        exchange: &mut Exchange<'_>,
    ) -> Result<Box<Link>, Failure> {
        self.deployment.keep_in(&mut session.user, exchange).await?;
        let (began, before) = (clock::monotonic(), exchange.turn.renewal);
        let pause = session.backoff.left();
        if !pause.is_zero() {
            exchange.within(pause, std::future::pending::<()>()).await?;
        }
        // Boxed: opening is rare, and its state would lie in every open turn otherwise.
        let mut opened = Box::pin(self.open(session, exchange)).await;
        let is_refused = matches!(&opened, Err(failure) if failure.outcome == Outcome::Unauthorized);
        if is_refused && self.deployment.renews() {
            opened = match Box::pin(self.deployment.renew(&mut session.user, exchange)).await {
                Ok(()) => Box::pin(self.open(session, exchange)).await,
                Err(failure) => Err(failure),
            };
        }
        match &opened {
            Err(_) => session.backoff.fail(self.plan.reconnect),
            Ok(_) => {
                session.backoff.succeed();
                let shown = exchange.turn.connect.unwrap_or(0) + exchange.turn.tls.unwrap_or(0);
                // A renewal on the way is within the time from the beginning.
                exchange.turn.renewal = before + (clock::monotonic() - began - shown).max(0);
            }
        }
        opened
    }

    /// Opens a session and has the namespace take the user in.
    async fn open(&self, session: &mut Session, exchange: &mut Exchange<'_>) -> Result<Box<Link>, Failure> {
        let headers = session.user.values.fill_headers(&self.headers, &self.plan.headers)?;
        match self.plan.transport {
            Transport::Websocket => {
                let (line, handshake) = self.open_socket(session, headers, exchange).await?;
                let (namespace, limit) = (&self.plan.namespace, self.plan.message_limit);
                let mut link = Box::new(Link::over_socket(line, &handshake, namespace, limit));
                self.join(session, &mut link, exchange).await?;
                Ok(link)
            }
            Transport::Polling => {
                let (mut link, handshake) = self.open_polls(session, headers.clone(), exchange).await?;
                self.join(session, &mut link, exchange).await?;
                if handshake.upgrades() {
                    Box::pin(self.upgrade(session, headers, &handshake.sid, &mut link, exchange)).await?;
                }
                Ok(link)
            }
        }
    }

    /// The path of requests by a transport, of a session where there is one.
    fn path(&self, transport: &str, sid: Option<&str>) -> String {
        let join = if self.plan.path.contains('?') { '&' } else { '?' };
        let sid = sid.map(|sid| format!("&sid={}", percent_encoded(sid))).unwrap_or_default();
        format!("{}{}{join}EIO=4&transport={transport}{sid}", self.deployment.prefix, self.plan.path)
    }

    /// Opens a WebSocket and waits for the handshake on it.
    async fn open_socket(
        &self,
        session: &Session,
        headers: HeaderMap,
        exchange: &mut Exchange<'_>,
    ) -> Result<(Box<Line>, Handshake), Failure> {
        let mut line = self.open_line(session, headers, None, exchange).await?;
        let limit = self.deployment.limits.connect;
        let packet = exchange.within(limit, first_text(&mut line)).await?.ok_or_else(|| {
            let detail = format!("a WebSocket is open, but no handshake came in {} s", limit.as_secs_f64());
            Failure::new(Outcome::ConnectTimeout, detail)
        })??;
        let handshake = Handshake::read(&packet).map_err(Broken::Malformed)?;
        Ok((line, handshake))
    }

    async fn open_line(
        &self,
        session: &Session,
        mut headers: HeaderMap,
        sid: Option<&str>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Box<Line>, Failure> {
        session.jar.borrow().add_to(&mut headers);
        let opening = Opening {
            uri: uri(&self.path("websocket", sid))?,
            headers: &headers,
            subprotocols: &[],
            deflate: self.plan.deflate,
            message_limit: self.plan.message_limit,
        };
        Line::open(&self.deployment.endpoint, &opening, self.deployment.limits.connect, None, exchange).await
    }

    /// Begins a session that is polled.
    async fn open_polls(
        &self,
        session: &Session,
        headers: HeaderMap,
        exchange: &mut Exchange<'_>,
    ) -> Result<(Box<Link>, Handshake), Failure> {
        let (endpoint, jar) = (Arc::clone(&self.deployment.endpoint), Rc::clone(&session.jar));
        let (uri_of_polls, patience) = (uri(&self.path("polling", None))?, self.deployment.limits.stall);
        let mut way = Way { endpoint, uri: uri_of_polls, headers, jar, patience };
        let limit = self.deployment.limits.connect;
        let sent: Rc<Cell<Sent>> = Rc::default();
        let begun = exchange.within(limit * 2, way.clone().begin(self.plan.message_limit, Rc::clone(&sent))).await?;
        let answer = begun.ok_or_else(|| {
            let detail = format!("connected, but the first poll was not answered within {} s", limit.as_secs_f64());
            Failure::new(Outcome::ConnectTimeout, detail)
        })??;
        if let Some(times) = sent.get().times {
            exchange.turn.connect.get_or_insert(times.tcp);
            exchange.turn.tls = exchange.turn.tls.or(times.tls);
        }
        let handshake = Handshake::read(first_of(&answer.body).0).map_err(Broken::Malformed)?;
        way.uri = uri(&self.path("polling", Some(&handshake.sid)))?;
        let polls = Polls::new(way, answer, self.plan.message_limit, handshake.max_payload());
        let link = Link::over_polls(polls, &handshake, &self.plan.namespace, self.plan.message_limit);
        Ok((Box::new(link), handshake))
    }

    /// Asks the namespace to take the user in.
    async fn join(&self, session: &Session, link: &mut Link, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        let auth = self.plan.auth.as_ref().map(|auth| session.user.values.fill_json(auth));
        let limit = self.deployment.limits.connect;
        match exchange.within(limit, link.join(auth.as_ref())).await? {
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(why))) => Err(refused(&why)),
            Some(Err(broken)) => Err(broken.into()),
            None => {
                let (namespace, seconds) = (&self.plan.namespace, limit.as_secs_f64());
                let detail = format!("a session is open, but the namespace {namespace} did not answer in {seconds} s");
                Err(Failure::new(Outcome::ConnectTimeout, detail))
            }
        }
    }

    /// Upgrades a polled session to a WebSocket, as a client of Socket.IO does as soon as it can: polls go on until the
    /// server has answered a probe. Where it does not come to that within the connect timeout, the user goes on
    /// polling.
    async fn upgrade(
        &self,
        session: &Session,
        headers: HeaderMap,
        sid: &str,
        link: &mut Link,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let mut visit = Turn::new(exchange.turn.intended, clock::monotonic());
        let probing = async {
            // Its times are not the first connection's, and its failures not the turn's.
            let mut aside = Exchange::new(&self.deployment.limits, &mut visit, Live::nobody());
            let mut line = self.open_line(session, headers, Some(sid), &mut aside).await.ok()?;
            line.say("2probe");
            let answer = aside.within(self.deployment.limits.connect, first_text(&mut line)).await.ok()??.ok()?;
            (answer == "3probe").then_some(line)
        };
        let limit = self.deployment.limits.connect;
        let probed = Box::pin(exchange.within(limit, link.beside(probing))).await?;
        let Some(line) = probed.transpose()?.flatten() else { return Ok(()) };
        match exchange.within(limit, link.go_over(line)).await? {
            Some(over) => Ok(over?),
            None => {
                link.stay();
                Ok(())
            }
        }
    }
}

/// The first text that comes over a socket.
async fn first_text(line: &mut Line) -> Result<String, line::Broken> {
    poll_fn(|cx| {
        loop {
            let mut found = None;
            let polled = line.poll(cx, |message, _, _| {
                found = Some(message.text().to_owned());
                ControlFlow::Break(())
            });
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

/// What a namespace means that does not take the user in: that he may not come, where it says so in the code of its
/// data or in words.
fn refused(why: &Value) -> Failure {
    let text = why.as_str().or_else(|| why["message"].as_str()).unwrap_or_default();
    let code = &why["data"]["code"];
    let code = code.as_u64().or_else(|| code.as_str()?.parse().ok());
    let said = text.to_ascii_lowercase();
    let is_denied = matches!(code, Some(401 | 403))
        || ["unauthorized", "not authorized", "authentication"].iter().any(|word| said.contains(word));
    let outcome = if is_denied { Outcome::Unauthorized } else { Outcome::ErrorEvent };
    Failure::new(outcome, format!("the namespace refuses the connection: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_whether_somebody_may_not_come() {
        for (why, outcome) in [
            (json!({ "message": "unauthorized" }), Outcome::Unauthorized),
            (json!({ "message": "Authentication error" }), Outcome::Unauthorized),
            (json!({ "message": "no", "data": { "code": 403 } }), Outcome::Unauthorized),
            (json!({ "message": "no", "data": { "code": "401" } }), Outcome::Unauthorized),
            (json!("Not authorized"), Outcome::Unauthorized),
            (json!({ "message": "Invalid namespace" }), Outcome::ErrorEvent),
            (json!({ "message": "full", "data": { "code": 429 } }), Outcome::ErrorEvent),
            (Value::Null, Outcome::ErrorEvent),
        ] {
            assert_eq!(refused(&why).outcome, outcome, "{why}");
        }
    }
}
