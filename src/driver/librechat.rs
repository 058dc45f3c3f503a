//! LibreChat's web API, as the web client speaks it: sign-in, page load, two-step chat (v0.8.2 and
//! later) or one step (v0.7.9 to v0.8.1), resume, cancel. The two are told apart by what the POST
//! answers: JSON, or the stream itself.
//!
//! What comes, and the outcome. Rows with a transcript were seen on a running server and are replayed in
//! `librechat/replay.rs`, which reads this table, and `tests/it/transcripts.rs`; the others are driven
//! through the reference deployment in `tests/it/librechat.rs`:
//!
//! | what comes | transcript | outcome |
//! |---|---|---|
//! | `final`, nothing wrong in it | `v087-turn1-stream`, `v087-turn2-stream`, `v081-turn`, `v088rc1-turn-stream` | `Completed` |
//! | `final` with `aborted`, as the user asked | `v087-abort` | `Aborted` |
//! | nothing more, in one step, after the user broke it off | | `Aborted` |
//! | `final` with a content of type `error` | `v087-upstream-drops-midstream` | `ErrorEvent` |
//! | nothing for the stall limit | `v087-upstream-hangs` | `Stalled` |
//! | the end without `final`, and no resume | `v087-resume` (its first connection) | `Truncated`, `Reset` |
//! | 200 and `event: error` | `v087-bad-request-in-200` | `ErrorEvent` |
//! | 200 and an error whose text is a `message_limit` | `v087-message-limited-in-200` | `RateLimited` |
//! | 429 | `v087-concurrent-limited`, `v087-login-limited`, `v087-register-limited` | `RateLimited` |
//! | 200 and an error whose text is a `ban`, or `Illegal request`; 403 that says "banned" | | `Banned` |
//! | 401 or another 403, after one renewal | | `Unauthorized` |
//! | another status | | `HttpClient`, `HttpServer` |
//! | a page, or JSON without `streamId` | | `Protocol` |
//!
//! A stream that breaks off is taken up again with `?resume=true`, at most three times; only when
//! that fails is the turn lost. Words of the whole text that no delta brought are counted as
//! unseen: a reload of the page would show them, so they are a matter of stickiness, not of loss.
//!
//! A user may break it off as well, as the scenario asks: `librechat/disturb.rs`. What comes of a reply
//! while nobody listens is one arrival, with the first event of the resumed stream, which sums it up; what
//! is over by then is read from the conversation, and its tokens are unseen ones.

mod auth;
mod disturb;
mod event;
mod page;
#[cfg(test)]
mod replay;
mod turn;
mod visit;

use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue, header};
use url::Url;

use self::auth::Tokens;
use super::Limits;
use super::exchange::{HeaderError, add_headers};
use crate::account::Credentials;
use crate::net::{Endpoint, HttpConnection};
use crate::secret::Secret;

pub use page::Offer;

/// LibreChat bans who names no browser.
pub const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
/// The parent of a conversation's first message.
const NO_PARENT: &str = "00000000-0000-0000-0000-000000000000";

/// A LibreChat deployment.
#[derive(Debug)]
pub struct LibreChat {
    endpoint: Endpoint,
    /// The path before `/api`, without a slash at its end.
    prefix: String,
    headers: HeaderMap,
    chat: Offer,
    accounts: Vec<Account>,
    jwt_secret: Option<Secret>,
    limits: Limits,
    /// What must not be shown, though the target repeat it, besides what a session holds.
    secrets: Vec<Secret>,
}

/// An account, and what its user holds since the login.
#[derive(Debug)]
struct Account {
    credentials: Credentials,
    tokens: OnceLock<Tokens>,
}

/// What one user keeps between turns.
pub struct Session {
    account: usize,
    tokens: Tokens,
    /// The headers of chat calls, with the bearer token.
    headers: HeaderMap,
    connection: Option<HttpConnection>,
    conversation: Option<String>,
    parent: String,
}

impl LibreChat {
    /// A deployment at `base` (such as `https://chat.example`), with one account a user, further
    /// headers, and the secret for those whose tokens are minted. Which endpoint and model are
    /// asked for is said with [`Self::choose`].
    ///
    /// # Errors
    /// When a header cannot be sent.
    pub fn new(
        endpoint: Endpoint,
        base: &Url,
        accounts: Vec<Credentials>,
        jwt_secret: Option<Secret>,
        extra: &[(String, Secret)],
        limits: Limits,
    ) -> Result<Self, HeaderError> {
        let mut headers = HeaderMap::new();
        let fixed = [
            ("host", &base[url::Position::BeforeHost..url::Position::AfterPort]),
            ("accept", "application/json, text/event-stream, */*"),
            ("accept-encoding", "identity"),
            ("accept-language", "en-US,en;q=0.9"),
            ("user-agent", BROWSER),
        ];
        let extra_texts = extra.iter().map(|(name, value)| (name.as_str(), value.expose()));
        add_headers(&mut headers, fixed.into_iter().chain(extra_texts))?;
        let accounts: Vec<Account> =
            accounts.into_iter().map(|credentials| Account { credentials, tokens: OnceLock::new() }).collect();
        let secrets = jwt_secret.iter().chain(extra.iter().map(|(_, value)| value)).cloned().collect();
        Ok(Self {
            endpoint,
            prefix: base.path().trim_end_matches('/').to_owned(),
            headers,
            chat: Offer::default(),
            accounts,
            jwt_secret,
            limits,
            secrets,
        })
    }

    /// Says which endpoint and model the users ask for.
    pub fn choose(&mut self, offer: Offer) {
        self.chat = offer;
    }

    /// The session of user number `user`, with what its login brought.
    ///
    /// # Panics
    /// When there is no account at all.
    pub(super) fn session(&self, user: u32) -> Session {
        let account = user as usize % self.accounts.len();
        let mut session = Session {
            account,
            tokens: Tokens::default(),
            headers: self.headers.clone(),
            connection: None,
            conversation: None,
            parent: NO_PARENT.to_owned(),
        };
        if let Some(tokens) = self.accounts[account].tokens.get() {
            session.hold(tokens.clone());
        }
        session
    }

    /// What must not be shown of what this session's requests are answered.
    fn secrets_of(&self, session: &Session) -> Vec<Secret> {
        let credentials = self.accounts[session.account].credentials.secret().into_iter().cloned();
        self.secrets.iter().cloned().chain(credentials).chain(session.tokens.secrets()).collect()
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl Session {
    /// Takes new tokens.
    fn hold(&mut self, tokens: Tokens) {
        if let Some(bearer) = &tokens.bearer
            && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", bearer.expose()))
        {
            value.set_sensitive(true);
            self.headers.insert(header::AUTHORIZATION, value);
        }
        self.tokens = tokens;
    }

    fn begin_anew(&mut self) {
        self.conversation = None;
        NO_PARENT.clone_into(&mut self.parent);
    }
}
