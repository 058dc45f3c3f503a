//! Anthropic's Messages (<https://docs.anthropic.com/en/api/messages-streaming>): named events, each with its `type`.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::frames::{Stamp, event};
use super::{Asked, Closing, Envelope, Facts, Format, Message, last_of_user};

pub(super) const MALFORMED_FRAME: &str =
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"text\":\" half\n\n";
pub(super) const MALFORMED_BODY: &str = "{\"content\":[";

/// How the event of a token begins, up to its word.
const BEFORE: &str = concat!(
    "event: content_block_delta\n",
    "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"",
);

/// The parts of a request that the mock reads.
#[derive(Deserialize)]
struct Request {
    model: String,
    messages: Vec<Message>,
    stream: Option<bool>,
    /// Not optional in this API.
    max_tokens: u64,
}

pub(super) fn read(body: &[u8]) -> serde_json::Result<Asked> {
    let request: Request = serde_json::from_slice(body)?;
    Ok(Asked {
        format: Format::Messages,
        prompt: last_of_user(&request.messages),
        model: request.model,
        stream: request.stream.unwrap_or(false),
        limit: Some(request.max_tokens),
        usage: true,
    })
}

fn stop_reason(facts: &Facts) -> &'static str {
    if facts.cut { "max_tokens" } else { "end_turn" }
}

/// The message object.
fn message(facts: &Facts, content: &[Value], stop_reason: Option<&str>, output_tokens: u64) -> Value {
    json!({
        "id": format!("msg_{:016x}", facts.hash),
        "type": "message",
        "role": "assistant",
        "model": facts.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": {
            "input_tokens": facts.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output_tokens,
        },
    })
}

pub(super) fn envelope(facts: &Facts) -> Envelope {
    let block = json!({ "type": "text", "text": "" });
    let head = [
        event("message_start", &[("message", message(facts, &[], None, 1))]),
        event("content_block_start", &[("index", json!(0)), ("content_block", block)]),
        event("ping", &[]),
    ];
    Envelope {
        head: head.concat(),
        before: BEFORE.to_owned(),
        stamp: Stamp::Nothing,
        between: String::new(),
        after: "\"}}\n\n",
    }
}

pub(super) fn closing(facts: &Facts) -> Closing {
    let delta = json!({ "stop_reason": stop_reason(facts), "stop_sequence": null });
    let usage = json!({ "output_tokens": facts.tokens });
    let rest = [
        event("content_block_stop", &[("index", json!(0))]),
        event("message_delta", &[("delta", delta), ("usage", usage)]),
    ];
    Closing { rest: rest.concat(), terminal: event("message_stop", &[]) }
}

pub(super) fn error_frame() -> String {
    event("error", &[("error", json!({ "type": "api_error", "message": "planned error" }))])
}

pub(super) fn whole(facts: &Facts, text: &str) -> String {
    let content = [json!({ "type": "text", "text": text })];
    message(facts, &content, Some(stop_reason(facts)), facts.tokens).to_string()
}

/// The types of <https://docs.anthropic.com/en/api/errors>.
pub(super) fn error(status: StatusCode, message: &str) -> Value {
    let kind = match status {
        StatusCode::BAD_REQUEST => "invalid_request_error",
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": message } })
}

#[cfg(test)]
mod tests {
    use super::super::frames::sample::{WORDS, events, facts, scripted, tokens};
    use super::*;

    /// A whole stream's events.
    fn stream(facts: &Facts) -> Vec<(String, Value)> {
        let Closing { rest, terminal } = closing(facts);
        events(&[envelope(facts).head, tokens(facts).0.concat(), rest, terminal].concat())
    }

    #[test]
    fn the_events_come_in_their_order_and_their_text_is_the_script() {
        let events = stream(&facts(Format::Messages, false));
        let (head, rest) = events.split_at(3);
        let (deltas, tail) = rest.split_at(WORDS as usize);
        let names = |events: &[(String, Value)]| events.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(head), ["message_start", "content_block_start", "ping"]);
        assert_eq!(names(tail), ["content_block_stop", "message_delta", "message_stop"]);
        let text: String = deltas
            .iter()
            .map(|(name, data)| {
                assert_eq!((name.as_str(), &data["index"]), ("content_block_delta", &json!(0)));
                assert_eq!(data["delta"]["type"], "text_delta");
                data["delta"]["text"].as_str().expect("a text")
            })
            .collect();
        assert_eq!(text, scripted());
        let started = &head[0].1["message"];
        assert_eq!((&started["usage"]["input_tokens"], &started["stop_reason"]), (&json!(3), &Value::Null));
        assert_eq!(tail[1].1["delta"]["stop_reason"], "end_turn");
        assert_eq!(tail[1].1["usage"]["output_tokens"], WORDS);
    }

    #[test]
    fn a_reply_that_the_limit_cut_says_so() {
        let facts = facts(Format::Messages, true);
        assert!(closing(&facts).rest.contains("\"stop_reason\":\"max_tokens\""));
        let value: Value = serde_json::from_str(&whole(&facts, " a")).unwrap();
        assert_eq!((&value["stop_reason"], &value["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(9)));
    }

    #[test]
    fn an_error_inside_is_an_event_with_its_type() {
        let [(name, data)]: [_; 1] = events(&error_frame()).try_into().expect("one event");
        assert_eq!((name.as_str(), &data["error"]["type"]), ("error", &json!("api_error")));
    }
}
