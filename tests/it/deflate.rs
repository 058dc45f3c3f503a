//! WebSocket messages of every kind and size, there and back, against `ws` of npm: without permessage-deflate, and with
//! it (RFC 7692) in each of its ways.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::task::Poll;
use std::time::Duration;

use capacity_check::net::{Endpoint, Incoming, Opening, Outgoing, TlsSettings, WebSocket, client_config};
use http::HeaderMap;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::node::NodeServer;
use crate::support::{load, runtime};

/// Nobody is asked for anything here.
const NOWHERE: &str = "http://127.0.0.1:9";
/// The largest message.
const LARGEST: usize = 400_000;

/// A message of a length: sometimes noise, sometimes words that come again and again, near and far.
fn message(random: &mut ChaCha8Rng, length: usize) -> Vec<u8> {
    let noise = random.random_range(0..3);
    let words: Vec<String> = (0..200).map(|number| format!(" word{}", number * number)).collect();
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        match noise {
            0 => bytes.push(random.random()),
            1 => bytes.extend_from_slice(words[random.random_range(0..words.len())].as_bytes()),
            // Runs, and what repeats from before a small window.
            _ => {
                let from = random.random_range(0..=bytes.len());
                let copied: Vec<u8> = bytes[from..].iter().copied().take(random.random_range(0..2_000)).collect();
                bytes.extend_from_slice(&copied);
                bytes.push(random.random());
            }
        }
    }
    bytes.truncate(length);
    bytes
}

/// A text of about a length, with characters of every width.
fn text(random: &mut ChaCha8Rng, length: usize) -> String {
    message(random, length).into_iter().map(|byte| ['a', ' ', 'é', '한', '😀'][usize::from(byte) % 5]).collect()
}

/// Sends a message and gives what comes back.
async fn echo(socket: &mut WebSocket, message: Outgoing<'_>) -> (bool, Vec<u8>) {
    socket.queue(message);
    socket.flush().await.expect("it is taken");
    poll_fn(|cx| {
        loop {
            let mut heard = None;
            let polled = socket.poll_message(cx, |incoming, _, _| {
                heard = match incoming {
                    Incoming::Text(text) => Some((true, text.as_bytes().to_vec())),
                    Incoming::Binary(bytes) => Some((false, bytes.to_vec())),
                    _ => panic!("neither text nor bytes"),
                };
                ControlFlow::Break(())
            });
            match (heard, polled) {
                (Some(heard), _) => return Poll::Ready(heard),
                (None, Poll::Ready(read)) => read.expect("the socket stays open"),
                (None, Poll::Pending) => return Poll::Pending,
            }
        }
    })
    .await
}

#[test]
fn what_goes_there_comes_back() {
    let _load = load();
    let on = ["--per-message-deflate", "on"];
    let ways: [&[&str]; 7] = [
        &[],
        &["--no-context-takeover", "server"],
        &["--no-context-takeover", "client"],
        &["--no-context-takeover", "both"],
        &["--window-bits", "9"],
        &["--client-window-bits", "9"],
        &["--window-bits", "10", "--client-window-bits", "12"],
    ];
    for (seed, way) in ways.into_iter().enumerate() {
        let server = NodeServer::websocket(NOWHERE, &[&on[..], way].concat());
        let base: url::Url = format!("http://{}", server.address()).parse().expect("a URL");
        let config = client_config(&TlsSettings::default()).expect("TLS settings");
        let endpoint = Endpoint::new(&base, &config, Duration::from_secs(10)).expect("an endpoint");
        let mut headers = HeaderMap::new();
        headers.insert("host", server.address().to_string().parse().expect("a value"));
        let mut random = ChaCha8Rng::seed_from_u64(seed as u64);
        runtime().block_on(async {
            for deflate in [true, false] {
                let opening = Opening {
                    uri: "/echo".parse().expect("a path"),
                    headers: &headers,
                    subprotocols: &[],
                    deflate,
                    message_limit: 4 * LARGEST,
                };
                let mut socket = WebSocket::open(&endpoint, &opening).await.expect("an open socket");
                assert_eq!(socket.deflates(), deflate, "{way:?}");
                for number in 0..60 {
                    // Many small ones, some at the limits of a frame's length, few large ones.
                    let length = match number % 6 {
                        0 => [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 131_072, LARGEST][number / 6],
                        5 => random.random_range(0..LARGEST / 4),
                        _ => random.random_range(0..600),
                    };
                    let sent = text(&mut random, length);
                    let (is_text, heard) = echo(&mut socket, Outgoing::Text(&sent)).await;
                    assert!(is_text && heard == sent.as_bytes(), "{way:?}: text {number} of {length}");
                    let sent = message(&mut random, length);
                    let (is_text, heard) = echo(&mut socket, Outgoing::Binary(&sent)).await;
                    assert!(!is_text && heard == sent, "{way:?}: message {number} of {length}");
                }
            }
        });
        assert_eq!(server.stats()["messages"], 240);
    }
}
