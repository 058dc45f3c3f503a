//! HTTP/1.1 over hyper's connection API, driven by the task that reads the response.
//!
//! The connection is polled in the same place as the body, so that a frame and the stamp of the
//! read that completed it are taken together: hyper's body channel holds one frame, and a stamp
//! read any later would belong to the next.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::connect::{ConnectError, ConnectTimes, Endpoint, Stream};
use super::socket::Traffic;
use super::stamp::ReadStamp;
use crate::clock::Nanos;

/// hyper's read buffer, which bounds the response's headers too.
const BUFFER: usize = 16 << 10;

/// hyper's half of a connection: the future that reads and writes.
type Driven = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// One keep-alive connection.
pub struct HttpConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: Option<Pin<Box<Driven>>>,
    traffic: Rc<Traffic>,
    bell: Arc<Bell>,
    waker: Waker,
    /// How long connecting took.
    pub times: ConnectTimes,
}

/// Who is woken by a connection and its body: the task that reads, unless it is just polling them.
///
/// Taking a frame out of hyper's body channel wakes the connection, which is polled next in any case. As a wake-up
/// of the task it would have every token polled twice.
#[derive(Default)]
struct Bell {
    polling: AtomicBool,
    rung: AtomicBool,
    reader: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.polling.load(Relaxed) {
            self.rung.store(true, Relaxed);
        } else {
            self.reader.wake();
        }
    }
}

/// A piece of a response body with the stamp of the read that completed it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The bytes.
    pub data: Bytes,
    /// When they arrived.
    pub stamp: ReadStamp,
}

/// What went wrong on an open connection.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Closed by the peer before a response began.
    #[error("the connection was closed before a response")]
    Closed,
    /// Closed by the peer in the middle of a response.
    #[error("the connection was closed in the middle of the response")]
    Truncated,
    /// Reset by the peer.
    #[error("the connection was reset")]
    Reset,
    /// Not HTTP/1.1 as the standard has it.
    #[error("not HTTP/1.1: {0}")]
    Protocol(String),
}

impl HttpConnection {
    /// Connects to an endpoint.
    ///
    /// # Errors
    /// What failed: name, TCP, TLS or the time limit.
    pub async fn open(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let (stream, traffic, times) = endpoint.connect().await?;
        let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
        // hyper's HTTP/1 handshake does no I/O and has nothing to fail on.
        let (sender, connection) = handshake
            .map_err(|error| ConnectError::Io { address: ([0, 0, 0, 0], 0).into(), source: io::Error::other(error) })?;
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        Ok(Self { sender, connection: Some(Box::pin(connection)), traffic, bell, waker, times })
    }

    /// Whether another request can be sent: the peer has not closed and the last response was
    /// read to its end. Looks at the socket, does not wait.
    pub fn is_usable(&mut self) -> bool {
        drive(&mut self.connection, &mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// What broke on the way.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, HttpError> {
        self.traffic.first_write.set(None);
        let mut response = pin!(self.sender.send_request(request));
        let connection = &mut self.connection;
        poll_fn(|cx| {
            drive(connection, cx);
            response.as_mut().poll(cx)
        })
        .await
        .map_err(|error| classify(&error, HttpError::Closed))
    }

    /// When the newest request's first byte was handed to the socket.
    pub fn sent_at(&self) -> Option<Nanos> {
        self.traffic.first_write.get()
    }

    /// When the newest read arrived.
    pub fn stamp(&self) -> ReadStamp {
        self.traffic.stamp.get()
    }

    /// The next piece of a response body; `None` at its end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>, body: &mut Incoming) -> Poll<Option<Result<Frame, HttpError>>> {
        self.bell.reader.register(cx.waker());
        self.bell.polling.store(true, Relaxed);
        let polled = self.poll_rung(body);
        self.bell.polling.store(false, Relaxed);
        polled
    }

    /// Polls connection and body until there is a frame, or neither has anything to do.
    fn poll_rung(&mut self, body: &mut Incoming) -> Poll<Option<Result<Frame, HttpError>>> {
        let cx = &mut Context::from_waker(&self.waker);
        let mut again = false;
        loop {
            self.bell.rung.store(false, Relaxed);
            drive(&mut self.connection, cx);
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => frame,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.bell.rung.load(Relaxed) && !again => {
                    again = true;
                    continue;
                }
                Poll::Pending => {
                    // Who rings on and on wants the others to have their turn: tokio does so after 128 reads.
                    if self.bell.rung.load(Relaxed) {
                        self.bell.reader.wake();
                    }
                    return Poll::Pending;
                }
            };
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => return Poll::Ready(Some(Ok(Frame { data, stamp: self.stamp() }))),
                Ok(Err(_trailers)) => {}
                Err(error) => return Poll::Ready(Some(Err(classify(&error, HttpError::Truncated)))),
            }
        }
    }
}

/// Drives reading and writing; a connection that has ended is dropped.
fn drive(connection: &mut Option<Pin<Box<Driven>>>, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|driven| driven.as_mut().poll(cx).is_ready()) {
        // Its error, if any, reaches the request or the body as well.
        *connection = None;
    }
}

/// Sorts hyper's errors; `ended` is what an end of the connection means here.
fn classify(error: &hyper::Error, ended: HttpError) -> HttpError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                    HttpError::Reset
                }
                io::ErrorKind::UnexpectedEof => ended,
                _ => HttpError::Protocol(io.to_string()),
            };
        }
        cause = inner.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() || error.is_body_write_aborted() {
        ended
    } else {
        HttpError::Protocol(error.to_string())
    }
}
