//! Connections: TCP sockets whose reads carry the kernel's receive stamps, TLS, HTTP/1.1 over
//! hyper's connection API, and a decoder of server-sent events that does no I/O.

mod client;
mod connect;
mod http;
mod socket;
pub mod sse;
mod stamp;
mod tls;

pub use client::{read_bounded, shared_client};
pub use connect::{ConnectError, ConnectTimes, Endpoint, EndpointError};
pub use http::{Frame, HttpConnection, HttpError};
pub use stamp::{ReadStamp, clock_stepped, loop_turned, refresh_pairing};
pub use tls::{TlsError, TlsSettings, client_config};
