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
        let one = |part: &str| {
            let rest = part.split_once("://").map_or(part, |(_, rest)| rest);
            let rest = rest.split(['/', '?']).next().unwrap_or_default();
            rest.rsplit_once('@').map_or(rest, |(_, host)| host).trim().to_owned()
        };
        let parts = self.0.split(',').filter(|_| self.0.contains("://"));
        escaped(&parts.map(one).collect::<Vec<_>>().join(","), 200)
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

/// Takes a connection string and its password out of a foreign text.
pub fn without_url_secrets(text: &str, url: &Secret) -> String {
    let credentials = url.expose().split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    let password = credentials.and_then(|(who, _)| who.split_once(':')).map(|(_, password)| Secret::new(password));
    let secrets: Vec<Secret> = [url.clone()].into_iter().chain(password).collect();
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
    }

    #[test]
    fn hosts_have_no_secret() {
        let hosts = |url: &str| Secret::new(url).hosts();
        assert_eq!(hosts("mongodb://ann:hunter2@a:1,b:2/LibreChat?x=1"), "a:1,b:2");
        assert_eq!(hosts("mongodb+srv://c.example.net"), "c.example.net");
        assert_eq!(hosts("rediss://ann:x@a:1, rediss://ann:x@b:2"), "a:1,b:2");
        assert_eq!(hosts("redis+sentinel://:hunter2@s:26379/mymaster"), "s:26379");
        assert_eq!(hosts("nonsense, hunter2"), "");
    }

    #[test]
    fn hostile_text_is_harmless_in_a_terminal() {
        assert_eq!(escaped("a\x1b[31mred\u{202e}\n", 99), "a\\u{1b}[31mred\\u{202e}");
        assert_eq!(escaped(&"x".repeat(300), 200).chars().count(), 201);
    }
}
