//! What can be wrong with the text of a reply that is known in advance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened to tokens on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// Tokens of another turn arrived: a security finding.
    Leaked,
    /// Never arrived.
    Lost,
    /// Arrived more than once.
    Doubled,
    /// Arrived in another order.
    Reordered,
    /// Arrived as something else, or something arrived that nobody sent.
    Altered,
}

impl Flaw {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Leaked, Self::Lost, Self::Doubled, Self::Reordered, Self::Altered];

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leaked => "leaked",
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::Altered => "altered",
        }
    }
}

/// How many tokens have which flaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Flaws {
    /// Tokens of other turns.
    pub leaked: u64,
    /// Tokens that never arrived.
    pub lost: u64,
    /// Tokens that came once more.
    pub doubled: u64,
    /// Tokens in another place.
    pub reordered: u64,
    /// Tokens that came as something else, or that nobody sent.
    pub altered: u64,
}

impl Flaws {
    /// The count of one flaw.
    pub fn get(&self, flaw: Flaw) -> u64 {
        match flaw {
            Flaw::Leaked => self.leaked,
            Flaw::Lost => self.lost,
            Flaw::Doubled => self.doubled,
            Flaw::Reordered => self.reordered,
            Flaw::Altered => self.altered,
        }
    }

    /// Counts tokens with a flaw.
    pub fn add(&mut self, flaw: Flaw, tokens: u64) {
        let count = match flaw {
            Flaw::Leaked => &mut self.leaked,
            Flaw::Lost => &mut self.lost,
            Flaw::Doubled => &mut self.doubled,
            Flaw::Reordered => &mut self.reordered,
            Flaw::Altered => &mut self.altered,
        };
        *count += tokens;
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for flaw in Flaw::ALL {
            self.add(flaw, other.get(flaw));
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        Flaw::ALL.into_iter().map(|flaw| self.get(flaw)).sum()
    }
}

/// One place at which a reply is not what it should be. Its texts are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What is wrong.
    pub flaw: Flaw,
    /// The marker of the turn.
    pub turn: String,
    /// The token at which it begins, from 0.
    pub position: u64,
    /// Some 40 characters of what should have come there.
    pub expected: String,
    /// Some 40 characters of what came.
    pub got: String,
}

/// What the check of a reply has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Tokens by flaw.
    pub flaws: Flaws,
    /// The first places, the worst flaw first.
    pub findings: Vec<Finding>,
    /// Tokens of which the whole text has, but the stream had not: somebody subscribed late.
    pub late: u64,
    /// How many tokens of the script are accounted for: where the next one would be.
    pub position: u64,
    /// Whether the word that ends a reply has come.
    pub ended: bool,
    /// Whether it must have: the reply was not cut on purpose, nor broken off.
    pub whole: bool,
}
