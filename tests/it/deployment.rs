//! Whole runs against a deployment: the embedded one, LibreChat's profile, bans, a restart.

use std::net::TcpListener;
use std::time::Duration;

use capacity_check::result::{Step, Verdict};
use reference_chat::{Limit, Limits, Settings};

use crate::support::chat::{Reference, SECRET, list, run_signed};
use crate::support::{Mock, Ran, load, quiet, run, start_with, tool, until};

const CALM: &str = "[models.m]\nttft = \"20ms\"\ngap = \"5ms\"\ntokens = \"uniform 5 25\"";
const SHORT: [&str; 10] =
    ["--tiers", "4,8", "--think", "100ms", "--ramp", "0.5s", "--steady", "2s", "--steady-max", "2s"];

/// The flags of a run against a deployment before a mock.
fn flags<'f>(reference: &'f Reference, mock: &'f Mock, list: &'f tempfile::NamedTempFile) -> Vec<&'f str> {
    let accounts = list.path().to_str().expect("UTF-8");
    let own =
        ["--profile", "librechat", "--target", &reference.base, "--mock-admin", &mock.admin, "--accounts", accounts];
    [&SHORT[..], &own, &["--no-progress"]].concat()
}

#[test]
fn counts_equal_the_mock_s_journal() {
    let _machine = load();
    for one_step in [false, true] {
        let mock = Mock::start(CALM);
        let reference = Reference::start(&mock, |settings| settings.one_step = one_step);
        let list = list(8);
        let ran = run_signed(&[&flags(&reference, &mock, &list)[..], &["--turns", "3"]].concat());
        let (result, turns) = (ran.result(), mock.turns());
        assert_eq!(result.totals.outcomes.keys().collect::<Vec<_>>(), ["completed"], "{ran}");
        assert_eq!(result.totals.started, turns.len() as u64, "{ran}");
        assert_eq!(result.totals.tokens, turns.iter().map(|turn| turn.tokens).sum::<u64>(), "{ran}");
        assert_eq!((result.totals.late_tokens, result.totals.resumes), (0, 0), "{ran}");
        assert_eq!((result.target.kind.as_str(), result.target.endpoint.as_deref()), ("librechat", Some("Mock")));
        assert_eq!(result.steps[&Step::PageLoad].outcomes["completed"], 8, "everybody loads the page once");
        // Minted tokens ask nobody: there is no login to measure.
        assert!(!result.steps.contains_key(&Step::Login));
        assert!(!ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET));
    }
}

#[test]
fn a_failing_model_s_turns_are_counted_as_the_journal_counts_them() {
    let _machine = load();
    for (fault, felt) in [("http_500", "error_event"), ("error_event", "error_event")] {
        let mock = Mock::start(CALM);
        let reference = Reference::start(&mock, |_| {});
        let list = list(8);
        mock.behave(&format!("{CALM}\nfaults = {{ {fault} = 0.4 }}"));
        // The preflight's turn may meet the fault: then another run is tried, with another marker.
        let all = [&flags(&reference, &mock, &list)[..], &["--abort-on", "never"]].concat();
        let ran = (0..20).map(|_| run_signed(&all)).find(|ran| ran.code != 4).expect("a calm preflight");
        let (result, turns) = (ran.result(), mock.turns());
        let failed = turns.iter().filter(|turn| turn.outcome != mock_llm::journal::TurnOutcome::Completed).count();
        assert!(failed > 3, "{ran}");
        assert_eq!(result.totals.outcomes[felt], failed as u64, "{ran}");
        assert_eq!(result.totals.started, turns.len() as u64, "{ran}");
    }
}

#[test]
fn a_ban_stops_the_run_with_the_reason_and_the_setting() {
    let _machine = load();
    let mock = Mock::start(CALM);
    let limits = Limits {
        message_ip: Some(Limit { max: 12, per: Duration::from_secs(60) }),
        ban_at: Some(5),
        ..Limits::default()
    };
    let reference = Reference::start(&mock, |settings| settings.limits = limits);
    let list = list(8);
    let ran = run_signed(&[&flags(&reference, &mock, &list)[..], &["--abort-on", "never"]].concat());
    assert_eq!(ran.code, 4, "{ran}");
    let result = ran.result();
    assert_eq!(result.verdict, Verdict::Inconclusive, "{ran}");
    assert!(result.totals.outcomes["rate_limited"] >= 5 && result.totals.outcomes["banned"] > 0, "{ran}");
    for said in ["has banned its users or this address", "BAN_VIOLATIONS=false"] {
        assert!(ran.stdout.contains(said), "{said}: {ran}");
    }
    // Everybody is banned now: the next run does not begin.
    let again = run_signed(&flags(&reference, &mock, &list));
    assert_eq!(again.code, 4, "{again}");
    assert!(again.stderr.contains("BAN_VIOLATIONS=false"), "{again}");
}

#[test]
fn users_come_back_after_a_restart() {
    let _machine = load();
    let mock = Mock::start(CALM);
    let free = |_: &mut Settings| {};
    let reference = Reference::start(&mock, free);
    let (address, list) = (reference.address, list(8));
    let all = flags(&reference, &mock, &list);
    let all: Vec<&str> = all.iter().map(|flag| if *flag == "2s" { "6s" } else { *flag }).collect();
    let out = tempfile::tempdir().expect("a folder");
    let child =
        start_with(tool().env("JWT_SECRET", SECRET), &[&all[..], &["--abort-on", "never"]].concat(), out.path());
    until("turns are going on", || mock.turns().len() > 20);
    drop(reference);
    let before = mock.turns().len();
    std::thread::sleep(Duration::from_millis(700));
    let listener = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        TcpListener::bind(address).ok()
    });
    let _again = Reference::on(listener.expect("the port is free again"), &mock, free);
    let ran = Ran::of(child.wait_with_output().expect("the run ends"), out);
    let result = ran.result();
    assert!(result.totals.outcomes.get("connect_refused").is_some_and(|count| *count > 0), "{ran}");
    assert!(mock.turns().len() > before + 20, "users came back: {ran}");
    assert_eq!(result.totals.outcomes.values().sum::<u64>(), result.totals.started, "{ran}");
    let calm = ["completed", "connect_refused", "reset", "truncated", "http_client_404"];
    assert!(result.totals.outcomes.keys().all(|outcome| calm.contains(&outcome.as_str())), "{ran}");
}

#[test]
fn the_embedded_deployment_is_the_default_target_and_says_what_it_is() {
    let _machine = quiet();
    let ran = run(&[&SHORT[..], &["--no-progress", "--cancel-share", "20%"]].concat());
    assert!([0, 1, 3].contains(&ran.code), "{ran}");
    let result = ran.result();
    assert_eq!((result.target.kind.as_str(), result.target.mock), ("embedded", true));
    let login = &result.steps[&Step::Login];
    assert_eq!(login.outcomes["completed"], 20);
    assert!(login.latency.p50_us >= 90_000, "a login takes 95 ms of the process: {}", login.latency.p50_us);
    assert!(result.totals.outcomes["aborted"] > 0 && result.totals.errors == 0, "{ran}");
    assert!(ran.stdout.contains("These numbers describe the embedded reference deployment"), "{ran}");
    // One process, 11 passes, 30 ms: even the fastest turn took longer than the model alone.
    let ttft = &result.tiers[0].metrics[&capacity_check::metric::Metric::Ttft];
    assert!(ttft.min_us > 240_000, "{}", ttft.min_us);
}

#[test]
fn accounts_are_made_for_a_run_and_it_says_that_they_stay() {
    let _machine = load();
    let mock = Mock::start(CALM);
    let reference = Reference::start(&mock, |_| {});
    let own = ["--profile", "librechat", "--target", &reference.base, "--mock-admin", &mock.admin];
    let ran = run(&[&SHORT[..], &own, &["--register", "--login-rate", "50", "--no-progress"]].concat());
    let result = ran.result();
    assert_eq!(result.steps[&Step::Registration].outcomes["completed"], 8, "{ran}");
    assert_eq!(result.steps[&Step::Login].outcomes["completed"], 8, "{ran}");
    assert_eq!(result.totals.errors, 0, "{ran}");
    assert!(ran.stdout.contains("accounts remove --mark"), "{ran}");
    let journal = std::fs::read_to_string(ran.folder().join("journal.ndjson")).expect("the journal");
    let written = std::fs::read_to_string(ran.folder().join("result.json")).expect("the result");
    // Every JSON Web Token begins so.
    assert!([&ran.stdout, &ran.stderr, &journal, &written].iter().all(|text| !text.contains("eyJ")), "{ran}");
    assert!(journal.contains("\"accounts_made\"") && journal.contains("@capacity-check.test"), "{journal}");
}
