//! What is to be said of a load besides its verdicts: whether its numbers fit each other, whether it drifted, and how it
//! came back from a crowd.

use super::{drift_of, littles_law, recovery};
use crate::grade::Role;
use crate::result::{DecodeError, RunResult};

/// Writes Little's law, drifts and the recovery from a crowd into a result. `within_s` is how long the recovery was
/// given, where there was one.
///
/// # Errors
/// When a histogram of the result cannot be read.
pub fn loaded(result: &mut RunResult, within_s: Option<f64>) -> Result<(), DecodeError> {
    // A rise and a crowd are not steady on purpose.
    for tier in result.tiers.iter_mut().filter(|tier| !matches!(tier.role, Role::Rise | Role::Spike)) {
        tier.law = littles_law(tier)?;
        for (metric, measured) in &tier.metrics {
            if let Some(drift) = drift_of(measured, tier.steady_s)? {
                tier.drift.insert(*metric, drift);
            }
        }
    }
    result.recovery = within_s.and_then(|within_s| recovery(result, within_s));
    Ok(())
}
