//! Whether a steady phase was steady: what its metrics did in its course, and whether its numbers fit each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a metric's typical value changed in the course of one steady phase: the median of all slopes between the medians
/// of two of its blocks (Theil and Sen), so that no single jump or dip decides. The interval allows for each block
/// resembling the one before; of a metric that wanders without end it still says drift in some 20 of 100 cases instead
/// of 5.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// Blocks that were compared.
    pub blocks: u64,
    /// The median of their medians: microseconds, or millionths of a share.
    pub median: f64,
    /// By how much it rose an hour, in the same unit.
    pub per_hour: f64,
    /// The lower end of the 95 % interval of `per_hour`.
    pub lower: f64,
    /// The upper end, likewise: both hold together.
    pub upper: f64,
    /// The rise over the whole steady phase as a share of `median`: 0.2 is a fifth.
    pub change: f64,
    /// Whether the interval excludes zero: then it was no accident.
    pub drifts: bool,
}

/// Little's law over one steady phase: streams in flight are turns a second times how long a turn takes. The three were
/// measured apart, so that they fit is a check of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LittlesLaw {
    /// Mean streams in flight, counted once a second.
    pub streams: f64,
    /// Turns begun a second.
    pub turns_per_s: f64,
    /// The mean turn in seconds, from its actual start to its end.
    pub mean_turn_s: f64,
    /// `streams` over what the other two say they should be.
    pub ratio: f64,
    /// How far `ratio` may be from 1: 99 % of steady phases are nearer.
    pub tolerance: f64,
    /// Whether it is. If not, something was counted wrongly, or as many turns did not go on at the end of the phase as
    /// at its beginning: the load was not steady.
    pub holds: bool,
}

/// How a deployment came back to what was usual after a crowd.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recovery {
    /// How long it was given, in seconds: its budgets had to hold from then on.
    pub within_s: f64,
    /// What was usual: the largest mean over 5 s of the seconds' median time to first token before the crowd.
    pub usual_us: f64,
    /// Seconds from the crowd's end until it never was more than a tenth above that again, no turn failed and tokens came
    /// as often as before; `None`: that was not so by the end of the run.
    pub recovered_s: Option<f64>,
}
