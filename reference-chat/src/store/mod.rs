//! Real stores behind the deployment: MongoDB for accounts and conversations, Redis for sessions,
//! limiters and streams. Each works without the other; without both everything is in memory.

pub(crate) mod commands;
mod documents;
mod hub;
pub(crate) mod mongo;
pub(crate) mod ops;
pub(crate) mod stream;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use commands::Redis;
use mongo::Mongo;
pub use ops::Operations;

use crate::metrics::Metrics;
use crate::plant::Plant;
use crate::settings::Settings;

/// How long a store may take to answer before the deployment does not start.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where accounts and conversations are kept.
#[derive(Clone)]
pub struct MongoSettings {
    /// The connection string; it holds a password and is never shown.
    pub uri: String,
    /// The database.
    pub database: String,
    /// The most connections at once, LibreChat's `MONGO_MAX_POOL_SIZE`.
    pub pool: u32,
}

impl fmt::Debug for MongoSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoSettings")
            .field("uri", &"[redacted]")
            .field("database", &self.database)
            .field("pool", &self.pool)
            .finish()
    }
}

/// Where sessions, limiters and streams are kept.
#[derive(Clone)]
pub struct RedisSettings {
    /// The URL; it may hold a password and is never shown.
    pub url: String,
    /// What stands before the keys, LibreChat's `REDIS_KEY_PREFIX`.
    pub prefix: String,
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings").field("url", &"[redacted]").field("prefix", &self.prefix).finish()
    }
}

/// Why a store could not be used; without its address and password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It was not there, or not as it should be, when the deployment started or ended.
    #[error("cannot use {store} ({flag}): {what}")]
    Unusable {
        /// Its name.
        store: &'static str,
        /// The flag that names it.
        flag: &'static str,
        /// What it or its driver said.
        what: String,
    },
    /// It refused an operation.
    #[error("{store}: {what}")]
    Refused {
        /// Its name.
        store: &'static str,
        /// What it or its driver said.
        what: String,
    },
    /// A plant cannot be planted.
    #[error("{0}")]
    Plant(String),
}

impl StoreError {
    /// The same error, met where the deployment starts or ends.
    fn at_start(self, flag: &'static str) -> Self {
        match self {
            Self::Refused { store, what } => Self::Unusable { store, flag, what },
            other => other,
        }
    }
}

/// The stores that are there.
pub(crate) struct Stores {
    pub(crate) mongo: Option<Arc<Mongo>>,
    pub(crate) redis: Option<Arc<Redis>>,
    scratch: bool,
}

impl Stores {
    /// Opens what the settings name and plants what belongs there; each must have answered by then.
    pub(crate) async fn open(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Self, StoreError> {
        if let Some(missing) = missing_store(settings) {
            return Err(StoreError::Plant(missing));
        }
        let mongo = match &settings.mongo {
            Some(wanted) => {
                let opened = Box::pin(Mongo::open(wanted, metrics)).await;
                Some(Arc::new(opened.map_err(|error| error.at_start(mongo::FLAG))?))
            }
            None => None,
        };
        let redis = match &settings.redis {
            Some(wanted) => {
                let opened = Redis::open(wanted, settings.scratch).await;
                Some(Arc::new(opened.map_err(|error| error.at_start(commands::FLAG))?))
            }
            None => None,
        };
        let stores = Self { mongo, redis, scratch: settings.scratch };
        if let Err(error) = stores.plant(&settings.plants).await {
            // What was planted before is taken back; the first error is the one that is told.
            let _ = stores.close().await;
            return Err(error);
        }
        Ok(stores)
    }

    async fn plant(&self, plants: &[Plant]) -> Result<(), StoreError> {
        if let Some(mongo) = &self.mongo {
            mongo.plant(plants).await.map_err(|error| error.at_start(mongo::FLAG))?;
        }
        if let Some(redis) = &self.redis {
            redis.plant(plants).await.map_err(|error| error.at_start(commands::FLAG))?;
        }
        Ok(())
    }

    /// Takes back what was planted and, where the stores are for scratch, removes what was stored.
    /// All of it is tried; the first error is given.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        // Side by side: whoever waits for both may not have long.
        let mongo = async {
            match &self.mongo {
                Some(mongo) => mongo.close(self.scratch).await.map_err(|error| error.at_start(mongo::FLAG)),
                None => Ok(()),
            }
        };
        let redis = async {
            match &self.redis {
                Some(redis) => redis.close(self.scratch).await.map_err(|error| error.at_start(commands::FLAG)),
                None => Ok(()),
            }
        };
        let (mongo, redis) = tokio::join!(Box::pin(mongo), Box::pin(redis));
        mongo.and(redis)
    }
}

/// What to say of the first plant whose store is not there.
pub(crate) fn missing_store(settings: &Settings) -> Option<String> {
    settings.plants.iter().find_map(|plant| {
        let (store, flag, there) = match plant {
            Plant::SlowMongo(_) | Plant::Logs(_) => ("MongoDB", mongo::FLAG, settings.mongo.is_some()),
            Plant::RedisMaxClients(_) | Plant::RedisMaxMemory(_) => ("Redis", commands::FLAG, settings.redis.is_some()),
            _ => return None,
        };
        (!there).then(|| format!("the plant `{}` wants {store}: give {flag}", plant.name()))
    })
}

/// What a driver said, in one line of bounded length, without secrets.
fn shown(error: &impl fmt::Display, secrets: &[String]) -> String {
    let mut text = error.to_string();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.as_str(), "[redacted]");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
}

/// What must not be shown of a connection string: itself, and its password as it is written and as
/// it is meant.
fn secrets(uri: &str) -> Vec<String> {
    let who = uri.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(who, _)| who);
    let password = who.and_then(|who| who.split_once(':')).map(|(_, password)| password.to_owned());
    let meant = url::Url::parse(&format!("x://{}@x", who.unwrap_or_default()))
        .ok()
        .and_then(|url| url.password().map(percent_decoded));
    [uri.to_owned()].into_iter().chain(password).chain(meant).collect()
}

fn percent_decoded(text: &str) -> String {
    url::form_urlencoded::parse(format!("x={}", text.replace('+', "%2B")).as_bytes())
        .next()
        .map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let uri = "mongodb://me:p%40ss@db.test:27017/chat";
        let error = format!("cannot reach {uri}\nwith p%40ss or p@ss");
        assert_eq!(shown(&error, &secrets(uri)), "cannot reach [redacted] with [redacted] or [redacted]");
        let mongo = MongoSettings { uri: uri.to_owned(), database: "chat".to_owned(), pool: 5 };
        let redis = RedisSettings { url: "redis://:word@host".to_owned(), prefix: "p".to_owned() };
        let debug = format!("{mongo:?} {redis:?}");
        assert!(!debug.contains("ss@") && !debug.contains("word") && debug.contains("chat"), "{debug}");
    }

    #[test]
    fn an_error_names_its_flag_where_the_deployment_starts() {
        let refused = StoreError::Refused { store: "MongoDB", what: "no".to_owned() };
        assert_eq!(refused.to_string(), "MongoDB: no");
        assert_eq!(refused.at_start(mongo::FLAG).to_string(), "cannot use MongoDB (--mongo-uri): no");
    }

    #[test]
    fn a_plant_without_its_store_is_told() {
        let mut settings = Settings::new("http://127.0.0.1:1/v1".parse().unwrap(), "secret");
        settings.plants = vec![Plant::Leak(5), Plant::RedisMaxClients(3)];
        let missing = missing_store(&settings).unwrap();
        assert!(missing.contains("redis-maxclients") && missing.contains("--redis-url"), "{missing}");
        settings.redis = Some(RedisSettings { url: String::new(), prefix: "p".to_owned() });
        assert_eq!(missing_store(&settings), None);
    }
}
