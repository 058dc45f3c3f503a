//! Speaking a chat turn: one file a protocol. A driver writes what happened into a [`Turn`] and
//! tells the shard's recorder of arrivals as they come.

mod exchange;
pub mod librechat;
mod live;
pub mod openai;
mod reply;
mod stream;
mod watchdog;

use std::time::Duration;

pub use exchange::HeaderError;
pub use live::Live;

use crate::record::Turn;
use crate::trace::{Check, WhiteSpace};

/// How long a turn may take, and how large it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For TCP, a proxy's tunnel and TLS together.
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
    /// LibreChat's web API.
    LibreChat(librechat::LibreChat),
}

/// What one virtual user keeps between turns.
pub enum Session {
    /// With [`Driver::OpenAi`].
    OpenAi(openai::Session),
    /// With [`Driver::LibreChat`].
    LibreChat(librechat::Session),
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
    /// After how many tokens the user cancels the turn, if so.
    pub cancel_after: Option<u64>,
    /// How the reply is checked, where it is known in advance.
    pub trace: Option<Trace>,
}

/// What the reply to a traced prompt follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The turn's marker, `cc:RUN:USER:TURN`.
    pub marker: String,
    /// How exactly white space is compared.
    pub white: WhiteSpace,
}

impl Prompt {
    /// The check of the reply.
    fn check(&self) -> Option<Check> {
        self.trace.as_ref().map(|trace| Check::new(&trace.marker, trace.white))
    }
}

impl Driver {
    /// The session of user number `user`, as it is before the first turn.
    pub fn session(&self, user: u32) -> Session {
        match self {
            Self::OpenAi(_) => Session::OpenAi(openai::Session::default()),
            Self::LibreChat(driver) => Session::LibreChat(driver.session(user)),
        }
    }

    /// The user comes: loads what the protocol's client loads before the first turn, into `visit`.
    /// False where there is nothing to load.
    pub async fn arrive(&self, session: &mut Session, visit: &mut Turn) -> bool {
        match (self, session) {
            (Self::LibreChat(driver), Session::LibreChat(session)) => {
                driver.load_page(session, visit).await;
                true
            }
            _ => false,
        }
    }

    /// Speaks one turn. Whatever happens stands in `turn`, also when this future is dropped on
    /// the way: its outcome is `Interrupted` until another one is known.
    ///
    /// # Panics
    /// With another driver's session.
    pub async fn turn(&self, session: &mut Session, prompt: &Prompt, turn: &mut Turn, live: Live<'_>) {
        match (self, session) {
            (Self::OpenAi(driver), Session::OpenAi(session)) => driver.turn(session, prompt, turn, live).await,
            (Self::LibreChat(driver), Session::LibreChat(session)) => driver.turn(session, prompt, turn, live).await,
            _ => unreachable!("a session is its driver's"),
        }
    }
}
