//! WebSocket over a stamped socket (RFC 6455): every message comes with the stamp of the read that brought its last
//! byte.
//!
//! Framing of our own, because the stamp must be that read's, and a message that lies in one read is handed on where it
//! lies. DEFLATE itself is zlib's, in Rust.

mod deflate;
mod frame;
mod handshake;
mod message;
mod outbox;

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use tokio::io::AsyncRead;

use self::deflate::Inflater;
use self::frame::Violation;
pub use self::handshake::{Opening, UpgradeError};
use self::message::Decoder;
pub use self::message::Incoming;
use self::outbox::Outbox;
pub use self::outbox::Outgoing;
use super::connect::{ConnectError, ConnectTimes, Endpoint, Stream};
use super::http::{HttpConnection, HttpError, Progress, Upgraded};
use super::http1::classify;
use super::scratch::with_scratch;
use super::socket::Traffic;
use super::stamp::ReadStamp;
use crate::clock::Nanos;

/// The bytes that are read of what a server says when it refuses.
const REFUSAL: usize = 16 << 10;
/// How long that may take: the status is known already, and worth more.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// One open connection.
pub struct WebSocket {
    stream: Stream,
    traffic: Rc<Traffic>,
    /// Bytes of the newest read that were not used yet.
    wire: Vec<u8>,
    decoder: Decoder,
    outbox: Outbox,
    /// Whether nothing more is read: the server has closed, or the connection has failed.
    over: bool,
    subprotocol: Option<String>,
    deflates: bool,
    /// How long connecting took.
    pub times: ConnectTimes,
}

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It broke before the answer was there.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer is no upgrade, or not the one that was asked for.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
}

/// What went wrong on an open WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The connection has ended: without a close, or after one that [`Incoming::Close`] told.
    #[error("the connection was closed")]
    Closed,
    /// Reset by the peer.
    #[error("the connection was reset")]
    Reset,
    /// A message is larger than was allowed, as it came or inflated.
    #[error("a message is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not WebSocket as the standard has it, or TLS broke off.
    #[error("not WebSocket: {0}")]
    Protocol(String),
}

impl From<Violation> for SocketError {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::TooLarge { limit } => Self::TooLarge { limit },
            other => Self::Protocol(other.to_string()),
        }
    }
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

impl WebSocket {
    /// Connects, asks for the upgrade, and waits for the answer; sets no time limit but that of connecting. Box it:
    /// it is done once, and its state would lie in every open stream otherwise.
    ///
    /// # Errors
    /// What failed: connecting, HTTP, or the upgrade itself.
    pub async fn open(endpoint: &Endpoint, opening: &Opening<'_>) -> Result<Self, OpenError> {
        let key = handshake::key(outbox::random());
        let request = handshake::request(opening, &key)?;
        let mut connection = HttpConnection::open_http1(endpoint).await?;
        let response = connection.send(&request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let text = refusal(&mut connection).await;
            return Err(UpgradeError::Refused { status: response.status(), text }.into());
        }
        let terms = handshake::check(&response, &key, opening)?;
        let Some(Upgraded { stream, traffic, unsent, wire, times }) = connection.upgrade() else {
            return Err(UpgradeError::Malformed("an upgrade over HTTP/2".to_owned()).into());
        };
        Ok(Self {
            stream,
            traffic,
            wire,
            decoder: Decoder::new(opening.message_limit, terms.deflate.map(Inflater::new)),
            outbox: Outbox::new(terms.deflate, unsent),
            over: false,
            subprotocol: terms.subprotocol,
            deflates: terms.deflate.is_some(),
            times,
        })
    }

    /// The subprotocol that the server chose of those offered.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Whether permessage-deflate was agreed on.
    pub fn deflates(&self) -> bool {
        self.deflates
    }

    /// When the first byte since [`Self::mark_send`] was handed to the socket; before any mark, the first of the
    /// request for the upgrade.
    pub fn sent_at(&self) -> Option<Nanos> {
        self.traffic.first_write.get()
    }

    /// What is sent from now on is what [`Self::sent_at`] tells of. Call it right before queueing that.
    pub fn mark_send(&mut self) {
        self.traffic.first_write.set(None);
    }

    /// When the newest read arrived.
    pub fn stamp(&self) -> ReadStamp {
        self.traffic.stamp.get()
    }

    /// Whether something was read that nobody has taken yet.
    pub fn has_more(&self) -> bool {
        !self.wire.is_empty()
    }

    /// Queues a message; [`Self::poll_message`] and [`Self::flush`] write it. After a close, received or sent, it is
    /// dropped.
    pub fn queue(&mut self, message: Outgoing<'_>) {
        self.outbox.queue(message);
    }

    /// Writes all that was queued.
    ///
    /// # Errors
    /// When the socket does not take it, or more was queued than may wait.
    pub async fn flush(&mut self) -> Result<(), SocketError> {
        poll_fn(|cx| self.outbox.poll_write(&mut self.stream, cx)).await;
        self.outbox.failure().map_or(Ok(()), Err)
    }

    /// Hands what has come to `take`, message by message, with the stamp of the read that brought its last byte and
    /// how many bytes of that read come after it. Reads at most once, and writes what is queued. Once `take` has had
    /// enough, the rest waits for the next call. A ping is answered, and told nevertheless: it is a sign of life.
    ///
    /// The stamp is `whole` where the message ended the read of a socket without TLS, whatever its last byte was.
    ///
    /// # Errors
    /// After one, nothing more comes; the server is told why, as far as it still reads. After a close that came, the
    /// next call ends with [`SocketError::Closed`] once the answer is written.
    pub fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Incoming<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Poll<Result<(), SocketError>> {
        let written = self.outbox.poll_write(&mut self.stream, cx);
        if let Some(error) = self.outbox.overflow() {
            return Poll::Ready(Err(error));
        }
        if self.over {
            ready!(written);
            return Poll::Ready(Err(SocketError::Closed));
        }
        let waited = std::mem::take(&mut self.wire);
        let fed = if waited.is_empty() {
            ready!(with_scratch(|buffer| {
                let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
                Poll::Ready(match read {
                    Ok(()) if buffer.filled().is_empty() => Err(SocketError::Closed),
                    Ok(()) => self.feed(buffer.filled(), &mut take),
                    Err(error) => Err(classify(&error).into()),
                })
            }))
        } else {
            self.feed(&waited, &mut take)
        };
        self.over |= fed.is_err();
        // Pongs, the answer to a close, or why the connection has failed.
        let _ = self.outbox.poll_write(&mut self.stream, cx);
        Poll::Ready(match fed {
            Err(SocketError::Closed) => Err(self.outbox.failure().unwrap_or(SocketError::Closed)),
            fed => fed,
        })
    }

    /// Takes what was read.
    fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(Incoming<'_>, ReadStamp, usize) -> ControlFlow<()>,
    ) -> Result<(), SocketError> {
        let (stamp, is_plain) = (self.stamp(), matches!(self.stream, Stream::Plain(_)));
        let (outbox, over) = (&mut self.outbox, &mut self.over);
        let fed = self.decoder.feed(bytes, |incoming, rest| {
            match incoming {
                Incoming::Ping(data) => outbox.pong(data),
                Incoming::Close { code, .. } => {
                    outbox.close(code, "");
                    *over = true;
                }
                Incoming::Text(_) | Incoming::Binary(_) | Incoming::Pong(_) => {}
            }
            take(incoming, ReadStamp { whole: is_plain && rest == 0, ..stamp }, rest)
        });
        match fed {
            Ok(_) if self.over => Ok(()),
            Ok(used) => {
                self.wire.extend_from_slice(&bytes[used..]);
                Ok(())
            }
            Err(violation) => {
                self.outbox.close(Some(violation.code()), &violation.to_string());
                Err(violation.into())
            }
        }
    }
}

/// The beginning of what a server says when it refuses an upgrade.
async fn refusal(connection: &mut HttpConnection) -> String {
    let mut text = Vec::new();
    let read = async {
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
    };
    let _ = tokio::time::timeout(REFUSAL_TIME, read).await;
    text.truncate(REFUSAL);
    String::from_utf8_lossy(&text).into_owned()
}
