//! What a user does in the middle of a reply: cancels it, loads the page again, or loses the connection.
//!
//! A deployment of one step (v0.8.1 and before) cannot take a reply up again: there a turn that its user breaks off
//! is `Aborted`, which is nobody's failure.

use std::time::Duration;

use futures_util::future::{Either, select};
use serde_json::{Value, json};

use super::event::{Reply, kept};
use super::page::encoded;
use super::turn::{RESUMES, Source};
use super::{LibreChat, Session};
use crate::clock;
use crate::driver::Live;
use crate::driver::exchange::{Exchange, Failure};
use crate::driver::stream::{Pause, Stop, Stream};
use crate::net::HttpConnection;
use crate::record::{Outcome, Step, Turn};
use crate::scenario::Disturbance;

/// How long a one-step stream has for its `final` after it was cancelled.
const AFTER_CANCEL: Duration = Duration::from_secs(2);
/// The pauses before a reply is taken up again by a page that was loaded anew: it does so at once.
static RELOADED: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)];

impl LibreChat {
    /// The user breaks the stream off, loads the page again where that is what is done, and takes the reply up: gives
    /// where it goes on. `None` where it ended while nobody listened; then it was read from its conversation.
    pub(super) async fn break_off(
        &self,
        session: &mut Session,
        what: Disturbance,
        source: Source,
        stream: &mut Stream<Reply>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<Source>, Failure> {
        let Source { connection, stream_id } = source;
        drop(connection);
        let (mut over, mut pauses) = (false, &RESUMES[..]);
        if what == Disturbance::Reload {
            let conversation = session.conversation.clone().or_else(|| stream.reader.conversation.clone());
            over = self.reload(session, conversation.as_deref(), stream_id.is_some(), exchange).await;
            pauses = &RELOADED;
        } else {
            // Whatever else was open is lost with it.
            session.connection = None;
        }
        let Some(id) = stream_id else {
            let detail = "broken off by the user; this version cannot take a reply up again";
            return Err(Failure::new(Outcome::Aborted, detail));
        };
        stream.lost = Some(clock::monotonic());
        if !over {
            match self.resume(session, &id, None, pauses, exchange).await {
                Ok(source) => return Ok(Some(source)),
                // How it says that there is no such stream any more.
                Err(mut failure) if failure.outcome == Outcome::HttpClient(404) => {
                    session.connection = failure.connection.take().map(|connection| *connection);
                }
                Err(failure) => return Err(failure),
            }
        }
        self.look_up(session, stream, exchange).await?;
        Ok(None)
    }

    /// Loads the page of the conversation again, as a step of its own. Whether the reply is over by then, as far as
    /// the page tells. What goes wrong is the step's: a browser that lacks a part of the page shows the rest.
    async fn reload(
        &self,
        session: &mut Session,
        conversation: Option<&str>,
        two_steps: bool,
        exchange: &mut Exchange<'_>,
    ) -> bool {
        let began = clock::monotonic();
        let mut visit = Turn::new(began, exchange.turn.started);
        let mut loading = Exchange::new(&self.limits, &mut visit, Live::nobody());
        let done = self.load_again(session, conversation, two_steps, &mut loading).await;
        let now = clock::monotonic();
        let outcome = done.as_ref().map_or_else(|failure| failure.outcome, |_| Outcome::Completed);
        exchange.live.step(Step::PageLoad, outcome, now - began);
        exchange.watchdog.sign(now);
        let status = done.ok().and_then(|status| serde_json::from_slice::<Value>(&status).ok());
        two_steps && status.is_some_and(|status| status["active"] == false)
    }

    /// The reply ended while nobody listened: reads it from its conversation, as the web client does.
    async fn look_up(
        &self,
        session: &mut Session,
        stream: &mut Stream<Reply>,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let conversation = session.conversation.clone().unwrap_or_default();
        let path = format!("/api/messages/{}", encoded(&conversation));
        let messages = self.get(&mut session.connection, &session.headers, &path, exchange).await?;
        stream.reader.ending = Some(kept(&messages, &session.parent)?);
        let now = clock::monotonic();
        exchange.turn.ended = session.connection.as_ref().map_or(now, |connection| connection.stamp().latest);
        exchange.turn.released = exchange.turn.ended;
        if let Some(lost) = stream.lost.take() {
            exchange.live.step(Step::Resume, Outcome::Completed, exchange.turn.ended - lost);
        }
        Ok(())
    }

    /// Reads on while the turn is being cancelled, and tells how long that took: from the cancel's sending to the
    /// turn's end, also where the reply had come to its own end before the cancel had.
    pub(super) async fn read_cancelling(
        &self,
        session: &Session,
        stream: &mut Stream<Reply>,
        source: &mut Source,
        exchange: &mut Exchange<'_>,
    ) -> Result<Stop, Failure> {
        let began = clock::monotonic();
        let read = self.read_to_the_cancel(session, stream, source, exchange).await;
        let (outcome, ended) = match &read {
            Ok(_) => (Outcome::Completed, exchange.turn.ended),
            Err(failure) if failure.outcome == Outcome::Aborted => (Outcome::Completed, clock::monotonic()),
            Err(failure) => (failure.outcome, clock::monotonic()),
        };
        exchange.live.step(Step::Cancel, outcome, ended - began);
        read
    }

    /// In two steps the stream goes on to its `final` after a cancel; in one step some versions leave it open and
    /// silent, so there the cancel itself is the end.
    async fn read_to_the_cancel(
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
        let now = clock::monotonic();
        let mut visit = Turn::new(now, now);
        let mut exchange = Exchange::new(&self.limits, &mut visit, Live::nobody());
        let key = if two_steps { "streamId" } else { "abortKey" };
        match self.post(beside, &session.headers, "/api/agents/chat/abort", &json!({ key: id }), &mut exchange).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.outcome, Outcome::HttpClient(404 | 409)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}
