//! The command line of the reference deployment, shared by its own binary and
//! `capacity-check reference-chat`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use mock_llm::distribution::parse_duration;
use mock_llm::process::{announce, ended, listen};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::plant::Plant;
use crate::server::serve;
use crate::settings::{Costs, Limit, Limits, Settings};

/// The variable of the secret that signs bearer tokens.
pub const SECRET_VARIABLE: &str = "JWT_SECRET";

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

    /// Something that goes wrong on purpose: drop=N, double=N, swap=N, alter=N, foreign=N (one token in N),
    /// buffer, coalesce=K, delay=TIME, late=K or late-lost=K (the first K tokens), titles; repeatable.
    /// `GET /reference/plants` tells how many tokens each has harmed.
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
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
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
            fixed: self.fixed_latency.unwrap_or(costs.fixed),
            passes: costs.passes,
        };
        settings.one_step = self.one_step;
        settings.plants.clone_from(&self.plant);
        settings.shared_streams = self.shared_streams;
        settings.token_life = self.token_life;
        settings.upstream_patience = self.upstream_patience;
        settings.limits = self.limits();
        Ok(settings)
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

    /// Listens, says where on standard output, and serves until interrupted.
    ///
    /// # Errors
    /// When a flag makes no sense or the address cannot be used.
    pub async fn run(self) -> Result<(), ReferenceError> {
        let settings = self.settings()?;
        let listener = listen(self.listen).map_err(|source| ReferenceError::Listen { address: self.listen, source })?;
        announce(&Listening { chat: format!("http://{}", listener.local_addr()?) })?;
        serve(listener, settings, ended(self.exit_with_stdin)).await?;
        Ok(())
    }
}
