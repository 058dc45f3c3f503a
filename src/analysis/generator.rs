//! Whether the generator was in the way of what it measured.

use crate::clock::MILLISECOND;
use crate::metric::Metric;
use crate::result::TierResult;

/// The greatest start lag at p99, in microseconds.
const START_LAG_P99_US: u64 = 20 * MILLISECOND as u64 / 1_000;
/// The greatest share of first tokens whose bounds are more than 10 ms apart.
const WIDE_SHARE: f64 = 0.01;
/// The greatest share of its cores that the generator may use.
const CPU_SHARE: f64 = 0.9;

/// Why a tier's numbers may be the generator's fault; empty where they are not.
pub fn generator_causes(tier: &TierResult, clock_steps: u64) -> Vec<String> {
    let mut causes = Vec::new();
    if let Some(lag) = tier.metrics.get(&Metric::StartLag)
        && lag.p99_us > START_LAG_P99_US
    {
        causes.push(format!(
            "the generator started turns late: start lag p99 is {} ms, above 20 ms; give it more cores or fewer users",
            lag.p99_us / 1_000
        ));
    }
    let generator = &tier.generator;
    let wide = generator.first_tokens_wide as f64 / generator.first_tokens.max(1) as f64;
    if wide > WIDE_SHARE {
        causes.push(format!(
            "the generator read late: {:.1} % of first tokens are known only to within more than 10 ms; give it more cores or fewer users",
            wide * 100.0
        ));
    }
    if generator.cpu_share > CPU_SHARE {
        causes.push(format!(
            "the generator used {:.0} % of the cores of its shards, above 90 %; give it more cores with --shards, or fewer users",
            generator.cpu_share * 100.0
        ));
    }
    if clock_steps > 0 {
        causes.push(format!("the wall clock was stepped {clock_steps} time(s), which shifts the kernel's stamps"));
    }
    causes
}
