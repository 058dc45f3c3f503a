//! Raw exchanges of running LibreChat servers, answered again by a small server and read by the
//! whole driver.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use capacity_check::driver::Driver;
use capacity_check::record::{Outcome, Turn};

use crate::support::chat::{chat, hello, say};
use crate::support::{Server, request, runtime};

/// A transcript as an answer that ends with its connection.
fn answer(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/transcripts").join(name);
    let text = std::fs::read_to_string(path).expect("a transcript").replace("\r\n", "\n");
    let (head, body) = match text.strip_prefix("HTTP/1.1") {
        Some(_) => text.split_once("\n\n").expect("a head"),
        None => ("HTTP/1.1 200 OK\nContent-Type: text/event-stream", text.as_str()),
    };
    // The body stands there without its chunks, so the connection's end must end it.
    let framing = ["transfer-encoding", "content-length", "connection", "keep-alive"];
    let kept = head.lines().filter(|line| !framing.iter().any(|name| line.to_ascii_lowercase().starts_with(name)));
    format!("{}\r\nConnection: close\r\n\r\n{body}", kept.collect::<Vec<_>>().join("\r\n"))
}

/// One turn against a server that answers the POST with one transcript and the GET with another.
fn turn(post: &str, stream: &str) -> Turn {
    let (post, stream) = (answer(post), answer(stream));
    let server = Server::start(move |mut connection: TcpStream, _| {
        if let Some(line) = request(&connection) {
            let text = if line.starts_with("POST") { &post } else { &stream };
            let _ = connection.write_all(text.as_bytes());
        }
    });
    let driver: Driver = chat(&server.base);
    runtime().block_on(async { say(&driver, &mut driver.session(0), hello()).await })
}

#[test]
fn exchanges_of_running_servers_have_their_outcomes() {
    let post = "v087-turn1-post.http";
    for (post, stream, outcome, tokens) in [
        (post, "v087-turn1-stream.http", Outcome::Completed, 50),
        (post, "v087-turn2-stream.sse", Outcome::Completed, 50),
        ("v088rc1-turn-post.http", "v088rc1-turn-stream.sse", Outcome::Completed, 50),
        // One step: the POST is the stream.
        ("v081-turn.sse", "v081-turn.sse", Outcome::Completed, 50),
        (post, "v087-upstream-drops-midstream.sse", Outcome::ErrorEvent, 9),
        // Cancelled, but not by this user.
        (post, "v087-abort.sse", Outcome::ErrorEvent, 14),
        ("v087-bad-request-in-200.http", post, Outcome::ErrorEvent, 0),
        ("v087-message-limited-in-200.http", post, Outcome::RateLimited, 0),
        ("v087-concurrent-limited.http", post, Outcome::RateLimited, 0),
    ] {
        let turn = turn(post, stream);
        assert_eq!((turn.outcome, turn.tokens), (outcome, tokens), "{post} {stream}: {}", turn.detail);
        assert_eq!(turn.late, 0, "{post} {stream}");
    }
}

#[test]
fn a_stream_that_hangs_is_a_stall() {
    let (post, stream) = (answer("v087-turn1-post.http"), answer("v087-upstream-hangs.sse"));
    let server = Server::start(move |mut connection: TcpStream, _| {
        if let Some(line) = request(&connection) {
            let text = if line.starts_with("POST") { &post } else { &stream };
            let _ = connection.write_all(text.as_bytes());
            if line.starts_with("GET") {
                // Until the client has had enough.
                let _ = connection.read(&mut [0; 1]);
            }
        }
    });
    let driver = chat(&server.base);
    let turn = runtime().block_on(async { say(&driver, &mut driver.session(0), hello()).await });
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Stalled, 0), "{}", turn.detail);
}

#[test]
fn a_stream_without_an_end_is_taken_up_and_then_given_up() {
    // Each connection gives the same eighteen tokens and breaks off; there is no `sync`.
    let turn = turn("v087-turn1-post.http", "v087-resume.sse");
    assert_eq!((turn.outcome, turn.resumes), (Outcome::Truncated, 3), "{}", turn.detail);
}

#[test]
fn a_token_that_is_refused_is_renewed_and_the_message_sent_again() {
    let (stream, refused) =
        (answer("v081-turn.sse"), "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\nUnauthorized");
    let server = Server::start(move |mut connection: TcpStream, number| {
        if request(&connection).is_some() {
            let _ = connection.write_all(if number == 0 { refused.as_bytes() } else { stream.as_bytes() });
        }
    });
    let driver = chat(&server.base);
    let turn = runtime().block_on(async { say(&driver, &mut driver.session(0), hello()).await });
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 50), "{}", turn.detail);
}

#[test]
fn a_target_that_repeats_the_token_is_not_quoted() {
    let server = Server::start(move |mut connection: TcpStream, _| {
        let mut bytes = [0; 8_192];
        let count = connection.read(&mut bytes).unwrap_or(0);
        let sent = String::from_utf8_lossy(&bytes[..count]).into_owned();
        let token = sent.split("Bearer ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("none");
        let text = format!("invalid token {token} in a header");
        let _ =
            write!(connection, "HTTP/1.1 500 Oh\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    });
    let driver = chat(&server.base);
    let turn = runtime().block_on(async { say(&driver, &mut driver.session(0), hello()).await });
    assert_eq!(turn.outcome, Outcome::HttpServer(500));
    assert!(turn.detail.contains("invalid token [redacted]") && !turn.detail.contains("eyJ"), "{}", turn.detail);
}

#[test]
fn a_page_instead_of_an_answer_is_said() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>hello</html>";
    let server = Server::start(move |mut connection: TcpStream, _| {
        if request(&connection).is_some() {
            let _ = connection.write_all(page.as_bytes());
        }
    });
    let driver = chat(&server.base);
    let turn = runtime().block_on(async { say(&driver, &mut driver.session(0), hello()).await });
    assert_eq!(turn.outcome, Outcome::Protocol);
    assert!(turn.detail.contains("text/html") && turn.detail.contains("<html>"), "{}", turn.detail);
    // The same where only the stream is one: it is not taken up again.
    let post = answer("v087-turn1-post.http");
    let server = Server::start(move |mut connection: TcpStream, _| {
        if let Some(line) = request(&connection) {
            let text = if line.starts_with("POST") { &post } else { page };
            let _ = connection.write_all(text.as_bytes());
        }
    });
    let driver = chat(&server.base);
    let turn = runtime().block_on(async { say(&driver, &mut driver.session(0), hello()).await });
    assert_eq!((turn.outcome, turn.resumes), (Outcome::Protocol, 0), "{}", turn.detail);
}
