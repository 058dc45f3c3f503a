//! Who the virtual users are: accounts of the deployment, and what lets them in.

mod list;
mod store;

pub use list::{ListError, new_list, read_list, write_list};
pub use store::{Belongings, Store, StoreError};

use crate::secret::Secret;

/// The domain of accounts that were made for a test: reserved (RFC 2606), so nobody's.
const DOMAIN: &str = "capacity-check.test";

/// What lets a user in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Address and password, for a login.
    Password {
        /// The address.
        email: String,
        /// The password.
        password: Secret,
    },
    /// Whom to mint a bearer token for, with the deployment's secret.
    Minted {
        /// The user's id in the deployment.
        id: String,
        /// The address.
        email: String,
        /// The name.
        username: String,
    },
    /// A bearer token that somebody else issued. It cannot be renewed.
    Bearer(Secret),
    /// Cookies that a single sign-on left in a browser, as a `Cookie` header has them.
    Cookies(Secret),
}

impl Credentials {
    /// The address or id, where there is one, for messages.
    pub fn name(&self) -> &str {
        match self {
            Self::Password { email, .. } | Self::Minted { email, .. } => email,
            Self::Bearer(_) => "a pre-issued token",
            Self::Cookies(_) => "pre-issued cookies",
        }
    }

    /// Whether being let in asks the deployment.
    pub fn asks(&self) -> bool {
        matches!(self, Self::Password { .. } | Self::Cookies(_))
    }

    /// What of it must not be shown.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Password { password: secret, .. } | Self::Bearer(secret) | Self::Cookies(secret) => Some(secret),
            Self::Minted { .. } => None,
        }
    }
}

/// The address of the `number`th account made under a mark, such as `cc-load1-7@capacity-check.test`.
pub fn marked_email(mark: &str, number: u32) -> String {
    format!("cc-{mark}-{number}@{DOMAIN}")
}

/// What stands before the `@`: the name of who has such an address.
pub fn local_part(email: &str) -> &str {
    email.split('@').next().unwrap_or(email)
}

/// A regular expression for the addresses made under a mark, or under any.
pub fn marked_pattern(mark: Option<&str>) -> String {
    let mark = mark.unwrap_or("[a-z0-9]+");
    format!("^cc-{mark}-[0-9]+@{}$", DOMAIN.replace('.', "\\."))
}

/// Reads a mark: short, and of letters and digits alone, so that it fits an address and a pattern.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_mark(text: &str) -> Result<String, String> {
    let fine = (1..=24).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fine { Ok(text.to_owned()) } else { Err(format!("`{text}` should be 1 to 24 small letters and digits")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_harmless_in_addresses_and_patterns() {
        assert_eq!(marked_email("load1", 7), "cc-load1-7@capacity-check.test");
        assert_eq!(marked_pattern(Some("load1")), "^cc-load1-[0-9]+@capacity-check\\.test$");
        assert!(marked_pattern(None).contains("[a-z0-9]+"));
        for wrong in ["", "a.b", "A", "x-y", "*", &"a".repeat(25)] {
            assert!(parse_mark(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_mark("load1"), Ok("load1".to_owned()));
    }
}
