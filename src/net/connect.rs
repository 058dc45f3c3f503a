//! From an endpoint to a connected stream: name, TCP, TLS, each with its own time and its own failure.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::socket::{StampedSocket, Traffic};
use crate::clock::{self, Nanos};

/// Where to connect: a host, its addresses once they are known, and TLS or not.
#[derive(Debug)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: Option<(TlsConnectorDebug, ServerName<'static>)>,
    addresses: OnceLock<Vec<SocketAddr>>,
    timeout: Duration,
}

/// `TlsConnector` has no `Debug`.
struct TlsConnectorDebug(TlsConnector);

impl std::fmt::Debug for TlsConnectorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

/// How long the parts of a connection took, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectTimes {
    /// The TCP handshake.
    pub tcp: Nanos,
    /// The TLS handshake, where there is one.
    pub tls: Option<Nanos>,
}

/// Why a URL is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not `http` or `https`.
    #[error("`{0}` is not http or https")]
    Scheme(String),
    /// No host, or one that TLS cannot name.
    #[error("`{0}` has no usable host")]
    Host(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("the name {host} does not resolve: {source}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("{address} refuses the connection")]
    Refused {
        /// The address.
        address: SocketAddr,
    },
    /// No answer within the connect timeout, TCP and TLS together.
    #[error("{address} did not answer within {} s", .timeout.as_secs_f64())]
    Timeout {
        /// The address.
        address: SocketAddr,
        /// The limit.
        timeout: Duration,
    },
    /// The TLS handshake failed.
    #[error("TLS with {address} failed: {source}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// What rustls said.
        source: io::Error,
    },
    /// Anything else that the system says.
    #[error("cannot connect to {address}: {source}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Endpoint {
    /// The endpoint of a URL; its path does not matter here.
    ///
    /// # Errors
    /// When the URL is not `http(s)` or has no host.
    pub fn new(url: &Url, tls: &Arc<ClientConfig>, timeout: Duration) -> Result<Self, EndpointError> {
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(EndpointError::Scheme(other.to_owned())),
        };
        let host = url.host_str().ok_or_else(|| EndpointError::Host(url.to_string()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure {
            let name = ServerName::try_from(host.clone()).map_err(|_| EndpointError::Host(host.clone()))?;
            Some((TlsConnectorDebug(TlsConnector::from(Arc::clone(tls))), name))
        } else {
            None
        };
        Ok(Self { host, port, tls, addresses: OnceLock::new(), timeout })
    }

    /// The addresses, looked up once and kept, so that the resolver is no part of the load.
    async fn addresses(&self) -> Result<&[SocketAddr], ConnectError> {
        if self.addresses.get().is_none() {
            let failed = |source| ConnectError::Dns { host: self.host.clone(), source };
            let found: Vec<_> =
                tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(failed)?.collect();
            if found.is_empty() {
                return Err(failed(io::Error::new(io::ErrorKind::NotFound, "no address")));
            }
            // Another user may have been faster; both found the same.
            let _ = self.addresses.set(found);
        }
        Ok(self.addresses.get().map_or(&[], Vec::as_slice))
    }

    /// Connects, with TLS where the endpoint wants it. Addresses are tried in the resolver's
    /// order; the last one's failure is told.
    pub(super) async fn connect(&self) -> Result<(Stream, std::rc::Rc<Traffic>, ConnectTimes), ConnectError> {
        let mut failure = None;
        for address in self.addresses().await? {
            let address = *address;
            match tokio::time::timeout(self.timeout, self.connect_to(address)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => failure = Some(error),
                Err(_) => failure = Some(ConnectError::Timeout { address, timeout: self.timeout }),
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::Dns {
            host: self.host.clone(),
            source: io::Error::new(io::ErrorKind::NotFound, "no address"),
        }))
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
    ) -> Result<(Stream, std::rc::Rc<Traffic>, ConnectTimes), ConnectError> {
        let started = clock::monotonic();
        let socket =
            StampedSocket::connect(address, self.tls.is_none()).await.map_err(|source| match source.kind() {
                io::ErrorKind::ConnectionRefused => ConnectError::Refused { address },
                io::ErrorKind::TimedOut => ConnectError::Timeout { address, timeout: self.timeout },
                _ => ConnectError::Io { address, source },
            })?;
        let connected = clock::monotonic();
        let traffic = socket.traffic();
        let tcp = connected - started;
        let Some((TlsConnectorDebug(connector), name)) = &self.tls else {
            return Ok((Stream::Plain(socket), traffic, ConnectTimes { tcp, tls: None }));
        };
        let stream =
            connector.connect(name.clone(), socket).await.map_err(|source| ConnectError::Tls { address, source })?;
        let tls = Some(clock::monotonic() - connected);
        Ok((Stream::Tls(Box::new(stream)), traffic, ConnectTimes { tcp, tls }))
    }
}

/// A connected stream, TLS or not.
pub(super) enum Stream {
    Plain(StampedSocket),
    Tls(Box<TlsStream<StampedSocket>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            // Not its `poll_read`, which reads on until the buffer is full: the first of what it gave out would bear
            // the stamp of the last.
            Self::Tls(stream) => {
                let mut stream = Pin::new(stream.as_mut());
                let bytes = ready!(stream.as_mut().poll_fill_buf(cx))?;
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..count]);
                stream.consume(count);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
