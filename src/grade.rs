//! How good something is: a word that scenario, result and verdict share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How good a run, a tier or a budget is. In the order of [`Verdict::worse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within the pass bound, with 95 % confidence.
    Pass,
    /// Neither proved to be within the pass bound nor to be above the warn bound.
    Warn,
    /// Nothing can be said: too few samples, or a generator that was in the way.
    Inconclusive,
    /// Above the warn bound, with 95 % confidence.
    Fail,
}

impl Verdict {
    /// The worse of two. A failure is worse than not knowing, and not knowing is worse than a
    /// warning: so another budget never improves a verdict.
    pub fn worse(self, other: Self) -> Self {
        self.max(other)
    }

    /// Whether it is good enough where this much is expected. What is not known is never good
    /// enough: missing data does not pass.
    pub fn meets(self, expected: Self) -> bool {
        self != Self::Inconclusive && self <= expected
    }

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }
}

/// What a tier is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// One of several levels, each of which is held.
    #[default]
    Step,
    /// A straight rise, measured all along.
    Rise,
    /// The usual load before a crowd.
    Usual,
    /// A sudden crowd.
    Spike,
    /// The usual load once the crowd has gone and had its time to be gone.
    Recovery,
    /// Hours of the same.
    Soak,
}

impl Role {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Rise => "rise",
            Self::Usual => "usual",
            Self::Spike => "spike",
            Self::Recovery => "recovery",
            Self::Soak => "soak",
        }
    }

    /// Whether it is an ordinary level.
    pub fn is_step(&self) -> bool {
        *self == Self::Step
    }
}
