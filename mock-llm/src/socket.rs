//! A server-side socket as hyper reads and writes it, which knows when a request came and can end in a TCP reset.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::receive::{Received, Receiver};

thread_local! {
    /// One buffer for all sockets of a thread: hyper hands out uninitialised memory, and a safe read wants
    /// initialised.
    static READ: RefCell<(Receiver, Vec<u8>)> = RefCell::new((Receiver::default(), vec![0; 16 << 10]));
}

/// What a connection's socket and its requests tell each other.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Set to have the connection reset instead of closed.
    pub(crate) reset: Cell<bool>,
    /// When the newest read's last bytes came, since the Unix epoch.
    arrived: Cell<Option<Duration>>,
}

impl Line {
    /// How long ago the newest bytes came. Zero where the kernel does not say, or its clock was stepped back since.
    pub(crate) fn lag(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.arrived.get().map_or(Duration::ZERO, |arrived| now.saturating_sub(arrived))
    }
}

/// An accepted connection.
pub(crate) struct Socket {
    stream: TcpStream,
    line: Rc<Line>,
}

impl Socket {
    /// Takes an accepted stream over; when the line is set to reset on drop, the peer sees a reset.
    pub(crate) fn new(stream: std::net::TcpStream, line: Rc<Line>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: TcpStream::from_std(stream)?, line })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.line.reset.get() {
            // Closing with a linger of zero sends RST instead of FIN. If it fails, the peer
            // sees a truncated stream instead, and the journal's test would show it.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        READ.with_borrow_mut(|(receiver, bytes)| {
            let room = out.remaining().min(bytes.len());
            loop {
                ready!(this.stream.poll_read_ready(cx))?;
                let received = this.stream.try_io(Interest::READABLE, || {
                    receiver.receive(&this.stream, &mut bytes[..room]).map_err(io::Error::from)
                });
                match received {
                    Ok(Received { count, stamp, .. }) => {
                        this.line.arrived.set(stamp);
                        out.put_slice(&bytes[..count]);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.line.reset.get() {
            // A shutdown would send FIN ahead of the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
