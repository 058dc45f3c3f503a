//! Users and their sessions, in memory.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::jwt::{self, Claims, TokenError, unix_seconds};

/// How long a refresh token lives.
const REFRESH_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Sessions that are kept; beyond it all that were rotated away are forgotten anyway.
const SESSIONS: usize = 200_000;

/// One user.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) username: String,
    pub(crate) email: String,
    password: Option<String>,
    admin: bool,
}

impl User {
    /// What the API tells of a user.
    pub(crate) fn shown(&self) -> Value {
        json!({
            "_id": self.id, "id": self.id, "name": self.name, "username": self.username, "email": self.email,
            "emailVerified": true, "avatar": null, "provider": "local",
            "role": if self.admin { "ADMIN" } else { "USER" }, "plugins": [], "twoFactorEnabled": false,
            "termsAccepted": true,
        })
    }
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such address.
    UnknownEmail,
    /// Another password.
    WrongPassword,
    /// A refresh token that was rotated away, or whose session is gone.
    Rotated,
    /// A refresh token that was never ours.
    Garbage,
}

/// A bearer token and the cookie that renews it.
pub(crate) struct Tokens {
    pub(crate) bearer: String,
    pub(crate) refresh: String,
    pub(crate) user: User,
}

/// All users.
pub(crate) struct Accounts {
    secret: String,
    refresh_secret: String,
    token_life: Duration,
    by_email: HashMap<String, User>,
    by_id: HashMap<String, String>,
    sessions: HashMap<String, String>,
}

impl Accounts {
    pub(crate) fn new(secret: &str, token_life: Duration) -> Self {
        Self {
            secret: secret.to_owned(),
            refresh_secret: format!("{secret}/refresh"),
            token_life,
            by_email: HashMap::new(),
            by_id: HashMap::new(),
            sessions: HashMap::new(),
        }
    }

    /// Makes an account; an address that is there already stays as it is, as in LibreChat, which
    /// does not tell strangers who has an account.
    pub(crate) fn register(&mut self, name: &str, username: &str, email: &str, password: &str) {
        if self.by_email.contains_key(email) {
            return;
        }
        let user = User {
            id: object_id(),
            name: name.to_owned(),
            username: username.to_owned(),
            email: email.to_owned(),
            password: Some(password.to_owned()),
            admin: self.by_email.is_empty(),
        };
        self.add(user);
    }

    fn add(&mut self, user: User) {
        self.by_id.insert(user.id.clone(), user.email.clone());
        self.by_email.insert(user.email.clone(), user);
    }

    /// Lets somebody in by password.
    pub(crate) fn login(&mut self, email: &str, password: &str) -> Result<Tokens, Refusal> {
        let user = self.by_email.get(email).ok_or(Refusal::UnknownEmail)?;
        if user.password.as_deref() != Some(password) {
            return Err(Refusal::WrongPassword);
        }
        Ok(self.open(user.clone()))
    }

    /// Renews by a refresh token, which is rotated: the old one is of no more use.
    pub(crate) fn refresh(&mut self, token: &str) -> Result<Tokens, Refusal> {
        let claims = match jwt::verify(token, &self.refresh_secret, unix_seconds()) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Err(Refusal::Rotated),
            Err(_) => return Err(Refusal::Garbage),
        };
        let id = self.sessions.remove(&claims.username).ok_or(Refusal::Rotated)?;
        let user = self.by_id.get(&id).and_then(|email| self.by_email.get(email)).ok_or(Refusal::Rotated)?;
        Ok(self.open(user.clone()))
    }

    fn open(&mut self, user: User) -> Tokens {
        if self.sessions.len() >= SESSIONS {
            self.sessions.clear();
        }
        let session = uuid::Uuid::new_v4().to_string();
        let claims = Claims::lasting(&user.id, &session, "", REFRESH_LIFE);
        let refresh = jwt::sign(&claims, &self.refresh_secret);
        self.sessions.insert(session, user.id.clone());
        let claims = Claims::lasting(&user.id, &user.username, &user.email, self.token_life);
        Tokens { bearer: jwt::sign(&claims, &self.secret), refresh, user }
    }

    /// Whose bearer token this is. A user whom a well signed token names exists: where LibreChat
    /// finds the account in its database, this deployment, which has none, takes it from the token.
    pub(crate) fn bearer(&mut self, token: &str) -> Result<User, TokenError> {
        let claims = jwt::verify(token, &self.secret, unix_seconds())?;
        let email = match self.by_id.get(&claims.id) {
            Some(email) => email.clone(),
            None => {
                self.add(User {
                    id: claims.id.clone(),
                    name: claims.username.clone(),
                    username: claims.username,
                    email: claims.email.clone(),
                    password: None,
                    admin: false,
                });
                claims.email
            }
        };
        self.by_email.get(&email).cloned().ok_or(TokenError::Form)
    }
}

/// An id in the form of MongoDB's.
pub(crate) fn object_id() -> String {
    format!("{:.24}", uuid::Uuid::new_v4().simple().to_string())
}
