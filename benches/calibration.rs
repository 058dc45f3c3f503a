//! How near the reference deployment's cost model is to a LibreChat v0.8.7 process.
//!
//! Streams at once in a closed loop without think time, as the table was measured: upstream TTFT
//! 200 ms and 50 tokens at 20 ms, one process, two shared cores. Required: the medians of TTFT and
//! turn within 25 % at each level; what else the table has is printed beside.

mod support;

use std::fmt::Write as _;

use capacity_check::metric::Metric;
use capacity_check::result::TierResult;
use support::{keep, run_tool};

/// What was measured on a running LibreChat v0.8.7: streams; TTFT p50, p95; turn p50, p95; gap
/// p50, in milliseconds; turns a second.
const MEASURED: [(u32, [f64; 5], f64); 4] = [
    (1, [258.0, 279.0, 1_272.0, 1_311.0, 20.0], 0.75),
    (10, [311.0, 481.0, 1_346.0, 1_591.0, 20.0], 7.0),
    (50, [1_139.0, 2_082.0, 4_544.0, 5_704.0, 44.0], 11.2),
    (100, [1_619.0, 2_695.0, 6_959.0, 8_680.0, 81.0], 14.4),
];
const REQUIRED: f64 = 25.0;

/// The same of a tier of ours.
fn seen(tier: &TierResult) -> [f64; 5] {
    let metric = |metric| &tier.metrics[&metric];
    let (ttft, turn, gap) = (metric(Metric::Ttft), metric(Metric::Turn), metric(Metric::Itl));
    [ttft.p50_us, ttft.p95_us, turn.p50_us, turn.p95_us, gap.p50_us].map(|us| us as f64 / 1e3)
}

fn main() {
    let flags = "--tiers 1,10,50,100 --think 0s --turns 1 --ramp 5s --steady 45s --steady-max 45s --abort-on never";
    let result = run_tool(&flags.split(' ').collect::<Vec<_>>());
    let mut text = String::new();
    let _ = writeln!(
        text,
        "LibreChat v0.8.7 as measured / the reference deployment with its default costs, in milliseconds.\n\n\
         | streams | TTFT p50 | TTFT p95 | turn p50 | turn p95 | gap p50 | turns/s | TTFT p50 off | turn p50 off |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    let mut worst = 0.0_f64;
    for ((streams, measured, rate), tier) in MEASURED.iter().zip(&result.tiers) {
        assert_eq!(*streams, tier.users, "a tier was not run: {:?}", result.end);
        let found = seen(tier);
        let off = |index: usize| (found[index] / measured[index] - 1.0) * 100.0;
        worst = worst.max(off(0).abs()).max(off(2).abs());
        let _ = write!(text, "| {streams} ");
        for (measured, found) in measured.iter().zip(found) {
            let _ = write!(text, "| {measured:.0} / {found:.0} ");
        }
        let _ = writeln!(text, "| {rate} / {:.1} | {:+.0} % | {:+.0} % |", tier.turns_per_s, off(0), off(2));
    }
    let held = worst <= REQUIRED;
    let errors: u64 = result.tiers.iter().map(|tier| tier.counts.errors).sum();
    let _ = writeln!(
        text,
        "\nRequired: TTFT p50 and turn p50 within {REQUIRED:.0} % at each level: {} (worst {worst:.0} %). {errors} errors.",
        if held { "held" } else { "not held" },
    );
    keep("calibration", &text);
    assert!(held, "the model is off by {worst:.0} %");
}
