//! HTTP/2 (RFC 9113) over TLS, beside [`super::http1`]: one connection, driven by a task of its own, on which streams
//! are opened one after the other or at once.
//!
//! h2 itself, not hyper: a body is polled where it is read, without a channel between, and a stream that is dropped is
//! reset while the connection stays, as when somebody leaves a page.
//!
//! Stamps are taken in user space: a read of the socket may hold pieces of several streams and of the connection's own
//! frames, so the kernel's stamp of it is nobody's. The upper bound is the moment at which the stream's reader got a
//! piece. The lower bound comes from the socket all the same: what a stream did not have when it was last asked cannot
//! have come with an earlier read.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use tokio::task::JoinHandle;

use super::connect::Stream;
use super::framing::HEAD;
use super::http::{HttpError, Progress};
use super::socket::Traffic;
use super::stamp::ReadStamp;
use crate::clock::{self, Nanos};

/// What a server may send on a stream, and on a connection, before any of it was used. Chromium's windows: with
/// smaller ones a server that waits for a window would be slower here than for the users whom we play.
const STREAM_WINDOW: u32 = 6 << 20;
const CONNECTION_WINDOW: u32 = 15 << 20;

/// One's hold of a connection, with the stream of its newest request.
pub(super) struct Http2 {
    sender: SendRequest<Bytes>,
    link: Rc<Link>,
    /// What is still to come of the newest response.
    body: Option<(RecvStream, OpenStream)>,
    /// Whether anything was said to the newest request.
    answered: bool,
    /// When the newest request was handed to h2.
    asked: Option<Nanos>,
    /// Whether no other stream was open then, so that the next write is its own.
    alone: bool,
    /// The socket's newest read when the stream last had nothing.
    seen: ReadStamp,
    /// When the newest piece arrived.
    stamp: ReadStamp,
}

/// What all share who use a connection. It ends with the last of them.
struct Link {
    traffic: Rc<Traffic>,
    /// Streams that are open.
    open: Cell<usize>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        // Without a farewell: it may be a server that reads nothing any more which is given up here.
        self.task.abort();
    }
}

/// Counts a stream while it is open.
struct OpenStream(Rc<Link>);

impl OpenStream {
    fn new(link: &Rc<Link>) -> Self {
        link.open.set(link.open.get() + 1);
        Self(Rc::clone(link))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

impl Http2 {
    /// Begins on a stream that has just been connected; what the server says is not waited for.
    ///
    /// # Errors
    /// When the socket takes nothing.
    pub(super) async fn begin(stream: Stream, traffic: Rc<Traffic>) -> io::Result<Self> {
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD as u32)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| {
                let told = error.to_string();
                error.into_io().unwrap_or_else(|| io::Error::other(told))
            })?;
        let task = tokio::task::spawn_local(async move {
            // Its streams are told what went wrong.
            let _ = connection.await;
        });
        Ok(Self::holding(sender, Rc::new(Link { traffic, open: Cell::new(0), task })))
    }

    fn holding(sender: SendRequest<Bytes>, link: Rc<Link>) -> Self {
        let (seen, stamp) = (ReadStamp::default(), ReadStamp::default());
        Self { sender, link, body: None, answered: false, asked: None, alone: false, seen, stamp }
    }

    /// Another hold of the same connection.
    pub(super) fn another(&self) -> Self {
        Self::holding(self.sender.clone(), Rc::clone(&self.link))
    }

    /// Gives up what is left of the newest response; tells whether the server takes more requests.
    pub(super) fn is_usable(&mut self) -> bool {
        self.body = None;
        // A GOAWAY, an error and the end of the connection are all told here.
        let polled = self.sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.link.task.is_finished() && !matches!(polled, Poll::Ready(Err(_)))
    }

    /// Sends a request, which has its host among its headers, and waits for the response's head.
    ///
    /// # Errors
    /// What broke on the way. [`HttpError::Closed`]: the server has not looked at the request.
    pub(super) async fn send(&mut self, request: &Request<Bytes>) -> Result<Response<()>, HttpError> {
        (self.body, self.answered, self.asked) = (None, false, None);
        let head = head(request)?;
        self.exchange(head, request.body().clone()).await.map_err(|error| {
            // A stream that the server has reset was looked at, unless it says otherwise.
            self.answered = error.is_reset() && error.reason() != Some(Reason::REFUSED_STREAM);
            classify(&error, false)
        })
    }

    async fn exchange(&mut self, head: Request<()>, body: Bytes) -> Result<Response<()>, h2::Error> {
        poll_fn(|cx| self.sender.poll_ready(cx)).await?;
        self.alone = self.link.open.get() == 0;
        let open = OpenStream::new(&self.link);
        if self.alone {
            self.link.traffic.first_write.set(None);
        }
        self.asked = Some(clock::monotonic());
        let (mut response, mut upload) = self.sender.send_request(head, body.is_empty())?;
        if !body.is_empty() {
            // Kept by h2 until the server's window takes it.
            upload.send_data(body, true)?;
        }
        let response = poll_fn(|cx| {
            let newest = self.link.traffic.stamp.get();
            let polled = Pin::new(&mut response).poll(cx);
            if polled.is_pending() {
                self.seen = newest;
            }
            polled
        })
        .await?;
        self.answered = true;
        // From here on the next write may be another's.
        (self.asked, self.alone) = (self.sent_at(), false);
        let (parts, body) = response.into_parts();
        self.body = Some((body, open));
        Ok(Response::from_parts(parts, ()))
    }

    /// Whether nothing at all was said to the newest request.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.answered
    }

    /// When the newest request's first byte was handed to the socket, where its stream was the only one; beside others
    /// it cannot be told whose bytes a write has, and it is when the request was handed to h2, which is earlier.
    pub(super) fn sent_at(&self) -> Option<Nanos> {
        if self.alone { self.asked.and(self.link.traffic.first_write.get()) } else { self.asked }
    }

    /// When the newest piece arrived.
    pub(super) fn stamp(&self) -> ReadStamp {
        self.stamp
    }

    /// Hands the next piece of the response's body to `take`, where it has come. What was taken may come again: the
    /// window is opened by as much.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8], ReadStamp) -> ControlFlow<()>,
    ) -> Poll<Result<Progress, HttpError>> {
        let Some((body, _)) = &mut self.body else { return Poll::Ready(Ok(Progress::End)) };
        let newest = self.link.traffic.stamp.get();
        let polled = body.poll_data(cx);
        if polled.is_pending() {
            self.seen = newest;
        }
        let piece = ready!(polled);
        self.stamp = arrival(self.seen, newest, clock::monotonic());
        let progress = match piece {
            Some(Ok(data)) => {
                if !data.is_empty() {
                    let _ = take(&data, self.stamp);
                }
                // It fails for more than was received, which this is not.
                let _ = body.flow_control().release_capacity(data.len());
                if body.is_end_stream() { Ok(Progress::End) } else { Ok(Progress::More) }
            }
            None => Ok(Progress::End),
            Some(Err(error)) => Err(classify(&error, true)),
        };
        if !matches!(progress, Ok(Progress::More)) {
            self.body = None;
        }
        Poll::Ready(progress)
    }
}

/// The stamp of a piece that a stream has at `now`, and had not yet when the socket's newest read was `seen`; now it
/// is `newest`. The number is the read's: what a reader finds at once is one arrival.
fn arrival(seen: ReadStamp, newest: ReadStamp, now: Nanos) -> ReadStamp {
    let earliest = match (newest.read <= seen.read + 1, seen.drained) {
        // One read brought it.
        (true, _) => newest.earliest,
        // One of several did; the first of them found an empty socket behind the one before, or did not.
        (false, true) => seen.returned,
        (false, false) => seen.earliest,
    };
    let earliest = earliest.min(now);
    ReadStamp { read: newest.read, latest: now, earliest, returned: now, kernel: false, whole: false, drained: true }
}

/// The head of a request as HTTP/2 has it: the host as the authority, and no field that speaks of the connection
/// (RFC 9113, 8.2.2 and 8.3.1).
fn head(request: &Request<Bytes>) -> Result<Request<()>, HttpError> {
    let host = request.headers().get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let authority = Authority::try_from(host)
        .map_err(|error| HttpError::Protocol(format!("the host that the request is for: {error}")))?;
    let target = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query(target).build();
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = uri.map_err(|error| HttpError::Protocol(error.to_string()))?;
    *head.version_mut() = Version::HTTP_2;
    let fields = request.headers().iter().filter(|(name, _)| !is_of_connection(name));
    head.headers_mut().extend(fields.map(|(name, value)| (name.clone(), value.clone())));
    // As over HTTP/1.1, and as browsers do.
    if !request.body().is_empty() || *request.method() == Method::POST {
        head.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(request.body().len()));
    }
    Ok(head)
}

/// Whether HTTP/2 says what a field says in another way, or not at all.
fn is_of_connection(name: &HeaderName) -> bool {
    let names = ["connection", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];
    names.contains(&name.as_str())
}

/// Sorts what h2 says: before a response's head, or once it has `begun`.
fn classify(error: &h2::Error, begun: bool) -> HttpError {
    let gone = if begun { HttpError::Truncated } else { HttpError::Closed };
    if let Some(source) = error.get_io() {
        return match source.kind() {
            // The first is how h2 tells a stream of the connection's end, the second how TLS does.
            io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => gone,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => HttpError::Reset,
            // h2 keeps only the kind and the text of what TLS says.
            io::ErrorKind::InvalidData => HttpError::Tls(error.to_string()),
            _ => HttpError::Protocol(error.to_string()),
        };
    }
    match (error.is_remote(), error.is_go_away(), error.reason()) {
        // Only streams that the server has not taken up end with its GOAWAY (RFC 9113, 6.8).
        (true, true, _) | (true, false, Some(Reason::REFUSED_STREAM)) => gone,
        (true, false, _) => HttpError::Reset,
        _ => HttpError::Protocol(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use h2::SendStream;
    use h2::server::{self, SendResponse};
    use tokio::net::TcpListener;

    use super::super::socket::StampedSocket;
    use super::*;

    /// More than both windows.
    const LARGE: usize = 20 << 20;

    /// Answers a request by its path; what is not to end is kept. False: no further request is wanted.
    fn answer(
        request: &Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        kept: &mut Vec<SendStream<Bytes>>,
    ) -> bool {
        let uri = request.uri();
        assert_eq!((uri.scheme_str(), uri.host()), (Some("https"), Some("host.test")));
        assert_eq!(request.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
        let reset = match uri.path() {
            "/refused" => Some(Reason::REFUSED_STREAM),
            "/failed" => Some(Reason::INTERNAL_ERROR),
            _ => None,
        };
        if let Some(reason) = reset {
            respond.send_reset(reason);
            return true;
        }
        let (text, ends) = match uri.path() {
            "/large" => (Bytes::from(vec![b'x'; LARGE]), true),
            path => (Bytes::copy_from_slice(path.as_bytes()), path != "/open"),
        };
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(text, ends).unwrap();
        if !ends {
            kept.push(stream);
        }
        uri.path() != "/last"
    }

    /// Speaks with a server on a connection without TLS, as both know what is spoken.
    fn with_server(speak: impl AsyncFnOnce(Http2)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::task::spawn_local(async move {
                let (socket, _) = listener.accept().await.unwrap();
                let mut connection = server::handshake(socket).await.unwrap();
                let mut kept = Vec::new();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    if !answer(&request, respond, &mut kept) {
                        connection.graceful_shutdown();
                    }
                }
            });
            let socket = StampedSocket::connect(address, None, false).await.unwrap();
            let traffic = socket.traffic();
            speak(Http2::begin(Stream::Plain(socket), traffic).await.unwrap()).await;
        });
    }

    fn get(path: &str) -> Request<Bytes> {
        let request = Request::get(path).header("host", "host.test").header("connection", "keep-alive");
        request.header("accept", "*/*").body(Bytes::new()).unwrap()
    }

    /// The whole body of the newest response.
    async fn body(connection: &mut Http2) -> Result<Vec<u8>, HttpError> {
        let mut bytes = Vec::new();
        loop {
            let piece = poll_fn(|cx| {
                connection.poll_body(cx, |data, stamp| {
                    assert!(!stamp.kernel && stamp.earliest <= stamp.latest && stamp.read > 0, "{stamp:?}");
                    bytes.extend_from_slice(data);
                    ControlFlow::Continue(())
                })
            });
            if piece.await? == Progress::End {
                return Ok(bytes);
            }
        }
    }

    #[test]
    fn streams_share_a_connection_and_are_given_up_alone() {
        with_server(async |mut one| {
            let before = clock::monotonic();
            one.send(&get("/open")).await.unwrap();
            assert!(one.sent_at().is_some_and(|sent| sent >= before));
            let mut two = one.another();
            two.send(&get("/second")).await.unwrap();
            assert!(two.sent_at() >= one.sent_at() && one.link.open.get() == 2);
            assert_eq!(body(&mut two).await.unwrap(), b"/second");
            assert_eq!(one.link.open.get(), 1);
            assert!(one.is_usable() && two.is_usable());
            assert_eq!(one.link.open.get(), 0, "the open stream was given up");
            one.send(&get("/third")).await.unwrap();
            assert_eq!(body(&mut one).await.unwrap(), b"/third");
        });
    }

    #[test]
    fn what_is_taken_opens_the_window_again() {
        with_server(async |mut connection| {
            connection.send(&get("/large")).await.unwrap();
            assert_eq!(body(&mut connection).await.unwrap().len(), LARGE);
        });
    }

    #[test]
    fn what_was_refused_can_be_sent_again_and_what_failed_cannot() {
        with_server(async |mut connection| {
            let refused = connection.send(&get("/refused")).await;
            assert!(matches!(refused, Err(HttpError::Closed)), "{refused:?}");
            assert!(connection.is_unanswered() && connection.is_usable());
            let failed = connection.send(&get("/failed")).await;
            assert!(matches!(failed, Err(HttpError::Reset)), "{failed:?}");
            assert!(!connection.is_unanswered() && connection.is_usable());
            let unfit = connection.send(&Request::new(Bytes::new())).await;
            assert!(matches!(unfit, Err(HttpError::Protocol(_))), "{unfit:?}");
        });
    }

    #[test]
    fn nothing_more_is_sent_where_the_server_goes_away() {
        with_server(async |mut connection| {
            connection.send(&get("/last")).await.unwrap();
            assert_eq!(body(&mut connection).await.unwrap(), b"/last");
            while connection.is_usable() {
                tokio::task::yield_now().await;
            }
            let late = connection.send(&get("/late")).await;
            assert!(matches!(late, Err(HttpError::Closed)), "{late:?}");
            assert!(connection.is_unanswered());
        });
    }

    #[test]
    fn a_piece_came_after_the_stream_was_last_empty() {
        let read = |read, earliest, returned, drained| {
            let unknown = ReadStamp::default();
            ReadStamp { read, earliest, returned, drained, ..unknown }
        };
        let seen = read(4, 10, 30, true);
        let came = |seen, newest| arrival(seen, newest, 100);
        assert_eq!((came(seen, read(5, 40, 60, true)).earliest, came(seen, read(6, 70, 80, true)).earliest), (40, 30));
        assert_eq!(came(read(4, 10, 30, false), read(6, 70, 80, true)).earliest, 10);
        // What had been read before, and was not unpacked.
        let again = came(seen, seen);
        assert_eq!((again.read, again.earliest, again.latest, again.returned, again.kernel), (4, 10, 100, 100, false));
    }

    #[test]
    fn a_body_has_its_length_and_no_field_of_the_connection_is_sent() {
        let request = Request::post("/a?b=c").header("host", "[::1]:8080").header("te", "gzip").header("upgrade", "x");
        let head = head(&request.header("cookie", "a=b").body(Bytes::from_static(b"four")).unwrap()).unwrap();
        assert_eq!(head.uri(), "https://[::1]:8080/a?b=c");
        let mut fields: Vec<_> = head.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        fields.sort_unstable();
        assert_eq!(fields, [("content-length", &b"4"[..]), ("cookie", &b"a=b"[..])]);
    }
}
