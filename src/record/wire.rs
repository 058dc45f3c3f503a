//! What a turn's stream was carried by.

/// What a turn's stream was carried by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wire {
    /// HTTP/1.1: a connection for each open stream.
    Http1,
    /// HTTP/2: a connection for all of a user's streams.
    Http2,
    /// A WebSocket, its messages as they are.
    WebSocket,
    /// A WebSocket whose messages are compressed (RFC 7692).
    WebSocketDeflate,
}

impl Wire {
    /// The name in results and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::WebSocket => "WebSocket",
            Self::WebSocketDeflate => "WebSocket with permessage-deflate",
        }
    }
}
