//! What a run was asked to do, with its defaults and the problems of what was asked.

mod budget;
pub mod file;
mod guard;
mod journey;
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

use mock_llm::distribution::Written;
use serde::Serialize;

pub use budget::{Budget, BudgetMetric, Limit, Spoilt, Statistic, default_budgets, parse_share};
pub use file::WhiteSpace;
pub use guard::AbortOn;
pub use journey::{After, Disturb, Disturbance, Journey, JourneyStep, Risk, Turns};
pub use mock_llm::Problem;
pub use place::{Place, Places};
pub use probe::{MongoProbe, Probes, ProcessProbe, PrometheusProbe, Which, librechat_queries};
pub use prompts::{Prompts, PromptsError};
pub use protocol::{
    API_KEY, Condition, Field, Framing, PLACES, Part, ProtocolPlan, ReplyRules, RequestPlan, Resume, Site,
    SocketIoPlan, SocketPer, Source, SsePlan, TokenAt, Transport, WebSocketPlan,
};
pub use read::{Written as WrittenScenario, Wrong, read, schema};
pub use target::{Accounts, Reference, Target, is_private, plain_url};
pub use template::Template;

use crate::grade::Verdict;

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
    /// Threads that carry users.
    pub shards: usize,
}

/// How many users, and what they do.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// The tiers, rising.
    pub tiers: Vec<Tier>,
    /// Over how long the new users of a tier come.
    #[serde(rename = "ramp_s", serialize_with = "seconds")]
    pub ramp: Duration,
    /// The least length of a tier's steady phase.
    #[serde(rename = "steady_s", serialize_with = "seconds")]
    pub steady: Duration,
    /// The greatest length of it, where the budgets want more samples.
    #[serde(rename = "steady_max_s", serialize_with = "seconds")]
    pub steady_max: Duration,
    /// Between a turn's end and the next turn's intended start.
    pub think: Written,
    /// The most turns of a conversation; the next one begins without history.
    pub turns: u32,
    /// What users say.
    pub prompts: Prompts,
    /// The share of turns that the user cancels in the middle of the reply.
    pub cancel_share: f64,
}

/// A number of concurrent users that is held for a while.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tier {
    /// Concurrent users.
    pub users: u32,
    /// The least verdict that is good enough here, where the scenario says so.
    pub expect: Option<Verdict>,
    /// What must hold here.
    pub budgets: Vec<Budget>,
}

impl Scenario {
    /// The most users at once.
    pub fn peak(&self) -> u32 {
        self.load.tiers.last().map_or(0, |tier| tier.users)
    }
}

/// How long things may take.
#[derive(Debug, Clone, Serialize)]
pub struct Timeouts {
    /// TCP and TLS together.
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
