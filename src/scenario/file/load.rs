//! How many users there are, for how long, and what they do, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BudgetsSection, Text};
use crate::grade::Verdict;

/// What users say, and how they think.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JourneySection {
    /// The most turns of a conversation; the next one begins without history. 4 without it.
    pub turns: Option<u32>,
    /// Between turns: a duration, or a distribution such as `lognormal 15s 45s` (median, 95th
    /// percentile), which it is without this.
    pub think: Option<String>,
    /// The share of turns that the user cancels in the middle of the reply, such as `5%`.
    pub cancel_share: Option<Text>,
    /// What users say: the bundled conversations `en`, `ko` or `mixed` (which it is without this), or
    /// a file of yours: ending in .jsonl with a conversation a line, `{"turns": ["..", ".."]}`, or in
    /// .csv with the columns `conversation` and `text`, a turn a row, or `text` alone, a conversation
    /// a row. Relative to this file. Or words of which only the number is known:
    /// `generated: lognormal 40 400` (median, 95th percentile).
    pub prompts: Option<String>,
    /// A user whom the deployment tells to come again later does so; true without it.
    pub obey_retry_after: Option<bool>,
}

/// One way through the deployment.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserJourneySection {
    /// Its name, for the report.
    pub name: String,
    /// Its part among all weights; 1 without it.
    #[serde(default)]
    pub weight: Option<f64>,
    /// What is done, in order; after the last one it begins again.
    pub steps: Vec<StepSection>,
}

/// One step of a journey.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSection {
    /// What is done.
    #[serde(rename = "do")]
    pub what: Do,
    /// Of turns: how many; without it on and on.
    #[serde(default)]
    pub count: Option<u32>,
    /// Of turns: the think time, in the place of `journey.think`.
    #[serde(default)]
    pub think: Option<String>,
    /// Of turns: those that the user cancels in the middle of the reply.
    #[serde(default)]
    #[schemars(with = "RiskSection")]
    pub abort: Option<RiskSection>,
    /// Of turns: those in whose middle the page is loaded again and the reply taken up.
    #[serde(default)]
    #[schemars(with = "RiskSection")]
    pub reload: Option<RiskSection>,
    /// Of turns: those in whose middle the connection is lost and the reply taken up on another.
    #[serde(default)]
    #[schemars(with = "RiskSection")]
    pub drop: Option<RiskSection>,
    /// Of leaving: how long the user is away, a duration or a distribution; a think time without it.
    #[serde(default)]
    pub away: Option<String>,
}

/// What is done in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Do {
    /// The user is let in again, with a login of its own; without this step the stored token serves.
    Login,
    /// The page is loaded, its calls at once as a browser makes them.
    Page,
    /// Turns are spoken.
    Turns,
    /// Earlier conversations are read.
    History,
    /// The user leaves, and comes again after a while.
    Leave,
}

/// Something that happens in the middle of a share of the turns.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RiskSection {
    /// The share of turns, such as `5%`.
    pub share: Text,
    /// How long after the message was sent: a duration, or a distribution.
    pub after: String,
}

/// How many users there are, and for how long.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadSection {
    /// Concurrent users; the tiers 50, 100, 500, 1000, 2000 and 5000 below come first.
    pub users: Option<u32>,
    /// The tiers themselves, rising.
    pub tiers: Option<Vec<u32>>,
    /// People who have an account; with active_share the other way to ask.
    pub headcount: Option<u32>,
    /// The share of the headcount that chats at once, such as `25%`.
    pub active_share: Option<Text>,
    /// Over how long the new users of a tier come; 20s without it.
    pub ramp: Option<String>,
    /// The least length of a tier's steady phase; 60s without it.
    pub steady: Option<String>,
    /// The greatest, where the budgets want more samples; 180s without it.
    pub steady_max: Option<String>,
    /// Threads that carry users; without it the cores, less one where the mock runs here too.
    pub shards: Option<u32>,
    /// Turns come at moments of their own, whether or not earlier ones have ended: then tiers are turns a second.
    #[schemars(with = "OpenSection")]
    pub open: Option<OpenSection>,
    /// Instead of steps: one straight rise, measured all along.
    #[schemars(with = "LinearSection")]
    pub linear: Option<LinearSection>,
    /// Instead of steps: a sudden crowd, and what is left of it afterwards.
    #[schemars(with = "SpikeSection")]
    pub spike: Option<SpikeSection>,
    /// Instead of steps: one tier for hours, watched for drift.
    #[schemars(with = "SoakSection")]
    pub soak: Option<SoakSection>,
}

/// Turns that come at moments of their own.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenSection {
    /// `poisson` (which it is without this), `constant`, or a file ending in .txt with a moment a line, in seconds from
    /// the beginning, rising. Relative to this file.
    pub arrivals: Option<String>,
    /// Turns a second, tier by tier, rising.
    pub rates: Vec<f64>,
    /// The most users at once; a turn that comes when none of them is free is dropped, and counted.
    pub max_users: Option<u32>,
}

/// One straight rise to the users (or turns a second) that were asked for.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinearSection {
    /// Users, or turns a second, at its beginning; 0 without it.
    pub from: f64,
    /// How long it takes.
    pub over: String,
}

/// A sudden crowd: the usual load, the users (or turns a second) that were asked for at once, and the usual load again.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpikeSection {
    /// The usual users, or turns a second.
    pub from: f64,
    /// How long the crowd stays.
    pub hold: String,
    /// How long the deployment may take to be as usual again: its budgets must hold from then on. 30s without it.
    pub recover_within: Option<String>,
}

/// One tier for hours.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SoakSection {
    /// How long.
    pub hold: String,
}

/// One tier.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierSection {
    /// Concurrent users.
    #[serde(default)]
    pub users: Option<u32>,
    /// Turns a second, in their place, with `[load.open]`.
    #[serde(default)]
    pub rate: Option<f64>,
    /// The least verdict that is good enough here: the run passes if this tier is at least that good.
    #[serde(default)]
    #[schemars(with = "Expectation")]
    pub expect: Option<Expectation>,
    /// Budgets of this tier, in the place of those for every tier of the same metric and statistic.
    #[serde(default)]
    pub budgets: BudgetsSection,
}

/// What may be expected of a tier. Not to know is never good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// Every budget is proved to hold.
    Pass,
    /// No budget is proved to fail.
    Warn,
    /// Whatever is decided.
    Fail,
}

impl From<Expectation> for Verdict {
    fn from(expectation: Expectation) -> Self {
        match expectation {
            Expectation::Pass => Self::Pass,
            Expectation::Warn => Self::Warn,
            Expectation::Fail => Self::Fail,
        }
    }
}
