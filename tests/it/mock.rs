//! The mock LLM by itself: deterministic, on schedule, within its limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mock_llm::journal::TurnOutcome;
use serde_json::{Value, json};

use crate::support::{Mock, exchange, get, raw_exchange, until};

const CHAT: &str = "/v1/chat/completions";

fn ask(mock: &Mock, body: &Value) -> (u16, String) {
    exchange(&mock.api, "POST", CHAT, "application/json", &body.to_string())
}

fn prompt(text: &str, stream: bool) -> Value {
    json!({ "model": "m", "stream": stream, "messages": [{ "role": "user", "content": text }] })
}

/// The content of a streamed answer's events, in order.
fn contents(body: &str) -> Vec<String> {
    let events =
        body.split("data: ").filter_map(|event| serde_json::from_str::<Value>(event.split("\n\n").next()?).ok());
    events.filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())).collect()
}

#[test]
fn replies_follow_from_prompt_and_seed() {
    let toml = "seed = 3\n[models.m]\nttft = \"1ms\"\ngap = \"0\"\ntokens = \"uniform 5 40\"";
    let (mock, twin) = (Mock::start(toml), Mock::start(toml));
    let other = Mock::start(&toml.replace("seed = 3", "seed = 4"));
    let streamed = contents(&ask(&mock, &prompt("hi", true)).1);
    assert_eq!(streamed[0], "", "the first chunk has the role alone");
    assert_eq!(streamed, contents(&ask(&twin, &prompt("hi", true)).1));
    assert_ne!(streamed, contents(&ask(&other, &prompt("hi", true)).1));
    assert_ne!(streamed, contents(&ask(&mock, &prompt("ho", true)).1));
    let whole: Value = serde_json::from_str(&ask(&mock, &prompt("hi", false)).1).unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], streamed.concat());
    assert_eq!(whole["usage"]["completion_tokens"], streamed.len() - 1);
    // The last user message counts, as text or as parts.
    let parts = json!({ "model": "m", "stream": true, "messages": [
        { "role": "user", "content": "before" }, { "role": "assistant", "content": "x" },
        { "role": "user", "content": [{ "type": "text", "text": "hi" }] } ] });
    assert_eq!(contents(&ask(&mock, &parts).1), streamed);
}

#[test]
fn usage_and_limits_of_a_reply() {
    let mock = Mock::start("[models.m]\nttft = \"1ms\"\ngap = \"0\"\ntokens = 9");
    let mut asked = prompt("one two", true);
    asked["stream_options"] = json!({ "include_usage": true });
    asked["max_tokens"] = json!(4);
    let (_, body) = ask(&mock, &asked);
    assert_eq!(contents(&body).len(), 5);
    for part in [
        "\"finish_reason\":\"length\"",
        "\"usage\":null",
        "\"completion_tokens\":4",
        "\"prompt_tokens\":2",
        "data: [DONE]",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    assert!(!ask(&mock, &prompt("x", true)).1.contains("usage"));
    let models: Value = serde_json::from_str(&get(&mock.api, "/v1/models")).unwrap();
    assert_eq!(models["data"][0]["id"], "m");
    assert_eq!(get(&mock.api, "/health"), "{\"service\":\"mock-llm\",\"status\":\"ok\"}");
    let (status, body) = exchange(&mock.api, "POST", CHAT, "application/json", "{\"model\":");
    assert_eq!(status, 400);
    assert!(body.contains("invalid_request"), "{body}");
}

#[test]
fn a_rate_limit_tells_where_one_stands() {
    let mock = Mock::start(
        "[models.m]\nttft = \"1ms\"\ngap = \"0\"\ntokens = 1\nrate_limit = { requests = 2, per = \"60s\" }",
    );
    let asked = prompt("x", false).to_string();
    let heads: Vec<String> =
        (0..3).map(|_| raw_exchange(&mock.api, "POST", CHAT, "application/json", &asked).0).collect();
    for (head, expected) in
        heads.iter().zip(["x-ratelimit-remaining-requests: 1", "x-ratelimit-remaining-requests: 0", "429 Too Many"])
    {
        assert!(head.contains(expected), "{expected}: {head}");
        assert!(
            head.contains("x-ratelimit-limit-requests: 2") && head.contains("x-ratelimit-reset-requests: "),
            "{head}"
        );
    }
    let after: u64 = heads[2].split("retry-after: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert!((50..=60).contains(&after), "{after}");
}

#[test]
fn slots_hold_requests_back_in_order() {
    let mock = Mock::start("[models.m]\nttft = \"1ms\"\ngap = \"40ms\"\ntokens = 4\nslots = 1");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| ask(&mock, &prompt("x", true)));
        }
    });
    let mut turns = mock.turns();
    assert_eq!(turns.len(), 3);
    turns.sort_by_key(|turn| turn.admitted_us);
    for pair in turns.windows(2) {
        assert!(pair[1].admitted_us.unwrap() >= pair[0].last_token_us.unwrap(), "two were served at once");
    }
    assert!(get(&mock.admin, "/metrics").contains("mock_llm_queued 0"));
}

#[test]
fn a_slow_reader_does_not_stretch_the_schedule() {
    // Three seconds of tokens; one reader stops for two of them, until the mock cannot write any
    // more. Its schedule goes on all the same: it is late, catches up, and ends when its twin ends.
    let mock = Mock::start("[models.m]\nttft = \"1ms\"\ngap = \"100us\"\ntokens = 30000");
    let read = |name: &str, pause: u64| {
        let body = prompt(&format!("[[cc:r:{name}:0]]"), true).to_string();
        let mut stream = TcpStream::connect(mock.api.trim_start_matches("http://")).unwrap();
        socket2::SockRef::from(&stream).set_recv_buffer_size(16 << 10).unwrap();
        write!(
            stream,
            "POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("\"content\":\" ").count(), 30_000);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| read("slow", 2_000));
        read("twin", 0);
    });
    let turns = mock.turns();
    let turn =
        |name: &str| turns.iter().find(|turn| turn.marker.as_deref() == Some(&format!("cc:r:{name}:0"))).unwrap();
    let (slow, twin) = (turn("slow"), turn("twin"));
    assert_eq!((slow.outcome, slow.tokens), (TurnOutcome::Completed, 30_000));
    assert!(slow.lateness_max_us > twin.lateness_max_us + 300_000, "{} {}", slow.lateness_max_us, twin.lateness_max_us);
    let behind = slow.last_token_us.unwrap() as i64 - twin.last_token_us.unwrap() as i64;
    assert!(behind < slow.lateness_max_us as i64 / 2, "{behind} us behind, {} us late", slow.lateness_max_us);
}

#[test]
fn a_caller_that_goes_away_is_noticed() {
    let mock = Mock::start("[models.m]\nttft = \"20s\"");
    let body = prompt("x", true).to_string();
    let mut stream = TcpStream::connect(mock.api.trim_start_matches("http://")).unwrap();
    write!(stream, "POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    until("the stream is open", || get(&mock.admin, "/metrics").contains("mock_llm_streams_in_flight 1"));
    drop(stream);
    until("the journal has it", || mock.turns().len() == 1);
    assert_eq!(mock.turns()[0].outcome, TurnOutcome::CallerGone);
    assert!(get(&mock.admin, "/metrics").contains("mock_llm_streams_in_flight 0"));
}

#[test]
fn behaviour_changes_at_run_time_and_bad_behaviour_does_not() {
    let mock = Mock::start("[models.m]\nttft = \"1ms\"\ngap = \"0\"\ntokens = 2");
    let put = |kind: &str, text: &str| exchange(&mock.admin, "PUT", "/admin/behaviour", kind, text);
    let (status, body) = put("application/json", "{\"models\":{\"m\":{\"ttft\":\"nope\",\"gpa\":\"1ms\"}}}");
    assert_eq!(status, 422);
    assert!(body.contains("models.m.ttft") && body.contains("did you mean `gap`?"), "{body}");
    assert_eq!(contents(&ask(&mock, &prompt("x", true)).1).len(), 3);
    assert_eq!(put("application/toml", "[models.m]\nttft = \"1ms\"\ngap = \"0\"\ntokens = 5").0, 200);
    assert_eq!(contents(&ask(&mock, &prompt("x", true)).1).len(), 6);
    let now: Value = serde_json::from_str(&get(&mock.admin, "/admin/behaviour")).unwrap();
    assert_eq!(now["models"]["m"]["tokens"], "5");
    let clock: mock_llm::Clock = serde_json::from_str(&get(&mock.admin, "/admin/clock")).unwrap();
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    assert!(wall.abs_diff(clock.unix_us) < 5_000_000);
    assert_eq!(exchange(&mock.admin, "GET", "/admin/turns?afetr=1", "", "").0, 400);
}

#[test]
fn an_admin_listener_beyond_loopback_wants_a_token() {
    let listen = |address: &str| std::net::TcpListener::bind(address).unwrap();
    let serve = |admin, token: Option<&str>| {
        let options = mock_llm::Options { admin_token: token.map(str::to_owned), ..Default::default() };
        let behaviour = mock_llm::behaviour::Behaviour::default();
        crate::support::runtime().block_on(mock_llm::serve(listen("127.0.0.1:0"), admin, behaviour, options, async {}))
    };
    let refused = serve(listen("0.0.0.0:0"), None).unwrap_err();
    assert!(refused.to_string().contains("MOCK_LLM_ADMIN_TOKEN"), "{refused}");
    assert!(serve(listen("0.0.0.0:0"), Some("t")).is_ok());
}
