//! What a run was asked to do, with its defaults and the problems of what was asked.

mod budget;
mod connecting;
pub mod file;
mod guard;
mod journey;
mod load;
mod place;
mod presets;
mod probe;
mod prompts;
mod protocol;
mod read;
mod target;
mod template;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use budget::{Budget, BudgetMetric, Limit, Spoilt, Statistic, default_budgets, parse_share};
pub use connecting::{Connecting, Pinned, parse_proxy, parse_sources};
pub use file::WhiteSpace;
pub use guard::AbortOn;
pub use journey::{After, Disturb, Disturbance, Journey, JourneyStep, Risk, Turns};
pub use load::{Arrivals, Load, Process, Role, Shape, Tier, Times};
pub use mock_llm::Problem;
pub use place::{Place, Places};
pub use probe::{MongoProbe, Probes, ProcessProbe, PrometheusProbe, Which, librechat_queries};
pub use prompts::{Prompts, PromptsError};
pub use protocol::{
    API_KEY, Condition, Field, Framing, PLACES, Part, ProtocolPlan, ReplyRules, RequestPlan, Resume, Site,
    SocketIoPlan, SocketPer, Source, SsePlan, TokenAt, Transport, WebSocketPlan,
};
pub use read::{Written as WrittenScenario, Wrong, read, schema};
pub use target::{Accounts, Reference, Target, is_private, is_private_address, plain_url};
pub use template::Template;

/// The ladder of `--users`: the tiers below the number that was asked for.
pub const LADDER: [u32; 6] = [50, 100, 500, 1_000, 2_000, 5_000];

/// A run as it was asked for. Secrets are no part of it.
#[derive(Debug, Clone, Serialize)]
pub struct Scenario {
    /// Names the report's folder.
    pub name: String,
    /// What the run is for.
    pub description: Option<String>,
    /// What is tested.
    pub target: Target,
    /// The model that is asked for; found out where it is not said.
    pub model: Option<String>,
    /// Logins (and registrations) a second, before the first tier.
    pub login_rate: f64,
    /// Users, times and conversations.
    pub load: Load,
    /// Prompts and think times are drawn from it.
    pub seed: u64,
    /// A first look: short, not comparable, never gates.
    pub quick: bool,
    /// Whether a warning fails the run.
    pub fail_on_warn: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When a run is given up.
    pub guards: Guards,
    /// What is watched beside the users.
    pub probes: Probes,
    /// How exactly white space of replies is compared, where turns are traced.
    pub white_space: WhiteSpace,
    /// Whether the target may be another model than our mock.
    pub real_model: bool,
    /// Names of the headers that are sent besides the protocol's.
    pub headers: Vec<String>,
    /// Certificate authorities besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether any certificate was accepted.
    pub insecure: bool,
    /// Whether HTTP/1.1 is spoken even where HTTP/2 is offered.
    pub http1: bool,
    /// How connections are made, where it is not as the target's URL alone says.
    #[serde(skip_serializing_if = "Connecting::is_plain")]
    pub connecting: Connecting,
    /// Threads that carry users.
    pub shards: usize,
}

impl Scenario {
    /// The most users at once.
    pub fn peak(&self) -> u32 {
        self.load.peak()
    }
}

/// How long things may take.
#[derive(Debug, Clone, Serialize)]
pub struct Timeouts {
    /// TCP, a proxy's tunnel and TLS together.
    #[serde(rename = "connect_s", serialize_with = "seconds")]
    pub connect: Duration,
    /// Without a single byte from the target.
    #[serde(rename = "stall_s", serialize_with = "seconds")]
    pub stall: Duration,
    /// A whole turn.
    #[serde(rename = "turn_s", serialize_with = "seconds")]
    pub turn: Duration,
}

/// When a run is given up.
#[derive(Debug, Clone, Serialize)]
pub struct Guards {
    /// On this error rate.
    pub abort_on: Option<AbortOn>,
    /// After this long.
    #[serde(rename = "max_duration_s", serialize_with = "optional_seconds")]
    pub max_duration: Option<Duration>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn optional_seconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

/// The tiers of `--users N`: the ladder below N, then N.
pub fn ladder(users: u32) -> Vec<u32> {
    LADDER.into_iter().filter(|tier| *tier < users).chain([users]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_ends_with_what_was_asked() {
        assert_eq!(ladder(500), [50, 100, 500]);
        assert_eq!(ladder(501), [50, 100, 500, 501]);
        assert_eq!(ladder(7), [7]);
        assert_eq!(ladder(10_000), [50, 100, 500, 1_000, 2_000, 5_000, 10_000]);
    }
}
