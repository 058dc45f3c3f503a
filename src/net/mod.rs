//! Connections: TCP sockets whose reads carry the kernel's receive stamps, TLS, HTTP/1.1 on them, and decoders of
//! server-sent events and of lines. Framing and decoding do no I/O.

mod client;
mod connect;
mod framing;
mod http;
pub mod lines;
mod socket;
pub mod sse;
mod stamp;
mod tls;

pub use client::{read_bounded, shared_client};
pub use connect::{ConnectError, ConnectTimes, Endpoint, EndpointError};
pub use http::{HttpConnection, HttpError, Progress};
pub use stamp::{ReadStamp, clock_stepped, loop_turned, refresh_pairing};
pub use tls::{TlsError, TlsSettings, client_config};
