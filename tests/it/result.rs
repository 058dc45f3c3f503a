//! The result of a run: its schema, its books, its files, its verdicts, and what is not in it.

use std::process::Stdio;

use capacity_check::metric::Metric;
use capacity_check::result::{RunResult, Verdict};
use serde_json::Value;

use crate::support::{Mock, Ran, run, run_against, tool};

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
    let ran = run(&["--tiers", "5,10", "--quick", "--no-progress"]);
    assert_eq!(ran.code, 0, "{ran}");
    for part in [
        "5 users, think 2.5 s and turn 1.2 s on average: 1.4 turns/s, 1.6 streams in flight",
        "our mock LLM",
        "TTFT p95",
        "A quick run",
        "result.json",
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
        let ttft = &tier.metrics[&Metric::Ttft];
        assert_eq!(ttft.blocks.iter().map(|block| block.count).sum::<u64>(), ttft.count);
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
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3");
    let ran = run_against(&mock, &["--tiers", "3", "--quick", "--json", "--think", "100ms"]);
    let printed: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
    assert_eq!(printed, ran.value());
    assert!(ran.stderr.contains("Verdict:"), "{ran}");
}

/// A tier that is long enough for the quantile of turns to be decided.
fn judged(mock: &Mock, more: &[&str]) -> Ran {
    let flags = ["--tiers", "30", "--think", "100ms", "--ramp", "0.2s", "--steady", "3s", "--steady-max", "3s"];
    run_against(mock, &[&flags[..], more].concat())
}

#[test]
fn exit_codes_follow_the_verdict() {
    let mock = Mock::start("[models.m]\nttft = \"60ms\"\ngap = \"1ms\"\ntokens = 5");
    let only = |ttft: &'static str| ["--budget", ttft, "--budget", "itl.p95=60s", "--budget", "error_rate=50%"];
    // Without 20 blocks of 5 s the gaps are not decided: never a pass.
    let open = judged(&mock, &only("ttft.p95=5s,6s"));
    assert_eq!((open.code, open.result().verdict), (3, Verdict::Inconclusive), "{open}");
    let fail = judged(&mock, &only("ttft.p95=1ms,20ms"));
    assert_eq!((fail.code, fail.result().verdict), (1, Verdict::Fail), "{fail}");
    assert!(fail.stdout.contains("above the limit of 20 ms"), "{fail}");
    let quick = judged(&mock, &[&only("ttft.p95=1ms,20ms")[..], &["--quick"]].concat());
    assert_eq!((quick.code, quick.result().verdict), (0, Verdict::Fail), "{quick}");
}

#[test]
fn a_pass_and_a_warning_need_their_twenty_blocks() {
    let mock = Mock::start("[models.m]\nttft = \"60ms\"\ngap = \"5ms\"\ntokens = 5");
    let flags = |more: &[&'static str]| {
        let load =
            ["--tiers", "5", "--think", "100ms", "--ramp", "0.2s", "--steady", "1s", "--budget", "error_rate=5%"];
        run_against(&mock, &[&load[..], more].concat())
    };
    std::thread::scope(|scope| {
        let pass = scope.spawn(|| flags(&["--budget", "ttft.p95=5s,6s"]));
        let warn = scope.spawn(|| flags(&["--budget", "ttft.p95=5ms,20s", "--fail-on", "warn"]));
        let (pass, warn) = (pass.join().unwrap(), warn.join().unwrap());
        let result = pass.result();
        assert_eq!((pass.code, result.verdict), (0, Verdict::Pass), "{pass}");
        assert_eq!((result.capacity.users, result.capacity.not_passed), (Some(5), None));
        assert!(pass.stdout.contains("carries 5 users"), "{pass}");
        // The steady phase was made as long as the gaps need, though only 1 s was asked for.
        assert!((result.tiers[0].steady_s - 100.0).abs() < 0.01);
        assert_eq!(result.tiers[0].metrics[&Metric::Itl].blocks.len(), 20);
        assert_eq!((warn.code, warn.result().verdict), (1, Verdict::Warn), "{warn}");
        assert!(warn.stdout.contains("more of the same would not change that"), "{warn}");
    });
}

#[test]
fn secrets_are_in_no_artefact() {
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
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3");
    let ran = run_against(&mock, &["--headcount", "40", "--active-share", "25%", "--quick", "--think", "100ms"]);
    assert_eq!(ran.result().tiers.last().unwrap().users, 10, "{ran}");
}

#[test]
fn a_result_reads_back_as_it_was_written() {
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3\nfaults = { error_event = 0.3 }");
    let ran = (0..20)
        .map(|_| run_against(&mock, &["--tiers", "5", "--quick", "--think", "100ms", "--abort-on", "never"]))
        .find(|ran| ran.code != 4)
        .unwrap();
    let value = ran.value();
    holds_schema(&value);
    let read: RunResult = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), value);
    assert!(!read.tiers[0].examples.is_empty() && !read.tiers[0].failed_metrics.is_empty());
}
