//! Texts with places for values, such as `{"text": "{{prompt}}"}`.
//!
//! A text that is JSON stays JSON whatever is put into it: strings are escaped, and a string that is nothing but one
//! place takes the value as it is, so `"{{messages}}"` becomes a list and a value that is not known yet becomes `null`.
//! In any other text values stand as they are, and an unknown one is empty.

use serde::{Serialize, Serializer};
use serde_json::Value;

/// A text with places for values.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    source: String,
    body: Body,
}

#[derive(Debug, Clone, PartialEq)]
enum Body {
    /// JSON, with places in its strings.
    Json(Node),
    Text(Vec<Part>),
}

/// A piece of JSON.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// Without a place in it.
    Fixed(Value),
    /// A string that is one place.
    Whole(String),
    Text(Vec<Part>),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Fixed(String),
    Place(String),
}

impl Template {
    /// Reads a text; `known` are the names that may stand in its places.
    ///
    /// # Errors
    /// A sentence that says which place is wrong.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        let body = match serde_json::from_str::<Value>(text) {
            Ok(value @ (Value::Object(_) | Value::Array(_) | Value::String(_))) => Body::Json(Node::new(value)?),
            _ => Body::Text(parts(text)?),
        };
        let template = Self { source: text.to_owned(), body };
        for name in template.names() {
            if !known.contains(&name) {
                return Err(mock_llm::unknown("place", name, known.iter().copied()));
            }
        }
        Ok(template)
    }

    /// The text as it is written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names in its places, each as often as it stands there.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        match &self.body {
            Body::Json(node) => node.names(&mut names),
            Body::Text(parts) => names_of(parts, &mut names),
        }
        names
    }

    /// The text with values in its places.
    pub fn fill<'v>(&self, value: &impl Fn(&str) -> Option<&'v Value>) -> String {
        match &self.body {
            Body::Json(node) => node.fill(value).to_string(),
            Body::Text(parts) => filled(parts, value),
        }
    }

    /// The same as JSON, where the text is that.
    pub fn fill_json<'v>(&self, value: &impl Fn(&str) -> Option<&'v Value>) -> Value {
        match &self.body {
            Body::Json(node) => node.fill(value),
            Body::Text(parts) => Value::String(filled(parts, value)),
        }
    }
}

/// The names in its places, for what stands between them may be a secret.
impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl Node {
    fn new(value: Value) -> Result<Self, String> {
        Ok(match value {
            Value::String(text) => match parts(&text)?.as_slice() {
                [Part::Place(name)] => Self::Whole(name.clone()),
                [] | [Part::Fixed(_)] => Self::Fixed(Value::String(text)),
                parts => Self::Text(parts.to_vec()),
            },
            Value::Array(list) => Self::List(list.into_iter().map(Self::new).collect::<Result<_, _>>()?),
            Value::Object(table) => {
                let entry = |(key, value)| Ok((key, Self::new(value)?));
                Self::Table(table.into_iter().map(entry).collect::<Result<_, String>>()?)
            }
            other => Self::Fixed(other),
        })
    }

    fn names<'n>(&'n self, names: &mut Vec<&'n str>) {
        match self {
            Self::Fixed(_) => {}
            Self::Whole(name) => names.push(name),
            Self::Text(parts) => names_of(parts, names),
            Self::List(list) => list.iter().for_each(|node| node.names(names)),
            Self::Table(table) => table.iter().for_each(|(_, node)| node.names(names)),
        }
    }

    fn fill<'v>(&self, value: &impl Fn(&str) -> Option<&'v Value>) -> Value {
        match self {
            Self::Fixed(fixed) => fixed.clone(),
            Self::Whole(name) => value(name).cloned().unwrap_or(Value::Null),
            Self::Text(parts) => Value::String(filled(parts, value)),
            Self::List(list) => list.iter().map(|node| node.fill(value)).collect(),
            Self::Table(table) => {
                Value::Object(table.iter().map(|(key, node)| (key.clone(), node.fill(value))).collect())
            }
        }
    }
}

fn names_of<'n>(parts: &'n [Part], names: &mut Vec<&'n str>) {
    names.extend(parts.iter().filter_map(|part| match part {
        Part::Place(name) => Some(name.as_str()),
        Part::Fixed(_) => None,
    }));
}

fn filled<'v>(parts: &[Part], value: &impl Fn(&str) -> Option<&'v Value>) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Fixed(fixed) => text.push_str(fixed),
            Part::Place(name) => match value(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(plain)) => text.push_str(plain),
                Some(other) => text.push_str(&other.to_string()),
            },
        }
    }
    text
}

/// A text cut at its places.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, behind)) = after.split_once("}}") else {
            return Err(format!("`{{{{{}` has no end; a place is like {{{{prompt}}}}", first(after)));
        };
        let name = name.trim();
        if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-')) {
            return Err(format!("`{{{{{}}}}}` is no place; one is like {{{{prompt}}}}", first(name)));
        }
        if !before.is_empty() {
            parts.push(Part::Fixed(before.to_owned()));
        }
        parts.push(Part::Place(name.to_owned()));
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Fixed(rest.to_owned()));
    }
    Ok(parts)
}

/// The beginning of a text, for a message.
fn first(text: &str) -> String {
    text.chars().take(30).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KNOWN: [&str; 4] = ["prompt", "messages", "conversation_id", "user.email"];

    fn fill(text: &str) -> String {
        let values = [
            ("prompt", json!("say \"hi\"\n")),
            ("messages", json!([{ "role": "user", "content": "x" }])),
            ("user.email", json!("a@b.test")),
        ];
        let value = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        Template::parse(text, &KNOWN).unwrap().fill(&value)
    }

    #[test]
    fn json_stays_json_whatever_is_put_into_it() {
        assert_eq!(fill(r#"{"text": "{{prompt}}", "n": 1}"#), r#"{"n":1,"text":"say \"hi\"\n"}"#);
        assert_eq!(fill(r#"{"text": "<{{ prompt }}>"}"#), r#"{"text":"<say \"hi\"\n>"}"#);
        assert_eq!(fill(r#"["{{messages}}", "{{conversation_id}}"]"#), r#"[[{"content":"x","role":"user"}],null]"#);
    }

    #[test]
    fn another_text_takes_values_as_they_are() {
        assert_eq!(fill("/chat/{{conversation_id}}/x?mail={{user.email}}"), "/chat//x?mail=a@b.test");
        assert_eq!(fill("{{prompt}}"), "say \"hi\"\n");
        assert_eq!(fill("5"), "5");
    }

    #[test]
    fn what_is_told_of_a_text_are_the_names_in_its_places() {
        for text in [r#"{"key": "sk-planted", "text": "{{prompt}}", "by": "<{{user.email}}>"}"#, "sk-planted"] {
            let told = serde_json::to_string(&Template::parse(text, &KNOWN).unwrap()).unwrap();
            assert!(!told.contains("planted"), "{told}");
        }
        let named = Template::parse("a {{prompt}} b {{user.email}}", &KNOWN).unwrap();
        assert_eq!(serde_json::to_value(&named).unwrap(), json!(["prompt", "user.email"]));
    }

    #[test]
    fn a_wrong_place_is_named() {
        for (text, part) in [
            (r#"{"a": "{{promt}}"}"#, "did you mean `prompt`"),
            ("{{prompt", "has no end"),
            ("{{a b}}", "is no place"),
            ("{{}}", "is no place"),
        ] {
            let error = Template::parse(text, &KNOWN).unwrap_err();
            assert!(error.to_lowercase().contains(part), "{error}");
        }
    }
}
