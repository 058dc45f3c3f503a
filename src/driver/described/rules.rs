//! What the messages of a reply mean, by the rules of a scenario.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::values::{Scope, Values};
use crate::driver::Prompt;
use crate::driver::exchange::Failure;
use crate::driver::stream::{Reader, Said};
use crate::net::sse::Event;
use crate::record::Outcome;
use crate::scenario::{Condition, Part, ReplyRules, TokenAt};
use crate::trace::Check;

/// The longest wait that a rate limit may ask for.
const LONGEST_WAIT: f64 = 3_600.0;

/// Listens to the messages of one reply.
pub(in crate::driver) struct Listener {
    rules: Arc<ReplyRules>,
    /// The reply's text, where the conversation goes on.
    pub(in crate::driver) reply: Option<String>,
    pub(in crate::driver) check: Option<Check>,
    /// What messages brought for later places.
    captured: Vec<(String, Value)>,
    /// For how long the target wants to be left alone.
    pub(in crate::driver) retry_after: Option<Duration>,
    /// Whether the turn has ended as turns do that nobody cancels.
    pub(in crate::driver) ended_as_usual: bool,
}

/// A message: text, and JSON where it is that.
struct Message<'m> {
    event: &'m str,
    text: &'m str,
    json: Option<Cow<'m, Value>>,
}

impl Listener {
    /// For the reply to a prompt; `keeps` tells whether its text is wanted afterwards.
    pub(in crate::driver) fn new(rules: &Arc<ReplyRules>, prompt: &Prompt, keeps: bool) -> Self {
        Self {
            rules: Arc::clone(rules),
            reply: (keeps && prompt.continues).then(String::new),
            check: prompt.check(),
            captured: Vec::new(),
            retry_after: None,
            ended_as_usual: false,
        }
    }

    /// Reads one message: its event's name, where it has one, and its bytes.
    pub(in crate::driver) fn hear(&mut self, event: &[u8], data: &[u8]) -> Result<Said, Failure> {
        let text = std::str::from_utf8(data)
            .map_err(|_| Failure::new(Outcome::Protocol, "a message that is no UTF-8 text"))?;
        let json = serde_json::from_str(text).ok().map(Cow::Owned);
        self.follow(&Message { event: std::str::from_utf8(event).unwrap_or_default(), text, json })
    }

    /// The same of a message that is JSON already.
    pub(in crate::driver) fn hear_json(&mut self, event: &str, json: &Value) -> Result<Said, Failure> {
        self.follow(&Message { event, text: json.as_str().unwrap_or_default(), json: Some(Cow::Borrowed(json)) })
    }

    /// Gives what messages brought into a user's values.
    pub(in crate::driver) fn give(&mut self, values: &mut Values) {
        for (name, value) in self.captured.drain(..) {
            values.keep(Scope::Conversation, &name, value);
        }
    }

    /// A user's values with what messages have brought so far, for what is sent in the middle of a reply.
    pub(in crate::driver) fn lent(&self, values: &Values) -> Values {
        let mut lent = values.clone();
        for (name, value) in &self.captured {
            lent.keep(Scope::Conversation, name, value.clone());
        }
        lent
    }

    fn follow(&mut self, message: &Message<'_>) -> Result<Said, Failure> {
        let rules = Arc::clone(&self.rules);
        let is = |condition: &Option<Condition>| condition.as_ref().is_some_and(|condition| message.meets(condition));
        if is(&rules.heartbeat) {
            return Ok(Said::Heartbeat);
        }
        for (name, pointer) in &rules.capture {
            if let Some(value) = message.at(pointer).filter(|value| !value.is_null()) {
                match self.captured.iter_mut().find(|(known, _)| known == name) {
                    // Every token may bring the same one again.
                    Some((_, kept)) if kept == value => {}
                    Some((_, kept)) => kept.clone_from(value),
                    None => self.captured.push((name.clone(), value.clone())),
                }
            }
        }
        if is(&rules.rate_limited) {
            let seconds = rules.retry_after.as_deref().and_then(|pointer| message.at(pointer)).and_then(seconds);
            self.retry_after = seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_WAIT)));
            return Err(Failure::new(Outcome::RateLimited, message.why(&rules)));
        }
        if is(&rules.error) {
            return Err(Failure::new(Outcome::ErrorEvent, message.why(&rules)));
        }
        let ends = is(&rules.end);
        if ends {
            self.ended_as_usual = usual_end(&rules).is_some_and(|end| message.meets(end));
        }
        let tokens = if rules.token_when.as_ref().is_none_or(|when| message.meets(when)) {
            self.token(&rules.token, ends, message)?
        } else {
            0
        };
        Ok(match (ends, tokens) {
            (true, tokens) => Said::Done(tokens),
            (false, 0) => Said::Other,
            (false, tokens) => Said::Tokens(tokens),
        })
    }

    /// The tokens of a message; none where it has no text or an empty one.
    fn token(&mut self, at: &TokenAt, ends: bool, message: &Message<'_>) -> Result<u64, Failure> {
        let text = match at {
            // A text that ends the turn is no token of it.
            TokenAt::Text if ends => "",
            TokenAt::Text => message.text,
            TokenAt::Pointer(pointer) => match (&message.json, message.at(pointer)) {
                (None, _) if !ends => {
                    let detail = format!("a message that is no JSON: {}", message.text);
                    return Err(Failure::new(Outcome::Protocol, detail));
                }
                (_, Some(Value::String(text))) => text.as_str(),
                _ => "",
            },
        };
        if text.is_empty() {
            return Ok(0);
        }
        if let Some(reply) = &mut self.reply {
            reply.push_str(text);
        }
        Ok(self.check.as_mut().map_or(1, |check| check.feed(text)))
    }
}

impl Reader for Listener {
    const END: &'static str = "the message that ends it";
    const STRICT: bool = false;
    const ERROR_ENDS: bool = true;

    fn read(&mut self, event: &Event<'_>) -> Result<Said, Failure> {
        self.hear(event.name, event.data)
    }

    fn ends_with_body(&self) -> bool {
        self.rules.end_with_body
    }
}

impl Message<'_> {
    fn at(&self, pointer: &str) -> Option<&Value> {
        self.json.as_ref()?.pointer(pointer)
    }

    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Text(text) => self.text.trim() == text,
            Condition::All(fields) => fields.iter().all(|field| match &field.at {
                Part::Event => match &field.is {
                    Some(name) => name.as_str() == Some(self.event),
                    None => !self.event.is_empty(),
                },
                Part::Pointer(pointer) => match (self.at(pointer), &field.is) {
                    (Some(value), Some(wanted)) => value == wanted,
                    (Some(value), None) => !value.is_null(),
                    (None, _) => false,
                },
            }),
            Condition::Any(conditions) => conditions.iter().any(|condition| self.meets(condition)),
        }
    }

    /// What it says about a failure: the text that the rules name, else all of it.
    fn why(&self, rules: &ReplyRules) -> String {
        let named = rules.error_text.as_deref().and_then(|pointer| self.at(pointer)).filter(|value| !value.is_null());
        match (named, &self.json) {
            (Some(Value::String(text)), _) => text.clone(),
            (Some(value), _) => value.to_string(),
            (None, Some(json)) if self.text.is_empty() => json.to_string(),
            (None, _) => self.text.to_owned(),
        }
    }
}

/// How turns end that nobody cancels: the first where several messages can end one, for what answers a cancel comes
/// behind it.
fn usual_end(rules: &ReplyRules) -> Option<&Condition> {
    match &rules.end {
        Some(Condition::Any(ends)) => ends.first(),
        end => end.as_ref(),
    }
}

/// Whether a message that is not part of a reply meets a condition, and its JSON then.
pub(in crate::driver) fn meets(condition: &Condition, event: &str, text: &str) -> Option<Value> {
    let json: Option<Value> = serde_json::from_str(text).ok();
    let message = Message { event, text, json: json.as_ref().map(Cow::Borrowed) };
    message.meets(condition).then(|| json.clone().unwrap_or_default())
}

/// A number of seconds, as a number or a text.
fn seconds(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scenario::Field;

    fn is(pointer: &str, value: Value) -> Condition {
        Condition::All(vec![Field { at: Part::Pointer(pointer.to_owned()), is: Some(value) }])
    }

    fn rules() -> ReplyRules {
        ReplyRules {
            token: TokenAt::Pointer("/delta".to_owned()),
            token_when: Some(is("/type", json!("token"))),
            end: Some(Condition::Any(vec![is("/type", json!("done")), Condition::Text("[DONE]".to_owned())])),
            end_with_body: false,
            error: Some(is("/type", json!("error"))),
            error_text: Some("/message".to_owned()),
            rate_limited: Some(is("/type", json!("slow_down"))),
            retry_after: Some("/seconds".to_owned()),
            heartbeat: Some(is("/type", json!("beat"))),
            capture: vec![("id".to_owned(), "/id".to_owned())],
        }
    }

    fn listener(rules: ReplyRules) -> Listener {
        let prompt = Prompt { text: String::new(), opens: true, continues: true, disturb: None, trace: None };
        Listener::new(&Arc::new(rules), &prompt, true)
    }

    fn hear(listener: &mut Listener, text: &str) -> Result<Said, (Outcome, String)> {
        listener.hear(b"", text.as_bytes()).map_err(|failure| (failure.outcome, failure.detail))
    }

    #[test]
    fn messages_mean_what_the_rules_say() {
        let mut one = listener(rules());
        assert_eq!(hear(&mut one, r#"{"type":"beat","id":"not kept"}"#), Ok(Said::Heartbeat));
        assert_eq!(hear(&mut one, r#"{"type":"token","delta":" a"}"#), Ok(Said::Tokens(1)));
        assert_eq!(hear(&mut one, r#"{"type":"token","delta":""}"#), Ok(Said::Other));
        assert_eq!(hear(&mut one, r#"{"type":"thought","delta":"hm"}"#), Ok(Said::Other));
        assert_eq!(hear(&mut one, r#"{"type":"done","id":"c1"}"#), Ok(Said::Done(0)));
        assert!(one.ended_as_usual);
        assert_eq!(hear(&mut one, " [DONE]\n"), Ok(Said::Done(0)));
        assert!(!one.ended_as_usual, "a cancelled turn may end so");
        assert_eq!(one.reply.as_deref(), Some(" a"));
        let mut values = Values::new(&Arc::default(), 0, None, false);
        one.give(&mut values);
        assert_eq!(values.get("id"), Some(&json!("c1")));
    }

    #[test]
    fn failures_say_why() {
        let mut one = listener(rules());
        let error = hear(&mut one, r#"{"type":"error","message":"no"}"#);
        assert_eq!(error, Err((Outcome::ErrorEvent, "no".to_owned())));
        let limited = hear(&mut one, r#"{"type":"slow_down","seconds":"2"}"#).unwrap_err();
        assert_eq!((limited.0, one.retry_after), (Outcome::RateLimited, Some(Duration::from_secs(2))));
    }

    #[test]
    fn what_is_no_json_is_told_where_json_is_read() {
        let mut every = listener(ReplyRules { token_when: None, ..rules() });
        assert_eq!(hear(&mut every, "<html>").unwrap_err().0, Outcome::Protocol);
        assert_eq!(every.hear(b"", b"\xff").unwrap_err().outcome, Outcome::Protocol);
    }

    #[test]
    fn plain_text_is_a_token_unless_it_ends_the_turn() {
        let plain = ReplyRules { token: TokenAt::Text, token_when: None, ..rules() };
        let mut one = listener(plain);
        assert_eq!(hear(&mut one, " word"), Ok(Said::Tokens(1)));
        assert_eq!(hear(&mut one, "[DONE]"), Ok(Said::Done(0)));
        assert_eq!(one.reply.as_deref(), Some(" word"));
    }

    #[test]
    fn events_have_names() {
        let named = |name: &str| Condition::All(vec![Field { at: Part::Event, is: Some(json!(name)) }]);
        let by_name = ReplyRules {
            token: TokenAt::Pointer("/0/text".to_owned()),
            token_when: Some(named("token")),
            end: Some(named("done")),
            ..rules()
        };
        let mut one = listener(by_name);
        assert_eq!(one.hear_json("token", &json!([{ "text": " a" }])).ok(), Some(Said::Tokens(1)));
        assert_eq!(one.hear_json("typing", &json!([{ "text": " a" }])).ok(), Some(Said::Other));
        assert_eq!(one.hear_json("done", &json!([])).ok(), Some(Said::Done(0)));
    }
}
