//! A text that must never be shown.

use std::fmt;

use serde::{Serialize, Serializer};

/// What a secret looks like wherever it is printed.
const REDACTED: &str = "[redacted]";

/// A password, key or token. `Debug` and `Serialize` redact it; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The hosts of a connection string, `host:port` apart by commas: no user, no password. Of a text that is none,
    /// nothing.
    pub fn hosts(&self) -> String {
        // What stands before the last @ is user and password, whatever is in it; behind it nothing secret is left.
        let hosts = |part: &str| {
            let rest = part.rsplit_once('@').map_or(part, |(_, hosts)| hosts);
            rest.split(['/', '?']).next().unwrap_or_default().to_owned()
        };
        let all: Vec<String> = url_parts(&self.0).map(hosts).collect();
        let shown = all.iter().flat_map(|hosts| hosts.split(',')).map(str::trim).filter(|host| is_host(host));
        escaped(&shown.collect::<Vec<_>>().join(","), 200)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Takes secrets out of a foreign text: a target may repeat what it was sent.
pub fn redacted(text: &str, secrets: &[Secret]) -> String {
    // A very short value would take harmless words with it, and is no secret worth the name.
    let worth = secrets.iter().filter(|secret| secret.0.len() >= 4);
    worth.fold(text.to_owned(), |text, secret| text.replace(&secret.0, REDACTED))
}

/// The parts of a list of URLs, each without its scheme. A comma may stand within a password, so it is only before a
/// scheme that one part ends.
fn url_parts(text: &str) -> impl Iterator<Item = &str> {
    let parts: Vec<&str> = text.split("://").collect();
    let last = parts.len().saturating_sub(1);
    let without_next = move |(index, part): (usize, &'_ str)| -> usize {
        if index == last { part.len() } else { part.rfind(',').unwrap_or(0) }
    };
    let ends: Vec<usize> = parts.iter().copied().enumerate().map(without_next).collect();
    parts.into_iter().zip(ends).skip(1).map(|(part, end)| &part[..end])
}

/// Whether a text can be nothing but `host` or `host:port`.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port),
        _ => (text, "0"),
    };
    let of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    !host.is_empty() && host.chars().all(of_host) && port.parse::<u16>().is_ok()
}

/// Takes a connection string and its passwords, as they are written and as they are meant, out of a foreign text.
pub fn without_url_secrets(text: &str, url: &Secret) -> String {
    let credentials = url_parts(url.expose()).filter_map(|part| part.rsplit_once('@'));
    let passwords = credentials.filter_map(|(who, _)| who.split_once(':')).map(|(_, password)| password);
    let meant = |password: &str| percent_encoding::percent_decode_str(password).decode_utf8_lossy().into_owned();
    let both = passwords.flat_map(|password| [password.to_owned(), meant(password)]);
    let secrets: Vec<Secret> = [url.clone()].into_iter().chain(both.map(Secret::new)).collect();
    redacted(text, &secrets)
}

/// A text from outside, fit for a terminal or a report: control characters escaped, cut to
/// `most` characters.
pub fn escaped(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (index, c) in text.trim().chars().enumerate() {
        if index == most {
            out.push('…');
            break;
        }
        // Besides controls: the marks that reorder text or hide in it.
        let hidden =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || hidden {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nowhere() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), REDACTED);
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_target_that_repeats_a_secret_is_not_quoted() {
        let secrets = [Secret::new("sk-12345"), Secret::new("")];
        assert_eq!(redacted("bad key sk-12345, Bearer sk-12345!", &secrets), "bad key [redacted], Bearer [redacted]!");
    }

    #[test]
    fn a_connection_string_is_not_quoted_nor_its_password() {
        let url = Secret::new("mongodb://ann:hunter2@host:1/db");
        let said = without_url_secrets("cannot reach mongodb://ann:hunter2@host:1/db (hunter2)", &url);
        assert_eq!(said, "cannot reach [redacted] ([redacted])");
        let several = Secret::new("rediss://ann:first-pw@a:1,rediss://bob:p%40ss-two@b:2");
        let said = without_url_secrets("first-pw, p%40ss-two and p@ss-two", &several);
        assert_eq!(said, "[redacted], [redacted] and [redacted]");
    }

    #[test]
    fn hosts_have_no_secret() {
        let hosts = |url: &str| Secret::new(url).hosts();
        assert_eq!(hosts("mongodb://ann:hunter2@a:1,b:2/LibreChat?x=1"), "a:1,b:2");
        assert_eq!(hosts("mongodb+srv://c.example.net"), "c.example.net");
        assert_eq!(hosts("rediss://ann:x@a:1, rediss://ann:x@b:2"), "a:1,b:2");
        assert_eq!(hosts("redis+sentinel://:hunter2@s:26379/mymaster"), "s:26379");
        assert_eq!(hosts("nonsense, hunter2"), "");
        // Passwords that somebody forgot to encode.
        assert_eq!(hosts("mongodb://ann:hunt,er2@db:1/x"), "db:1");
        assert_eq!(hosts("mongodb://ann:hun/ter2@db/x?y=z"), "db");
        assert_eq!(hosts("redis://:pa?ss@h"), "h");
        assert_eq!(hosts("redis://:pass"), "", "no port is a word");
        assert_eq!(hosts("mongodb://[::1]:27017/x"), "[::1]:27017");
    }

    #[test]
    fn hostile_text_is_harmless_in_a_terminal() {
        assert_eq!(escaped("a\x1b[31mred\u{202e}\n", 99), "a\\u{1b}[31mred\\u{202e}");
        assert_eq!(escaped(&"x".repeat(300), 200).chars().count(), 201);
    }
}
