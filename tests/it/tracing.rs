//! Every token traced: what the reference plants is found in its class and with its count, what is clean gives no
//! finding, and each part of a turn goes where it belongs.

use capacity_check::driver::{Driver, Prompt, Trace};
use capacity_check::metric::Metric;
use capacity_check::record::{Flaw, Flaws, Outcome, Turn};
use capacity_check::result::{RunResult, TierResult, Verdict};
use capacity_check::trace::WhiteSpace;
use mock_llm::journal::Call;
use mock_llm::{Options, Wrong};
use reference_chat::{Plant, Settings};
use serde_json::{Value, json};

use crate::support::chat::{Reference, librechat, minted, say};
use crate::support::nginx::Nginx;
use crate::support::{Mock, Ran, exchange, get, limits, load, quiet, run_against, runtime, tool, until};

/// The mock of most tests: replies of 100 tokens as fast as they go.
const FAST: &str = "[models.m]\nttft = \"1ms\"\ngap = \"0\"\ntokens = 100";

fn traced(turn: u32) -> Prompt {
    let marker = format!("cc:plants:1:{turn}");
    let text = format!("tell me more [[{marker}]]");
    let trace = Some(Trace { marker, white: WhiteSpace::Exact });
    Prompt { text, opens: true, continues: false, disturb: None, trace }
}

/// So many turns through a deployment with these plants, and what it says that it has planted.
fn planted(plants: &[&str], turns: u32, also: impl FnOnce(&mut Settings)) -> (Vec<Turn>, Value) {
    let mock = Mock::start(FAST);
    let reference = Reference::start(&mock, |settings| {
        settings.plants = plants.iter().map(|plant| Plant::parse(plant).unwrap()).collect();
        also(settings);
    });
    let driver = Driver::LibreChat(librechat(&reference.base, vec![minted(1)], &[], limits()));
    let turns = runtime().block_on(async {
        let mut session = driver.session(0);
        let mut all = Vec::new();
        for number in 0..turns {
            all.push(say(&driver, &mut session, traced(number)).await);
        }
        all
    });
    let told = serde_json::from_str(&get(&reference.base, "/reference/plants")).expect("JSON");
    (turns, told)
}

fn flaws(turns: &[Turn]) -> Flaws {
    let mut all = Flaws::default();
    for turn in turns {
        all.merge(&turn.checked.as_ref().expect("a traced turn").flaws);
    }
    all
}

#[test]
fn what_is_planted_is_found_in_its_class_with_its_count() {
    for (plant, name, flaw) in [
        ("drop=37", "drop", Flaw::Lost),
        ("double=37", "double", Flaw::Doubled),
        ("swap=37", "swap", Flaw::Reordered),
        ("alter=37", "alter", Flaw::Altered),
        ("foreign=150", "foreign", Flaw::Leaked),
    ] {
        let (turns, told) = planted(&[plant], 30, |_| {});
        let count = told[name].as_u64().expect("a count");
        assert!(count >= 30, "{plant}: {told}");
        let mut expected = Flaws::default();
        expected.add(flaw, count);
        let found = flaws(&turns);
        let spoilt: Vec<&Turn> = turns.iter().filter(|turn| turn.outcome != Outcome::Completed).collect();
        assert_eq!(found, expected, "{plant}: {:?}", spoilt.iter().map(|turn| &turn.detail).collect::<Vec<_>>());
        let outcome = if flaw == Flaw::Leaked { Outcome::Leaked } else { Outcome::Corrupted };
        assert!(!spoilt.is_empty() && spoilt.iter().all(|turn| turn.outcome == outcome), "{plant}");
        for turn in spoilt {
            let checked = turn.checked.as_ref().unwrap();
            assert!(checked.findings.iter().all(|finding| finding.flaw == flaw), "{checked:?}");
            assert!(turn.detail.starts_with(&format!("{} at token ", flaw.name())), "{}", turn.detail);
        }
    }
}

#[test]
fn tokens_that_come_late_are_told_from_tokens_that_are_lost() {
    let (turns, told) = planted(&["late=8"], 5, |_| {});
    assert_eq!(told["late"], 40);
    for turn in &turns {
        assert_eq!((turn.outcome, turn.late, turn.tokens), (Outcome::Completed, 8, 92), "{}", turn.detail);
    }
    assert_eq!(flaws(&turns), Flaws::default());
    let (turns, _) = planted(&["late-lost=8"], 5, |_| {});
    assert!(turns.iter().all(|turn| (turn.outcome, turn.late) == (Outcome::Corrupted, 0)));
    assert_eq!(flaws(&turns), Flaws { lost: 40, ..Flaws::default() });
}

#[test]
fn chunking_is_no_flaw() {
    for one_step in [false, true] {
        let (turns, _) = planted(&["coalesce=7"], 5, |settings| settings.one_step = one_step);
        for turn in &turns {
            assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 100), "{}", turn.detail);
            assert!(turn.arrivals.len() <= 15, "{} arrivals", turn.arrivals.len());
        }
        assert_eq!(flaws(&turns), Flaws::default());
    }
}

/// A short run against a deployment of ours with these settings.
fn run(scenario: &str, users: &str) -> (Ran, RunResult) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scenario.toml");
    std::fs::write(&path, scenario).expect("a file");
    let out = tempfile::tempdir().expect("a folder");
    let flags =
        ["--no-progress", "--tiers", users, "--think", "0s", "--ramp", "1s", "--steady", "4s", "--steady-max", "4s"];
    let output = tool().args(flags).arg("--scenario").arg(&path).arg("--out").arg(out.path()).output().expect("a run");
    let ran = Ran::of(output, out);
    let result = serde_json::from_value(ran.value()).unwrap_or_else(|error| panic!("{error}: {ran}"));
    (ran, result)
}

/// A cheap deployment before a mock that sends 30 tokens 20 ms apart.
fn deployment(plants: &str) -> String {
    format!(
        "[reference]\nturn_cost = \"1ms\"\ntoken_cost = \"0s\"\nfixed_latency = \"0s\"\nplants = {plants}\n\
         [mock.models.m]\nttft = \"50ms\"\ngap = \"20ms\"\ntokens = 30\n"
    )
}

fn p50_ms(tier: &TierResult, metric: Metric) -> f64 {
    tier.metrics[&metric].p50_us as f64 / 1e3
}

#[test]
fn buffering_delays_and_further_calls_are_named() {
    let _quiet = quiet();
    let (ran, plain) = run(&deployment("[\"titles\"]"), "5");
    let tier = &plain.tiers[0];
    let trace = tier.trace.as_ref().unwrap_or_else(|| panic!("{ran}"));
    assert!(trace.joined >= 20 && trace.unjoined == 0, "{ran}");
    assert_eq!(trace.joined, tier.counts.started, "{ran}");
    assert_eq!((trace.relay.buffered_turns, tier.counts.flaws.total()), (0, 0), "{ran}");
    assert!(trace.relay.tokens < trace.relay.arrivals * 5 / 4, "{ran}");
    let all = plain.trace.as_ref().expect("a trace");
    assert!(all.same_host && all.asides > 5 && all.retries == 0 && all.extra_llm_calls == all.asides, "{all:?}");
    for parts in [trace.ttft.expect("parts").median, trace.ttft.expect("parts").p95] {
        assert!((49_000..150_000).contains(&parts.llm_first), "the mock takes 50 ms: {parts:?}");
        assert!(parts.before_llm < 60_000 && parts.relay < 60_000, "{parts:?}");
    }
    assert_eq!(trace.slowest.len(), 5);
    // TTFT and its parts are one thing, measured on both sides.
    let (ttft, sum) = (tier.metrics[&Metric::Ttft].p50_us, trace.ttft.expect("parts").median.ttft());
    assert!(ttft.abs_diff(sum) < ttft / 5, "{ttft} and {sum}");

    let (ran, late) = run(&deployment("[\"delay=80ms\"]"), "5");
    let added = p50_ms(&late.tiers[0], Metric::TokenDelay) - p50_ms(tier, Metric::TokenDelay);
    assert!((70.0..140.0).contains(&added), "{added} ms: {ran}");

    let (ran, coalesced) = run(&deployment("[\"coalesce=5\"]"), "5");
    let relay = coalesced.tiers[0].trace.as_ref().unwrap().relay;
    assert!((4.5..5.5).contains(&(relay.tokens as f64 / relay.arrivals as f64)), "{relay:?}: {ran}");
    assert!(relay.together * 10 >= relay.tokens * 7 && relay.buffered_turns == 0, "{relay:?}");
    assert!(!format!("{ran}").contains("Response buffered"), "{ran}");

    let (ran, buffered) = run(&deployment("[\"buffer\"]"), "5");
    let trace = buffered.tiers[0].trace.as_ref().unwrap();
    assert_eq!(trace.relay.buffered_turns, trace.relay.turns, "{ran}");
    assert!(format!("{ran}").contains("Response buffered"), "{ran}");
}

#[test]
fn a_leak_is_the_first_thing_that_a_report_says() {
    let _load = load();
    let (ran, leaked) = run(&deployment("[\"foreign=120\"]"), "5");
    assert_eq!((leaked.verdict, ran.code), (Verdict::Fail, 1), "{ran}");
    assert!(leaked.totals.flaws.leaked >= 8 && leaked.totals.flaws.lost == 0, "{ran}");
    assert!(!leaked.tiers[0].findings.is_empty());
    assert!(leaked.tiers[0].findings.iter().all(|finding| finding.flaw == Flaw::Leaked));
    for file in ["report.md", "report.html"] {
        let text = std::fs::read_to_string(ran.folder().join(file)).expect("a report");
        let headline = text.find("Security: in ").unwrap_or_else(|| panic!("{file}: {ran}"));
        assert!(headline < text.find("Where the time went").expect("a section"), "{file}");
    }
}

#[test]
fn a_hundred_thousand_clean_tokens_of_a_run_give_no_finding() {
    let _load = load();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 500");
    let ran =
        run_against(&mock, &["--tiers", "40", "--think", "0s", "--ramp", "1s", "--steady", "6s", "--steady-max", "6s"]);
    let result: RunResult = serde_json::from_value(ran.value()).unwrap();
    assert!(result.totals.tokens >= 100_000, "{}: {ran}", result.totals.tokens);
    assert_eq!((result.totals.flaws, result.totals.late_tokens), (Flaws::default(), 0), "{ran}");
    let tier = &result.tiers[0];
    let trace = tier.trace.as_ref().expect("a trace");
    assert_eq!((trace.joined, trace.unjoined), (tier.counts.outcomes["completed"], 0), "{ran}");
    assert_eq!(trace.relay.tokens, 500 * trace.relay.turns);
}

#[test]
fn a_clock_that_is_ahead_and_runs_fast_is_corrected() {
    let _quiet = quiet();
    let wrong = Wrong { offset_us: 2_500_000, skew_ppm: 300.0 };
    let toml = "[models.m]\nttft = \"30ms\"\ngap = \"10ms\"\ntokens = 20";
    let mock = Mock::with_options(toml, Options { clock: wrong, ..Options::default() });
    let ran = run_against(
        &mock,
        &["--tiers", "5", "--think", "100ms", "--ramp", "1s", "--steady", "14s", "--steady-max", "14s"],
    );
    let result: RunResult = serde_json::from_value(ran.value()).unwrap();
    let trace = result.trace.as_ref().expect("a trace");
    assert!(!trace.same_host && trace.uncertainty_us > 0.0, "{trace:?}");
    // 16 s at 300 millionths are 4.8 ms more than at its start.
    let off = trace.offset_us - 2_500_000.0;
    assert!((2_000.0..12_000.0).contains(&off), "{off} us besides what was planted: {trace:?}");
    assert!((100.0..500.0).contains(&trace.drift_ppm), "{trace:?}");
    assert!(trace.readings.len() >= 3, "{trace:?}");
    let parts = result.tiers[0].trace.as_ref().unwrap().ttft.unwrap().median;
    assert!(parts.before_llm < 15_000 && parts.relay < 15_000, "nothing is between: {parts:?}");
    assert!((29_000..60_000).contains(&parts.llm_first), "{parts:?}");
}

#[test]
fn a_deployment_that_tries_again_is_seen_to() {
    let _load = load();
    let scenario = "[reference]\nturn_cost = \"1ms\"\nfixed_latency = \"0s\"\ntoken_cost = \"0s\"\n\
                    [mock.models.m]\nttft = \"20ms\"\ngap = \"5ms\"\ntokens = 10\nfaults = { http_503 = 0.3 }\n";
    let (ran, result) = run(scenario, "4");
    let trace = result.trace.as_ref().expect("a trace");
    assert!(trace.retries > 0 && trace.asides == 0 && trace.extra_llm_calls == trace.retries, "{trace:?}: {ran}");
    assert_eq!(result.tiers[0].trace.as_ref().unwrap().unjoined, 0, "{ran}");
    // What a retry costs is the deployment's: half a second and more before the model answers.
    assert!(result.tiers[0].metrics[&Metric::BeforeLlm].max_us > 400_000, "{ran}");
}

#[test]
fn the_mock_tells_a_turn_from_a_retry_and_from_what_is_only_about_it() {
    let mock = Mock::start(FAST);
    let ask = |content: &str, stream: bool| {
        let body = json!({ "model": "m", "stream": stream, "messages": [{ "role": "user", "content": content }] });
        exchange(&mock.api, "POST", "/v1/chat/completions", "application/json", &body.to_string()).1
    };
    let first = ask("hello [[cc:r:1:0]]", true);
    let again = ask("hello, once more [[cc:r:1:0]]\n", true);
    ask("Title for: hello [[cc:r:1:0]] - well", false);
    ask("nothing", true);
    until("four turns", || mock.turns().len() == 4);
    let turns = mock.turns();
    let calls: Vec<Option<Call>> = turns.iter().map(|turn| turn.call).collect();
    assert_eq!(calls, [Some(Call::Turn), Some(Call::Retry), Some(Call::Aside), None]);
    let last = |text: &str| text.lines().rev().nth(5).map(str::to_owned);
    assert_eq!(last(&first).map(|line| line.len()), last(&again).map(|line| line.len()), "one script");
    let sends = turns[0].sends_us.as_ref().expect("stamps");
    assert!(sends.len() == 100 && sends.is_sorted(), "{sends:?}");
    let first_us = turns[0].first_token_us.expect("a token") - turns[0].received_us;
    assert_eq!(u64::from(sends[0]), first_us);
    assert!(turns[2].sends_us.is_none() && turns[3].sends_us.is_none());
    mock.behave(&format!("trace_share = 0.0\n{FAST}"));
    ask("hello [[cc:r:1:1]]", true);
    until("five turns", || mock.turns().len() == 5);
    assert!(mock.turns()[4].sends_us.is_none());
}

#[test]
fn a_proxy_that_buffers_is_told_from_one_that_does_not() {
    let _quiet = quiet();
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"25ms\"\ntokens = 15");
    for (buffering, buffered) in [("on", true), ("off", false)] {
        let location = format!("location / {{ proxy_pass {}; proxy_buffering {buffering}; }}", mock.api);
        let nginx = Nginx::start("", &location);
        let times = ["--tiers", "4", "--think", "0s", "--ramp", "1s", "--steady", "3s", "--steady-max", "3s"];
        let target = ["--no-progress", "--target", &nginx.base, "--mock-admin", &mock.admin];
        let ran = crate::support::run(&[&target[..], &times[..]].concat());
        let result: RunResult = serde_json::from_value(ran.value()).unwrap();
        let relay = result.tiers[0].trace.as_ref().unwrap_or_else(|| panic!("{ran}")).relay;
        assert!(relay.turns >= 10, "{ran}");
        assert_eq!(result.totals.flaws, Flaws::default(), "buffering harms no token: {ran}");
        let share = relay.buffered_turns as f64 / relay.turns as f64;
        assert_eq!(share > 0.9, buffered, "proxy_buffering {buffering}: {relay:?}");
        assert_eq!(share > 0.1, buffered, "proxy_buffering {buffering}: {relay:?}");
        assert_eq!(format!("{ran}").contains("Response buffered"), buffered, "{ran}");
    }
}
