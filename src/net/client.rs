//! The one shared client for everything that is not a stream: models, health, the mock's admin listener.

use std::time::Duration;

use rustls::ClientConfig;

/// How long such a request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The client, with the streams' TLS configuration, without proxies and redirects: what is asked
/// is what was named.
///
/// # Errors
/// When reqwest cannot be set up.
pub fn shared_client(tls: &ClientConfig) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT)
        .user_agent(concat!("capacity-check/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Reads a body up to `most` bytes.
///
/// # Errors
/// When the connection breaks.
pub async fn read_bounded(mut response: reqwest::Response, most: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]);
        if body.len() == most {
            break;
        }
    }
    Ok(body)
}
