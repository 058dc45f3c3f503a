//! WebSocket (RFC 6455) over a stamped socket: every message comes with the stamp of the read that completed it.
//!
//! Not a library's: tungstenite has no permessage-deflate, and what has it reads ahead of whoever asks for messages, so
//! that a stamp could not be told. Deflate itself is flate2's.

mod deflate;
mod frame;
mod handshake;

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Uri};
use tokio::io::AsyncWrite;

use self::deflate::Deflate;
use self::frame::{Decoder, Opcode};
use super::connect::{ConnectError, ConnectTimes, Endpoint, Stream};
use super::http::{HttpConnection, HttpError, Progress};
use super::http1::{classify, read_into_scratch};
use super::socket::Traffic;
use super::stamp::ReadStamp;
use crate::clock::Nanos;

pub use self::frame::Incoming;
pub use self::handshake::UpgradeError;

/// The most bytes of a refusal that are kept.
const REFUSAL: usize = 16 << 10;
/// The most bytes that may wait to be sent: a peer that takes nothing is not fed any more.
const UNSENT: usize = 4 << 20;

/// What a socket is opened with.
pub struct Opening<'a> {
    /// Path and query.
    pub uri: Uri,
    /// The headers of the request besides the handshake's own, the host among them.
    pub headers: &'a HeaderMap,
    /// The subprotocols that are offered.
    pub subprotocols: &'a [String],
    /// Whether permessage-deflate is offered.
    pub deflate: bool,
    /// The largest message that may come, in bytes, after inflating.
    pub message_limit: usize,
}

/// Why a socket is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It broke before the answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer is not the upgrade that was asked for.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
}

/// What went wrong on an open socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The connection ended without a close frame.
    #[error("the connection was closed without a close frame")]
    Closed,
    /// Reset by the peer.
    #[error("the connection was reset")]
    Reset,
    /// A message is larger than the limit.
    #[error("a message is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not WebSocket as the standard has it.
    #[error("not WebSocket as the standard has it: {0}")]
    Protocol(String),
}

impl From<HttpError> for SocketError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Closed | HttpError::Truncated => Self::Closed,
            HttpError::Reset => Self::Reset,
            HttpError::Protocol(what) | HttpError::Tls(what) => Self::Protocol(what),
        }
    }
}

/// A message to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing<'a> {
    /// A text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// A ping, with at most 125 bytes.
    Ping(&'a [u8]),
    /// The answer to one, with its bytes.
    Pong(&'a [u8]),
    /// The end, with a code and a reason of at most 123 bytes.
    Close(u16, &'a str),
}

/// An open socket.
pub struct WebSocket {
    stream: Stream,
    traffic: Rc<Traffic>,
    decoder: Decoder,
    /// Bytes that were read and not used yet.
    wire: Vec<u8>,
    unsent: BytesMut,
    /// Whether what is sent is deflated.
    deflate: Option<Deflate>,
    deflates: bool,
    subprotocol: Option<String>,
    /// Whether the end of a read can be seen in the bytes.
    plain: bool,
    /// How long connecting took.
    pub times: ConnectTimes,
}

impl WebSocket {
    /// Connects, asks for the upgrade and waits for the answer.
    ///
    /// # Errors
    /// What failed: the connection, HTTP, or the upgrade.
    pub async fn open(endpoint: &Endpoint, opening: &Opening<'_>) -> Result<Self, OpenError> {
        let mut connection = HttpConnection::open_http1(endpoint).await?;
        let key = handshake::key();
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = opening.uri.clone();
        request.headers_mut().clone_from(opening.headers);
        handshake::ask(request.headers_mut(), &key, opening)?;
        let response = connection.send(&request).await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = beginning(&mut connection).await;
            return Err(UpgradeError::Refused { status, headers: Box::new(headers), text }.into());
        }
        let agreed = handshake::check(&response, &key, opening)?;
        let times = connection.times;
        let Some((stream, traffic, wire)) = connection.into_stream() else {
            return Err(UpgradeError::Malformed("an upgrade over HTTP/2".to_owned()).into());
        };
        let deflates = agreed.deflate.is_some();
        let (inflate, deflate) = agreed.deflate.map_or((None, None), |terms| terms.begin(opening.message_limit));
        Ok(Self {
            plain: times.tls.is_none(),
            stream,
            traffic,
            decoder: Decoder::new(opening.message_limit, inflate),
            wire,
            unsent: BytesMut::new(),
            deflate,
            deflates,
            subprotocol: agreed.subprotocol,
            times,
        })
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Whether permessage-deflate was agreed on.
    pub fn deflates(&self) -> bool {
        self.deflates
    }

    /// What is sent next begins something: [`Self::sent_at`] tells of its first byte.
    pub fn mark_send(&mut self) {
        self.traffic.first_write.set(None);
    }

    /// When the first byte since [`Self::mark_send`] was handed to the socket.
    pub fn sent_at(&self) -> Option<Nanos> {
        self.traffic.first_write.get()
    }

    /// When the newest read arrived.
    pub fn stamp(&self) -> ReadStamp {
        self.traffic.stamp.get()
    }

    /// Whether something was read that nobody has taken yet.
    pub fn has_more(&self) -> bool {
        !self.wire.is_empty()
    }

    /// Queues a message, which is written by [`Self::flush`] and by [`Self::poll_message`]. What a peer does not take
    /// is not kept without end: then the message is dropped.
    pub fn queue(&mut self, message: Outgoing<'_>) {
        if self.unsent.len() > UNSENT {
            return;
        }
        let (opcode, payload) = match message {
            Outgoing::Text(text) => (Opcode::Text, text.as_bytes()),
            Outgoing::Binary(bytes) => (Opcode::Binary, bytes),
            Outgoing::Ping(bytes) => (Opcode::Ping, &bytes[..bytes.len().min(frame::CONTROL)]),
            Outgoing::Pong(bytes) => (Opcode::Pong, &bytes[..bytes.len().min(frame::CONTROL)]),
            Outgoing::Close(code, reason) => {
                let reason = &reason.as_bytes()[..reason.floor_char_boundary(frame::CONTROL - 2)];
                let payload = [&code.to_be_bytes(), reason].concat();
                return frame::encode(&mut self.unsent, Opcode::Close, false, &payload);
            }
        };
        match &mut self.deflate {
            Some(deflate) if opcode.is_data() => {
                frame::encode(&mut self.unsent, opcode, true, &deflate.message(payload));
            }
            _ => frame::encode(&mut self.unsent, opcode, false, payload),
        }
    }

    /// Writes what is queued.
    ///
    /// # Errors
    /// What broke.
    pub async fn flush(&mut self) -> Result<(), SocketError> {
        poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Hands every message that has come to `take`, with the stamp of the read that completed it and the number of
    /// bytes behind it in that read. Reads at most once; writes what is queued. Pings are told, not answered. Once
    /// `take` has had enough, the rest waits for the next call.
    ///
    /// The stamp's `whole` tells whether the read ended with the message.
    pub fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Incoming<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Poll<Result<(), SocketError>> {
        if !self.unsent.is_empty() {
            // What cannot be written is told by reading.
            let _ = self.poll_write(cx);
        }
        let waited = std::mem::take(&mut self.wire);
        if !waited.is_empty() {
            return Poll::Ready(self.feed(&waited, &mut take));
        }
        let read = ready!(read_into_scratch(
            cx,
            self,
            |this| &mut this.stream,
            |this, bytes| { if bytes.is_empty() { Err(SocketError::Closed) } else { this.feed(bytes, &mut take) } }
        ));
        Poll::Ready(read.unwrap_or_else(|error| Err(error.into())))
    }

    fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(Incoming<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Result<(), SocketError> {
        let stamp = self.traffic.stamp.get();
        let plain = self.plain;
        let used = self
            .decoder
            .feed(bytes, |incoming, rest| take(incoming, ReadStamp { whole: plain && rest == 0, ..stamp }, rest))?;
        self.wire.extend_from_slice(&bytes[used..]);
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent)) {
                Ok(0) => return Poll::Ready(Err(SocketError::Closed)),
                Ok(count) => self.unsent.advance(count),
                Err(error) => return Poll::Ready(Err(classify(&error).into())),
            }
        }
        // An idle socket keeps no buffer.
        self.unsent = BytesMut::new();
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| classify(&error).into()))
    }
}

/// The beginning of a refusal's body; what breaks it off is no matter here.
async fn beginning(connection: &mut HttpConnection) -> String {
    let mut text = Vec::new();
    while text.len() < REFUSAL {
        let piece = poll_fn(|cx| {
            connection.poll_body(cx, |data, _| {
                text.extend_from_slice(data);
                ControlFlow::Continue(())
            })
        });
        if !matches!(piece.await, Ok(Progress::More)) {
            break;
        }
    }
    text.truncate(REFUSAL);
    String::from_utf8_lossy(&text).into_owned()
}
