//! Bearer tokens: JSON Web Tokens with HS256 (RFC 7519, RFC 7515), as LibreChat signs them with
//! `JWT_SECRET`. The tool mints its own with the same secret.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

/// What a token says about its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user's id.
    pub id: String,
    /// The user's name.
    #[serde(default)]
    pub username: String,
    /// Where the account comes from.
    #[serde(default)]
    pub provider: String,
    /// The user's address.
    #[serde(default)]
    pub email: String,
    /// Issued at, in seconds since 1970.
    #[serde(default)]
    pub iat: u64,
    /// Ends at, in seconds since 1970.
    pub exp: u64,
}

impl Claims {
    /// Of a token that is issued now and lives so long.
    pub fn lasting(id: &str, username: &str, email: &str, life: Duration) -> Self {
        let iat = unix_seconds();
        Self {
            id: id.to_owned(),
            username: username.to_owned(),
            provider: "local".to_owned(),
            email: email.to_owned(),
            iat,
            exp: iat + life.as_secs(),
        }
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No JSON Web Token at all.
    #[error("not a JSON Web Token")]
    Form,
    /// Signed with another secret or another algorithm.
    #[error("the signature does not fit")]
    Signature,
    /// Its time is over.
    #[error("expired")]
    Expired,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

/// Signs a token.
pub fn sign(claims: &Claims, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let payload = serde_json::to_vec(claims).unwrap_or_default();
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(&key(secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Checks a token at a moment (seconds since 1970).
///
/// # Errors
/// Why it is refused.
pub fn verify(token: &str, secret: &str, now: u64) -> Result<Claims, TokenError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
    let (header, _) = signed.split_once('.').ok_or(TokenError::Form)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Form)?;
    if header.alg != "HS256" {
        return Err(TokenError::Signature);
    }
    hmac::verify(&key(secret), signed.as_bytes(), &decode(signature)?).map_err(|_| TokenError::Signature)?;
    let claims = read(token)?;
    if claims.exp <= now { Err(TokenError::Expired) } else { Ok(claims) }
}

/// What a token says, unchecked: for its holder, who does not know the secret.
///
/// # Errors
/// When it is no token.
pub fn read(token: &str) -> Result<Claims, TokenError> {
    let payload = token.split('.').nth(1).ok_or(TokenError::Form)?;
    serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Form)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Form)
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_jwt_io_verifies() {
        // The well-known example token, whose payload has no `id` and no `exp` of ours.
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
        assert_eq!(
            verify(token, "your-256-bit-secret", 0),
            Err(TokenError::Form),
            "signed well, but no claims of ours"
        );
        assert_eq!(verify(token, "another", 0), Err(TokenError::Signature));
    }

    #[test]
    fn a_token_lives_until_its_end_and_cannot_be_altered() {
        let claims = Claims {
            id: "1".to_owned(),
            username: "u".to_owned(),
            provider: "local".to_owned(),
            email: "u@x.test".to_owned(),
            iat: 100,
            exp: 1_000,
        };
        let token = sign(&claims, "secret");
        assert_eq!(verify(&token, "secret", 999), Ok(claims.clone()));
        assert_eq!(verify(&token, "secret", 1_000), Err(TokenError::Expired));
        let forged = sign(&Claims { exp: 9_000, ..claims }, "guess");
        assert_eq!(verify(&forged, "secret", 1), Err(TokenError::Signature));
        assert_eq!(verify("a.b", "secret", 1), Err(TokenError::Form));
        let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), token.split('.').nth(1).unwrap());
        assert_eq!(verify(&none, "secret", 1), Err(TokenError::Signature));
    }
}
