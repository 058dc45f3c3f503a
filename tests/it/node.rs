//! The chat servers in Node that other tests speak to: they relay the mock, and end with their test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mock_llm::journal::TurnOutcome;
use serde_json::Value;

use crate::support::node::NodeServer;
use crate::support::{Mock, exchange, load, until};

const BEHAVIOUR: &str = "[models.m]\nttft = \"5ms\"\ngap = \"1ms\"\ntokens = 7";

/// Waits until the mock has told one whole reply.
fn told(mock: &Mock) {
    until("the mock ends its turn", || {
        let turns = mock.turns();
        turns.len() == 1 && turns[0].outcome == TurnOutcome::Completed
    });
}

/// The payload of the next text frame that is whole and short (RFC 6455, section 5.2).
fn text(reader: &mut impl Read) -> String {
    let mut head = [0; 2];
    reader.read_exact(&mut head).expect("a frame");
    assert_eq!(head[0], 0x81, "a whole text");
    assert!(head[1] < 126, "neither masked nor long");
    let mut payload = vec![0; usize::from(head[1])];
    reader.read_exact(&mut payload).expect("a payload");
    String::from_utf8(payload).expect("UTF-8")
}

#[test]
fn the_websocket_server_relays_the_mock() {
    let _machine = load();
    let mock = Mock::start(BEHAVIOUR);
    let server = NodeServer::websocket(&mock.api, &["--name", "A"]);
    let address = server.address();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The key of RFC 6455, section 1.3, and what must be answered.
    write!(
        stream,
        "GET /plain HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    assert!(head.contains("x-worker: A\r\n"), "{head}");
    // The mask is zero.
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    let reply: Vec<String> = (0..8).map(|_| text(&mut reader)).collect();
    assert!(reply[..7].iter().all(|word| word.len() > 1 && word.starts_with(' ')), "{reply:?}");
    assert_eq!(reply[7], "[DONE]");
    told(&mock);
    assert_eq!(server.stats()["messages"], 1);
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "it ends with its test");
}

#[test]
fn the_socketio_server_relays_the_mock() {
    let _machine = load();
    let mock = Mock::start(BEHAVIOUR);
    let server = NodeServer::socketio(&mock.api, &[]);
    let base = format!("http://127.0.0.1:{}", server.port());
    let call = |method: &str, session: &str, body: &str| {
        let path = format!("/socket.io/?EIO=4&transport=polling{session}");
        let (status, answer) = exchange(&base, method, &path, "text/plain;charset=UTF-8", body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let opened = call("GET", "", "");
    let opened: Value = serde_json::from_str(opened.strip_prefix('0').expect("the packet open")).unwrap();
    let session = format!("&sid={}", opened["sid"].as_str().unwrap());
    assert_eq!(call("POST", &session, "40"), "ok");
    let connected = call("GET", &session, "");
    assert!(connected.starts_with("40{"), "{connected}");
    assert_eq!(call("POST", &session, "42[\"chat\",{\"text\":\"hi\"}]"), "ok");
    let mut said = String::new();
    // A poll brings something each, at least a ping.
    for _ in 0..20 {
        if said.contains("42[\"done\"") {
            break;
        }
        said.push_str(&call("GET", &session, ""));
    }
    assert_eq!(said.matches("42[\"token\"").count(), 7, "{said}");
    assert!(said.contains("\"tokens\":7}]"), "{said}");
    told(&mock);
    assert_eq!(server.stats()["connections"], 1);
}

#[test]
#[should_panic(expected = "no fault nonsense")]
fn a_server_that_does_not_start_says_why() {
    NodeServer::websocket("http://127.0.0.1:9", &["--fault", "nonsense"]);
}
