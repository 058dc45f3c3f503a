//! Protocols over HTTP that a scenario describes: whole runs against the mock, and turns against small servers.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use capacity_check::driver::{Act, Prompt};
use capacity_check::record::Outcome;
use capacity_check::scenario::{Disturbance, Framing, ReplyRules, RequestPlan, Resume, Site, SsePlan, TokenAt};
use http::Method;

use crate::support::chat::{hello, say};
use crate::support::described::{
    Asked, brings, disturbed, driver, get, heads, heard, lines, new_turn, one, one_step, post, refused, rules, server,
    two_steps, whole, with,
};
use crate::support::{Mock, Ran, STREAM_HEAD, Server, load, root, run, runtime, tool};

/// OpenAI's chat completions, as somebody would describe them.
const CHAT: &str = r#"
[target.sse.request]
path = "/v1/chat/completions"
body = '{"model": "{{model}}", "messages": "{{messages}}", "stream": true}'
[target.sse.reply]
token = "/choices/0/delta/content"
end = "[DONE]"
error = { "/error" = "*" }
"#;
const SHORT: [&str; 9] = ["--think", "100ms", "--ramp", "1s", "--steady", "3s", "--steady-max", "3s", "--no-progress"];

/// Every turn that was not cut off by the end of the run was whole, with 20 tokens.
fn all_whole(ran: &Ran) {
    let totals = ran.result().totals;
    let completed = totals.outcomes.get("completed").copied().unwrap_or(0);
    assert!(completed > 20 && totals.errors == 0, "{ran}");
    assert!(totals.checked >= completed && totals.tokens >= 20 * completed, "{ran}");
}

#[test]
fn a_described_protocol_is_run_and_traced_like_a_known_one() {
    let _machine = load();
    let mock = Mock::start("[models.m]\nttft = \"20ms\"\ngap = \"2ms\"\ntokens = 20");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.toml");
    let target = format!("url = \"{}\"\nmock_admin = \"{}\"\n", mock.api, mock.admin);
    std::fs::write(&path, format!("[target]\nprofile = \"sse\"\n{target}{CHAT}")).unwrap();
    let ran = run(&[&["--scenario", path.to_str().unwrap(), "--tiers", "4"][..], &SHORT].concat());
    all_whole(&ran);
    let result = ran.result();
    assert_eq!((result.target.kind.as_str(), result.target.model.as_str()), ("sse", "m"));
    let trace = result.tiers[0].trace.as_ref().unwrap();
    assert!(trace.joined > 10 && trace.unjoined == 0, "{ran}");
}

#[test]
fn presets_are_spoken_by_the_mock() {
    let _machine = load();
    let mock = Mock::start("[models.mock-fast]\nttft = \"20ms\"\ngap = \"2ms\"\ntokens = 20");
    for name in ["openai-responses", "anthropic-messages"] {
        let out = tempfile::tempdir().unwrap();
        let mut command = tool();
        command.arg("--scenario").arg(root().join(format!("scenarios/{name}.toml"))).args(SHORT);
        command.args(["--tiers", "4", "--target", &mock.api, "--mock-admin", &mock.admin]);
        let output = command.arg("--out").arg(out.path()).output().unwrap();
        all_whole(&Ran::of(output, out));
    }
}

#[test]
fn problems_have_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    let told = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = tool().args(["validate", "--users", "5", "--scenario"]).arg(&path).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = told(
        "[target]\nprofile = \"sse\"\nurl = \"http://127.0.0.1:9\"\n[target.sse.request]\npath = \"chat\"\n\
         body = '{\"text\": \"{{promt}}\"}'\n[target.sse.reply]\ntoken = \"/a\"\nend = [{ type = \"done\" }]\n\
         [target.websocket]\nmessage = \"{{prompt}}\"\n",
    );
    assert_eq!(code, 2, "{error}");
    for expected in [
        "bad.toml:5:1: target.sse.request.path: `chat` should begin with /",
        "bad.toml:6:1: target.sse.request.body: unknown place `promt`; did you mean `prompt`?",
        "bad.toml:9:10: target.sse.reply.end[0].type: `type` is no JSON Pointer",
        "bad.toml:10:9: target.websocket: is for the profile websocket",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let (code, error) = told("[target]\nprofile = \"sse\"\nurl = \"http://127.0.0.1:9\"\n");
    assert!(code == 2 && error.contains("2:1: target.profile: wants [target.sse] in a scenario"), "{error}");
    let (code, error) = told("[target]\nprofile = \"sse\"\n[target.sse]\npreset = \"ollama\"\n");
    assert!(code == 2 && error.contains("target.sse: wants a --target"), "{error}");
    let (code, error) = told(
        "[target]\nprofile = \"sse\"\nurl = \"http://127.0.0.1:9\"\n\
         [target.sse.request]\npath = \"/say\"\nbody = '{\"text\": \"{{prompt}}\"}'\n\
         [target.sse.stream]\npath = \"/stream\"\nmethod = \"POST\"\n\
         [target.sse.reply]\ntoken = \"/a\"\nend = \"[DONE]\"\n[[journeys]]\nname = \"j\"\n\
         steps = [{ do = \"turns\", drop = { share = \"5%\", after = \"1s\" } }]\n",
    );
    assert!(code == 2 && error.contains("journeys[0].steps[0].drop: this target has no way"), "{error}");
    let (code, error) = told(
        "[target]\nprofile = \"websocket\"\nurl = \"ws://127.0.0.1:9/chat\"\n[target.websocket]\n\
         message = \"{{prompt}}\"\nreply = { token = \"text\", end = \"bye\" }\n",
    );
    assert_eq!((code, error.as_str()), (0, ""));
}

#[test]
fn two_steps_and_what_they_bring() {
    let asked = Asked::default();
    let server = server(&asked, |line, before| match line {
        "POST /base/say" => whole("application/json", &format!(r#"{{"id":"s/{before}"}}"#)),
        _ => whole(
            "text/event-stream; charset=utf-8",
            "data: {\"t\":\" a\"}\n\ndata: {\"t\":\" b\"}\n\ndata: {\"done\":true,\"chat\":\"c1\"}\n\n",
        ),
    });
    let driver = driver(&server.base, two_steps(), Site::default());
    runtime().block_on(async {
        let mut session = driver.session(0);
        for opens in [true, false, true] {
            let turn = say(&driver, &mut session, Prompt { opens, ..hello() }).await;
            assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 2), "{}", turn.detail);
            assert!(turn.sent.is_some() && turn.released >= turn.ended);
            assert!(turn.ended >= turn.first_token.unwrap().latest);
        }
    });
    let bodies: Vec<String> = asked.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
    let said = |chat: &str| format!(r#"{{"chat":{chat},"text":"hello"}}"#);
    let none = String::new;
    assert_eq!(bodies, [said("null"), none(), said("\"c1\""), none(), said("null"), none()]);
    // What an answer brought stays within its segment of the path.
    assert_eq!(lines(&asked)[3], "GET /base/stream/s%2F1");
    let heads = heads(&asked);
    assert!(heads[0].contains("content-type: application/json\r\n") && heads[0].contains("x-extra: a secret value"));
    assert!(!heads[1].contains("content-type"));
}

#[test]
fn a_stream_that_breaks_off_goes_on_from_its_newest_event() {
    let asked = Asked::default();
    let server = server(&asked, |line, before| match (line, before) {
        ("POST /base/say", _) => whole("application/json", r#"{"id":"s"}"#),
        // The second event breaks off before its end: it comes again.
        (_, 0) => format!("{STREAM_HEAD}retry: 20\n\nid: 1\ndata: {{\"t\":\" a\"}}\n\nid: 2\ndata: {{\"t\":\" b\"}}\n"),
        (_, 1) => format!("{STREAM_HEAD}id: 2\ndata: {{\"t\":\" b\"}}\n\n"),
        _ => whole("text/event-stream", "data: {\"t\":\" c\"}\n\ndata: {\"done\":true}\n\n"),
    });
    let turn = one(&driver(&server.base, two_steps(), Site::default()), hello());
    assert_eq!((turn.outcome, turn.tokens, turn.resumes), (Outcome::Completed, 3, 2), "{}", turn.detail);
    let ids: Vec<Option<String>> = heads(&asked)[1..]
        .iter()
        .map(|head| head.lines().find_map(|line| line.strip_prefix("last-event-id: ")).map(str::to_owned))
        .collect();
    assert_eq!(ids, [None, Some("1".to_owned()), Some("2".to_owned())]);
}

#[test]
fn a_resume_in_vain_says_so() {
    let broken = |rest: &'static str, again: fn() -> String, resume: Resume| {
        let asked = Asked::default();
        let server = server(&asked, move |line, before| match (line, before) {
            ("POST /base/say", _) => whole("application/json", r#"{"id":"s"}"#),
            (_, 0) => format!("{STREAM_HEAD}retry: 5\n\n{rest}"),
            _ => again(),
        });
        let turn = one(&driver(&server.base, SsePlan { resume, ..two_steps() }, Site::default()), hello());
        (turn.outcome, turn.resumes, turn.detail)
    };
    let (with_id, without) = ("id: 1\ndata: {\"t\":\" a\"}\n\n", "data: {\"t\":\" a\"}\n\n");
    let (outcome, resumes, detail) = broken(with_id, || "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), Resume::WithId);
    assert_eq!((outcome, resumes), (Outcome::Truncated, 1));
    assert!(detail.contains("204"), "{detail}");
    let (outcome, resumes, detail) = broken(with_id, || refused("404 Not Found"), Resume::WithId);
    assert_eq!((outcome, resumes), (Outcome::Truncated, 1));
    assert!(detail.contains("resumed in vain: GET /stream/{{stream}}: 404 Not Found: no"), "{detail}");
    // A stream that breaks off each time is given up.
    let empty = || STREAM_HEAD.to_owned();
    assert_eq!(broken(with_id, empty, Resume::WithId).1, 3);
    // Without an id what was read would come twice, unless the scenario says that it does not.
    assert_eq!(broken(without, empty, Resume::WithId).1, 0);
    assert_eq!(broken("", empty, Resume::WithId).1, 3);
    assert_eq!(broken(without, empty, Resume::Always).1, 3);
    assert_eq!(broken(with_id, empty, Resume::Never).1, 0);
}

#[test]
fn lines_are_messages_and_the_last_needs_no_end() {
    let said = |kind: &'static str, body: &'static str, reply: ReplyRules| {
        let asked = Asked::default();
        let server = server(&asked, move |_, _| whole(kind, body));
        let plan = SsePlan { framing: Framing::Lines, reply, ..one_step() };
        let turn = one(&driver(&server.base, plan, Site::default()), hello());
        (turn.outcome, turn.tokens)
    };
    let json = "application/x-ndjson";
    assert_eq!(said(json, "{\"t\":\" a\"}\r\n\n{\"t\":\" b\",\"done\":true}", rules()), (Outcome::Completed, 2));
    assert_eq!(said(json, "{\"t\":\" a\"}\n{\"t\":\" b\"}\n", rules()), (Outcome::Truncated, 2));
    assert_eq!(said(json, "{\"t\":\" a\"}\nhalf", rules()), (Outcome::Protocol, 1));
    assert_eq!(said("text/html", "{\"t\":\" a\",\"done\":true}", rules()), (Outcome::Protocol, 0));
    let text = ReplyRules { token: TokenAt::Text, end: None, end_with_body: true, error: None, ..rules() };
    assert_eq!(said("text/plain", " a\n b\n c", text), (Outcome::Completed, 3));
}

#[test]
fn what_else_may_come() {
    let said = |answer: fn() -> String| {
        let asked = Asked::default();
        let server = server(&asked, move |_, _| answer());
        one(&driver(&server.base, one_step(), Site::default()), hello())
    };
    let page = said(|| whole("text/html", "<html>"));
    assert_eq!(page.outcome, Outcome::Protocol);
    assert!(page.detail.contains("content type text/html instead of a stream: <html>"), "{}", page.detail);
    let error = said(|| whole("text/event-stream", "data: {\"t\":\" a\"}\n\ndata: {\"error\":\"a secret value\"}\n\n"));
    assert_eq!((error.outcome, error.tokens), (Outcome::ErrorEvent, 1));
    assert!(error.detail.contains("[redacted]"), "{}", error.detail);
    let busy = said(|| "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n".to_owned());
    assert_eq!((busy.outcome, busy.retry_after), (Outcome::RateLimited, Some(7_000_000_000)));
    let gone = said(|| "HTTP/1.1 204 No Content\r\n\r\n".to_owned());
    assert_eq!(gone.outcome, Outcome::Protocol);
    let asked = Asked::default();
    let server = server(&asked, |_, _| whole("application/json", "{\"other\":1}"));
    let turn = one(&driver(&server.base, two_steps(), Site::default()), hello());
    assert_eq!(turn.detail, "the answer to POST /say brought no `stream`");
    assert_eq!(turn.outcome, Outcome::Protocol);
}

#[test]
fn who_cancels_closes_or_says_so() {
    // Says two tokens, and the rest once it was asked to cancel.
    let asked = Asked::default();
    let cancelled = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&cancelled);
    let server = Server::start({
        let asked = Arc::clone(&asked);
        move |mut stream, _| {
            while let Some((head, body)) = heard(&stream) {
                let cancels = head.starts_with("DELETE");
                asked.lock().unwrap().push((head, body));
                if cancels {
                    *seen.lock().unwrap() = true;
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
                    continue;
                }
                let events = "data: {\"t\":\" a\"}\n\ndata: {\"t\":\" b\",\"chat\":\"c 1\"}\n\n";
                let end = "data: {\"done\":true}\n\n";
                let length = events.len() + end.len();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
                let _ = write!(stream, "{head}Content-Length: {length}\r\n\r\n{events}");
                let began = Instant::now();
                while !*seen.lock().unwrap() && began.elapsed() < Duration::from_secs(3) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                if stream.write_all(end.as_bytes()).is_err() {
                    return;
                }
            }
        }
    });
    let delete = RequestPlan { method: Method::DELETE, ..get("/chat/{{chat}}") };
    let plan = SsePlan { cancel: Some(delete), ..one_step() };
    let driver = driver(&server.base, plan, Site::default());
    runtime().block_on(async {
        let mut session = driver.session(0);
        let turn = say(&driver, &mut session, disturbed(Disturbance::Cancel, 2)).await;
        assert_eq!((turn.outcome, turn.tokens), (Outcome::Aborted, 2), "{}", turn.detail);
        // It ended in order: the connection and the conversation go on.
        let turn = say(&driver, &mut session, Prompt { opens: false, ..hello() }).await;
        assert_eq!((turn.outcome, turn.connect), (Outcome::Completed, None), "{}", turn.detail);
    });
    assert_eq!(lines(&asked), ["POST /base/say", "DELETE /base/chat/c%201", "POST /base/say"]);
    assert!(asked.lock().unwrap()[2].1.contains("c 1"));
    // Without a request for it the connection is closed.
    *cancelled.lock().unwrap() = false;
    let closes = self::driver(&server.base, one_step(), Site::default());
    runtime().block_on(async {
        let mut session = closes.session(0);
        let turn = say(&closes, &mut session, disturbed(Disturbance::Cancel, 1)).await;
        assert_eq!(turn.outcome, Outcome::Aborted);
        *cancelled.lock().unwrap() = true;
        let turn = say(&closes, &mut session, Prompt { opens: false, ..hello() }).await;
        assert!(turn.outcome == Outcome::Completed && turn.connect.is_some(), "{}", turn.detail);
    });
}

#[test]
fn who_loses_the_connection_or_loads_the_page_again_goes_on() {
    for (what, page) in [(Disturbance::Drop, 0), (Disturbance::Reload, 2)] {
        let asked = Asked::default();
        let server = server(&asked, |line, before| match (line, before) {
            ("POST /base/say", _) => whole("application/json", r#"{"id":"s"}"#),
            ("GET /base/stream/s", 0) => {
                let events = "retry: 5\n\nid: 1\ndata: {\"t\":\" a\"}\n\n";
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\n{events}")
            }
            ("GET /base/stream/s", _) => {
                whole("text/event-stream", "id: 2\ndata: {\"t\":\" b\"}\n\ndata: {\"done\":true}\n\n")
            }
            _ => whole("text/html", "<html>"),
        });
        let site = Site { page: vec![get("/"), get("/app.js")], ..Site::default() };
        let turn = one(&driver(&server.base, two_steps(), site), disturbed(what, 1));
        assert_eq!((turn.outcome, turn.tokens, turn.resumes), (Outcome::Completed, 2, 1), "{}", turn.detail);
        let loaded = lines(&asked).iter().filter(|line| !line.contains("stream") && line.starts_with("GET")).count();
        assert_eq!(loaded, page);
    }
}

/// A site with a login that wants what the page brings, and pages of which one wants the login's token.
fn site() -> Site {
    let token = |path: &str| with("authorization", "Bearer {{token}}", get(path));
    Site {
        login: Some(RequestPlan { capture: brings("token", "/token"), ..post("/login", "{\"csrf\": \"{{csrf}}\"}") }),
        page: [RequestPlan { capture: brings("csrf", "/csrf"), ..get("/") }]
            .into_iter()
            .chain((0..11).map(|number| get(&format!("/asset/{number}"))))
            .collect(),
        history: vec![token("/history")],
        leave: Some(token("/logout")),
    }
}

#[test]
fn a_site_is_visited_and_a_refused_token_renewed() {
    let asked = Asked::default();
    let server = server(&asked, |line, before| match (line, before) {
        ("POST /base/login", _) => whole("application/json", &format!("{{\"token\":\"token-{before}\"}}")),
        ("POST /base/say", 1) => refused("401 Unauthorized"),
        ("POST /base/say", _) => whole("text/event-stream", "data: {\"t\":\" a\"}\n\ndata: {\"done\":true}\n\n"),
        ("GET /base/history", 1) => "HTTP/1.1 500 No\r\nContent-Length: 7\r\n\r\ntoken-1".to_owned(),
        _ => whole("application/json", "{\"csrf\":\"c\"}"),
    });
    let plan = SsePlan { request: with("authorization", "Bearer {{token}}", one_step().request), ..one_step() };
    let driver = driver(&server.base, plan, site());
    runtime().block_on(async {
        let mut session = driver.session(0);
        let mut visit = new_turn();
        assert!(driver.act(Act::Page, &mut session, &mut visit).await);
        assert_eq!(visit.outcome, Outcome::Completed, "{}", visit.detail);
        let mut visit = new_turn();
        assert!(driver.act(Act::Login, &mut session, &mut visit).await && visit.outcome == Outcome::Completed);
        for (renewed, number) in [(false, 0), (true, 1)] {
            let turn = say(&driver, &mut session, hello()).await;
            assert_eq!((turn.outcome, turn.renewal > 0), (Outcome::Completed, renewed), "{number}: {}", turn.detail);
        }
        let mut visit = new_turn();
        assert!(driver.act(Act::History, &mut session, &mut visit).await && visit.outcome == Outcome::Completed);
        let mut visit = new_turn();
        assert!(driver.act(Act::History, &mut session, &mut visit).await);
        assert_eq!(visit.outcome, Outcome::HttpServer(500));
        assert!(visit.detail.contains("[redacted]") && !visit.detail.contains("token-1"), "{}", visit.detail);
        let mut visit = new_turn();
        assert!(driver.act(Act::Leave, &mut session, &mut visit).await && visit.outcome == Outcome::Completed);
        // Who comes again is let in again.
        let turn = say(&driver, &mut session, hello()).await;
        assert!(turn.outcome == Outcome::Completed && turn.renewal > 0 && turn.connect.is_some(), "{}", turn.detail);
    });
    let lines = lines(&asked);
    assert_eq!(lines.iter().filter(|line| line.starts_with("GET /base/asset")).count(), 11);
    assert_eq!(lines.iter().filter(|line| *line == "POST /base/login").count(), 3);
    let asked = asked.lock().unwrap();
    let login = asked.iter().find(|(head, _)| head.starts_with("POST /base/login")).unwrap();
    assert_eq!(login.1, "{\"csrf\":\"c\"}");
    let tokens: Vec<&str> = asked
        .iter()
        .filter(|(head, _)| head.starts_with("POST /base/say"))
        .filter_map(|(head, _)| head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")))
        .collect();
    assert_eq!(tokens, ["token-0", "token-0", "token-1", "token-2"]);
}

#[test]
fn a_page_is_loaded_over_six_connections_of_which_one_is_kept() {
    // Requests that are open, the most of them, and the number of the last connection.
    let open = Arc::new(Mutex::new((0, 0, 0)));
    let seen = Arc::clone(&open);
    let server = Server::start(move |mut stream, number| {
        while heard(&stream).is_some() {
            {
                let mut open = seen.lock().unwrap();
                open.0 += 1;
                open.1 = open.1.max(open.0);
                open.2 = open.2.max(number);
            }
            std::thread::sleep(Duration::from_millis(100));
            seen.lock().unwrap().0 -= 1;
            let _ = stream.write_all(whole("text/plain", "x").as_bytes());
        }
    });
    let page: Vec<RequestPlan> = (0..18).map(|number| get(&format!("/asset/{number}"))).collect();
    let driver = driver(&server.base, one_step(), Site { page, ..Site::default() });
    runtime().block_on(async {
        let mut session = driver.session(0);
        for _ in 0..2 {
            let mut visit = new_turn();
            assert!(driver.act(Act::Page, &mut session, &mut visit).await);
            assert_eq!((visit.outcome, visit.connect.is_some()), (Outcome::Completed, true), "{}", visit.detail);
        }
    });
    let open = open.lock().unwrap();
    assert_eq!((open.1, open.2), (6, 10));
}
