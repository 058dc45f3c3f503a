//! One event of a LibreChat stream, read without I/O.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::driver::exchange::Failure;
use crate::driver::stream::{Reader, Said};
use crate::net::sse::Event;
use crate::record::{Checked, Outcome};
use crate::secret::Secret;
use crate::trace::Check;

/// What a turn's stream has told so far. Its text is counted, and checked where it is known; it is not kept.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The words that arrived, delta by delta.
    words: Words,
    /// The check of what arrived.
    check: Option<Check>,
    /// Tokens that arrived, by that check.
    tokens: u64,
    /// The text itself, for tests of the decoding.
    pub(super) kept: Option<String>,
    /// The conversation, where the stream names it.
    pub(super) conversation: Option<String>,
    /// What the terminal event said.
    pub(super) ending: Option<Ending>,
}

/// The terminal event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    /// The answer's id: the parent of what the user says next.
    pub(super) message_id: String,
    /// The whole text, whatever had arrived.
    pub(super) text: String,
    /// What went wrong on the deployment's side.
    pub(super) error: Option<String>,
    /// Whether the turn was cancelled.
    pub(super) aborted: bool,
}

/// Counts words, whatever pieces they come in.
#[derive(Debug, Clone, Copy, Default)]
struct Words {
    count: u64,
    inside: bool,
}

impl Words {
    fn of(text: &str) -> Self {
        let mut words = Self::default();
        words.feed(text);
        words
    }

    fn feed(&mut self, text: &str) {
        for character in text.chars() {
            let inside = !character.is_whitespace();
            self.count += u64::from(inside && !self.inside);
            self.inside = inside;
        }
    }
}

impl Reply {
    /// A reply that is checked, where there is a check.
    pub(super) fn new(check: Option<Check>) -> Self {
        Self { check, ..Self::default() }
    }

    /// Words of the whole text that no delta brought: lost on the way to this stream, though a
    /// reload of the page would show them.
    pub(super) fn late(&self) -> u64 {
        let whole = self.ending.as_ref().map_or(0, |ending| Words::of(&ending.text).count);
        whole.saturating_sub(self.words.count)
    }

    /// What the check has found, where there is one; `whole` tells whether the reply's end must have come.
    ///
    /// Tokens that no delta brought, though the whole text has them, came late and are no flaw. A text that
    /// came right and is told wrong at its end has the flaws of that.
    pub(super) fn checked(&mut self, whole: bool, secrets: impl FnOnce() -> Vec<Secret>) -> Option<Checked> {
        let check = self.check.take()?;
        let told = self.ending.as_ref().map(|ending| ending.text.as_str()).filter(|text| !text.is_empty());
        let mut again = check.again();
        again.feed(told.unwrap_or_default());
        let secrets = if check.is_astray() || again.is_astray() { secrets() } else { Vec::new() };
        let deltas = check.finish(whole, &secrets);
        if told.is_none() {
            return Some(deltas);
        }
        let told = again.finish(whole, &secrets);
        if deltas.flaws.total() == 0 {
            return Some(if told.flaws.total() > 0 { told } else { deltas });
        }
        if deltas.flaws.total() == deltas.flaws.lost && told.flaws.total() == 0 {
            // Of an end that did not come the check knows only that something is missing.
            let behind = told.position.saturating_sub(deltas.position);
            let late = if deltas.ended || !whole { deltas.flaws.lost } else { deltas.flaws.lost - 1 + behind };
            return Some(Checked { late, ..told });
        }
        Some(deltas)
    }

    /// Text arrived; gives the tokens that began with it.
    fn arrive(&mut self, text: &str) -> u64 {
        if let Some(kept) = &mut self.kept {
            kept.push_str(text);
        }
        let tokens = match &mut self.check {
            Some(check) => check.feed(text),
            // Words are counted only where nobody knows the tokens.
            None => {
                self.words.feed(text);
                1
            }
        };
        self.tokens += tokens;
        tokens
    }
}

impl Reader for Reply {
    const END: &'static str = "a `final` event";
    // A title or usage may come late.
    const STRICT: bool = false;

    fn read(&mut self, event: &Event<'_>) -> Result<Said, Failure> {
        if event.name == b"error" {
            return Err(refusal(Outcome::ErrorEvent, event.data));
        }
        let frame: Frame<'_> = serde_json::from_slice(event.data).map_err(|error| {
            let text = String::from_utf8_lossy(event.data);
            Failure::new(Outcome::Protocol, format!("{error} in the event: {text}"))
        })?;
        self.take(frame)
    }
}

impl Reply {
    fn take(&mut self, frame: Frame<'_>) -> Result<Said, Failure> {
        match (frame.event.as_deref(), frame.data) {
            (Some("on_message_delta"), Some(data)) => return Ok(self.delta(data)),
            (Some(_), _) => return Ok(Said::Other),
            (None, _) => {}
        }
        if frame.last {
            self.ending = Some(ending(&frame)?);
            return Ok(Said::Done(0));
        }
        if let (true, Some(state)) = (frame.sync, frame.resume_state) {
            return self.resume(state, frame.pending_events.unwrap_or_default());
        }
        if let Some(message) = frame.message
            && let Ok(Message { conversation_id: Some(id), .. }) = serde_json::from_str(message.get())
        {
            self.conversation = Some(id.0.into_owned());
        }
        if let Some(error) = frame.error.filter(|error| !matches!(error.get(), "null" | "false" | "\"\"")) {
            return Err(refusal(Outcome::ErrorEvent, error.get().as_bytes()));
        }
        Ok(Said::Other)
    }

    fn delta(&mut self, data: &RawValue) -> Said {
        // A delta of another form carries no text; a later version may send such.
        let Ok(data) = serde_json::from_str::<DeltaData<'_>>(data.get()) else { return Said::Other };
        let mut tokens = 0;
        for part in data.delta.content {
            if let Some(text) = part.text() {
                tokens += self.arrive(text);
            }
        }
        if tokens > 0 { Said::Tokens(tokens) } else { Said::Other }
    }

    /// The stream goes on where it broke off: what it sums up replaces what had arrived. What is
    /// new is counted in words, for the summary joins the tokens.
    fn resume(&mut self, state: &RawValue, pending: Vec<Frame<'_>>) -> Result<Said, Failure> {
        let state: ResumeState<'_> = serde_json::from_str(state.get())
            .map_err(|error| Failure::new(Outcome::Protocol, format!("a `sync` event without its state: {error}")))?;
        let text: String = state.aggregated_content.iter().filter_map(Part::text).collect();
        let before = (self.words.count, std::mem::take(&mut self.tokens));
        self.words = Words::default();
        if let Some(check) = &mut self.check {
            check.restart();
        }
        if let Some(kept) = &mut self.kept {
            kept.clear();
        }
        self.arrive(&text);
        let new = if self.check.is_some() {
            self.tokens.saturating_sub(before.1)
        } else {
            self.words.count.saturating_sub(before.0)
        };
        let mut tokens = new;
        for frame in pending {
            match self.take(frame)? {
                Said::Tokens(more) => tokens += more,
                Said::Done(more) => return Ok(Said::Done(tokens + more)),
                Said::Other | Said::Heartbeat => {}
            }
        }
        Ok(if tokens > 0 { Said::Tokens(tokens) } else { Said::Other })
    }
}

/// What a refusal means: the deployment's limiters and bans speak in JSON, as a body of its own
/// or as the text of a chat message. `otherwise` is the outcome of everything else.
pub(super) fn refusal(otherwise: Outcome, body: &[u8]) -> Failure {
    let shown = String::from_utf8_lossy(body).into_owned();
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = ["text", "message", "error"].iter().find_map(|name| said[name].as_str());
    // A refused chat carries the reason as JSON in the text of a message.
    let inner: Value = message.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let kind = inner["type"].as_str().or(said["type"].as_str());
    let banned = otherwise == Outcome::Unauthorized && shown.contains("temporarily banned");
    let outcome = match kind {
        Some("ban") => Outcome::Banned,
        Some("message_limit" | "concurrent") => Outcome::RateLimited,
        _ if banned || message == Some("Illegal request") => Outcome::Banned,
        _ => otherwise,
    };
    let detail = message.map_or(shown.clone(), str::to_owned);
    Failure::new(outcome, detail)
}

fn ending(frame: &Frame<'_>) -> Result<Ending, Failure> {
    let missing = |why: String| Failure::new(Outcome::Protocol, format!("a `final` event without its answer: {why}"));
    let message = frame.response_message.ok_or_else(|| missing("no responseMessage".to_owned()))?;
    let message: Message<'_> = serde_json::from_str(message.get()).map_err(|error| missing(error.to_string()))?;
    let parts = message.content.unwrap_or_default();
    let mut text: String = parts.iter().filter_map(Part::text).collect();
    if text.is_empty() {
        text = message.text.as_deref().unwrap_or_default().to_owned();
    }
    let error = parts.iter().find(|part| part.kind.as_deref() == Some("error"));
    Ok(Ending {
        message_id: message.message_id.as_deref().unwrap_or_default().to_owned(),
        text,
        error: error.map(|part| part.error.map_or_else(|| "an error without a text".to_owned(), plain)),
        aborted: frame.aborted,
    })
}

/// A JSON text as itself, anything else as JSON.
fn plain(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

/// A text, borrowed where it has no escapes; serde borrows no `Option<Cow<str>>`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The parts of an event that are read, borrowed from it.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    event: Option<Text<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(rename = "final", default)]
    last: bool,
    #[serde(default)]
    sync: bool,
    #[serde(default)]
    aborted: bool,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, rename = "responseMessage", default)]
    response_message: Option<&'a RawValue>,
    #[serde(borrow, rename = "resumeState", default)]
    resume_state: Option<&'a RawValue>,
    #[serde(borrow, rename = "pendingEvents", default)]
    pending_events: Option<Vec<Frame<'a>>>,
}

#[derive(Deserialize)]
struct DeltaData<'a> {
    #[serde(borrow)]
    delta: Delta<'a>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Vec<Part<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResumeState<'a> {
    #[serde(borrow, default)]
    aggregated_content: Vec<Part<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(borrow, default)]
    message_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    conversation_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    content: Option<Vec<Part<'a>>>,
}

/// A part of a content: a text, or an error.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl Part<'_> {
    /// The text of a text part, if it has one.
    fn text(&self) -> Option<&str> {
        self.text.as_deref().filter(|text| self.kind.as_deref() == Some("text") && !text.is_empty())
    }
}
