//! From an endpoint to a connected stream: name, TCP, a proxy's tunnel, TLS, with their times and their own failures.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::route::{Route, authority};
use super::socket::{StampedSocket, Traffic};
use super::tunnel::open_tunnel;
use crate::clock::{self, Nanos};

/// Where to connect and by which way: a host, the addresses of it or of its proxy once they are known, TLS or not.
#[derive(Debug)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: Option<(TlsConnectorDebug, ServerName<'static>)>,
    offer: Alpn,
    route: Route,
    /// Connections that were tried: each comes from the next source address.
    tried: AtomicUsize,
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
    /// The TCP handshake; where a proxy is between, that with it and the opening of its tunnel.
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
    /// A name of its own that TLS cannot ask for.
    #[error("`{0}` is no name that TLS can ask for")]
    ServerName(String),
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
    /// The proxy refuses the connection, or to open a tunnel.
    #[error("the proxy {address} gives no connection to the target: {said}")]
    Proxy {
        /// The proxy's address.
        address: SocketAddr,
        /// What the system said of it, or what it answered.
        said: String,
    },
    /// No tunnel, or no answer through it, within the connect timeout, TLS included.
    #[error("the proxy {address} gave no connection to the target within {} s", .timeout.as_secs_f64())]
    ProxyTimeout {
        /// The proxy's address.
        address: SocketAddr,
        /// The limit.
        timeout: Duration,
    },
    /// The TLS handshake failed.
    #[error("TLS with {peer} failed: {source}")]
    Tls {
        /// The address; through a proxy, the host and port that it was asked for.
        peer: String,
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
    /// The endpoint of a URL, by the plain way; its path does not matter here. HTTP/2 is offered unless
    /// [`Self::offering`] says otherwise, whatever the TLS configuration would.
    ///
    /// # Errors
    /// When the URL is not `http(s)` or has no host.
    pub fn new(url: &Url, tls: &Arc<ClientConfig>, timeout: Duration) -> Result<Self, EndpointError> {
        Self::routed(url, tls, Route::default(), timeout)
    }

    /// The endpoint of a URL, by a way of its own.
    ///
    /// # Errors
    /// When the URL is not `http(s)` or has no host, or TLS cannot ask for the route's name.
    pub fn routed(url: &Url, tls: &Arc<ClientConfig>, route: Route, timeout: Duration) -> Result<Self, EndpointError> {
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(EndpointError::Scheme(other.to_owned())),
        };
        let host = url.host_str().ok_or_else(|| EndpointError::Host(url.to_string()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure {
            let name = match &route.sni {
                Some(name) => {
                    ServerName::try_from(name.clone()).map_err(|_| EndpointError::ServerName(name.clone()))?
                }
                None => ServerName::try_from(host.clone()).map_err(|_| EndpointError::Host(host.clone()))?,
            };
            Some((TlsConnectorDebug(TlsConnector::from(Arc::clone(tls))), name))
        } else {
            None
        };
        let tried = AtomicUsize::new(0);
        Ok(Self { host, port, tls, offer: Alpn::Http2, route, tried, addresses: OnceLock::new(), timeout })
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

    /// Where TCP connects to: the proxy, where there is one.
    fn hop(&self) -> (&str, u16) {
        match &self.route.proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (self.host.as_str(), self.port),
        }
    }

    /// The hop's addresses, looked up once and kept, so that the resolver is no part of the load.
    async fn addresses(&self) -> Result<&[SocketAddr], ConnectError> {
        if self.addresses.get().is_none() {
            let (host, port) = self.hop();
            let failed = |source| ConnectError::Dns { host: host.to_owned(), source };
            let mut found = self.route.pinned(host, port);
            if found.is_empty() {
                found = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
            }
            found.retain(|address| self.route.reaches(address));
            if found.is_empty() {
                let why = if self.route.source_addresses.is_empty() {
                    "no address"
                } else {
                    "no address of the family of the source addresses"
                };
                return Err(failed(io::Error::new(io::ErrorKind::NotFound, why)));
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
                Err(_) => failure = Some(self.timed_out(address)),
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::Dns {
            host: self.host.clone(),
            source: io::Error::new(io::ErrorKind::NotFound, "no address"),
        }))
    }

    async fn connect_to(&self, address: SocketAddr, offer: Alpn) -> Result<Connected, ConnectError> {
        let started = clock::monotonic();
        let source = self.route.source(self.tried.fetch_add(1, Relaxed));
        let socket = StampedSocket::connect(address, source, self.tls.is_none()).await;
        let mut socket = socket.map_err(|error| self.not_connected(address, error))?;
        if let Some(proxy) = &self.route.proxy {
            let opened = open_tunnel(&mut socket, &self.tunnel_end(), proxy.credentials.as_ref()).await;
            opened.map_err(|error| ConnectError::Proxy { address, said: error.to_string() })?;
        }
        let connected = clock::monotonic();
        let traffic = socket.traffic();
        let tcp = connected - started;
        let Some((TlsConnectorDebug(connector), name)) = &self.tls else {
            let times = ConnectTimes { tcp, tls: None };
            return Ok(Connected { stream: Stream::Plain(socket), traffic, times, address });
        };
        let shaken = connector.with_alpn(offer.protocols()).connect(name.clone(), socket).await;
        let shaken = shaken.map_err(|source| ConnectError::Tls { peer: self.peer(address), source })?;
        let (stream, times) =
            (Stream::Tls(Box::new(shaken)), ConnectTimes { tcp, tls: Some(clock::monotonic() - connected) });
        Ok(Connected { stream, traffic, times, address })
    }

    /// What a proxy is asked for: an address that is said for the host, else the host, which the proxy resolves.
    fn tunnel_end(&self) -> String {
        let pinned = self.route.pinned(&self.host, self.port);
        pinned.first().map_or_else(|| authority(&self.host, self.port), SocketAddr::to_string)
    }

    /// Who is at the other end of a connection to an address.
    fn peer(&self, address: SocketAddr) -> String {
        if self.route.proxy.is_some() { self.tunnel_end() } else { address.to_string() }
    }

    /// Why there is no TCP connection.
    fn not_connected(&self, address: SocketAddr, source: io::Error) -> ConnectError {
        match source.kind() {
            io::ErrorKind::TimedOut => self.timed_out(address),
            _ if self.route.proxy.is_some() => ConnectError::Proxy { address, said: source.to_string() },
            io::ErrorKind::ConnectionRefused => ConnectError::Refused { address },
            _ => ConnectError::Io { address, source },
        }
    }

    fn timed_out(&self, address: SocketAddr) -> ConnectError {
        let timeout = self.timeout;
        match self.route.proxy {
            Some(_) => ConnectError::ProxyTimeout { address, timeout },
            None => ConnectError::Timeout { address, timeout },
        }
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
