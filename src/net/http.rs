//! A connection that carries HTTP, in the version that was agreed on when it was opened.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Version};

use super::connect::{Alpn, ConnectError, ConnectTimes, Connected, Endpoint, Stream};
use super::framing::Malformed;
use super::http1::Http1;
use super::http2::Http2;
use super::socket::Traffic;
use super::stamp::ReadStamp;
use crate::clock::Nanos;

/// A connection of one user, with one response at a time that is read from it.
pub struct HttpConnection {
    spoken: Spoken,
    /// How long connecting took.
    pub times: ConnectTimes,
}

/// What is spoken on it.
enum Spoken {
    Http1(Http1),
    Http2(Http2),
}

/// What is left of a connection on which something else is spoken from now on.
pub(super) struct Upgraded {
    pub(super) stream: Stream,
    pub(super) traffic: Rc<Traffic>,
    /// What was not sent yet of the newest request.
    pub(super) unsent: Option<Bytes>,
    /// What came after the response's head, with the newest read.
    pub(super) wire: Vec<u8>,
    pub(super) times: ConnectTimes,
}

/// What went wrong on an open connection.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Closed by the peer before a response's head was whole, or the request was not taken up.
    #[error("the connection was closed before a response")]
    Closed,
    /// Closed by the peer in the middle of a response.
    #[error("the connection was closed in the middle of the response")]
    Truncated,
    /// Reset by the peer: the connection, or this stream of it.
    #[error("the connection was reset")]
    Reset,
    /// Broken off by TLS. A server that wants a client certificate and gets none says so only after the handshake, as
    /// TLS 1.3 sees it (RFC 8446, 4.4.2.4).
    #[error("TLS broke off: {0}")]
    Tls(String),
    /// Not HTTP as the standard has it.
    #[error("not HTTP as the standard has it: {0}")]
    Protocol(String),
}

impl From<Malformed> for HttpError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Protocol(what)
    }
}

/// Whether more of a body may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It may.
    More,
    /// It was the last of it.
    End,
}

impl HttpConnection {
    /// Connects to an endpoint, with HTTP/2 where both sides want it.
    ///
    /// # Errors
    /// What failed: name, TCP, TLS or the time limit.
    ///
    /// # Panics
    /// With HTTP/2 outside of a local runtime, whose task drives the connection.
    pub async fn open(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let Connected { stream, traffic, times, address } = endpoint.connect(endpoint.offer()).await?;
        let spoken = if stream.is_http2() {
            let begun = Http2::begin(stream, traffic).await;
            Spoken::Http2(begun.map_err(|source| ConnectError::Io { address, source })?)
        } else {
            Spoken::Http1(Http1::new(stream, traffic))
        };
        Ok(Self { spoken, times })
    }

    /// Connects to an endpoint with HTTP/1.1 alone, which is what a WebSocket is upgraded from.
    pub(super) async fn open_http1(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let Connected { stream, traffic, times, .. } = endpoint.connect(Alpn::Http1).await?;
        Ok(Self { spoken: Spoken::Http1(Http1::new(stream, traffic)), times })
    }

    /// What is left of a connection on which something else is spoken from now on; HTTP/2 has nothing of the kind.
    pub(super) fn upgrade(self) -> Option<Upgraded> {
        let times = self.times;
        match self.spoken {
            Spoken::Http1(connection) => {
                let (stream, traffic, unsent, wire) = connection.upgrade();
                Some(Upgraded { stream, traffic, unsent, wire, times })
            }
            Spoken::Http2(_) => None,
        }
    }

    /// What is spoken on it.
    pub fn version(&self) -> Version {
        match self.spoken {
            Spoken::Http1(_) => Version::HTTP_11,
            Spoken::Http2(_) => Version::HTTP_2,
        }
    }

    /// The same connection for another request beside the one that is under way, where what is spoken allows that:
    /// HTTP/2 does, HTTP/1.1 does not.
    pub fn another(&self) -> Option<Self> {
        match &self.spoken {
            Spoken::Http1(_) => None,
            Spoken::Http2(connection) => Some(Self { spoken: Spoken::Http2(connection.another()), times: self.times }),
        }
    }

    /// Whether another request can be sent: the peer has not closed, and the last response was read to its end. With
    /// HTTP/2 what is left of it is given up, and no longer in the way. Does not wait.
    pub fn is_usable(&mut self) -> bool {
        match &mut self.spoken {
            Spoken::Http1(connection) => connection.is_usable(),
            Spoken::Http2(connection) => connection.is_usable(),
        }
    }

    /// Sends a request, which has its host among its headers, and waits for the response's head.
    ///
    /// # Errors
    /// What broke on the way.
    pub async fn send(&mut self, request: &Request<Bytes>) -> Result<Response<()>, HttpError> {
        match &mut self.spoken {
            Spoken::Http1(connection) => connection.send(request).await,
            Spoken::Http2(connection) => connection.send(request).await,
        }
    }

    /// Whether nothing at all has come in answer to the newest request.
    pub fn is_unanswered(&self) -> bool {
        match &self.spoken {
            Spoken::Http1(connection) => connection.is_unanswered(),
            Spoken::Http2(connection) => connection.is_unanswered(),
        }
    }

    /// Whether something was read that nobody has taken yet. Of HTTP/2, whose stamps are never exact, it is not told.
    pub fn has_more(&self) -> bool {
        match &self.spoken {
            Spoken::Http1(connection) => connection.has_more(),
            Spoken::Http2(_) => false,
        }
    }

    /// When the newest request's first byte was handed to the socket.
    pub fn sent_at(&self) -> Option<Nanos> {
        match &self.spoken {
            Spoken::Http1(connection) => connection.sent_at(),
            Spoken::Http2(connection) => connection.sent_at(),
        }
    }

    /// When what came last arrived.
    pub fn stamp(&self) -> ReadStamp {
        match &self.spoken {
            Spoken::Http1(connection) => connection.stamp(),
            Spoken::Http2(connection) => connection.stamp(),
        }
    }

    /// Hands what has come of the response's body to `take`, piece by piece, with the stamp of the read that brought
    /// it. Reads at most once. Once `take` has had enough, the rest waits for the next call.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnMut(&[u8], ReadStamp) -> ControlFlow<()>,
    ) -> Poll<Result<Progress, HttpError>> {
        match &mut self.spoken {
            Spoken::Http1(connection) => connection.poll_body(cx, take),
            Spoken::Http2(connection) => connection.poll_body(cx, take),
        }
    }
}
