//! Conversations, wherever they are kept: in memory, or in MongoDB with all the operations that a
//! turn of LibreChat's does there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::Value;

use crate::chats::{Chats, Message, shown, walk};
use crate::store::StoreError;
use crate::store::mongo::Mongo;
use crate::store::ops::{self, Op};

/// One turn, as far as it is kept.
pub(crate) struct Exchange {
    pub(crate) conversation: String,
    pub(crate) user: String,
    pub(crate) model: String,
    pub(crate) endpoint: String,
    pub(crate) question: Message,
    pub(crate) answer_id: String,
    pub(crate) asked_at: SystemTime,
    /// Whether the conversation was there before.
    pub(crate) follow_up: bool,
    /// Whether no request of its own reads the stream.
    pub(crate) one_step: bool,
}

/// Where conversations are kept.
pub(crate) enum Archive {
    Memory(Mutex<Chats>),
    Stored(Arc<Mongo>),
}

impl Archive {
    pub(crate) fn new(mongo: Option<&Arc<Mongo>>) -> Self {
        mongo.map_or_else(|| Self::Memory(Mutex::default()), |mongo| Self::Stored(Arc::clone(mongo)))
    }

    /// Whether a conversation is somebody else's.
    pub(crate) async fn is_foreign(&self, conversation: &str, user: &str) -> Result<bool, StoreError> {
        match self {
            Self::Memory(chats) => Ok(locked(chats).is_foreign(conversation, user)),
            Self::Stored(mongo) => Ok(mongo.owner(conversation).await?.is_some_and(|owner| owner != user)),
        }
    }

    /// Notes that a turn begins. In memory the question is there at once; LibreChat saves it when
    /// the generation has got as far as that.
    pub(crate) fn begin(&self, exchange: &Exchange) {
        if let Self::Memory(chats) = self {
            add(chats, exchange, exchange.question.clone());
        }
    }

    /// The operations of one round before the model is asked; gives the thread so far where one of
    /// them read it.
    pub(crate) async fn round(
        &self,
        exchange: &Exchange,
        round: u32,
        rounds: u32,
    ) -> Result<Option<Vec<Message>>, StoreError> {
        let Self::Stored(mongo) = self else { return Ok(None) };
        let all = reads(exchange);
        let mut thread = None;
        for op in ops::share(&all, round as usize, rounds as usize) {
            thread = Box::pin(mongo.read(*op, exchange)).await?.or(thread);
        }
        Ok(thread)
    }

    /// Saves the question, before the model is asked.
    pub(crate) async fn save_question(&self, exchange: &Exchange) -> Result<(), StoreError> {
        let Self::Stored(mongo) = self else { return Ok(()) };
        save(mongo, exchange, &ops::BEFORE, &[&exchange.question]).await
    }

    /// The thread that ends with the question, oldest first, as the model is told it; `before` is
    /// what the rounds read.
    pub(crate) fn thread(&self, exchange: &Exchange, mut before: Vec<Message>) -> Vec<Message> {
        let last = exchange.question.id.as_str();
        match self {
            Self::Memory(chats) => locked(chats).thread(&exchange.conversation, &exchange.user, last),
            Self::Stored(_) => {
                before.retain(|message| message.id != last);
                before.push(exchange.question.clone());
                walk(&before, last)
            }
        }
    }

    /// Saves the answer, before the last event is sent.
    pub(crate) async fn save_answer(&self, exchange: &Exchange, answer: Message) -> Result<(), StoreError> {
        match self {
            Self::Memory(chats) => {
                add(chats, exchange, answer);
                Ok(())
            }
            Self::Stored(mongo) => save(mongo, exchange, &ops::AFTER, &[&answer, &exchange.question]).await,
        }
    }

    /// The messages of a conversation of this user, oldest first.
    pub(crate) async fn messages(&self, conversation: &str, user: &str) -> Result<Vec<Message>, StoreError> {
        match self {
            Self::Memory(chats) => Ok(locked(chats).messages(conversation, user).unwrap_or_default().to_vec()),
            Self::Stored(mongo) => mongo.messages(conversation, user).await,
        }
    }

    /// The newest conversations of a user, a page of them.
    pub(crate) async fn page(&self, user: &str) -> Result<Vec<Value>, StoreError> {
        match self {
            Self::Memory(chats) => Ok(locked(chats).page(user)),
            Self::Stored(mongo) => mongo.page(user).await,
        }
    }

    /// What the API tells of a conversation of this user.
    pub(crate) async fn find(&self, conversation: &str, user: &str) -> Result<Option<Value>, StoreError> {
        match self {
            Self::Memory(chats) => {
                let chats = locked(chats);
                Ok(chats.messages(conversation, user).map(|_| chats.shown(conversation)))
            }
            Self::Stored(mongo) => mongo.conversation(conversation, user).await,
        }
    }

    /// What the API tells of a turn's conversation.
    pub(crate) fn conversation(&self, exchange: &Exchange) -> Value {
        match self {
            Self::Memory(chats) => locked(chats).shown(&exchange.conversation),
            Self::Stored(_) => {
                let (id, now) = (&exchange.conversation, SystemTime::now());
                shown(id, &exchange.user, &exchange.model, exchange.asked_at, now)
            }
        }
    }
}

fn locked(chats: &Mutex<Chats>) -> MutexGuard<'_, Chats> {
    chats.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(chats: &Mutex<Chats>, exchange: &Exchange, message: Message) {
    locked(chats).add(&exchange.conversation, &exchange.user, &exchange.model, message);
}

/// What a turn reads between its rounds.
fn reads(exchange: &Exchange) -> Vec<Op> {
    let stream: &[Op] = if exchange.one_step { &ops::STREAM } else { &[] };
    let follow_up: &[Op] = if exchange.follow_up { &ops::FOLLOW_UP } else { &[] };
    [stream, &ops::ROUNDS[..], follow_up].concat()
}

/// Does what writes, with these messages in their order.
async fn save(mongo: &Mongo, exchange: &Exchange, all: &[Op], messages: &[&Message]) -> Result<(), StoreError> {
    let mut messages = messages.iter();
    let answer = messages.as_slice().first().map_or("", |message| message.text.as_str());
    let mut spent = [("prompt", exchange.question.text.as_str()), ("completion", answer)].into_iter();
    for op in all {
        match op {
            Op::SaveMessage => {
                if let Some(message) = messages.next() {
                    mongo.save_message(exchange, message).await?;
                }
            }
            Op::SaveConversation => mongo.save_conversation(exchange).await?,
            Op::Spend => {
                if let Some((kind, text)) = spent.next() {
                    mongo.spend(exchange, kind, text).await?;
                }
            }
            // Nothing else writes.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chats::NO_PARENT;

    fn message(id: &str, parent: &str) -> Message {
        Message { id: id.to_owned(), parent: parent.to_owned(), text: id.to_owned(), by_user: true, error: None }
    }

    fn exchange(follow_up: bool, one_step: bool) -> Exchange {
        Exchange {
            conversation: "c".to_owned(),
            user: "u".to_owned(),
            model: "m".to_owned(),
            endpoint: "Mock".to_owned(),
            question: message("q", "a"),
            answer_id: "r".to_owned(),
            asked_at: SystemTime::UNIX_EPOCH,
            follow_up,
            one_step,
        }
    }

    #[test]
    fn a_follow_up_reads_the_thread_last_and_a_one_step_turn_its_user() {
        assert_eq!(reads(&exchange(false, false)).len(), ops::ROUNDS.len());
        assert_eq!(reads(&exchange(true, false)).last(), Some(&Op::Thread));
        assert_eq!(reads(&exchange(true, true)).len(), ops::ROUNDS.len() + 4);
    }

    #[test]
    fn in_memory_the_question_is_there_at_once() {
        let archive = Archive::new(None);
        let mut first = exchange(false, false);
        first.question = message("a", NO_PARENT);
        archive.begin(&first);
        let second = exchange(true, false);
        archive.begin(&second);
        let thread = archive.thread(&second, Vec::new());
        assert_eq!(thread.iter().map(|message| message.id.as_str()).collect::<String>(), "aq");
        assert_eq!(archive.conversation(&second)["user"], "u");
    }

    #[tokio::test]
    async fn a_conversation_is_shown_to_its_user_alone() {
        let archive = Archive::new(None);
        archive.begin(&exchange(false, false));
        assert_eq!(archive.find("c", "u").await.unwrap().unwrap()["conversationId"], "c");
        assert_eq!(archive.find("c", "another").await.unwrap(), None);
        assert_eq!(archive.find("none", "u").await.unwrap(), None);
    }
}
