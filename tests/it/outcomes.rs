//! Each outcome that the openai profile can have, produced and seen.

use std::io::Write;
use std::time::Duration;

use capacity_check::driver::{Limits, Prompt};
use capacity_check::net::TlsSettings;
use capacity_check::record::{Outcome, Turn};

use crate::support::chat::{hello, say};
use crate::support::{
    Mock, STREAM_HEAD, Server, driver, limits, listen, one_turn, read_request, runtime, token, turn_in,
};

fn speak(base: &str) -> Turn {
    runtime().block_on(one_turn(base, "m", limits(), &TlsSettings::default()))
}

/// A turn against a server that answers with these bytes and closes.
fn answered(bytes: &'static [u8]) -> Turn {
    let server = Server::start(move |mut stream, _| {
        if read_request(&stream) {
            let _ = stream.write_all(bytes);
        }
    });
    speak(&server.base)
}

#[test]
fn whole_replies_and_refusals() {
    let quick = "ttft = \"10ms\"\ngap = \"1ms\"\ntokens = 7\n";
    let mock = Mock::start(&format!(
        "[models.m]\n{quick}[models.limited]\n{quick}rate_limit = {{ requests = 1, per = \"60s\" }}"
    ));
    let turn = speak(&mock.api);
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 7));
    assert!(turn.connect.is_some() && turn.tls.is_none() && turn.retries == 0);
    let say = |model| runtime().block_on(one_turn(&mock.api, model, limits(), &TlsSettings::default()));
    assert_eq!(say("nobody").outcome, Outcome::HttpClient(404));
    assert!(say("nobody").detail.contains("does not exist"));
    assert_eq!(say("limited").outcome, Outcome::Completed);
    assert_eq!(say("limited").outcome, Outcome::RateLimited);
    let locked = Mock::start("api_key = \"k\"\n[models.m]");
    assert_eq!(speak(&locked.api).outcome, Outcome::Unauthorized);
}

#[test]
fn no_connection_has_its_reasons() {
    let closed = format!("http://{}", listen().local_addr().unwrap());
    assert_eq!(speak(&closed).outcome, Outcome::ConnectRefused);
    assert_eq!(speak("http://no-such-host.invalid").outcome, Outcome::Dns);
    // A plain server has no TLS handshake to offer.
    let plain = Server::start(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    assert_eq!(speak(&plain.base.replace("http://", "https://")).outcome, Outcome::Tls);
}

#[test]
fn a_full_backlog_is_a_connect_timeout() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // Nobody accepts: after some the kernel drops further handshakes. How many depends on when it gets round to
    // queueing them.
    let mut held = Vec::new();
    while held.last().is_none_or(Result::is_ok) && held.len() < 100 {
        held.push(std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)));
    }
    assert!(held.last().is_some_and(Result::is_err), "the backlog is full");
    assert_eq!(speak(&format!("http://{address}")).outcome, Outcome::ConnectTimeout);
}

#[test]
fn what_a_server_may_answer_wrongly() {
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html>\x1b[31m!\n";
    let turn = answered(page);
    assert_eq!(turn.outcome, Outcome::Protocol);
    assert!(turn.detail.contains("text/html") && turn.detail.contains("<html>\\u{1b}[31m!"), "{}", turn.detail);
    assert_eq!(answered(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy").outcome, Outcome::HttpServer(503));
    assert_eq!(answered(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n").outcome, Outcome::Protocol);
    assert_eq!(answered(b"SSH-2.0-OpenSSH_9.2\r\n").outcome, Outcome::Protocol);
    // Closed without a word: a response that never began.
    assert_eq!(answered(b"").outcome, Outcome::Truncated);
    assert_eq!(answered(STREAM_HEAD.as_bytes()).outcome, Outcome::Truncated);
}

#[test]
fn what_can_happen_inside_a_stream() {
    let ending = |rest: &'static str| {
        let server = Server::start(move |mut stream, _| {
            if read_request(&stream) {
                let _ = stream.write_all(format!("{STREAM_HEAD}{}{rest}", token("a")).as_bytes());
            }
        });
        speak(&server.base)
    };
    let turn = ending("data: {\"error\":{\"message\":\"out of memory\"}}\n\n");
    assert_eq!((turn.outcome, turn.tokens), (Outcome::ErrorEvent, 1));
    assert!(turn.detail.contains("out of memory"));
    assert_eq!(ending("data: {\"choi\n\ndata: [DONE]\n\n").outcome, Outcome::Protocol);
    assert_eq!(ending("").outcome, Outcome::Truncated);
    let turn = ending("data: [DONE]\n\n");
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 1), "{}", turn.detail);
}

#[test]
fn silence_is_a_stall_and_heartbeats_do_not_stretch_a_turn() {
    let silent = Server::start(|stream, _| {
        read_request(&stream);
        std::thread::sleep(Duration::from_secs(6));
    });
    assert_eq!(speak(&silent.base).outcome, Outcome::Stalled);
    let beating = Server::start(|mut stream, _| {
        read_request(&stream);
        let _ = stream.write_all(STREAM_HEAD.as_bytes());
        while stream.write_all(b": heartbeat\n\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let turn = speak(&beating.base);
    assert_eq!((turn.outcome, turn.tokens, turn.first_token), (Outcome::TimedOut, 0, None));
}

#[test]
fn a_reply_without_bounds_is_cut() {
    let endless = Server::start(|mut stream, _| {
        read_request(&stream);
        let _ = stream.write_all(STREAM_HEAD.as_bytes());
        let line = [b'x'; 4_096];
        while stream.write_all(&line).is_ok() {}
    });
    let turn = runtime().block_on(one_turn(&endless.base, "m", Limits::default(), &TlsSettings::default()));
    assert_eq!(turn.outcome, Outcome::Protocol);
    assert!(turn.detail.contains("larger than"), "{}", turn.detail);
}

#[test]
fn what_http_allows_around_a_stream() {
    const KIND: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    let events = format!("{}data: [DONE]\n\n", token("a"));
    let chunks: String = events
        .as_bytes()
        .chunks(7)
        .map(|part| format!("{:x};why=\"not\"\r\n{}\r\n", part.len(), std::str::from_utf8(part).unwrap()))
        .collect();
    let said = |text: String| {
        let turn = answered(text.leak().as_bytes());
        (turn.outcome, turn.tokens)
    };
    let whole = (Outcome::Completed, 1);
    assert_eq!(said(format!("{KIND}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nAfter: x\r\n\r\n")), whole);
    assert_eq!(said(format!("{KIND}Content-Length: {}\r\n\r\n{events}", events.len())), whole);
    assert_eq!(said(format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{STREAM_HEAD}{events}")), whole);
    // The body need not come to its end once the stream has.
    assert_eq!(said(format!("{KIND}Transfer-Encoding: chunked\r\n\r\n{chunks}")), whole);
    for (broken, outcome) in [
        (format!("{KIND}Transfer-Encoding: chunked\r\n\r\nfive\r\n"), Outcome::Protocol),
        (format!("{KIND}Transfer-Encoding: gzip, chunked\r\n\r\n"), Outcome::Protocol),
        (format!("{KIND}A: {}\r\n\r\n", "b".repeat(20_000)), Outcome::Protocol),
        ("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(1_000), Outcome::Protocol),
        ("HTTP/1.1 200 O".to_owned(), Outcome::Truncated),
        (format!("{KIND}Transfer-Encoding: chunked\r\n\r\n{}", &chunks[..40]), Outcome::Truncated),
        (format!("{KIND}Content-Length: 9999\r\n\r\n{}", token("a")), Outcome::Truncated),
    ] {
        assert_eq!(said(broken.clone()).0, outcome, "{}", &broken[..broken.len().min(200)]);
    }
}

#[test]
fn a_server_that_answers_before_it_has_read_gets_the_rest() {
    let server = Server::start(|mut stream, _| {
        let _ = stream.write_all(STREAM_HEAD.as_bytes());
        // Long enough for the sender to fill both buffers.
        std::thread::sleep(Duration::from_millis(300));
        if read_request(&stream) {
            let _ = stream.write_all(format!("{}data: [DONE]\n\n", token("a")).as_bytes());
        }
    });
    let turn = runtime().block_on(async {
        let driver = driver(&server.base, "m", limits(), &TlsSettings::default());
        let text = "a long conversation ".repeat(1 << 20);
        say(&driver, &mut driver.session(0), Prompt { text, ..hello() }).await
    });
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 1), "{}", turn.detail);
}

#[test]
fn an_answer_that_has_begun_is_no_closing_connection() {
    // The first request of a connection is served, the second gets half a head.
    let server = Server::start(|mut stream, _| {
        let body = format!("{}data: [DONE]\n\n", token("a"));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
        if read_request(&stream) {
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
        if read_request(&stream) {
            let _ = write!(stream, "{head}");
        }
    });
    runtime().block_on(async {
        let driver = driver(&server.base, "m", limits(), &TlsSettings::default());
        let mut session = driver.session(0);
        assert_eq!(turn_in(&driver, &mut session).await.outcome, Outcome::Completed);
        let turn = turn_in(&driver, &mut session).await;
        assert_eq!((turn.outcome, turn.retries), (Outcome::Truncated, 0), "{}", turn.detail);
    });
}

#[test]
fn an_idle_connection_that_is_closing_is_replaced_once() {
    // Every connection serves one request, says that it stays open, and then closes: at once for
    // even numbers, only when the next request has come for odd ones.
    let server = Server::start(|mut stream, number| {
        if !read_request(&stream) {
            return;
        }
        let body = format!("{}data: [DONE]\n\n", token("a"));
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if number % 2 == 1 {
            read_request(&stream);
        }
    });
    runtime().block_on(async {
        let driver = driver(&server.base, "m", limits(), &TlsSettings::default());
        let mut session = driver.session(0);
        let mut retries = Vec::new();
        for _ in 0..6 {
            let turn = turn_in(&driver, &mut session).await;
            assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 1), "{}", turn.detail);
            assert!(turn.connect.is_some());
            retries.push(turn.retries);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Seen closed before the request for even connections, only by the failed request for odd ones.
        assert_eq!(retries, [0, 0, 1, 0, 1, 0]);
    });
}

#[test]
fn a_kept_connection_is_used_again() {
    let mock = Mock::start("[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 3");
    runtime().block_on(async {
        let driver = driver(&mock.api, "m", limits(), &TlsSettings::default());
        let mut session = driver.session(0);
        let connected: Vec<bool> = [turn_in(&driver, &mut session).await, turn_in(&driver, &mut session).await]
            .iter()
            .map(|turn| turn.connect.is_some())
            .collect();
        assert_eq!(connected, [true, false]);
    });
}
