//! How users are let in: login, renewal, registration, minted tokens, cookies.

use std::time::Duration;

use bytes::Bytes;
use cookie::Cookie;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use reference_chat::jwt::{self, Claims, unix_seconds};
use serde_json::{Value, json};

use super::event::refusal;
use super::{LibreChat, Session};
use crate::account::{Credentials, local_part};
use crate::driver::Live;
use crate::driver::exchange::{Call, ERROR_BODY, Exchange, Failure, finish, uri, usable};
use crate::net::HttpConnection;
use crate::record::{Outcome, Step, Turn};
use crate::secret::Secret;

/// A bearer token that ends sooner than this after the longest turn is renewed before it is used.
const MARGIN: u64 = 30;
/// How long a minted token lives, as LibreChat's own do.
const LIFE: Duration = Duration::from_secs(900);

/// What a user holds after a login.
#[derive(Debug, Clone, Default)]
pub(super) struct Tokens {
    /// For chat calls.
    pub(super) bearer: Option<Secret>,
    /// When it ends, in seconds since 1970, where it says so.
    expires: Option<u64>,
    /// How long it lives in all, in seconds.
    life: u64,
    /// For the renewal.
    cookies: Vec<(String, Secret)>,
}

impl Tokens {
    fn with_bearer(mut self, token: String) -> Self {
        let claims = jwt::read(&token).ok();
        self.expires = claims.as_ref().map(|claims| claims.exp);
        self.life = claims.map_or(0, |claims| claims.exp.saturating_sub(claims.iat));
        self.bearer = Some(Secret::new(token));
        self
    }

    /// Whether the bearer token will not last a turn of this length; one that lives shorter than
    /// that is used for half its life.
    fn is_ending(&self, turn: Duration) -> bool {
        let margin = (turn.as_secs() + MARGIN).min(self.life / 2);
        self.bearer.is_none() || self.expires.is_some_and(|end| end <= unix_seconds() + margin)
    }

    /// What must not be shown.
    pub(super) fn secrets(&self) -> impl Iterator<Item = Secret> {
        self.bearer.iter().chain(self.cookies.iter().map(|(_, value)| value)).cloned()
    }

    /// The cookies as a header.
    fn cookie_header(&self) -> Option<HeaderValue> {
        let texts: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect();
        let mut value = HeaderValue::from_str(&texts.join("; ")).ok().filter(|_| !texts.is_empty())?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Keeps what a response sets, rotated ones instead of the old.
    fn take_cookies(&mut self, headers: &HeaderMap) {
        for cookie in headers.get_all(header::SET_COOKIE) {
            let Some(cookie) = cookie.to_str().ok().and_then(|text| Cookie::parse(text).ok()) else { continue };
            self.cookies.retain(|(name, _)| name != cookie.name());
            let gone = cookie.value().is_empty() || cookie.max_age().is_some_and(|age| age.is_zero());
            if !gone {
                self.cookies.push((cookie.name().to_owned(), Secret::new(cookie.value())));
            }
        }
    }
}

impl LibreChat {
    /// Makes an account by registration, into `visit`.
    pub async fn register(&self, email: &str, password: &Secret, visit: &mut Turn) {
        let mut exchange = Exchange::new(&self.limits, visit, Live::nobody());
        let name = local_part(email);
        let wish = json!({
            // A name wants three characters or more.
            "name": format!("cc {name}"), "username": name, "email": email,
            "password": password.expose(), "confirm_password": password.expose(),
        });
        let done = self.post(None, &self.headers, "/api/auth/register", &wish, &mut exchange).await;
        finish(done.map(|_| ()), visit, &[&self.secrets[..], std::slice::from_ref(password)].concat());
    }

    /// Lets user number `user` in, into `visit`; what it holds then is kept for its session.
    pub async fn sign_in(&self, user: u32, visit: &mut Turn) {
        let mut session = self.session(user);
        let mut exchange = Exchange::new(&self.limits, visit, Live::nobody());
        let done = self.renew(&mut session, &mut exchange).await;
        let secrets = self.secrets_of(&session);
        if done.is_ok() {
            // Somebody may have signed the same user in before; then that one stands.
            let _ = self.accounts[session.account].tokens.set(session.tokens);
        }
        finish(done, visit, &secrets);
    }

    /// Renews the bearer token, where it will not last the turn.
    pub(super) async fn keep_fresh(&self, session: &mut Session, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        if session.tokens.is_ending(self.limits.turn) { self.renew_measured(session, exchange).await } else { Ok(()) }
    }

    /// Renews, and tells the recorder of it.
    pub(super) async fn renew_measured(
        &self,
        session: &mut Session,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let began = crate::clock::monotonic();
        let done = self.renew(session, exchange).await;
        let took = crate::clock::monotonic() - began;
        exchange.turn.renewal += took;
        let outcome = done.as_ref().map_or_else(|failure| failure.outcome, |()| Outcome::Completed);
        // A token that is minted here costs the deployment nothing.
        if self.accounts[session.account].credentials.asks() {
            exchange.live.step(Step::Renewal, outcome, took);
        }
        done
    }

    /// Gets a bearer token, by the cheapest way that the account has: mint, refresh, login.
    async fn renew(&self, session: &mut Session, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        match &self.accounts[session.account].credentials {
            Credentials::Minted { id, email, username } => {
                let secret = self.jwt_secret.as_ref();
                let secret = secret.ok_or_else(|| Failure::new(Outcome::Unauthorized, "no JWT_SECRET to mint with"))?;
                let token = jwt::sign(&Claims::lasting(id, username, email, LIFE), secret.expose());
                session.hold(Tokens::default().with_bearer(token));
                Ok(())
            }
            Credentials::Bearer(_) if session.tokens.bearer.is_some() => {
                Err(Failure::new(Outcome::Unauthorized, "the pre-issued token is refused or at its end"))
            }
            Credentials::Bearer(token) => {
                session.hold(Tokens::default().with_bearer(token.expose().to_owned()));
                Ok(())
            }
            Credentials::Cookies(header) => {
                if session.tokens.cookies.is_empty() {
                    let cookies = Cookie::split_parse(header.expose()).filter_map(Result::ok);
                    session.tokens.cookies =
                        cookies.map(|cookie| (cookie.name().to_owned(), Secret::new(cookie.value()))).collect();
                }
                self.refresh(session, exchange).await
            }
            Credentials::Password { .. } => {
                if !session.tokens.cookies.is_empty() && self.refresh(session, exchange).await.is_ok() {
                    return Ok(());
                }
                self.log_in(session, exchange).await
            }
        }
    }

    /// Lets a user in by password; what it held before is forgotten.
    pub(super) async fn log_in(&self, session: &mut Session, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        let Credentials::Password { email, password } = &self.accounts[session.account].credentials else {
            return Err(Failure::new(Outcome::Unauthorized, "the account has no password"));
        };
        let who = json!({ "email": email, "password": password.expose() });
        let kept = session.connection.take();
        let (connection, headers, body) = self.post(kept, &self.headers, "/api/auth/login", &who, exchange).await?;
        session.connection = usable(connection);
        self.welcome(session, Tokens::default(), &headers, &body)
    }

    /// Renews by cookies; the server rotates them.
    pub(super) async fn refresh(&self, session: &mut Session, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        let mut headers = self.headers.clone();
        headers.extend(session.tokens.cookie_header().map(|value| (header::COOKIE, value)));
        let kept = session.connection.take();
        let (connection, headers, body) = self.post(kept, &headers, "/api/auth/refresh", &json!({}), exchange).await?;
        session.connection = usable(connection);
        let tokens = session.tokens.clone();
        self.welcome(session, tokens, &headers, &body)
    }

    /// Takes what a login or renewal answered with status 200.
    fn welcome(
        &self,
        session: &mut Session,
        mut tokens: Tokens,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), Failure> {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        if said["twoFAPending"] == true {
            return Err(Failure::new(Outcome::Unauthorized, "the account wants a second factor"));
        }
        let Some(token) = said["token"].as_str() else {
            // 200 with a text is how it says that there was no cookie.
            return Err(Failure::new(Outcome::Unauthorized, String::from_utf8_lossy(body)));
        };
        tokens.take_cookies(headers);
        session.hold(tokens.with_bearer(token.to_owned()));
        Ok(())
    }

    /// Posts JSON and reads the whole answer; any status but 200 and 204 is a failure.
    pub(super) async fn post(
        &self,
        kept: Option<HttpConnection>,
        headers: &HeaderMap,
        path: &str,
        body: &Value,
        exchange: &mut Exchange<'_>,
    ) -> Result<(HttpConnection, HeaderMap, Vec<u8>), Failure> {
        let mut headers = headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let call = Call {
            method: Method::POST,
            uri: uri(&self.path(path))?,
            headers: &headers,
            body: Bytes::from(body.to_string()),
        };
        let (mut connection, response) = exchange.call(&self.endpoint, kept, &call).await?;
        // 204: how some versions answer a cancel.
        if !matches!(response.status(), StatusCode::OK | StatusCode::NO_CONTENT) {
            return Err(self.refused(connection, response, exchange).await);
        }
        let bytes = exchange.read_body(&mut connection, ERROR_BODY, true).await?;
        Ok((connection, response.into_parts().0.headers, bytes))
    }

    /// The failure that a response is whose status is no success.
    pub(super) async fn refused(
        &self,
        mut connection: HttpConnection,
        response: Response<()>,
        exchange: &mut Exchange<'_>,
    ) -> Failure {
        let status = response.status();
        let text = match exchange.read_error(&mut connection).await {
            Ok(text) => text,
            Err(failure) => return failure,
        };
        let mut failure = refusal(Outcome::of_status(status.as_u16()), text.as_bytes());
        failure.detail = format!("{status}: {}", failure.detail);
        failure.connection = usable(connection).map(Box::new);
        failure
    }
}
