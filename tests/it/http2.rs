//! HTTP/2 by ALPN before a real nginx: whole runs, stamps in user space, servers that go away, cancelled turns.

use std::collections::BTreeMap;
use std::sync::Arc;

use capacity_check::clock;
use capacity_check::driver::sse::Sse;
use capacity_check::driver::{Act, Driver, Live, Prompt, Session};
use capacity_check::net::{Endpoint, TlsSettings, client_config};
use capacity_check::record::{Outcome, Turn, Wire};
use capacity_check::result::RunResult;
use capacity_check::scenario::{After, Disturb, Disturbance, Site};
use mock_llm::journal::TurnOutcome;

use crate::support::described::{get, new_turn, one_step};
use crate::support::nginx::Nginx;
use crate::support::{Mock, Ran, driver, limits, load, run, runtime, until};

const QUICK: [&str; 11] =
    ["--tiers", "4", "--think", "50ms", "--ramp", "0.2s", "--steady", "2s", "--steady-max", "2s", "--quick"];

/// nginx before a mock, with these further lines.
fn before(mock: &Mock, lines: &str) -> Nginx {
    Nginx::secure("", &format!("{lines} location / {{ proxy_pass {}; proxy_buffering off; }}", mock.api))
}

/// A run through nginx, whose counts are held against the mock's journal.
fn whole(mock: &Mock, nginx: &Nginx, flags: &[&str]) -> (Ran, RunResult) {
    let ca = nginx.ca();
    let ca = ca.to_str().expect("a path in UTF-8");
    let target = ["--target", &nginx.base, "--mock-admin", &mock.admin, "--ca-file", ca, "--no-progress"];
    let ran = run(&[&QUICK[..], &target, flags].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let (result, turns) = (ran.result(), mock.turns());
    assert_eq!(result.totals.outcomes, BTreeMap::from([("completed".to_owned(), turns.len() as u64)]), "{ran}");
    assert_eq!(result.totals.tokens, turns.iter().map(|turn| turn.tokens).sum::<u64>(), "{ran}");
    assert_eq!(result.totals.checked, result.totals.started, "every reply was held against what was sent: {ran}");
    assert_eq!((result.totals.flaws.total(), result.totals.late_tokens), (0, 0), "{ran}");
    (ran, result)
}

#[test]
fn a_run_over_http2_is_whole_and_says_so() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"3ms\"\ntokens = 30");
    let nginx = before(&mock, "");
    let (ran, result) = whole(&mock, &nginx, &[]);
    assert_eq!(result.totals.wires, BTreeMap::from([("HTTP/2".to_owned(), result.totals.started)]), "{ran}");
    let generator = &result.tiers[0].generator;
    assert!(generator.arrivals > 0 && generator.user_space_stamps == generator.arrivals, "{ran}");
    assert_eq!(generator.first_tokens_bounded, generator.first_tokens, "{ran}");
    let report = std::fs::read_to_string(ran.folder().join("report.md")).expect("a report");
    assert!(report.contains("HTTP/2: ") && !report.contains("at most six connections"), "{report}");
}

#[test]
fn http1_can_be_asked_for() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"3ms\"\ntokens = 30");
    let nginx = before(&mock, "");
    let (ran, result) = whole(&mock, &nginx, &["--http1"]);
    assert_eq!(result.totals.wires, BTreeMap::from([("HTTP/1.1".to_owned(), result.totals.started)]), "{ran}");
    let generator = &result.tiers[0].generator;
    assert!(generator.arrivals > 0 && generator.user_space_stamps == 0, "{ran}");
    let report = std::fs::read_to_string(ran.folder().join("report.md")).expect("a report");
    assert!(report.contains("HTTP/1.1: ") && report.contains("at most six connections"), "{report}");
}

#[test]
fn a_server_that_goes_away_between_turns_costs_no_failure() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 5");
    let nginx = before(&mock, "keepalive_requests 2;");
    let (ran, result) = whole(&mock, &nginx, &[]);
    // Four users with a turn each 60 ms or so: each of them had many connections.
    assert!(result.totals.started > 40, "{ran}");
}

/// The user cancels after so many tokens.
fn cancel(tokens: u64) -> Disturb {
    Disturb { what: Disturbance::Cancel, after: After::Tokens(tokens) }
}

/// A turn that is cancelled after so many tokens.
async fn turn(driver: &Driver, session: &mut Session, cancel_after: Option<u64>) -> Turn {
    let prompt = Prompt {
        text: "hello".to_owned(),
        opens: true,
        continues: false,
        disturb: cancel_after.map(cancel),
        trace: None,
    };
    let now = clock::monotonic();
    let mut turn = Turn::new(now, now);
    driver.turn(session, &prompt, &mut turn, Live::nobody()).await;
    turn
}

#[test]
fn a_turn_that_is_cancelled_leaves_its_connection() {
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"10ms\"\ntokens = 100");
    let nginx = before(&mock, "");
    let driver =
        driver(&nginx.base, "m", limits(), &TlsSettings { ca_file: Some(nginx.ca()), ..TlsSettings::default() });
    let (cancelled, next) = runtime().block_on(async {
        let mut session = driver.session(0);
        (turn(&driver, &mut session, Some(3)).await, turn(&driver, &mut session, None).await)
    });
    assert_eq!((cancelled.outcome, cancelled.wire), (Outcome::Aborted, Some(Wire::Http2)), "{}", cancelled.detail);
    assert!(cancelled.connect.is_some() && cancelled.tls.is_some());
    assert_eq!((next.outcome, next.tokens), (Outcome::Completed, 100), "{}", next.detail);
    assert!(next.connect.is_none(), "it went over the same connection");
    let first = next.first_token.expect("a first token");
    assert!(next.sent.is_some_and(|sent| sent <= first.earliest) && first.earliest < first.latest);
    until("the mock knows that the first caller has gone", || {
        mock.turns().iter().any(|turn| turn.outcome == TurnOutcome::CallerGone)
    });
}

#[test]
fn a_page_is_loaded_over_the_one_connection_that_is_kept() {
    let nginx = Nginx::secure("", "location / { return 200 x; }");
    let base: url::Url = nginx.base.parse().expect("a URL");
    let settings = TlsSettings { ca_file: Some(nginx.ca()), ..TlsSettings::default() };
    let config = client_config(&settings).expect("TLS settings");
    let endpoint = Endpoint::new(&base, &config, limits().connect).expect("an endpoint");
    let sse = Sse::new(endpoint, &base, one_step(), Arc::default(), Vec::new(), &[], limits()).expect("headers");
    let page = (0..12).map(|number| get(&format!("/asset/{number}"))).collect();
    let driver = Driver::Sse(sse.with_site(Site { page, ..Site::default() }));
    let connected: Vec<bool> = runtime().block_on(async {
        let (mut session, mut connected) = (driver.session(0), Vec::new());
        for _ in 0..2 {
            let mut visit = new_turn();
            assert!(driver.act(Act::Page, &mut session, &mut visit).await);
            assert_eq!(visit.outcome, Outcome::Completed, "{}", visit.detail);
            connected.push(visit.connect.is_some());
        }
        connected
    });
    assert_eq!(connected, [true, false]);
}
