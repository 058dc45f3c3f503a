//! The frames of a reply: what is said around its tokens, put together by what each API says.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{Asked, Format, chat, messages, ollama, responses};
use crate::script::{self, Script};

/// No word is longer, with its space, in bytes.
const WORD: usize = 32;

/// What is said around the tokens of one reply.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) format: Format,
    /// Tokens in all.
    pub(crate) tokens: u64,
    /// What its identifiers are made of.
    pub(super) hash: u64,
    pub(super) model: String,
    /// A prompt's tokens are its words.
    pub(super) prompt_tokens: u64,
    pub(super) limit: Option<u64>,
    /// Whether the caller's limit ends it.
    pub(super) cut: bool,
    pub(super) usage: bool,
    /// When it was planned, in Unix seconds.
    pub(super) created: u64,
}

/// The texts of a stream: the frame before the first token, and what stands around each token's word.
#[derive(Debug)]
pub(crate) struct Envelope {
    /// Empty where nothing comes before the first token.
    pub(crate) head: String,
    pub(super) before: String,
    pub(super) stamp: Stamp,
    pub(super) between: String,
    pub(super) after: &'static str,
}

/// What differs from token to token besides the word.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stamp {
    Nothing,
    /// A number that rises by 1; this is that of the first token.
    Number(u64),
    /// The moment, RFC 3339.
    Moment,
}

/// What is known when a reply ends.
#[derive(Debug)]
pub(crate) struct Spoken {
    /// What was said. Empty in a stream of an API that does not repeat it.
    pub(crate) text: String,
    /// From the begin of the schedule to the first token.
    pub(crate) ttft: Duration,
    /// From there to now.
    pub(crate) taken: Duration,
}

/// The frames after the last token.
#[derive(Debug)]
pub(crate) struct Closing {
    /// All but the terminal one.
    pub(crate) rest: String,
    /// What tells that the reply is whole.
    pub(crate) terminal: String,
}

impl Facts {
    /// Of a reply of so many tokens; `cut` says that the caller's limit made them so few.
    pub(crate) fn new(asked: &Asked, tokens: u64, cut: bool) -> Self {
        Self {
            format: asked.format,
            tokens,
            hash: script::stable_hash(&[asked.model.as_bytes(), asked.prompt.as_bytes()]),
            model: asked.model.clone(),
            prompt_tokens: asked.prompt.split_whitespace().count() as u64,
            limit: asked.limit,
            cut,
            usage: asked.usage,
            created: unix_s(),
        }
    }

    /// The texts of its stream.
    pub(crate) fn envelope(&self) -> Envelope {
        match self.format {
            Format::Chat => chat::envelope(self),
            Format::Responses => responses::envelope(self),
            Format::Messages => messages::envelope(self),
            Format::Ollama => ollama::envelope(self),
        }
    }

    /// The frames after its last token.
    pub(crate) fn closing(&self, spoken: &Spoken) -> Closing {
        match self.format {
            Format::Chat => chat::closing(self),
            Format::Responses => responses::closing(self, spoken),
            Format::Messages => messages::closing(self),
            Format::Ollama => ollama::closing(self, spoken),
        }
    }

    /// The frame of an error in the place of the token at `position`, counted from 0; it ends the stream.
    pub(crate) fn error_frame(&self, position: u64) -> String {
        match self.format {
            Format::Chat => chat::ERROR_FRAME.to_owned(),
            Format::Responses => responses::error_frame(self, position),
            Format::Messages => messages::error_frame(),
            Format::Ollama => ollama::error_frame(),
        }
    }

    /// The JSON of a reply that is not streamed.
    pub(crate) fn whole(&self, spoken: &Spoken) -> String {
        match self.format {
            Format::Chat => chat::whole(self, &spoken.text),
            Format::Responses => responses::whole(self, &spoken.text),
            Format::Messages => messages::whole(self, &spoken.text),
            Format::Ollama => ollama::whole(self, spoken),
        }
    }
}

impl Envelope {
    /// The frame of the token at `position`, counted from 0: a space and the script's next word. The same is appended
    /// to `said`, where that is kept.
    pub(crate) fn frame(&self, position: u64, script: &mut Script, said: Option<&mut String>) -> String {
        let Self { before, stamp, between, after, .. } = self;
        let mut text = String::with_capacity(before.len() + stamp.room() + between.len() + WORD + after.len());
        text.push_str(before);
        stamp.write(position, &mut text);
        text.push_str(between);
        let word = text.len();
        text.push(' ');
        script.write_word(&mut text);
        if let Some(said) = said {
            said.push_str(&text[word..]);
        }
        text.push_str(after);
        text
    }
}

impl Stamp {
    /// No stamp is longer, in bytes.
    fn room(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Number(_) => 20,
            Self::Moment => 30,
        }
    }

    fn write(self, position: u64, out: &mut String) {
        // A text takes everything.
        let _ = match self {
            Self::Nothing => Ok(()),
            Self::Number(first) => write!(out, "{}", first + position),
            Self::Moment => write!(out, "{}", humantime::format_rfc3339_micros(SystemTime::now())),
        };
    }
}

/// A named server-sent event; its data begins with the name as `type`, and has these fields in this order.
pub(super) fn event(kind: &str, fields: &[(&str, Value)]) -> String {
    let mut text = format!("event: {kind}\ndata: {{\"type\":\"{kind}\"");
    for (name, value) in fields {
        let _ = write!(text, ",\"{name}\":{value}");
    }
    text.push_str("}\n\n");
    text
}

pub(super) fn unix_s() -> u64 {
    crate::journal::unix_us() / 1_000_000
}

/// What the tests of all formats share: a reply of nine words to a marker.
#[cfg(test)]
pub(super) mod sample {
    use super::*;

    pub(in crate::format) const WORDS: u64 = 9;

    /// The reply's facts, with everything that depends on the moment fixed.
    pub(in crate::format) fn facts(format: Format, cut: bool) -> Facts {
        let (model, prompt) = ("m".to_owned(), "one two [[cc:r:1:0]]".to_owned());
        let asked = Asked { format, model, prompt, stream: true, limit: cut.then_some(WORDS), usage: false };
        Facts { hash: 0xab, created: 7, ..Facts::new(&asked, WORDS, cut) }
    }

    pub(in crate::format) fn spoken(text: String) -> Spoken {
        Spoken { text, ttft: Duration::from_millis(30), taken: Duration::from_millis(100) }
    }

    /// The frames of the tokens and what they say, put together as the stream does.
    pub(in crate::format) fn tokens(facts: &Facts) -> (Vec<String>, String) {
        let envelope = facts.envelope();
        let mut script = Script::traced("cc:r:1:0").of_length(WORDS);
        let mut said = String::new();
        let frames = (0..WORDS).map(|position| envelope.frame(position, &mut script, Some(&mut said))).collect();
        (frames, said)
    }

    /// The text of the script by itself.
    pub(in crate::format) fn scripted() -> String {
        let mut script = Script::traced("cc:r:1:0").of_length(WORDS);
        let mut text = String::new();
        for _ in 0..WORDS {
            text.push(' ');
            script.write_word(&mut text);
        }
        text
    }

    /// A stream's named events, each with its data; the name is also the data's `type`.
    pub(in crate::format) fn events(stream: &str) -> Vec<(String, Value)> {
        let events = stream.strip_suffix("\n\n").expect("an event ends with an empty line").split("\n\n");
        let read = |event: &str| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name").to_owned();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert_eq!(data["type"], *name);
            (name, data)
        };
        events.map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{WORDS, facts, scripted, spoken, tokens};
    use super::*;

    const ALL: [Format; 4] = [Format::Chat, Format::Responses, Format::Messages, Format::Ollama];

    #[test]
    fn what_is_said_is_the_script_and_each_token_a_frame() {
        for format in ALL {
            let (frames, said) = tokens(&facts(format, false));
            assert_eq!(said, scripted());
            assert_eq!(frames.len() as u64, WORDS);
            let end = if format == Format::Ollama { "\n" } else { "\n\n" };
            assert!(frames.iter().all(|frame| frame.ends_with(end) && frame.matches(end).count() == 1), "{frames:?}");
        }
    }

    #[test]
    fn what_is_malformed_ends_like_a_frame_and_is_no_json() {
        for format in ALL {
            let frame = format.malformed_frame();
            let data = frame.rsplit_once("data: ").map_or(frame, |(_, data)| data);
            assert!(serde_json::from_str::<Value>(data).is_err() && frame.ends_with('\n'), "{frame}");
            assert_eq!(frame.ends_with("\n\n"), format != Format::Ollama, "{frame}");
            assert!(serde_json::from_str::<Value>(format.malformed_body()).is_err());
        }
    }

    #[test]
    fn whole_replies_are_json_that_says_the_text() {
        for format in ALL {
            let value: Value = serde_json::from_str(&facts(format, false).whole(&spoken(scripted()))).unwrap();
            let text = match format {
                Format::Chat => &value["choices"][0]["message"]["content"],
                Format::Responses => &value["output"][0]["content"][0]["text"],
                Format::Messages => &value["content"][0]["text"],
                Format::Ollama => &value["message"]["content"],
            };
            assert_eq!(*text, *scripted(), "{value}");
        }
    }
}
