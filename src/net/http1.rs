//! HTTP/1.1 over a stamped socket, read where it arrives: every piece of a body comes with the stamp of the read that
//! brought it.
//!
//! Not hyper: its body channel and its wake-ups were a sixth of what a token costs the generator, and a stamp had to
//! be carried beside it. The grammar of a head is httparse's, as it is hyper's; [`super::framing`] has the rest.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connect::Stream;
use super::framing::{self, Body, HEAD, Head};
use super::http::{HttpError, Progress};
use super::scratch::with_scratch;
use super::socket::Traffic;
use super::stamp::ReadStamp;
use crate::clock::Nanos;

/// One keep-alive connection.
pub(super) struct Http1 {
    stream: Stream,
    traffic: Rc<Traffic>,
    /// What is left of the newest request, until all of it was sent.
    unsent: Option<Bytes>,
    /// Why the rest of it was not taken.
    refused: Option<HttpError>,
    /// Bytes of heads before the newest response's own; nothing until any head has come.
    interim: Option<usize>,
    /// Bytes that were read and not used yet.
    wire: Vec<u8>,
    /// What is still to come of the newest response.
    body: Body,
    /// Whether another request may follow it.
    keep_alive: bool,
}

impl Http1 {
    /// On a stream that has just been connected.
    pub(super) fn new(stream: Stream, traffic: Rc<Traffic>) -> Self {
        let (wire, body) = (Vec::new(), Body::Over);
        Self { stream, traffic, unsent: None, refused: None, interim: None, wire, body, keep_alive: true }
    }

    /// Looks at the socket, does not wait.
    pub(super) fn is_usable(&mut self) -> bool {
        let idle = self.keep_alive && self.unsent.is_none() && self.wire.is_empty() && self.body == Body::Over;
        let cx = &mut Context::from_waker(Waker::noop());
        // Whatever there is to read now, an end among it, was not asked for.
        idle && self.poll_read(cx, |_, _| ()).is_pending()
    }

    /// Sends a request, which has its host among its headers, and waits for the response's head.
    ///
    /// # Errors
    /// What broke on the way.
    pub(super) async fn send(&mut self, request: &Request<Bytes>) -> Result<Response<()>, HttpError> {
        self.traffic.first_write.set(None);
        (self.unsent, self.refused, self.interim) = (Some(framing::write(request)), None, None);
        poll_fn(|cx| {
            // A server may answer before it has read everything, and may refuse to read the rest.
            let _ = self.poll_write(cx);
            let head = ready!(self.poll_head(cx));
            Poll::Ready(match head {
                Err(HttpError::Closed) => Err(self.refused.take().unwrap_or(HttpError::Closed)),
                head => head,
            })
        })
        .await
    }

    /// Whether nothing at all has come in answer to the newest request.
    pub(super) fn is_unanswered(&self) -> bool {
        self.interim.is_none() && self.wire.is_empty()
    }

    /// Whether something was read that nobody has taken yet.
    pub(super) fn has_more(&self) -> bool {
        !self.wire.is_empty()
    }

    /// When the newest request's first byte was handed to the socket.
    pub(super) fn sent_at(&self) -> Option<Nanos> {
        self.traffic.first_write.get()
    }

    /// When the newest read arrived.
    pub(super) fn stamp(&self) -> ReadStamp {
        self.traffic.stamp.get()
    }

    /// Hands what has come of the response's body to `take`, piece by piece, with the stamp of the read that brought
    /// it. Reads at most once. Once `take` has had enough, the rest waits for the next call.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8], ReadStamp) -> ControlFlow<()>,
    ) -> Poll<Result<Progress, HttpError>> {
        if self.body == Body::Over {
            return Poll::Ready(Ok(Progress::End));
        }
        if self.unsent.is_some() {
            let _ = self.poll_write(cx);
        }
        let waited = std::mem::take(&mut self.wire);
        if waited.is_empty() {
            match ready!(self.poll_read(cx, |this, bytes| this.feed(bytes, &mut take))) {
                Ok(fed) => fed?,
                Err(HttpError::Closed) => return Poll::Ready(Err(HttpError::Truncated)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        } else {
            self.feed(&waited, &mut take)?;
        }
        Poll::Ready(Ok(if self.body == Body::Over { Progress::End } else { Progress::More }))
    }

    /// Takes what was read of a body; no bytes are the end of the connection.
    fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut impl FnMut(&[u8], ReadStamp) -> ControlFlow<()>,
    ) -> Result<(), HttpError> {
        if bytes.is_empty() {
            let ended = std::mem::replace(&mut self.body, Body::Over) == Body::UntilClose;
            self.keep_alive = false;
            return if ended { Ok(()) } else { Err(HttpError::Truncated) };
        }
        let stamp = self.stamp();
        let used = self.body.feed(bytes, |data| take(data, stamp))?;
        self.wire.extend_from_slice(&bytes[used..]);
        Ok(())
    }

    /// Reads once; gives what `take` makes of it.
    fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Self, &[u8]) -> T,
    ) -> Poll<Result<T, HttpError>> {
        with_scratch(|buffer| match ready!(Pin::new(&mut self.stream).poll_read(cx, buffer)) {
            Ok(()) => Poll::Ready(Ok(take(self, buffer.filled()))),
            Err(error) => Poll::Ready(Err(classify(&error))),
        })
    }

    /// What is left of the connection after `101 Switching Protocols` (RFC 9110, 15.2.2).
    pub(super) fn upgrade(self) -> (Stream, Rc<Traffic>, Option<Bytes>, Vec<u8>) {
        (self.stream, self.traffic, self.unsent, self.wire)
    }

    /// Reads up to the end of the response's head.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, HttpError>> {
        loop {
            if let Some(head) = Head::read(&self.wire)? {
                self.wire.drain(..head.length);
                // What comes before the response itself: 100 Continue, 103 Early Hints.
                let status = head.response.status();
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    // A body that has not begun needs no room.
                    self.wire.shrink_to_fit();
                    self.interim.get_or_insert_default();
                    (self.body, self.keep_alive) = (head.body, head.keep_alive);
                    return Poll::Ready(Ok(head.response));
                }
                let interim = self.interim.insert(self.interim.unwrap_or_default() + head.length);
                if *interim > HEAD {
                    return Poll::Ready(Err(HttpError::Protocol(format!("{interim} bytes of heads before the last"))));
                }
                continue;
            }
            let more = ready!(self.poll_read(cx, |this, bytes| {
                this.wire.extend_from_slice(bytes);
                !bytes.is_empty()
            }))?;
            if !more {
                return Poll::Ready(Err(HttpError::Closed));
            }
        }
    }

    /// Writes what is left of the request. Ready when nothing is, or nothing more will be taken.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(unsent) = &mut self.unsent else { return Poll::Ready(()) };
        while !unsent.is_empty() && self.refused.is_none() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, unsent)) {
                Ok(0) => self.refused = Some(HttpError::Closed),
                Ok(count) => unsent.advance(count),
                Err(error) => self.refused = Some(classify(&error)),
            }
        }
        if self.refused.is_none() {
            if let Err(error) = ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                self.refused = Some(classify(&error));
            } else {
                self.unsent = None;
            }
        }
        Poll::Ready(())
    }
}

/// Sorts what the socket or TLS says.
pub(super) fn classify(error: &io::Error) -> HttpError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            HttpError::Reset
        }
        // How TLS says that the peer has closed without a word.
        io::ErrorKind::UnexpectedEof => HttpError::Closed,
        _ if error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) => HttpError::Tls(error.to_string()),
        _ => HttpError::Protocol(error.to_string()),
    }
}
