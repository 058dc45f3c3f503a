//! The opening handshake (RFC 6455, section 4): what is asked, and whether the answer fits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use super::Opening;
use super::deflate::{OFFER, Terms};

/// What the key is joined with before it is hashed (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why there is no upgrade.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The server answered with something else.
    #[error("the server answered the upgrade with {status}: {text}")]
    Refused {
        /// Its status.
        status: u16,
        /// Its headers.
        headers: Box<HeaderMap>,
        /// The beginning of its body.
        text: String,
    },
    /// It chose a subprotocol that was not offered, or none of those that were.
    #[error("the server chose the subprotocol {got:?}, offered were {offered:?}")]
    Subprotocol {
        /// What was offered.
        offered: Vec<String>,
        /// What it chose.
        got: Option<String>,
    },
    /// It answered 101, but not as the standard has it; or the request cannot be made.
    #[error("no WebSocket handshake as the standard has it: {0}")]
    Malformed(String),
}

/// What was agreed on.
pub(super) struct Agreed {
    pub(super) subprotocol: Option<String>,
    pub(super) deflate: Option<Terms>,
}

/// A key for one handshake.
pub(super) fn key() -> String {
    STANDARD.encode(random::<16>())
}

/// Bytes that nobody can foresee (RFC 6455, 10.3).
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    // Linux gives random bytes to whoever asks, once it has started.
    filled.expect("the system has random bytes");
    bytes
}

/// Adds what asks for the upgrade.
pub(super) fn ask(headers: &mut HeaderMap, key: &str, opening: &Opening<'_>) -> Result<(), UpgradeError> {
    let mut set = |name: HeaderName, value: &str| {
        let value = HeaderValue::from_str(value)
            .map_err(|_| UpgradeError::Malformed(format!("the header {name} cannot carry `{value}`")))?;
        headers.insert(name, value);
        Ok(())
    };
    set(header::CONNECTION, "Upgrade")?;
    set(header::UPGRADE, "websocket")?;
    set(header::SEC_WEBSOCKET_VERSION, "13")?;
    set(header::SEC_WEBSOCKET_KEY, key)?;
    if !opening.subprotocols.is_empty() {
        set(header::SEC_WEBSOCKET_PROTOCOL, &opening.subprotocols.join(", "))?;
    }
    if opening.deflate {
        set(header::SEC_WEBSOCKET_EXTENSIONS, OFFER)?;
    }
    Ok(())
}

/// Whether a 101 is the upgrade that was asked for (RFC 6455, 4.1).
pub(super) fn check(response: &Response<()>, key: &str, opening: &Opening<'_>) -> Result<Agreed, UpgradeError> {
    let headers = response.headers();
    let malformed = |what: String| Err(UpgradeError::Malformed(what));
    if !has_word(headers, header::UPGRADE, "websocket") || !has_word(headers, header::CONNECTION, "upgrade") {
        return malformed("101 without `Upgrade: websocket` and `Connection: Upgrade`".to_owned());
    }
    if headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes) != Some(accept(key).as_bytes()) {
        return malformed("Sec-WebSocket-Accept is not the answer to our key".to_owned());
    }
    let deflate = extensions(headers, opening).map_err(UpgradeError::Malformed)?;
    Ok(Agreed { subprotocol: subprotocol(headers, opening)?, deflate })
}

/// The answer to a key.
fn accept(key: &str) -> String {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    STANDARD.encode(hash)
}

fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|said| said.trim().eq_ignore_ascii_case(word))
}

fn subprotocol(headers: &HeaderMap, opening: &Opening<'_>) -> Result<Option<String>, UpgradeError> {
    let mut chosen = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let got = chosen.next().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let fits = match &got {
        Some(got) => opening.subprotocols.contains(got) && chosen.next().is_none(),
        // Browsers go on without one; a scenario that names one wants it.
        None => opening.subprotocols.is_empty(),
    };
    if fits { Ok(got) } else { Err(UpgradeError::Subprotocol { offered: opening.subprotocols.to_vec(), got }) }
}

/// The terms of permessage-deflate, where the server takes the offer up.
fn extensions(headers: &HeaderMap, opening: &Opening<'_>) -> Result<Option<Terms>, String> {
    let mut agreed = None;
    for value in headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS) {
        let text = value.to_str().map_err(|_| "Sec-WebSocket-Extensions that is no text".to_owned())?;
        for extension in text.split(',').map(str::trim).filter(|extension| !extension.is_empty()) {
            if !opening.deflate || agreed.is_some() {
                return Err(format!("the extension `{extension}`, which was not offered"));
            }
            agreed = Some(Terms::read(extension)?);
        }
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn checked(offer: (&[&str], bool), fields: &[(&str, &str)]) -> Result<(Option<String>, bool), String> {
        let none = HeaderMap::new();
        let subprotocols: Vec<String> = offer.0.iter().map(|name| (*name).to_owned()).collect();
        let opening = Opening {
            uri: "/".parse().unwrap(),
            headers: &none,
            subprotocols: &subprotocols,
            deflate: offer.1,
            message_limit: 1,
        };
        let mut response = Response::new(());
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            response.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        let agreed = check(&response, KEY, &opening).map_err(|error| error.to_string())?;
        Ok((agreed.subprotocol, agreed.deflate.is_some()))
    }

    const GOOD: [(&str, &str); 3] =
        [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"), ("sec-websocket-accept", ACCEPT)];

    fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        GOOD.iter().copied().chain(more.iter().copied()).collect()
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        assert_eq!(accept(KEY), ACCEPT);
        assert_eq!(checked((&[], false), &GOOD), Ok((None, false)));
        let chosen = with(&[("sec-websocket-protocol", "chat.v1"), ("sec-websocket-extensions", "permessage-deflate")]);
        assert_eq!(checked((&["chat.v2", "chat.v1"], true), &chosen), Ok((Some("chat.v1".to_owned()), true)));
    }

    #[test]
    fn what_was_not_offered_is_refused() {
        let told = |offer: (&[&str], bool), fields: &[(&str, &str)]| checked(offer, fields).unwrap_err();
        let other = with(&[("sec-websocket-protocol", "other")]);
        assert!(told((&["chat"], false), &other).contains("chose the subprotocol Some(\"other\")"));
        assert!(told((&[], false), &other).contains("offered were []"));
        assert!(told((&["chat"], false), &GOOD).contains("chose the subprotocol None"));
        let deflate = with(&[("sec-websocket-extensions", "permessage-deflate")]);
        assert!(told((&[], false), &deflate).contains("was not offered"));
        let twice = with(&[("sec-websocket-extensions", "permessage-deflate, permessage-deflate")]);
        assert!(told((&[], true), &twice).contains("was not offered"));
        assert!(told((&[], false), &GOOD[1..]).contains("without `Upgrade"));
        let wrong = [GOOD[0], GOOD[1], ("sec-websocket-accept", "x")];
        assert!(told((&[], false), &wrong).contains("our key"));
    }
}
