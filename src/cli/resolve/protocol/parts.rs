//! The parts that described protocols share: texts, headers, requests, what replies mean.

use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, header};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::sample;
use crate::cli::resolve::Problems;
use crate::scenario::file::{MatchSection, ReplySection, RequestSection};
use crate::scenario::{API_KEY, Condition, Field, PLACES, Part, ReplyRules, RequestPlan, Source, Template, TokenAt};

/// The methods that a request may have. What answers HEAD or CONNECT is read otherwise.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// Reads the parts of a protocol, and tells what is wrong with them. Where something is, what is read instead is of no
/// use: a scenario with a problem is not run.
pub(super) struct Reading<'r, 'p> {
    /// The names that may stand in places.
    pub(super) known: Vec<&'r str>,
    pub(super) problems: &'r mut Problems<'p>,
}

/// Reads the name of a value that a scenario brings.
pub(super) fn name(name: &str) -> Result<(), String> {
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        return Err(format!("`{name}` is no name: letters, digits, _, - and ."));
    }
    if name == API_KEY || PLACES.contains(&name) || name.starts_with("user.") {
        return Err(format!("{{{{{name}}}}} is something else already; take another name"));
    }
    Ok(())
}

impl Reading<'_, '_> {
    pub(super) fn add(&mut self, path: &str, message: impl Into<String>) {
        self.problems.add(path, message);
    }

    /// A text with places.
    pub(super) fn text(&mut self, path: &str, text: &str) -> Template {
        let read = self.problems.take(path, Template::parse(text, &self.known));
        read.unwrap_or_else(|| Template::parse("", &[]).expect("an empty text has no place"))
    }

    /// The same of a text that must be JSON.
    pub(super) fn json(&mut self, path: &str, text: &str) -> Template {
        if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
            self.add(path, format!("is no JSON ({error}); a place stands in quotes, such as \"{{{{messages}}}}\""));
        }
        self.text(path, text)
    }

    /// The same of a text that is JSON where it looks so.
    pub(super) fn message(&mut self, path: &str, text: &str) -> Template {
        let begins = text.trim_start();
        // A text that begins with a place need not be JSON.
        let is_json = begins.starts_with(['{', '[']) && !begins.starts_with("{{");
        if is_json { self.json(path, text) } else { self.text(path, text) }
    }

    /// A path with places.
    pub(super) fn path(&mut self, path: &str, text: &str) -> Template {
        let read = self.text(path, text);
        let sample = sample();
        let filled = read.fill(&|_: &str| Some(&sample));
        if !text.starts_with('/') {
            self.add(path, format!("`{text}` should begin with /, such as /api/chat"));
        } else if text.contains('#') || filled.parse::<PathAndQuery>().is_err() {
            self.add(path, format!("`{text}` is no path; characters such as spaces are written like %20"));
        }
        read
    }

    /// Headers by name.
    pub(super) fn headers(&mut self, path: &str, section: &BTreeMap<String, String>) -> Vec<(HeaderName, Template)> {
        let mut headers = Vec::new();
        for (name, text) in section {
            let path = format!("{path}.headers.{name}");
            let value = self.text(&path, text);
            let sample = sample();
            let sent = HeaderValue::from_str(&value.fill(&|_: &str| Some(&sample)));
            match (HeaderName::from_bytes(name.as_bytes()), sent) {
                (Ok(name), _) if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(&name) => {
                    self.add(&path, "is told by the request itself");
                }
                (Ok(name), Ok(_)) => headers.push((name, value)),
                _ => self.add(&path, format!("`{name}` has a name or value that cannot be sent")),
            }
        }
        headers
    }

    /// A JSON Pointer.
    pub(super) fn pointer(&mut self, path: &str, text: &str) -> String {
        if !text.is_empty() && !text.starts_with('/') {
            self.add(path, format!("`{text}` is no JSON Pointer: one begins with /, such as /delta/text"));
        }
        text.to_owned()
    }

    /// What messages bring.
    pub(super) fn captures(&mut self, path: &str, section: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let mut captures = Vec::new();
        for (name, text) in section {
            let path = format!("{path}.capture.{name}");
            self.problems.take(&path, self::name(name));
            captures.push((name.clone(), self.pointer(&path, text)));
        }
        captures
    }

    /// What stands for a request that is missing.
    pub(super) fn no_request(&mut self) -> RequestPlan {
        let path = self.text("", "/");
        RequestPlan { method: Method::GET, path, headers: Vec::new(), body: None, capture: Vec::new() }
    }

    /// A request.
    pub(super) fn request(&mut self, path: &str, section: &RequestSection) -> RequestPlan {
        let default = if section.body.is_some() { Method::POST } else { Method::GET };
        let method = section.method.as_ref().and_then(|text| {
            let named = METHODS.into_iter().find(|method| method.eq_ignore_ascii_case(text));
            let method = named.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
            let method = method.ok_or_else(|| mock_llm::unknown("method", text, METHODS.into_iter()));
            self.problems.take(&format!("{path}.method"), method)
        });
        let headers = self.headers(path, &section.headers);
        let kind = section.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let is_json = kind.is_none_or(|(_, kind)| kind.contains("json"));
        let of_body = format!("{path}.body");
        let body = section.body.as_deref();
        let body = body.map(|text| if is_json { self.json(&of_body, text) } else { self.text(&of_body, text) });
        let mut capture = Vec::new();
        for (name, source) in &section.capture {
            let path = format!("{path}.capture.{name}");
            self.problems.take(&path, self::name(name));
            let source = match source.strip_prefix("header:") {
                None => Some(Source::Pointer(self.pointer(&path, source))),
                Some(header) => {
                    let header = HeaderName::from_bytes(header.trim().as_bytes());
                    let header = header.map_err(|_| "no header has such a name".to_owned());
                    self.problems.take(&path, header).map(Source::Header)
                }
            };
            capture.extend(source.map(|source| (name.clone(), source)));
        }
        let path = self.path(&format!("{path}.path"), &section.path);
        RequestPlan { method: method.unwrap_or(default), path, headers, body, capture }
    }

    /// Tells where what is said would not reach the model.
    pub(super) fn reaches(&mut self, names: &[&str], path: &str) {
        if !names.iter().any(|name| matches!(*name, "prompt" | "messages")) {
            self.add(path, "what a user says must reach the model: {{prompt}} or {{messages}} should stand in it");
        }
    }

    /// What messages mean; `has_body` tells whether a body can end.
    pub(super) fn reply(&mut self, path: &str, section: &ReplySection, has_body: bool) -> ReplyRules {
        let at = |name: &str| format!("{path}.{name}");
        let token = match section.token.as_deref() {
            Some("text") => TokenAt::Text,
            Some(pointer) => TokenAt::Pointer(self.pointer(&at("token"), pointer)),
            None => {
                self.add(&at("token"), "is missing: where a message has its text, such as /delta, or text");
                TokenAt::Text
            }
        };
        let end_with_body = section.end_with_body.unwrap_or(false);
        if end_with_body && !has_body {
            self.add(&at("end_with_body"), "is for the profile sse: a socket has no body");
        } else if section.end.is_none() && !end_with_body {
            let message = "is missing: which message ends the turn, such as \"[DONE]\" or { \"/type\" = \"done\" }";
            self.add(&at("end"), message);
        }
        if section.error_text.is_some() && section.error.is_none() && section.rate_limited.is_none() {
            self.add(&at("error_text"), "wants `error`: which message it stands in");
        }
        if section.retry_after.is_some() && section.rate_limited.is_none() {
            self.add(&at("retry_after"), "wants `rate_limited`: which message it stands in");
        }
        let mut optional = |name: &str, section: &Option<MatchSection>| {
            section.as_ref().map(|section| self.condition(&format!("{path}.{name}"), section))
        };
        let (token_when, end) = (optional("token_when", &section.token_when), optional("end", &section.end));
        let (error, rate_limited) =
            (optional("error", &section.error), optional("rate_limited", &section.rate_limited));
        let heartbeat = optional("heartbeat", &section.heartbeat);
        let mut pointer = |name: &str, text: &Option<String>| text.as_deref().map(|text| self.pointer(&at(name), text));
        let error_text = pointer("error_text", &section.error_text);
        let retry_after = pointer("retry_after", &section.retry_after);
        let capture = self.captures(path, &section.capture);
        ReplyRules {
            token,
            token_when,
            end,
            end_with_body,
            error,
            error_text,
            rate_limited,
            retry_after,
            heartbeat,
            capture,
        }
    }

    /// A condition on messages.
    pub(super) fn condition(&mut self, path: &str, section: &MatchSection) -> Condition {
        match section {
            MatchSection::Text(text) => Condition::Text(text.trim().to_owned()),
            MatchSection::Fields(fields) => {
                if fields.is_empty() {
                    self.add(path, "says nothing: a JSON Pointer and a value, such as { \"/type\" = \"done\" }");
                }
                let each = fields.iter();
                Condition::All(each.map(|(at, value)| self.field(&format!("{path}.{at}"), at, value)).collect())
            }
            MatchSection::Any(list) => {
                if list.is_empty() {
                    self.add(path, "is an empty list: no message is meant");
                }
                let each = list.iter().enumerate();
                Condition::Any(each.map(|(index, one)| self.condition(&format!("{path}[{index}]"), one)).collect())
            }
        }
    }

    fn field(&mut self, path: &str, at: &str, value: &Value) -> Field {
        let any = value.as_str() == Some("*");
        let at = if at == "event" {
            if !value.is_string() {
                self.add(path, "is no name of an event");
            }
            Part::Event
        } else {
            Part::Pointer(self.pointer(path, at))
        };
        Field { at, is: (!any).then(|| value.clone()) }
    }
}
