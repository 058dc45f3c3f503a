//! The APIs that the mock speaks, as a closed set: what is different between them, and nothing else.
//!
//! | path | API | a stream's end |
//! |---|---|---|
//! | `/v1/chat/completions` | OpenAI chat completions | `data: [DONE]` |
//! | `/v1/responses` | OpenAI Responses | event `response.completed`, or `response.incomplete` |
//! | `/v1/messages` | Anthropic Messages | event `message_stop` |
//! | `/api/chat` | Ollama chat | a line with `"done":true` |
//!
//! Without `/v1` the first three are served too.

mod chat;
mod frames;
mod messages;
mod ollama;
mod responses;

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use frames::{Closing, Envelope, Facts, Spoken};

use crate::state::RateStanding;

/// An API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Ollama's chat.
    Ollama,
}

/// What of a request decides its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) format: Format,
    pub(crate) model: String,
    /// The text of the last user message; empty without one.
    pub(crate) prompt: String,
    pub(crate) stream: bool,
    /// The most tokens that the caller takes.
    pub(crate) limit: Option<u64>,
    /// Whether the stream is to tell its usage, where that has to be asked for.
    pub(crate) usage: bool,
}

impl Format {
    /// The API that is served at this path.
    pub(crate) fn served_at(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" | "/chat/completions" => Some(Self::Chat),
            "/v1/responses" | "/responses" => Some(Self::Responses),
            "/v1/messages" | "/messages" => Some(Self::Messages),
            "/api/chat" => Some(Self::Ollama),
            _ => None,
        }
    }

    /// Reads a request's body.
    ///
    /// # Errors
    /// What is wrong with it, for the caller.
    pub(crate) fn read(self, body: &[u8]) -> Result<Asked, String> {
        let read = match self {
            Self::Chat => chat::read(body),
            Self::Responses => responses::read(body),
            Self::Messages => messages::read(body),
            Self::Ollama => ollama::read(body),
        };
        read.map_err(|error| error.to_string())
    }

    /// The header that carries the key besides the bearer.
    pub(crate) fn key_header(self) -> Option<&'static str> {
        match self {
            Self::Messages => Some("x-api-key"),
            Self::Chat | Self::Responses | Self::Ollama => None,
        }
    }

    /// The content type of a stream.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses | Self::Messages => "text/event-stream",
            Self::Ollama => "application/x-ndjson",
        }
    }

    /// Whether a stream ends with its whole text once more.
    pub(crate) fn repeats_text(self) -> bool {
        self == Self::Responses
    }

    /// The body of an answer that is an error. `code` is the mock's own word for it.
    pub(crate) fn error(self, status: StatusCode, code: &str, message: &str) -> Value {
        match self {
            Self::Chat | Self::Responses => chat::error(code, message),
            Self::Messages => messages::error(status, message),
            Self::Ollama => ollama::error(message),
        }
    }

    /// A frame in the place of a token that is no JSON.
    pub(crate) fn malformed_frame(self) -> &'static str {
        match self {
            Self::Chat => chat::MALFORMED_FRAME,
            Self::Responses => responses::MALFORMED_FRAME,
            Self::Messages => messages::MALFORMED_FRAME,
            Self::Ollama => ollama::MALFORMED_FRAME,
        }
    }

    /// A body of a reply that is not streamed and no JSON.
    pub(crate) fn malformed_body(self) -> &'static str {
        match self {
            Self::Chat => chat::MALFORMED_BODY,
            Self::Responses => responses::MALFORMED_BODY,
            Self::Messages => messages::MALFORMED_BODY,
            Self::Ollama => ollama::MALFORMED_BODY,
        }
    }

    /// The headers of OpenAI's or Anthropic's rate limits, and on a refusal `Retry-After` (whole seconds, RFC 9110,
    /// section 10.2.3).
    pub(crate) fn add_rate_headers(self, headers: &mut HeaderMap, standing: RateStanding) {
        let RateStanding { limit, remaining, reset, admitted } = standing;
        let told = match self {
            Self::Chat | Self::Responses => Some((
                ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
                format!("{}ms", reset.as_millis()),
            )),
            Self::Messages => Some((
                [
                    "anthropic-ratelimit-requests-limit",
                    "anthropic-ratelimit-requests-remaining",
                    "anthropic-ratelimit-requests-reset",
                ],
                humantime::format_rfc3339_seconds(SystemTime::now() + reset).to_string(),
            )),
            Self::Ollama => None,
        };
        if let Some(([limit_name, remaining_name, reset_name], reset_text)) = told {
            headers.insert(limit_name, HeaderValue::from(limit));
            headers.insert(remaining_name, HeaderValue::from(remaining));
            if let Ok(value) = HeaderValue::from_str(&reset_text) {
                headers.insert(reset_name, value);
            }
        }
        if !admitted {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(reset.as_secs_f64().ceil() as u64));
        }
    }
}

/// One message of a conversation, as all APIs but Responses have it.
#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

/// The text of the last message of the user.
fn last_of_user(messages: &[Message]) -> String {
    let last = messages.iter().rev().find(|message| message.role == "user");
    last.map(|message| text(&message.content)).unwrap_or_default()
}

/// The text of a content that is a string or a list of typed parts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part.get("text")?.as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_format_reads_its_request() {
        let parts = r#"[{"type":"text","text":"a"},{"type":"image"},{"type":"text","text":"b"}]"#;
        let talk = format!(r#"[{{"role":"user"}},{{"role":"user","content":{parts}}},{{"role":"assistant"}}]"#);
        let asked = |format, stream, limit| {
            let (model, prompt) = ("m".to_owned(), "a\nb".to_owned());
            Asked { format, model, prompt, stream, limit, usage: format != Format::Chat }
        };
        for (format, stream, limit, field, also) in [
            (Format::Chat, false, None, "messages", ""),
            (Format::Chat, true, Some(6), "messages", r#","stream":true,"max_tokens":6"#),
            (Format::Responses, false, None, "input", ""),
            (Format::Responses, true, Some(4), "input", r#","stream":true,"max_output_tokens":4"#),
            (Format::Messages, false, Some(5), "messages", r#","max_tokens":5"#),
            (Format::Messages, true, Some(1), "messages", r#","max_tokens":1,"stream":true"#),
            (Format::Ollama, true, None, "messages", ""),
            (Format::Ollama, true, None, "messages", r#","stream":null,"options":{"num_predict":-1}"#),
            (Format::Ollama, false, Some(3), "messages", r#","stream":false,"options":{"num_predict":3}"#),
        ] {
            let body = format!(r#"{{"model":"m","{field}":{talk}{also}}}"#);
            assert_eq!(format.read(body.as_bytes()), Ok(asked(format, stream, limit)), "{body}");
        }
        let text = Format::Responses.read(br#"{"model":"m","input":"a\nb"}"#);
        assert_eq!(text, Ok(asked(Format::Responses, false, None)));
        for (format, body, what) in [
            (Format::Chat, "{\"model\":\"m\"}", "missing field `messages`"),
            (Format::Responses, "{\"model\":\"m\",\"input\":7}", "`input` is a number"),
            (Format::Messages, "{\"model\":\"m\",\"messages\":[]}", "missing field `max_tokens`"),
            (Format::Ollama, "{\"messages\":[]}", "missing field `model`"),
        ] {
            let error = format.read(body.as_bytes()).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn errors_and_limits_have_the_form_of_their_api() {
        let standing = RateStanding { limit: 2, remaining: 0, reset: Duration::from_millis(1_500), admitted: false };
        let openai = json!({ "error": { "message": "why", "type": "mock_llm_error", "param": null, "code": "c" } });
        let anthropic = json!({ "type": "error", "error": { "type": "rate_limit_error", "message": "why" } });
        for (format, error, limit) in [
            (Format::Chat, openai.clone(), Some("x-ratelimit-limit-requests")),
            (Format::Responses, openai, Some("x-ratelimit-limit-requests")),
            (Format::Messages, anthropic, Some("anthropic-ratelimit-requests-limit")),
            (Format::Ollama, json!({ "error": "why" }), None),
        ] {
            assert_eq!(format.error(StatusCode::TOO_MANY_REQUESTS, "c", "why"), error);
            let mut headers = HeaderMap::new();
            format.add_rate_headers(&mut headers, standing);
            assert_eq!(headers["retry-after"], "2");
            assert_eq!(headers.len(), if limit.is_some() { 4 } else { 1 });
            assert!(limit.is_none_or(|name| headers[name] == "2"), "{headers:?}");
        }
    }
}
