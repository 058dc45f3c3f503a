//! `capacity-check calibrate`: what it finds is kept, and printed by later runs.

use std::process::{Command, Output};

use capacity_check::result::Calibration;
use serde_json::Value;

use crate::support::{quiet, tool};

fn with_state(state: &std::path::Path, arrange: impl FnOnce(&mut Command) -> &mut Command) -> Output {
    let mut command = tool();
    command.env("XDG_STATE_HOME", state);
    arrange(&mut command).output().expect("the tool runs")
}

#[test]
fn what_a_machine_carries_is_kept_and_printed_by_its_runs() {
    let _quiet = quiet();
    let state = tempfile::tempdir().expect("a folder");
    let output = with_state(state.path(), |command| command.arg("calibrate"));
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let kept = state.path().join("capacity-check/calibration.json");
    if output.status.code() == Some(3) {
        // A machine that others use may carry nothing just now; then it says so, and nothing is kept.
        assert!(complaint.contains("carries not even") && !kept.exists(), "{said}{complaint}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said}{complaint}");
    assert!(said.contains("TTFT error p99") && said.contains("This machine carries"), "{said}");
    let text = std::fs::read_to_string(&kept).expect("it is kept");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let found: Calibration = serde_json::from_value(value["calibration"].clone()).expect("a calibration");
    assert!(found.streams >= 100 && found.tokens_per_s > 500.0, "{found:?}");
    // The mock's own first token takes 50 to 99 ms: an error of that size would be no calibration.
    assert!(found.error_p50_us.abs() < 50_000, "{found:?}");

    let run = |value: &Value| {
        std::fs::write(&kept, value.to_string()).expect("a file");
        let out = tempfile::tempdir().expect("a folder");
        let output = with_state(state.path(), |command| {
            command.args(["--quick", "--tiers", "2", "--no-progress", "--format", "json", "--out"]).arg(out.path())
        });
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut one_shard = value.clone();
    one_shard["calibration"]["shards"] = std::thread::available_parallelism().map_or(1, |n| n.get() - 1).max(1).into();
    assert!(run(&one_shard).contains("Error bar: TTFT is right to within"), "a run like it has its error bar");
    let mut elsewhere = one_shard.clone();
    elsewhere["machine"]["cpu"] = "another".into();
    assert!(run(&elsewhere).contains("Error bar: none, for this machine was never calibrated"));
}
