//! How turns and visits of a described protocol over HTTP end that somebody breaks off, cancels, or refuses, against
//! small servers.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use capacity_check::driver::Act;
use capacity_check::record::Outcome;
use capacity_check::scenario::{
    Condition, Disturbance, Field, Part, ReplyRules, RequestPlan, Resume, Site, Source, SsePlan,
};
use http::{Method, header};

use crate::support::chat::hello;
use crate::support::described::{
    Asked, brings, disturbed, driver, get, heard, lines, new_turn, one, one_step, post, refused, rules, server,
    two_steps, whole, with,
};
use crate::support::{STREAM_HEAD, Server, runtime};

/// Lets a user in, with a token that is another one each time.
fn login() -> Option<RequestPlan> {
    Some(RequestPlan { capture: brings("token", "/token"), ..post("/login", "{}") })
}

fn token(before: usize) -> String {
    whole("application/json", &format!("{{\"token\":\"token-{before}\"}}"))
}

#[test]
fn who_leaves_a_stream_for_good_has_aborted_the_turn() {
    let left = |id: &'static str, again: fn() -> String, resume: Resume| {
        let asked = Asked::default();
        let server = server(&asked, move |line, before| match (line, before) {
            ("POST /base/say", _) => whole("application/json", r#"{"id":"s"}"#),
            (_, 0) => {
                let events = format!("retry: 5\n\n{id}data: {{\"t\":\" a\"}}\n\n");
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\n{events}")
            }
            _ => again(),
        });
        let plan = SsePlan { resume, ..two_steps() };
        let turn = one(&driver(&server.base, plan, Site::default()), disturbed(Disturbance::Drop, 1));
        (turn.outcome, turn.resumes)
    };
    let gone = || "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
    assert_eq!(left("id: 1\n", gone, Resume::Never), (Outcome::Aborted, 0));
    assert_eq!(left("", gone, Resume::WithId), (Outcome::Aborted, 0));
    assert_eq!(left("id: 1\n", gone, Resume::WithId), (Outcome::Aborted, 1));
    assert_eq!(left("id: 1\n", || refused("404 Not Found"), Resume::WithId), (Outcome::Aborted, 1));
    assert_eq!(left("", || refused("410 Gone"), Resume::Always), (Outcome::Aborted, 1));
    // What the target cannot do is its own.
    let busy = || refused("503 Service Unavailable");
    assert_eq!(left("id: 1\n", busy, Resume::WithId), (Outcome::HttpServer(503), 1));
}

#[test]
fn a_message_is_said_once_though_its_stream_is_refused() {
    let asked = Asked::default();
    let server = server(&asked, |line, before| match (line, before) {
        ("POST /base/login", _) => token(before),
        ("POST /base/say", _) => whole("application/json", r#"{"id":"s"}"#),
        (_, 0) => refused("401 Unauthorized"),
        _ => whole("text/event-stream", "data: {\"t\":\" a\"}\n\ndata: {\"done\":true}\n\n"),
    });
    let stream = with("authorization", "Bearer {{token}}", get("/stream/{{stream}}"));
    let plan = SsePlan { stream: Some(stream), ..two_steps() };
    let site = Site { login: login(), ..Site::default() };
    let turn = one(&driver(&server.base, plan, site), hello());
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 1), "{}", turn.detail);
    let (let_in, subscribed) = ("POST /base/login", "GET /base/stream/s");
    assert_eq!(lines(&asked), [let_in, "POST /base/say", subscribed, let_in, subscribed]);
}

#[test]
fn a_page_that_is_refused_is_loaded_again_after_one_renewal() {
    let asked = Asked::default();
    let server = server(&asked, |line, before| match (line, before) {
        ("POST /base/login", _) => token(before),
        ("GET /base/history", 0) | ("GET /base/closed", _) => refused("401 Unauthorized"),
        _ => whole("text/html", "<html>"),
    });
    let bearer = |path: &str| with("authorization", "Bearer {{token}}", get(path));
    let (history, page) = (vec![bearer("/history")], vec![bearer("/closed")]);
    let driver = driver(&server.base, one_step(), Site { login: login(), history, page, ..Site::default() });
    runtime().block_on(async {
        let mut session = driver.session(0);
        for (act, outcome) in [(Act::History, Outcome::Completed), (Act::Page, Outcome::Unauthorized)] {
            let mut visit = new_turn();
            assert!(driver.act(act, &mut session, &mut visit).await);
            assert_eq!(visit.outcome, outcome, "{}", visit.detail);
        }
    });
    let (let_in, read, closed) = ("POST /base/login", "GET /base/history", "GET /base/closed");
    assert_eq!(lines(&asked), [let_in, read, let_in, read, closed, let_in, closed]);
}

#[test]
fn what_a_visit_brings_is_not_repeated() {
    let asked = Asked::default();
    let server = server(&asked, |line, _| match line {
        "GET /base/" => {
            let cookies = "Set-Cookie: sid=planted/one; Path=/\r\nSet-Cookie: lang=ko\r\n";
            let body = r#"{"csrf":"planted-two"}"#;
            format!("HTTP/1.1 200 OK\r\n{cookies}Content-Length: {}\r\n\r\n{body}", body.len())
        }
        _ => {
            let said = "ko sid=planted/one planted/one planted%2Fone planted-two";
            format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{said}", said.len())
        }
    });
    let cookies = ("chat".to_owned(), Source::Header(header::SET_COOKIE));
    let capture = brings("csrf", "/csrf").into_iter().chain([cookies]).collect();
    let page = vec![RequestPlan { capture, ..get("/") }];
    let driver = driver(&server.base, one_step(), Site { page, history: vec![get("/history")], ..Site::default() });
    runtime().block_on(async {
        let mut session = driver.session(0);
        let mut visit = new_turn();
        assert!(driver.act(Act::Page, &mut session, &mut visit).await && visit.outcome == Outcome::Completed);
        let mut visit = new_turn();
        assert!(driver.act(Act::History, &mut session, &mut visit).await);
        assert_eq!(visit.outcome, Outcome::HttpServer(500));
        let told = &visit.detail;
        assert!(told.contains(": ko sid=[redacted] [redacted]") && !told.contains("planted"), "{told}");
    });
}

#[test]
fn an_error_before_the_cancel_is_answered_is_the_turns_outcome() {
    let cancelled = Mutex::new(false);
    let server = Server::start(move |mut stream, _| {
        let Some((head, _)) = heard(&stream) else { return };
        if head.starts_with("DELETE") {
            *cancelled.lock().unwrap() = true;
            std::thread::sleep(Duration::from_millis(700));
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            return;
        }
        let _ = write!(stream, "{STREAM_HEAD}data: {{\"t\":\" a\",\"chat\":\"c\"}}\n\n");
        let began = Instant::now();
        while !*cancelled.lock().unwrap() && began.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = stream.write_all(b"data: {\"error\":\"full\"}\n\n");
        // Until the user has gone.
        let _ = heard(&stream);
    });
    let delete = RequestPlan { method: Method::DELETE, ..get("/chat/{{chat}}") };
    let plan = SsePlan { cancel: Some(delete), ..one_step() };
    let turn = one(&driver(&server.base, plan, Site::default()), disturbed(Disturbance::Cancel, 1));
    assert_eq!((turn.outcome, turn.tokens), (Outcome::ErrorEvent, 1), "{}", turn.detail);
}

#[test]
fn heartbeats_do_not_stretch_a_turn() {
    let beats = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&beats);
    let server = Server::start(move |mut stream, _| {
        let _ = heard(&stream);
        let _ = stream.write_all(STREAM_HEAD.as_bytes());
        // Until the user has gone.
        while stream.write_all(b"data: {\"beat\":1}\n\n").is_ok() {
            *counted.lock().unwrap() += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let beat = Condition::All(vec![Field { at: Part::Pointer("/beat".to_owned()), is: None }]);
    let plan = SsePlan { reply: ReplyRules { heartbeat: Some(beat), ..rules() }, ..one_step() };
    let turn = one(&driver(&server.base, plan, Site::default()), hello());
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Stalled, 0), "{}", turn.detail);
    assert!(*beats.lock().unwrap() > 10, "they came all the time");
}
