//! One event of a chat completion stream, read without I/O and, where its text is not wanted,
//! without a copy: this is done for every token.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::driver::exchange::Failure;
use crate::driver::stream::{Reader, Said};
use crate::net::sse::Event;
use crate::record::Outcome;
use crate::trace::Check;

/// Reads chunks; keeps the reply's text where the conversation goes on, and checks it where it is known.
#[derive(Default)]
pub(super) struct ChunkReader {
    pub(super) reply: Option<String>,
    pub(super) check: Option<Check>,
}

impl Reader for ChunkReader {
    const END: &'static str = "[DONE]";
    const STRICT: bool = true;

    fn read(&mut self, event: &Event<'_>) -> Result<Said, Failure> {
        self.read_chunk(event.data)
    }
}

impl ChunkReader {
    /// Reads one event's data.
    fn read_chunk(&mut self, data: &[u8]) -> Result<Said, Failure> {
        if data == b"[DONE]" {
            return Ok(Said::Done(0));
        }
        let chunk: Chunk<'_> = serde_json::from_slice(data).map_err(|error| {
            Failure::new(Outcome::Protocol, format!("{error} in the event: {}", String::from_utf8_lossy(data)))
        })?;
        if let Some(error) = chunk.error {
            return Err(Failure::new(Outcome::ErrorEvent, error.get()));
        }
        let content =
            chunk.choices.and_then(|choices| choices.0).and_then(|choice| choice.delta).and_then(|delta| delta.content);
        match content.map(RawValue::get) {
            None | Some("null" | "\"\"") => Ok(Said::Other),
            Some(_) if self.reply.is_none() && self.check.is_none() => Ok(Said::Tokens(1)),
            Some(text) => {
                let text = plain(text)?;
                if let Some(reply) = &mut self.reply {
                    reply.push_str(&text);
                }
                Ok(Said::Tokens(self.check.as_mut().map_or(1, |check| check.feed(&text))))
            }
        }
    }
}

/// The text of a JSON string, borrowed where it has no escapes.
fn plain(json: &str) -> Result<Cow<'_, str>, Failure> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Ok(Cow::Borrowed(text)),
        _ => serde_json::from_str(json)
            .map_err(|_| Failure::new(Outcome::Protocol, format!("content that is no text: {json}"))),
    }
}

/// The parts of a `chat.completion.chunk` that are read, borrowed from the event.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<FirstChoice<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

/// The first of a list of choices, read without making the list.
struct FirstChoice<'a>(Option<Choice<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for FirstChoice<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = Option<Choice<'de>>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(first)
            }
        }
        deserializer.deserialize_seq(First).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(data: &str) -> Result<(&'static str, String), Outcome> {
        let mut reader = ChunkReader { reply: Some(String::new()), check: None };
        match reader.read_chunk(data.as_bytes()) {
            Ok(said) => {
                let said = match said {
                    Said::Tokens(_) => "token",
                    Said::Done(_) => "done",
                    Said::Other | Said::Heartbeat => "other",
                };
                Ok((said, reader.reply.unwrap_or_default()))
            }
            Err(failure) => Err(failure.outcome),
        }
    }

    #[test]
    fn only_content_is_a_token() {
        let event = |delta: &str| {
            format!("{{\"id\":\"x\",\"choices\":[{{\"index\":0,\"delta\":{delta}}},{{\"index\":1}}],\"usage\":null}}")
        };
        assert_eq!(said("[DONE]"), Ok(("done", String::new())));
        assert_eq!(said(&event("{\"role\":\"assistant\",\"content\":\"\"}")), Ok(("other", String::new())));
        assert_eq!(said(&event("{\"content\":null}")), Ok(("other", String::new())));
        assert_eq!(said(&event("{}")), Ok(("other", String::new())));
        assert_eq!(said(&event("{\"content\":\" a\\n\\ud55c\"}")), Ok(("token", " a\n한".to_owned())));
        assert_eq!(said("{\"choices\":[],\"usage\":{\"total_tokens\":1}}"), Ok(("other", String::new())));
    }

    #[test]
    fn errors_inside_a_stream_have_their_outcome() {
        assert_eq!(said("{\"error\":{\"message\":\"no\"}}"), Err(Outcome::ErrorEvent));
        assert_eq!(said("{\"choices\":[{\"delta\":{\"content\":\" half"), Err(Outcome::Protocol));
        assert_eq!(said("<html>"), Err(Outcome::Protocol));
        assert_eq!(said("{\"choices\":\"none\"}"), Err(Outcome::Protocol));
        assert_eq!(said("{\"error\":null,\"choices\":[]}"), Ok(("other", String::new())));
    }
}
