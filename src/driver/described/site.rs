//! What a client of a described deployment does besides turns: lets its user in, loads the page, reads the history,
//! leaves.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header;

use super::request::{Brought, Deployment, Filled};
use super::values::{Scope, Values, percent_encoded};
use crate::account::Credentials;
use crate::clock::{self, Nanos};
use crate::driver::Live;
use crate::driver::exchange::{Exchange, Failure, finish};
use crate::net::HttpConnection;
use crate::record::{Outcome, Step, Turn};
use crate::scenario::{RequestPlan, Site, Source};
use crate::secret::Secret;

/// The connections that a browser opens to a server over HTTP/1.1.
const CONNECTIONS: usize = 6;
/// The shortest value of a cookie that is a secret by itself, in bytes: shorter ones are settings, such as a language.
const COOKIE: usize = 6;

/// One user of a described deployment.
pub(in crate::driver) struct User {
    pub(in crate::driver) values: Values,
    /// The connection that is kept between requests.
    pub(in crate::driver) connection: Option<HttpConnection>,
    /// Whether the login is done, where there is one.
    let_in: bool,
    account: Option<usize>,
}

/// What one of the connections of a page load did.
struct Worked {
    connection: Option<HttpConnection>,
    turn: Turn,
    /// What answers brought, by the requests' numbers.
    done: Result<Vec<(usize, Brought)>, Failure>,
}

impl Deployment {
    /// The same with a site.
    pub(in crate::driver) fn with_site(mut self, site: Site) -> Self {
        *self.site = site;
        self
    }

    /// User number `number`, who has done nothing yet; `keeps_messages` tells whether a text wants the conversation.
    pub(in crate::driver) fn user(&self, number: u32, keeps_messages: bool) -> User {
        let account = (!self.accounts.is_empty()).then(|| number as usize % self.accounts.len());
        let credentials = account.map(|account| &self.accounts[account]);
        let values = Values::new(&self.common, number, credentials, keeps_messages);
        User { values, connection: None, let_in: self.site.login.is_none(), account }
    }

    /// What must not be shown of what this user's requests are answered: what everybody sends, the account's, and what
    /// this visit has brought, cookies as a whole and each value of them.
    pub(in crate::driver) fn secrets_of(&self, user: &User) -> Vec<Secret> {
        let account = user.account.map(|account| &self.accounts[account]);
        let mut held: Vec<Secret> = Vec::new();
        for (name, text) in user.values.of_the_visit() {
            let is_cookies = self.site.requests().flat_map(|request| &request.capture).any(|(captured, source)| {
                captured == name && matches!(source, Source::Header(of) if *of == header::SET_COOKIE)
            });
            if is_cookies {
                held.extend(each_cookie(text));
            }
            held.push(Secret::new(text));
        }
        if let Some(Credentials::Cookies(text)) = account {
            held.extend(each_cookie(text.expose()));
        }
        let account = account.and_then(Credentials::secret).cloned();
        spelled(self.secrets.iter().cloned().chain(account).chain(held))
    }

    /// Lets the user in, into `visit`. False where nothing is to be done for it.
    pub(in crate::driver) async fn login(&self, user: &mut User, visit: &mut Turn) -> bool {
        let done = self.let_in(user, &mut Exchange::new(&self.limits, visit, Live::nobody())).await;
        finish(done, visit, &self.secrets_of(user));
        self.site.login.is_some()
    }

    /// Loads the page, likewise.
    pub(in crate::driver) async fn page(&self, user: &mut User, visit: &mut Turn) -> bool {
        self.visit(&self.site.page, user, visit).await
    }

    /// Reads the history, likewise.
    pub(in crate::driver) async fn history(&self, user: &mut User, visit: &mut Turn) -> bool {
        self.visit(&self.site.history, user, visit).await
    }

    /// The user leaves, likewise; who comes again is let in again.
    pub(in crate::driver) async fn leave(&self, user: &mut User, visit: &mut Turn) -> bool {
        let said = self.visit(self.site.leave.as_slice(), user, visit).await;
        user.connection = None;
        user.values.begin_visit();
        user.let_in = self.site.login.is_none();
        said
    }

    async fn visit(&self, requests: &[RequestPlan], user: &mut User, visit: &mut Turn) -> bool {
        let done = self.visited(requests, user, &mut Exchange::new(&self.limits, visit, Live::nobody())).await;
        finish(done, visit, &self.secrets_of(user));
        !requests.is_empty()
    }

    /// Sends requests; who must be let in for what they want is, and not for a page that comes before the login. Who is
    /// refused then is let in again, once.
    async fn visited(
        &self,
        requests: &[RequestPlan],
        user: &mut User,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let held: BTreeSet<&str> =
            self.site.login.iter().flat_map(|login| &login.capture).map(|(name, _)| name.as_str()).collect();
        if !requests.iter().flat_map(RequestPlan::names).any(|name| held.contains(name)) {
            return self.load(requests, user, exchange).await;
        }
        self.keep_in(user, exchange).await?;
        match self.load(requests, user, exchange).await {
            Err(failure) if failure.outcome == Outcome::Unauthorized && self.renews() => {
                user.connection = failure.connection.map(|connection| *connection).or(user.connection.take());
                // Boxed: it is rare, and its state would lie in every visit otherwise.
                Box::pin(self.renew(user, exchange)).await?;
                Box::pin(self.load(requests, user, exchange)).await
            }
            done => done,
        }
    }

    /// Lets the user in whom nobody has let in yet, as part of something else, and tells the recorder.
    pub(in crate::driver) async fn keep_in(&self, user: &mut User, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        if user.let_in { Ok(()) } else { self.renew(user, exchange).await }
    }

    /// Whether somebody who is refused can be let in again.
    pub(in crate::driver) fn renews(&self) -> bool {
        self.site.login.is_some()
    }

    /// Lets the user in again, as part of a turn, and tells the recorder.
    pub(in crate::driver) async fn renew(&self, user: &mut User, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        let (began, was_in) = (clock::monotonic(), user.let_in);
        let done = self.let_in(user, exchange).await;
        let took = clock::monotonic() - began;
        exchange.turn.renewal += took;
        let outcome = done.as_ref().map_or_else(|failure| failure.outcome, |()| Outcome::Completed);
        // Who was never in before is let in, and nobody again.
        let step = if was_in { Step::Renewal } else { Step::Login };
        exchange.live.step(step, outcome, took);
        done
    }

    async fn let_in(&self, user: &mut User, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        let Some(login) = &self.site.login else { return Ok(()) };
        let request = self.fill(login, &user.values)?;
        let (connection, brought) = self.ask(user.connection.take(), &request, exchange).await?;
        user.connection = connection;
        brought.keep(Scope::Visit, login, &mut user.values)?;
        user.let_in = true;
        Ok(())
    }

    /// Loads the page in the middle of a turn.
    pub(in crate::driver) async fn reload(&self, user: &mut User, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        self.load(&self.site.page, user, exchange).await
    }

    /// Sends requests as a browser does, those at once of which none wants what another one brings.
    async fn load(
        &self,
        requests: &[RequestPlan],
        user: &mut User,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let mut rest = requests;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(independent(rest));
            let filled = now.iter().map(|plan| self.fill(plan, &user.values)).collect::<Result<Vec<_>, _>>()?;
            let brought = self.at_once(&filled, &mut user.connection, exchange).await?;
            for (plan, brought) in now.iter().zip(brought) {
                brought.keep(Scope::Visit, plan, &mut user.values)?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Sends requests on up to six connections, of which one is the kept one, or all on that where it is one for all of
    /// a user's requests (HTTP/2). The first failure ends it.
    async fn at_once(
        &self,
        requests: &[Filled<'_>],
        kept: &mut Option<HttpConnection>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Vec<Brought>, Failure> {
        let (next, started) = (Cell::new(0), exchange.turn.started);
        let first = kept.take();
        let another = |_| first.as_ref().and_then(HttpConnection::another);
        let others: Vec<Option<HttpConnection>> = (1..CONNECTIONS.min(requests.len())).map(another).collect();
        let connections = std::iter::once(first).chain(others);
        let mut workers: FuturesUnordered<_> =
            connections.map(|connection| self.work(requests, &next, connection, started)).collect();
        let mut brought = BTreeMap::new();
        while let Some(Worked { connection, turn, done }) = workers.next().await {
            exchange.watchdog.sign(clock::monotonic());
            let whole = &mut *exchange.turn;
            whole.connect = whole.connect.or(turn.connect);
            whole.tls = whole.tls.or(turn.tls);
            whole.retries += turn.retries;
            whole.retry_after = turn.retry_after.or(whole.retry_after);
            brought.extend(done?);
            *kept = kept.take().or(connection);
        }
        Ok(brought.into_values().collect())
    }

    /// Sends one request after the other on a connection, while there are any.
    async fn work(
        &self,
        requests: &[Filled<'_>],
        next: &Cell<usize>,
        mut connection: Option<HttpConnection>,
        started: Nanos,
    ) -> Worked {
        let mut turn = Turn::new(started, started);
        let mut exchange = Exchange::new(&self.limits, &mut turn, Live::nobody());
        let mut brought = Vec::new();
        let mut failed = None;
        while let Some(request) = requests.get(next.get()) {
            let number = next.replace(next.get() + 1);
            match self.ask(connection.take(), request, &mut exchange).await {
                Ok((kept, answer)) => {
                    connection = kept;
                    brought.push((number, answer));
                }
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            }
        }
        Worked { connection, turn, done: failed.map_or(Ok(brought), Err) }
    }
}

/// The values of cookies, each alone, that are secrets.
fn each_cookie(cookies: &str) -> impl Iterator<Item = Secret> {
    let values = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('=')).map(|(_, value)| value);
    values.filter(|value| value.len() >= COOKIE).map(Secret::new)
}

/// Secrets as a target may repeat them: as they are, and as they stand in a path. The longest come first, so that none
/// leaves a part of another.
pub(in crate::driver) fn spelled(secrets: impl Iterator<Item = Secret>) -> Vec<Secret> {
    let mut all: Vec<Secret> = Vec::new();
    for secret in secrets {
        let encoded = percent_encoded(secret.expose());
        if encoded != secret.expose() {
            all.push(Secret::new(encoded));
        }
        all.push(secret);
    }
    all.sort_by_key(|secret| Reverse(secret.expose().len()));
    all
}

/// How many of the first requests can be sent at once: up to one that wants what another of them brings.
fn independent(requests: &[RequestPlan]) -> usize {
    let mut brought = BTreeSet::new();
    for (number, request) in requests.iter().enumerate() {
        if request.names().any(|name| brought.contains(name)) {
            return number;
        }
        brought.extend(request.capture.iter().map(|(name, _)| name.as_str()));
    }
    requests.len()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::scenario::Template;

    #[test]
    fn cookies_are_secrets_as_a_whole_and_each() {
        let values: Vec<String> =
            each_cookie("sid=s3cret=x; lang=ko; csrf=abcdef; flag").map(|value| value.expose().to_owned()).collect();
        assert_eq!(values, ["s3cret=x", "abcdef"]);
        let all = spelled([Secret::new("a b/c"), Secret::new("plain-token")].into_iter());
        let texts: Vec<&str> = all.iter().map(Secret::expose).collect();
        assert_eq!(texts, ["plain-token", "a%20b%2Fc", "a b/c"]);
    }

    #[test]
    fn what_wants_an_answer_waits_for_it() {
        let request = |path: &str, brings: &[&str]| RequestPlan {
            method: Method::GET,
            path: Template::parse(path, &["a", "b"]).unwrap(),
            headers: Vec::new(),
            body: None,
            capture: brings.iter().map(|name| ((*name).to_owned(), Source::Pointer(String::new()))).collect(),
        };
        let list = [request("/", &["a"]), request("/x/{{b}}", &["b"]), request("/{{a}}", &[]), request("/y", &[])];
        assert_eq!(independent(&list), 2);
        assert_eq!(independent(&list[2..]), 2);
        // Its own value is that of the time before.
        assert_eq!(independent(&[request("/{{a}}", &["a"])]), 1);
    }
}
