//! How load arrives, resolved.

use std::sync::Arc;
use std::time::Duration;

use mock_llm::distribution::Written;
use serde::{Serialize, Serializer};

use super::{Budget, Journey, Prompts, seconds};
pub use crate::grade::Role;
use crate::grade::Verdict;

/// How many users, and what they do.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// The tiers, in order.
    pub tiers: Vec<Tier>,
    /// What becomes of them.
    #[serde(skip_serializing_if = "Shape::is_steps")]
    pub shape: Shape,
    /// Whether turns come at moments of their own.
    #[serde(skip_serializing_if = "Arrivals::is_closed")]
    pub arrivals: Arrivals,
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
    /// What users do, as ways of which each follows one; none: they load the page and say one thing after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub journeys: Vec<Journey>,
    /// Whether a user whom the deployment tells to come again later does so.
    pub obey_retry_after: bool,
}

impl Load {
    /// The most users at once.
    pub fn peak(&self) -> u32 {
        self.tiers.iter().map(|tier| tier.users).max().unwrap_or(0)
    }

    /// Turns of the rate of an open load, for the largest tier.
    pub fn peak_rate(&self) -> Option<f64> {
        self.tiers.iter().filter_map(|tier| tier.rate).reduce(f64::max)
    }
}

/// What becomes of the tiers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Shape {
    /// Each is held, one after the other.
    Steps,
    /// One straight rise.
    Linear {
        /// How long it takes.
        #[serde(rename = "over_s", serialize_with = "seconds")]
        over: Duration,
    },
    /// The usual load, a crowd, the usual load.
    Spike {
        /// How long the crowd stays.
        #[serde(rename = "hold_s", serialize_with = "seconds")]
        hold: Duration,
        /// How long the deployment may take to be as usual again.
        #[serde(rename = "recover_within_s", serialize_with = "seconds")]
        recover_within: Duration,
    },
    /// One tier for hours.
    Soak {
        /// How long.
        #[serde(rename = "hold_s", serialize_with = "seconds")]
        hold: Duration,
    },
}

impl Shape {
    fn is_steps(&self) -> bool {
        *self == Self::Steps
    }
}

/// Where turns come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Arrivals {
    /// From users, each of whom waits for an answer before the next turn.
    Closed,
    /// From outside, at moments of their own; users are taken from a pool.
    Open {
        /// When.
        process: Process,
    },
}

impl Arrivals {
    /// Whether users wait for answers.
    pub fn is_closed(&self) -> bool {
        *self == Self::Closed
    }
}

/// When turns come.
#[derive(Debug, Clone, PartialEq)]
pub enum Process {
    /// Evenly.
    Constant,
    /// At random moments, independently of each other.
    Poisson,
    /// At these moments, in nanoseconds from the beginning, rising.
    Offsets(Arc<[i64]>),
}

impl Serialize for Process {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Constant => serializer.serialize_str("constant"),
            Self::Poisson => serializer.serialize_str("poisson"),
            Self::Offsets(all) => serializer.serialize_str(&format!("{} offsets", all.len())),
        }
    }
}

/// A load that is held for a while.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tier {
    /// Concurrent users; of an open load, the most there may be.
    pub users: u32,
    /// Turns a second of an open load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// What it is for.
    #[serde(skip_serializing_if = "Role::is_step")]
    pub role: Role,
    /// How long its stages are.
    #[serde(skip)]
    pub times: Times,
    /// The least verdict that is good enough here, where the scenario says so.
    pub expect: Option<Verdict>,
    /// What must hold here.
    pub budgets: Vec<Budget>,
}

/// How long a tier's stages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// Over how long its new users come, or the rate changes.
    pub arrive: Duration,
    /// How long after its beginning measuring begins.
    pub settle: Duration,
    /// The least length of its steady phase.
    pub steady: Duration,
    /// The greatest length.
    pub steady_max: Duration,
}
