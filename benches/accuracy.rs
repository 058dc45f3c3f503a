//! How far the tool's time to first token is from the mock's own journal.
//!
//! 500 streams of 20 tokens/s and 200 tokens, mock TTFT uniform 50 to 99 ms, same machine.
//! Required: from actual send within 2 ms of the journal at p50 and within 5 ms at p99.

mod support;

use std::fmt::Write as _;

use capacity_check::metric::Metric;
use support::{Mock, keep, quantile, run, truth};

const STEADY_S: u64 = 40;

fn main() {
    let mock = Mock::start(&["--ttft", "uniform 50ms 99ms", "--gap", "50ms", "--tokens", "200"]);
    let steady = format!("{STEADY_S}s");
    let flags = [
        "--tiers",
        "500",
        "--think",
        "0s",
        "--turns",
        "1",
        "--ramp",
        "10s",
        "--steady",
        &steady,
        "--steady-max",
        &steady,
        // The traced defaults want twenty blocks of turns, which this bench has no need of.
        "--budget",
        "ttft.p95=1s",
    ];
    let result = run(&mock, &flags);
    let tier = &result.tiers[0];
    let mut truth = truth(&mock, &result, tier);
    let ours = &tier.metrics[&Metric::TtftFromSend];
    let (p50, p99) = (quantile(&mut truth, 0.5), quantile(&mut truth, 0.99));
    let error = |ours: u64, truth: u64| (ours as f64 - truth as f64) / 1e3;
    let (error50, error99) = (error(ours.p50_us, p50), error(ours.p99_us, p99));
    let held = error50.abs() <= 2.0 && error99.abs() <= 5.0;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "500 streams, 20 tokens/s, 200 tokens, mock TTFT uniform 50 to 99 ms; {} turns in {STEADY_S} s.\n",
        ours.count
    );
    let _ = writeln!(text, "| TTFT from actual send | p50 ms | p99 ms |\n|---|---|---|");
    let _ = writeln!(text, "| the mock's journal | {:.2} | {:.2} |", p50 as f64 / 1e3, p99 as f64 / 1e3);
    let _ = writeln!(text, "| capacity-check | {:.2} | {:.2} |", ours.p50_us as f64 / 1e3, ours.p99_us as f64 / 1e3);
    let _ = writeln!(text, "| error | {error50:+.2} | {error99:+.2} |\n");
    let generator = &tier.generator;
    let why: Vec<String> = tier.reasons.iter().map(|reason| format!("{reason:?}")).collect();
    let p99_ms = |metric| tier.metrics.get(&metric).map_or(0.0, |metric| metric.p99_us as f64 / 1e3);
    let _ = writeln!(
        text,
        "Required: within 2 ms at p50 and 5 ms at p99: {}. Start lag p99 {:.1} ms, receive lag p99 {:.1} ms, loop delay p99 {:.1} ms, \
         generator CPU {:.2} cores, {} of {} first tokens bounded, {} wider than 10 ms, verdict {} {}.",
        if held { "held" } else { "not held" },
        p99_ms(Metric::StartLag),
        p99_ms(Metric::ReceiveLag),
        p99_ms(Metric::LoopDelay),
        generator.cpu_cores,
        generator.first_tokens_bounded,
        generator.first_tokens,
        generator.first_tokens_wide,
        result.verdict.name(),
        why.join("; "),
    );
    keep("accuracy", &text);
    assert!(held, "the error is above what is required");
}
