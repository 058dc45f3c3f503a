//! A chat over WebSocket as a scenario describes it, against a real server (`ws` of npm) before the mock: whole
//! replies with and without deflate, every fault in its class, turns that are taken up again, what goes on between.

use std::sync::Arc;
use std::time::Duration;

use capacity_check::clock;
use capacity_check::driver::websocket::WebSocketChat;
use capacity_check::driver::{Act, Driver, Limits, Prompt, Session, Trace};
use capacity_check::net::{Endpoint, TlsSettings, client_config};
use capacity_check::record::{Flaws, Outcome, Turn};
use capacity_check::scenario::{
    After, Condition, Disturb, Disturbance, Field, PLACES, Part, ReplyRules, RequestPlan, Site, SocketPer, Source,
    Template, TokenAt, WebSocketPlan,
};
use capacity_check::trace::WhiteSpace;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::books::{SHORT, equal_books};
use crate::support::chat::say;
use crate::support::described::{Asked, lines, refused, server, whole};
use crate::support::node::NodeServer;
use crate::support::{Mock, limits, listen, load, root, run, runtime, until};

/// The mock of most tests.
const FAST: &str = "[models.m]\nttft = \"5ms\"\ngap = \"3ms\"\ntokens = 20";
/// How many servers are started side by side.
const AT_ONCE: usize = 4;

fn text(text: &str) -> Template {
    let known = [&PLACES[..], &["conversation_id", "chat_token"]].concat();
    Template::parse(text, &known).expect("a text with known places")
}

fn is(kind: &str) -> Condition {
    Condition::All(vec![Field { at: Part::Pointer("/type".to_owned()), is: Some(json!(kind)) }])
}

/// What the scenario of this protocol says, without resuming and without pings of its own.
fn plan() -> WebSocketPlan {
    let reply = ReplyRules {
        token: TokenAt::Pointer("/text".to_owned()),
        token_when: Some(is("token")),
        end: Some(Condition::Any(vec![is("done"), is("cancelled")])),
        end_with_body: false,
        error: Some(is("error")),
        error_text: Some("/message".to_owned()),
        rate_limited: Some(is("rate_limited")),
        retry_after: Some("/retry_after".to_owned()),
        heartbeat: Some(is("heartbeat")),
        capture: vec![("conversation_id".to_owned(), "/conversation_id".to_owned())],
    };
    WebSocketPlan {
        path: text("/chat"),
        subprotocols: vec!["chat.v1".to_owned()],
        headers: Vec::new(),
        open: vec![text(r#"{"type": "hello", "token": "{{chat_token}}"}"#)],
        opened: Some(is("welcome")),
        capture: Vec::new(),
        message: text(
            r#"{"type": "chat", "id": "{{uuid}}", "conversation_id": "{{conversation_id}}", "text": "{{prompt}}"}"#,
        ),
        cancel: Some(text(r#"{"type": "cancel", "id": "{{uuid}}"}"#)),
        resume: None,
        heartbeat_reply: Some(text(r#"{"type": "heartbeat"}"#)),
        reply,
        socket: SocketPer::User,
        ping: None,
        deflate: true,
        message_limit: 1 << 20,
        reconnect: Duration::from_millis(50),
    }
}

/// The same with resuming.
fn resuming() -> WebSocketPlan {
    let resume = text(r#"{"type": "resume", "id": "{{uuid}}", "after": "{{received}}"}"#);
    WebSocketPlan { resume: Some(resume), ..plan() }
}

/// The same without a message to wait for.
fn unwelcomed(plan: WebSocketPlan) -> WebSocketPlan {
    WebSocketPlan { open: Vec::new(), opened: None, ..plan }
}

fn websocket(base: &str, plan: WebSocketPlan, values: Value, limits: Limits) -> WebSocketChat {
    let base: url::Url = base.parse().expect("a URL");
    let config = client_config(&TlsSettings::default()).expect("TLS settings");
    let endpoint = Endpoint::new(&base, &config, limits.connect).expect("an endpoint");
    let values = serde_json::from_value(values).expect("a table");
    WebSocketChat::new(endpoint, &base, Box::new(plan), Arc::new(values), Vec::new(), &[], limits).expect("headers")
}

fn base(server: &NodeServer) -> String {
    format!("http://{}", server.address())
}

fn chat(server: &NodeServer, plan: WebSocketPlan) -> Driver {
    Driver::WebSocket(websocket(&base(server), plan, json!({}), limits()))
}

/// What a user says in a turn, and how its reply is checked.
fn traced(user: usize, number: usize) -> Prompt {
    let marker = format!("cc:websocket:{user}:{number}");
    let text = format!("tell me \"more\" [[{marker}]]");
    let trace = Some(Trace { marker, white: WhiteSpace::Exact });
    Prompt { text, opens: number == 0, continues: true, disturb: None, trace }
}

fn disturbed(prompt: Prompt, what: Disturbance) -> Prompt {
    Prompt { disturb: Some(Disturb { what, after: After::Tokens(5) }), ..prompt }
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

fn closes(server: &NodeServer, code: &str) -> u64 {
    server.stats()["closes"][code].as_u64().unwrap_or(0)
}

/// What a server does wrong, and what comes of it.
struct Fault {
    flags: &'static [&'static str],
    plan: WebSocketPlan,
    outcome: Outcome,
    /// A part of what is said of it.
    detail: &'static str,
    /// The code with which the user closes the socket, where that is looked at.
    code: Option<&'static str>,
}

fn fault(flags: &'static [&'static str], plan: WebSocketPlan, outcome: Outcome, detail: &'static str) -> Fault {
    Fault { flags, plan, outcome, detail, code: None }
}

/// Something against the protocol, which the user answers with a code.
fn against(flags: &'static [&'static str], code: &'static str) -> Fault {
    Fault { code: Some(code), ..fault(flags, plan(), Outcome::Protocol, "") }
}

/// Speaks a turn with each of these servers, some of them at a time.
fn assert_faults(mock: &Mock, faults: Vec<Fault>) {
    let mut numbered: Vec<(usize, Fault)> = faults.into_iter().enumerate().collect();
    while !numbered.is_empty() {
        let some: Vec<_> = numbered.drain(..AT_ONCE.min(numbered.len())).collect();
        std::thread::scope(|scope| {
            for (number, Fault { flags, plan, outcome, detail, code }) in some {
                scope.spawn(move || {
                    let server = NodeServer::websocket(&mock.api, flags);
                    let driver = chat(&server, plan);
                    let turn = runtime().block_on(async {
                        let mut session = driver.session(0);
                        turns_of(&driver, &mut session, number, 1).await.remove(0)
                    });
                    assert_eq!(turn.outcome, outcome, "{flags:?}: {}", turn.detail);
                    assert!(turn.detail.contains(detail), "{flags:?}: {}", turn.detail);
                    if let Some(code) = code {
                        until(&format!("{flags:?} closes with {code}"), || closes(&server, code) == 1);
                    }
                });
            }
        });
    }
}

#[test]
fn every_fault_in_the_middle_of_a_turn_has_its_outcome() {
    let _load = load();
    let mock = Mock::start(FAST);
    // So long that pings have their time.
    let slow = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"50ms\"\ntokens = 20");
    let pinging = || WebSocketPlan { ping: Some((Duration::from_millis(50), Duration::from_millis(300))), ..plan() };
    assert_faults(
        &mock,
        vec![
            fault(&["--fault", "close-mid-turn"], plan(), Outcome::Truncated, "with code 1011: planned"),
            fault(&["--fault", "close-mid-turn=1013"], plan(), Outcome::RateLimited, "with code 1013"),
            fault(&["--fault", "close-mid-turn=1008"], resuming(), Outcome::Truncated, "with code 1008"),
            fault(&["--fault", "close-mid-turn=0"], plan(), Outcome::Truncated, "without a code"),
            fault(&["--fault", "terminate-mid-turn"], plan(), Outcome::Truncated, "closed"),
            fault(&["--fault", "reset-mid-turn"], plan(), Outcome::Reset, "reset"),
            fault(&["--fault", "silent-mid-turn"], resuming(), Outcome::Stalled, "stall limit"),
            fault(&["--fault", "oversized"], resuming(), Outcome::Protocol, ""),
            against(&["--fault", "bad-utf8"], "1007"),
            against(&["--fault", "masked"], "1002"),
            against(&["--fault", "reserved-bit"], "1002"),
            fault(&["--fault", "drop-token"], plan(), Outcome::Corrupted, "lost at token"),
            fault(&["--fault", "double-token"], plan(), Outcome::Corrupted, "doubled at token"),
            fault(&["--fault", "split-frames"], plan(), Outcome::Completed, ""),
            fault(&["--fault", "fragments"], plan(), Outcome::Completed, ""),
            fault(&["--fault", "binary-token"], plan(), Outcome::Completed, ""),
        ],
    );
    assert_faults(
        &slow,
        vec![
            fault(&["--fault", "no-pong"], pinging(), Outcome::Stalled, "no pong within 0.3 s"),
            fault(&[], pinging(), Outcome::Completed, ""),
        ],
    );
}

#[test]
fn every_way_not_to_be_let_in_has_its_outcome() {
    let _load = load();
    let mock = Mock::start(FAST);
    assert_faults(
        &mock,
        vec![
            fault(&["--fault", "refuse"], plan(), Outcome::HttpServer(503), "planned refusal"),
            fault(&["--fault", "refuse=429"], plan(), Outcome::RateLimited, "429"),
            fault(&["--fault", "refuse=401"], plan(), Outcome::Unauthorized, "401"),
            fault(&["--fault", "refuse=302"], plan(), Outcome::Protocol, "302"),
            fault(&[], WebSocketPlan { path: text("/nowhere"), ..plan() }, Outcome::HttpClient(404), "404"),
            fault(&["--wrong-subprotocol"], plan(), Outcome::Protocol, "chat.v0"),
            fault(&["--fault", "never-upgrade"], plan(), Outcome::ConnectTimeout, "the upgrade was not answered"),
            fault(&["--fault", "silent"], plan(), Outcome::ConnectTimeout, "the message that is waited for"),
            fault(&["--fault", "silent"], unwelcomed(plan()), Outcome::Stalled, "stall limit"),
            fault(&["--require-token", "x"], plan(), Outcome::ErrorEvent, "wrong token"),
            fault(&["--require-hello"], unwelcomed(plan()), Outcome::ErrorEvent, "say hello first"),
        ],
    );
    // What lets a user in, in the opening request and in the first message; and what is said of it is not shown.
    let secrets = ["--require-bearer", "a-key-of-tests", "--require-token", "a-token-of-tests"];
    let server = NodeServer::websocket(&mock.api, &secrets);
    let values = json!({ "chat_token": "a-token-of-tests", "model": "m", "api_key": "a-key-of-tests" });
    let socket = websocket(&base(&server), plan(), values, limits());
    assert!(!format!("{socket:?}").contains("of-tests"));
    let driver = Driver::WebSocket(socket);
    let turn = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), 50, 1).await.remove(0) });
    assert_whole(&turn);
    let keyless = chat(&server, plan());
    let turn = runtime().block_on(async { turns_of(&keyless, &mut keyless.session(0), 51, 1).await.remove(0) });
    assert_eq!(turn.outcome, Outcome::Unauthorized, "{}", turn.detail);
}

#[test]
fn who_is_refused_is_let_in_again_once() {
    let asked = Asked::default();
    let server = server(&asked, |line, before| match line {
        "POST /login" => whole("application/json", &format!("{{\"token\":\"token-{before}\"}}")),
        _ => refused("401 Unauthorized"),
    });
    let login = RequestPlan {
        method: Method::POST,
        path: text("/login"),
        headers: Vec::new(),
        body: None,
        capture: vec![("chat_token".to_owned(), Source::Pointer("/token".to_owned()))],
    };
    let site = Site { login: Some(login), ..Site::default() };
    let driver = Driver::WebSocket(websocket(&server.base, plan(), json!({}), limits()).with_site(site));
    let turn = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), 0, 1).await.remove(0) });
    assert_eq!(turn.outcome, Outcome::Unauthorized, "{}", turn.detail);
    assert_eq!(lines(&asked), ["POST /login", "GET /chat", "POST /login", "GET /chat"]);
}

#[test]
fn who_is_refused_waits_longer_each_time() {
    let closed = format!("http://{}", listen().local_addr().expect("an address"));
    let plan = WebSocketPlan { reconnect: Duration::from_millis(200), ..plan() };
    let driver = Driver::WebSocket(websocket(&closed, plan, json!({}), limits()));
    runtime().block_on(async {
        let mut session = driver.session(0);
        for pause in [0, 200, 400] {
            let turn = say(&driver, &mut session, traced(0, 0)).await;
            assert_eq!(turn.outcome, Outcome::ConnectRefused);
            let took = turn.ended - turn.started;
            // The pause counts from the last failure.
            assert!((pause - 50..pause + 1_500).contains(&(took / clock::MILLISECOND)), "{took} ns after {pause} ms");
        }
    });
}

#[test]
fn replies_are_whole_with_and_without_deflate() {
    let _load = load();
    let mock = Mock::start(FAST);
    let on = ["--per-message-deflate", "on"];
    let servers: [(&[&str], bool); 5] = [
        (&[][..], true),
        (&on, false),
        (&on, true),
        (&[&on[..], &["--no-context-takeover", "both"]].concat(), true),
        (&[&on[..], &["--window-bits", "9", "--client-window-bits", "9"]].concat(), true),
    ];
    for (number, (flags, deflate)) in servers.into_iter().enumerate() {
        let server = NodeServer::websocket(&mock.api, flags);
        let driver = chat(&server, WebSocketPlan { deflate, ..plan() });
        let turns = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), number, 20).await });
        turns.iter().for_each(assert_whole);
        let connected: Vec<bool> = turns.iter().map(|turn| turn.connect.is_some()).collect();
        assert!(connected[0] && connected[1..].iter().all(|connected| !connected), "a socket a user: {connected:?}");
        // Opening the socket is no lag of ours.
        assert!(turns[0].renewal > 0 && turns[1].renewal == 0);
        let stats = server.stats();
        assert_eq!((&stats["connections"], &stats["messages"]), (&json!(1), &json!(21)), "{stats}");
        let offered = stats["extensions"].as_str().expect("a text");
        assert_eq!(offered.contains("permessage-deflate"), deflate, "{offered}");
        until("the user leaves", || closes(&server, "1001") == 1);
    }
}

#[test]
fn users_never_mix_and_a_socket_may_be_a_turns() {
    let _load = load();
    let mock = Mock::start(FAST);
    let server = NodeServer::websocket(&mock.api, &["--per-message-deflate", "on"]);
    let driver = chat(&server, WebSocketPlan { socket: SocketPer::Turn, ..plan() });
    let all = runtime().block_on(join_all((0..8).map(|user| {
        let driver = &driver;
        async move { turns_of(driver, &mut driver.session(user), user as usize, 4).await }
    })));
    for turn in all.iter().flatten() {
        assert_whole(turn);
        assert!(turn.connect.is_some());
    }
    until("the journal is whole", || mock.turns().len() == 32);
    assert_eq!(mock.turns().iter().map(|turn| turn.tokens).sum::<u64>(), 640);
    assert_eq!(server.stats()["connections"], 32);
    until("every turn says goodbye", || closes(&server, "1000") == 32);
}

#[test]
fn a_turn_whose_socket_breaks_is_taken_up_again() {
    let _load = load();
    let mock = Mock::start(FAST);
    for (number, fault) in
        ["terminate-mid-turn", "reset-mid-turn", "close-mid-turn=1011", "close-mid-turn=1013"].into_iter().enumerate()
    {
        let server = NodeServer::websocket(&mock.api, &["--per-message-deflate", "on", "--fault", fault]);
        let driver = chat(&server, resuming());
        let turns = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), number, 3).await });
        for turn in &turns {
            assert_whole(turn);
            assert_eq!(turn.resumes, 1, "{fault}");
        }
        assert_eq!(server.stats()["resumed"], 3, "{fault}");
        assert_eq!(server.stats()["connections"], 4, "{fault}: one that breaks is used no more");
    }
    // The user's own doing: with and without a way to take the turn up again.
    let server = NodeServer::websocket(&mock.api, &[]);
    for (plan, outcome) in [(resuming(), Outcome::Completed), (plan(), Outcome::Aborted)] {
        let driver = chat(&server, plan);
        for (number, what) in [Disturbance::Drop, Disturbance::Reload].into_iter().enumerate() {
            let prompt = disturbed(traced(50 + usize::from(outcome == Outcome::Aborted), number), what);
            let turn = runtime().block_on(async { say(&driver, &mut driver.session(0), prompt).await });
            assert_eq!((turn.outcome, turn.resumes), (outcome, u32::from(outcome == Outcome::Completed)), "{what:?}");
            if outcome == Outcome::Completed {
                assert_whole(&turn);
            }
        }
    }
    // The server has forgotten it.
    let server = NodeServer::websocket(&mock.api, &["--fault", "terminate-mid-turn", "--grace-ms", "0"]);
    let driver = chat(&server, resuming());
    let turn = runtime().block_on(async { turns_of(&driver, &mut driver.session(0), 60, 1).await.remove(0) });
    assert_eq!((turn.outcome, turn.resumes), (Outcome::ErrorEvent, 1), "{}", turn.detail);
    assert!(turn.detail.contains("no such turn"), "{}", turn.detail);
}

#[test]
fn a_cancelled_turn_ends_in_order_where_there_is_a_word_for_it() {
    let _load = load();
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"20ms\"\ntokens = 50");
    let server = NodeServer::websocket(&mock.api, &[]);
    let driver = chat(&server, plan());
    runtime().block_on(async {
        let mut session = driver.session(0);
        for number in 0..3 {
            let turn = say(&driver, &mut session, disturbed(traced(0, number), Disturbance::Cancel)).await;
            assert_eq!(turn.outcome, Outcome::Aborted, "{}", turn.detail);
            assert!((5..40).contains(&turn.tokens), "{}", turn.tokens);
        }
    });
    assert_eq!(server.stats()["connections"], 1, "the socket is still the user's");
    let driver = chat(&server, WebSocketPlan { cancel: None, ..plan() });
    runtime().block_on(async {
        let mut session = driver.session(0);
        for number in 0..2 {
            let turn = say(&driver, &mut session, disturbed(traced(1, number), Disturbance::Cancel)).await;
            assert_eq!(turn.outcome, Outcome::Aborted, "{}", turn.detail);
        }
    });
    until("the socket is closed", || closes(&server, "1000") == 2);
    assert_eq!(server.stats()["connections"], 3);
    // Where a turn has one end, it says nothing of the cancel's own answer, which may still come.
    let mut one_end = plan();
    one_end.reply.end = Some(is("cancelled"));
    let driver = chat(&server, one_end);
    runtime().block_on(async {
        let mut session = driver.session(0);
        for number in 0..2 {
            let turn = say(&driver, &mut session, disturbed(traced(2, number), Disturbance::Cancel)).await;
            assert_eq!(turn.outcome, Outcome::Aborted, "{}", turn.detail);
        }
    });
    assert_eq!(server.stats()["connections"], 5);
    until("the model is told to stop", || mock.turns().len() == 7);
    assert!(mock.turns().iter().all(|turn| turn.tokens < 50));
}

#[test]
fn a_user_who_thinks_answers() {
    let _load = load();
    let mock = Mock::start(FAST);
    let server = NodeServer::websocket(&mock.api, &["--ping-ms", "100", "--heartbeat-ms", "50"]);
    let pinging = WebSocketPlan { ping: Some((Duration::from_millis(50), Duration::from_secs(2))), ..plan() };
    let driver = chat(&server, pinging);
    let think = Duration::from_millis(800);
    runtime().block_on(async {
        let mut session = driver.session(0);
        let now = clock::monotonic();
        let mut visit = Turn::new(now, now);
        assert!(driver.act(Act::Page, &mut session, &mut visit).await, "a socket a user is opened when it comes");
        assert!(visit.outcome == Outcome::Completed && visit.connect.is_some(), "{}", visit.detail);
        for number in 0..2 {
            let turn = say(&driver, &mut session, traced(0, number)).await;
            assert_whole(&turn);
            assert_eq!(turn.connect, None);
            // The user is called away again and again, which harms nothing.
            for _ in 0..80 {
                let _ = tokio::time::timeout(think / 80, driver.idle(&mut session)).await;
            }
        }
        let stats = server.stats();
        assert_eq!(stats["connections"], 1, "{stats}");
        let counted = |name: &str| stats[name].as_u64().unwrap_or(0);
        // Hello, two turns, and an answer to each heartbeat.
        assert!(counted("messages") >= 13 && counted("pongs") >= 8 && counted("pings") >= 8, "{stats}");
        // Nobody answers: the server hangs up, and the next turn opens another socket.
        tokio::time::sleep(think).await;
        let turn = say(&driver, &mut session, traced(0, 2)).await;
        assert_whole(&turn);
        assert!(turn.connect.is_some() && turn.retries == 0);
    });
}

#[test]
fn heartbeats_and_pings_do_not_stretch_a_turn() {
    let _load = load();
    let mock = Mock::start(&format!("{FAST}\nfaults = {{ stall = 1.0 }}"));
    let server = NodeServer::websocket(&mock.api, &["--ping-ms", "100", "--heartbeat-ms", "100"]);
    let driver = chat(&server, plan());
    let turn = runtime().block_on(async { say(&driver, &mut driver.session(0), traced(0, 0)).await });
    assert_eq!(turn.outcome, Outcome::Stalled, "{}", turn.detail);
    assert!(turn.ended - turn.started < 4 * clock::SECOND, "the turn's own limit is longer");
}

#[test]
fn a_run_counts_what_the_journal_counts() {
    let _load = load();
    let calm = "[models.m]\nttft = \"30ms\"\ngap = \"5ms\"\ntokens = \"uniform 5 25\"\n";
    let scenario = root().join("scenarios/websocket-generic.toml");
    let spoken = |mock: &Mock| {
        let server = NodeServer::websocket(&mock.api, &["--per-message-deflate", "on"]);
        let address = base(&server);
        let scenario = scenario.to_str().expect("UTF-8");
        let target = ["--scenario", scenario, "--target", &address, "--mock-admin", &mock.admin, "--no-progress"];
        // A cancelled turn has another name in the journal.
        run(&[&target[..], &SHORT, &["--cancel-share", "0%"]].concat())
    };
    let mock = Mock::start(calm);
    let outcomes = equal_books(&mock, &spoken(&mock));
    assert!(outcomes["completed"] > 20 && outcomes.len() == 1, "{outcomes:?}");
    let mock = Mock::start(&format!("{calm}rate_limit = {{ requests = 5, per = \"1s\" }}"));
    let outcomes = equal_books(&mock, &spoken(&mock));
    assert!(outcomes["rate_limited"] > 3 && outcomes["completed"] > 3, "{outcomes:?}");
}
