//! Receive stamps: exact where the read was prompt, a bound where segments were merged.

use std::io::Write;
use std::time::Duration;

use capacity_check::clock::{self, MILLISECOND, monotonic};
use capacity_check::driver::{Limits, Session};
use capacity_check::net::TlsSettings;
use capacity_check::record::Outcome;

use crate::support::{STREAM_HEAD, Server, driver, one_turn, read_request, runtime, token, turn_in};

/// A server that sends three tokens 30 ms apart, each in a write of its own.
fn slow_tokens() -> Server {
    Server::start(|mut stream, _| {
        let _ = stream.set_nodelay(true);
        if !read_request(&stream) {
            return;
        }
        let mut send = |text: &str| {
            let _ = stream.write_all(text.as_bytes());
            std::thread::sleep(Duration::from_millis(30));
        };
        send(STREAM_HEAD);
        for text in ["a", "b", "c"] {
            send(&token(text));
        }
        send("data: [DONE]\n\n");
    })
}

#[test]
fn prompt_reads_are_exact() {
    let server = slow_tokens();
    let turn = runtime().block_on(one_turn(&server.base, "m", Limits::default(), &TlsSettings::default()));
    assert_eq!((turn.outcome, turn.tokens, turn.gaps.len()), (Outcome::Completed, 3, 2), "{}", turn.detail);
    let first = turn.first_token.expect("a first token");
    assert_eq!(first.latest, first.earliest);
    // The server's schedule, loosely: this machine may be busy.
    assert!(turn.gaps.iter().all(|gap| (5_000..400_000).contains(gap)), "{:?}", turn.gaps);
    assert!(turn.sent.expect("sent") < first.latest && first.latest < turn.ended);
}

#[test]
fn merged_reads_are_flagged_as_bounds_that_hold_the_truth() {
    let server = slow_tokens();
    let turn = runtime().block_on(async {
        let driver = driver(&server.base, "m", Limits::default(), &TlsSettings::default());
        let mut session = Session::default();
        let speak = turn_in(&driver, &mut session);
        tokio::pin!(speak);
        // The request is on its way when the whole thread stops for a while, as a busy generator does.
        let before = monotonic();
        tokio::select! {
            _ = &mut speak => panic!("the turn takes 150 ms"),
            () = tokio::time::sleep(Duration::from_millis(15)) => {}
        }
        std::thread::sleep(Duration::from_millis(300));
        (before, speak.await)
    });
    let (before, turn) = turn;
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 3), "{}", turn.detail);
    let first = turn.first_token.expect("a first token");
    let width = first.latest - first.earliest;
    // All three came with one read, whose stamp is the last one's: 60 ms after the first token.
    assert!(turn.gaps.is_empty(), "one read is one arrival: {:?}", turn.gaps);
    assert!(width >= 55 * MILLISECOND, "bounds are {width} ns apart");
    assert!(first.earliest >= before);
    // The stamp is the kernel's: it tells when the segment came, not when it was read.
    assert!(first.latest < before + 310 * MILLISECOND, "{} ms", clock::micros(first.latest - before) / 1_000);
}
