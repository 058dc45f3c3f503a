//! From an endpoint to a connected stream: name, TCP, TLS, each with its own time and its own failure.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
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
    offer: Alpn,
    addresses: OnceLock<Vec<SocketAddr>>,
    timeout: Duration,
}

/// What is offered to a server that TLS leads to (RFC 7301). Without TLS it is always HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1 only: `--http1`, and what begins as a request of HTTP/1.1 and goes on as something else.
    Http1,
    /// HTTP/2, and HTTP/1.1 for a server that does not have it, as browsers do.
    Http2,
}

impl Alpn {
    /// The protocols by their registered names, the preferred one first.
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
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

/// A connection that was just made.
pub(super) struct Connected {
    pub(super) stream: Stream,
    pub(super) traffic: Rc<Traffic>,
    pub(super) times: ConnectTimes,
    /// The address that answered.
    pub(super) address: SocketAddr,
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
    /// The endpoint of a URL; its path does not matter here. HTTP/2 is offered unless [`Self::offering`] says
    /// otherwise, whatever the TLS configuration would.
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
        Ok(Self { host, port, tls, offer: Alpn::Http2, addresses: OnceLock::new(), timeout })
    }

    /// The same with something else that is offered for HTTP.
    #[must_use]
    pub fn offering(self, offer: Alpn) -> Self {
        Self { offer, ..self }
    }

    /// What is offered for HTTP.
    pub(super) fn offer(&self) -> Alpn {
        self.offer
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

    /// Connects, with TLS where the endpoint wants it, which offers `offer`. Addresses are tried in the resolver's
    /// order; the last one's failure is told.
    pub(super) async fn connect(&self, offer: Alpn) -> Result<Connected, ConnectError> {
        let mut failure = None;
        for address in self.addresses().await? {
            let address = *address;
            match tokio::time::timeout(self.timeout, self.connect_to(address, offer)).await {
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

    async fn connect_to(&self, address: SocketAddr, offer: Alpn) -> Result<Connected, ConnectError> {
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
            let times = ConnectTimes { tcp, tls: None };
            return Ok(Connected { stream: Stream::Plain(socket), traffic, times, address });
        };
        let shaken = connector.with_alpn(offer.protocols()).connect(name.clone(), socket).await;
        let stream = Stream::Tls(Box::new(shaken.map_err(|source| ConnectError::Tls { address, source })?));
        let times = ConnectTimes { tcp, tls: Some(clock::monotonic() - connected) };
        Ok(Connected { stream, traffic, times, address })
    }
}

/// A connected stream, TLS or not.
pub(super) enum Stream {
    Plain(StampedSocket),
    Tls(Box<TlsStream<StampedSocket>>),
}

impl Stream {
    /// Whether the server chose HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(&b"h2"[..]),
        }
    }
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
