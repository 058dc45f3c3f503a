//! Why something is as it is: codes and numbers, which reports put into words.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::grade::Role;

/// A reason. Values of a budget are microseconds, or a share from 0 to 1 for `error_rate`; where one
/// is missing it is above every bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum Reason {
    /// Proved to be within the pass bound.
    Within {
        /// The budget.
        budget: String,
        /// What was measured.
        measured: f64,
        /// With 95 % confidence not above this.
        upper: f64,
        /// The pass bound.
        pass: f64,
    },
    /// Proved to be above the warn bound.
    Above {
        /// The budget.
        budget: String,
        /// What was measured.
        measured: Option<f64>,
        /// With 95 % confidence not below this.
        lower: Option<f64>,
        /// The warn bound.
        warn: f64,
    },
    /// Proved to be neither.
    Undecided {
        /// The budget.
        budget: String,
        /// What was measured.
        measured: Option<f64>,
        /// With 95 % confidence not below this.
        lower: f64,
        /// With 95 % confidence not above this.
        upper: Option<f64>,
        /// The pass bound.
        pass: f64,
        /// The warn bound.
        warn: f64,
        /// How many more seconds of the same would decide, where that is so.
        more_seconds: Option<u64>,
    },
    /// Fewer samples than a bound needs.
    TooFew {
        /// The budget.
        budget: String,
        /// Independent samples.
        samples: u64,
        /// Those that are needed.
        needed: u64,
        /// What a sample is.
        unit: SampleUnit,
        /// How many more seconds of the same would do.
        more_seconds: Option<u64>,
    },
    /// There is no sample.
    NothingMeasured {
        /// The budget.
        budget: String,
    },
    /// No reply was spoilt in this way.
    NoneSpoilt {
        /// The budget.
        budget: String,
    },
    /// Replies were spoilt.
    Spoilt {
        /// The budget: `corrupted` or `leaked`.
        budget: String,
        /// In so many turns.
        turns: u64,
    },
    /// Too many turns were not found in the mock's journal.
    TraceIncomplete {
        /// The budget.
        budget: String,
        /// The share that was not found.
        share: f64,
    },
    /// Turns found no free user and were never spoken: latencies of the others say too little.
    Dropped {
        /// The budget.
        budget: String,
        /// So many turns.
        turns: u64,
        /// Of so many.
        of: u64,
    },
    /// The steady phase of the tier was not run to its end.
    CutShort,
    /// There is no budget.
    NoBudget,
    /// The generator started turns late.
    StartedLate {
        /// Start lag at p99.
        p99_us: u64,
        /// What it may be.
        limit_us: u64,
    },
    /// The generator read late.
    ReadLate {
        /// The share of first tokens whose bounds are far apart.
        share: f64,
        /// What far is.
        limit_us: u64,
    },
    /// The generator had too little CPU.
    GeneratorBusy {
        /// Of the cores of its shards, the share that it used.
        share: f64,
        /// What it may be.
        limit: f64,
    },
    /// The wall clock was stepped, and with it the kernel's stamps.
    ClockStepped {
        /// How often.
        steps: u64,
    },
    /// Somebody stopped the run.
    Interrupted,
    /// Guard: too many of the last turns failed.
    ErrorRate {
        /// The share that failed.
        share: f64,
        /// The turns that were looked at.
        turns: u64,
        /// The guard's limit.
        limit: f64,
    },
    /// Guard: the run took as long as it may.
    MaxDuration {
        /// The limit.
        limit_s: f64,
    },
    /// Guard: the deployment has banned users or address.
    Banned {
        /// What it said.
        said: String,
    },
    /// The tier that the run is about was not reached.
    NotReached {
        /// Its users; of an open load the most that there may be.
        users: u32,
        /// Turns a second that an open load was to have.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        rate: Option<f64>,
        /// What it was for.
        #[serde(skip_serializing_if = "Role::is_step", default)]
        role: Role,
    },
    /// A sentence, as results of version 1 have them.
    Text {
        /// The sentence, in English.
        text: String,
    },
}

/// What a sample of a budget is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SampleUnit {
    /// A turn.
    Turns,
    /// The tokens of 5 s.
    Blocks,
}
