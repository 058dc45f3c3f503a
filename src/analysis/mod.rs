//! What follows from a result: quantiles with intervals, needed samples, generator health, capacity, drift, Little's
//! law, and what was watched.

mod binomial;
mod blocks;
mod capacity;
mod drift;
mod generator;
mod little;
mod load;
mod needs;
mod quantile;
mod recovery;
mod slope;
mod watch;

pub use binomial::{rate_interval, samples_for_quantile, samples_for_rate, would_fail_with, would_pass_with};
pub use blocks::{LEAST_BLOCKS, blocks_interval};
pub use capacity::capacity;
pub use drift::drift_of;
pub use generator::generator_causes;
pub use little::littles_law;
pub use load::loaded;
pub use needs::steady_needed;
pub use quantile::{exceeding, quantile_interval};
pub use recovery::recovery;
pub use watch::{demand, watched};

/// The confidence of every one-sided bound.
pub const CONFIDENCE: f64 = 0.95;

/// A measured value between its one-sided 95 % bounds, in the metric's unit. Infinity stands
/// for "above every bound".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// What was measured.
    pub measured: f64,
    /// With 95 % confidence it is not below this; `None`: too few samples to say.
    pub lower: Option<f64>,
    /// With 95 % confidence it is not above this; `None`: too few samples to say.
    pub upper: Option<f64>,
}
