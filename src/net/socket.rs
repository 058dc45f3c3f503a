//! A TCP socket whose reads go through `recvmsg` and keep their receive stamp.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use mock_llm::receive::stamp_arrivals;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::stamp::{self, ReadStamp};
use crate::clock::{self, Nanos};

/// What a socket tells about its traffic beside the bytes; shared with whoever reads the stream above it.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// The stamp of the newest read.
    pub(super) stamp: Cell<ReadStamp>,
    /// When the first byte was handed to the socket since this was last cleared.
    pub(super) first_write: Cell<Option<Nanos>>,
}

/// A connected TCP socket.
pub(super) struct StampedSocket {
    stream: TcpStream,
    traffic: Rc<Traffic>,
    /// Whether stamps may say that a read ended with a line; beneath TLS it cannot be seen.
    plain: bool,
}

impl StampedSocket {
    /// Connects, from a local address where one is said; `plain` is false where TLS comes on top.
    pub(super) async fn connect(address: SocketAddr, source: Option<IpAddr>, plain: bool) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_nodelay(true)?;
        stamp_arrivals(&socket)?;
        if let Some(source) = source {
            // The port is chosen at connect, when the peer is known: at bind it would be taken from all peers. A
            // system that cannot do that has fewer ports, no other behaviour.
            let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        Ok(Self { stream, traffic: Rc::default(), plain })
    }

    pub(super) fn traffic(&self) -> Rc<Traffic> {
        Rc::clone(&self.traffic)
    }
}

impl AsyncRead for StampedSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let previous = this.traffic.stamp.get();
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            let mut received = Err(Errno::EAGAIN);
            // Its own result only repeats what `received` says.
            let _ = this.stream.try_io(Interest::READABLE, || {
                received = stamp::receive(&this.stream, buffer.initialize_unfilled(), previous);
                match received {
                    // A short read has drained the socket, and epoll tells the next arrival
                    // again. Saying so here saves a read that would only say EAGAIN.
                    Ok((_, ReadStamp { drained: true, .. })) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            });
            match received {
                Ok((count, mut stamp)) => {
                    buffer.advance(count);
                    stamp.whole &= this.plain;
                    this.traffic.stamp.set(stamp);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::EAGAIN) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for StampedSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let now = clock::monotonic();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        if written.is_ok() && this.traffic.first_write.get().is_none() {
            this.traffic.first_write.set(Some(now));
        }
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
