//! How a run ends before its end: Ctrl-C once and twice, guards, a killed target.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use capacity_check::result::{End, Reason, Verdict};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Mock, Ran, load, run, start, until};

const LONG: [&str; 10] =
    ["--tiers", "8", "--think", "200ms", "--ramp", "0.5s", "--steady", "60s", "--no-progress", "--turns"];

/// Starts a long run and waits until turns are open.
fn long_run(mock: &Mock, out: &Path) -> Child {
    let child = start(&[&LONG[..], &["1", "--target", &mock.api, "--mock-admin", &mock.admin]].concat(), out);
    until("turns are going on", || mock.turns().len() > 5);
    child
}

fn interrupt(child: &Child) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
}

#[test]
fn an_interrupt_drains_and_writes_the_partial_result() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"50ms\"\ngap = \"10ms\"\ntokens = 30");
    let out = tempfile::tempdir().unwrap();
    let child = long_run(&mock, out.path());
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap(), out);
    assert_eq!(ran.code, 130, "{ran}");
    let result = ran.result();
    assert_eq!((&result.end, result.verdict), (&End::Interrupted, Verdict::Inconclusive));
    assert!(!result.tiers[0].complete);
    // Open turns were read to their end: none is cut on either side.
    let turns = mock.turns();
    assert_eq!(result.totals.outcomes.keys().collect::<Vec<_>>(), ["completed"], "{ran}");
    assert_eq!(result.totals.started, turns.len() as u64);
    assert_eq!(result.totals.tokens, turns.iter().map(|turn| turn.tokens).sum::<u64>());
    let journal = std::fs::read_to_string(ran.folder().join("journal.ndjson")).unwrap();
    assert!(journal.lines().last().is_some_and(|line| line.ends_with('}')), "{journal}");
    assert!(journal.contains("\"event\":\"stopping\""));
}

#[test]
fn a_second_interrupt_stops_at_once() {
    let _machine = load();
    let slow = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"10ms\"\ntokens = 3");
    let out = tempfile::tempdir().unwrap();
    let child = long_run(&slow, out.path());
    // From here on a turn takes half a minute.
    slow.behave("[models.m]\nttft = \"30s\"");
    std::thread::sleep(Duration::from_millis(700));
    let began = Instant::now();
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap(), out);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(ran.code, 130, "{ran}");
    let result = ran.result();
    assert!(result.totals.outcomes["interrupted"] > 0, "{ran}");
    assert_eq!(result.totals.errors, 0, "an interrupted turn is nobody's failure");
    assert_eq!(result.totals.outcomes.values().sum::<u64>(), result.totals.started);
}

#[test]
fn guards_stop_a_run() {
    let _machine = load();
    let calm = "[models.m]\nttft = \"10ms\"\ngap = \"1ms\"\ntokens = 3";
    let mock = Mock::start(calm);
    let target = ["1", "--target", &mock.api, "--mock-admin", &mock.admin];
    let ran = run(&[&LONG[..], &target, &["--max-duration", "2s"]].concat());
    assert_eq!(ran.code, 4, "{ran}");
    assert!(matches!(&ran.result().end, End::Guard(Reason::MaxDuration { .. })), "{ran}");

    let out = tempfile::tempdir().unwrap();
    let child = start(
        &[&LONG[..], &["1", "--target", &mock.api, "--mock-admin", &mock.admin, "--abort-on", "error_rate>20%"]]
            .concat(),
        out.path(),
    );
    let before = mock.turns().len();
    until("turns are going on", || mock.turns().len() > before + 5);
    mock.behave(&format!("{calm}\nfaults = {{ http_503 = 1.0 }}"));
    let ran = Ran::of(child.wait_with_output().unwrap(), out);
    assert_eq!(ran.code, 4, "{ran}");
    assert!(matches!(&ran.result().end, End::Guard(Reason::ErrorRate { .. })), "{ran}");
    assert!(ran.stdout.contains("Stopped by a guard: error rate"), "{ran}");
    assert!(ran.stdout.contains("http_server_503 (503 Service Unavailable"), "{ran}");
}

#[test]
fn a_target_that_dies_is_seen_as_such() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"10ms\"\ngap = \"5ms\"\ntokens = 20");
    let out = tempfile::tempdir().unwrap();
    let child = long_run(&mock, out.path());
    drop(mock);
    let ran = Ran::of(child.wait_with_output().unwrap(), out);
    assert_eq!(ran.code, 4, "{ran}");
    let outcomes = ran.result().totals.outcomes;
    assert!(outcomes["connect_refused"] > 5, "{outcomes:?}");
    assert!(
        outcomes.keys().all(|name| ["completed", "connect_refused", "reset", "truncated"].contains(&name.as_str())),
        "{outcomes:?}"
    );
}
