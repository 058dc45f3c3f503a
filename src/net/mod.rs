//! Connections: TCP sockets whose reads carry the kernel's receive stamps, the way to a target, TLS, HTTP/1.1, HTTP/2 and
//! WebSocket on them, and decoders of server-sent events and of lines. Framing and decoding do no I/O.

mod client;
mod connect;
mod fetch;
mod framing;
mod http;
mod http1;
mod http2;
pub mod lines;
mod route;
mod scratch;
mod socket;
pub mod sse;
mod stamp;
mod tls;
mod tunnel;
mod websocket;

pub use client::{read_bounded, routed_client, shared_client};
pub use connect::{Alpn, ConnectError, ConnectTimes, Endpoint, EndpointError};
pub use fetch::{FetchError, Fetcher};
pub use http::{HttpConnection, HttpError, Progress};
pub use route::{PROXY_AUTH_VARIABLE, Pin, Proxy, Route};
pub use stamp::{ReadStamp, clock_stepped, loop_turned, refresh_pairing};
pub use tls::{TlsError, TlsSettings, client_config};
pub use websocket::{Incoming, OpenError, Opening, Outgoing, SocketError, UpgradeError, WebSocket};
