//! Users and their sessions, wherever they are kept: in memory, or users in MongoDB and sessions in
//! Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use crate::jwt::{self, Claims, TokenError, unix_seconds};
use crate::store::commands::Redis;
use crate::store::mongo::Mongo;
use crate::store::ops::WELCOME;
use crate::store::{StoreError, Stores};

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
    /// Sealed; who came by a token alone has none.
    pub(crate) password: Option<String>,
    pub(crate) admin: bool,
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
#[derive(Debug)]
pub(crate) enum Refusal {
    /// No such address.
    UnknownEmail,
    /// Another password.
    WrongPassword,
    /// A refresh token that was rotated away, or whose session is gone.
    Rotated,
    /// A refresh token that was never ours.
    Garbage,
    /// A bearer token that is not good.
    Token,
    /// It cannot be known.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A bearer token and the cookie that renews it.
pub(crate) struct Tokens {
    pub(crate) bearer: String,
    pub(crate) refresh: String,
    pub(crate) user: User,
}

/// What is in memory where there is no store for it.
#[derive(Default)]
struct Kept {
    by_email: HashMap<String, User>,
    by_id: HashMap<String, String>,
    sessions: HashMap<String, String>,
}

impl Kept {
    fn add(&mut self, user: User) {
        self.by_id.insert(user.id.clone(), user.email.clone());
        self.by_email.insert(user.email.clone(), user);
    }
}

/// All users.
pub(crate) struct Accounts {
    secret: String,
    refresh_secret: String,
    token_life: Duration,
    kept: Mutex<Kept>,
    mongo: Option<Arc<Mongo>>,
    redis: Option<Arc<Redis>>,
}

impl Accounts {
    pub(crate) fn new(secret: &str, token_life: Duration, stores: &Stores) -> Self {
        Self {
            secret: secret.to_owned(),
            refresh_secret: format!("{secret}/refresh"),
            token_life,
            kept: Mutex::default(),
            mongo: stores.mongo.clone(),
            redis: stores.redis.clone(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        match &self.mongo {
            Some(mongo) => mongo.user_by_email(email).await,
            None => Ok(self.kept().by_email.get(email).cloned()),
        }
    }

    async fn by_id(&self, id: &str) -> Result<Option<User>, StoreError> {
        if let Some(mongo) = &self.mongo {
            return mongo.user(id).await;
        }
        let kept = self.kept();
        Ok(kept.by_id.get(id).and_then(|email| kept.by_email.get(email)).cloned())
    }

    async fn add(&self, user: User) -> Result<(), StoreError> {
        match &self.mongo {
            Some(mongo) => mongo.add_user(&user).await,
            None => {
                self.kept().add(user);
                Ok(())
            }
        }
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        match &self.mongo {
            Some(mongo) => Ok(!mongo.has_users().await?),
            None => Ok(self.kept().by_email.is_empty()),
        }
    }

    /// Makes an account; an address that is there already stays as it is, as in LibreChat, which
    /// does not tell strangers who has an account.
    pub(crate) async fn register(
        &self,
        name: &str,
        username: &str,
        email: &str,
        password: &str,
    ) -> Result<(), StoreError> {
        if self.by_email(email).await?.is_some() {
            return Ok(());
        }
        let id = object_id();
        let user = User {
            name: name.to_owned(),
            username: username.to_owned(),
            email: email.to_owned(),
            password: Some(sealed(&id, password)),
            admin: self.is_empty().await?,
            id,
        };
        self.add(user).await
    }

    /// Lets somebody in by password.
    pub(crate) async fn login(&self, email: &str, password: &str) -> Result<Tokens, Refusal> {
        let user = self.by_email(email).await?.ok_or(Refusal::UnknownEmail)?;
        if user.password.as_ref() != Some(&sealed(&user.id, password)) {
            return Err(Refusal::WrongPassword);
        }
        if let Some(mongo) = &self.mongo {
            for op in WELCOME {
                Box::pin(mongo.about(op, &user.id)).await?;
            }
        }
        Ok(self.open(user).await?)
    }

    /// Renews by a refresh token, which is rotated: the old one is of no more use.
    pub(crate) async fn refresh(&self, token: &str) -> Result<Tokens, Refusal> {
        let claims = match jwt::verify(token, &self.refresh_secret, unix_seconds()) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return Err(Refusal::Rotated),
            Err(_) => return Err(Refusal::Garbage),
        };
        let id = match &self.redis {
            Some(redis) => redis.take_session(&claims.username).await?,
            None => self.kept().sessions.remove(&claims.username),
        };
        let user = self.by_id(&id.ok_or(Refusal::Rotated)?).await?;
        Ok(self.open(user.ok_or(Refusal::Rotated)?).await?)
    }

    async fn open(&self, user: User) -> Result<Tokens, StoreError> {
        let session = uuid::Uuid::new_v4().to_string();
        let claims = Claims::lasting(&user.id, &session, "", REFRESH_LIFE);
        let refresh = jwt::sign(&claims, &self.refresh_secret);
        match &self.redis {
            Some(redis) => redis.keep_session(&session, &user.id, REFRESH_LIFE).await?,
            None => {
                let mut kept = self.kept();
                if kept.sessions.len() >= SESSIONS {
                    kept.sessions.clear();
                }
                kept.sessions.insert(session, user.id.clone());
            }
        }
        let claims = Claims::lasting(&user.id, &user.username, &user.email, self.token_life);
        Ok(Tokens { bearer: jwt::sign(&claims, &self.secret), refresh, user })
    }

    /// Whose bearer token this is. A user whom a well signed token names exists: where LibreChat
    /// finds no account in its database and refuses, this deployment takes it from the token.
    pub(crate) async fn bearer(&self, token: &str) -> Result<User, Refusal> {
        let claims = jwt::verify(token, &self.secret, unix_seconds()).map_err(|_| Refusal::Token)?;
        if let Some(user) = self.by_id(&claims.id).await? {
            return Ok(user);
        }
        let user = User {
            id: claims.id,
            name: claims.username.clone(),
            username: claims.username,
            email: claims.email,
            password: None,
            admin: false,
        };
        self.add(user.clone()).await?;
        Ok(user)
    }
}

/// A password as it is kept, bound to its user. LibreChat's own hash is slow on purpose; here that
/// time is a cost that is counted.
fn sealed(user: &str, password: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, user.as_bytes());
    format!("hmac-sha256:{}", STANDARD_NO_PAD.encode(hmac::sign(&key, password.as_bytes())))
}

/// An id in the form of MongoDB's.
pub(crate) fn object_id() -> String {
    format!("{:.24}", uuid::Uuid::new_v4().simple().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_password_belongs_to_its_user() {
        assert_eq!(sealed("a", "word"), sealed("a", "word"));
        assert_ne!(sealed("a", "word"), sealed("b", "word"));
        assert_ne!(sealed("a", "word"), sealed("a", "Word"));
        assert!(!sealed("a", "word").contains("word"));
    }
}
