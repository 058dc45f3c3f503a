//! What is kept in MongoDB, in the collections and with the fields that LibreChat has.

use std::time::{Duration, SystemTime};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use serde_json::Value;

use super::StoreError;
use super::mongo::Mongo;
use super::ops::Op;
use crate::accounts::User;
use crate::archive::Exchange;
use crate::chats::{Message, shown};
use crate::limits::Who;

/// A page of conversations.
const PAGE: i64 = 25;
/// The server's code for a document that is there already.
const DUPLICATE: i32 = 11_000;

impl Mongo {
    /// One document, as an operation of its own.
    async fn one(&self, collection: &str, filter: Document) -> Result<Option<Document>, StoreError> {
        let documents = self.documents(collection);
        self.timed(documents.find_one(filter)).await
    }

    /// All documents that a filter finds, sorted.
    async fn all(
        &self,
        collection: &str,
        filter: Document,
        sort: Document,
        limit: i64,
    ) -> Result<Vec<Document>, StoreError> {
        let documents = self.documents(collection);
        let read = async {
            let mut cursor = documents.find(filter).sort(sort).limit(limit).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(cursor.deserialize_current()?);
            }
            Ok::<_, Error>(found)
        };
        self.timed(read).await
    }

    async fn upsert(&self, collection: &str, filter: Document, update: Document) -> Result<(), StoreError> {
        let documents = self.documents(collection);
        self.timed(documents.update_one(filter, update).upsert(true)).await.map(drop)
    }

    async fn insert(&self, collection: &str, document: Document) -> Result<(), StoreError> {
        let documents = self.documents(collection);
        self.timed(documents.insert_one(document)).await.map(drop)
    }

    /// A user by id.
    pub(crate) async fn user(&self, id: &str) -> Result<Option<User>, StoreError> {
        Ok(self.one("users", doc! { "_id": user_key(id) }).await?.as_ref().map(user_of))
    }

    /// A user by address.
    pub(crate) async fn user_by_email(&self, email: &str) -> Result<Option<User>, StoreError> {
        Ok(self.one("users", doc! { "email": email }).await?.as_ref().map(user_of))
    }

    /// Whether there is any user yet.
    pub(crate) async fn has_users(&self) -> Result<bool, StoreError> {
        Ok(self.one("users", doc! {}).await?.is_some())
    }

    /// Adds a user who is not there yet. One of another id who has the address already stays: then
    /// it is that one whom others find by it.
    pub(crate) async fn add_user(&self, user: &User) -> Result<(), StoreError> {
        let now = DateTime::now();
        let fresh = |email: &str| {
            doc! { "$setOnInsert": {
                "name": &user.name, "username": &user.username, "email": email, "emailVerified": true,
                "password": user.password.clone(), "provider": "local",
                "role": if user.admin { "ADMIN" } else { "USER" }, "plugins": [], "twoFactorEnabled": false,
                "termsAccepted": true, "createdAt": now, "updatedAt": now, "__v": 0,
            } }
        };
        let users = self.documents("users");
        let key = doc! { "_id": user_key(&user.id) };
        let added = self.measured(users.update_one(key.clone(), fresh(&user.email)).upsert(true)).await;
        match added {
            Ok(_) => Ok(()),
            // The address is another's, or the same user was added by two requests at once.
            Err(error) if is_duplicate(&error) => {
                let email = format!("{}@reference.invalid", user.id);
                self.timed(users.update_one(key, fresh(&email)).upsert(true)).await.map(drop)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Whether somebody is banned.
    pub(crate) async fn is_banned(&self, who: &Who) -> Result<bool, StoreError> {
        let found = self.one("logs", doc! { "key": ban_key(who) }).await?;
        let until = found.and_then(|found| found.get_datetime("expiresAt").ok().copied());
        Ok(until.is_some_and(|until| until > DateTime::now()))
    }

    /// Bans somebody for a while.
    pub(crate) async fn ban(&self, who: &Who, lasts: Duration) -> Result<(), StoreError> {
        let until = DateTime::from_system_time(SystemTime::now() + lasts);
        let value = doc! { "type": "ban", "expiresAt": until };
        let update = doc! { "$set": { "value": value, "expiresAt": until } };
        self.upsert("logs", doc! { "key": ban_key(who) }, update).await
    }

    /// Whose a conversation is.
    pub(crate) async fn owner(&self, conversation: &str) -> Result<Option<String>, StoreError> {
        let found = self.one("conversations", doc! { "conversationId": conversation }).await?;
        Ok(found.and_then(|found| Some(found.get_str("user").ok()?.to_owned())))
    }

    /// The messages of a conversation of this user, oldest first.
    pub(crate) async fn messages(&self, conversation: &str, user: &str) -> Result<Vec<Message>, StoreError> {
        let filter = doc! { "conversationId": conversation, "user": user };
        let found = self.all("messages", filter, doc! { "createdAt": 1 }, 0).await?;
        Ok(found.iter().map(message_of).collect())
    }

    /// The newest conversations of a user, as the API tells them.
    pub(crate) async fn page(&self, user: &str) -> Result<Vec<Value>, StoreError> {
        let found = self.all("conversations", doc! { "user": user }, doc! { "updatedAt": -1 }, PAGE).await?;
        Ok(found.iter().map(|found| conversation_of(found, user)).collect())
    }

    /// A conversation of a user, as the API tells it.
    pub(crate) async fn conversation(&self, conversation: &str, user: &str) -> Result<Option<Value>, StoreError> {
        let found = self.one("conversations", doc! { "conversationId": conversation, "user": user }).await?;
        Ok(found.map(|found| conversation_of(&found, user)))
    }

    /// One of a turn's operations that read; gives the thread where it is one.
    pub(crate) async fn read(&self, op: Op, exchange: &Exchange) -> Result<Option<Vec<Message>>, StoreError> {
        let (user, conversation) = (exchange.user.as_str(), exchange.conversation.as_str());
        let ignored = match op {
            Op::Thread => return self.messages(conversation, user).await.map(Some),
            Op::Message => {
                let filter = doc! { "messageId": &exchange.question.parent, "user": user };
                self.one("messages", filter).await.map(drop)
            }
            Op::Conversation => {
                let filter = doc! { "conversationId": conversation, "user": user };
                self.one("conversations", filter).await.map(drop)
            }
            _ => self.about(op, user).await,
        };
        ignored.map(|()| None)
    }

    /// An operation that is about a user alone.
    pub(crate) async fn about(&self, op: Op, user: &str) -> Result<(), StoreError> {
        match op {
            Op::Ban => self.is_banned(&Who::User(user.to_owned())).await.map(drop),
            Op::User => self.user(user).await.map(drop),
            Op::Groups => self.one("groups", doc! { "memberIds": user }).await.map(drop),
            Op::Rights => {
                let filter = doc! { "principalType": "user", "principalId": user_key(user) };
                self.one("aclentries", filter).await.map(drop)
            }
            Op::SaveUser => {
                let users = self.documents("users");
                let update = doc! { "$set": { "updatedAt": DateTime::now() } };
                self.timed(users.update_one(doc! { "_id": user_key(user) }, update)).await.map(drop)
            }
            // These are about a turn, or done by name.
            Op::Message | Op::Thread | Op::Conversation | Op::SaveMessage | Op::SaveConversation | Op::Spend => Ok(()),
        }
    }

    /// Saves a message of a turn: the question as of when it was asked, the answer as of now.
    pub(crate) async fn save_message(&self, exchange: &Exchange, message: &Message) -> Result<(), StoreError> {
        let now = DateTime::now();
        let created = if message.by_user { DateTime::from_system_time(exchange.asked_at) } else { now };
        let text = if message.by_user { message.text.as_str() } else { "" };
        let update = doc! {
            "$set": {
                "conversationId": &exchange.conversation, "user": &exchange.user,
                "parentMessageId": &message.parent, "isCreatedByUser": message.by_user,
                "sender": if message.by_user { "User" } else { exchange.endpoint.as_str() },
                "text": text, "content": content(message), "error": message.error.is_some(),
                "endpoint": &exchange.endpoint, "model": &exchange.model, "unfinished": false,
                "tokenCount": tokens(&message.text), "updatedAt": now,
            },
            "$setOnInsert": { "createdAt": created, "__v": 0 },
        };
        self.upsert("messages", doc! { "messageId": &message.id }, update).await
    }

    /// Saves a turn's conversation.
    pub(crate) async fn save_conversation(&self, exchange: &Exchange) -> Result<(), StoreError> {
        let filter = doc! { "conversationId": &exchange.conversation, "user": &exchange.user };
        let update = doc! {
            "$set": {
                "endpoint": &exchange.endpoint, "endpointType": "custom", "model": &exchange.model,
                "updatedAt": DateTime::now(),
            },
            "$setOnInsert": {
                "title": "New Chat", "isArchived": false, "tags": [], "files": [],
                "createdAt": DateTime::from_system_time(exchange.asked_at), "__v": 0,
            },
        };
        self.upsert("conversations", filter, update).await
    }

    /// Notes what a turn's question or answer cost.
    pub(crate) async fn spend(&self, exchange: &Exchange, kind: &str, text: &str) -> Result<(), StoreError> {
        let now = DateTime::now();
        let amount = -tokens(text);
        let transaction = doc! {
            "user": user_key(&exchange.user), "conversationId": &exchange.conversation, "tokenType": kind,
            "context": "message", "model": &exchange.model, "rawAmount": amount, "tokenValue": amount,
            "createdAt": now, "updatedAt": now, "__v": 0,
        };
        self.insert("transactions", transaction).await
    }
}

/// A user's key: LibreChat's are ObjectIds; a token may name another.
fn user_key(id: &str) -> Bson {
    ObjectId::parse_str(id).map_or_else(|_| Bson::String(id.to_owned()), Bson::ObjectId)
}

fn ban_key(who: &Who) -> String {
    format!("ban:{}", who.name())
}

fn user_of(found: &Document) -> User {
    let text = |field: &str| found.get_str(field).unwrap_or_default().to_owned();
    let id = match found.get("_id") {
        Some(Bson::ObjectId(id)) => id.to_hex(),
        _ => text("_id"),
    };
    User {
        id,
        name: text("name"),
        username: text("username"),
        email: text("email"),
        password: found.get_str("password").ok().map(str::to_owned),
        admin: text("role") == "ADMIN",
    }
}

fn conversation_of(found: &Document, user: &str) -> Value {
    let time = |field: &str| found.get_datetime(field).map_or(SystemTime::UNIX_EPOCH, |at| at.to_system_time());
    let text = |field: &str| found.get_str(field).unwrap_or_default();
    shown(text("conversationId"), user, text("model"), time("createdAt"), time("updatedAt"))
}

/// A message's parts, as LibreChat keeps an answer; a question has none.
fn content(message: &Message) -> Bson {
    if message.by_user {
        return Bson::Null;
    }
    let mut parts = vec![Bson::Document(doc! { "type": "text", "text": &message.text })];
    parts.extend(message.error.iter().map(|error| Bson::Document(doc! { "type": "error", "error": error })));
    Bson::Array(parts)
}

fn message_of(found: &Document) -> Message {
    let text = |field: &str| found.get_str(field).unwrap_or_default().to_owned();
    let by_user = found.get_bool("isCreatedByUser").unwrap_or_default();
    let part = |name: &str| {
        let parts = found.get_array("content").ok()?;
        let mut documents = parts.iter().filter_map(Bson::as_document);
        let named = documents.find(|part| part.get_str("type").is_ok_and(|kind| kind == name))?;
        named.get_str(name).ok().map(str::to_owned)
    };
    Message {
        id: text("messageId"),
        parent: text("parentMessageId"),
        text: if by_user { text("text") } else { part("text").unwrap_or_default() },
        by_user,
        error: part("error"),
    }
}

/// About as many tokens as a text has.
fn tokens(text: &str) -> i64 {
    i64::try_from(text.split_whitespace().count()).unwrap_or(i64::MAX)
}

fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(said)) => said.code == DUPLICATE,
        ErrorKind::Command(said) => said.code == DUPLICATE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_kept() {
        let answer = Message {
            id: "a".to_owned(),
            parent: "q".to_owned(),
            text: "one two".to_owned(),
            by_user: false,
            error: Some("broken".to_owned()),
        };
        let kept = doc! {
            "messageId": "a", "parentMessageId": "q", "text": "", "isCreatedByUser": false, "content": content(&answer),
        };
        let read = message_of(&kept);
        assert_eq!((read.id, read.parent, read.text), (answer.id, answer.parent, answer.text));
        assert_eq!((read.by_user, read.error), (false, Some("broken".to_owned())));
        let asked = doc! { "messageId": "q", "text": "hi", "isCreatedByUser": true, "content": null };
        assert_eq!((message_of(&asked).text.as_str(), message_of(&asked).error), ("hi", None));
    }

    #[test]
    fn a_users_key_is_an_object_id_where_it_can_be_one() {
        assert!(matches!(user_key("0123456789abcdef01234567"), Bson::ObjectId(_)));
        assert_eq!(user_key("me"), Bson::String("me".to_owned()));
    }
}
