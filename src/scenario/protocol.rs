//! How a deployment of somebody's own is spoken to, resolved: what drivers follow.

use std::time::Duration;

use http::{HeaderName, Method};
use serde::{Serialize, Serializer};
use serde_json::Value;

pub use super::file::{Framing, SocketPer, Transport};
use super::seconds;
use super::template::Template;

/// The names that every text of a protocol may have in its places, besides what answers bring and `values_env` names.
///
/// What is said (`prompt`), the conversation so far with it (`messages`, a list of `role` and `content`), a fresh UUID a
/// turn, the user's turn number from 0, the tokens of the reply so far (`received`), the model, and who the user is.
pub const PLACES: [&str; 11] = [
    "prompt",
    "messages",
    "uuid",
    "turn",
    "received",
    "model",
    "user.number",
    "user.email",
    "user.password",
    "user.token",
    "user.cookie",
];

/// The name of the bearer key in places, where there is one. A request with it does not carry the key otherwise.
pub const API_KEY: &str = "api_key";

/// A request that is sent as often as it is wanted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestPlan {
    /// Its method.
    #[serde(serialize_with = "as_text")]
    pub method: Method,
    /// Path and query below the target's base, beginning with `/`; the query may be a secret, and is not told.
    #[serde(serialize_with = "path_only")]
    pub path: Template,
    /// Headers; their values may be secrets, and only names are told.
    #[serde(serialize_with = "names_only")]
    pub headers: Vec<(HeaderName, Template)>,
    /// The body.
    pub body: Option<Template>,
    /// What the answer brings: a name, and where it is.
    pub capture: Vec<(String, Source)>,
}

/// Where an answer has a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// In its JSON, at this pointer (RFC 6901).
    Pointer(String),
    /// In this header.
    #[serde(serialize_with = "as_text")]
    Header(HeaderName),
}

/// Where a message has its token text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenAt {
    /// The whole message is text.
    Text,
    /// In its JSON, at this pointer.
    Pointer(String),
}

/// What messages of a reply mean. Where several hold, the first in this order counts: heartbeat, rate limited, error,
/// token; and a message may carry a token and end the turn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplyRules {
    /// Where the token text is.
    pub token: TokenAt,
    /// Which messages carry tokens.
    pub token_when: Option<Condition>,
    /// Which ends the turn; of several the first is the usual one, and others may answer a cancel.
    pub end: Option<Condition>,
    /// Whether the end of the body ends it too.
    pub end_with_body: bool,
    /// Which says that it has failed, and where it says why.
    pub error: Option<Condition>,
    /// A pointer to the reason.
    pub error_text: Option<String>,
    /// Which says that there were too many.
    pub rate_limited: Option<Condition>,
    /// A pointer to the seconds to wait.
    pub retry_after: Option<String>,
    /// Which are heartbeats.
    pub heartbeat: Option<Condition>,
    /// What messages bring: a name and a pointer.
    pub capture: Vec<(String, String)>,
}

/// A condition on a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It is this text, but for white space at its ends.
    Text(String),
    /// All of these hold.
    All(Vec<Field>),
    /// One of these holds.
    Any(Vec<Condition>),
}

/// A condition on a part of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Which part.
    pub at: Part,
    /// The value there; `None`: any but null.
    pub is: Option<Value>,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The name of the event that brought it.
    Event,
    /// Its JSON at this pointer.
    Pointer(String),
}

/// What a client does besides turns.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Site {
    /// Lets a user in.
    pub login: Option<RequestPlan>,
    /// Loads the page.
    pub page: Vec<RequestPlan>,
    /// Reads the history.
    pub history: Vec<RequestPlan>,
    /// Leaves.
    pub leave: Option<RequestPlan>,
}

/// A protocol over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SsePlan {
    /// Its name, where it is a known one.
    pub preset: Option<String>,
    /// The turn's request.
    pub request: RequestPlan,
    /// The second one, whose answer is the stream.
    pub stream: Option<RequestPlan>,
    /// What cancels a turn.
    pub cancel: Option<RequestPlan>,
    /// How the stream is cut into messages.
    pub framing: Framing,
    /// What they mean.
    pub reply: ReplyRules,
    /// Whether a stream that breaks off is taken up again.
    pub resume: Resume,
}

/// Whether a stream that breaks off is taken up again, by asking for it once more with `Last-Event-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// It is not.
    Never,
    /// Where nothing can come twice: an event had an id, or no token has come yet.
    WithId,
    /// In any case, for the scenario says so.
    Always,
}

/// A protocol over WebSocket.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WebSocketPlan {
    /// Path and query, beginning with `/`; the query is not told.
    #[serde(serialize_with = "path_only")]
    pub path: Template,
    /// Offered subprotocols.
    pub subprotocols: Vec<String>,
    /// Headers of the opening request; only names are told.
    #[serde(serialize_with = "names_only")]
    pub headers: Vec<(HeaderName, Template)>,
    /// Sent when the socket is open.
    pub open: Vec<Template>,
    /// Waited for before the first turn.
    pub opened: Option<Condition>,
    /// What it brings: a name and a pointer.
    pub capture: Vec<(String, String)>,
    /// A turn's message.
    pub message: Template,
    /// Cancels a turn.
    pub cancel: Option<Template>,
    /// Takes one up again.
    pub resume: Option<Template>,
    /// Answers a heartbeat.
    pub heartbeat_reply: Option<Template>,
    /// What messages mean.
    pub reply: ReplyRules,
    /// How long a socket is kept.
    pub socket: SocketPer,
    /// How often pings are sent, and how long a pong may take.
    #[serde(skip)]
    pub ping: Option<(Duration, Duration)>,
    /// Whether permessage-deflate is offered.
    pub deflate: bool,
    /// The largest message, in bytes.
    pub message_limit: usize,
    /// The first pause before a socket is opened again.
    #[serde(rename = "reconnect_s", serialize_with = "seconds")]
    pub reconnect: Duration,
}

/// A protocol over Socket.IO.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SocketIoPlan {
    /// The path, beginning with `/`; a query is not told.
    #[serde(serialize_with = "text_of_path_only")]
    pub path: String,
    /// The namespace, beginning with `/`.
    pub namespace: String,
    /// How a connection begins.
    pub transport: Transport,
    /// Headers of every request; only names are told.
    #[serde(serialize_with = "names_only")]
    pub headers: Vec<(HeaderName, Template)>,
    /// Sent with the connection to the namespace.
    pub auth: Option<Template>,
    /// A turn's event.
    pub event: String,
    /// Its arguments.
    pub arguments: Template,
    /// Whether an acknowledgement is asked for.
    pub acknowledge: bool,
    /// Cancels a turn: event and arguments.
    pub cancel: Option<(String, Template)>,
    /// What events mean.
    pub reply: ReplyRules,
    /// Whether permessage-deflate is offered.
    pub deflate: bool,
    /// The largest message, in bytes.
    pub message_limit: usize,
    /// The first pause before a socket is opened again.
    #[serde(rename = "reconnect_s", serialize_with = "seconds")]
    pub reconnect: Duration,
}

/// One of the protocols that a scenario describes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolPlan {
    /// Over HTTP.
    Sse(Box<SsePlan>),
    /// Over WebSocket.
    WebSocket(Box<WebSocketPlan>),
    /// Over Socket.IO.
    SocketIo(Box<SocketIoPlan>),
}

impl RequestPlan {
    /// Its texts.
    pub fn texts(&self) -> impl Iterator<Item = &Template> {
        std::iter::once(&self.path).chain(self.headers.iter().map(|(_, value)| value)).chain(&self.body)
    }

    /// The names in its places, each as often as it stands there.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts().flat_map(Template::names)
    }
}

impl Site {
    /// Its requests.
    pub fn requests(&self) -> impl Iterator<Item = &RequestPlan> {
        self.login.iter().chain(&self.page).chain(&self.history).chain(&self.leave)
    }
}

impl SsePlan {
    /// Its requests.
    pub fn requests(&self) -> impl Iterator<Item = &RequestPlan> {
        std::iter::once(&self.request).chain(&self.stream).chain(&self.cancel)
    }

    /// The request whose answer is the stream.
    pub fn streaming(&self) -> &RequestPlan {
        self.stream.as_ref().unwrap_or(&self.request)
    }
}

impl ProtocolPlan {
    /// Its texts.
    pub fn texts(&self) -> Vec<&Template> {
        match self {
            Self::Sse(plan) => plan.requests().flat_map(RequestPlan::texts).collect(),
            Self::WebSocket(plan) => {
                let headers = plan.headers.iter().map(|(_, value)| value);
                let optional = plan.cancel.iter().chain(&plan.resume).chain(&plan.heartbeat_reply);
                [&plan.path, &plan.message].into_iter().chain(&plan.open).chain(headers).chain(optional).collect()
            }
            Self::SocketIo(plan) => {
                let headers = plan.headers.iter().map(|(_, value)| value);
                let cancel = plan.cancel.iter().map(|(_, arguments)| arguments);
                std::iter::once(&plan.arguments).chain(&plan.auth).chain(headers).chain(cancel).collect()
            }
        }
    }

    /// Whether a reply that breaks off can be taken up again.
    pub fn resumes(&self) -> bool {
        match self {
            Self::Sse(plan) => plan.resume != Resume::Never,
            Self::WebSocket(plan) => plan.resume.is_some(),
            Self::SocketIo(_) => false,
        }
    }

    /// The word for it, in results and folders.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sse(_) => "sse",
            Self::WebSocket(_) => "websocket",
            Self::SocketIo(_) => "socketio",
        }
    }
}

fn as_text<T: AsRef<str>, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.as_ref())
}

fn path_only<S: Serializer>(path: &Template, serializer: S) -> Result<S::Ok, S::Error> {
    text_of_path_only(path.source(), serializer)
}

fn text_of_path_only<S: Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path.split('?').next().unwrap_or_default())
}

fn names_only<S: Serializer>(headers: &[(HeaderName, Template)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.iter().map(|(name, _)| name.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_of_a_request_is_no_secret() {
        let text = |text: &str| Template::parse(text, &PLACES).unwrap();
        let plan = RequestPlan {
            method: Method::POST,
            path: text("/say/{{user.number}}?key=planted"),
            headers: vec![(http::header::AUTHORIZATION, text("Bearer planted"))],
            body: Some(text(r#"{"key": "planted", "text": "{{prompt}}"}"#)),
            capture: Vec::new(),
        };
        let told = json!({
            "method": "POST", "path": "/say/{{user.number}}", "headers": ["authorization"], "body": ["prompt"],
            "capture": [],
        });
        assert_eq!(serde_json::to_value(&plan).unwrap(), told);
    }
}
