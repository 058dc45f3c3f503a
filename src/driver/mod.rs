//! Speaking a chat turn: one file a protocol. A driver writes what happened into a [`Turn`] and
//! tells the shard's recorder of arrivals as they come.

mod live;
pub mod openai;
mod reply;
mod watchdog;

use std::time::Duration;

pub use live::Live;

use crate::record::Turn;

/// How long a turn may take, and how large it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For TCP and TLS together.
    pub connect: Duration,
    /// Without a single byte from the target.
    pub stall: Duration,
    /// From the actual start to the end.
    pub turn: Duration,
    /// Bytes of a whole response body.
    pub reply_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            turn: Duration::from_secs(120),
            reply_bytes: 64 << 20,
        }
    }
}

/// A protocol, ready to be spoken.
#[derive(Debug)]
pub enum Driver {
    /// OpenAI's chat completions, streamed.
    OpenAi(openai::OpenAi),
}

/// What one virtual user keeps between turns.
#[derive(Default)]
pub struct Session {
    openai: openai::Session,
}

/// What a user says, and whether the conversation goes on after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text, with its marker.
    pub text: String,
    /// Whether this is the first turn of a conversation.
    pub opens: bool,
    /// Whether another turn will follow, so that the reply must be kept.
    pub continues: bool,
}

impl Driver {
    /// Speaks one turn. Whatever happens stands in `turn`, also when this future is dropped on
    /// the way: its outcome is `Interrupted` until another one is known.
    pub async fn turn(&self, session: &mut Session, prompt: &Prompt, turn: &mut Turn, live: Live<'_>) {
        match self {
            Self::OpenAi(driver) => driver.turn(&mut session.openai, prompt, turn, live).await,
        }
    }
}
