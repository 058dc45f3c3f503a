//! The one result of a run: serialised, versioned, and all that reports ever see.

mod metrics;
mod probe;
mod read;
mod reason;
mod steady;
mod trace;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::grade::{Role, Verdict};
use crate::metric::Metric;
pub use crate::record::{
    Event, EventKind, Gap, Gauge, IndexAudit, IndexFinding, IndexProblem, Limit, LimitSource, Missing, Point,
    PoolStudy, PoolTrial, Probe, Series, Smallest, Unit, Watched,
};
pub use crate::record::{Example, Finding, Flaw, Flaws, Parts, Reading, Relay, Slow, Step, TimelinePoint, Wire};
pub use metrics::{BlockResult, DecodeError, MetricResult, failed_metrics, metrics, steps_of};
pub use probe::{Balance, Checkout, Growth, Probes, SizingRow, Used};
pub use read::{ReadError, read};
pub use reason::{Reason, SampleUnit};
pub use steady::{Drift, LittlesLaw, Recovery};
pub use trace::{Calibration, Stack, TierTraceResult, TraceResult, tier_trace};

/// The version of the form; it rises when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 3;

/// A whole run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    /// The version of this form.
    pub schema_version: u32,
    /// What made it.
    pub tool: Tool,
    /// What was asked for, as resolved.
    pub scenario: serde_json::Value,
    /// What was tested.
    pub target: TargetInfo,
    /// When the run began, RFC 3339 in UTC.
    pub started_at: String,
    /// How long it took.
    pub duration_s: f64,
    /// Whether it can be compared with others and may gate: not so for `--quick`.
    pub comparable: bool,
    /// The users that the run is about: those of the largest tier that was planned.
    pub asked: u32,
    /// Of an open load: the turns a second that the run is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked_rate: Option<f64>,
    /// The verdict of that tier; where a tier carries an expectation, the worst of it and of every
    /// expectation that was not met.
    pub verdict: Verdict,
    /// What is to be said of the run besides its tiers' reasons.
    pub reasons: Vec<Reason>,
    /// How the run ended.
    pub end: End,
    /// The most users at which the verdict is still pass.
    pub capacity: Capacity,
    /// The tiers that were begun.
    pub tiers: Vec<TierResult>,
    /// All turns of the run, those of ramps and drains among them.
    pub totals: Counts,
    /// The generator over the whole run.
    pub generator: GeneratorResult,
    /// The other side of traced turns, over the whole run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<TraceResult>,
    /// What was seen beside the users: stores, processes, endpoints.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probes: Option<Probes>,
    /// How the deployment came back from a crowd, where there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovery: Option<Recovery>,
    /// How many of the users that were planned follow which journey, by name, where there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub journeys: BTreeMap<String, u64>,
    /// What users did besides turns, over the whole run.
    #[serde(default)]
    pub steps: BTreeMap<Step, StepResult>,
    /// A point a second; in a run of more than two hours neighbours are joined.
    pub timeline: Vec<TimelinePoint>,
}

impl RunResult {
    /// Whether the run's verdict rests on a tier: the largest one, or the usual load before a crowd or a rise, and after
    /// a crowd.
    pub fn is_about(&self, role: Role, users: u32, rate: Option<f64>) -> bool {
        match role {
            Role::Step | Role::Rise | Role::Soak => users == self.asked && rate == self.asked_rate,
            Role::Usual | Role::Recovery => true,
            Role::Spike => false,
        }
    }

    /// The last tier on which the verdict rests, if one was reached.
    pub fn asked_tier(&self) -> Option<&TierResult> {
        self.tiers.iter().rfind(|tier| self.is_about(tier.role, tier.users, tier.rate))
    }
}

/// What made a result.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// `capacity-check`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What was tested.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TargetInfo {
    /// `embedded`, `openai`, `librechat`, `sse`, `websocket` or `socketio`.
    pub kind: String,
    /// The base URL.
    pub url: String,
    /// The endpoint of LibreChat that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub endpoint: Option<String>,
    /// The model that was asked for.
    pub model: String,
    /// Whether a turn was found in the journal of our mock.
    pub mock: bool,
    /// Whether any certificate was accepted.
    pub insecure: bool,
    /// How it was reached, where that was not as its URL alone says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reached: Option<Reached>,
}

/// How a target was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reached {
    /// The name that TLS asked for and verified in the place of the URL's host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sni: Option<String>,
    /// Whether there was a client certificate for servers that ask.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub client_cert: bool,
    /// Addresses that were taken instead of asking the resolver, `HOST:PORT:ADDRESS`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub resolved: Vec<String>,
    /// The proxy that opened a tunnel, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proxy: Option<String>,
    /// The addresses that connections came from in turn.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub source_addresses: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "how", content = "detail")]
pub enum End {
    /// Every tier was run.
    Finished,
    /// Somebody asked for an early end.
    Interrupted,
    /// A guard was tripped.
    Guard(Reason),
}

/// The answer to "how many users does it carry?".
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    /// The largest tier that passed, with every smaller one; `None`: not even the smallest did.
    pub users: Option<u32>,
    /// The smallest tier above it that did not pass; `None`: none was seen, so the capacity may be more.
    pub not_passed: Option<u32>,
    /// Of an open load: the turns a second that passed; `users` is the most that there may have been then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<f64>,
    /// Of an open load: those above it that did not pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate_not_passed: Option<f64>,
}

/// Counts of turns.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Turns that the load model wanted.
    pub intended: u64,
    /// Turns that were begun.
    pub started: u64,
    /// Turns that could not be begun.
    pub dropped: u64,
    /// How the begun ones ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Of them, the target's failures.
    pub errors: u64,
    /// Content tokens received.
    pub tokens: u64,
    /// Requests sent again because a kept-alive connection was closing.
    pub retries: u64,
    /// Streams taken up again after they had broken off.
    #[serde(default)]
    pub resumes: u64,
    /// Turns after which the deployment said for how long it wants to be left alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub told_to_wait: u64,
    /// Of them, those after which the user did wait so long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waited: u64,
    /// Words of whole texts that never arrived as tokens: somebody subscribed late.
    #[serde(default)]
    pub late_tokens: u64,
    /// Turns whose whole reply was held against what the mock sent.
    #[serde(default)]
    pub checked: u64,
    /// Tokens by what was wrong with them, of traced turns.
    #[serde(default)]
    pub flaws: Flaws,
    /// Turns by what carried them, such as `HTTP/2`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub wires: BTreeMap<String, u64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One tier.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TierResult {
    /// Concurrent users; of an open load the most that there may be.
    pub users: u32,
    /// Turns a second that an open load was to have.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<f64>,
    /// What the tier is for.
    #[serde(skip_serializing_if = "Role::is_step", default)]
    pub role: Role,
    /// The least verdict that is good enough here, where the scenario says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expect: Option<Verdict>,
    /// The worst budget's verdict, unless the generator was in the way.
    pub verdict: Verdict,
    /// Why it is not a pass.
    pub reasons: Vec<Reason>,
    /// Whether the steady phase was run to its end.
    pub complete: bool,
    /// When the steady phase began, in seconds of the run.
    pub steady_from_s: f64,
    /// How long it was.
    pub steady_s: f64,
    /// Turns of the steady phase.
    #[serde(flatten)]
    pub counts: Counts,
    /// Turns begun a second, by intended start.
    pub turns_per_s: f64,
    /// Mean streams in flight.
    pub streams: f64,
    /// Metrics of completed turns, and of the generator, by name.
    pub metrics: BTreeMap<Metric, MetricResult>,
    /// Metrics of turns that failed; `turn` also of those that were cancelled.
    pub failed_metrics: BTreeMap<Metric, MetricResult>,
    /// Where the time of traced turns went, and how their tokens came through.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<TierTraceResult>,
    /// A few places at which replies were not what they should be, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub findings: Vec<Finding>,
    /// Little's law, where the steady phase is long enough to hold it against what was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub law: Option<LittlesLaw>,
    /// How metrics changed in the course of the steady phase, where it is long enough to tell.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub drift: BTreeMap<Metric, Drift>,
    /// What each budget measured.
    pub budgets: Vec<BudgetResult>,
    /// The generator during the steady phase.
    pub generator: TierGenerator,
    /// A few turns of each outcome but success, with what the target said.
    pub examples: Vec<Example>,
}

impl TierResult {
    /// The steady phase in Unix microseconds, of a run that started at a moment.
    pub fn steady_window(&self, started: SystemTime) -> Range<u64> {
        let at = |seconds: f64| {
            let since = (started + Duration::from_secs_f64(seconds)).duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |since| since.as_micros() as u64)
        };
        at(self.steady_from_s)..at(self.steady_from_s + self.steady_s)
    }
}

/// One step: how often it was done, how it ended, how long it took.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StepResult {
    /// How it ended.
    pub outcomes: BTreeMap<String, u64>,
    /// Of those that succeeded.
    pub latency: MetricResult,
    /// A few of those that did not.
    pub examples: Vec<Example>,
}

/// What a budget measured, in microseconds or as a share from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BudgetResult {
    /// The budget, such as `ttft.p95`.
    pub metric: String,
    /// The pass bound.
    pub pass: f64,
    /// The warn bound.
    pub warn: f64,
    /// What was measured; `None`: nothing, or above every bound.
    pub measured: Option<f64>,
    /// The lower 95 % bound; `None`: too few samples, or above every bound.
    pub lower: Option<f64>,
    /// The upper 95 % bound, likewise.
    pub upper: Option<f64>,
    /// Independent samples: turns, or blocks of tokens.
    pub samples: u64,
    /// What follows.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
}

/// The generator during one tier's steady phase.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct TierGenerator {
    /// CPU time over wall time: 1 is one core.
    pub cpu_cores: f64,
    /// The same over the cores that the shards have.
    pub cpu_share: f64,
    /// Resident memory at its end.
    pub rss_bytes: u64,
    /// Open descriptors at its end.
    pub fds: u64,
    /// First tokens received.
    pub first_tokens: u64,
    /// Of them, those whose stamp is only an upper bound.
    pub first_tokens_bounded: u64,
    /// Of them, those whose bounds are more than 10 ms apart.
    pub first_tokens_wide: u64,
    /// Arrivals of tokens.
    pub arrivals: u64,
    /// Of them, those stamped in user space, for want of a kernel stamp.
    pub user_space_stamps: u64,
}

/// The generator over the whole run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct GeneratorResult {
    /// Threads that carried users.
    pub shards: usize,
    /// Cores of the machine.
    pub cores: usize,
    /// The limit of open descriptors in force.
    pub fd_limit: u64,
    /// Local ports that connections to one address may use, over all addresses that they come from.
    pub ports: u64,
    /// The most resident memory.
    pub peak_rss_bytes: u64,
    /// Steps of the wall clock that were seen.
    pub clock_steps: u64,
    /// What this machine was found to carry, where that was ever looked at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<Calibration>,
    /// What it ran on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub machine: Option<Machine>,
}

/// A machine, without its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Operating system and kernel.
    pub system: String,
    /// The model of its CPUs.
    pub cpu: String,
    /// Its memory.
    pub memory_bytes: u64,
}
