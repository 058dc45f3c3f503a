//! The transcripts of running servers, replayed through the decoder: whole, in two pieces split at
//! every byte, and byte by byte.

use std::collections::BTreeMap;

use super::event::{Reply, refusal};
use super::verdict;
use crate::driver::Prompt;
use crate::driver::stream::{Reader, Said};
use crate::net::sse::Decoder;
use crate::record::Outcome;
use crate::scenario::{After, Disturb, Disturbance};

/// The body of a transcript; some have a head.
fn body(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/transcripts").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if !bytes.starts_with(b"HTTP/1.1") {
        return bytes;
    }
    let text = String::from_utf8(bytes).expect("UTF-8");
    let head =
        text.find("\r\n\r\n").map(|at| at + 4).or(text.find("\n\n").map(|at| at + 2)).expect("an end of the head");
    text.as_bytes()[head..].to_vec()
}

/// What a stream comes to: its outcome, tokens, and the text that arrived.
fn replay<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, cancels: bool) -> (Outcome, u64, String) {
    let (mut decoder, mut reply) = (Decoder::default(), Reply::default());
    reply.kept = Some(String::new());
    let (mut tokens, mut done, mut failed) = (0, false, None);
    for piece in pieces {
        decoder
            .feed(piece, |event| match reply.read(&event) {
                Ok(Said::Tokens(more)) => tokens += more,
                Ok(Said::Done(more)) => {
                    tokens += more;
                    done = true;
                }
                Ok(Said::Other | Said::Heartbeat) => {}
                Err(failure) => {
                    failed.get_or_insert(failure.outcome);
                }
            })
            .expect("no event is too large");
    }
    let disturb = cancels.then_some(Disturb { what: Disturbance::Cancel, after: After::Tokens(1) });
    let prompt = Prompt { text: String::new(), opens: true, continues: false, disturb, trace: None };
    let ended =
        if done { verdict(&reply, &prompt).unwrap_or_else(|failure| failure.outcome) } else { Outcome::Truncated };
    (failed.unwrap_or(ended), tokens, reply.kept.unwrap_or_default())
}

/// Transcript, whether the user cancelled, outcome, tokens.
const STREAMS: [(&str, bool, Outcome, u64); 10] = [
    ("v081-turn.sse", false, Outcome::Completed, 50),
    ("v087-turn1-stream.http", false, Outcome::Completed, 50),
    ("v087-turn2-stream.sse", false, Outcome::Completed, 50),
    ("v088rc1-turn-stream.sse", false, Outcome::Completed, 50),
    ("v087-abort.sse", true, Outcome::Aborted, 14),
    ("v087-upstream-drops-midstream.sse", false, Outcome::ErrorEvent, 9),
    // The connection was dropped by the client; there is no `final`.
    ("v087-resume.sse", false, Outcome::Truncated, 18),
    // A client that waits calls this stalled; the bytes alone are a stream without an end.
    ("v087-upstream-hangs.sse", false, Outcome::Truncated, 0),
    ("v087-bad-request-in-200.http", false, Outcome::ErrorEvent, 0),
    ("v087-message-limited-in-200.http", false, Outcome::RateLimited, 0),
];

#[test]
fn every_stream_comes_to_its_outcome_however_it_is_cut() {
    for (name, cancels, outcome, tokens) in STREAMS {
        let bytes = body(name);
        let text: String = (0..tokens).map(|number| format!("tok{number} ")).collect();
        let wanted = (outcome, tokens, text);
        assert_eq!(replay([&bytes[..]], cancels), wanted, "{name}");
        assert_eq!(replay(bytes.chunks(1), cancels), wanted, "{name}, byte by byte");
        for at in 0..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(replay([first, second], cancels), wanted, "{name}, split at {at}");
        }
    }
}

/// The table of the driver's doc comment: outcomes by transcript.
fn table() -> BTreeMap<String, Vec<String>> {
    let quoted = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut table = BTreeMap::new();
    for line in include_str!("../librechat.rs").lines().filter(|line| line.starts_with("//! | ")) {
        let cells: Vec<&str> = line.split(" |").collect();
        let (transcripts, outcomes) = (quoted(cells[2]), quoted(cells[3]));
        table.extend(transcripts.into_iter().map(|name| (name, outcomes.clone())));
    }
    table
}

#[test]
fn the_table_of_the_driver_is_what_is_tested() {
    let table = table();
    for (name, _, outcome, _) in STREAMS {
        let stem = name.split('.').next().expect("a name");
        // Bytes alone do not show that nothing came for too long.
        let wanted = if stem == "v087-upstream-hangs" { "Stalled".to_owned() } else { format!("{outcome:?}") };
        assert!(table.get(stem).is_some_and(|outcomes| outcomes.contains(&wanted)), "{name}: {outcome:?} {table:?}");
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/transcripts");
    for entry in std::fs::read_dir(folder).expect("transcripts") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let stem = name.split('.').next().expect("a name");
        assert!(stem.ends_with("-post") || table.contains_key(stem), "{name} is not in the table");
    }
}

#[test]
fn whole_texts_are_known_and_nothing_of_them_was_late() {
    for name in ["v081-turn.sse", "v087-turn1-stream.http", "v087-turn2-stream.sse", "v088rc1-turn-stream.sse"] {
        let (mut decoder, mut reply) = (Decoder::default(), Reply::default());
        reply.kept = Some(String::new());
        decoder.feed(&body(name), |event| drop(reply.read(&event))).expect("no event is too large");
        let ending = reply.ending.as_ref().expect("a final event");
        assert_eq!(Some(&ending.text), reply.kept.as_ref(), "{name}");
        assert_eq!(ending.message_id.len(), 36, "{name}");
        assert_eq!((reply.conversation.as_deref().map(str::len), reply.late()), (Some(36), 0), "{name}");
    }
}

#[test]
fn refusals_have_their_outcome() {
    for (name, status) in
        [("v087-concurrent-limited.http", 429), ("v087-login-limited.http", 429), ("v087-register-limited.http", 429)]
    {
        assert_eq!(refusal(Outcome::of_status(status), &body(name)).outcome, Outcome::RateLimited, "{name}");
    }
    // What no transcript shows stands on the protocol page.
    let ban = br#"{"text":"{\"type\":\"ban\"}","error":true,"final":true}"#;
    assert_eq!(refusal(Outcome::ErrorEvent, ban).outcome, Outcome::Banned);
    let illegal = br#"{"message":"Illegal request"}"#;
    assert_eq!(refusal(Outcome::ErrorEvent, illegal).outcome, Outcome::Banned);
    let login = br#"{"message":"Your account has been temporarily banned due to violations of our service."}"#;
    assert_eq!(refusal(Outcome::Unauthorized, login).outcome, Outcome::Banned);
    assert_eq!(refusal(Outcome::Unauthorized, b"Unauthorized").outcome, Outcome::Unauthorized);
}

#[test]
fn a_resumed_stream_goes_on_where_it_broke_off() {
    let delta = |text: &str| {
        format!(
            r#"{{"event":"on_message_delta","data":{{"id":"s","delta":{{"content":[{{"type":"text","text":"{text}"}}]}}}}}}"#
        )
    };
    let event = |data: &str| format!("event: message\ndata: {data}\n\n");
    let sync = r#"{"sync":true,"resumeState":{"runSteps":[],"aggregatedContent":[{"type":"text","text":"a b c "}],"userMessage":null,"responseMessageId":"r"},"pendingEvents":[PENDING]}"#;
    let sync = |pending: &str| event(&sync.replace("PENDING", pending));
    let last = r#"{"final":true,"responseMessage":{"messageId":"r","content":[{"type":"text","text":"a b c d e "}]}}"#;
    let before = event(&delta("a "));
    // It had ended meanwhile: the whole rest comes with the summary.
    let at_once = sync(&format!("{},{last}", delta("d ")));
    let (outcome, tokens, _) = replay([before.as_bytes(), at_once.as_bytes()], false);
    assert_eq!((outcome, tokens), (Outcome::Completed, 4));
    let after = [sync(&delta("d ")), event(&delta("e ")), event(last)].concat();
    let (outcome, tokens, text) = replay([before.as_bytes(), after.as_bytes()], false);
    assert_eq!((outcome, tokens, text.as_str()), (Outcome::Completed, 5, "a b c d e "));
}

#[test]
fn hostile_events_are_the_target_s_failure() {
    for data in ["<html>", "7", "{\"final\":true}", "{\"final\":true,\"responseMessage\":7}", "{\"event\":"] {
        let event = format!("event: message\ndata: {data}\n\n");
        assert_eq!(replay([event.as_bytes()], false).0, Outcome::Protocol, "{data}");
    }
    let odd = r#"{"event":"on_message_delta","data":{"delta":{"content":{"type":"text"}}}}"#;
    assert_eq!(replay([format!("data: {odd}\n\n").as_bytes()], false), (Outcome::Truncated, 0, String::new()));
}
