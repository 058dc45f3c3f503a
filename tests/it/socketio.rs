//! A chat over Socket.IO as a scenario describes it, against a real server (`socket.io` of npm) before the mock: whole
//! replies by each transport, every fault in its class, what goes on between turns, and a load balancer before two
//! workers.

use std::sync::Arc;
use std::time::Duration;

use capacity_check::clock;
use capacity_check::driver::socketio::SocketIo;
use capacity_check::driver::{Act, Driver, Prompt, Session, Trace};
use capacity_check::net::{Endpoint, TlsSettings, client_config};
use capacity_check::record::{Flaws, Outcome, Turn, Wire};
use capacity_check::scenario::{
    After, Condition, Disturb, Disturbance, Field, PLACES, Part, ReplyRules, SocketIoPlan, Template, TokenAt, Transport,
};
use capacity_check::trace::WhiteSpace;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::books::{SHORT, equal_books};
use crate::support::chat::say;
use crate::support::nginx::Nginx;
use crate::support::node::NodeServer;
use crate::support::{Mock, limits, load, root, run, runtime, until};

/// The mock of most tests.
const FAST: &str = "[models.m]\nttft = \"5ms\"\ngap = \"3ms\"\ntokens = 20";
/// How many servers are started side by side.
const AT_ONCE: usize = 4;
/// A server that is polled and nothing else.
const POLLED: [&str; 2] = ["--transports", "polling"];

fn text(text: &str) -> Template {
    let known = [&PLACES[..], &["conversation_id", "chat_token"]].concat();
    Template::parse(text, &known).expect("a text with known places")
}

fn field(at: Part, is: Option<Value>) -> Field {
    Field { at, is }
}

fn event(name: &str) -> Condition {
    Condition::All(vec![field(Part::Event, Some(json!(name)))])
}

/// The acknowledgement, with something in it.
fn ack(pointer: &str, is: Option<Value>) -> Condition {
    let fields = vec![field(Part::Event, Some(json!("ack"))), field(Part::Pointer(pointer.to_owned()), is)];
    Condition::All(fields)
}

/// What the scenario of this protocol says.
fn plan() -> SocketIoPlan {
    let limited = vec![
        field(Part::Event, Some(json!("failed"))),
        field(Part::Pointer("/0/code".to_owned()), Some(json!("rate_limited"))),
    ];
    let reply = ReplyRules {
        token: TokenAt::Pointer("/0/text".to_owned()),
        token_when: Some(event("token")),
        end: Some(Condition::Any(vec![event("done"), event("cancelled")])),
        end_with_body: false,
        error: Some(Condition::Any(vec![event("failed"), ack("/0/ok", Some(json!(false)))])),
        error_text: Some("/0/message".to_owned()),
        rate_limited: Some(Condition::All(limited)),
        retry_after: Some("/0/retry_after".to_owned()),
        heartbeat: None,
        capture: vec![("conversation_id".to_owned(), "/0/conversation_id".to_owned())],
    };
    SocketIoPlan {
        path: "/socket.io/".to_owned(),
        namespace: "/".to_owned(),
        transport: Transport::Websocket,
        headers: Vec::new(),
        auth: Some(text(r#"{"token": "{{chat_token}}"}"#)),
        event: "chat".to_owned(),
        arguments: text(r#"{"id": "{{uuid}}", "conversation_id": "{{conversation_id}}", "text": "{{prompt}}"}"#),
        acknowledge: true,
        cancel: Some(("cancel".to_owned(), text(r#"{"id": "{{uuid}}"}"#))),
        reply,
        deflate: true,
        message_limit: 1 << 20,
        reconnect: Duration::from_millis(50),
    }
}

/// The same, begun with polling.
fn polling() -> SocketIoPlan {
    SocketIoPlan { transport: Transport::Polling, ..plan() }
}

/// The same, ended by the acknowledgement, which has a number of tokens.
fn acknowledged(mut plan: SocketIoPlan) -> SocketIoPlan {
    plan.reply.end = Some(ack("/0/tokens", None));
    plan
}

fn chat_at(base: &str, plan: SocketIoPlan, values: Value) -> Driver {
    let base: url::Url = base.parse().expect("a URL");
    let config = client_config(&TlsSettings::default()).expect("TLS settings");
    let endpoint = Endpoint::new(&base, &config, limits().connect).expect("an endpoint");
    let values = serde_json::from_value(values).expect("a table");
    let driver = SocketIo::new(endpoint, &base, Box::new(plan), Arc::new(values), Vec::new(), &[], limits());
    Driver::SocketIo(driver.expect("headers"))
}

fn base(server: &NodeServer) -> String {
    format!("http://{}", server.address())
}

fn chat(server: &NodeServer, plan: SocketIoPlan) -> Driver {
    chat_at(&base(server), plan, json!({}))
}

/// What a user says in a turn, and how its reply is checked.
fn traced(user: usize, number: usize) -> Prompt {
    let marker = format!("cc:socketio:{user}:{number}");
    let text = format!("tell me \"more\" [[{marker}]]");
    let trace = Some(Trace { marker, white: WhiteSpace::Exact });
    Prompt { text, opens: number == 0, continues: true, disturb: None, trace }
}

/// So many turns of one user.
async fn turns_of(driver: &Driver, session: &mut Session, user: usize, count: usize) -> Vec<Turn> {
    let mut turns = Vec::new();
    for number in 0..count {
        turns.push(say(driver, session, traced(user, number)).await);
    }
    turns
}

#[track_caller]
fn assert_whole(turn: &Turn) {
    let flaws = turn.checked.as_ref().map(|checked| checked.flaws);
    assert_eq!((turn.outcome, turn.tokens, flaws), (Outcome::Completed, 20, Some(Flaws::default())), "{}", turn.detail);
    assert!(turn.sent.is_some() && turn.first_token.is_some() && turn.ended >= turn.last_token.unwrap());
}

/// What a server does wrong, and what comes of it.
struct Fault {
    flags: Vec<&'static str>,
    plan: SocketIoPlan,
    outcome: Outcome,
    /// A part of what is said of it.
    detail: &'static str,
}

fn fault(flags: &[&'static str], plan: SocketIoPlan, outcome: Outcome, detail: &'static str) -> Fault {
    Fault { flags: flags.to_vec(), plan, outcome, detail }
}

/// Speaks a turn with each of these servers, some of them at a time.
fn assert_faults(mock: &Mock, faults: Vec<Fault>) {
    let mut numbered: Vec<(usize, Fault)> = faults.into_iter().enumerate().collect();
    while !numbered.is_empty() {
        let some: Vec<_> = numbered.drain(..AT_ONCE.min(numbered.len())).collect();
        std::thread::scope(|scope| {
            for (number, Fault { flags, plan, outcome, detail }) in some {
                scope.spawn(move || {
                    let server = NodeServer::socketio(&mock.api, &flags);
                    let driver = chat(&server, plan);
                    let turn = runtime().block_on(async {
                        let mut session = driver.session(0);
                        turns_of(&driver, &mut session, number, 1).await.remove(0)
                    });
                    assert_eq!(turn.outcome, outcome, "{flags:?}: {}", turn.detail);
                    assert!(turn.detail.contains(detail), "{flags:?}: {}", turn.detail);
                });
            }
        });
    }
}

#[test]
fn every_fault_in_the_middle_of_a_turn_has_its_outcome() {
    let _load = load();
    let mock = Mock::start(FAST);
    // So long that a ping is missed.
    let slow = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"60ms\"\ntokens = 20");
    let with = |flags: &[&'static str]| [&POLLED[..], flags].concat();
    let pinging = ["--ping-interval-ms", "200", "--ping-timeout-ms", "200"];
    let silent = [&pinging[..], &["--fault", "no-ping"]].concat();
    let left = "disconnected from the namespace";
    assert_faults(
        &mock,
        vec![
            fault(&["--fault", "disconnect-mid-turn"], plan(), Outcome::Truncated, left),
            fault(&["--fault", "disconnect-mid-turn=transport"], plan(), Outcome::Truncated, ""),
            fault(&["--fault", "terminate-mid-turn"], plan(), Outcome::Truncated, "closed"),
            fault(&["--fault", "error-mid-turn"], plan(), Outcome::ErrorEvent, "planned failure"),
            fault(&["--fault", "drop-token"], plan(), Outcome::Corrupted, "lost at token"),
            fault(&["--fault", "double-token"], plan(), Outcome::Corrupted, "doubled at token"),
            // Its attachments are read, and are no text.
            fault(&["--fault", "binary-token"], plan(), Outcome::Corrupted, ""),
            fault(&["--fault", "ack-only"], acknowledged(plan()), Outcome::Completed, ""),
            fault(&["--fault", "ack-only"], plan(), Outcome::Stalled, "stall limit"),
            fault(&["--fault", "split-frames"], plan(), Outcome::Completed, ""),
            fault(&with(&["--fault", "disconnect-mid-turn"]), polling(), Outcome::Truncated, left),
            fault(&with(&["--fault", "terminate-mid-turn"]), polling(), Outcome::Truncated, "closed"),
            fault(&with(&["--fault", "binary-token"]), polling(), Outcome::Corrupted, ""),
            fault(&with(&["--fault", "ack-only"]), acknowledged(polling()), Outcome::Completed, ""),
        ],
    );
    assert_faults(
        &slow,
        vec![
            fault(&silent, plan(), Outcome::Stalled, "ping timeout: no ping within 0.4 s"),
            fault(&with(&silent), polling(), Outcome::Stalled, "ping timeout: no ping within 0.4 s"),
            fault(&pinging, plan(), Outcome::Completed, ""),
            fault(&with(&pinging), polling(), Outcome::Completed, ""),
        ],
    );
}

#[test]
fn every_way_not_to_be_let_in_has_its_outcome() {
    let _load = load();
    let mock = Mock::start(FAST);
    let elsewhere = || SocketIoPlan { namespace: "/nowhere".to_owned(), ..plan() };
    assert_faults(
        &mock,
        vec![
            fault(&["--fault", "refuse"], plan(), Outcome::HttpServer(503), "planned refusal"),
            fault(&["--fault", "refuse=429"], polling(), Outcome::RateLimited, "planned refusal"),
            fault(&["--require-token", "x"], plan(), Outcome::Unauthorized, "unauthorized"),
            fault(&["--require-token", "x"], polling(), Outcome::Unauthorized, "unauthorized"),
            fault(&[], elsewhere(), Outcome::ErrorEvent, "Invalid namespace"),
            fault(&POLLED, plan(), Outcome::HttpClient(400), "Transport unknown"),
            fault(&["--path", "/elsewhere/"], polling(), Outcome::HttpClient(404), "404"),
        ],
    );
    // What lets a user in; what is said of it is not shown.
    let server = NodeServer::socketio(&mock.api, &["--require-token", "a-token-of-tests"]);
    let driver = chat_at(&base(&server), plan(), json!({ "chat_token": "a-token-of-tests", "model": "m" }));
    assert!(!format!("{driver:?}").contains("of-tests"));
    let turn = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), 50, 1).await.remove(0) });
    assert_whole(&turn);
}

#[test]
fn replies_are_whole_by_each_transport() {
    let _load = load();
    let mock = Mock::start(FAST);
    let deflating = ["--per-message-deflate", "on"];
    let room = |plan: SocketIoPlan| SocketIoPlan { namespace: "/chat".to_owned(), ..plan };
    let plain = |plan: SocketIoPlan| SocketIoPlan { deflate: false, ..plan };
    let servers: [(&[&str], SocketIoPlan, u64); 5] = [
        (&[], plan(), 0),
        (&deflating, room(plan()), 0),
        (&deflating, plain(plan()), 0),
        (&deflating, room(polling()), 1),
        // Where there is no upgrade, the user goes on polling.
        (&POLLED, polling(), 0),
    ];
    for (number, (flags, plan, upgrades)) in servers.into_iter().enumerate() {
        let server = NodeServer::socketio(&mock.api, flags);
        let (is_polling, deflate) = (plan.transport == Transport::Polling, plan.deflate);
        let driver = chat(&server, plan);
        let turns = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), number, 10).await });
        turns.iter().for_each(assert_whole);
        // Connecting is no lag of ours.
        assert!(turns[0].connect.is_some() && turns[0].renewal > 0 && turns[1].renewal == 0);
        let stats = server.stats();
        assert_eq!((&stats["connections"], &stats["upgrades"]), (&json!(1), &json!(upgrades)), "{stats}");
        assert_eq!(stats["polls"].as_u64() > Some(0), is_polling, "{stats}");
        if !is_polling {
            let offered = stats["extensions"].as_str().expect("a text");
            assert_eq!(offered.contains("permessage-deflate"), deflate, "{offered}");
        }
        until("the user leaves", || server.stats()["open"] == 0);
        if !is_polling || upgrades > 0 {
            assert_eq!(server.stats()["disconnects"], json!({ "client namespace disconnect": 1 }));
        }
    }
}

#[test]
fn a_cancelled_turn_ends_in_order_where_there_is_a_word_for_it() {
    let _load = load();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"20ms\"\ntokens = 50");
    let server = NodeServer::socketio(&mock.api, &[]);
    let disturbed = |number, what| {
        let disturb = Some(Disturb { what, after: After::Tokens(5) });
        Prompt { disturb, ..traced(0, number) }
    };
    let wordless = SocketIoPlan { cancel: None, ..plan() };
    let ways = [(plan(), Disturbance::Cancel, 1), (wordless, Disturbance::Cancel, 3), (plan(), Disturbance::Drop, 5)];
    for (plan, what, connections) in ways {
        let driver = chat(&server, plan);
        runtime().block_on(async {
            let mut session = driver.session(0);
            for number in 0..2 {
                let turn = say(&driver, &mut session, disturbed(number, what)).await;
                assert_eq!(turn.outcome, Outcome::Aborted, "{}", turn.detail);
                assert!((5..40).contains(&turn.tokens), "{}", turn.tokens);
            }
        });
        assert_eq!(server.stats()["connections"], connections, "{what:?}");
    }
    until("the model is told to stop", || mock.turns().len() == 6);
    assert!(mock.turns().iter().all(|turn| turn.tokens < 50));
}

#[test]
fn a_user_who_thinks_answers() {
    let _load = load();
    let mock = Mock::start(FAST);
    let pinging = ["--ping-interval-ms", "100", "--ping-timeout-ms", "400"];
    let think = Duration::from_millis(800);
    for (number, (flags, plan)) in [(Vec::new(), plan()), (POLLED.to_vec(), polling())].into_iter().enumerate() {
        let server = NodeServer::socketio(&mock.api, &[&pinging[..], &flags].concat());
        let is_polling = plan.transport == Transport::Polling;
        let driver = chat(&server, plan);
        runtime().block_on(async {
            let mut session = driver.session(0);
            let now = clock::monotonic();
            let mut visit = Turn::new(now, now);
            assert!(driver.act(Act::Page, &mut session, &mut visit).await, "the user connects when it comes");
            assert!(visit.outcome == Outcome::Completed && visit.connect.is_some(), "{}", visit.detail);
            for turn in 0..2 {
                assert_whole(&say(&driver, &mut session, traced(number, turn)).await);
                // The user is called away again and again, which harms nothing.
                for _ in 0..80 {
                    let _ = tokio::time::timeout(think / 80, driver.idle(&mut session)).await;
                }
            }
            let stats = server.stats();
            assert_eq!(stats["connections"], 1, "{stats}");
            assert!(stats["pongs"].as_u64() > Some(5), "{stats}");
            if !is_polling {
                // Nobody answers: the server hangs up, and the next turn connects anew.
                tokio::time::sleep(think).await;
                let turn = say(&driver, &mut session, traced(number, 2)).await;
                assert_whole(&turn);
                assert!(turn.connect.is_some() && turn.retries == 0);
            }
            driver.act(Act::Leave, &mut session, &mut visit).await;
        });
        until("the user leaves", || server.stats()["open"] == 0);
    }
}

#[test]
fn polling_wants_sticky_sessions_and_a_websocket_does_not() {
    let _load = load();
    let mock = Mock::start(FAST);
    let workers = ["one", "two"].map(|name| NodeServer::socketio(&mock.api, &["--name", name]));
    let [one, two] = [workers[0].address(), workers[1].address()];
    let upgrade = "map $http_upgrade $upgrading { default upgrade; '' ''; }";
    let passed = "proxy_http_version 1.1; \
                  proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrading;";
    // Who has been somewhere comes there again.
    let sticky = Nginx::start(
        &format!(
            "{upgrade} split_clients $request_id $fresh {{ 50% one; * two; }}\n\
             map $cookie_lb $worker {{ one one; two two; default $fresh; }}\n\
             upstream one {{ server {one}; }} upstream two {{ server {two}; }}"
        ),
        &format!(
            "location / {{ {passed} proxy_pass http://$worker; add_header Set-Cookie \"lb=$worker; Path=/\" always; }}"
        ),
    );
    let loose = Nginx::start(
        &format!("{upgrade} upstream any {{ server {one}; server {two}; }}"),
        &format!("location / {{ {passed} proxy_pass http://any; }}"),
    );
    let driver = chat_at(&sticky.base, polling(), json!({}));
    let all = runtime().block_on(join_all((0..16).map(|user| {
        let driver = &driver;
        async move { turns_of(driver, &mut driver.session(0), user, 2).await }
    })));
    all.iter().flatten().for_each(assert_whole);
    let counted = |name: &str| workers.each_ref().map(|worker| worker.stats()[name].as_u64().unwrap_or(0));
    let [first, second] = counted("connections");
    assert!(first > 0 && second > 0 && first + second == 16, "both have users: {first} and {second}");
    assert_eq!(counted("upgrades").iter().sum::<u64>(), 16);

    let driver = chat_at(&loose.base, polling(), json!({}));
    let turn = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), 20, 1).await.remove(0) });
    assert_eq!(turn.outcome, Outcome::HttpClient(400), "{}", turn.detail);
    assert!(turn.detail.contains("sticky sessions") && turn.detail.contains("Session ID unknown"), "{}", turn.detail);
    let driver = chat_at(&loose.base, plan(), json!({}));
    let turns = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), 21, 2).await });
    turns.iter().for_each(assert_whole);
}

#[test]
fn polls_over_http2_say_so() {
    let _load = load();
    let mock = Mock::start(FAST);
    let server = NodeServer::socketio(&mock.api, &POLLED);
    let passed = format!("location / {{ proxy_http_version 1.1; proxy_pass {}; }}", base(&server));
    let nginx = Nginx::secure("", &passed);
    let url: url::Url = nginx.base.parse().expect("a URL");
    let settings = TlsSettings { ca_file: Some(nginx.ca()), ..TlsSettings::default() };
    let config = client_config(&settings).expect("TLS settings");
    let endpoint = Endpoint::new(&url, &config, limits().connect).expect("an endpoint");
    let chat = SocketIo::new(endpoint, &url, Box::new(polling()), Arc::default(), Vec::new(), &[], limits());
    let driver = Driver::SocketIo(chat.expect("headers"));
    let turn = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), 30, 1).await.remove(0) });
    assert_whole(&turn);
    assert_eq!(turn.wire, Some(Wire::Http2));
}

#[test]
fn a_run_counts_what_the_journal_counts() {
    let _load = load();
    let calm = "[models.m]\nttft = \"30ms\"\ngap = \"5ms\"\ntokens = \"uniform 5 25\"\n";
    let written = std::fs::read_to_string(root().join("scenarios/socketio-chat.toml")).expect("a scenario");
    let polled = written.replace("transport = \"websocket\"", "transport = \"polling\"");
    assert_ne!(written, polled);
    let spoken = |mock: &Mock, scenario: &str| {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
        std::fs::write(file.path(), scenario).expect("the scenario is written");
        let server = NodeServer::socketio(&mock.api, &["--per-message-deflate", "on"]);
        let (address, path) = (base(&server), file.path().to_str().expect("UTF-8"));
        let target = ["--scenario", path, "--target", &address, "--mock-admin", &mock.admin, "--no-progress"];
        // A cancelled turn has another name in the journal.
        run(&[&target[..], &SHORT, &["--cancel-share", "0%"]].concat())
    };
    let mock = Mock::start(calm);
    let outcomes = equal_books(&mock, &spoken(&mock, &polled));
    assert!(outcomes["completed"] > 20 && outcomes.len() == 1, "{outcomes:?}");
    let mock = Mock::start(&format!("{calm}rate_limit = {{ requests = 5, per = \"1s\" }}"));
    let outcomes = equal_books(&mock, &spoken(&mock, &written));
    assert!(outcomes["rate_limited"] > 3 && outcomes["completed"] > 3, "{outcomes:?}");
}
