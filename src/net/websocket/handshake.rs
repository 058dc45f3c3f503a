//! The upgrade of an HTTP connection to WebSocket: what is asked, and whether the answer is one (RFC 6455, section 4).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::super::framing::words;
use super::deflate::{Agreed, OFFER};

/// What a server adds to the key to show that it knows WebSocket (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    /// The path and query; the rest of it does not matter.
    pub uri: Uri,
    /// The request's own headers, the host among them. Those of the upgrade are added.
    pub headers: &'a HeaderMap,
    /// The subprotocols that are offered, the preferred one first; one of them is chosen, if there are any.
    pub subprotocols: &'a [String],
    /// Whether compressed messages are offered (permessage-deflate, RFC 7692).
    pub deflate: bool,
    /// The most bytes that a message of the server may have, as it comes and inflated.
    pub message_limit: usize,
}

/// Why an open connection does not become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// Another status than 101.
    #[error("the upgrade to WebSocket was answered with {status}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The beginning of what the server says to it, at most 16 KiB.
        text: String,
    },
    /// Another subprotocol than those offered, or none of them.
    #[error("the server speaks {}; {} offered", chosen(.got.as_deref()), listed(.offered))]
    Subprotocol {
        /// What was offered.
        offered: Vec<String>,
        /// What the server chose.
        got: Option<String>,
    },
    /// What the standard does not allow, in words.
    #[error("no upgrade to WebSocket: {0}")]
    Malformed(String),
}

fn chosen(got: Option<&str>) -> String {
    got.map_or_else(|| "no subprotocol".to_owned(), |got| format!("the subprotocol `{got}`"))
}

fn listed(offered: &[String]) -> String {
    match offered {
        [] => "none was".to_owned(),
        [one] => format!("`{one}` was"),
        more => format!("`{}` were", more.join("`, `")),
    }
}

/// What an upgrade has agreed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) subprotocol: Option<String>,
    pub(super) deflate: Option<Agreed>,
}

/// A key of 16 random bytes.
pub(super) fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// What a server makes of a key.
fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

/// The request for an upgrade (RFC 6455, 4.1).
pub(super) fn request(opening: &Opening<'_>, key: &str) -> Result<Request<Bytes>, UpgradeError> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = opening.uri.clone();
    let headers = request.headers_mut();
    headers.clone_from(opening.headers);
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| UpgradeError::Malformed(format!("`{text}` cannot be sent in a header")))
    };
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_KEY, value(key)?);
    if opening.subprotocols.is_empty() {
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    } else {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value(&opening.subprotocols.join(", "))?);
    }
    if opening.deflate {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(OFFER));
    } else {
        headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    }
    Ok(request)
}

/// Whether an answer with 101 is one to this key and offer (RFC 6455, 4.1, the client's requirements 2 to 6).
pub(super) fn check(response: &Response<()>, key: &str, opening: &Opening<'_>) -> Result<Terms, UpgradeError> {
    let headers = response.headers();
    let malformed = |what: &str| Err(UpgradeError::Malformed(what.to_owned()));
    let says = |name: HeaderName, word: &str| words(headers, name).any(|said| said.eq_ignore_ascii_case(word));
    if !says(header::UPGRADE, "websocket") {
        return malformed("the answer's `Upgrade` is not `websocket`");
    }
    if !says(header::CONNECTION, "upgrade") {
        return malformed("the answer's `Connection` is not `Upgrade`");
    }
    if only(headers, &header::SEC_WEBSOCKET_ACCEPT)? != Some(accept(key).as_str()) {
        return malformed("the answer's `Sec-WebSocket-Accept` does not belong to the key");
    }
    let got = only(headers, &header::SEC_WEBSOCKET_PROTOCOL)?;
    let agreed = match got {
        Some(got) => opening.subprotocols.iter().any(|offered| offered == got),
        // Browsers, too, take no answer for a refusal where some were offered.
        None => opening.subprotocols.is_empty(),
    };
    if !agreed {
        let (offered, got) = (opening.subprotocols.to_vec(), got.map(str::to_owned));
        return Err(UpgradeError::Subprotocol { offered, got });
    }
    let deflate = match only(headers, &header::SEC_WEBSOCKET_EXTENSIONS)? {
        Some(answer) if opening.deflate => Some(Agreed::read(answer).map_err(UpgradeError::Malformed)?),
        Some(_) => return malformed("the answer names an extension, and none was offered"),
        None => None,
    };
    Ok(Terms { subprotocol: got.map(str::to_owned), deflate })
}

/// The value of a field that may be there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, UpgradeError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(value) => Ok(Some(value.trim())),
            Err(_) => Err(UpgradeError::Malformed(format!("the answer's `{name}` is no text"))),
        },
        _ => Err(UpgradeError::Malformed(format!("the answer has `{name}` more than once"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const UPGRADED: [(&str, &str); 3] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, UPGRADE"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];

    fn response(fields: &[(&str, &str)]) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            response.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        response
    }

    /// What comes of an answer that has these fields beside the three of every upgrade.
    fn terms(fields: &[(&str, &str)], subprotocols: &[&str], deflate: bool) -> Result<Terms, UpgradeError> {
        let subprotocols: Vec<String> = subprotocols.iter().map(|name| (*name).to_owned()).collect();
        let headers = HeaderMap::new();
        let opening = opening(&headers, &subprotocols, deflate);
        check(&response(&[&UPGRADED[..], fields].concat()), KEY, &opening)
    }

    fn opening<'a>(headers: &'a HeaderMap, subprotocols: &'a [String], deflate: bool) -> Opening<'a> {
        Opening { uri: Uri::from_static("/chat?x=1"), headers, subprotocols, deflate, message_limit: 100 }
    }

    #[test]
    fn the_key_is_answered_as_in_the_standard() {
        assert_eq!(key(*b"the sample nonce"), KEY);
        assert_eq!(accept(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_request_has_all_that_an_upgrade_needs() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("h:1"));
        headers.insert("origin", HeaderValue::from_static("http://h:1"));
        headers.insert("sec-websocket-extensions", HeaderValue::from_static("x-mine"));
        let (none, two) = (Vec::new(), vec!["chat.v2".to_owned(), "chat".to_owned()]);
        let full = request(&opening(&headers, &two, true), KEY).unwrap();
        let field = |request: &Request<Bytes>, name: &str| {
            request.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        for (name, expected) in [
            ("host", "h:1"),
            ("origin", "http://h:1"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-protocol", "chat.v2, chat"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ] {
            assert_eq!(field(&full, name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!((full.method().as_str(), full.uri().to_string()), ("GET", "/chat?x=1".to_owned()));
        let bare = request(&opening(&headers, &none, false), KEY).unwrap();
        assert_eq!(field(&bare, "sec-websocket-protocol"), None);
        assert_eq!(field(&bare, "sec-websocket-extensions"), None);
        let broken = ["a\nb".to_owned()];
        assert!(matches!(request(&opening(&headers, &broken, false), KEY), Err(UpgradeError::Malformed(_))));
    }

    #[test]
    fn an_answer_agrees_on_what_was_offered() {
        let plain = Terms { subprotocol: None, deflate: None };
        assert_eq!(terms(&[], &[], false), Ok(plain));
        let full = terms(
            &[("sec-websocket-protocol", "chat"), ("sec-websocket-extensions", "permessage-deflate")],
            &["chat.v2", "chat"],
            true,
        );
        let deflate = Agreed::read("permessage-deflate").ok();
        assert_eq!(full, Ok(Terms { subprotocol: Some("chat".to_owned()), deflate }));
        // A server need not compress.
        assert_eq!(terms(&[], &[], true).map(|terms| terms.deflate), Ok(None));
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        for missing in 0..UPGRADED.len() {
            let mut fields = UPGRADED.to_vec();
            fields.remove(missing);
            let headers = HeaderMap::new();
            let checked = check(&response(&fields), KEY, &opening(&headers, &[], false));
            assert!(matches!(checked, Err(UpgradeError::Malformed(_))), "{fields:?}");
        }
        for fields in [
            &[("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")][..],
            &[("sec-websocket-extensions", "permessage-bzip2")][..],
            &[("sec-websocket-extensions", "permessage-deflate; unknown")][..],
            &[("sec-websocket-extensions", "permessage-deflate"), ("sec-websocket-extensions", "x")][..],
        ] {
            assert!(matches!(terms(fields, &[], true), Err(UpgradeError::Malformed(_))), "{fields:?}");
        }
        let unasked = terms(&[("sec-websocket-extensions", "permessage-deflate")], &[], false);
        assert!(matches!(unasked, Err(UpgradeError::Malformed(_))));
        let other = [("sec-websocket-accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")];
        let fields = [&UPGRADED[..2], &other[..]].concat();
        let headers = HeaderMap::new();
        assert!(check(&response(&fields), KEY, &opening(&headers, &[], false)).is_err());
    }

    #[test]
    fn a_subprotocol_is_one_of_those_offered() {
        for (fields, offered, said) in [
            (&UPGRADED[..0], &["chat"][..], "the server speaks no subprotocol; `chat` was offered"),
            (
                &[("sec-websocket-protocol", "x")][..],
                &["chat"][..0],
                "the server speaks the subprotocol `x`; none was offered",
            ),
            (
                &[("sec-websocket-protocol", "Chat")][..],
                &["chat", "chat.v2"][..],
                "the server speaks the subprotocol `Chat`; `chat`, `chat.v2` were offered",
            ),
        ] {
            let error = terms(fields, offered, false).unwrap_err();
            assert!(matches!(error, UpgradeError::Subprotocol { .. }), "{error:?}");
            assert_eq!(error.to_string(), said);
        }
    }
}
