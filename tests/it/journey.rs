//! What users of LibreChat do besides turns and in the middle of them: through the driver before the reference
//! deployment, and as a run of the scenario.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use capacity_check::account::Credentials;
use capacity_check::clock;
use capacity_check::driver::{Act, Driver, Live, Prompt, Session, Trace};
use capacity_check::metric::MetricSet;
use capacity_check::record::{Outcome, Recorder, Step, Steps, Turn};
use capacity_check::scenario::{After, Disturb, Disturbance};
use capacity_check::secret::Secret;
use capacity_check::trace::WhiteSpace;
use mock_llm::journal::TurnOutcome;
use serde_json::Value;

use crate::librechat::signed;
use crate::support::chat::{Harm, Proxy, Reference, SECRET, chat, hello, librechat, list, minted, say};
use crate::support::{Mock, get, limits, load, root, run_with, runtime, tool, until};

const CALM: &str = "[models.m]\nttft = \"20ms\"\ngap = \"5ms\"\ntokens = 12";
/// A reply of 1.2 s.
const LONG: &str = "[models.m]\nttft = \"20ms\"\ngap = \"20ms\"\ntokens = 60";

async fn act(driver: &Driver, session: &mut Session, act: Act) -> (bool, Turn) {
    let now = clock::monotonic();
    let mut visit = Turn::new(now, now);
    let done = driver.act(act, session, &mut visit).await;
    (done, visit)
}

/// A traced turn in whose middle its user does something.
fn disturbed(number: u32, what: Disturbance, after: After) -> Prompt {
    let marker = format!("cc:journey:1:{number}");
    let text = format!("tell me more [[{marker}]]");
    let trace = Some(Trace { marker, white: WhiteSpace::Exact });
    Prompt { text, opens: number == 0, continues: true, disturb: Some(Disturb { what, after }), trace }
}

/// One turn, and the steps that were part of it.
async fn measured(driver: &Driver, session: &mut Session, prompt: &Prompt) -> (Turn, Steps) {
    let recorder = RefCell::new(Recorder::new(Arc::default(), MetricSet::default()));
    let now = clock::monotonic();
    let place = recorder.borrow_mut().begin(now);
    let mut turn = Turn::new(now, now);
    driver.turn(session, prompt, &mut turn, Live::new(&recorder, place)).await;
    (turn, recorder.into_inner().into_record().steps)
}

/// How often a step succeeded, and that it did nothing else.
fn succeeded(steps: &Steps, step: Step) -> u64 {
    steps.get(step).map_or(0, |record| {
        assert_eq!(record.outcomes.total(), record.outcomes.get(Outcome::Completed), "{step:?}");
        record.outcomes.total()
    })
}

/// How many requests of a kind the reference has answered with status 200.
fn answered(base: &str, method: &str, class: &str) -> u64 {
    let line = format!("http_requests_total{{method=\"{method}\",route_class=\"{class}\",status=\"200\"}} ");
    let metrics = get(base, "/metrics");
    metrics.lines().find_map(|told| told.strip_prefix(&line)).map_or(0, |count| count.parse().expect("a count"))
}

#[test]
fn a_page_is_loaded_on_six_connections_and_one_is_kept() {
    let mock = Mock::start(CALM);
    let reference = Reference::start(&mock, |_| {});
    let proxy = Proxy::start(reference.address, Harm::default());
    let driver = chat(&proxy.base);
    runtime().block_on(async {
        let mut session = driver.session(0);
        let (done, visit) = act(&driver, &mut session, Act::Page).await;
        assert_eq!((done, visit.outcome), (true, Outcome::Completed), "{}", visit.detail);
        assert!(visit.ended > visit.started);
        assert_eq!(proxy.connections(), 6);
        // The refresh, nine calls and who is active: each of them once.
        let calls = [("POST", "auth", 1), ("GET", "api", 9), ("GET", "chat", 1)];
        for (method, class, count) in calls {
            assert_eq!(answered(&reference.base, method, class), count, "{method} {class}");
        }
        // The turn goes on with the connection that was kept; who left makes another.
        assert_eq!(say(&driver, &mut session, hello()).await.outcome, Outcome::Completed);
        assert_eq!(proxy.connections(), 6);
        assert!(!act(&driver, &mut session, Act::Leave).await.0, "nothing goes over the wire");
        assert_eq!(say(&driver, &mut session, hello()).await.outcome, Outcome::Completed);
        assert_eq!(proxy.connections(), 7);
        // The model's list is asked for by the deployment: the page lacks it, and says which call that was.
        drop(mock);
        let (done, visit) = act(&driver, &mut session, Act::Page).await;
        assert_eq!((done, visit.outcome), (true, Outcome::HttpServer(500)));
        assert!(visit.detail.starts_with("GET /api/models: 500"), "{}", visit.detail);
    });
}

#[test]
fn an_earlier_conversation_is_opened_if_there_is_one() {
    let mock = Mock::start(CALM);
    let reference = Reference::start(&mock, |_| {});
    let driver = chat(&reference.base);
    runtime().block_on(async {
        let mut session = driver.session(0);
        // Nobody has said anything, then only in the present conversation, then in one before.
        for calls in [1, 2, 5] {
            let (done, visit) = act(&driver, &mut session, Act::History).await;
            assert_eq!((done, visit.outcome), (true, Outcome::Completed), "{}", visit.detail);
            assert_eq!(answered(&reference.base, "GET", "api"), calls);
            assert_eq!(say(&driver, &mut session, hello()).await.outcome, Outcome::Completed);
        }
    });
}

#[test]
fn a_user_with_a_password_is_let_in_again_in_mid_run() {
    let mock = Mock::start(CALM);
    let reference = Reference::start(&mock, |_| {});
    let (email, password) = ("a@x.test", Secret::new("a long password"));
    let login = Credentials::Password { email: email.to_owned(), password: password.clone() };
    let wrong = Credentials::Password { email: email.to_owned(), password: Secret::new("another password") };
    let chat = librechat(&reference.base, vec![login, wrong, minted(3)], &[], limits());
    runtime().block_on(async {
        let mut visit = Turn::new(0, clock::monotonic());
        chat.register(email, &password, &mut visit).await;
        let driver = Driver::LibreChat(chat);
        let mut session = driver.session(0);
        for _ in 0..2 {
            let (done, visit) = act(&driver, &mut session, Act::Login).await;
            assert_eq!((done, visit.outcome), (true, Outcome::Completed), "{}", visit.detail);
        }
        // The registration and both logins; the page adds a refresh by the cookie that the second one gave.
        assert_eq!(answered(&reference.base, "POST", "auth"), 3);
        assert_eq!(act(&driver, &mut session, Act::Page).await.1.outcome, Outcome::Completed);
        assert_eq!(say(&driver, &mut session, hello()).await.outcome, Outcome::Completed);
        assert_eq!(answered(&reference.base, "POST", "auth"), 4);
        let (done, visit) = act(&driver, &mut driver.session(1), Act::Login).await;
        assert_eq!((done, visit.outcome), (true, Outcome::HttpClient(404)));
        assert!(visit.detail.contains("Incorrect password"), "{}", visit.detail);
        assert!(!act(&driver, &mut driver.session(2), Act::Login).await.0, "who has no password cannot log in");
    });
}

#[test]
fn a_reply_that_its_user_breaks_off_is_taken_up_whole() {
    let mock = Mock::start(LONG);
    let reference = Reference::start(&mock, |_| {});
    let driver = chat(&reference.base);
    runtime().block_on(async {
        let mut session = driver.session(0);
        for (number, what, after) in [
            (0, Disturbance::Drop, After::Tokens(10)),
            (1, Disturbance::Reload, After::Time(Duration::from_millis(300))),
            (2, Disturbance::Reload, After::Tokens(1)),
        ] {
            let prompt = disturbed(number, what, after);
            let (turn, steps) = measured(&driver, &mut session, &prompt).await;
            let seen = (turn.outcome, turn.tokens, turn.late, turn.resumes);
            assert_eq!(seen, (Outcome::Completed, 60, 0, 1), "{what:?}: {}", turn.detail);
            let checked = turn.checked.as_ref().expect("a traced turn");
            assert!(checked.flaws.total() == 0 && checked.ended, "{what:?}: {checked:?}");
            assert_eq!(turn.arrivals.iter().map(|batch| u64::from(batch.tokens)).sum::<u64>(), 60);
            let reloads = what == Disturbance::Reload;
            assert_eq!((succeeded(&steps, Step::PageLoad), succeeded(&steps, Step::Resume)), (u64::from(reloads), 1));
            if !reloads {
                // The client tries after 200 ms; what came meanwhile is one arrival.
                assert!(steps.get(Step::Resume).unwrap().latency.max() >= 199_000);
                assert!(turn.arrivals.iter().any(|batch| batch.tokens >= 5), "{:?}", turn.arrivals);
            }
        }
    });
    let turns = mock.turns();
    assert!(turns.iter().all(|turn| turn.tokens == 60 && turn.outcome == TurnOutcome::Completed), "{turns:?}");
    assert_eq!(turns.len(), 3, "the model was asked once a turn");
    assert_eq!(messages(&reference.base).len(), 6);
}

/// The messages of the user's only conversation, each with the one before as its parent.
fn messages(base: &str) -> Vec<Value> {
    let read = |path: &str| -> Value { serde_json::from_str(&signed(base, 1, "GET", path, "").1).expect("JSON") };
    let convos = read("/api/convos");
    assert_eq!(convos["conversations"].as_array().map(Vec::len), Some(1), "{convos}");
    let id = convos["conversations"][0]["conversationId"].as_str().expect("an id");
    assert_eq!(read(&format!("/api/convos/{id}"))["conversationId"], id);
    assert_eq!(signed(base, 2, "GET", &format!("/api/convos/{id}"), "").0, 404, "somebody else's");
    assert_eq!(read(&format!("/api/agents/chat/status/{id}"))["active"], false);
    let messages = read(&format!("/api/messages/{id}")).as_array().expect("a list").clone();
    for pair in messages.windows(2) {
        assert_eq!(pair[1]["parentMessageId"], pair[0]["messageId"]);
    }
    messages
}

#[test]
fn a_reply_that_ends_while_nobody_listens_is_read_from_its_conversation() {
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"20ms\"\ntokens = 12");
    let reference = Reference::start(&mock, |_| {});
    let driver = chat(&reference.base);
    runtime().block_on(async {
        let mut session = driver.session(0);
        // Four tokens are to come within 80 ms, and the client tries again after 200.
        let dropped = disturbed(0, Disturbance::Drop, After::Tokens(8));
        let (turn, steps) = measured(&driver, &mut session, &dropped).await;
        assert_eq!((turn.outcome, turn.tokens + turn.late), (Outcome::Completed, 12), "{}", turn.detail);
        assert!(turn.tokens < 12 && turn.released >= turn.ended);
        assert_eq!(turn.checked.as_ref().expect("a traced turn").flaws.total(), 0);
        assert_eq!(succeeded(&steps, Step::Resume), 1);
        // A page that was loaded meanwhile may still find it on its way, or not.
        let reloaded = disturbed(1, Disturbance::Reload, After::Tokens(11));
        let (turn, _) = measured(&driver, &mut session, &reloaded).await;
        assert_eq!((turn.outcome, turn.tokens + turn.late), (Outcome::Completed, 12), "{}", turn.detail);
        assert_eq!(turn.checked.as_ref().expect("a traced turn").flaws.total(), 0);
        // The conversation goes on after both.
        let further = Prompt { opens: false, ..hello() };
        assert_eq!(say(&driver, &mut session, further).await.outcome, Outcome::Completed);
    });
    assert_eq!(messages(&reference.base).len(), 6);
}

#[test]
fn in_one_step_a_turn_that_is_broken_off_is_its_user_s_doing() {
    let mock = Mock::start(LONG);
    let reference = Reference::start(&mock, |settings| settings.one_step = true);
    let driver = chat(&reference.base);
    runtime().block_on(async {
        let mut session = driver.session(0);
        for (number, what) in [(0, Disturbance::Drop), (1, Disturbance::Reload)] {
            let prompt = disturbed(number, what, After::Tokens(5));
            let (turn, steps) = measured(&driver, &mut session, &prompt).await;
            assert_eq!((turn.outcome, turn.resumes), (Outcome::Aborted, 0), "{}", turn.detail);
            assert!(turn.detail.contains("cannot take a reply up again"), "{}", turn.detail);
            assert!((5..60).contains(&turn.tokens), "{}", turn.tokens);
            assert!(steps.get(Step::Resume).is_none());
            assert_eq!(succeeded(&steps, Step::PageLoad), u64::from(what == Disturbance::Reload));
        }
        assert_eq!(say(&driver, &mut session, hello()).await.outcome, Outcome::Completed);
    });
}

#[test]
fn a_cancel_is_a_step_up_to_the_turn_s_end() {
    for one_step in [false, true] {
        let mock = Mock::start(LONG);
        let reference = Reference::start(&mock, |settings| settings.one_step = one_step);
        let driver = chat(&reference.base);
        runtime().block_on(async {
            let mut session = driver.session(0);
            let prompt = disturbed(0, Disturbance::Cancel, After::Tokens(5));
            let (turn, steps) = measured(&driver, &mut session, &prompt).await;
            assert_eq!(turn.outcome, Outcome::Aborted, "{}", turn.detail);
            assert_eq!(succeeded(&steps, Step::Cancel), 1);
            assert!(steps.get(Step::Cancel).unwrap().latency.max() < 2_000_000);
        });
        until("the model's call is over", || mock.turns().len() == 1);
        assert_eq!(mock.turns()[0].outcome, TurnOutcome::CallerGone);
    }
}

#[test]
fn the_journeys_that_come_with_the_tool_run() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"50ms\"\ngap = \"20ms\"\ntokens = 40");
    let reference = Reference::start(&mock, |_| {});
    let list = list(12);
    let accounts = format!("{:?}", list.path());
    let mut text = std::fs::read_to_string(root().join("scenarios/browser-journey-librechat.toml")).unwrap();
    for (long, short) in [
        ("http://chat.staging.internal", reference.base.as_str()),
        ("http://mock.staging.internal:8090", mock.admin.as_str()),
        ("\"accounts-load1.csv\"", accounts.as_str()),
        ("weight = 3", "weight = 1"),
        ("share = \"5%\"", "share = \"25%\""),
        ("share = \"3%\"", "share = \"20%\""),
        ("after = \"2s\"", "after = \"300ms\""),
        ("lognormal 20s 60s", "200ms"),
        ("lognormal 30s 90s", "200ms"),
    ] {
        assert!(text.contains(long), "{long}");
        text = text.replace(long, short);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scenario.toml");
    std::fs::write(&path, text).unwrap();
    let times = ["--tiers", "12", "--think", "100ms", "--ramp", "1s", "--steady", "5s", "--steady-max", "5s"];
    let flags = [&["--scenario", path.to_str().unwrap(), "--no-progress"][..], &times].concat();
    let ran = run_with(tool().env("JWT_SECRET", SECRET), &flags);
    let result = ran.result();
    for step in [Step::PageLoad, Step::History, Step::Cancel, Step::Resume] {
        let found = result.steps.get(&step).unwrap_or_else(|| panic!("{step:?}: {ran}"));
        assert_eq!(found.outcomes.keys().collect::<Vec<_>>(), ["completed"], "{step:?}: {ran}");
        assert!(found.latency.count > 0 && found.latency.count == found.outcomes["completed"], "{step:?}: {ran}");
    }
    // Nobody logs in: tokens are minted; and to leave asks nothing of the deployment.
    assert!(!result.steps.contains_key(&Step::Login) && !result.steps.contains_key(&Step::Leave), "{ran}");
    let totals = &result.totals;
    assert_eq!(totals.outcomes.keys().collect::<Vec<_>>(), ["aborted", "completed"], "{ran}");
    assert_eq!(totals.outcomes.values().sum::<u64>(), totals.started, "{ran}");
    assert!(totals.errors == 0 && totals.resumes > 0, "{ran}");
    // A turn is one call to the model; one that was cancelled at once may not have come so far.
    let calls = mock.turns().len() as u64;
    assert!((totals.outcomes["completed"]..=totals.started).contains(&calls), "{calls}: {ran}");
}
