//! How a deployment of somebody's own is spoken to, as it is written: requests, messages, and what the answers mean.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request. Texts may have places for values, such as `{{prompt}}`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestSection {
    /// `POST` where there is a body, else `GET`.
    pub method: Option<String>,
    /// The path and query below the target's URL, such as `/api/chat`.
    pub path: String,
    /// Headers by name; one whose places are all empty is left out. A secret belongs into `target.headers_env` or
    /// `target.values_env` instead.
    pub headers: BTreeMap<String, String>,
    /// The body; JSON unless a header says otherwise.
    pub body: Option<String>,
    /// What the answer brings for later places: a name, and where the value is: a JSON Pointer such as `/id`, or
    /// `header:NAME`. `header:set-cookie` is all of its cookies as a `Cookie` header has them.
    pub capture: BTreeMap<String, String>,
}

/// What messages of a reply mean.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplySection {
    /// Where a message has its token text: a JSON Pointer such as `/delta`, or `text`, which is the whole message.
    pub token: Option<String>,
    /// Which messages carry tokens; without it those that have a text at `token`.
    pub token_when: Option<MatchSection>,
    /// Which message ends the turn.
    pub end: Option<MatchSection>,
    /// The end of the response's body ends the turn too.
    pub end_with_body: Option<bool>,
    /// Which message says that the turn has failed.
    pub error: Option<MatchSection>,
    /// Where such a message says why: a JSON Pointer.
    pub error_text: Option<String>,
    /// Which message says that there were too many.
    pub rate_limited: Option<MatchSection>,
    /// Where such a message says for how many seconds: a JSON Pointer.
    pub retry_after: Option<String>,
    /// Which messages are heartbeats and nothing else.
    pub heartbeat: Option<MatchSection>,
    /// What messages bring for later places: a name and a JSON Pointer.
    pub capture: BTreeMap<String, String>,
}

/// Which messages are meant: one condition, or several of which one must hold.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum MatchSection {
    /// The message is this text, such as `[DONE]`.
    Text(String),
    /// Every entry holds: a JSON Pointer such as `/type`, or `event`, which is the name of the event; and the value
    /// there, or `*` for any but null.
    Fields(BTreeMap<String, Value>),
    /// One of these holds.
    Any(Vec<MatchSection>),
}

/// What a page, a login and a look at the history are, where the profile does not know.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SiteSection {
    /// Lets a user in; what it captures stands in later places, such as a token in a header.
    pub login: Option<RequestSection>,
    /// What a client loads when it is opened, six at a time as a browser does.
    pub page: Vec<RequestSection>,
    /// What it loads to show earlier conversations, likewise.
    pub history: Vec<RequestSection>,
    /// What it sends when the user leaves.
    pub leave: Option<RequestSection>,
}

/// An endpoint that streams over HTTP.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SseSection {
    /// A known protocol; what stands beside it here replaces its parts.
    #[schemars(with = "SsePreset")]
    pub preset: Option<SsePreset>,
    /// The request of a turn, which answers with the stream, or with where it is.
    #[schemars(with = "RequestSection")]
    pub request: Option<RequestSection>,
    /// The second request, where there are two: its answer is the stream.
    #[schemars(with = "RequestSection")]
    pub stream: Option<RequestSection>,
    /// What cancels a turn; without it the connection is closed.
    #[schemars(with = "RequestSection")]
    pub cancel: Option<RequestSection>,
    /// How the stream is cut into messages; `sse` without it.
    #[schemars(with = "Framing")]
    pub framing: Option<Framing>,
    /// What its messages mean.
    #[schemars(with = "ReplySection")]
    pub reply: Option<ReplySection>,
    /// Take a stream up again that breaks off, also where no event had an id for `Last-Event-ID`. Without it that is
    /// done where a GET opens the stream and an event had an id, or no token has come yet.
    pub resume: Option<bool>,
}

/// A protocol over HTTP that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SsePreset {
    /// OpenAI's Responses, `POST /responses`.
    OpenaiResponses,
    /// Anthropic's Messages, `POST /messages`.
    AnthropicMessages,
    /// Ollama's chat, `POST /api/chat`, in lines of JSON.
    Ollama,
}

/// How a stream is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Server-sent events.
    #[default]
    Sse,
    /// A message a line.
    Lines,
}

/// A chat over WebSocket.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocketSection {
    /// The path and query below the target's URL; places are allowed.
    pub path: Option<String>,
    /// The subprotocols that are offered; the server must choose one of them.
    pub subprotocols: Vec<String>,
    /// Headers of the opening request.
    pub headers: BTreeMap<String, String>,
    /// Messages to send when the socket is open.
    pub open: Vec<String>,
    /// The message to wait for before the first turn.
    #[schemars(with = "MatchSection")]
    pub opened: Option<MatchSection>,
    /// What that message brings for later places: a name and a JSON Pointer.
    pub capture: BTreeMap<String, String>,
    /// The message of a turn, such as `{"text": "{{prompt}}"}`.
    pub message: String,
    /// The message that cancels a turn; without it the socket is closed.
    pub cancel: Option<String>,
    /// The message that takes a turn up again on a new socket; without it a turn whose socket breaks is lost.
    pub resume: Option<String>,
    /// What answers a heartbeat message.
    pub heartbeat_reply: Option<String>,
    /// What messages mean.
    #[schemars(with = "ReplySection")]
    pub reply: ReplySection,
    /// A socket a user, or one a turn; `user` without it.
    #[schemars(with = "SocketPer")]
    pub socket: Option<SocketPer>,
    /// Send pings as often as this; none without it.
    pub ping_interval: Option<String>,
    /// How long a pong may take; 20s without it.
    pub ping_timeout: Option<String>,
    /// Offer permessage-deflate; true without it, as browsers do.
    pub deflate: Option<bool>,
    /// The largest message that may come, in bytes; 1 MiB without it.
    pub message_limit: Option<u32>,
    /// The first pause before a socket that broke is opened again, doubled each time up to thirty-fold; 1s without it.
    pub reconnect: Option<String>,
}

/// For how long a socket is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SocketPer {
    /// As long as the user is there.
    #[default]
    User,
    /// For one turn.
    Turn,
}

/// A chat over Socket.IO 3 or 4.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SocketIoSection {
    /// The path below the target's URL; `/socket.io/` without it.
    pub path: Option<String>,
    /// The namespace; `/` without it.
    pub namespace: Option<String>,
    /// WebSocket from the beginning, or polling first, which browsers do; `websocket` without it.
    #[schemars(with = "Transport")]
    pub transport: Option<Transport>,
    /// Headers of every request.
    pub headers: BTreeMap<String, String>,
    /// What is sent with the connection to the namespace, JSON.
    pub auth: Option<String>,
    /// The event to send for a turn.
    pub event: String,
    /// Its arguments: JSON, where a list is several.
    pub arguments: String,
    /// Ask for an acknowledgement; it arrives as the event `ack`.
    pub acknowledge: Option<bool>,
    /// The event that cancels a turn; without it the socket is closed.
    pub cancel_event: Option<String>,
    /// Its arguments.
    pub cancel_arguments: Option<String>,
    /// What events mean: `event` is an event's name, and JSON Pointers lead into the list of its arguments.
    #[schemars(with = "ReplySection")]
    pub reply: ReplySection,
    /// Offer permessage-deflate; true without it, as browsers do.
    pub deflate: Option<bool>,
    /// The largest message that may come, in bytes; 1 MiB without it.
    pub message_limit: Option<u32>,
    /// The first pause before a socket that broke is opened again, doubled each time up to thirty-fold; 1s without it.
    pub reconnect: Option<String>,
}

/// How a Socket.IO connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// With a WebSocket.
    #[default]
    Websocket,
    /// With long polling, which is upgraded to a WebSocket.
    Polling,
}
