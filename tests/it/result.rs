//! The result of a run: its schema, its books, its files, its verdicts, and what is not in it.

use std::process::Stdio;

use capacity_check::analysis::generator_causes;
use capacity_check::metric::Metric;
use capacity_check::result::{RunResult, Verdict};
use serde_json::Value;

use crate::support::{Mock, Ran, load, quiet, run, run_against, tool};

fn holds_schema(value: &Value) {
    let schema = include_str!("../../fixtures/result.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn the_embedded_run_from_flags_to_files() {
    let _machine = load();
    let ran = run(&["--tiers", "5,10", "--quick", "--no-progress"]);
    assert_eq!(ran.code, 0, "{ran}");
    for part in [
        "5 users, think 2.5 s and turn 1.",
        "s on average: 1.3 turns/s, 1.",
        "streams in flight",
        "our mock LLM",
        "TTFT added p95",
        "A quick run",
        "result.json",
        "report.html",
        "report.md",
        "junit.xml",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {ran}");
    }
    let value = ran.value();
    holds_schema(&value);
    let result = ran.result();
    assert!(!result.comparable && result.target.mock && result.target.kind == "embedded");
    assert_eq!(result.tiers.iter().map(|tier| tier.users).collect::<Vec<_>>(), [5, 10]);
    let sum: u64 = result.tiers.iter().map(|tier| tier.counts.started).sum();
    assert!(sum > 0 && sum < result.totals.started, "turns of ramps and drains are no tier's");
    for tier in &result.tiers {
        for metric in [
            Metric::Ttft,
            Metric::Itl,
            Metric::Tpot,
            Metric::Turn,
            Metric::ReceiveLag,
            Metric::StartLag,
            Metric::LoopDelay,
        ] {
            let measured = &tier.metrics[&metric];
            assert_eq!(measured.decode().unwrap().len(), measured.count);
            assert!(measured.min_us <= measured.p50_us && measured.p99_us <= measured.max_us);
        }
        let added = &tier.metrics[&Metric::TtftOverhead];
        assert_eq!(added.blocks.iter().map(|block| block.count).sum::<u64>(), added.count);
        let ttft = &tier.metrics[&Metric::Ttft];
        // The embedded model has 200 ms to the first token: less cannot be.
        assert!(ttft.min_us >= 195_000, "{}", ttft.min_us);
    }
    let points = &result.timeline;
    assert!(points.windows(2).all(|pair| pair[1].t_s == pair[0].t_s + 1));
    assert_eq!(points.iter().map(|point| point.tokens).sum::<u64>(), result.totals.tokens);
    assert_eq!(points.iter().map(|point| point.turns).sum::<u64>(), result.totals.started);
    let journal = std::fs::read_to_string(ran.folder().join("journal.ndjson")).unwrap();
    let lines: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line.get("tokens").is_some()).count(), points.len());
    assert!(lines.iter().any(|line| line["event"] == "steady"));
}

#[test]
fn json_has_standard_output_for_itself() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3");
    let ran = run_against(&mock, &["--tiers", "3", "--quick", "--json", "--think", "100ms"]);
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    assert_eq!(printed, ran.value());
    assert!(ran.stderr.contains("Can it be opened to 3 users?"), "{ran}");
}

/// Runs a tier that is long enough for budgets of turns to be decided, and expects a verdict and
/// an exit code. Where another tenant of this machine holds the generator up the run must be
/// inconclusive, whatever the budgets say; then it is tried again, a few times.
fn expect(mock: &Mock, budgets: &[&str], verdict: Verdict, code: i32, text: &str) {
    let flags = [
        "--tiers",
        "30",
        "--think",
        "200ms",
        "--ramp",
        "0.3s",
        "--steady",
        "3s",
        "--steady-max",
        "3s",
        "--budget",
        "error_rate=5%",
    ];
    for _ in 0..6 {
        let ran = run_against(mock, &[&flags[..], budgets].concat());
        let result = ran.result();
        if !generator_causes(&result.tiers[0], result.generator.clock_steps).is_empty() {
            assert_eq!(
                (result.verdict, ran.code),
                (Verdict::Inconclusive, if result.comparable { 3 } else { 0 }),
                "{ran}"
            );
            continue;
        }
        assert_eq!((result.verdict, ran.code), (verdict, code), "{ran}");
        assert!(ran.stdout.contains(text), "{text}: {ran}");
        return;
    }
}

#[test]
fn exit_codes_follow_the_verdict() {
    let _machine = quiet();
    let mock = Mock::start("[models.m]\nttft = \"60ms\"\ngap = \"40ms\"\ntokens = 3");
    let generous = ["--budget", "ttft.p95=5s,6s"];
    expect(&mock, &generous, Verdict::Pass, 0, "At least 30 users");
    // Three seconds are no 20 blocks of 5 s: never a pass.
    expect(&mock, &["--budget", "itl.p95=60s"], Verdict::Inconclusive, 3, "30 were not decided");
    let strict = ["--budget", "ttft.p95=1ms,20ms"];
    expect(&mock, &strict, Verdict::Fail, 1, "above the limit of 20 ms");
    expect(&mock, &[&strict[..], &["--quick"]].concat(), Verdict::Fail, 0, "A quick run");
    let between = ["--budget", "ttft.p95=5ms,20s"];
    expect(&mock, &between, Verdict::Warn, 0, "more of the same would not change that");
    expect(&mock, &[&between[..], &["--fail-on", "warn"]].concat(), Verdict::Warn, 1, "30 gave a warning");
}

#[test]
fn a_budget_of_tokens_gets_its_twenty_blocks() {
    let mock = Mock::start("[models.m]\nttft = \"60ms\"\ngap = \"5ms\"\ntokens = 5");
    let ran = run_against(
        &mock,
        &["--tiers", "3", "--think", "300ms", "--ramp", "0.2s", "--steady", "1s", "--budget", "itl.p95=60s"],
    );
    let tier = &ran.result().tiers[0];
    // Only 1 s was asked for; the gaps need 20 blocks of 5 s.
    assert!((tier.steady_s - 100.0).abs() < 0.01, "{ran}");
    assert_eq!(tier.metrics[&Metric::Itl].blocks.len(), 20);
    let gaps = tier.budgets.iter().find(|budget| budget.metric == "itl.p95").expect("the budget");
    assert_eq!((gaps.verdict, gaps.samples), (Verdict::Pass, 20), "{ran}");
}

#[test]
fn secrets_are_in_no_artefact() {
    let _machine = load();
    let mock = Mock::start("api_key = \"key-hunter2\"\n[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3");
    let out = tempfile::tempdir().unwrap();
    let output = tool()
        .env("CAPACITY_CHECK_API_KEY", "key-hunter2")
        .args(["--target", &mock.api, "--mock-admin", &mock.admin, "--tiers", "3", "--quick", "--think", "100ms"])
        .args(["--header", "X-Session: cookie-hunter2", "--no-progress", "--out"])
        .arg(out.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ran = Ran::of(output, out);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(!ran.stdout.contains("hunter2") && !ran.stderr.contains("hunter2"), "{ran}");
    for file in std::fs::read_dir(ran.folder()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("hunter2"));
    }
    assert_eq!(ran.value()["scenario"]["headers"], serde_json::json!(["X-Session"]));
}

#[test]
fn headcount_is_the_other_way_to_ask() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3");
    let ran = run_against(&mock, &["--headcount", "40", "--active-share", "25%", "--quick", "--think", "100ms"]);
    assert_eq!(ran.result().tiers.last().unwrap().users, 10, "{ran}");
}

#[test]
fn a_result_reads_back_as_it_was_written() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3\nfaults = { error_event = 0.3 }");
    let ran = (0..20)
        .map(|_| {
            run_against(&mock, &["--tiers", "5", "--quick", "--think", "100ms", "--abort-on", "never", "--shards", "2"])
        })
        .find(|ran| ran.code != 4)
        .unwrap();
    let value = ran.value();
    holds_schema(&value);
    let read: RunResult = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), value);
    // Two shards end at different times: no second of either is missing.
    assert_eq!(read.timeline.iter().map(|point| point.tokens).sum::<u64>(), read.totals.tokens);
    assert_eq!(read.timeline.iter().map(|point| point.turns).sum::<u64>(), read.totals.started);
    assert!(!read.tiers[0].examples.is_empty() && !read.tiers[0].failed_metrics.is_empty());
}
