//! The client for what is beside the target: the mock's admin listener, metrics. The target itself is asked by
//! [`super::fetch`].

use std::time::Duration;

use rustls::ClientConfig;
use url::Url;

use super::route::Route;

/// How long such a request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The client, with the streams' TLS configuration, without proxies and redirects: what is asked
/// is what was named.
///
/// # Errors
/// When reqwest cannot be set up.
pub fn shared_client(tls: &ClientConfig) -> reqwest::Result<reqwest::Client> {
    builder(tls).build()
}

/// The client for one URL beside the target, by the target's way as far as it concerns it (see [`Route::aside`]):
/// addresses that are said for its host, the first source address, and the proxy, which plain requests cross as the
/// proxy's own requests (RFC 9112, 3.2.2).
///
/// # Errors
/// When reqwest cannot be set up.
pub fn routed_client(tls: &ClientConfig, route: &Route, url: &Url) -> reqwest::Result<reqwest::Client> {
    let route = route.aside(url);
    let mut builder = builder(tls);
    if let (Some(host), Some(port)) = (url.domain(), url.port_or_known_default()) {
        let pinned = route.pinned(host, port);
        if !pinned.is_empty() {
            builder = builder.resolve_to_addrs(host, &pinned);
        }
    }
    if let Some(source) = route.source_addresses.first() {
        builder = builder.local_address(*source);
    }
    if let Some(proxy) = &route.proxy {
        let mut through = reqwest::Proxy::all(proxy.url())?;
        let credentials = proxy.credentials.as_ref().and_then(|credentials| credentials.expose().split_once(':'));
        if let Some((user, password)) = credentials {
            through = through.basic_auth(user, password);
        }
        builder = builder.proxy(through);
    }
    builder.build()
}

fn builder(tls: &ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(LIMIT)
        .user_agent(concat!("capacity-check/", env!("CARGO_PKG_VERSION")))
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
