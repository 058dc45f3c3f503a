//! Receive stamps: exact where the read was prompt, a bound where segments were merged.

use std::io::Write;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use capacity_check::clock::{MILLISECOND, monotonic};
use capacity_check::driver::Limits;
use capacity_check::net::TlsSettings;
use capacity_check::record::Outcome;

use crate::support::{STREAM_HEAD, Server, driver, one_turn, read_request, runtime, token, turn_in};

/// A server that says when it has the request, sends three tokens 30 ms apart, each in a write of
/// its own, says that it has, and half a second later sends the end.
fn slow_tokens() -> (Server, Receiver<()>) {
    let (told, tells) = channel();
    let server = Server::start(move |mut stream, _| {
        let _ = stream.set_nodelay(true);
        if !read_request(&stream) {
            return;
        }
        let _ = told.send(());
        let mut send = |text: &str, pause| {
            let _ = stream.write_all(text.as_bytes());
            std::thread::sleep(Duration::from_millis(pause));
        };
        send(STREAM_HEAD, 30);
        for text in ["a", "b", "c"] {
            send(&token(text), 30);
        }
        let _ = told.send(());
        std::thread::sleep(Duration::from_millis(500));
        send("data: [DONE]\n\n", 0);
    });
    (server, tells)
}

#[test]
fn prompt_reads_are_exact() {
    // Another tenant of this machine may hold us up so long that tokens merge: then again.
    for _ in 0..30 {
        let (server, _tells) = slow_tokens();
        let turn = runtime().block_on(one_turn(&server.base, "m", Limits::default(), &TlsSettings::default()));
        assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 3), "{}", turn.detail);
        let gaps: Vec<u64> = turn.gaps().collect();
        if gaps.len() == 2 {
            let first = turn.first_token.expect("a first token");
            assert_eq!(first.latest, first.earliest);
            assert!(turn.sent.expect("sent") < first.latest && first.latest < turn.ended);
            return;
        }
    }
    panic!("in thirty turns no three tokens were read one by one");
}

#[test]
fn merged_reads_are_flagged_as_bounds_that_hold_the_truth() {
    let (server, tells) = slow_tokens();
    let (before, released, turn) = runtime().block_on(async {
        let driver = driver(&server.base, "m", Limits::default(), &TlsSettings::default());
        let mut session = driver.session(0);
        let speak = turn_in(&driver, &mut session);
        tokio::pin!(speak);
        let before = monotonic();
        let requested = async {
            while tells.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = &mut speak => panic!("the turn takes half a second"),
            () = requested => {}
        }
        // The whole thread stops until all tokens are sent, as a busy generator's does.
        tells.recv().expect("the server sends all tokens");
        std::thread::sleep(Duration::from_millis(200));
        (before, monotonic(), speak.await)
    });
    assert_eq!((turn.outcome, turn.tokens), (Outcome::Completed, 3), "{}", turn.detail);
    let first = turn.first_token.expect("a first token");
    // All three came with one read, whose stamp is the last one's: 60 ms after the first token.
    assert_eq!(turn.arrivals.len(), 1, "one read is one arrival: {:?}", turn.arrivals);
    assert!(first.latest - first.earliest >= 55 * MILLISECOND, "{} ns apart", first.latest - first.earliest);
    assert!(first.earliest >= before);
    // The stamp is the kernel's: it tells when the segment came, 200 ms and more before it was read.
    assert!(first.latest <= released - 200 * MILLISECOND, "{} ns", released - first.latest);
}
