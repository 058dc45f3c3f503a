//! What stands in the places of a user's texts, such as `{{prompt}}`.
//!
//! A value is there for a while: what the scenario and the account give for good, what a login or an opened socket
//! brings for a visit, what a reply brings for its conversation, what is said for its turn. The narrowest one counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::account::Credentials;
use crate::driver::Prompt;
use crate::driver::exchange::Failure;
use crate::record::Outcome;
use crate::scenario::Template;

/// What has a meaning in a URL: all but the unreserved characters (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Values by name.
type Named = BTreeMap<String, Value>;

/// For how long a captured value is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) enum Scope {
    /// Until the user leaves.
    Visit,
    /// Until another conversation is opened.
    Conversation,
}

/// The values of one user.
#[derive(Debug, Clone)]
pub(in crate::driver) struct Values {
    /// The same for everybody.
    common: Arc<Named>,
    user: Named,
    visit: Named,
    conversation: Named,
    turn: Named,
    /// What was said so far in the conversation, as messages with `role` and `content`; kept where a text wants it.
    messages: Option<Vec<Value>>,
    turns: u64,
}

impl Values {
    /// The values of user number `user`; `keeps_messages` tells whether a text wants the conversation so far.
    pub(in crate::driver) fn new(
        common: &Arc<Named>,
        user: u32,
        account: Option<&Credentials>,
        keeps_messages: bool,
    ) -> Self {
        let mut own = Named::from([("user.number".to_owned(), json!(user))]);
        match account {
            Some(Credentials::Password { email, password }) => {
                own.insert("user.email".to_owned(), json!(email));
                own.insert("user.password".to_owned(), json!(password.expose()));
            }
            Some(Credentials::Bearer(token)) => {
                own.insert("user.token".to_owned(), json!(token.expose()));
            }
            Some(Credentials::Cookies(cookies)) => {
                own.insert("user.cookie".to_owned(), json!(cookies.expose()));
            }
            Some(Credentials::Minted { email, .. }) => {
                own.insert("user.email".to_owned(), json!(email));
            }
            None => {
                own.insert("user.email".to_owned(), json!(format!("user{user}@capacity-check.test")));
            }
        }
        Self {
            common: Arc::clone(common),
            user: own,
            visit: Named::new(),
            conversation: Named::new(),
            turn: Named::new(),
            messages: keeps_messages.then(Vec::new),
            turns: 0,
        }
    }

    /// The user comes anew.
    pub(in crate::driver) fn begin_visit(&mut self) {
        self.visit.clear();
        self.begin_conversation();
    }

    /// Another conversation begins.
    pub(in crate::driver) fn begin_conversation(&mut self) {
        self.conversation.clear();
        if let Some(messages) = &mut self.messages {
            messages.clear();
        }
    }

    /// The user says something.
    pub(in crate::driver) fn begin_turn(&mut self, prompt: &Prompt) {
        if prompt.opens {
            self.begin_conversation();
        }
        self.turn.clear();
        self.turn.insert("prompt".to_owned(), json!(prompt.text));
        self.turn.insert("uuid".to_owned(), json!(Uuid::new_v4().to_string()));
        self.turn.insert("turn".to_owned(), json!(self.turns));
        self.received(0);
        self.turns += 1;
        if let Some(messages) = &mut self.messages {
            messages.push(json!({ "role": "user", "content": prompt.text }));
            self.turn.insert("messages".to_owned(), json!(messages));
        }
    }

    /// So many tokens of the reply have come.
    pub(in crate::driver) fn received(&mut self, tokens: u64) {
        self.turn.insert("received".to_owned(), json!(tokens));
    }

    /// The turn has ended, with a reply or without.
    pub(in crate::driver) fn end_turn(&mut self, reply: Option<String>) {
        if let Some(messages) = &mut self.messages {
            match reply {
                Some(reply) => messages.push(json!({ "role": "assistant", "content": reply })),
                // What was not answered was not said: many models refuse two user messages in a row.
                None => {
                    messages.pop();
                }
            }
        }
    }

    /// Keeps a value that an answer brought.
    pub(in crate::driver) fn keep(&mut self, scope: Scope, name: &str, value: Value) {
        let named = match scope {
            Scope::Visit => &mut self.visit,
            Scope::Conversation => &mut self.conversation,
        };
        named.insert(name.to_owned(), value);
    }

    /// The value of a name.
    pub(in crate::driver) fn get(&self, name: &str) -> Option<&Value> {
        [&self.turn, &self.conversation, &self.visit, &self.user, &*self.common]
            .into_iter()
            .find_map(|named| named.get(name))
    }

    /// The texts that this visit has brought, with their names.
    pub(in crate::driver) fn of_the_visit(&self) -> impl Iterator<Item = (&str, &str)> {
        self.visit.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// A text with these values in its places.
    pub(in crate::driver) fn fill(&self, template: &Template) -> String {
        template.fill(&|name: &str| self.get(name))
    }

    /// The same of a path or query: what is put into it stays one part of it.
    pub(in crate::driver) fn fill_path(&self, template: &Template) -> String {
        let encoded = |value: &Value| match value {
            Value::Null => Value::Null,
            Value::String(text) => Value::String(percent_encoded(text)),
            other => Value::String(percent_encoded(&other.to_string())),
        };
        let names = template.names().into_iter();
        let values: Named = names.filter_map(|name| Some((name.to_owned(), encoded(self.get(name)?)))).collect();
        template.fill(&|name: &str| values.get(name))
    }

    /// The same as JSON.
    pub(in crate::driver) fn fill_json(&self, template: &Template) -> Value {
        template.fill_json(&|name: &str| self.get(name))
    }

    /// Headers with those of a scenario, none of which is shown anywhere.
    pub(in crate::driver) fn fill_headers(
        &self,
        headers: &HeaderMap,
        added: &[(HeaderName, Template)],
    ) -> Result<HeaderMap, Failure> {
        let mut headers = headers.clone();
        for (name, text) in added {
            let Ok(mut value) = HeaderValue::from_str(&self.fill(text)) else {
                let detail = format!("the header `{name}` has a value that cannot be sent");
                return Err(Failure::new(Outcome::Protocol, detail));
            };
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }
}

/// A text as one part of a path or query.
pub(in crate::driver) fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_one_part_of_a_path() {
        let mut values = Values::new(&Arc::default(), 3, None, false);
        values.keep(Scope::Visit, "id", json!("a/b?c=d&e f%é"));
        let known = ["id", "user.number", "nothing"];
        let template = Template::parse("/chat/{{id}}?user={{user.number}}&x={{nothing}}", &known).unwrap();
        assert_eq!(values.fill_path(&template), "/chat/a%2Fb%3Fc%3Dd%26e%20f%25%C3%A9?user=3&x=");
    }

    #[test]
    fn what_was_received_counts_from_the_turns_beginning() {
        let mut values = Values::new(&Arc::default(), 0, None, false);
        values.begin_turn(&prompt("hi", true));
        values.received(5);
        assert_eq!(values.get("received"), Some(&json!(5)));
        values.begin_turn(&prompt("hi", false));
        assert_eq!(values.get("received"), Some(&json!(0)));
    }

    fn prompt(text: &str, opens: bool) -> Prompt {
        Prompt { text: text.to_owned(), opens, continues: true, disturb: None, trace: None }
    }

    #[test]
    fn the_narrowest_value_counts_and_goes_away_with_its_scope() {
        let common = Arc::new(Named::from([("model".to_owned(), json!("m")), ("id".to_owned(), json!("common"))]));
        let mut values = Values::new(&common, 7, None, false);
        assert_eq!((values.get("model"), values.get("user.number")), (Some(&json!("m")), Some(&json!(7))));
        values.keep(Scope::Visit, "id", json!("visit"));
        values.keep(Scope::Conversation, "id", json!("conversation"));
        assert_eq!(values.get("id"), Some(&json!("conversation")));
        values.begin_turn(&prompt("hi", false));
        assert_eq!(values.get("id"), Some(&json!("conversation")));
        values.begin_turn(&prompt("hi", true));
        assert_eq!((values.get("id"), values.get("prompt")), (Some(&json!("visit")), Some(&json!("hi"))));
        values.begin_visit();
        assert_eq!(values.get("id"), Some(&json!("common")));
        assert_eq!(values.get("messages"), None);
    }

    #[test]
    fn a_conversation_keeps_what_was_answered() {
        let mut values = Values::new(&Arc::default(), 0, None, true);
        values.begin_turn(&prompt("a", true));
        values.end_turn(Some("b".to_owned()));
        values.begin_turn(&prompt("lost", false));
        values.end_turn(None);
        values.begin_turn(&prompt("c", false));
        let said: Vec<_> = values
            .get("messages")
            .and_then(Value::as_array)
            .unwrap()
            .iter()
            .map(|said| said["content"].clone())
            .collect();
        assert_eq!(said, ["a", "b", "c"]);
        let first = values.get("uuid").cloned();
        values.begin_turn(&prompt("d", true));
        assert_eq!(values.get("messages"), Some(&json!([{ "role": "user", "content": "d" }])));
        assert_ne!(values.get("uuid").cloned(), first);
    }
}
