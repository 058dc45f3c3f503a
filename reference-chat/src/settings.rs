//! What a reference deployment is told: costs, limits, wire version.

use std::fmt;
use std::time::Duration;

use url::Url;

use crate::plant::Plant;
use crate::store::{MongoSettings, RedisSettings};

/// All of it. Its `Debug` shows no secret.
#[derive(Clone)]
pub struct Settings {
    /// The base of the OpenAI-compatible model behind it, such as `http://host/v1`.
    pub upstream: Url,
    /// The bearer key for it.
    pub upstream_key: Option<String>,
    /// The custom endpoint's name.
    pub endpoint: String,
    /// Node processes: event loops that share the work.
    pub workers: usize,
    /// Burn the costs as CPU time, one thread a worker, instead of counting them.
    pub burn: bool,
    /// What things cost.
    pub costs: Costs,
    /// Speak as v0.8.1 and before: the POST answers with the stream.
    pub one_step: bool,
    /// As two processes over Redis: what was sent before somebody subscribed is lost to them.
    pub shared_streams: bool,
    /// What is refused.
    pub limits: Limits,
    /// How long a bearer token lives.
    pub token_life: Duration,
    /// How long a failing upstream is tried again before the user is told.
    pub upstream_patience: Duration,
    /// What goes wrong on purpose.
    pub plants: Vec<Plant>,
    /// Signs bearer tokens.
    pub jwt_secret: String,
    /// Where accounts and conversations are kept; in memory without it. Then `costs.fixed`, which
    /// stands for the database, should be nothing.
    pub mongo: Option<MongoSettings>,
    /// Where sessions, limiters and streams are kept; in memory without it.
    pub redis: Option<RedisSettings>,
    /// Remove all that was stored when the deployment ends: the whole database, and every key that
    /// begins with the prefix.
    pub scratch: bool,
    /// The bearer token without which `/metrics` is refused; anybody may read it if there is none.
    pub metrics_secret: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("workers", &self.workers)
            .field("burn", &self.burn)
            .field("costs", &self.costs)
            .field("one_step", &self.one_step)
            .field("shared_streams", &self.shared_streams)
            .field("limits", &self.limits)
            .field("token_life", &self.token_life)
            .field("upstream_patience", &self.upstream_patience)
            .field("plants", &self.plants)
            .field("mongo", &self.mongo)
            .field("redis", &self.redis)
            .field("scratch", &self.scratch)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// A deployment before `upstream`, with the calibrated costs of one process and no limits.
    pub fn new(upstream: Url, jwt_secret: impl Into<String>) -> Self {
        Self {
            upstream,
            upstream_key: None,
            endpoint: "Mock".to_owned(),
            workers: 1,
            burn: false,
            costs: Costs::default(),
            one_step: false,
            shared_streams: false,
            limits: Limits::default(),
            token_life: Duration::from_secs(900),
            upstream_patience: Duration::from_secs(105),
            plants: Vec::new(),
            jwt_secret: jwt_secret.into(),
            mongo: None,
            redis: None,
            scratch: false,
            metrics_secret: None,
        }
    }
}

/// What things cost. The default is calibrated to LibreChat v0.8.7 on one process
/// (`benches/results`): the median TTFT and turn at 1, 10, 50 and 100 streams at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// A login or registration: exclusive, in one piece (the password's hash).
    pub login: Duration,
    /// A turn before the model is asked: exclusive, in `passes` pieces.
    pub turn: Duration,
    /// How often a turn goes through the event loop before the model is asked. A turn waits for
    /// some thirty database operations, and behind everybody else's work after each round of
    /// them; with the cost in one piece a busy process would show too small a TTFT.
    pub passes: u32,
    /// A token, exclusive.
    pub token: Duration,
    /// What a turn waits for besides, not exclusive: the database, the network.
    pub fixed: Duration,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            login: Duration::from_millis(95),
            turn: Duration::from_micros(16_500),
            passes: 11,
            token: Duration::from_micros(1_240),
            fixed: Duration::from_millis(30),
        }
    }
}

impl Costs {
    /// Nothing costs anything: for tests of the protocol.
    pub const FREE: Self =
        Self { login: Duration::ZERO, turn: Duration::ZERO, passes: 1, token: Duration::ZERO, fixed: Duration::ZERO };
}

/// So many in a window that begins with the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many pass.
    pub max: u32,
    /// The length of the window.
    pub per: Duration,
}

/// What is refused. The default refuses nothing, as an operator sets it for a test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Logins of an address.
    pub login: Option<Limit>,
    /// Registrations of an address.
    pub register: Option<Limit>,
    /// Messages of an address.
    pub message_ip: Option<Limit>,
    /// Messages of a user.
    pub message_user: Option<Limit>,
    /// Open turns of a user.
    pub concurrent: Option<u32>,
    /// Violations after which user and address are banned for 2 h.
    pub ban_at: Option<u32>,
}

impl Limits {
    /// LibreChat's defaults, with the limits of messages that it switches on in its example.
    pub const LIBRECHAT: Self = Self {
        login: Some(Limit { max: 7, per: Duration::from_secs(300) }),
        register: Some(Limit { max: 5, per: Duration::from_secs(3_600) }),
        message_ip: Some(Limit { max: 40, per: Duration::from_secs(60) }),
        message_user: None,
        concurrent: Some(2),
        ban_at: Some(20),
    };
}
