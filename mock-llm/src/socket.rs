//! A server-side socket as hyper reads and writes it, which can end in a TCP reset.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// An accepted connection.
pub(crate) struct Socket {
    stream: TcpStream,
    reset: Rc<Cell<bool>>,
}

impl Socket {
    /// Takes an accepted stream over; when `reset` is set on drop, the peer sees a reset.
    pub(crate) fn new(stream: std::net::TcpStream, reset: Rc<Cell<bool>>) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: TcpStream::from_std(stream)?, reset })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.get() {
            // Closing with a linger of zero sends RST instead of FIN. If it fails, the peer
            // sees a truncated stream instead, and the journal's test would show it.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let room = out.remaining().min(bytes.len());
        let mut buffer = ReadBuf::new(&mut bytes[..room]);
        let polled = Pin::new(&mut self.get_mut().stream).poll_read(cx, &mut buffer);
        polled.map_ok(|()| out.put_slice(buffer.filled()))
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
        if this.reset.get() {
            // A shutdown would send FIN ahead of the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
