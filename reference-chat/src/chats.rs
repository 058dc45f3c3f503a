//! Conversations and their messages, in memory.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use serde_json::{Value, json};

/// Conversations that are kept; the oldest leave.
const KEPT: usize = 20_000;
/// The parent of a conversation's first message.
pub(crate) const NO_PARENT: &str = "00000000-0000-0000-0000-000000000000";

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) text: String,
    pub(crate) by_user: bool,
    /// What went wrong, at the end of the text.
    pub(crate) error: Option<String>,
}

/// One conversation.
pub(crate) struct Conversation {
    user: String,
    messages: Vec<Message>,
    model: String,
    created: SystemTime,
    updated: SystemTime,
}

/// All conversations.
#[derive(Default)]
pub(crate) struct Chats {
    by_id: HashMap<String, Conversation>,
    order: VecDeque<String>,
}

impl Chats {
    /// Adds a message; the first one makes its conversation.
    pub(crate) fn add(&mut self, conversation: &str, user: &str, model: &str, message: Message) {
        let now = SystemTime::now();
        if !self.by_id.contains_key(conversation) {
            self.order.push_back(conversation.to_owned());
            if self.order.len() > KEPT
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_id.remove(&oldest);
            }
        }
        let entry = self.by_id.entry(conversation.to_owned()).or_insert_with(|| Conversation {
            user: user.to_owned(),
            messages: Vec::new(),
            model: model.to_owned(),
            created: now,
            updated: now,
        });
        entry.updated = now;
        entry.messages.push(message);
    }

    /// Whether a conversation is somebody else's.
    pub(crate) fn is_foreign(&self, conversation: &str, user: &str) -> bool {
        self.by_id.get(conversation).is_some_and(|found| found.user != user)
    }

    /// The messages of a conversation of this user.
    pub(crate) fn messages(&self, conversation: &str, user: &str) -> Option<&[Message]> {
        self.by_id.get(conversation).filter(|found| found.user == user).map(|found| found.messages.as_slice())
    }

    /// The thread that ends with a message, oldest first, as the model is told it.
    pub(crate) fn thread(&self, conversation: &str, user: &str, last: &str) -> Vec<Message> {
        self.messages(conversation, user).map_or_else(Vec::new, |messages| walk(messages, last))
    }

    /// What the API tells of a conversation.
    pub(crate) fn shown(&self, id: &str) -> Value {
        let Some(conversation) = self.by_id.get(id) else { return json!({ "conversationId": id }) };
        shown(id, &conversation.user, &conversation.model, conversation.created, conversation.updated)
    }

    /// The newest conversations of a user, a page of them.
    pub(crate) fn page(&self, user: &str) -> Vec<Value> {
        let mine = self.order.iter().rev().filter(|id| self.by_id.get(*id).is_some_and(|found| found.user == user));
        mine.take(25).map(|id| self.shown(id)).collect()
    }
}

/// Of a conversation's messages the thread that ends with one, oldest first.
pub(crate) fn walk(messages: &[Message], last: &str) -> Vec<Message> {
    let by_id: HashMap<&str, &Message> = messages.iter().map(|message| (message.id.as_str(), message)).collect();
    let mut thread = Vec::new();
    let mut next = by_id.get(last);
    // A client may send a circle of parents; a thread is no longer than its conversation.
    while let Some(message) = next.filter(|_| thread.len() < messages.len()) {
        thread.push((*message).clone());
        next = by_id.get(message.parent.as_str());
    }
    thread.reverse();
    thread
}

/// What the API tells of a conversation.
pub(crate) fn shown(id: &str, user: &str, model: &str, created: SystemTime, updated: SystemTime) -> Value {
    json!({
        "_id": id.replace('-', "").get(..24), "conversationId": id, "user": user, "__v": 0,
        "createdAt": time(created), "endpointType": "custom", "files": [], "isArchived": false,
        "model": model, "resendFiles": true, "tags": [], "title": "New Chat",
        "updatedAt": time(updated),
    })
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, parent: &str) -> Message {
        Message { id: id.to_owned(), parent: parent.to_owned(), text: id.to_owned(), by_user: true, error: None }
    }

    #[test]
    fn a_thread_follows_parents_and_ends_in_a_circle() {
        let mut chats = Chats::default();
        for (id, parent) in [("a", NO_PARENT), ("b", "a"), ("c", "b"), ("x", "a"), ("p", "q"), ("q", "p")] {
            chats.add("one", "me", "m", message(id, parent));
        }
        let ids = |last| chats.thread("one", "me", last).iter().map(|message| message.id.clone()).collect::<String>();
        assert_eq!(ids("c"), "abc");
        assert_eq!(ids("x"), "ax");
        assert!(ids("p").len() <= 6);
        assert!(chats.thread("one", "you", "c").is_empty(), "somebody else's");
        assert_eq!(chats.page("me").len(), 1);
    }
}
