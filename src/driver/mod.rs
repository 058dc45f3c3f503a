//! Speaking a chat turn: one file a protocol. A driver writes what happened into a [`Turn`] and
//! tells the shard's recorder of arrivals as they come.

mod described;
mod exchange;
pub mod librechat;
mod live;
pub mod openai;
mod reply;
pub mod socketio;
pub mod sse;
mod stream;
mod watchdog;
pub mod websocket;

use std::time::Duration;

pub use exchange::HeaderError;
pub use live::Live;

use crate::record::Turn;
use crate::scenario::{Disturb, Disturbance};
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
    /// A protocol over HTTP that the scenario describes.
    Sse(sse::Sse),
    /// Socket.IO, as a scenario describes it.
    SocketIo(socketio::SocketIo),
    /// WebSocket, as a scenario describes it.
    WebSocket(websocket::WebSocketChat),
}

/// What one virtual user keeps between turns.
pub enum Session {
    /// With [`Driver::OpenAi`].
    OpenAi(openai::Session),
    /// With [`Driver::LibreChat`].
    LibreChat(librechat::Session),
    /// With [`Driver::Sse`].
    Sse(sse::Session),
    /// With [`Driver::SocketIo`].
    SocketIo(socketio::Session),
    /// With [`Driver::WebSocket`].
    WebSocket(websocket::Session),
}

/// What a user does besides turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Is let in.
    Login,
    /// Loads the page.
    Page,
    /// Reads earlier conversations.
    History,
    /// Leaves: closes its connections.
    Leave,
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
    /// What the user does in the middle of the reply, if anything.
    pub disturb: Option<Disturb>,
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
    /// Whether the user cancels the turn.
    fn cancels(&self) -> bool {
        self.disturb.is_some_and(|disturb| disturb.what == Disturbance::Cancel)
    }

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
            Self::Sse(driver) => Session::Sse(driver.session(user)),
            Self::SocketIo(driver) => Session::SocketIo(driver.session(user)),
            Self::WebSocket(driver) => Session::WebSocket(driver.session(user)),
        }
    }

    /// The user does something besides turns, told in `visit`. False where the protocol has nothing of the kind.
    ///
    /// # Panics
    /// With another driver's session.
    pub async fn act(&self, act: Act, session: &mut Session, visit: &mut Turn) -> bool {
        match (self, session) {
            // Boxed: it is rare, and would lie in every user's task otherwise.
            (Self::LibreChat(driver), Session::LibreChat(session)) => Box::pin(driver.act(act, session, visit)).await,
            (Self::OpenAi(_), Session::OpenAi(session)) => {
                if act == Act::Leave {
                    *session = openai::Session::default();
                }
                false
            }
            (Self::Sse(driver), Session::Sse(session)) => match act {
                Act::Login => driver.login(session, visit).await,
                Act::Page => driver.page(session, visit).await,
                Act::History => driver.history(session, visit).await,
                Act::Leave => driver.leave(session, visit).await,
            },
            (Self::SocketIo(driver), Session::SocketIo(session)) => driver.act(act, session, visit).await,
            (Self::WebSocket(driver), Session::WebSocket(session)) => driver.act(act, session, visit).await,
            _ => unreachable!("a session is its driver's"),
        }
    }

    /// What goes on while the user thinks; never ends, and may be dropped at any time.
    pub async fn idle(&self, session: &mut Session) {
        match (self, session) {
            (Self::SocketIo(driver), Session::SocketIo(session)) => driver.idle(session).await,
            (Self::WebSocket(driver), Session::WebSocket(session)) => driver.idle(session).await,
            _ => std::future::pending().await,
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
            (Self::Sse(driver), Session::Sse(session)) => driver.turn(session, prompt, turn, live).await,
            (Self::SocketIo(driver), Session::SocketIo(session)) => driver.turn(session, prompt, turn, live).await,
            (Self::WebSocket(driver), Session::WebSocket(session)) => driver.turn(session, prompt, turn, live).await,
            _ => unreachable!("a session is its driver's"),
        }
    }
}
