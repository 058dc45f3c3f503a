//! The packets of Engine.IO and of Socket.IO in them, without I/O.
//!
//! As the socket.io project's texts have them: `engine.io-protocol`, version 4, "Packet encoding" and "HTTP
//! long-polling", and `socket.io-protocol`, version 5, "Packet encoding"
//! (<https://github.com/socketio/engine.io-protocol>, <https://github.com/socketio/socket.io-protocol>). An Engine.IO
//! packet is a digit and its data, `4` a message; a message is a Socket.IO packet:
//! `TYPE[ATTACHMENTS-][NAMESPACE,][ID][JSON]`. Attachments come behind it, a binary message each.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

/// What is between two packets of a payload.
const SEPARATOR: char = '\u{1e}';
/// The most attachments that one packet may have.
const ATTACHMENTS: usize = 64;
/// The longest id of a session, in bytes.
const ID: usize = 256;
/// The longest that a server may be silent, whatever it announces.
const LONGEST_SILENCE: Duration = Duration::from_hours(24);
/// The characters of a packet that are told of a malformed one. What is shown of them is cut once secrets are taken
/// out, of which a cut here could leave a part.
const TOLD: usize = 4 << 10;
/// The packet that answers a ping.
pub(super) const PONG: &str = "3";

/// Not what the protocol allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(String);

impl Malformed {
    pub(super) fn of(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    fn new(what: &str, packet: &str) -> Self {
        let told: String = packet.chars().take(TOLD).collect();
        Self(format!("{what}: {told}"))
    }
}

/// A packet of Engine.IO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame<'f> {
    /// A session begins.
    Open(&'f str),
    /// It ends.
    Close,
    /// Wants a pong.
    Ping,
    /// Answers a ping.
    Pong(&'f str),
    /// A message.
    Message(&'f str),
    /// A binary message, which a payload has in base64.
    Binary(Vec<u8>),
    /// Means nothing to a client: an upgrade, or what ends a poll early.
    Nothing,
}

impl<'f> Frame<'f> {
    /// Reads a packet that is a text.
    pub(super) fn read(text: &'f str) -> Result<Self, Malformed> {
        let mut rest = text.chars();
        let kind = rest.next();
        let data = rest.as_str();
        Ok(match kind {
            Some('0') => Self::Open(data),
            Some('1') => Self::Close,
            Some('2') => Self::Ping,
            Some('3') => Self::Pong(data),
            Some('4') => Self::Message(data),
            Some('5' | '6') => Self::Nothing,
            Some('b') => Self::Binary(STANDARD.decode(data).map_err(|_| Malformed::new("no base64", text))?),
            _ => return Err(Malformed::new("no packet of Engine.IO", text)),
        })
    }
}

/// The first packet of a payload that is not empty, and what is behind it.
pub(super) fn first_of(payload: &str) -> (&str, &str) {
    payload.split_once(SEPARATOR).unwrap_or((payload, ""))
}

/// Adds a packet to a payload.
pub(super) fn add_to(payload: &mut String, packet: &str) {
    if !payload.is_empty() {
        payload.push(SEPARATOR);
    }
    payload.push_str(packet);
}

/// What the open packet says of a session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handshake {
    /// Its id.
    pub(super) sid: String,
    /// The transports to which it can be upgraded.
    #[serde(default)]
    upgrades: Vec<String>,
    ping_interval: u64,
    ping_timeout: u64,
    /// The largest payload that the server takes, in bytes.
    max_payload: Option<u64>,
}

impl Handshake {
    /// Reads the first packet of a session.
    pub(super) fn read(packet: &str) -> Result<Self, Malformed> {
        let read = match Frame::read(packet) {
            Ok(Frame::Open(data)) => serde_json::from_str(data).ok(),
            _ => None,
        };
        let sound = |handshake: &Self| !handshake.sid.is_empty() && handshake.sid.len() <= ID;
        read.filter(sound).ok_or_else(|| Malformed::new("no handshake of Engine.IO 4", packet))
    }

    /// How long no ping may come.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(self.ping_interval.saturating_add(self.ping_timeout)).min(LONGEST_SILENCE)
    }

    /// Whether it can be upgraded to a WebSocket.
    pub(super) fn upgrades(&self) -> bool {
        self.upgrades.iter().any(|transport| transport == "websocket")
    }

    /// The largest payload that the server takes, in bytes.
    pub(super) fn max_payload(&self) -> usize {
        self.max_payload.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
    }
}

/// A packet of Socket.IO, with what its attachments were.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Packet {
    /// The namespace takes the client in.
    Connect,
    /// It does not, and says why.
    ConnectError(Value),
    /// It puts the client out.
    Disconnect,
    /// Something happened: the event's name, and the list of its arguments.
    Event(String, Value),
    /// The server has taken up what was sent with this id, and answers with a list.
    Ack(u64, Value),
}

/// The packet that asks to be taken into a namespace.
pub(super) fn connect(namespace: &str, auth: Option<&Value>) -> String {
    format!("40{}{}", prefix(namespace), auth.map(Value::to_string).unwrap_or_default())
}

/// The packet that leaves it.
pub(super) fn disconnect(namespace: &str) -> String {
    format!("41{}", prefix(namespace))
}

/// The packet of an event; a list is several arguments. With an id it asks for an acknowledgement.
pub(super) fn event(namespace: &str, id: Option<u64>, name: &str, arguments: Value) -> String {
    let mut list = vec![Value::from(name)];
    match arguments {
        Value::Array(several) => list.extend(several),
        one => list.push(one),
    }
    let id = id.map(|id| id.to_string()).unwrap_or_default();
    format!("42{}{id}{}", prefix(namespace), Value::Array(list))
}

fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

/// What a packet begins with.
#[derive(Debug, PartialEq, Eq)]
struct Head<'t> {
    kind: Kind,
    attachments: usize,
    namespace: &'t str,
    id: Option<u64>,
    json: &'t str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
}

impl<'t> Head<'t> {
    fn read(text: &'t str) -> Result<Self, Malformed> {
        let wrong = |what: &str| Malformed::new(what, text);
        let mut rest = text.chars();
        let (kind, binary) = match rest.next() {
            Some('0') => (Kind::Connect, false),
            Some('1') => (Kind::Disconnect, false),
            Some('2') => (Kind::Event, false),
            Some('3') => (Kind::Ack, false),
            Some('4') => (Kind::ConnectError, false),
            Some('5') => (Kind::Event, true),
            Some('6') => (Kind::Ack, true),
            _ => return Err(wrong("no packet of Socket.IO")),
        };
        let mut rest = rest.as_str();
        let mut attachments = 0;
        if binary {
            let (count, behind) = rest.split_once('-').ok_or_else(|| wrong("no number of attachments"))?;
            attachments = number(count).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            if !(1..=ATTACHMENTS).contains(&attachments) {
                return Err(wrong("not 1 to 64 attachments"));
            }
            rest = behind;
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
            // A client may say something in a query; what answers belongs to the namespace without it.
            namespace = namespace.split('?').next().unwrap_or(namespace);
        }
        let json = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &rest[..rest.len() - json.len()];
        let id = if digits.is_empty() { None } else { Some(number(digits).ok_or_else(|| wrong("no id"))?) };
        Ok(Self { kind, attachments, namespace, id, json })
    }
}

/// A whole number in digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads the packets of one namespace out of messages; those of others are left out.
#[derive(Debug)]
pub(super) struct Decoder {
    namespace: String,
    /// The bytes that a packet may have with its attachments.
    limit: usize,
    waiting: Option<Waiting>,
}

/// A packet whose attachments have not all come.
#[derive(Debug)]
struct Waiting {
    /// Without it the packet is somebody else's.
    packet: Option<(Kind, Option<u64>, Value)>,
    wanted: usize,
    /// In base64, those that have come.
    attachments: Vec<Option<String>>,
    size: usize,
}

impl Decoder {
    /// For a namespace and packets up to so many bytes, their attachments among them.
    pub(super) fn new(namespace: &str, limit: usize) -> Self {
        Self { namespace: namespace.to_owned(), limit, waiting: None }
    }

    /// Reads a message that is a text. A packet that is whole with it comes with its size in bytes.
    pub(super) fn text(&mut self, text: &str) -> Result<Option<(Packet, usize)>, Malformed> {
        if self.waiting.is_some() {
            return Err(Malformed::new("a text where an attachment is to come", text));
        }
        self.check(text.len())?;
        let head = Head::read(text)?;
        let is_ours = head.namespace == self.namespace;
        let packet = if is_ours { Some((head.kind, head.id, json_of(&head, text)?)) } else { None };
        if head.attachments > 0 {
            let (wanted, size) = (head.attachments, text.len());
            self.waiting = Some(Waiting { packet, wanted, attachments: Vec::new(), size });
            return Ok(None);
        }
        packet.map(|(kind, id, data)| Ok((meant(kind, id, data)?, text.len()))).transpose()
    }

    /// Reads a binary message: an attachment.
    pub(super) fn binary(&mut self, bytes: &[u8]) -> Result<Option<(Packet, usize)>, Malformed> {
        let Some(mut waiting) = self.waiting.take() else {
            return Err(Malformed::of("an attachment of no packet"));
        };
        waiting.size = waiting.size.saturating_add(bytes.len());
        self.check(waiting.size)?;
        waiting.attachments.push(waiting.packet.is_some().then(|| STANDARD.encode(bytes)));
        if waiting.attachments.len() < waiting.wanted {
            self.waiting = Some(waiting);
            return Ok(None);
        }
        let Some((kind, id, mut data)) = waiting.packet else { return Ok(None) };
        fill(&mut data, &mut waiting.attachments)?;
        Ok(Some((meant(kind, id, data)?, waiting.size)))
    }

    fn check(&self, size: usize) -> Result<(), Malformed> {
        if size <= self.limit {
            return Ok(());
        }
        Err(Malformed::of(format!("a packet larger than {} bytes", self.limit)))
    }
}

fn json_of(head: &Head<'_>, text: &str) -> Result<Value, Malformed> {
    if head.json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(head.json).map_err(|_| Malformed::new("no JSON", text))
}

/// Puts attachments into their places, each into one: a packet must not grow by naming one of them again and again.
fn fill(value: &mut Value, attachments: &mut [Option<String>]) -> Result<(), Malformed> {
    if value.get("_placeholder") == Some(&Value::Bool(true)) {
        let place = value.get("num").and_then(Value::as_u64).and_then(|place| usize::try_from(place).ok());
        let attachment = place.and_then(|place| attachments.get_mut(place)).and_then(Option::take);
        *value = Value::String(attachment.ok_or_else(|| Malformed::of("a place without its attachment"))?);
        return Ok(());
    }
    match value {
        Value::Array(list) => list.iter_mut().try_for_each(|value| fill(value, attachments)),
        Value::Object(table) => table.values_mut().try_for_each(|value| fill(value, attachments)),
        _ => Ok(()),
    }
}

/// What a packet says.
fn meant(kind: Kind, id: Option<u64>, data: Value) -> Result<Packet, Malformed> {
    let wrong = |what: &str, data: &Value| Err(Malformed::new(what, &data.to_string()));
    match (kind, data) {
        (Kind::Connect, Value::Null | Value::Object(_)) => Ok(Packet::Connect),
        (Kind::Connect, data) => wrong("what answers a connection is no object", &data),
        (Kind::ConnectError, data) => Ok(Packet::ConnectError(data)),
        (Kind::Disconnect, _) => Ok(Packet::Disconnect),
        (Kind::Event, Value::Array(mut list)) if !list.is_empty() => match list.remove(0) {
            Value::String(name) => Ok(Packet::Event(name, Value::Array(list))),
            Value::Number(name) => Ok(Packet::Event(name.to_string(), Value::Array(list))),
            other => wrong("an event without a name", &other),
        },
        (Kind::Event, data) => wrong("an event without a name", &data),
        (Kind::Ack, data @ Value::Array(_)) => match id {
            Some(id) => Ok(Packet::Ack(id, data)),
            None => wrong("an acknowledgement without an id", &data),
        },
        (Kind::Ack, data) => wrong("an acknowledgement that is no list", &data),
    }
}

#[cfg(test)]
mod tests;
