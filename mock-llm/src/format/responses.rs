//! OpenAI's Responses (<https://platform.openai.com/docs/api-reference/responses-streaming>): named events, each with
//! its `type` and a `sequence_number` from 0. The events after the last token have the whole text again. There is no
//! `[DONE]`.

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Value, json};

use super::frames::{Stamp, event};
use super::{Asked, Closing, Envelope, Facts, Format, Spoken, text};

pub(super) const MALFORMED_FRAME: &str =
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\" half\n\n";
pub(super) const MALFORMED_BODY: &str = "{\"output\":[";

/// How the event of a token begins, up to its number.
const BEFORE: &str =
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":";

/// The `sequence_number` of the first token: four events are before it.
const FIRST_TOKEN: u64 = 4;

/// The parts of a request that the mock reads.
#[derive(Deserialize)]
struct Request {
    model: String,
    /// A text, or a list of items.
    input: Value,
    stream: Option<bool>,
    max_output_tokens: Option<u64>,
}

pub(super) fn read(body: &[u8]) -> serde_json::Result<Asked> {
    let request: Request = serde_json::from_slice(body)?;
    let prompt = match &request.input {
        Value::String(text) => text.clone(),
        // Not every item is a message, with a role.
        Value::Array(items) => items
            .iter()
            .rev()
            .find(|item| item.get("role").and_then(Value::as_str) == Some("user"))
            .and_then(|item| item.get("content"))
            .map(text)
            .unwrap_or_default(),
        other => {
            let kind = crate::section::kind(other);
            return Err(serde_json::Error::custom(format!("`input` is {kind}, but should be a text or a list")));
        }
    };
    Ok(Asked {
        format: Format::Responses,
        model: request.model,
        prompt,
        stream: request.stream.unwrap_or(false),
        limit: request.max_output_tokens,
        usage: true,
    })
}

/// The identifier of the one item of the output.
fn item_id(facts: &Facts) -> String {
    format!("msg_{:016x}", facts.hash)
}

/// How the reply stands when it has ended.
fn status(facts: &Facts) -> &'static str {
    if facts.cut { "incomplete" } else { "completed" }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn item(facts: &Facts, status: &str, content: &[Value]) -> Value {
    json!({ "id": item_id(facts), "type": "message", "status": status, "role": "assistant", "content": content })
}

/// The response object, as it is while nothing went wrong and nothing has ended.
fn response(facts: &Facts, status: &str, output: &[Value]) -> Value {
    json!({
        "id": format!("resp_{:016x}", facts.hash),
        "object": "response",
        "created_at": facts.created,
        "status": status,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "max_output_tokens": facts.limit,
        "metadata": {},
        "model": facts.model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": { "effort": null, "summary": null },
        "store": false,
        "temperature": 1.0,
        "text": { "format": { "type": "text" } },
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": null,
        "user": null,
    })
}

/// The response object of a reply that has ended.
fn ended(facts: &Facts, text: &str) -> Value {
    let status = status(facts);
    let mut response = response(facts, status, &[item(facts, status, &[part(text)])]);
    if facts.cut {
        response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
    }
    let (asked, tokens) = (facts.prompt_tokens, facts.tokens);
    response["usage"] = json!({
        "input_tokens": asked,
        "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": tokens,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": asked + tokens,
    });
    response
}

/// An event with its number and these fields.
fn numbered(kind: &str, number: u64, fields: &[(&str, Value)]) -> String {
    event(kind, &[[("sequence_number", json!(number))].as_slice(), fields].concat())
}

/// An event about the one part of the one item.
fn about_part(facts: &Facts, kind: &str, number: u64, field: &str, value: Value) -> String {
    let place = [("item_id", json!(item_id(facts))), ("output_index", json!(0)), ("content_index", json!(0))];
    numbered(kind, number, &[place.as_slice(), &[(field, value)]].concat())
}

pub(super) fn envelope(facts: &Facts) -> Envelope {
    let started = response(facts, "in_progress", &[]);
    let added = item(facts, "in_progress", &[]);
    let head = [
        numbered("response.created", 0, &[("response", started.clone())]),
        numbered("response.in_progress", 1, &[("response", started)]),
        numbered("response.output_item.added", 2, &[("output_index", json!(0)), ("item", added)]),
        about_part(facts, "response.content_part.added", 3, "part", part("")),
    ];
    Envelope {
        head: head.concat(),
        before: BEFORE.to_owned(),
        stamp: Stamp::Number(FIRST_TOKEN),
        between: format!(",\"item_id\":\"{}\",\"output_index\":0,\"content_index\":0,\"delta\":\"", item_id(facts)),
        after: "\",\"logprobs\":[]}\n\n",
    }
}

pub(super) fn closing(facts: &Facts, spoken: &Spoken) -> Closing {
    let (text, next) = (&spoken.text, FIRST_TOKEN + facts.tokens);
    let said = item(facts, status(facts), &[part(text)]);
    let rest = [
        about_part(facts, "response.output_text.done", next, "text", json!(text)),
        about_part(facts, "response.content_part.done", next + 1, "part", part(text)),
        numbered("response.output_item.done", next + 2, &[("output_index", json!(0)), ("item", said)]),
    ];
    let kind = format!("response.{}", status(facts));
    Closing { rest: rest.concat(), terminal: numbered(&kind, next + 3, &[("response", ended(facts, text))]) }
}

/// The error, and the response that has failed by it.
pub(super) fn error_frame(facts: &Facts, position: u64) -> String {
    let number = FIRST_TOKEN + position;
    let (code, message) = ("server_error", "planned error");
    let mut failed = response(facts, "failed", &[]);
    failed["error"] = json!({ "code": code, "message": message });
    let fields = [("code", json!(code)), ("message", json!(message)), ("param", Value::Null)];
    numbered("error", number, &fields) + &numbered("response.failed", number + 1, &[("response", failed)])
}

pub(super) fn whole(facts: &Facts, text: &str) -> String {
    ended(facts, text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::frames::sample::{WORDS, events, facts, scripted, spoken, tokens};
    use super::*;

    /// A whole stream's events.
    fn stream(facts: &Facts) -> Vec<(String, Value)> {
        let (frames, said) = tokens(facts);
        let Closing { rest, terminal } = closing(facts, &spoken(said));
        events(&[envelope(facts).head, frames.concat(), rest, terminal].concat())
    }

    #[test]
    fn the_events_come_in_their_order_and_with_rising_numbers() {
        let events = stream(&facts(Format::Responses, false));
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        let (head, rest) = names.split_at(4);
        let (deltas, tail) = rest.split_at(WORDS as usize);
        let opened =
            ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"];
        assert_eq!(head, opened);
        assert!(deltas.iter().all(|name| *name == "response.output_text.delta"), "{deltas:?}");
        let done = ["response.output_text.done", "response.content_part.done", "response.output_item.done"];
        assert_eq!(tail, [done.as_slice(), &["response.completed"]].concat());
        for (number, (_, data)) in events.iter().enumerate() {
            assert_eq!(data["sequence_number"], number);
        }
    }

    #[test]
    fn deltas_name_their_place_and_the_text_is_said_again_at_the_end() {
        let events = stream(&facts(Format::Responses, false));
        let data = |name: &str| &events.iter().find(|(kind, _)| kind == name).expect("the event").1;
        let id = &data("response.output_item.added")["item"]["id"];
        let deltas = events.iter().filter(|(name, _)| name == "response.output_text.delta");
        let text: String = deltas
            .map(|(_, data)| {
                assert_eq!(data["item_id"], *id);
                assert_eq!((&data["output_index"], &data["content_index"]), (&json!(0), &json!(0)));
                data["delta"].as_str().expect("a text")
            })
            .collect();
        assert_eq!(text, scripted());
        let ended = &data("response.completed")["response"];
        for again in [
            &data("response.output_text.done")["text"],
            &data("response.content_part.done")["part"]["text"],
            &data("response.output_item.done")["item"]["content"][0]["text"],
            &ended["output"][0]["content"][0]["text"],
        ] {
            assert_eq!(*again, *text);
        }
        assert_eq!(ended["status"], "completed");
        assert_eq!((&ended["usage"]["input_tokens"], &ended["usage"]["output_tokens"]), (&json!(3), &json!(9)));
        assert_eq!(data("response.created")["response"]["usage"], Value::Null);
    }

    #[test]
    fn a_reply_that_the_limit_cut_is_incomplete() {
        let events = stream(&facts(Format::Responses, true));
        let (name, data) = events.last().expect("events");
        assert_eq!(name, "response.incomplete");
        assert_eq!(data["response"]["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(data["response"]["max_output_tokens"], WORDS);
    }

    #[test]
    fn an_error_is_told_and_the_response_has_failed() {
        let frame = error_frame(&facts(Format::Responses, false), 2);
        let [(error, told), (failed, response)]: [_; 2] = events(&frame).try_into().expect("two events");
        assert_eq!((error.as_str(), failed.as_str()), ("error", "response.failed"));
        assert_eq!((&told["sequence_number"], &told["code"]), (&json!(6), &json!("server_error")));
        assert_eq!(response["sequence_number"], 7);
        assert_eq!(response["response"]["status"], "failed");
        assert_eq!(response["response"]["error"]["message"], "planned error");
    }
}
