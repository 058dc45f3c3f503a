//! The command line of the reference deployment, shared by its own binary and
//! `capacity-check reference-chat`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use mock_llm::distribution::parse_duration;
use mock_llm::process::{announce, ended, listen};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::plant::Plant;
use crate::server::Opened;
use crate::settings::{Costs, Limit, Limits, Settings};
use crate::store::{MongoSettings, RedisSettings, StoreError, missing_store, mongo::named_database};

/// The variable of the secret that signs bearer tokens.
pub const SECRET_VARIABLE: &str = "JWT_SECRET";
/// The variable of MongoDB's connection string, where the flag has no value.
pub const MONGO_VARIABLE: &str = "MONGO_URI";
/// The variable of Redis' URL, where the flag has no value.
pub const REDIS_VARIABLE: &str = "REDIS_URI";
/// The variable of the bearer token for `/metrics`.
pub const METRICS_VARIABLE: &str = "METRICS_SECRET";
/// The database where neither flag nor connection string names one.
const DATABASE: &str = "LibreChat";
/// Databases that are MongoDB's own.
const OWN_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// The address of a store, with its password: never shown.
#[derive(Clone)]
pub struct StoreAddress(String);

impl From<String> for StoreAddress {
    fn from(address: String) -> Self {
        Self(address)
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Flags of the reference deployment.
#[derive(Debug, Clone, Args)]
pub struct ReferenceArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:3080", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Base of the OpenAI-compatible model behind it; its key is read from OPENAI_API_KEY.
    #[arg(long, default_value = "http://127.0.0.1:8089/v1", value_name = "URL")]
    pub upstream: Url,
    /// Name of the custom endpoint.
    #[arg(long, default_value = "Mock", value_name = "NAME")]
    pub endpoint: String,

    /// Node processes that share the work.
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Costs")]
    pub workers: usize,
    /// Burn the costs as CPU time instead of counting them.
    #[arg(long, help_heading = "Costs")]
    pub burn: bool,
    /// Exclusive time of a login. [default: 95ms]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Costs")]
    pub login_cost: Option<Duration>,
    /// Exclusive time of a turn before the model is asked. [default: 16.5ms]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Costs")]
    pub turn_cost: Option<Duration>,
    /// Exclusive time of a token. [default: 1.24ms]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Costs")]
    pub token_cost: Option<Duration>,
    /// Time that a turn waits besides, not exclusive. [default: 30ms]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Costs")]
    pub fixed_latency: Option<Duration>,

    /// Speak as v0.8.1 and before: the POST answers with the stream.
    #[arg(long, help_heading = "Wire")]
    pub one_step: bool,
    /// As two processes over Redis: what was sent before somebody subscribed is lost to them.
    #[arg(long, help_heading = "Wire")]
    pub shared_streams: bool,
    /// How long a bearer token lives.
    #[arg(long, default_value = "900s", value_name = "TIME", value_parser = duration, help_heading = "Wire")]
    pub token_life: Duration,
    /// How long a failing model is tried again before the user is told.
    #[arg(long, default_value = "105s", value_name = "TIME", value_parser = duration, help_heading = "Wire")]
    pub upstream_patience: Duration,

    /// LibreChat's default limits and bans; the flags below change single ones.
    #[arg(long, help_heading = "Limits")]
    pub default_limits: bool,
    /// Logins of an address in 5 minutes.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub login_max: Option<u32>,
    /// Registrations of an address in an hour.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub register_max: Option<u32>,
    /// Messages of an address in a minute.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub message_ip_max: Option<u32>,
    /// Messages of a user in a minute.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub message_user_max: Option<u32>,
    /// Open turns of a user.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub concurrent_message_max: Option<u32>,
    /// Violations of one kind after which user and address are banned for 2 h.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub ban_violations: Option<u32>,

    /// Keep accounts and conversations in this MongoDB, as LibreChat does; without a value the one in MONGO_URI.
    #[arg(long, value_name = "URI", num_args = 0..=1, default_missing_value = "", help_heading = "Stores")]
    pub mongo_uri: Option<StoreAddress>,
    /// The database. [default: the one that the URI names, else LibreChat]
    #[arg(long, value_name = "NAME", requires = "mongo_uri", help_heading = "Stores")]
    pub mongo_database: Option<String>,
    /// The most connections to MongoDB at once (LibreChat's MONGO_MAX_POOL_SIZE).
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Stores")]
    pub mongo_pool: u32,
    /// Keep sessions, limiters and streams in this Redis; without a value the one in REDIS_URI.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "", help_heading = "Stores")]
    pub redis_url: Option<StoreAddress>,
    /// What stands before the keys in Redis (LibreChat's REDIS_KEY_PREFIX).
    #[arg(long, value_name = "NAME", default_value = "librechat", help_heading = "Stores")]
    pub redis_prefix: String,
    /// Remove the whole database, and all keys that begin with the prefix, in the end.
    #[arg(long, hide = true)]
    pub scratch: bool,

    /// Something that goes wrong on purpose: drop=N, double=N, swap=N, alter=N, foreign=N (one token in N),
    /// buffer, coalesce=K, delay=TIME, late=K or late-lost=K (the first K tokens), titles; repeatable.
    /// `GET /reference/plants` tells how many tokens each has harmed. Of the stores: slow-mongo=TIME, logs=N,
    /// redis-maxclients=N, redis-maxmemory=BYTES. Of the processes: leak=BYTES (each turn), worker-cost=F (the
    /// first worker's work costs F times as much).
    #[arg(long, value_name = "PLANT", value_parser = Plant::parse, help_heading = "Plants")]
    pub plant: Vec<Plant>,

    /// End when standard input ends, so that a parent's death ends the child too.
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

/// What the deployment prints on standard output when it listens: one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listening {
    /// Where it is, as `http://ADDR`.
    pub chat: String,
}

/// Why the deployment did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (--listen): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A flag that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Serving broke.
    #[error("cannot serve: {0}")]
    Serve(#[from] io::Error),
}

impl ReferenceArgs {
    /// The settings that the flags mean; secrets come from the environment.
    ///
    /// # Errors
    /// When a flag makes no sense.
    pub fn settings(&self) -> Result<Settings, ReferenceError> {
        if self.workers == 0 {
            return Err(ReferenceError::Usage("--workers should be 1 or more".to_owned()));
        }
        if !matches!(self.upstream.scheme(), "http" | "https") {
            return Err(ReferenceError::Usage("--upstream should begin with http:// or https://".to_owned()));
        }
        // Without a secret nobody but this process signs tokens.
        let secret = variable(SECRET_VARIABLE).unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let mut settings = Settings::new(self.upstream.clone(), secret);
        let costs = Costs::default();
        settings.upstream_key = variable("OPENAI_API_KEY");
        settings.endpoint.clone_from(&self.endpoint);
        settings.workers = self.workers;
        settings.burn = self.burn;
        settings.costs = Costs {
            login: self.login_cost.unwrap_or(costs.login),
            turn: self.turn_cost.unwrap_or(costs.turn),
            token: self.token_cost.unwrap_or(costs.token),
            // It stands for the database; where one is, it takes its own time.
            fixed: self.fixed_latency.unwrap_or(if self.mongo_uri.is_some() { Duration::ZERO } else { costs.fixed }),
            passes: costs.passes,
        };
        settings.one_step = self.one_step;
        settings.plants.clone_from(&self.plant);
        settings.shared_streams = self.shared_streams;
        settings.token_life = self.token_life;
        settings.upstream_patience = self.upstream_patience;
        settings.limits = self.limits();
        settings.metrics_secret = variable(METRICS_VARIABLE);
        settings.mongo = self.mongo()?;
        settings.redis = self.redis()?;
        settings.scratch = self.scratch;
        if let Some(missing) = missing_store(&settings) {
            return Err(ReferenceError::Usage(missing));
        }
        Ok(settings)
    }

    fn mongo(&self) -> Result<Option<MongoSettings>, ReferenceError> {
        let Some(StoreAddress(uri)) = &self.mongo_uri else { return Ok(None) };
        let uri = given_or_from(uri, "--mongo-uri", MONGO_VARIABLE)?;
        let named = named_database(&uri)?;
        let database = self.mongo_database.clone().or(named).unwrap_or_else(|| DATABASE.to_owned());
        if database.is_empty() || OWN_DATABASES.contains(&database.as_str()) {
            let text = "--mongo-database should name a database for the deployment, not one of MongoDB's own";
            return Err(ReferenceError::Usage(text.to_owned()));
        }
        Ok(Some(MongoSettings { uri, database, pool: self.mongo_pool }))
    }

    fn redis(&self) -> Result<Option<RedisSettings>, ReferenceError> {
        let Some(StoreAddress(url)) = &self.redis_url else { return Ok(None) };
        let url = given_or_from(url, "--redis-url", REDIS_VARIABLE)?;
        if self.redis_prefix.is_empty() {
            return Err(ReferenceError::Usage("--redis-prefix should not be empty".to_owned()));
        }
        Ok(Some(RedisSettings { url, prefix: self.redis_prefix.clone() }))
    }

    fn limits(&self) -> Limits {
        let base = if self.default_limits { Limits::LIBRECHAT } else { Limits::default() };
        let window = |max: Option<u32>, seconds, base| {
            max.map_or(base, |max| Some(Limit { max, per: Duration::from_secs(seconds) }))
        };
        Limits {
            login: window(self.login_max, 300, base.login),
            register: window(self.register_max, 3_600, base.register),
            message_ip: window(self.message_ip_max, 60, base.message_ip),
            message_user: window(self.message_user_max, 60, base.message_user),
            concurrent: self.concurrent_message_max.or(base.concurrent),
            ban_at: self.ban_violations.or(base.ban_at),
        }
    }

    /// Opens the stores, listens, says where on standard output, and serves until interrupted.
    ///
    /// # Errors
    /// When a flag makes no sense, or the address or a store cannot be used.
    pub async fn run(self) -> Result<(), ReferenceError> {
        let settings = self.settings()?;
        let stored = settings.mongo.is_some() || settings.redis.is_some();
        let listener = listen(self.listen).map_err(|source| ReferenceError::Listen { address: self.listen, source })?;
        let chat = format!("http://{}", listener.local_addr()?);
        let opened = Box::pin(Opened::new(settings)).await?;
        if let Err(error) = announce(&Listening { chat }) {
            opened.close().await?;
            return Err(error.into());
        }
        let shutdown = async {
            tokio::select! {
                () = ended(self.exit_with_stdin) => {}
                () = terminated(), if stored => {}
            }
        };
        Box::pin(opened.serve(listener, shutdown)).await?;
        Ok(())
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a flag says, or what a variable does where the flag has no value.
fn given_or_from(given: &str, flag: &str, name: &str) -> Result<String, ReferenceError> {
    if !given.is_empty() {
        return Ok(given.to_owned());
    }
    let missing = || ReferenceError::Usage(format!("{flag} without a value is read from {name}, which is not set"));
    variable(name).ok_or_else(missing)
}

/// Waits for SIGTERM, so that what was planted in a store is taken back then too.
async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Then the default action ends the process.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        reference: ReferenceArgs,
    }

    fn settings(flags: &[&str]) -> Result<Settings, ReferenceError> {
        Cli::try_parse_from([&["reference-chat"][..], flags].concat()).expect("flags are read").reference.settings()
    }

    #[test]
    fn without_flags_everything_is_in_memory() {
        let settings = settings(&[]).unwrap();
        assert!(settings.mongo.is_none() && settings.redis.is_none() && !settings.scratch);
        assert_eq!(settings.costs, Costs::default());
    }

    #[test]
    fn a_database_takes_its_own_time_unless_another_is_asked_for() {
        let uri = "mongodb://me:hunter2@127.0.0.1:1/chat";
        let with = settings(&["--mongo-uri", uri]).unwrap();
        assert_eq!(with.costs, Costs { fixed: Duration::ZERO, ..Costs::default() });
        let mongo = with.mongo.as_ref().unwrap();
        assert_eq!((mongo.database.as_str(), mongo.pool), ("chat", 100));
        assert!(!format!("{with:?}").contains("hunter2"));
        let flags = ["--mongo-uri", uri, "--mongo-database", "other", "--mongo-pool", "5", "--fixed-latency", "7ms"];
        let with = settings(&flags).unwrap();
        assert_eq!(with.costs.fixed, Duration::from_millis(7));
        let mongo = with.mongo.unwrap();
        assert_eq!((mongo.database.as_str(), mongo.pool), ("other", 5));
        let unnamed = settings(&["--mongo-uri", "mongodb://127.0.0.1:1"]).unwrap();
        assert_eq!(unnamed.mongo.unwrap().database, DATABASE);
    }

    #[test]
    fn flags_that_make_no_sense_are_told_without_secrets() {
        let redis = ["--redis-url", "redis://:hunter2@127.0.0.1:1"];
        for (flags, part) in [
            (&["--plant", "slow-mongo=10ms"][..], "wants MongoDB: give --mongo-uri"),
            (&["--plant", "redis-maxclients=3"][..], "wants Redis: give --redis-url"),
            (&["--mongo-uri", "me:hunter2@host"][..], "cannot use MongoDB (--mongo-uri)"),
            (&["--mongo-uri", "mongodb://127.0.0.1:1/admin"][..], "MongoDB's own"),
            (&[redis[0], redis[1], "--redis-prefix", ""][..], "--redis-prefix"),
        ] {
            let error = settings(flags).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("hunter2"), "{flags:?}: {error}");
        }
        let given = settings(&redis).unwrap().redis.unwrap();
        assert_eq!(given.prefix, "librechat");
        assert!(given_or_from("", "--redis-url", "NO_SUCH_VARIABLE_HERE").unwrap_err().to_string().contains("not set"));
    }
}
