//! OpenAI's chat completions (<https://platform.openai.com/docs/api-reference/chat>): chunks as `data:` lines.

use serde::Deserialize;
use serde_json::{Value, json};

use super::frames::{Stamp, unix_s};
use super::{Asked, Closing, Envelope, Facts, Format, Message, last_of_user};

pub(super) const MALFORMED_FRAME: &str = "data: {\"choices\":[{\"delta\":{\"content\":\" half\n\n";
pub(super) const MALFORMED_BODY: &str = "{\"choices\":[";
pub(super) const ERROR_FRAME: &str = concat!(
    "data: {\"error\":{\"message\":\"planned error\",",
    "\"type\":\"server_error\",\"code\":\"mock_error_event\"}}\n\n",
);

/// The parts of a request that the mock reads.
#[derive(Deserialize)]
struct Request {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

pub(super) fn read(body: &[u8]) -> serde_json::Result<Asked> {
    let request: Request = serde_json::from_slice(body)?;
    Ok(Asked {
        format: Format::Chat,
        prompt: last_of_user(&request.messages),
        model: request.model,
        stream: request.stream,
        limit: request.max_completion_tokens.or(request.max_tokens),
        usage: request.stream_options.is_some_and(|options| options.include_usage),
    })
}

/// How every chunk begins, up to its choices.
fn opening(facts: &Facts) -> String {
    let Facts { hash, created, .. } = facts;
    let model = json!(facts.model);
    format!(
        "data: {{\"id\":\"chatcmpl-{hash:016x}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{model},\"choices\":["
    )
}

/// How a chunk ends after its choices. With `include_usage` every chunk but the last carries `"usage":null`, as OpenAI
/// sends it.
fn ending(facts: &Facts) -> &'static str {
    if facts.usage { "],\"usage\":null}\n\n" } else { "]}\n\n" }
}

pub(super) fn envelope(facts: &Facts) -> Envelope {
    let (opening, ending) = (opening(facts), ending(facts));
    Envelope {
        head: format!(
            "{opening}{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\"finish_reason\":null}}{ending}"
        ),
        before: format!("{opening}{{\"index\":0,\"delta\":{{\"content\":\""),
        stamp: Stamp::Nothing,
        between: String::new(),
        after: if facts.usage {
            "\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n"
        } else {
            "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
        },
    }
}

pub(super) fn closing(facts: &Facts) -> Closing {
    let (opening, ending) = (opening(facts), ending(facts));
    let finish = if facts.cut { "length" } else { "stop" };
    let mut rest =
        format!("{opening}{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"{finish}\"}}{ending}");
    if facts.usage {
        rest.push_str(&format!("{opening}],\"usage\":{}}}\n\n", usage(facts)));
    }
    Closing { rest, terminal: "data: [DONE]\n\n".to_owned() }
}

fn usage(facts: &Facts) -> Value {
    let (asked, tokens) = (facts.prompt_tokens, facts.tokens);
    json!({ "prompt_tokens": asked, "completion_tokens": tokens, "total_tokens": asked + tokens })
}

pub(super) fn whole(facts: &Facts, text: &str) -> String {
    let body = json!({
        "id": format!("chatcmpl-{:016x}", facts.hash),
        "object": "chat.completion",
        "created": unix_s(),
        "model": facts.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": text },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": usage(facts),
    });
    body.to_string()
}

pub(super) fn error(code: &str, message: &str) -> Value {
    json!({ "error": { "message": message, "type": "mock_llm_error", "param": null, "code": code } })
}

#[cfg(test)]
mod tests {
    use super::super::frames::sample::{facts, tokens};
    use super::*;

    const OPENING: &str = concat!(
        r#"data: {"id":"chatcmpl-00000000000000ab","object":"chat.completion.chunk","#,
        r#""created":7,"model":"m","choices":["#,
    );

    #[test]
    fn chunks_are_byte_for_byte_what_they_were() {
        let facts = facts(Format::Chat, false);
        let head = r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}"#;
        assert_eq!(facts.envelope().head, format!("{OPENING}{head}\n\n"));
        let (frames, said) = tokens(&facts);
        let word = said.split(' ').nth(1).unwrap();
        let first = format!(r#"{{"index":0,"delta":{{"content":" {word}"}},"logprobs":null,"finish_reason":null}}]}}"#);
        assert_eq!(frames[0], format!("{OPENING}{first}\n\n"));
        let Closing { rest, terminal } = closing(&facts);
        let last = r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#;
        assert_eq!(rest, format!("{OPENING}{last}\n\n"));
        assert_eq!(terminal, "data: [DONE]\n\n");
        let error = r#"{"error":{"message":"planned error","type":"server_error","code":"mock_error_event"}}"#;
        assert_eq!(facts.error_frame(3), format!("data: {error}\n\n"));
    }

    #[test]
    fn usage_is_told_where_it_is_asked_for_in_a_chunk_of_its_own() {
        let facts = Facts { usage: true, ..facts(Format::Chat, true) };
        assert!(facts.envelope().head.ends_with("\"finish_reason\":null}],\"usage\":null}\n\n"));
        assert!(tokens(&facts).0.iter().all(|frame| frame.ends_with("\"finish_reason\":null}],\"usage\":null}\n\n")));
        let rest = closing(&facts).rest;
        let (finish, usage) = rest.strip_suffix("\n\n").unwrap().split_once("\n\n").unwrap();
        assert!(finish.ends_with(r#""finish_reason":"length"}],"usage":null}"#), "{finish}");
        let usage: Value = serde_json::from_str(usage.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12 }));
    }
}
