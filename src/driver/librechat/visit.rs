//! What users do besides turns: they are let in, load the page, read earlier conversations, leave.

use std::borrow::Cow;
use std::cell::Cell;
use std::iter;

use futures_util::future::try_join_all;
use http::HeaderMap;
use serde::Deserialize;

use super::page::encoded;
use super::{LibreChat, Session};
use crate::account::Credentials;
use crate::clock::Nanos;
use crate::driver::exchange::{Exchange, Failure, finish};
use crate::driver::{Act, Live};
use crate::net::HttpConnection;
use crate::record::{Outcome, Turn};

/// The list of the user's conversations, the newest first.
const CONVERSATIONS: &str = "/api/convos?sortBy=updatedAt&sortDirection=desc";
/// The calls of a page load, after the refresh. Each wants only the bearer token that the refresh gives: what was
/// observed of the web client has them in this order, and none that waits for the answer to another.
const CALLS: [&str; 10] = [
    "/api/config",
    "/api/user",
    "/api/endpoints",
    "/api/models",
    "/api/roles/USER",
    CONVERSATIONS,
    "/api/files",
    "/api/agents/chat/active",
    "/api/user/terms",
    "/api/search/enable",
];
/// The connections that browsers open to one host over HTTP/1.1.
const CONNECTIONS: usize = 6;

/// Something that is read while a page is shown.
struct Read {
    path: Cow<'static, str>,
    /// Whether the deployment may not have it yet, and says 404.
    may_be_missing: bool,
}

impl Read {
    fn of(path: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), may_be_missing: false }
    }

    /// What is there once the first turn of its conversation has got so far.
    fn perhaps(path: String) -> Self {
        Self { path: path.into(), may_be_missing: true }
    }
}

/// Reads that a browser makes at once.
struct Reads<'a> {
    chat: &'a LibreChat,
    headers: &'a HeaderMap,
    all: &'a [Read],
    /// The first that nobody has taken yet.
    next: Cell<usize>,
    /// The answer to the last of them.
    last: Cell<Vec<u8>>,
    /// From when the turn limit counts.
    started: Nanos,
}

impl Reads<'_> {
    /// Makes one after the other on one connection as long as there are any, and gives that back.
    async fn on(&self, mut connection: Option<HttpConnection>) -> Result<Option<HttpConnection>, Failure> {
        let mut visit = Turn::new(self.started, self.started);
        let mut exchange = Exchange::new(&self.chat.limits, &mut visit, Live::nobody());
        while let Some(read) = self.all.get(self.next.get()) {
            let number = self.next.get();
            self.next.set(number + 1);
            match self.chat.get(&mut connection, self.headers, &read.path, &mut exchange).await {
                Ok(answer) if number + 1 == self.all.len() => self.last.set(answer),
                Ok(_) => {}
                Err(failure) if read.may_be_missing && failure.outcome == Outcome::HttpClient(404) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(connection)
    }
}

/// A page of the list of conversations.
#[derive(Deserialize)]
struct List {
    conversations: Vec<Listed>,
}

/// One of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    conversation_id: String,
}

impl LibreChat {
    /// The user does something besides turns; see [`crate::driver::Driver::act`]. Who leaves closes connections, and
    /// keeps its cookies as a browser does: nothing is asked of the deployment, so that is no step.
    pub(in crate::driver) async fn act(&self, act: Act, session: &mut Session, visit: &mut Turn) -> bool {
        let by_password = matches!(self.accounts[session.account].credentials, Credentials::Password { .. });
        let mut exchange = Exchange::new(&self.limits, visit, Live::nobody());
        let done = match act {
            Act::Login if by_password => self.log_in(session, &mut exchange).await,
            Act::Login => return false,
            Act::Page => self.load(session, &CALLS.map(Read::of), &mut exchange).await.map(drop),
            Act::History => self.read_history(session, &mut exchange).await,
            Act::Leave => {
                session.connection = None;
                session.begin_anew();
                return false;
            }
        };
        finish(done, visit, &self.secrets_of(session));
        true
    }

    /// Loads the page of a conversation again. Gives what the deployment says of a reply that may still be on its way,
    /// where it takes two steps to get one; before that nobody asked.
    pub(super) async fn load_again(
        &self,
        session: &mut Session,
        conversation: Option<&str>,
        two_steps: bool,
        exchange: &mut Exchange<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let mut reads: Vec<Read> = CALLS.into_iter().map(Read::of).collect();
        if let Some(id) = conversation.map(encoded) {
            reads.push(Read::perhaps(format!("/api/convos/{id}")));
            reads.push(Read::perhaps(format!("/api/messages/{id}")));
            reads.extend(two_steps.then(|| Read::of(format!("/api/agents/chat/status/{id}"))));
        }
        self.load(session, &reads, exchange).await
    }

    /// Renews the bearer token and then makes the calls of a page. Gives the answer to the last.
    async fn load(
        &self,
        session: &mut Session,
        reads: &[Read],
        exchange: &mut Exchange<'_>,
    ) -> Result<Vec<u8>, Failure> {
        match self.refresh(session, exchange).await {
            Ok(()) => {}
            // Without a cookie, as with a minted token, the answer is 200 and says so: the call was made.
            Err(failure) if failure.outcome == Outcome::Unauthorized => {
                self.keep_fresh(session, exchange).await?;
            }
            Err(failure) => return Err(failure),
        }
        self.read_all(session, reads, exchange.turn.started).await
    }

    /// Reads the list of conversations, and opens the newest one that is not the user's own present one.
    async fn read_history(&self, session: &mut Session, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        self.keep_fresh(session, exchange).await?;
        let list = self.get(&mut session.connection, &session.headers, CONVERSATIONS, exchange).await?;
        let Some(id) = earlier(&list, session.conversation.as_deref())? else { return Ok(()) };
        let id = encoded(&id);
        let reads = [Read::of(format!("/api/convos/{id}")), Read::of(format!("/api/messages/{id}"))];
        self.read_all(session, &reads, exchange.turn.started).await.map(drop)
    }

    /// Reads all of it as a browser does: with HTTP/2 on the kept connection alone, with HTTP/1.1 on that and as many
    /// others as it takes, up to six in all. The others are closed then: browsers keep them for no longer than the
    /// keep-alive, and hardly anybody says something within its 5 s. The first failure ends it. Gives the answer to
    /// the last.
    async fn read_all(&self, session: &mut Session, all: &[Read], started: Nanos) -> Result<Vec<u8>, Failure> {
        let kept = session.connection.take();
        let (next, last) = (Cell::new(0), Cell::default());
        let reads = Reads { chat: self, headers: &session.headers, all, next, last, started };
        let another = |_| kept.as_ref().and_then(HttpConnection::another);
        let others: Vec<Option<HttpConnection>> = (1..CONNECTIONS.min(all.len())).map(another).collect();
        let connections = iter::once(kept).chain(others);
        let connections = try_join_all(connections.map(|connection| Box::pin(reads.on(connection)))).await?;
        let last = reads.last.take();
        session.connection = connections.into_iter().flatten().next();
        Ok(last)
    }
}

/// The newest conversation of a list that is not the present one.
fn earlier(list: &[u8], present: Option<&str>) -> Result<Option<String>, Failure> {
    let list: List = serde_json::from_slice(list)
        .map_err(|error| Failure::new(Outcome::Protocol, format!("GET {CONVERSATIONS}: no list: {error}")))?;
    let ids = list.conversations.into_iter().map(|listed| listed.conversation_id);
    Ok(ids.into_iter().find(|id| present != Some(id.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_conversation_but_the_present_one_is_opened() {
        let list = br#"{"conversations":[{"conversationId":"b","title":"New Chat"},{"conversationId":"a"}],"nextCursor":null}"#;
        let opened = |present| earlier(list, present).map_err(|failure| failure.outcome);
        assert_eq!(opened(None), Ok(Some("b".to_owned())));
        assert_eq!(opened(Some("b")), Ok(Some("a".to_owned())));
        assert_eq!(earlier(br#"{"conversations":[]}"#, None).map_err(|failure| failure.outcome), Ok(None));
        for hostile in [&b"<html>"[..], b"{}", b"[]", br#"{"conversations":[{}]}"#, b"\xff"] {
            let told = earlier(hostile, None).map_err(|failure| (failure.outcome, failure.detail));
            assert!(matches!(&told, Err((Outcome::Protocol, said)) if said.contains("/api/convos")), "{told:?}");
        }
    }
}
