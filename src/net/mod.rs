//! Connections: TCP sockets whose reads carry the kernel's receive stamps, TLS, HTTP/1.1 and HTTP/2 on them, and a
//! decoder of server-sent events. Framing and decoding do no I/O.

mod client;
mod connect;
mod framing;
mod http;
mod http1;
mod http2;
mod socket;
pub mod sse;
mod stamp;
mod tls;

pub use client::{read_bounded, shared_client};
pub use connect::{Alpn, ConnectError, ConnectTimes, Endpoint, EndpointError};
pub use http::{HttpConnection, HttpError, Progress};
pub use stamp::{ReadStamp, clock_stepped, loop_turned, refresh_pairing};
pub use tls::{TlsError, TlsSettings, client_config};
