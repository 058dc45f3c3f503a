//! Protocols over sockets, as they are written.

use std::time::Duration;

use http::HeaderName;

use super::parts::Reading;
use crate::scenario::file::{SocketIoSection, WebSocketSection};
use crate::scenario::{SocketIoPlan, WebSocketPlan};

/// The largest message, in bytes: without a word, at least, at most.
const MESSAGE: u32 = 1 << 20;
const SMALLEST: u32 = 1 << 10;
const LARGEST: u32 = 64 << 20;
/// The pauses that are meant without a word.
const RECONNECT: Duration = Duration::from_secs(1);
const PONG: Duration = Duration::from_secs(20);
/// Events that Socket.IO has for itself.
const RESERVED: [&str; 3] = ["connect", "connect_error", "disconnect"];

impl Reading<'_, '_> {
    pub(super) fn websocket(&mut self, section: &WebSocketSection) -> WebSocketPlan {
        let at = |name: &str| format!("target.websocket.{name}");
        if section.message.is_empty() {
            self.add(&at("message"), "is missing: what is sent for a turn, such as '{\"text\": \"{{prompt}}\"}'");
        }
        for (index, name) in section.subprotocols.iter().enumerate() {
            // Both are tokens (RFC 6455, 4.1; RFC 9110, 5.1).
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.add(&at(&format!("subprotocols[{index}]")), format!("`{name}` is no subprotocol"));
            }
        }
        let headers = self.headers("target.websocket", &section.headers);
        for (name, _) in headers.iter().filter(|(name, _)| name.as_str().starts_with("sec-websocket-")) {
            self.add(&at(&format!("headers.{name}")), "is told by the opening itself; see `subprotocols`");
        }
        if !section.capture.is_empty() && section.opened.is_none() {
            self.add(&at("capture"), "wants `opened`: which message it stands in");
        }
        let ping = section.ping_interval.is_some().then(|| {
            let interval = self.pause(&at("ping_interval"), section.ping_interval.as_deref(), PONG);
            (interval, self.pause(&at("ping_timeout"), section.ping_timeout.as_deref(), PONG))
        });
        if ping.is_none() && section.ping_timeout.is_some() {
            self.add(&at("ping_timeout"), "wants `ping_interval`");
        }
        let message = self.message(&at("message"), &section.message);
        if !section.message.is_empty() {
            self.reaches(&message.names(), &at("message"));
        }
        let each = section.open.iter().enumerate();
        let open = each.map(|(index, text)| self.message(&at(&format!("open[{index}]")), text)).collect();
        let mut optional =
            |name: &str, text: &Option<String>| text.as_deref().map(|text| self.message(&at(name), text));
        let (cancel, resume) = (optional("cancel", &section.cancel), optional("resume", &section.resume));
        let heartbeat_reply = optional("heartbeat_reply", &section.heartbeat_reply);
        if heartbeat_reply.is_some() && section.reply.heartbeat.is_none() {
            self.add(&at("heartbeat_reply"), "wants `reply.heartbeat`: what it answers");
        }
        WebSocketPlan {
            path: self.path(&at("path"), section.path.as_deref().unwrap_or("/")),
            subprotocols: section.subprotocols.clone(),
            headers,
            open,
            opened: section.opened.as_ref().map(|opened| self.condition(&at("opened"), opened)),
            capture: self.captures("target.websocket", &section.capture),
            message,
            cancel,
            resume,
            heartbeat_reply,
            reply: self.reply(&at("reply"), &section.reply, false),
            socket: section.socket.unwrap_or_default(),
            ping,
            deflate: section.deflate.unwrap_or(true),
            message_limit: self.limit(&at("message_limit"), section.message_limit),
            reconnect: self.pause(&at("reconnect"), section.reconnect.as_deref(), RECONNECT),
        }
    }

    pub(super) fn socketio(&mut self, section: &SocketIoSection) -> SocketIoPlan {
        let at = |name: &str| format!("target.socketio.{name}");
        for (name, event) in [("event", Some(&section.event)), ("cancel_event", section.cancel_event.as_ref())] {
            match event.map(String::as_str) {
                Some("") => self.add(&at(name), "is missing: the name of an event, such as message"),
                Some(event) if RESERVED.contains(&event) => {
                    self.add(&at(name), format!("`{event}` is an event of Socket.IO itself"));
                }
                _ => {}
            }
        }
        if section.arguments.is_empty() {
            self.add(&at("arguments"), "are missing: what is sent for a turn, such as '[{\"text\": \"{{prompt}}\"}]'");
        }
        if section.cancel_arguments.is_some() && section.cancel_event.is_none() {
            self.add(&at("cancel_arguments"), "want `cancel_event`");
        }
        // Without a place the path is one text for all.
        let path = section.path.as_deref().unwrap_or("/socket.io/");
        if !self.path(&at("path"), path).names().is_empty() {
            self.add(&at("path"), "is the same for everybody: no place stands in it");
        }
        let namespace = section.namespace.as_deref().unwrap_or("/");
        if !namespace.starts_with('/') || namespace.contains([',', '?']) {
            self.add(&at("namespace"), format!("`{namespace}` should begin with /, such as /chat"));
        }
        let given = !section.arguments.is_empty();
        let arguments = self.json(&at("arguments"), if given { &section.arguments } else { "[]" });
        if given {
            self.reaches(&arguments.names(), &at("arguments"));
        }
        let cancel = section.cancel_event.clone().map(|event| {
            let arguments = section.cancel_arguments.as_deref().unwrap_or("[]");
            (event, self.json(&at("cancel_arguments"), arguments))
        });
        SocketIoPlan {
            path: path.to_owned(),
            namespace: namespace.to_owned(),
            transport: section.transport.unwrap_or_default(),
            headers: self.headers("target.socketio", &section.headers),
            auth: section.auth.as_deref().map(|auth| self.json(&at("auth"), auth)),
            event: section.event.clone(),
            arguments,
            acknowledge: section.acknowledge.unwrap_or(false),
            cancel,
            reply: self.reply(&at("reply"), &section.reply, false),
            deflate: section.deflate.unwrap_or(true),
            message_limit: self.limit(&at("message_limit"), section.message_limit),
            reconnect: self.pause(&at("reconnect"), section.reconnect.as_deref(), RECONNECT),
        }
    }

    /// A duration above 0.
    fn pause(&mut self, path: &str, text: Option<&str>, default: Duration) -> Duration {
        let found = self.problems.duration(path, text, default);
        if found.is_zero() {
            self.add(path, "should be above 0");
        }
        found
    }

    /// The largest message.
    fn limit(&mut self, path: &str, bytes: Option<u32>) -> usize {
        let bytes = bytes.unwrap_or(MESSAGE);
        if !(SMALLEST..=LARGEST).contains(&bytes) {
            self.add(path, format!("should be from {SMALLEST} to {LARGEST} bytes"));
        }
        bytes as usize
    }
}
