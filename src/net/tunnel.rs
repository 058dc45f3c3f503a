//! A tunnel through an HTTP proxy by `CONNECT` (RFC 9110, 9.3.6), for targets with TLS and without: what comes out of
//! it was sent by the target, and the stamps of its reads are those of a socket of our own.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::framing::{HEAD, Head, Malformed};
use super::route::PROXY_AUTH_VARIABLE;
use crate::secret::Secret;

/// Why a proxy opened no tunnel. Nothing of it is a text of the proxy's own.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    /// It wants other credentials than those that were sent, or any.
    #[error("it answered 407 Proxy Authentication Required; its credentials are read from {}", PROXY_AUTH_VARIABLE)]
    Credentials,
    /// It refuses.
    #[error("it answered {0} to CONNECT")]
    Refused(StatusCode),
    /// It closed the connection without an answer.
    #[error("it closed the connection before an answer to CONNECT")]
    Closed,
    /// Its answer is not HTTP.
    #[error("its answer to CONNECT is not HTTP/1.1: {0}")]
    Malformed(String),
    /// It speaks in the tunnel before anybody was asked.
    #[error("it sent more than an answer to CONNECT")]
    Chatter,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Malformed> for TunnelError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}

/// Asks for a tunnel to `authority` (`host:port`) and waits until it is open.
///
/// # Errors
/// What the proxy answered instead.
pub(super) async fn open_tunnel(
    proxy: &mut (impl AsyncRead + AsyncWrite + Unpin),
    authority: &str,
    credentials: Option<&Secret>,
) -> Result<(), TunnelError> {
    proxy.write_all(request(authority, credentials).as_bytes()).await?;
    proxy.flush().await?;
    let (mut wire, mut interim) = (Vec::new(), 0);
    loop {
        let Some(head) = Head::read(&wire)? else {
            wire.reserve(1 << 10);
            if proxy.read_buf(&mut wire).await? == 0 {
                return Err(TunnelError::Closed);
            }
            continue;
        };
        wire.drain(..head.length);
        match head.response.status() {
            // The length of a body that it may name means nothing here.
            status if status.is_success() && wire.is_empty() => return Ok(()),
            status if status.is_success() => return Err(TunnelError::Chatter),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => return Err(TunnelError::Credentials),
            status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {
                interim += head.length;
                if interim > HEAD {
                    return Err(TunnelError::Malformed(format!("{interim} bytes of heads before the last")));
                }
            }
            status => return Err(TunnelError::Refused(status)),
        }
    }
}

fn request(authority: &str, credentials: Option<&Secret>) -> String {
    // RFC 7617: Basic is user and password, joined by a colon, in base64.
    let credentials = credentials.map(|credentials| STANDARD.encode(credentials.expose()));
    let authorization = credentials.map(|encoded| format!("Proxy-Authorization: Basic {encoded}\r\n"));
    format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: capacity-check/{}\r\n{}\r\n",
        env!("CARGO_PKG_VERSION"),
        authorization.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of an answer, in one piece or byte by byte; and what was asked.
    fn answered(answer: &[u8], piece: usize) -> (Result<(), TunnelError>, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
            let credentials = Secret::new("user:pass word");
            let proxy = async {
                let mut asked = vec![0; 4 << 10];
                let count = theirs.read(&mut asked).await.unwrap();
                for part in answer.chunks(piece) {
                    // Who has heard enough reads no more.
                    let _ = theirs.write_all(part).await;
                    tokio::task::yield_now().await;
                }
                drop(theirs);
                String::from_utf8(asked[..count].to_vec()).unwrap()
            };
            tokio::join!(open_tunnel(&mut ours, "chat.test:443", Some(&credentials)), proxy)
        })
    }

    #[test]
    fn a_tunnel_is_asked_for_as_the_standards_have_it() {
        let (opened, asked) = answered(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 squid\r\n\r\n", 1 << 10);
        assert!(opened.is_ok(), "{opened:?}");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            asked,
            format!(
                "CONNECT chat.test:443 HTTP/1.1\r\nHost: chat.test:443\r\nUser-Agent: capacity-check/{version}\r\n\
                 Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n\r\n"
            )
        );
        assert!(!request("chat.test:443", None).contains("Authorization"));
    }

    #[test]
    fn every_answer_has_its_meaning_however_it_comes() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(HEAD));
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000);
        for (answer, expected) in [
            ("HTTP/1.0 200 OK\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", None),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", None),
            ("HTTP/1.1 403 Forbidden by Dragons\r\n\r\nno", Some("it answered 403 Forbidden to CONNECT")),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", Some("it answered 502 Bad Gateway to CONNECT")),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Some("101")),
            ("HTTP/1.1 407 Who?\r\n\r\n", Some("407 Proxy Authentication Required; its credentials are read from CAP")),
            ("HTTP/1.1 200 OK\r\n\r\nSSH-2.0", Some("more than an answer")),
            ("HTTP/1.1 200", Some("closed the connection")),
            ("SSH-2.0-OpenSSH\r\n", Some("not HTTP/1.1")),
            (long.as_str(), Some("a head larger than")),
            (hints.as_str(), Some("bytes of heads before the last")),
        ] {
            for piece in [64 << 10, 7] {
                let (opened, _) = answered(answer.as_bytes(), piece);
                match (opened, expected) {
                    (Ok(()), None) => {}
                    (Err(error), Some(expected)) => {
                        let said = error.to_string();
                        assert!(said.contains(expected) && !said.contains("Dragons"), "{said}");
                    }
                    // Byte by byte the chatter may come only once the tunnel is open, and is the target's then.
                    (Ok(()), Some("more than an answer")) if piece == 7 => {}
                    (opened, expected) => panic!("{answer:.60}: {opened:?}, not {expected:?}"),
                }
            }
        }
    }
}
