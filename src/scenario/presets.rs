//! Protocols over HTTP that are known, as the sections that somebody would write for them.

use std::collections::BTreeMap;

use super::file::{ReplySection, RequestSection, SsePreset, SseSection};

impl SsePreset {
    /// Its name, as scenarios write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenaiResponses => "openai-responses",
            Self::AnthropicMessages => "anthropic-messages",
            Self::Ollama => "ollama",
        }
    }

    /// Whether its paths stand below a base that ends in `/v1`.
    pub fn is_below_v1(self) -> bool {
        !matches!(self, Self::Ollama)
    }

    /// What would be written for it.
    pub fn section(self) -> SseSection {
        let text = match self {
            Self::OpenaiResponses => include_str!("presets/openai-responses.toml"),
            Self::AnthropicMessages => include_str!("presets/anthropic-messages.toml"),
            Self::Ollama => include_str!("presets/ollama.toml"),
        };
        toml::from_str(text).expect("a preset is a section")
    }
}

impl SseSection {
    /// The section with its preset's parts where it has none of its own.
    pub fn whole(&self) -> Self {
        let Some(preset) = self.preset else { return self.clone() };
        let below = preset.section();
        Self {
            preset: self.preset,
            request: over(self.request.as_ref(), below.request, RequestSection::over),
            stream: over(self.stream.as_ref(), below.stream, RequestSection::over),
            cancel: over(self.cancel.as_ref(), below.cancel, RequestSection::over),
            framing: self.framing.or(below.framing),
            reply: over(self.reply.as_ref(), below.reply, ReplySection::over),
            resume: self.resume.or(below.resume),
        }
    }
}

/// A part laid over the same of a preset, where both have it.
fn over<T: Clone>(own: Option<&T>, below: Option<T>, lay: impl FnOnce(&T, T) -> T) -> Option<T> {
    match (own, below) {
        (Some(own), Some(below)) => Some(lay(own, below)),
        (own, below) => own.cloned().or(below),
    }
}

/// Entries laid over others; names of headers are equal however they are written.
fn entries(own: &BTreeMap<String, String>, below: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_own = |name: &str| own.keys().any(|own| own.eq_ignore_ascii_case(name));
    below.into_iter().filter(|(name, _)| !is_own(name)).chain(own.clone()).collect()
}

impl RequestSection {
    fn over(&self, below: Self) -> Self {
        Self {
            method: self.method.clone().or(below.method),
            path: if self.path.is_empty() { below.path } else { self.path.clone() },
            headers: entries(&self.headers, below.headers),
            body: self.body.clone().or(below.body),
            capture: entries(&self.capture, below.capture),
        }
    }
}

impl ReplySection {
    fn over(&self, below: Self) -> Self {
        Self {
            token: self.token.clone().or(below.token),
            token_when: self.token_when.clone().or(below.token_when),
            end: self.end.clone().or(below.end),
            end_with_body: self.end_with_body.or(below.end_with_body),
            error: self.error.clone().or(below.error),
            error_text: self.error_text.clone().or(below.error_text),
            rate_limited: self.rate_limited.clone().or(below.rate_limited),
            retry_after: self.retry_after.clone().or(below.retry_after),
            heartbeat: self.heartbeat.clone().or(below.heartbeat),
            capture: entries(&self.capture, below.capture),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::file::{Framing, MatchSection};

    #[test]
    fn what_is_written_beside_a_preset_replaces_its_parts() {
        let written = "preset = \"anthropic-messages\"\nresume = false\n\
                       [request]\nbody = '{}'\nheaders = { X-Api-Key = \"own\", x-other = \"1\" }\n\
                       [reply]\nend = \"[DONE]\"\n";
        let whole = toml::from_str::<SseSection>(written).unwrap().whole();
        let request = whole.request.unwrap();
        assert_eq!((request.path.as_str(), request.body.as_deref()), ("/messages", Some("{}")));
        let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(headers, [("X-Api-Key", "own"), ("anthropic-version", "2023-06-01"), ("x-other", "1")]);
        let reply = whole.reply.unwrap();
        assert_eq!(reply.token.as_deref(), Some("/delta/text"));
        assert!(matches!(reply.end, Some(MatchSection::Text(text)) if text == "[DONE]"));
        assert_eq!(whole.resume, Some(false));
    }

    #[test]
    fn every_preset_has_a_request_and_says_what_a_reply_means() {
        for preset in [SsePreset::OpenaiResponses, SsePreset::AnthropicMessages, SsePreset::Ollama] {
            let alone = SseSection { preset: Some(preset), ..SseSection::default() }.whole();
            let (request, reply) = (alone.request.unwrap(), alone.reply.unwrap());
            assert!(request.body.unwrap().contains("{{messages}}") && request.path.starts_with('/'));
            assert!(reply.token.is_some() && reply.end.is_some() && reply.error.is_some(), "{}", preset.name());
            assert_eq!(alone.framing == Some(Framing::Lines), preset == SsePreset::Ollama);
            assert_eq!(serde_json::to_value(preset).unwrap(), preset.name());
        }
    }
}
