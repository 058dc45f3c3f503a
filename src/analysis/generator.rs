//! Whether the generator was in the way of what it measured.

use crate::clock::MILLISECOND;
use crate::metric::Metric;
use crate::result::{Reason, TierResult};

/// The greatest start lag at p99, in microseconds.
const START_LAG_P99_US: u64 = 20 * MILLISECOND as u64 / 1_000;
/// Bounds of a first token that are further apart than this, in microseconds, are wide.
const WIDE_US: u64 = 10 * MILLISECOND as u64 / 1_000;
/// The greatest share of first tokens with wide bounds.
const WIDE_SHARE: f64 = 0.01;
/// The greatest share of its cores that the generator may use.
const CPU_SHARE: f64 = 0.9;

/// Why a tier's numbers may be the generator's fault; empty where they are not.
pub fn generator_causes(tier: &TierResult, clock_steps: u64) -> Vec<Reason> {
    let mut causes = Vec::new();
    if let Some(lag) = tier.metrics.get(&Metric::StartLag)
        && lag.p99_us > START_LAG_P99_US
    {
        causes.push(Reason::StartedLate { p99_us: lag.p99_us, limit_us: START_LAG_P99_US });
    }
    let generator = &tier.generator;
    let wide = generator.first_tokens_wide as f64 / generator.first_tokens.max(1) as f64;
    if wide > WIDE_SHARE {
        causes.push(Reason::ReadLate { share: wide, limit_us: WIDE_US });
    }
    if generator.cpu_share > CPU_SHARE {
        causes.push(Reason::GeneratorBusy { share: generator.cpu_share, limit: CPU_SHARE });
    }
    if clock_steps > 0 {
        causes.push(Reason::ClockStepped { steps: clock_steps });
    }
    causes
}
