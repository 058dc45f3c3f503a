//! The known story, told by the tool itself: one process of the embedded deployment carries 50 and
//! 100 users and not 500; four processes carry 500. Default think time, default model (200 ms, 50
//! tokens at 20 ms). About 14 minutes.

mod support;

use std::fmt::Write as _;

use capacity_check::lang::{Lang, Texts};
use capacity_check::metric::Metric;
use capacity_check::report::sentence;
use capacity_check::result::{RunResult, Step, Verdict};
use support::{keep, run_tool};

fn tell(text: &mut String, workers: &str, result: &RunResult) {
    for tier in &result.tiers {
        let ms = |metric| tier.metrics.get(&metric).map_or(0.0, |metric| metric.p95_us as f64 / 1e3);
        let _ = writeln!(
            text,
            "| {workers} | {} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {} of {} | {} |",
            tier.users,
            tier.turns_per_s,
            tier.streams,
            ms(Metric::Ttft),
            ms(Metric::Itl),
            ms(Metric::Turn),
            tier.counts.errors,
            tier.counts.started,
            tier.verdict.name(),
        );
    }
}

fn main() {
    let mut text = String::from(
        "`capacity-check --users 500` and the same with `--reference-workers 4`; latencies are p95 in milliseconds.\n\n\
         | processes | users | turns/s | streams | TTFT | ITL | turn | errors | verdict |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let one = run_tool(&["--users", "500"]);
    tell(&mut text, "1", &one);
    let four = run_tool(&["--users", "500", "--reference-workers", "4"]);
    tell(&mut text, "4", &four);
    let login = |result: &RunResult| result.steps[&Step::Login].latency.p50_us as f64 / 1e3;
    let _ = writeln!(text, "\nLogin p50 of 20 users: {:.0} ms on 1, {:.0} ms on 4.", login(&one), login(&four));
    let texts = Texts::new(Lang::En);
    for (workers, result) in [("1 process", &one), ("4 processes", &four)] {
        for tier in &result.tiers {
            for reason in tier.reasons.iter().map(|reason| sentence(&texts, reason)) {
                let _ = writeln!(text, "- {workers}, {} users: {reason}", tier.users);
            }
        }
    }
    let verdicts: Vec<Verdict> = one.tiers.iter().chain(&four.tiers).map(|tier| tier.verdict).collect();
    let told = verdicts == [Verdict::Pass, Verdict::Pass, Verdict::Fail, Verdict::Pass, Verdict::Pass, Verdict::Pass];
    let _ = writeln!(text, "\nThe story: {}.", if told { "as known" } else { "not as known in this round" });
    keep("story", &text);
    assert!(told, "the story was not told: {verdicts:?}");
}
